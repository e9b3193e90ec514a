"""Random crops of images of differing sizes, on which a network is trained."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from hybridseg.deep.prediction.pictures import Picture, Pictures
from hybridseg.deep.training.augment import Augment, Augmentation, zoomed

#: The most bytes of windows that are cut ahead from images that do not fit into memory.
_AHEAD = 1 << 28

#: The size of a random generator, in bytes, roughly.
_GENERATOR = 2000

#: Colors and labels of a part of a picture, and the generator that drew it.
Window = tuple[NDArray[Any], NDArray[Any], np.random.Generator]


class Crops(Dataset):
    """Random crops ``(colors (C, *size), labels (*size))``, each with a labeled pixel.

    Colors are augmented in standard deviations of the images, and then standardized by
    ``moments``, the mean and deviation that the network expects; labels are class indices, -1
    where there is none or the crop leaves the image. Crop number ``n`` of a training depends on the
    seed and ``n`` alone, and on no process and no order. The cost of a crop does not grow with the
    picture: where a picture must be read whole each time, the windows of many crops are cut at
    once, up to the last of the training's ``epochs``.
    """

    def __init__(
        self,
        pictures: Pictures,
        *,
        moments: tuple[NDArray[np.float32], NDArray[np.float32]],
        size: tuple[int, ...],
        crops_per_image: int,
        augment: Augment | None,
        seed: int,
        epochs: int = 1,
    ) -> None:
        self.pictures = pictures
        self.moments = moments
        self.size = size
        self.crops_per_image = crops_per_image
        self.augment = augment
        self.seed = seed
        self.epochs = epochs
        self._waiting: dict[int, dict[int, Window]] = {}
        self._given: dict[int, set[int]] = {}

    def __len__(self) -> int:
        return len(self.pictures) * self.crops_per_image

    def __getitem__(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        values, labels, rng = self._window(number)
        own = self.pictures.survey.mean, self.pictures.survey.std
        colors = (values.astype(np.float32) - own[0]) / own[1]
        colors, labels = zoomed(colors, labels, self.size)
        if self.augment is not None:
            colors, labels = self.augment(colors, labels, rng)
        if not all(map(np.array_equal, own, self.moments)):
            mean, std = self.moments
            colors = (colors * own[1] + (own[0] - mean)) / std
        channels_first = np.moveaxis(np.asarray(colors, dtype=np.float32), -1, 0)
        return np.ascontiguousarray(channels_first), np.ascontiguousarray(labels, dtype=np.int64)

    def _window(self, number: int) -> Window:
        """The window that a crop is made of, and the generator of its further random numbers."""
        i = number % len(self.pictures)
        if self.pictures.is_held(i):
            return self._cut(self.pictures[i], number)
        waiting = self._waiting.setdefault(i, {})
        if number not in waiting:
            waiting.clear()
            waiting.update(self._ahead(i, number))
        self._given.setdefault(i, set()).add(number)
        return waiting.pop(number)

    def _cut(self, picture: Picture, number: int) -> Window:
        rng = np.random.default_rng((self.seed, number))
        scale = self.augment.draw_scale(rng) if isinstance(self.augment, Augmentation) else 1.0
        zoom = picture.zoom or (1.0,) * len(self.size)
        window = tuple(
            max(1, round(side / scale / by)) for side, by in zip(self.size, zoom, strict=True)
        )
        return *cut(picture, window, rng), rng

    def _ahead(self, i: int, number: int) -> dict[int, Window]:
        """Read a picture that is not at hand, and cut what the next crops of it need.

        The crops of this epoch that have not been given yet come first, then those of the next
        ones, as many as the picture's part of the memory holds.
        """
        picture, epoch = self.pictures[i], number // len(self)
        first = epoch * len(self) + i
        given = self._given[i] = {n for n in self._given.get(i, ()) if n >= first}
        absent = sum(not self.pictures.is_held(j) for j in range(len(self.pictures)))
        left, found = _AHEAD // max(1, absent), dict[int, Window]()
        end = max(epoch + 1, self.epochs) * len(self)
        for each in itertools.chain([number], range(first, end, len(self.pictures))):
            if each in found or each in given:
                continue
            values, labels, rng = self._cut(picture, each)
            left -= values.nbytes + labels.nbytes + _GENERATOR
            if left < 0 and found:
                return found
            found[each] = values.copy(), labels.copy(), rng
        return found


class EpochSampler(Sampler):
    """The numbers of an epoch's crops, in a random order that the seed and the epoch determine.

    Every batch is full, so that none holds a single crop by accident: the crops that are left over
    at the end of an epoch are not seen.

    Parameters
    ----------
    n_crops : int
        Of an epoch.
    batch_size : int
        Crops of a batch; at most ``n_crops``.
    seed : int
    share : (int, int)
        ``(rank, n)``: give the rank-th of n equal parts of each batch.
    """

    def __init__(
        self, n_crops: int, batch_size: int, seed: int, share: tuple[int, int] = (0, 1)
    ) -> None:
        self.n_crops = n_crops
        self.batch_size = batch_size
        self.seed = seed
        self.share = share
        self.epoch = 0

    def __len__(self) -> int:
        return self.n_crops // self.batch_size * (self.batch_size // self.share[1])

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng((self.seed, self.epoch, self.n_crops))
        order = self.epoch * self.n_crops + rng.permutation(self.n_crops)
        n_batches, (rank, n_parts) = self.n_crops // self.batch_size, self.share
        batches = order[: n_batches * self.batch_size].reshape(n_batches, n_parts, -1)
        return iter(batches[:, rank].ravel().tolist())


def crop_shape(crop_size: Any, largest: tuple[int, ...]) -> tuple[int, ...]:
    """The crops' extent along each axis, no larger than the images have use for.

    One number makes pictures' crops square, so that they can be turned.

    Raises
    ------
    ValueError
        ``crop_size`` lists another number of axes than the images have, or sizes below 1.
    """
    if isinstance(crop_size, Integral):
        if len(largest) == 2:
            return (min(int(crop_size), max(largest)),) * 2
        return tuple(min(int(crop_size), extent) for extent in largest)
    sizes = tuple(crop_size)
    if len(sizes) != len(largest) or any(not isinstance(s, Integral) or s < 1 for s in sizes):
        raise ValueError(
            f"crop_size={crop_size!r}; expected one number of pixels, at least 1, or one for each "
            f"of the images' {len(largest)} axes."
        )
    return tuple(map(min, sizes, largest))


def cut(
    picture: Picture, size: tuple[int, ...], rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A random window that holds a labeled pixel; beyond the image, edges repeat, labels end."""
    labels = picture.labels
    starts = [
        int(rng.integers(max(0, at - side + 1), max(0, min(at, extent - side)) + 1))
        for at, side, extent in zip(draw_pixel(picture, rng), size, labels.shape, strict=True)
    ]
    window = tuple(slice(start, start + side) for start, side in zip(starts, size, strict=True))
    values, labels = picture.window(window), labels[window]
    missing = [(0, side - extent) for side, extent in zip(size, labels.shape, strict=True)]
    if any(after for _, after in missing):
        values = np.pad(values, [*missing, (0, 0)], mode="edge")
        labels = np.pad(labels, missing, constant_values=-1)
    return values, labels


def draw_pixel(picture: Picture, rng: np.random.Generator) -> tuple[int, ...]:
    """A labeled pixel, drawn evenly over the classes and then over a class's pixels."""
    drawn = picture.present[rng.integers(len(picture.present))]
    return picture.pixel(drawn, rng.integers(picture.n_pixels(drawn)))


def worker_threads(_: int) -> None:
    """Leave the cores to the training; the first call of a worker process."""
    torch.set_num_threads(1)
