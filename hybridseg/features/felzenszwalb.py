"""Regions by the graph-based method of Felzenszwalb and Huttenlocher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.features.gaussians import MAX_SUMMED_RADIUS, radius_of, smooth
from hybridseg.features.grids import valid_part
from hybridseg.features.superpixel_base import Superpixels
from hybridseg.kernels.superpixels.felzenszwalb import (
    MOST_PIXELS,
    blur,
    edge_costs,
    merge_edges,
    part_edges,
)
from hybridseg.space import Width, width_in_pixels
from hybridseg.validation import Colors, IntensityRange, check_number

# Gaussians are cut off at this many standard deviations.
_TRUNCATE = 4.0
# The sigma that "auto" means, in pixels of the finest axis.
_DEFAULT_SIGMA = 0.8


def felzenszwalb(
    image: ArrayLike | Colors,
    scale: float = 100.0,
    sigma: Width = "auto",
    min_size: int = 20,
    *,
    spacing: Sequence[float] | float | None = None,
    intensity_range: IntensityRange = "dtype",
    spatial_ndim: int | None = None,
    valid: ArrayLike | None = None,
) -> NDArray[np.int32]:
    """Cut an image into connected regions between which there is more contrast than within.

    The pixels are the nodes of a graph; the cost of an edge is the distance between the colors of
    two neighbors. Edges are visited in ascending order of cost [1]_. An edge merges its two
    regions if its cost is below the bound of both regions. The bound of a region is the largest
    cost of an edge inside it so far, plus ``scale`` divided by its number of pixels.

    Regions are large where an image is smooth and small where it has detail. Their number depends
    on the image. Use :func:`slic` for regions of similar size or for a given number of regions.

    Parameters
    ----------
    image : array-like, (H, W[, C]) or (D, H, W[, C]), or Colors
        Any real dtype and number of channels. A 3-D array is an image with channels unless
        ``spatial_ndim`` or ``spacing`` says otherwise.
    scale : float, default=100.0
        The contrast that a region of one pixel tolerates, on the scale 0..255 of colors. Larger
        values make larger regions: 20 to 100 for superpixels, 300 to 1000 for whole objects.
    sigma : "auto" or float, default="auto"
        Width of the Gaussian that smooths the image first, in the unit of ``spacing``; 0 for
        none. "auto" is 0.8 pixels of the finest axis; 0.5 to 1 pixels remove noise and
        compression artifacts.
    min_size : int, default=20
        Smaller regions (in pixels) are merged with a neighbor across their cheapest edges.
    spacing : float or sequence of float, optional
        Distance between neighboring pixels along each axis, in any unit; ones if None.
    intensity_range : {"dtype", "image"} or (low, high), default="dtype"
        How intensities are read: see :func:`hybridseg.validation.as_colors`.
    spatial_ndim : {2, 3}, optional
        Number of spatial axes, where the shape leaves it open.
    valid : array-like of bool, (*spatial,), optional
        Where False, the pixel belongs to no region and gets -1; its color has no effect.

    Returns
    -------
    ndarray of int32, (*spatial,)
        Region numbers 0..R-1 in raster order of their first pixels. Each region is connected
        through 8 neighbors of a pixel (26 in a volume). A region is smaller than ``min_size`` only
        if it has no neighbor. Pixels that are not valid have the number -1.

    Raises
    ------
    TypeError, ValueError
        The image or a parameter is not as described.

    Notes
    -----
    The definition and the scale are those of :func:`skimage.segmentation.felzenszwalb`: diagonal
    neighbors count, borders are reflected when smoothing, and a cost must be strictly below the
    bound. Costs are float32; edges of equal cost are visited direction by direction, in
    raster order. Both functions return the same regions if all costs differ in float32. 8-bit
    images have many equal costs, and there the regions differ a little.

    References
    ----------
    .. [1] P. F. Felzenszwalb, D. P. Huttenlocher, "Efficient graph-based image segmentation", IJCV
       59(2), 2004, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.features import felzenszwalb
    >>> image = np.zeros((20, 30), np.uint8)
    >>> image[:, 13:] = 200
    >>> regions = felzenszwalb(image, sigma=0)
    >>> int(regions.max()) + 1, bool((regions[:, 12] == regions[:, 13]).any())
    (2, False)
    """
    check_number(scale, "scale", minimum=0)
    check_number(min_size, "min_size", minimum=0, integer=True)
    scale = float(scale)
    part = valid_part(
        image,
        spacing=spacing,
        intensity_range=intensity_range,
        spatial_ndim=spatial_ndim,
        valid=valid,
    )
    spatial = part.colors.shape[:-1]
    pixels = width_in_pixels(sigma, "sigma", spacing, len(spatial), auto=_DEFAULT_SIGMA)
    if part.n_valid == 0:
        return part.empty_map()
    inside = np.ones(spatial, bool) if part.inside is None else part.inside
    if inside.size > MOST_PIXELS:
        raise ValueError(f"image has {inside.size} pixels; expected at most {MOST_PIXELS}.")
    planes = np.ascontiguousarray(np.moveaxis(part.colors, -1, 0))
    planes = _smoothed(planes, inside, [pixels / side for side in part.sides])
    depth_first = (1,) * (3 - len(spatial)) + spatial  # an image is a volume of one plane
    offsets = _half_of_neighbors(len(spatial))
    inside = inside.reshape(depth_first)
    costs = edge_costs(planes.reshape(-1, *depth_first), inside, offsets)
    edges, starts, least = part_edges(costs.reshape(len(offsets), -1).view(np.uint32))
    shifts = offsets @ np.array([depth_first[1] * depth_first[2], depth_first[2], 1])
    regions = merge_edges(edges, starts, least, shifts, np.float32(scale), min_size, inside.ravel())
    return part.on_whole_image(regions)


class Felzenszwalb(Superpixels):
    """Felzenszwalb's regions as a parameter object: the settings of :func:`felzenszwalb`.

    Parameters
    ----------
    scale : float, default=100.0
        The contrast that a region of one pixel tolerates, on the scale 0..255.
    sigma : "auto" or float, default="auto"
        Width of the Gaussian that smooths the image first, in the unit of ``spacing``; "auto" is
        0.8 pixels of the finest axis.
    min_size : int, default=20
        Smaller regions (in pixels) are merged with a neighbor.

    See Also
    --------
    felzenszwalb : The function, with advice on choosing the values.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.features import Felzenszwalb
    >>> Felzenszwalb(scale=50.0)(np.zeros((8, 10), np.uint8)).max()
    np.int32(0)
    """

    def __init__(self, scale: float = 100.0, *, sigma: Width = "auto", min_size: int = 20) -> None:
        self.scale = scale
        self.sigma = sigma
        self.min_size = min_size

    def _cut(self, image: ArrayLike | Colors, **options: Any) -> NDArray[np.int32]:
        return felzenszwalb(image, self.scale, self.sigma, self.min_size, **options)


def _half_of_neighbors(ndim: int) -> NDArray[np.int64]:
    """Steps (z, y, x) to the neighbors later in raster order: 4, or 13 in a volume."""
    axes = [(0,)] * (3 - ndim) + [(-1, 0, 1)] * ndim
    return np.array([step for step in product(*axes) if step > (0, 0, 0)])


def _smoothed(
    planes: NDArray[np.float32], inside: NDArray[np.bool_], widths: list[float]
) -> NDArray[np.float32]:
    """Smooth planes (C, *spatial) by a Gaussian; pixels outside the mask have no weight."""
    if inside.all():
        return _gaussian(planes, widths)
    weight = np.maximum(_gaussian(inside[np.newaxis].astype(np.float32), widths), np.float32(1e-6))
    seen = _gaussian(np.where(inside, planes, np.float32(0)), widths)
    return np.asarray(seen / weight, np.float32)


def _gaussian(planes: NDArray[np.float32], widths: list[float]) -> NDArray[np.float32]:
    for axis, width in enumerate(widths, start=1):
        length = planes.shape[axis]
        radius = radius_of(width, _TRUNCATE)
        if radius > MAX_SUMMED_RADIUS:
            planes = smooth(planes, [0.0] * axis + [width], truncate=_TRUNCATE)
        elif radius > 0 and length > 1:
            places = np.arange(radius + 1)
            taps = np.exp(-0.5 * (places / width) ** 2)
            taps /= 2 * taps.sum() - taps[0]
            lines = planes.reshape(math.prod(planes.shape[:axis]), length, -1)
            planes = blur(lines, taps.astype(np.float32)).reshape(planes.shape)
    return planes
