"""Regions by the graph-based method of Felzenszwalb and Huttenlocher."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.features.gaussians import MOST_NEIGHBOURS, radius_of, smooth
from hybridseg.features.grids import seen_part
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

# Gaussians end at this many standard deviations.
_TRUNCATE = 4.0
# Width where none is given, in pixels of the finest axis.
_SIGMA = 0.8


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

    The pixels are the nodes of a graph; an edge between neighbours costs the distance of their
    colours. In ascending order of cost, two regions merge where the cost is below the greatest
    cost that either needed for its own merging, plus ``scale`` over its size. Regions are large
    where a picture is smooth and small where it has detail; their number follows from the
    picture. For about equal regions, or a number of them, take :func:`slic`.

    Parameters
    ----------
    image : array-like, (H, W[, C]) or (D, H, W[, C]), or Colors
        Any real dtype and number of channels. A 3-D array is a picture with channels unless
        ``spatial_ndim`` or ``spacing`` says otherwise.
    scale : float, default=100.0
        How much contrast a region of one pixel allows, on the scale 0..255 of colours; what
        region sizes grow with. 20 to 100 gives superpixels, 300 to 1000 whole objects.
    sigma : "auto" or float, default="auto"
        Width of the Gaussian that smooths the image before, in the unit of ``spacing``; 0 for
        none. "auto" takes 0.8 pixels of the finest axis; 0.5 to 1 pixels remove noise and the
        steps of compression.
    min_size : int, default=20
        Regions of fewer pixels are merged, across their cheapest edges.
    spacing : float or sequence of float, optional
        Distance between neighbouring pixels along each axis, in any unit; ones if None.
    intensity_range : {"dtype", "image"} or (low, high), default="dtype"
        How intensities are read: see :func:`hybridseg.validation.as_colors`.
    spatial_ndim : {2, 3}, optional
        Number of spatial axes, where the shape leaves it open.
    valid : array-like of bool, (*spatial,), optional
        Where False, the pixel belongs to no region and gets -1, and what it holds changes nothing.

    Returns
    -------
    ndarray of int32, (*spatial,)
        Region numbers 0..R-1 in raster order of their first pixels. Each region is connected
        by its 8 neighbours (26 in a volume). No region is smaller than ``min_size``, unless
        there is nothing that it touches.

    Raises
    ------
    TypeError, ValueError
        The image or a parameter is not as described.

    Notes
    -----
    The definition is that of :func:`skimage.segmentation.felzenszwalb`, with the same scale:
    neighbours along diagonals included, reflected borders when smoothing, merging where the cost
    is strictly below the bound. Costs are float32; edges of equal cost are taken direction by
    direction, in raster order. So both give the same regions where no two costs are closer than
    float32 can tell; 8-bit pictures have many equal costs, and there the regions differ a little.

    References
    ----------
    P. F. Felzenszwalb, D. P. Huttenlocher, "Efficient graph-based image segmentation", IJCV
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
    seen = seen_part(
        image,
        spacing=spacing,
        intensity_range=intensity_range,
        spatial_ndim=spatial_ndim,
        valid=valid,
    )
    spatial = seen.colors.shape[:-1]
    pixels = width_in_pixels(sigma, "sigma", spacing, len(spatial), auto=_SIGMA)
    if seen.n_valid == 0:
        return seen.nothing()
    inside = np.ones(spatial, bool) if seen.inside is None else seen.inside
    if inside.size > MOST_PIXELS:
        raise ValueError(f"image has {inside.size} pixels; expected at most {MOST_PIXELS}.")
    planes = np.ascontiguousarray(np.moveaxis(seen.colors, -1, 0))
    planes = _smoothed(planes, inside, [pixels / side for side in seen.sides])
    depth_first = (1,) * (3 - len(spatial)) + spatial  # a picture is a volume of one plane
    offsets = _half_of_neighbours(len(spatial))
    inside = inside.reshape(depth_first)
    costs = edge_costs(planes.reshape(-1, *depth_first), inside, offsets)
    edges, starts, least = part_edges(costs.reshape(len(offsets), -1).view(np.uint32))
    shifts = offsets @ np.array([depth_first[1] * depth_first[2], depth_first[2], 1])
    regions = merge_edges(edges, starts, least, shifts, np.float32(scale), min_size, inside.ravel())
    return seen.spread(regions)


class Felzenszwalb(Superpixels):
    """Felzenszwalb's regions as a parameter object: :func:`felzenszwalb` without the image.

    Parameters
    ----------
    scale : float, default=100.0
        How much contrast a region of one pixel allows, on the scale 0..255.
    sigma : "auto" or float, default="auto"
        Width of the Gaussian that smooths the image before, in the unit of ``spacing``; "auto"
        takes 0.8 pixels of the finest axis.
    min_size : int, default=20
        Regions of fewer pixels are merged.

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


def _half_of_neighbours(ndim: int) -> NDArray[np.int64]:
    """Steps (z, y, x) to the neighbours that come later in raster order: 4, or 13 in a volume."""
    axes = [(0,)] * (3 - ndim) + [(-1, 0, 1)] * ndim
    return np.array([step for step in product(*axes) if step > (0, 0, 0)])


def _smoothed(
    planes: NDArray[np.float32], inside: NDArray[np.bool_], widths: list[float]
) -> NDArray[np.float32]:
    """Planes (C, *spatial) after a Gaussian, which takes no colour from pixels outside."""
    if inside.all():
        return _gaussian(planes, widths)
    weight = np.maximum(_gaussian(inside[np.newaxis].astype(np.float32), widths), np.float32(1e-6))
    seen = _gaussian(np.where(inside, planes, np.float32(0)), widths)
    return np.asarray(seen / weight, np.float32)


def _gaussian(planes: NDArray[np.float32], widths: list[float]) -> NDArray[np.float32]:
    for axis, width in enumerate(widths, start=1):
        length = planes.shape[axis]
        radius = radius_of(width, _TRUNCATE)
        if radius > MOST_NEIGHBOURS:
            planes = smooth(planes, [0.0] * axis + [width], truncate=_TRUNCATE)
        elif radius > 0 and length > 1:
            places = np.arange(radius + 1)
            taps = np.exp(-0.5 * (places / width) ** 2)
            taps /= 2 * taps.sum() - taps[0]
            lines = planes.reshape(math.prod(planes.shape[:axis]), length, -1)
            planes = blur(lines, taps.astype(np.float32)).reshape(planes.shape)
    return planes
