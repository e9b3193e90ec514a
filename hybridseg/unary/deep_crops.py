"""What a network is trained on: random crops of images of differing sizes."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, Sampler

from hybridseg.base import Scene, TrainingSet
from hybridseg.unary.deep_augment import Augment, Augmentation, zoomed

#: Images and labels are held between epochs up to this many bytes, else read again.
_MEMORY = 1 << 30


@dataclass(frozen=True, eq=False)
class Picture:
    """A training image and its labels, as small as they can be held.

    Attributes
    ----------
    values : ndarray, (*spatial, C)
        Colours on the scale 0..255; 8-bit images as they are, all others float32.
    labels : ndarray of int, (*spatial,)
        Class indices, -1 where there is none, in the smallest dtype.
    present : ndarray of int, (k,)
        The classes that occur.
    """

    values: NDArray[Any]
    labels: NDArray[Any]
    present: NDArray[np.intp]

    @classmethod
    def of(cls, scene: Scene, indices: NDArray[np.int64], n_classes: int) -> Picture:
        """Take what training needs out of a Scene and its class indices."""
        image = np.asarray(scene.image)
        plain = image.dtype == np.uint8 and scene.valid is None
        if plain and scene.intensity_range in (None, "dtype"):
            values = image.reshape(*indices.shape, -1)
        else:
            values = scene.filled_colors
        labels = indices.astype(np.min_scalar_type(-max(n_classes, 2)))
        present = np.flatnonzero(np.bincount(indices[indices >= 0], minlength=1))
        return cls(values, labels, present)


@dataclass(frozen=True, eq=False)
class Survey:
    """What one look at every training image tells.

    Attributes
    ----------
    mean, std : ndarray of float32, (C,)
        Of the colours, on the scale 0..255, over all valid pixels.
    counts : ndarray of int64, (L,)
        Labelled pixels of each class.
    around : ndarray of int64, (L,)
        Labelled pixels, of any class, of the images that hold the class.
    images : ndarray of int64, (L,)
        Images that hold the class.
    labelled : list of int
        The images that have a labelled pixel.
    largest : tuple of int
        The longest extent along each axis.
    checksums : tuple of int
        Of all images' colours, and of all label maps.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    counts: NDArray[np.int64]
    around: NDArray[np.int64]
    images: NDArray[np.int64]
    labelled: list[int]
    largest: tuple[int, ...]
    checksums: tuple[int, int]


class Pictures:
    """The images and labels of a training set, held in memory as far as the budget goes.

    Making it reads every image once; ``survey`` is what was seen. ``pictures[i]`` is the i-th
    image that has a labelled pixel.
    """

    def __init__(self, training: TrainingSet, memory: int = _MEMORY) -> None:
        self.training = training
        self._held: dict[int, Picture] = {}
        self._free = memory
        self.survey = self._look()

    def _look(self) -> Survey:
        n_classes, n_pixels, labelled = len(self.training.classes), 0, []
        sums = np.zeros((2, self.training.n_channels))
        counts = np.zeros((3, n_classes), dtype=np.int64)
        largest, checksums = (1,) * self.training.spatial_ndim, (0, 0)
        for position in range(len(self.training)):
            scene, picture = self._read(position)
            colors = valid_colors(scene, picture)
            n_pixels += len(colors)
            sums += colors.sum(axis=0, dtype=np.float64), _sum_of_squares(colors)
            shown = picture.labels[picture.labels >= 0]
            counts[0] += np.bincount(shown, minlength=n_classes)
            counts[1, picture.present] += len(shown)
            counts[2, picture.present] += 1
            largest = tuple(map(max, largest, picture.labels.shape))
            checksums = (
                _checksum(picture.values, checksums[0]),
                _checksum(picture.labels, checksums[1]),
            )
            if len(shown):
                labelled.append(position)
        mean, square = sums / max(n_pixels, 1)
        std = np.sqrt(np.maximum(square - mean**2, 0))
        std[std < 1e-2] = 1.0  # a constant channel
        moments = mean.astype(np.float32), std.astype(np.float32)
        return Survey(*moments, counts[0], counts[1], counts[2], labelled, largest, checksums)

    def _read(self, position: int) -> tuple[Scene, Picture]:
        scene, indices = self.training[position]
        picture = Picture.of(scene, indices, len(self.training.classes))
        size = picture.labels.nbytes
        if not np.shares_memory(picture.values, np.asarray(scene.image)) or not isinstance(
            scene.source("image"), np.ndarray
        ):
            size += picture.values.nbytes  # not the caller's own array
        if size <= self._free and position not in self._held:
            self._free -= size
            self._held[position] = picture
        return scene, picture

    def __len__(self) -> int:
        return len(self.survey.labelled)

    def __getitem__(self, i: int) -> Picture:
        position = self.survey.labelled[i]
        return self._held[position] if position in self._held else self._read(position)[1]


