"""A dataset of labeled images: held in memory up to a limit, and read in windows."""

from __future__ import annotations

import os
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.base import Scene, TrainingSet
from hybridseg.deep.prediction.spacing import zoom_of, zoomed_shape
from hybridseg.space import nearest_valid
from hybridseg.validation import as_colors, as_image, intensity_limits

#: The most bytes of images and labels that stay in memory between epochs. The rest is read again.
_MAX_BYTES = 1 << 30

#: Pixels of a class are counted in blocks of this many.
_BLOCK = 1 << 14


@dataclass(frozen=True, eq=False)
class LabeledImage:
    """An image and its labels, in the form that takes the least memory.

    Attributes
    ----------
    stored : ndarray, (*spatial, C)
        The values of the image: colors on the scale 0..255, or values that ``limits`` convert to
        colors. A pixel that is not valid has the value of the nearest valid pixel.
    labels : ndarray of int, (*spatial,)
        Class indices in the smallest dtype; -1 where there is no label.
    present : ndarray of int, (k,)
        The indices of the classes that occur in ``labels``.
    limits : (low, high) or None
        The values that become 0 and 255. None: the values are colors already.
    valid : ndarray of bool, (*spatial,), or None
        The mask of valid pixels, kept only if it is all True or all False. None: there is no mask,
        or the other pixels are filled.
    zoom : tuple of float
        The factor by which the image is enlarged along each axis to get the network's spacing.
    """

    stored: NDArray[Any]
    labels: NDArray[Any]
    present: NDArray[np.intp]
    limits: tuple[float, float] | None = None
    valid: NDArray[np.bool_] | None = None
    zoom: tuple[float, ...] = ()

    @classmethod
    def of(
        cls, scene: Scene, indices: NDArray[np.int64], n_classes: int, spacing: Any = None
    ) -> LabeledImage:
        """Make a labeled image from a Scene and its class indices ``(*spatial,)``."""
        image = as_image(scene.image, spatial_ndim=indices.ndim)
        plain = image.dtype == np.uint8 and scene.valid is None
        limits, valid = None, None
        if not plain or scene.intensity_range not in (None, "dtype"):
            valid = None if scene.valid is None else np.asarray(scene.valid, dtype=bool)
            nearest = None if valid is None else nearest_valid(valid, scene.spacing)
            if nearest is not None:
                image, valid = image[nearest], None
            limits = intensity_limits(image, scene.intensity_range or "dtype", valid)
        labels = indices.astype(np.min_scalar_type(-max(n_classes, 2)))
        present = np.flatnonzero(np.bincount(indices[indices >= 0], minlength=1))
        zoom = zoom_of(scene, spacing, indices.ndim)
        return cls(image, labels, present, limits, valid, zoom)

    @property
    def values(self) -> NDArray[Any]:
        """All colors ``(*spatial, C)`` on the scale 0..255; those of 8-bit images as uint8."""
        return self.window((slice(None),) * self.labels.ndim)

    def window(self, window: tuple[slice, ...]) -> NDArray[Any]:
        """The colors of a window of the image; only this window is converted."""
        values = self.stored[window]
        if self.limits is None:
            return values
        if not self.limits[0] < self.limits[1]:  # a constant image
            return np.zeros(values.shape, dtype=np.float32)
        return as_colors(
            values,
            spatial_ndim=self.labels.ndim,
            intensity_range=self.limits,
            valid=None if self.valid is None else self.valid[window],
        )

    def pixel(self, label: Any, number: Any) -> tuple[int, ...]:
        """The position of the pixel with this number among the pixels of a class, in C order."""
        before = self._counts[np.searchsorted(self.present, label)]
        block = int(np.searchsorted(before, number, side="right")) - 1
        flat = self.labels.reshape(-1)[block * _BLOCK : (block + 1) * _BLOCK]
        at = block * _BLOCK + np.flatnonzero(flat == label)[number - before[block]]
        return tuple(int(i) for i in np.unravel_index(at, self.labels.shape))

    def n_pixels(self, label: Any) -> int:
        """The number of pixels of a class index."""
        return int(self._counts[np.searchsorted(self.present, label), -1])

    @cached_property
    def _counts(self) -> NDArray[np.int64]:
        """The number of pixels of each class before each block, ``(k, n_blocks + 1)``."""
        flat = self.labels.reshape(-1)
        n_blocks = -(-flat.size // _BLOCK)
        counts = np.zeros((len(self.present), n_blocks + 1), dtype=np.int64)
        if len(self.present):
            length = int(self.present.max()) + 2
            for block in range(n_blocks):
                part = flat[block * _BLOCK : (block + 1) * _BLOCK].astype(np.intp)
                counts[:, block + 1] = np.bincount(part + 1, minlength=length)[self.present + 1]
        return counts.cumsum(axis=1)


@dataclass(frozen=True, eq=False)
class DatasetStatistics:
    """Statistics of a dataset; every image is read once for them.

    Attributes
    ----------
    mean, std : ndarray of float32, (C,)
        Mean and standard deviation of the colors of all valid pixels, on the scale 0..255.
    counts : ndarray of int64, (L,)
        The number of labeled pixels of each class.
    around : ndarray of int64, (L,)
        For each class, the number of labeled pixels (of any class) in the images that contain it.
    images : ndarray of int64, (L,)
        The number of images that contain each class.
    labeled : list of int
        The positions of the images that have a labeled pixel.
    largest : tuple of int
        The largest extent along each axis, in pixels at the network's spacing.
    checksums : tuple of int
        The checksum of the colors of all images, and that of all label maps.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    counts: NDArray[np.int64]
    around: NDArray[np.int64]
    images: NDArray[np.int64]
    labeled: list[int]
    largest: tuple[int, ...]
    checksums: tuple[int, int]


class ImageDataset:
    """The images of a training set that have a labeled pixel; ``dataset[i]`` is the i-th of them.

    The constructor reads every image once and computes the ``statistics``. Images stay in memory
    until the limit is reached; the others are read again each time. Files that can be
    memory-mapped (``.npy``, and TIFF without compression) stay on disk and are read in windows.

    Parameters
    ----------
    training : TrainingSet
    memory : int
        The limit of memory, in bytes.
    spacing : sequence of float, optional
        The spacing at which the network sees the images.
    """

    def __init__(
        self, training: TrainingSet, memory: int = _MAX_BYTES, spacing: Any = None
    ) -> None:
        self.training = training
        self.spacing = spacing
        self._held: dict[int, LabeledImage] = {}
        self._free = memory
        self.statistics = self._measured()

    def _measured(self) -> DatasetStatistics:
        """Read every image once and compute the statistics."""
        n_classes, n_pixels, labeled = len(self.training.classes), 0, []
        sums = np.zeros((2, self.training.n_channels))
        counts = np.zeros((3, n_classes), dtype=np.int64)
        largest, checksums = (1,) * self.training.spatial_ndim, (0, 0)
        for position in range(len(self.training)):
            scene, image = self._read(position)
            whole = image.stored if image.limits is None else scene.colors
            colors = valid_colors(scene, whole)
            n_pixels += len(colors)
            sums += colors.sum(axis=0, dtype=np.float64), _sum_of_squares(colors)
            shown = image.labels[image.labels >= 0]
            counts[0] += np.bincount(shown, minlength=n_classes)
            counts[1, image.present] += len(shown)
            counts[2, image.present] += 1
            shape = zoomed_shape(image.labels.shape, image.zoom)
            largest = tuple(map(max, largest, shape))
            checksums = (
                _checksum(whole, checksums[0]),
                _checksum(image.labels, checksums[1]),
            )
            if len(shown):
                labeled.append(position)
        mean, square = sums / max(n_pixels, 1)
        std = np.sqrt(np.maximum(square - mean**2, 0))
        std[std < 1e-2] = 1.0  # a constant channel
        moments = mean.astype(np.float32), std.astype(np.float32)
        return DatasetStatistics(
            *moments, counts[0], counts[1], counts[2], labeled, largest, checksums
        )

    def _read(self, position: int) -> tuple[Scene, LabeledImage]:
        """Read an image, and keep it in memory if it fits into the limit."""
        scene, indices = self.training[position]
        image = LabeledImage.of(scene, indices, len(self.training.classes), self.spacing)
        given = scene.source("image")
        size, large = image.labels.nbytes, image.stored.nbytes
        if not is_mapped(image.stored) and not _is_part_of(image.stored, given):
            if size + large > self._free and isinstance(given, str | os.PathLike):
                image = replace(image, stored=mapped_tiff(given, image.stored))
            size += 0 if is_mapped(image.stored) else large
        if size <= self._free and position not in self._held:
            self._free -= size
            self._held[position] = image
        return scene, image

    def __len__(self) -> int:
        return len(self.statistics.labeled)

    def __getitem__(self, i: int) -> LabeledImage:
        position = self.statistics.labeled[i]
        return self._held[position] if position in self._held else self._read(position)[1]

    def is_held(self, i: int) -> bool:
        """Whether the i-th image is in memory or mapped, so that a window of it is read quickly."""
        return self.statistics.labeled[i] in self._held

    def __getstate__(self) -> dict[str, Any]:
        """Leave out mapped files: a pickle would copy them. Another process maps them again."""
        held = {i: image for i, image in self._held.items() if not is_mapped(image.stored)}
        mapped = sum(p.labels.nbytes for i, p in self._held.items() if i not in held)
        return {**vars(self), "_held": held, "_free": self._free + mapped}


def is_mapped(array: NDArray[Any]) -> bool:
    """Whether an array is a memory map of a file, or a view of one."""
    found: Any = array
    while found is not None:
        if isinstance(found, np.memmap):
            return True
        found = getattr(found, "base", None)
    return False


def _is_part_of(array: NDArray[Any], given: Any) -> bool:
    """Whether an array is a view of the one that the user gave."""
    return isinstance(given, np.ndarray) and np.may_share_memory(array, given)


def mapped_tiff(path: Any, decoded: NDArray[Any]) -> NDArray[Any]:
    """Memory-map the pixels of a TIFF file.

    Parameters
    ----------
    path : path
        A file of any kind.
    decoded : ndarray, (*spatial, C)
        The pixels of the file.

    Returns
    -------
    ndarray, (*spatial, C)
        A memory map with the values of ``decoded``; ``decoded`` itself if there can be none, such
        as for compressed files.
    """
    if not os.fspath(path).lower().endswith((".tif", ".tiff")):
        return decoded
    import tifffile

    try:
        mapped = tifffile.memmap(path, mode="r")
    except (ValueError, OSError, IndexError):  # compressed or stored in tiles
        return decoded
    if mapped.size != decoded.size or mapped.shape != decoded.shape[: mapped.ndim]:
        return decoded
    mapped = mapped.reshape(decoded.shape)
    return (
        mapped if np.array_equal(mapped, decoded, equal_nan=decoded.dtype.kind == "f") else decoded
    )


def valid_colors(scene: Scene, colors: NDArray[Any]) -> NDArray[Any]:
    """The colors of the valid pixels, ``(n, C)``."""
    if scene.valid is None:
        return colors.reshape(-1, colors.shape[-1])
    return colors[np.asarray(scene.valid, dtype=bool)]


def _checksum(values: NDArray[Any], before: int) -> int:
    """Continue a checksum with the dtype, shape and values of an array."""
    head = zlib.crc32(f"{values.dtype.str} {values.shape}".encode(), before)
    return zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data, head)


def _sum_of_squares(colors: NDArray[Any]) -> NDArray[np.float64]:
    """The sum of squares of each channel: exact for 8-bit colors, else in double precision."""
    if colors.dtype == np.uint8:
        squares = np.arange(256, dtype=np.float64) ** 2
        counts = [np.bincount(channel, minlength=256) for channel in colors.T]
        return np.array([count @ squares for count in counts])
    wide = colors.astype(np.float64)
    return np.einsum("nc,nc->c", wide, wide)
