"""Random crops of images of any size, on which a network is trained."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from hybridseg.deep.training.augment import Augment, Augmentation, zoomed
from hybridseg.deep.training.image_dataset import ImageDataset, LabeledImage

#: The most bytes of windows that are cut in advance from images that do not fit into memory.
_MAX_AHEAD_BYTES = 1 << 28

#: The approximate size of a random generator, in bytes.
_GENERATOR_BYTES = 2000

#: The values ``(*size, C)`` and labels ``(*size,)`` of a window, and the generator that drew it.
Window = tuple[NDArray[Any], NDArray[Any], np.random.Generator]


class Crops(Dataset):
    """Random crops ``(colors (C, *size), labels (*size))``, each with a labeled pixel.

    Colors are standardized by the statistics of the dataset, augmented, and then standardized by
    ``moments`` if these differ. Labels are class indices, -1 where there is no label or the crop
    extends beyond the image. Crop number ``n`` of a training depends only on the seed and on ``n``,
    so the crops are the same in any order and in any number of processes. The time of a crop does
    not grow with the size of the image: where an image has to be read as a whole, the windows of
    many crops are cut at once, also those of later epochs.

    Parameters
    ----------
    dataset : ImageDataset
    moments : (mean, std)
        The mean and standard deviation ``(C,)`` that the network expects, on the scale 0..255.
    size : tuple of int
        The spatial shape of a crop.
    crops_per_image : int
        The number of crops of each image in an epoch.
    augment : callable or None
        Augments a crop; see :data:`hybridseg.deep.training.augment.Augment`.
    seed : int
    epochs : int
        The number of epochs of the training.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        *,
        moments: tuple[NDArray[np.float32], NDArray[np.float32]],
        size: tuple[int, ...],
        crops_per_image: int,
        augment: Augment | None,
        seed: int,
        epochs: int = 1,
    ) -> None:
        self.dataset = dataset
        self.moments = moments
        self.size = size
        self.crops_per_image = crops_per_image
        self.augment = augment
        self.seed = seed
        self.epochs = epochs
        self._waiting: dict[int, dict[int, Window]] = {}
        self._given: dict[int, set[int]] = {}

    def __len__(self) -> int:
        return len(self.dataset) * self.crops_per_image

    def __getitem__(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        values, labels, rng = self._window(number)
        own = self.dataset.statistics.mean, self.dataset.statistics.std
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
        """The window from which a crop is made, and the random generator for its augmentation."""
        i = number % len(self.dataset)
        if self.dataset.is_held(i):
            return self._cut(self.dataset[i], number)
        waiting = self._waiting.setdefault(i, {})
        if number not in waiting:
            waiting.clear()
            waiting.update(self._ahead(i, number))
        self._given.setdefault(i, set()).add(number)
        return waiting.pop(number)

    def _cut(self, image: LabeledImage, number: int) -> Window:
        """Cut the window of a crop; its size accounts for random scale and for the spacing."""
        rng = np.random.default_rng((self.seed, number))
        scale = self.augment.draw_scale(rng) if isinstance(self.augment, Augmentation) else 1.0
        zoom = image.zoom or (1.0,) * len(self.size)
        window = tuple(
            max(1, round(side / scale / by)) for side, by in zip(self.size, zoom, strict=True)
        )
        return *cut(image, window, rng), rng

    def _ahead(self, i: int, number: int) -> dict[int, Window]:
        """Read an image that is not in memory, and cut the windows of its next crops.

        The remaining crops of this epoch come first, then those of later epochs, until the image's
        part of the memory is full.
        """
        image, epoch = self.dataset[i], number // len(self)
        first = epoch * len(self) + i
        given = self._given[i] = {n for n in self._given.get(i, ()) if n >= first}
        absent = sum(not self.dataset.is_held(j) for j in range(len(self.dataset)))
        left, found = _MAX_AHEAD_BYTES // max(1, absent), dict[int, Window]()
        end = max(epoch + 1, self.epochs) * len(self)
        for each in itertools.chain([number], range(first, end, len(self.dataset))):
            if each in found or each in given:
                continue
            values, labels, rng = self._cut(image, each)
            left -= values.nbytes + labels.nbytes + _GENERATOR_BYTES
            if left < 0 and found:
                return found
            found[each] = values.copy(), labels.copy(), rng
        return found


class EpochSampler(Sampler):
    """The numbers of an epoch's crops, in a random order that depends on the seed and the epoch.

    All batches are full, so that no batch has a single crop, which batch normalization cannot
    normalize. The remaining crops of an epoch are dropped.

    Parameters
    ----------
    n_crops : int
        The number of crops in an epoch.
    batch_size : int
        The number of crops in a batch; at most ``n_crops``.
    seed : int
    share : (int, int)
        ``(rank, n)``: the process with this rank gets the rank-th of n equal parts of each batch.
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
    """The spatial shape of the crops, limited to the extents of the images.

    Parameters
    ----------
    crop_size : int or sequence of int
        An integer gives square crops of images, which can be rotated. Along each axis of a volume
        it is limited separately.
    largest : tuple of int
        The largest extent of the images along each axis.

    Raises
    ------
    ValueError
        ``crop_size`` does not have one integer of at least 1 for each axis.
    """
    if isinstance(crop_size, Integral):
        if len(largest) == 2:
            return (min(int(crop_size), max(largest)),) * 2
        return tuple(min(int(crop_size), extent) for extent in largest)
    sizes = tuple(crop_size)
    if len(sizes) != len(largest) or any(not isinstance(s, Integral) or s < 1 for s in sizes):
        raise ValueError(
            f"crop_size={crop_size!r}; expected an integer of at least 1, or one for each of the "
            f"{len(largest)} axes of the images: pass {len(largest)} sizes in pixels."
        )
    return tuple(map(min, sizes, largest))


def cut(
    image: LabeledImage, size: tuple[int, ...], rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Cut a random window that contains a labeled pixel.

    Beyond the image, the values at its edge are repeated and the labels are -1.

    Returns
    -------
    values : ndarray, (*size, C)
    labels : ndarray of int, (*size,)
    """
    labels = image.labels
    starts = [
        int(rng.integers(max(0, at - side + 1), max(0, min(at, extent - side)) + 1))
        for at, side, extent in zip(draw_pixel(image, rng), size, labels.shape, strict=True)
    ]
    window = tuple(slice(start, start + side) for start, side in zip(starts, size, strict=True))
    values, labels = image.window(window), labels[window]
    missing = [(0, side - extent) for side, extent in zip(size, labels.shape, strict=True)]
    if any(after for _, after in missing):
        values = np.pad(values, [*missing, (0, 0)], mode="edge")
        labels = np.pad(labels, missing, constant_values=-1)
    return values, labels


def draw_pixel(image: LabeledImage, rng: np.random.Generator) -> tuple[int, ...]:
    """Draw a labeled pixel: first a class, then one of its pixels, both uniformly."""
    drawn = image.present[rng.integers(len(image.present))]
    return image.pixel(drawn, rng.integers(image.n_pixels(drawn)))


def worker_threads(_: int) -> None:
    """Limit a worker process to one thread, so that the training has the other cores."""
    torch.set_num_threads(1)