def valid_colors(scene: Scene, picture: Picture) -> NDArray[Any]:
    """The colours of the valid pixels, ``(n, C)``."""
    if scene.valid is None:
        return picture.values.reshape(-1, picture.values.shape[-1])
    return picture.values[np.asarray(scene.valid, dtype=bool)]


def _checksum(values: NDArray[Any], before: int) -> int:
    """A checksum of an array and of those before it."""
    head = zlib.crc32(f"{values.dtype.str} {values.shape}".encode(), before)
    return zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data, head)


def _sum_of_squares(colors: NDArray[Any]) -> NDArray[np.float64]:
    """The sum of each channel's squares, exact for 8-bit colours and in double precision else."""
    if colors.dtype == np.uint8:
        squares = np.arange(256, dtype=np.float64) ** 2
        counts = [np.bincount(channel, minlength=256) for channel in colors.T]
        return np.array([count @ squares for count in counts])
    wide = colors.astype(np.float64)
    return np.einsum("nc,nc->c", wide, wide)


class Crops(Dataset):
    """Random crops ``(colors (C, *size), labels (*size))``, each with a labelled pixel.

    Colours are augmented in standard deviations of the images, and then standardised by
    ``moments``, the mean and deviation that the network expects; labels are class indices, -1
    where there is none or the crop leaves the image. Crop number ``n`` of a training is the same
    whoever makes it and whenever: its random numbers come from the seed and ``n`` alone.
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
    ) -> None:
        self.pictures = pictures
        self.moments = moments
        self.size = size
        self.crops_per_image = crops_per_image
        self.augment = augment
        self.seed = seed

    def __len__(self) -> int:
        return len(self.pictures) * self.crops_per_image

    def __getitem__(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        rng = np.random.default_rng((self.seed, number))
        picture = self.pictures[number % len(self.pictures)]
        scale = self.augment.draw_scale(rng) if isinstance(self.augment, Augmentation) else 1.0
        window = tuple(max(1, round(side / scale)) for side in self.size)
        values, labels = cut(picture, window, rng)
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


class EpochSampler(Sampler):
    """The numbers of an epoch's crops, in a random order that the seed and the epoch determine.

    Every batch is full, so that none holds a single crop by accident: what is left over at an
    epoch's end is not seen.

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
    """A random window that holds a labelled pixel; beyond the image, edges repeat, labels end."""
    labels = picture.labels
    starts = [
        int(rng.integers(max(0, at - side + 1), max(0, min(at, extent - side)) + 1))
        for at, side, extent in zip(draw_pixel(picture, rng), size, labels.shape, strict=True)
    ]
    window = tuple(slice(start, start + side) for start, side in zip(starts, size, strict=True))
    values, labels = picture.values[window], labels[window]
    missing = [(0, side - extent) for side, extent in zip(size, labels.shape, strict=True)]
    if any(after for _, after in missing):
        values = np.pad(values, [*missing, (0, 0)], mode="edge")
        labels = np.pad(labels, missing, constant_values=-1)
    return values, labels


def draw_pixel(picture: Picture, rng: np.random.Generator) -> tuple[int, ...]:
    """A labelled pixel, drawn evenly over the classes and then over a class's pixels."""
    drawn = picture.present[rng.integers(len(picture.present))]
    candidates = np.flatnonzero(picture.labels == drawn)
    at = candidates[rng.integers(len(candidates))]
    return tuple(int(i) for i in np.unravel_index(at, picture.labels.shape))


def worker_threads(_: int) -> None:
    """What a worker process does first: leave the cores to the training."""
    torch.set_num_threads(1)
