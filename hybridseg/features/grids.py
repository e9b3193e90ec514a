"""The grids of cells that superpixels start from, over an image or over its valid part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.features.boxes import Box, bounding_box
from hybridseg.space import pixel_sides
from hybridseg.validation import Colors, IntensityRange, as_colors, as_mask, as_numbers

#: Cells with less than this fraction of the mean number of pixels do not count: k-means usually
#: empties them, or they are merged. With this value, the numbers of regions were most accurate on
#: masks of disks, rings and stripes.
_MIN_FRACTION_OF_MEAN_CELL = 0.05

#: The maximum number of grids that are tried to get the wanted number of cells in a mask.
_MAX_TRIES = 8


class ValidPart(NamedTuple):
    """The part of an image that is cut into regions: the bounding box of its valid pixels.

    Attributes
    ----------
    colors : ndarray of float32, (*box, C)
    inside : ndarray of bool, (*box,), or None
        None if the whole box is valid.
    sides : tuple of float
        The sides of a pixel, in units of the shortest.
    box : tuple of slice
    shape : tuple of int
        The shape of the whole image.
    """

    colors: NDArray[np.float32]
    inside: NDArray[np.bool_] | None
    sides: tuple[float, ...]
    box: Box
    shape: tuple[int, ...]

    def on_whole_image(self, regions: NDArray[np.int32]) -> NDArray[np.int32]:
        """Put regions of the box into a map of the whole image; it is -1 outside the box."""
        found = regions.reshape([cut.stop - cut.start for cut in self.box])
        if found.shape == self.shape:
            return found
        everywhere = np.full(self.shape, -1, np.int32)
        everywhere[self.box] = found
        return everywhere

    def empty_map(self) -> NDArray[np.int32]:
        """The region map, all -1, of an image without valid pixels."""
        return np.full(self.shape, -1, np.int32)

    @property
    def n_valid(self) -> int:
        """Number of valid pixels."""
        if self.inside is None:
            return math.prod(self.colors.shape[:-1])
        return int(np.count_nonzero(self.inside))


def valid_part(
    image: ArrayLike | Colors,
    *,
    spacing: Sequence[float] | float | None,
    intensity_range: IntensityRange,
    spatial_ndim: int | None,
    valid: ArrayLike | None,
) -> ValidPart:
    """Check the arguments of superpixels, and crop the image to the box of its valid pixels.

    Pixels that are not valid have no effect, and a rectangular mask gives the same result as
    cropping the image.
    """
    mask = None if valid is None else as_numbers(valid, "valid", expected="a mask of booleans")
    colors = as_colors(
        image,
        spatial_ndim=implied_ndim(spacing, mask) if spatial_ndim is None else spatial_ndim,
        intensity_range=intensity_range,
        valid=mask,
    )
    shape = colors.shape[:-1]
    sides = pixel_sides(spacing, len(shape))
    whole = tuple(slice(0, size) for size in shape)
    if mask is None:
        return ValidPart(colors, None, sides, whole, shape)
    inside = as_mask(mask, shape)
    box = bounding_box(inside)
    inside = inside[box]
    return ValidPart(colors[box], None if inside.all() else inside, sides, box, shape)


def implied_ndim(spacing: Sequence[float] | float | None, valid: NDArray[Any] | None) -> int | None:
    """Return the number of spatial axes that ``valid`` or ``spacing`` implies, else None."""
    if valid is not None:
        return valid.ndim
    n_axes = () if spacing is None else as_numbers(spacing, "spacing").shape
    return n_axes[0] if n_axes in ((2,), (3,)) else None


class Grid(NamedTuple):
    """Cells of a volume, or of an image as a volume of one plane.

    Attributes
    ----------
    bounds : tuple of ndarray of int
        Along each of the three axes, the first pixels of the cells and the end.
    pixel_steps : ndarray of float, (3,)
        The sides of a pixel, in units of a cell's side.
    """

    bounds: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
    pixel_steps: NDArray[np.float64]

    def numbers(self) -> NDArray[np.int32]:
        """The number of each pixel's cell, with cells in raster order."""
        counts = [len(b) - 1 for b in self.bounds]
        numbers = np.arange(math.prod(counts), dtype=np.int32).reshape(counts)
        for axis, bounds in enumerate(self.bounds):
            numbers = numbers.repeat(np.diff(bounds), axis=axis)
        return numbers


def make_grid(shape: tuple[int, ...], sides: tuple[float, ...], n_cells: float) -> Grid:
    """A grid of about ``n_cells`` cells that are as cubic as possible.

    ``shape`` and ``sides`` have three axes. The side along an axis of one pixel has no effect.
    Axes along which pixels are longer than cells are divided into pixels first; the others follow
    from the shortest to the longest.
    """
    least = min((s for s, size in zip(sides, shape, strict=True) if size > 1), default=1.0)
    sides = tuple(s if size > 1 else least for s, size in zip(sides, shape, strict=True))
    extent = [size * side for size, side in zip(shape, sides, strict=True)]
    counts = [1] * len(shape)
    left = sorted((a for a in range(len(shape)) if shape[a] > 1), key=extent.__getitem__)
    rest = float(min(n_cells, math.prod(shape)))
    while left:
        step = _cell_side(extent, left, rest)
        full = [axis for axis in left if sides[axis] >= step]
        if not full:
            break
        for axis in full:
            counts[axis] = shape[axis]
            rest = max(rest / shape[axis], 1.0)
            left.remove(axis)
    while left:
        step = _cell_side(extent, left, rest)
        axis = left.pop(0)
        counts[axis] = min(max(round(extent[axis] / step), 1), shape[axis])
        rest = max(rest / counts[axis], 1.0)
    lengths = [e / n for e, n in zip(extent, counts, strict=True) if n > 1]
    lengths = lengths or [e for e, size in zip(extent, shape, strict=True) if size > 1] or [1.0]
    bounds = [np.arange(n + 1) * size // n for n, size in zip(counts, shape, strict=True)]
    step = math.prod(lengths) ** (1 / len(lengths))
    return Grid((bounds[0], bounds[1], bounds[2]), np.array(sides) / step)


def _cell_side(extent: list[float], axes: list[int], n_cells: float) -> float:
    return float((math.prod(extent[axis] for axis in axes) / n_cells) ** (1 / len(axes)))


def grid_inside(inside: NDArray[np.bool_], sides: tuple[float, ...], n_cells: int) -> Grid:
    """A grid with about ``n_cells`` cells inside a mask, without small pieces at its border."""
    n_valid = int(np.count_nonzero(inside))
    most = float(inside.size)
    if n_cells >= n_valid:
        return make_grid(inside.shape, sides, most)
    least = _MIN_FRACTION_OF_MEAN_CELL * n_valid / n_cells
    wanted, best = n_cells * inside.size / n_valid, None
    for _ in range(_MAX_TRIES):
        grid = make_grid(inside.shape, sides, min(wanted, most))
        found = int(np.count_nonzero(pixels_of_cells(inside, grid) >= least))
        if best is None or abs(found - n_cells) < abs(best[0] - n_cells):
            best = found, grid
        if found == n_cells or wanted >= most:
            break
        wanted *= n_cells / max(found, 1)
    assert best is not None  # there is at least one try
    return best[1]


def pixels_of_cells(inside: NDArray[np.bool_], grid: Grid) -> NDArray[np.int64]:
    """The number of pixels of a mask (D, H, W) in each cell of a grid."""
    counts = inside.astype(np.int64)
    for axis, bounds in enumerate(grid.bounds):
        counts = np.add.reduceat(counts, bounds[:-1], axis=axis)
    return counts
