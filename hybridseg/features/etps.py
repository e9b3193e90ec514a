"""ETPS superpixels, whose outlines are refined from coarse blocks down to pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.features.grids import make_grid, valid_part
from hybridseg.features.pixels import perceptual_colors
from hybridseg.features.superpixel_base import Superpixels
from hybridseg.kernels.superpixels.etps import (
    block_sums,
    merge_cheapest,
    refine_blocks,
    region_contacts,
)
from hybridseg.kernels.superpixels.regions import connected_components, sums_and_counts
from hybridseg.validation import Colors, IntensityRange, check_number

Triple = tuple[int, int, int]
Bounds = tuple[NDArray[np.int64], ...]  # along each axis, the blocks' first pixels and the end

# Colors are scaled so that their root mean square distance from the mean color is this, which is
# the typical value of photographs in CIELAB.
_COLOR_SPREAD = 25.0
# Weight of L* beside a* and b*. Shading changes mostly the lightness, while the outline of an
# object usually changes the color as well.
_LIGHTNESS_WEIGHT = 0.7
# Cells of the first grid for each region of the result.
_CELLS_PER_REGION = 10
# Blocks are halved while their shortest side has at least this many pixels; then pixels follow.
_MIN_SIDE_TO_HALVE = 4
# No refinement makes a region smaller than this fraction of the mean region size.
_MIN_FRACTION_OF_MEAN_SIZE = 0.05


def etps(
    image: ArrayLike | Colors,
    n_segments: int = 500,
    compactness: float = 3.0,
    *,
    smoothness: float = 2.0,
    n_iter: int = 10,
    spacing: Sequence[float] | float | None = None,
    intensity_range: IntensityRange = "dtype",
    spatial_ndim: int | None = None,
    valid: ArrayLike | None = None,
) -> NDArray[np.int32]:
    """Cut an image into ``n_segments`` connected regions whose outlines follow its edges closely.

    The energy of a partition s of the pixels p is

        E(s) = sum_p |c_p - c_s(p)|^2 + (compactness / S)^2 sum_p |p - mu_s(p)|^2
             + smoothness * length of the boundary,

    with c_k and mu_k the mean color and position of region k, and S the side of a square (cube)
    with the mean area of a region. The method is ETPS [1]_ with a merging step [2]_:

    1. A grid of ten times ``n_segments`` cells is refined in blocks.
    2. The two cells whose merging raises E least are merged, until ``n_segments`` are left.
    3. The outlines are refined in ever smaller blocks, down to pixels.

    A block moves to a neighboring region only if that lowers E (with both means updated) and
    leaves its old region connected. So no refinement raises E, and every region is connected.

    At the same number of regions, the outlines are closer than those of :func:`slic` to the
    outlines that people draw. SLIC minimizes the first two terms and connects regions afterwards.

    Three channels become CIELAB with L* times 0.7, one channel becomes L*, and other numbers of
    channels are used unchanged. Colors are then scaled to a root mean square distance of 25 from
    their mean, so that ``compactness`` and ``smoothness`` have the same effect on color and gray
    images, for any range and any number of channels.

    Parameters
    ----------
    image : array-like, (H, W[, C]) or (D, H, W[, C]), or Colors
        Any real dtype. A 3-D array is an image with channels unless ``spatial_ndim``,
        ``spacing`` or ``valid`` says otherwise.
    n_segments : int, default=500
        The exact number of regions, unless the image has fewer pixels, or ``valid`` has more
        separate parts. Choose it so that a region is smaller than the smallest object of
        interest: 100 to 400 pixels each are usual for photographs.
    compactness : float, default=3.0
        Weight of position relative to color. At 1 the sizes and outlines of regions follow the
        colors; at 20 regions have nearly equal sizes. Use 2 to 8 for photographs.
    smoothness : float, default=2.0
        Cost of one pixel side of boundary, as a squared color distance. With 0, boundary recall
        is highest and outlines are ragged; with 10 to 30, outlines are smooth.
    n_iter : int, default=10
        Maximum number of rounds at each block size; the last is one in which nothing moves.
    spacing : float or sequence of float, optional
        Distance between neighboring pixels along each axis, in any unit; ones if None.
    intensity_range : {"dtype", "image"} or (low, high), default="dtype"
        How intensities are read: see :func:`hybridseg.validation.as_colors`.
    spatial_ndim : {2, 3}, optional
        Number of spatial axes, if the shape is ambiguous.
    valid : array-like of bool, (*spatial,), optional
        Where False, the pixel belongs to no region and gets -1; its color has no effect. The valid
        pixels are cut into ``n_segments`` regions. If they fill a rectangle, the result is that of
        the cropped image; otherwise only pixels are refined, not blocks.

    Returns
    -------
    ndarray of int32, (*spatial,)
        Region numbers 0..R-1 in raster order of their first pixels. Each region is connected by
        faces (4 neighbors in an image, 6 in a volume). The function uses one thread.

    Raises
    ------
    TypeError, ValueError
        The image, ``n_segments``, ``compactness`` or another parameter is not as described.

    Notes
    -----
    The paper starts from a grid with one cell for each region. Starting from more and merging
    (Ward's method [2]_, on neighbors only) makes small regions where the image has detail and
    large ones where it is smooth, which lowers the undersegmentation error at the same number of
    regions.

    Connectivity is tested only among the 8 (26) blocks around the moving block: those that belong
    to its old region must be connected with each other. This local test also rejects some moves
    that would leave the region connected.

    References
    ----------
    .. [1] J. Yao, M. Boben, S. Fidler, R. Urtasun, "Real-time coarse-to-fine topologically
       preserving segmentation", CVPR, 2015, equations (1) to (5) and algorithm 1.
    .. [2] J. H. Ward, "Hierarchical grouping to optimize an objective function", Journal of the
       American Statistical Association 58(301), 1963.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.features import etps
    >>> image = np.zeros((20, 30), np.uint8)
    >>> image[:, 13:] = 200
    >>> regions = etps(image, n_segments=6)
    >>> regions.shape, regions.dtype, int(regions.max()) + 1
    ((20, 30), dtype('int32'), 6)
    >>> bool((regions[:, 12] == regions[:, 13]).any())
    False
    """
    check_number(n_segments, "n_segments", minimum=1, integer=True)
    check_number(compactness, "compactness", minimum=0, strict=True)
    check_number(smoothness, "smoothness", minimum=0)
    check_number(n_iter, "n_iter", minimum=1, integer=True)
    compactness, smoothness = float(compactness), float(smoothness)
    part = valid_part(
        image,
        spacing=spacing,
        intensity_range=intensity_range,
        spatial_ndim=spatial_ndim,
        valid=valid,
    )
    if part.n_valid == 0:
        return part.empty_map()
    spatial = part.colors.shape[:-1]
    depth_first = (1,) * (3 - len(spatial))  # an image is a volume of one plane
    regions = _etps_volume(
        perceptual_colors(part.colors).reshape(depth_first + part.colors.shape),
        None if part.inside is None else part.inside.reshape(depth_first + spatial),
        (1.0,) * len(depth_first) + part.sides,
        min(n_segments, part.n_valid),
        _Weights(float(compactness), float(smoothness), n_iter),
    )
    return part.on_whole_image(regions)


class ETPS(Superpixels):
    """ETPS superpixels as a parameter object: the settings of :func:`etps`, without the image.

    It can replace :class:`SLIC` everywhere, as in ``SuperpixelClassifier(superpixels=ETPS())``.

    Parameters
    ----------
    n_segments : int, default=500
        The number of regions of an image.
    compactness : float, default=3.0
        Weight of position against color; independent of the range of the image.
    smoothness : float, default=2.0
        Cost of one pixel side of boundary.
    n_iter : int, default=10
        Maximum number of rounds at each block size.

    See Also
    --------
    etps : The function, with advice on choosing the values.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.features import ETPS
    >>> regions = ETPS(n_segments=4)(np.zeros((8, 10), np.uint8))
    >>> int(regions.max()) + 1
    4
    """

    def __init__(
        self,
        n_segments: int = 500,
        *,
        compactness: float = 3.0,
        smoothness: float = 2.0,
        n_iter: int = 10,
    ) -> None:
        self.n_segments = n_segments
        self.compactness = compactness
        self.smoothness = smoothness
        self.n_iter = n_iter

    def _cut(self, image: ArrayLike | Colors, **options: Any) -> NDArray[np.int32]:
        return etps(
            image,
            self.n_segments,
            self.compactness,
            smoothness=self.smoothness,
            n_iter=self.n_iter,
            **options,
        )


class _Weights(NamedTuple):
    """Weights of the energy's terms, and the maximum number of rounds."""

    compactness: float
    smoothness: float
    n_iter: int


class _Level(NamedTuple):
    """Blocks of one size, as flat arrays with a rim of empty blocks for the kernels."""

    bounds: Bounds
    sums: NDArray[np.float32]  # (P, F)
    sizes: NDArray[np.float32]  # (P,)

    @property
    def grid(self) -> Triple:
        z, y, x = (len(b) - 1 for b in self.bounds)
        return z, y, x

    @property
    def padded(self) -> Triple:
        z, y, x = (n + 2 * rim for n, rim in zip(self.grid, self.rim, strict=True))
        return z, y, x

    @property
    def rim(self) -> Triple:
        return _rim(self.bounds[0][-1])

    @property
    def steps(self) -> NDArray[np.int64]:
        _, n_y, n_x = self.padded
        return np.array([n_y * n_x, n_x, 1])

    @property
    def core(self) -> tuple[slice, ...]:
        return tuple(slice(r, r + n) for r, n in zip(self.rim, self.grid, strict=True))


def _rim(depth: int) -> Triple:
    return (0 if depth == 1 else 1, 1, 1)


def _etps_volume(
    colors: NDArray[np.float32],
    inside: NDArray[np.bool_] | None,
    spacing: tuple[float, ...],
    n_segments: int,
    weights: _Weights,
) -> NDArray[np.int32]:
    shape = colors.shape[:-1]
    fraction = 1.0 if inside is None else np.count_nonzero(inside) / inside.size
    # the sides of a pixel in units of a region's side
    sides = make_grid(shape, spacing, n_segments / fraction).pixel_steps
    cells, numbers = _cells(inside, shape, spacing, n_segments, fraction)
    pixels = _pixel_level(colors, inside, weights.compactness * sides)
    levels = _levels(pixels, cells, coarse=inside is None)
    min_size = _MIN_FRACTION_OF_MEAN_SIZE * float(pixels.sizes.sum()) / n_segments
    merge_after = min(1, len(levels) - 2)  # the level; -1 merges before the only level
    if merge_after < 0:
        numbers = _merged(levels[0], numbers, spacing, n_segments, weights.smoothness)
    for place, level in enumerate(levels):
        if place > 0:
            numbers = _on_blocks(numbers, levels[place - 1].bounds, level.bounds)
        if place > 0 or merge_after < 0:
            # before the merging a cell may shrink to a single block
            least = min_size if place > merge_after else 0.0
            numbers = _refined(level, numbers, spacing, weights, least)
        if place == merge_after:
            numbers = _merged(level, numbers, spacing, n_segments, weights.smoothness)
    return _in_raster_order(numbers)


def _cells(
    inside: NDArray[np.bool_] | None,
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    n_segments: int,
    fraction: float,
) -> tuple[Bounds, NDArray[np.int32]]:
    """The first grid and the numbers of its cells, at least ``n_segments``.

    With a mask, the numbers are per pixel, and each connected piece of a cell has its own number.
    """
    n_cells = _CELLS_PER_REGION * n_segments / fraction
    while True:
        grid = make_grid(shape, spacing, n_cells)
        if inside is None:
            numbers = _cell_numbers(grid.bounds)
            n_found = numbers.size
        else:
            pieces = np.where(inside, grid.numbers(), np.int32(-1))
            numbers, n_found = connected_components(pieces)
        if n_found >= n_segments:
            return grid.bounds, numbers
        n_cells *= 2


def _pixel_level(
    colors: NDArray[np.float32], inside: NDArray[np.bool_] | None, steps: NDArray[np.float64]
) -> _Level:
    """Features of the pixels: scaled colors, and positions as multiples of ``steps``."""
    shape, n_channels = colors.shape[:-1], colors.shape[-1]
    axes = [a for a in range(3) if shape[a] > 1]
    bounds = tuple(np.arange(n + 1) for n in shape)
    rim = _rim(shape[0])
    padded = tuple(n + 2 * r for n, r in zip(shape, rim, strict=True))
    level = _Level(
        bounds,
        np.zeros((math.prod(padded), n_channels + len(axes)), np.float32),
        np.zeros(math.prod(padded), np.float32),
    )
    features = level.sums.reshape(*padded, -1)[level.core]
    shift, scale = _color_scale(colors, inside)
    for c in range(n_channels):
        features[..., c] = (colors[..., c] - shift[c]) * scale[c]
    for k, a in enumerate(axes):
        ramp = (np.arange(shape[a]) - (shape[a] - 1) / 2) * steps[a]
        features[..., n_channels + k] = np.expand_dims(ramp, [i for i in range(3) if i != a])
    level.sizes.reshape(padded)[level.core] = 1 if inside is None else inside
    return level


def _color_scale(
    colors: NDArray[np.float32], inside: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The offset to subtract from each channel, and the factor to multiply it by."""
    seen = colors.reshape(-1, colors.shape[-1]) if inside is None else colors[inside]
    weights = np.ones(colors.shape[-1])
    if len(weights) == 3:
        weights[0] = _LIGHTNESS_WEIGHT
    if not len(seen):
        return np.zeros(len(weights), np.float32), weights.astype(np.float32)
    planes = [np.ascontiguousarray(plane) for plane in seen.T]
    mean = np.array([plane.mean(dtype=np.float64) for plane in planes])
    spread = np.array([plane.std(dtype=np.float64) for plane in planes])
    total = float(np.hypot.reduce(spread * weights))
    scale = _COLOR_SPREAD / total if total > 1e-4 else 0.0
    return mean.astype(np.float32), (weights * scale).astype(np.float32)


def _levels(pixels: _Level, cells: Bounds, *, coarse: bool) -> list[_Level]:
    """Levels from the cells, halved repeatedly, down to the pixels; only pixels if not coarse."""
    chain = [cells]
    while min((np.diff(b).min() for b in chain[-1] if b[-1] > 1), default=1) >= _MIN_SIDE_TO_HALVE:
        chain.append(tuple(_halved(b) for b in chain[-1]))
    if not coarse or max(np.diff(b).max() for b in cells) == 1:
        return [pixels]
    levels = [pixels]
    for bounds in reversed(chain):
        levels.append(_coarser(levels[-1], bounds))
    return levels[::-1]


def _halved(bounds: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.unique(np.concatenate([bounds, (bounds[:-1] + bounds[1:]) // 2]))


def _coarser(fine: _Level, bounds: Bounds) -> _Level:
    coarse = _Level(bounds, fine.sums[:0], fine.sizes[:0])
    places = tuple(
        (_parents(b, f) + rim) * step
        for b, f, rim, step in zip(bounds, fine.bounds, coarse.rim, coarse.steps, strict=True)
    )
    starts = np.array([np.dot(fine.rim, fine.steps), *fine.steps])
    sums, sizes = block_sums(fine.sums, fine.sizes, places, starts, math.prod(coarse.padded))
    return _Level(bounds, sums, sizes)


def _parents(coarse: NDArray[np.int64], fine: NDArray[np.int64]) -> NDArray[np.int64]:
    """The index of the coarse block that holds each fine block, along one axis."""
    return np.searchsorted(coarse, fine[:-1], side="right") - 1


def _cell_numbers(bounds: Bounds) -> NDArray[np.int32]:
    counts = [len(b) - 1 for b in bounds]
    return np.arange(math.prod(counts), dtype=np.int32).reshape(counts)


def _on_blocks(numbers: NDArray[np.int32], coarse: Bounds, fine: Bounds) -> NDArray[np.int32]:
    for axis in range(3):
        numbers = numbers.take(_parents(coarse[axis], fine[axis]), axis=axis)
    return numbers


def _refined(
    level: _Level,
    numbers: NDArray[np.int32],
    spacing: tuple[float, ...],
    weights: _Weights,
    min_size: float,
) -> NDArray[np.int32]:
    labels = _with_rim(level, numbers)
    ring, adjacency = _ring(level)
    refine_blocks(
        labels,
        level.sums,
        level.sizes,
        _face_areas(level, spacing),
        ring,
        adjacency,
        int(numbers.max(initial=-1)) + 1,
        weights.smoothness,
        min_size,
        weights.n_iter,
    )
    return labels.reshape(level.padded)[level.core]


def _merged(
    level: _Level,
    numbers: NDArray[np.int32],
    spacing: tuple[float, ...],
    n_segments: int,
    smoothness: float,
) -> NDArray[np.int32]:
    """Merge regions until ``n_segments`` are left; return their numbers 0..R-1 per block."""
    labels = _with_rim(level, numbers)
    n_regions = int(labels.max(initial=-1)) + 1
    if n_regions <= n_segments:
        return numbers
    pairs, areas = region_contacts(labels, _face_areas(level, spacing), _ring(level)[0])
    sums, _ = sums_and_counts(level.sums, labels, n_regions)
    sizes = np.bincount(labels[labels >= 0], level.sizes[labels >= 0], n_regions)
    group, _ = merge_cheapest(pairs, areas, sums, sizes, smoothness, n_segments)
    number = np.unique(group, return_inverse=True)[1].astype(np.int32)
    return np.where(numbers >= 0, number[numbers], np.int32(-1))


def _with_rim(level: _Level, numbers: NDArray[np.int32]) -> NDArray[np.int32]:
    labels = np.full(level.padded, -1, np.int32)
    labels[level.core] = numbers
    return labels.ravel()


def _ring(level: _Level) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets to the neighbors of a block (those across faces first), and their adjacency bits."""
    deep = (-1, 0, 1) if level.rim[0] else (0,)
    around = [o for o in product(deep, (-1, 0, 1), (-1, 0, 1)) if any(o)]
    around.sort(key=lambda o: (np.count_nonzero(o), np.abs(o).tolist()))
    apart = np.abs(np.subtract.outer(around, around)[:, np.arange(3), :, np.arange(3)]).sum(axis=0)
    adjacency = ((apart == 1) << np.arange(len(around))).sum(axis=1)
    return np.array(around) @ level.steps, adjacency


def _face_areas(level: _Level, spacing: tuple[float, ...]) -> NDArray[np.float32]:
    """Areas of a block's faces across the last, middle and first axis; mean 1 for a pixel."""
    axes = [a for a in range(3) if level.rim[a]]
    sides: list[Any] = [np.ones(1)] * 3
    unit = math.prod(spacing[a] for a in axes) ** (1 / len(axes))
    if level.grid != tuple(b[-1] for b in level.bounds):
        sides = [
            np.pad(np.diff(b), rim).astype(np.float64)
            for b, rim in zip(level.bounds, level.rim, strict=True)
        ]
    z, y, x = (
        np.expand_dims(
            s * (spacing[a] / unit if a in axes else 1.0), [i for i in range(3) if i != a]
        )
        for a, s in enumerate(sides)
    )
    faces = np.broadcast_arrays(z * y + 0 * x, z * x + 0 * y, y * x + 0 * z)
    return np.stack([f.ravel() for f in faces], axis=-1).astype(np.float32)


def _in_raster_order(numbers: NDArray[np.int32]) -> NDArray[np.int32]:
    flat = numbers.ravel()
    n_regions = int(flat.max(initial=-1)) + 1
    first = np.full(n_regions + 1, flat.size)  # the last one is for -1
    first[flat[::-1]] = np.arange(flat.size)[::-1]
    order = np.empty(n_regions + 1, np.int32)
    order[np.argsort(first[:-1], kind="stable")] = np.arange(n_regions)
    order[-1] = -1
    return order[flat].reshape(numbers.shape)
