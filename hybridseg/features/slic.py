"""Superpixels: small connected regions that follow the boundaries of a picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.features.grids import Grid, grid_inside, make_grid, seen_part
from hybridseg.features.pixels import perceptual_planes
from hybridseg.features.superpixel_base import Superpixels
from hybridseg.kernels._compile import threads_for
from hybridseg.kernels.superpixels.color import color_spread, write_quads
from hybridseg.kernels.superpixels.runs import (
    find_runs,
    join_runs,
    merge_small,
    number_groups,
    paint_runs,
    piece_sums,
    small_neighbours,
)
from hybridseg.kernels.superpixels.slic import LANES, UNIT, assign_pixels
from hybridseg.kernels.superpixels.slic_centres import centre_sums, leave_edges
from hybridseg.kernels.superpixels.slic_rows import QUAD
from hybridseg.kernels.vectors.padding import room_for
from hybridseg.kernels.vectors.way import way
from hybridseg.validation import Colors, IntensityRange, check_number

# Root mean square distance of a colour from the mean colour, in CIELAB, that pictures are brought
# to. Photographs have about this much, so a compactness means the same as in the paper.
_COLOR_SPREAD = 25.0
# Colours are kept as whole numbers of at most this many steps to a unit of that spread, and cut off
# at 20 times the spread, where only outliers are.
_STEPS = 64.0
_LIMIT = 500.0
# A connected piece below this part of the mean size is merged into a neighbour.
_SMALLEST_PART = 0.25


def slic(
    image: ArrayLike | Colors,
    n_segments: int = 500,
    compactness: float = 10.0,
    *,
    n_iter: int = 10,
    spacing: Sequence[float] | float | None = None,
    intensity_range: IntensityRange = "dtype",
    spatial_ndim: int | None = None,
    valid: ArrayLike | None = None,
) -> NDArray[np.int32]:
    """Cut an image into about ``n_segments`` connected regions of similar size and colour.

    k-means in colour and position, where each pixel looks only at the centres nearby (SLIC). The
    distance of pixel i from centre k is

        D^2 = |c_i - c_k|^2 + (compactness / S)^2 |p_i - p_k|^2

    with c the colour, p the position (index x spacing) and S the step of the grid of centres.
    Colours are CIELAB for three channels (taken as sRGB), L* for one, and as they are otherwise.

    The compactness is free of scale: before the iterations the colours are multiplied so that
    their root mean square distance from the mean colour is 25, about what photographs have in
    CIELAB. So the same value works on colour and grey, on 8 bit, 16 bit and float pictures, on
    any number of channels and on pictures of low contrast.

    Parameters
    ----------
    image : array-like, (H, W[, C]) or (D, H, W[, C]), or Colors
        Any real dtype. A 3-D array is a picture with channels unless ``spatial_ndim`` or
        ``spacing`` says otherwise.
    n_segments : int, default=500
        About how many regions to make; the grid of centres and the merging of scraps round it.
        Choose it so that a region is smaller than the smallest object of interest: 100 to 400
        pixels each are usual for photographs. More than the number of pixels gives one region a
        pixel.
    compactness : float, default=10.0
        How much position counts against colour: 1 follows every edge with ragged regions, 10 to
        20 suits photographs, 100 makes nearly regular squares.
    n_iter : int, default=10
        Iterations at most; fewer when no pixel changes. Beyond 10 little changes.
    spacing : float or sequence of float, optional
        Distance between neighbouring pixels along each axis, in any unit; ones if None.
    intensity_range : {"dtype", "image"} or (low, high), default="dtype"
        How intensities are read: see :func:`hybridseg.validation.as_colors`.
    spatial_ndim : {2, 3}, optional
        Number of spatial axes, where the shape leaves it open.
    valid : array-like of bool, (*spatial,), optional
        Where False, the pixel belongs to no region and gets -1, and what it holds changes nothing.
        ``n_segments`` is about how many regions the valid pixels are cut into: a rectangle of
        them is cut as a picture cropped to it.

    Returns
    -------
    ndarray of int32, (*spatial,)
        Region numbers 0..R-1 in raster order of their first pixels. Each region is connected by
        faces (4 neighbours in a picture, 6 in a volume). The result does not depend on the number
        of threads.

    Raises
    ------
    TypeError, ValueError
        The image, ``n_segments``, ``compactness`` or another parameter is not as described.

    Notes
    -----
    Each pixel tests the centres of its own grid cell and of the cells that touch it (9, or 27 in
    a volume), which covers at least the 2S x 2S search window of the paper. A centre starts at
    the pixel of lowest gradient among the 9 (27) in the middle of its cell. After the iterations,
    connected pieces smaller than a quarter of the mean size join the neighbour of the most
    similar mean colour; larger pieces cut off from their centre become regions of their own.
    After that scaling the colours are cut off at 20 times the spread and rounded to whole steps: as
    fine as 32-bit distances allow, which is about an eighth of the unit in photographs, and never
    finer than a 64th.

    References
    ----------
    R. Achanta, A. Shaji, K. Smith, A. Lucchi, P. Fua, S. Suesstrunk, "SLIC superpixels compared
    to state-of-the-art superpixel methods", IEEE TPAMI 34(11), 2012, equations (1) to (3).

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.features import slic
    >>> image = np.zeros((20, 30), np.uint8)
    >>> image[:, 13:] = 200
    >>> regions = slic(image, n_segments=6)
    >>> regions.shape, regions.dtype, int(regions.max()) + 1
    ((20, 30), dtype('int32'), 6)
    >>> bool((regions[:, 12] == regions[:, 13]).any())
    False
    """
    check_number(n_segments, "n_segments", minimum=1, integer=True)
    check_number(compactness, "compactness", minimum=0, maximum=1e6, strict=True)
    compactness = float(compactness)
    check_number(n_iter, "n_iter", minimum=1, integer=True)
    seen = seen_part(
        image,
        spacing=spacing,
        intensity_range=intensity_range,
        spatial_ndim=spatial_ndim,
        valid=valid,
    )
    if seen.n_valid == 0:
        return seen.nothing()
    spatial = seen.colors.shape[:-1]
    volume = (1,) * (3 - len(spatial)) + spatial  # a picture is a volume of one plane
    sides = (1.0,) * (3 - len(spatial)) + seen.sides
    if seen.inside is None:
        inside, grid = np.ones(volume, bool), make_grid(volume, sides, n_segments)
    else:
        inside = seen.inside.reshape(volume)
        grid = grid_inside(inside, sides, n_segments)
    planes = perceptual_planes(seen.colors).reshape(seen.colors.shape[-1:] + volume)
    return seen.spread(_slic_volume(planes, inside, grid, compactness, n_iter))


class SLIC(Superpixels):
    """SLIC superpixels as a parameter object: the settings of :func:`slic`, without the image.

    Parameters
    ----------
    n_segments : int, default=500
        About how many regions to make of an image.
    compactness : float, default=10.0
        How much position counts against colour; free of the picture's scale.
    n_iter : int, default=10
        Iterations at most.

    See Also
    --------
    slic : The function, with advice on choosing the values.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.features import SLIC
    >>> regions = SLIC(n_segments=4)(np.zeros((8, 10), np.uint8))
    >>> regions[[0, 0, -1, -1], [0, -1, 0, -1]].tolist()
    [0, 1, 2, 3]
    """

    def __init__(
        self, n_segments: int = 500, *, compactness: float = 10.0, n_iter: int = 10
    ) -> None:
        self.n_segments = n_segments
        self.compactness = compactness
        self.n_iter = n_iter

    def _cut(self, image: ArrayLike | Colors, **options: Any) -> NDArray[np.int32]:
        return slic(image, self.n_segments, self.compactness, n_iter=self.n_iter, **options)


def _slic_volume(
    colors: NDArray[np.float32],
    inside: NDArray[np.bool_],
    grid: Grid,
    compactness: float,
    n_iter: int,
) -> NDArray[np.int32]:
    weights = compactness * grid.pixel_steps
    quads, steps = _quads(colors, inside, grid, weights)
    n_centres = math.prod(len(b) - 1 for b in grid.bounds)
    sums = np.zeros((n_centres, QUAD * len(quads) + 4), np.int64)
    if inside.all():
        labels, alive = np.zeros(inside.shape, np.int32), np.ones(n_centres, bool)
    else:  # a cell may have no pixel, or none near its middle
        labels = np.where(inside, grid.numbers(), np.int32(-1))
        centre_sums(quads, labels, sums)
        alive = sums[:, -1] > 0
    centres = (sums[:, :-1] / np.maximum(sums[:, -1:], 1)).astype(np.float32)
    leave_edges(quads, inside, grid.bounds, centres)
    weights = (weights * steps).astype(np.float32)
    with threads_for(labels.size):
        assign_pixels(quads, grid.bounds, centres, alive, weights, labels, sums, n_iter)
    return _connect(labels, quads, sums)


def _quads(
    colors: NDArray[np.float32],
    inside: NDArray[np.bool_],
    grid: Grid,
    weights: NDArray[np.float64],
) -> tuple[NDArray[np.int16], float]:
    """Colours (G, D, H, padded W, 4) about their mean, and how many steps make a unit."""
    n_channels, depth, height, width = colors.shape
    means, variance, reaches = color_spread(colors, inside)
    scale = _COLOR_SPREAD / math.sqrt(variance) if variance > 1e-8 else 0.0
    reaches = np.minimum(reaches * scale, _LIMIT)
    # a centre is less than three cells from any pixel that asks for it
    spans = [3.0 * np.diff(b).max() for b in grid.bounds]
    greatest = 1.5 * (reaches**2).sum() + 0.5 * ((weights * spans) ** 2).sum()
    greatest = max(greatest, 1e-9)  # of one colour, and next to no compactness
    most = 32767 // int(UNIT)
    steps = min(_STEPS, most / max(reaches.max(), 1.0), math.sqrt(2.0**30 / (int(UNIT) * greatest)))
    n_quads = (n_channels + QUAD - 1) // QUAD
    quads = np.zeros((n_quads, depth, height, room_for(width, LANES, LANES), QUAD), np.int16)
    limit = min(_LIMIT * steps, most)
    write_quads(colors, inside, means, scale * steps, limit, quads)
    return quads, steps


def _connect(
    labels: NDArray[np.int32], quads: NDArray[np.int16], label_sums: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Regions that are connected and not too small, numbered in raster order."""
    starts, firsts = find_runs(labels, way())
    pieces, n_pieces = join_runs(labels, starts, firsts, way())
    if n_pieces == 0:
        return labels
    sums, sizes = piece_sums(quads, labels, label_sums, starts, firsts, pieces, n_pieces)
    min_size = _SMALLEST_PART * sizes.sum() / np.count_nonzero(label_sums[:, -1])
    pairs = small_neighbours(starts, firsts, labels.shape[1], pieces, sizes, min_size)
    group = merge_small(pairs, sums.astype(np.float64), sizes, min_size)
    return paint_runs(number_groups(group), starts, pieces).reshape(labels.shape)
