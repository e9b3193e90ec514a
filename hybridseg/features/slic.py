"""SLIC superpixels: small connected regions of similar size that follow the edges of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.features.grids import Grid, grid_inside, make_grid, valid_part
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
    small_neighbors,
)
from hybridseg.kernels.superpixels.slic import LANES, UNIT, assign_pixels
from hybridseg.kernels.superpixels.slic_centers import center_sums, leave_edges
from hybridseg.kernels.superpixels.slic_rows import QUAD
from hybridseg.kernels.vectors.padding import room_for
from hybridseg.kernels.vectors.way import way
from hybridseg.validation import Colors, IntensityRange, check_number

# Colors are scaled so that their root mean square distance from the mean color is this, the
# typical value of photographs in CIELAB. So a compactness has the same effect as in the paper.
_COLOR_SPREAD = 25.0
# Scaled colors are rounded to integers with at most this many steps per unit, and clipped at 20
# times the root mean square distance, which only outliers exceed.
_MAX_STEPS_PER_UNIT = 64.0
_MAX_COLOR_DISTANCE = 500.0
# Connected pieces below this fraction of the mean size are merged into a neighbor.
_MIN_FRACTION_OF_MEAN_SIZE = 0.25


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
    """Cut an image into about ``n_segments`` connected regions of similar size and color.

    SLIC [1]_ is k-means in color and position that compares each pixel with nearby centers only.
    The distance of pixel i from center k is

        D^2 = |c_i - c_k|^2 + (compactness / S)^2 |p_i - p_k|^2

    with c the color, p the position (index x spacing) and S the step of the grid of centers.
    Three channels are taken as sRGB and become CIELAB, one channel becomes L*, and other numbers
    of channels are used unchanged.

    The compactness does not depend on the scale of the colors: before the iterations they are
    scaled to a root mean square distance of 25 from the mean color, which is typical of
    photographs in CIELAB. So the same value works on color and gray images of 8 bits, 16 bits or
    floats, with any number of channels and with low contrast.

    Parameters
    ----------
    image : array-like, (H, W[, C]) or (D, H, W[, C]), or Colors
        Any real dtype. A 3-D array is an image with channels unless ``spatial_ndim`` or
        ``spacing`` says otherwise.
    n_segments : int, default=500
        The approximate number of regions; the grid of centers and the merging of small pieces
        change it a little. Choose it so that a region is smaller than the smallest object of
        interest: 100 to 400 pixels each are usual for photographs. If there are fewer pixels than
        ``n_segments``, each pixel is a region.
    compactness : float, default=10.0
        Weight of position relative to color. At 1 regions are ragged and follow every edge; at 100
        regions are nearly square. Use 10 to 20 for photographs.
    n_iter : int, default=10
        Maximum number of iterations. The iteration stops when no pixel changes its region. More
        than 10 iterations change little.
    spacing : float or sequence of float, optional
        Distance between neighboring pixels along each axis, in any unit; ones if None.
    intensity_range : {"dtype", "image"} or (low, high), default="dtype"
        How intensities are read: see :func:`hybridseg.validation.as_colors`.
    spatial_ndim : {2, 3}, optional
        Number of spatial axes, if the shape is ambiguous.
    valid : array-like of bool, (*spatial,), optional
        Where False, the pixel belongs to no region and gets -1; its color has no effect. The valid
        pixels are cut into about ``n_segments`` regions. If they fill a rectangle, the result is
        that of the cropped image.

    Returns
    -------
    ndarray of int32, (*spatial,)
        Region numbers 0..R-1 in raster order of their first pixels. Each region is connected by
        faces (4 neighbors in an image, 6 in a volume). The result does not depend on the number
        of threads.

    Raises
    ------
    TypeError, ValueError
        The image, ``n_segments``, ``compactness`` or another parameter is not as described.

    Notes
    -----
    Each pixel is compared with the centers of its own grid cell and of the cells that touch it
    (9, or 27 in a volume). These cover at least the 2S x 2S search window of the paper. A center
    starts at the pixel of lowest gradient among the 9 (27) in the middle of its cell.

    After the iterations, connected pieces smaller than a quarter of the mean size join the
    neighbor with the most similar mean color. Larger pieces that are separated from their center
    become regions of their own.

    Scaled colors are clipped at 20 times their root mean square distance and rounded to steps that
    are as small as 32-bit distances allow: about an eighth of a unit in photographs, and at least
    a 64th.

    References
    ----------
    .. [1] R. Achanta, A. Shaji, K. Smith, A. Lucchi, P. Fua, S. Suesstrunk, "SLIC superpixels
       compared to state-of-the-art superpixel methods", IEEE TPAMI 34(11), 2012, equations (1) to
       (3).

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
    volume = (1,) * (3 - len(spatial)) + spatial  # an image is a volume of one plane
    sides = (1.0,) * (3 - len(spatial)) + part.sides
    if part.inside is None:
        inside, grid = np.ones(volume, bool), make_grid(volume, sides, n_segments)
    else:
        inside = part.inside.reshape(volume)
        grid = grid_inside(inside, sides, n_segments)
    planes = perceptual_planes(part.colors).reshape(part.colors.shape[-1:] + volume)
    return part.on_whole_image(_slic_volume(planes, inside, grid, compactness, n_iter))


