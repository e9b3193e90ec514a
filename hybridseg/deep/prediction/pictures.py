"""Training images and their labels, held in memory as far as a budget goes, read in windows."""

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

#: The most bytes of images and labels that are held between epochs; the rest is read again.
_MAX_BYTES = 1 << 30

#: Pixels of a class are counted in blocks of this many.
_BLOCK = 1 << 14


@dataclass(frozen=True, eq=False)
class Picture:
    """A training image and its labels, as small as they can be held.

    Attributes
    ----------
    stored : ndarray, (*spatial, C)
        The image's values: colors on the scale 0..255, or what ``limits`` make to colors. Where
        a part of the image is not valid, it holds the values of the nearest valid pixels.
    labels : ndarray of int, (*spatial,)
        Class indices, -1 where there is none, in the smallest dtype.
    present : ndarray of int, (k,)
        The classes that occur.
    limits : (low, high) or None
        The values that become 0 and 255. None: the values are colors.
    valid : ndarray of bool, (*spatial,), or None
        Given only where no pixel is valid, or every one is.
    zoom : tuple of float
        The extent of a pixel along each axis, in pixels of the spacing that the network sees.
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
    ) -> Picture:
        """Take what training needs out of a Scene and its class indices."""
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
        """All colors ``(*spatial, C)`` on the scale 0..255; 8-bit images' as they are."""
        return self.window((slice(None),) * self.labels.ndim)

    def window(self, window: tuple[slice, ...]) -> NDArray[Any]:
        """The colors of a part; only this part is converted."""
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
        """Where the pixel of a class index with this number is; in the order of memory."""
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
        """The number of pixels of each class before each block of memory, ``(k, n_blocks + 1)``."""
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
class Survey:
    """Statistics of the training images, from one look at each.

    Attributes
    ----------
    mean, std : ndarray of float32, (C,)
        Of the colors, on the scale 0..255, over all valid pixels.
    counts : ndarray of int64, (L,)
        Labeled pixels of each class.
    around : ndarray of int64, (L,)
        Labeled pixels, of any class, of the images that hold the class.
    images : ndarray of int64, (L,)
        Images that hold the class.
    labeled : list of int
        The images that have a labeled pixel.
    largest : tuple of int
        The longest extent along each axis, at the spacing that the network sees.
    checksums : tuple of int
        Of all images' colors, and of all label maps.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    counts: NDArray[np.int64]
    around: NDArray[np.int64]
    images: NDArray[np.int64]
    labeled: list[int]
    largest: tuple[int, ...]
    checksums: tuple[int, int]


class Pictures:
    """The images and labels of a training set, held in memory as far as the budget goes.

    Making it reads every image once, for the ``survey``. ``pictures[i]`` is the i-th image that has
    a labeled pixel. Files that can be mapped into memory (``.npy``, and TIFF without compression)
    stay on disk, and are read in windows.

    Parameters
    ----------
    training : TrainingSet
    memory : int
        The budget, in bytes.
    spacing : sequence of float, optional
        At which the network sees images.
    """

    def __init__(
        self, training: TrainingSet, memory: int = _MAX_BYTES, spacing: Any = None
    ) -> None:
        self.training = training
        self.spacing = spacing
        self._held: dict[int, Picture] = {}
        self._free = memory
        self.survey = self._look()

    def _look(self) -> Survey:
        n_classes, n_pixels, labeled = len(self.training.classes), 0, []
        sums = np.zeros((2, self.training.n_channels))
        counts = np.zeros((3, n_classes), dtype=np.int64)
        largest, checksums = (1,) * self.training.spatial_ndim, (0, 0)
        for position in range(len(self.training)):
            scene, picture = self._read(position)
            whole = picture.stored if picture.limits is None else scene.colors
            colors = valid_colors(scene, whole)
            n_pixels += len(colors)
            sums += colors.sum(axis=0, dtype=np.float64), _sum_of_squares(colors)
            shown = picture.labels[picture.labels >= 0]
            counts[0] += np.bincount(shown, minlength=n_classes)
            counts[1, picture.present] += len(shown)
            counts[2, picture.present] += 1
            shape = zoomed_shape(picture.labels.shape, picture.zoom)
            largest = tuple(map(max, largest, shape))
            checksums = (
                _checksum(whole, checksums[0]),
                _checksum(picture.labels, checksums[1]),
            )
            if len(shown):
                labeled.append(position)
        mean, square = sums / max(n_pixels, 1)
        std = np.sqrt(np.maximum(square - mean**2, 0))
        std[std < 1e-2] = 1.0  # a constant channel
        moments = mean.astype(np.float32), std.astype(np.float32)
        return Survey(*moments, counts[0], counts[1], counts[2], labeled, largest, checksums)

    def _read(self, position: int) -> tuple[Scene, Picture]:
        scene, indices = self.training[position]
        picture = Picture.of(scene, indices, len(self.training.classes), self.spacing)
        given = scene.source("image")
        size, large = picture.labels.nbytes, picture.stored.nbytes
        if not is_mapped(picture.stored) and not _is_part_of(picture.stored, given):
            if size + large > self._free and isinstance(given, str | os.PathLike):
                picture = replace(picture, stored=mapped_tiff(given, picture.stored))
            size += 0 if is_mapped(picture.stored) else large
        if size <= self._free and position not in self._held:
            self._free -= size
            self._held[position] = picture
        return scene, picture

    def __len__(self) -> int:
        return len(self.survey.labeled)

    def __getitem__(self, i: int) -> Picture:
        position = self.survey.labeled[i]
        return self._held[position] if position in self._held else self._read(position)[1]

    def is_held(self, i: int) -> bool:
        """Whether the i-th picture is at hand, so that the whole need not be read for a window."""
        return self.survey.labeled[i] in self._held

    def __getstate__(self) -> dict[str, Any]:
        """Leave out mapped files, which would be copied; another process maps them again."""
        held = {i: picture for i, picture in self._held.items() if not is_mapped(picture.stored)}
        mapped = sum(p.labels.nbytes for i, p in self._held.items() if i not in held)
        return {**vars(self), "_held": held, "_free": self._free + mapped}


def is_mapped(array: NDArray[Any]) -> bool:
    """Whether an array is mapped from a file."""
    found: Any = array
    while found is not None:
        if isinstance(found, np.memmap):
            return True
        found = getattr(found, "base", None)
    return False


def _is_part_of(array: NDArray[Any], given: Any) -> bool:
    """Whether an array is the caller's own."""
    return isinstance(given, np.ndarray) and np.may_share_memory(array, given)


def mapped_tiff(path: Any, decoded: NDArray[Any]) -> NDArray[Any]:
    """The pixels of a TIFF file as a map of the file; where it has no such, as they were decoded.

    Parameters
    ----------
    path : path
        Of any file.
    decoded : ndarray, (*spatial, C)
        All that it holds.
    """
    if not os.fspath(path).lower().endswith((".tif", ".tiff")):
        return decoded
    import tifffile

    try:
        mapped = tifffile.memmap(path, mode="r")
    except (ValueError, OSError, IndexError):  # compressed, or in tiles
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
    """A checksum of an array and of those before it."""
    head = zlib.crc32(f"{values.dtype.str} {values.shape}".encode(), before)
    return zlib.crc32(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data, head)


def _sum_of_squares(colors: NDArray[Any]) -> NDArray[np.float64]:
    """The sum of each channel's squares, exact for 8-bit colors and in double precision else."""
    if colors.dtype == np.uint8:
        squares = np.arange(256, dtype=np.float64) ** 2
        counts = [np.bincount(channel, minlength=256) for channel in colors.T]
        return np.array([count @ squares for count in counts])
    wide = colors.astype(np.float64)
    return np.einsum("nc,nc->c", wide, wide)