class SLIC(Superpixels):
    """SLIC superpixels as a parameter object: the settings of :func:`slic`, without the image.

    Parameters
    ----------
    n_segments : int, default=500
        The approximate number of regions of an image.
    compactness : float, default=10.0
        Weight of position against color; independent of the range of the image.
    n_iter : int, default=10
        Maximum number of iterations.

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
    n_centers = math.prod(len(b) - 1 for b in grid.bounds)
    sums = np.zeros((n_centers, QUAD * len(quads) + 4), np.int64)
    if inside.all():
        labels, alive = np.zeros(inside.shape, np.int32), np.ones(n_centers, bool)
    else:  # a cell may hold no valid pixel, or none near its middle
        labels = np.where(inside, grid.numbers(), np.int32(-1))
        center_sums(quads, labels, sums)
        alive = sums[:, -1] > 0
    centers = (sums[:, :-1] / np.maximum(sums[:, -1:], 1)).astype(np.float32)
    leave_edges(quads, inside, grid.bounds, centers)
    weights = (weights * steps).astype(np.float32)
    with threads_for(labels.size):
        assign_pixels(quads, grid.bounds, centers, alive, weights, labels, sums, n_iter)
    return _connect(labels, quads, sums)


def _quads(
    colors: NDArray[np.float32],
    inside: NDArray[np.bool_],
    grid: Grid,
    weights: NDArray[np.float64],
) -> tuple[NDArray[np.int16], float]:
    """Integer colors (G, D, H, padded W, 4), less their mean, and the number of steps per unit."""
    n_channels, depth, height, width = colors.shape
    means, variance, reaches = color_spread(colors, inside)
    scale = _COLOR_SPREAD / math.sqrt(variance) if variance > 1e-8 else 0.0
    reaches = np.minimum(reaches * scale, _MAX_COLOR_DISTANCE)
    # a center is less than three cells away from any pixel that is compared with it
    spans = [3.0 * np.diff(b).max() for b in grid.bounds]
    greatest = 1.5 * (reaches**2).sum() + 0.5 * ((weights * spans) ** 2).sum()
    greatest = max(greatest, 1e-9)  # an image of one color, and a compactness near zero
    most = 32767 // int(UNIT)
    steps = min(
        _MAX_STEPS_PER_UNIT,
        most / max(reaches.max(), 1.0),
        math.sqrt(2.0**30 / (int(UNIT) * greatest)),
    )
    n_quads = (n_channels + QUAD - 1) // QUAD
    quads = np.zeros((n_quads, depth, height, room_for(width, LANES, LANES), QUAD), np.int16)
    limit = min(_MAX_COLOR_DISTANCE * steps, most)
    write_quads(colors, inside, means, scale * steps, limit, quads)
    return quads, steps


def _connect(
    labels: NDArray[np.int32], quads: NDArray[np.int16], label_sums: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Split labels into connected pieces, merge the small ones, and number them in raster order."""
    starts, firsts = find_runs(labels, way())
    pieces, n_pieces = join_runs(labels, starts, firsts, way())
    if n_pieces == 0:
        return labels
    sums, sizes = piece_sums(quads, labels, label_sums, starts, firsts, pieces, n_pieces)
    min_size = _MIN_FRACTION_OF_MEAN_SIZE * sizes.sum() / np.count_nonzero(label_sums[:, -1])
    pairs = small_neighbors(starts, firsts, labels.shape[1], pieces, sizes, min_size)
    group = merge_small(pairs, sums.astype(np.float64), sizes, min_size)
    return paint_runs(number_groups(group), starts, pieces).reshape(labels.shape)
