"""Distance maps of label maps, computed on the CPU, from which losses take pixel weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from hybridseg.space import Width, pixel_sides, width_in_pixels
from hybridseg.validation import as_label_map, as_spacing, check_number

#: Gaussian weights beyond this many widths are below 2e-8 and are set to zero.
_MAX_WIDTHS = 6.0
#: The default sigma of U-Net, in pixels of the finest axis.
_GAP_SIGMA = 5.0


def signed_distances(
    labels: ArrayLike, n_classes: int, *, spacing: Sequence[float] | float | None = None
) -> NDArray[np.float64]:
    """Return the signed distance of each pixel from each class, negative inside the class.

    Parameters
    ----------
    labels : array-like of int, (*spatial,)
        Class indices. Negative is void, which is neither inside nor outside of a class.
    n_classes : int
        The number of classes L.
    spacing : sequence of float, optional
        The distance between neighboring pixels along each axis. Default: 1.

    Returns
    -------
    ndarray of float64, (L, *spatial)
        Outside of a class, the distance to its nearest pixel. Inside, ``-(d - s)`` with d the
        distance to the nearest labeled pixel of another class and s the smallest spacing: 0 at
        the inner side of the boundary, as in [1]_. The map is 0 at void pixels, and everywhere for
        a class that has no pixel or all of them.

    Raises
    ------
    TypeError, ValueError
        ``labels`` are not class indices below ``n_classes``, or another argument is not as
        described.

    References
    ----------
    .. [1] H. Kervadec et al., "Boundary loss for highly unbalanced segmentation", MIDL, 2019,
       section 2.2.

    Examples
    --------
    >>> from hybridseg.losses import signed_distances
    >>> signed_distances([[0, 0, 1, 1, 1]], n_classes=2).tolist()
    [[[-1.0, 0.0, 1.0, 2.0, 3.0]], [[2.0, 1.0, 0.0, -1.0, -2.0]]]
    """
    check_number(n_classes, "n_classes", minimum=1, maximum=2**16, integer=True)
    labels = as_label_map(labels)
    if labels.max(initial=-1) >= n_classes:
        raise ValueError(
            f"labels holds {labels.max()}; expected class indices 0..{n_classes - 1} for "
            f"n_classes={n_classes}: pass a larger n_classes, or negative values for void pixels."
        )
    steps = as_spacing(spacing, labels.ndim)
    out = np.zeros((n_classes, *labels.shape), dtype=np.float64)
    for index in np.unique(labels[labels >= 0]):
        inside = labels == index
        outside = (labels >= 0) & ~inside
        if outside.any():
            out[index] += _distance_to(inside, steps) * outside
            out[index] -= (_distance_to(outside, steps) - min(steps)) * inside
    return out


def _distance_to(mask: NDArray[np.bool_], steps: tuple[float, ...]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = ndimage.distance_transform_edt(~mask, sampling=steps)
    return found


def gap_weights(
    labels: ArrayLike,
    *,
    gap_weight: float = 10.0,
    sigma: Width = "auto",
    background: int = 0,
    spacing: Sequence[float] | float | None = None,
) -> NDArray[np.float64]:
    """Return U-Net's weights of the background between cells that nearly touch [1]_.

    Parameters
    ----------
    labels : array-like of int, (*spatial,)
        Class indices, or instance labels; negative is void. Cells are the connected components
        (diagonal neighbors are connected) of each value except ``background``.
    gap_weight : float, default=10.0
        ``w0`` in the formula.
    sigma : "auto" or float, default="auto"
        ``sigma`` in the formula, in the unit of ``spacing``. "auto" is 5 pixels of the finest axis.
    background : int, default=0
        The label of the background.
    spacing : sequence of float, optional
        The distance between neighboring pixels along each axis. Default: 1.

    Returns
    -------
    ndarray of float64, (*spatial,)
        ``w0 exp(-(d1 + d2)^2 / (2 sigma^2))`` at background pixels (equation 2 of [1]_), with d1
        and d2 the distances to the nearest and the second nearest cell. It is 0 inside cells, at
        void pixels, if there are fewer than two cells, and where ``d1 + d2 > 6 sigma`` (where the
        formula gives less than 2e-8 w0).

    Raises
    ------
    TypeError, ValueError
        ``labels`` is not a label map with at least one pixel, or another argument is not as
        described.

    References
    ----------
    .. [1] O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image
       Segmentation", MICCAI, 2015.

    Examples
    --------
    >>> from hybridseg.losses import gap_weights
    >>> gap_weights([[1, 0, 2, 0, 0, 0, 1]], sigma=2).round(2).tolist()
    [[0.0, 6.07, 0.0, 1.35, 1.35, 1.35, 0.0]]
    """
    labels = as_label_map(labels)
    if labels.ndim == 0 or labels.size == 0:
        raise ValueError(
            f"labels has shape {labels.shape}; expected a map with at least one pixel."
        )
    check_number(gap_weight, "gap_weight", minimum=0)
    sigma = width_in_pixels(sigma, "sigma", spacing, labels.ndim, auto=_GAP_SIGMA, zero=False)
    steps = pixel_sides(spacing, labels.ndim)
    out = np.zeros(labels.shape, dtype=np.float64)
    cells = _cells(labels, background)
    if cells.max(initial=0) < 2:
        return out
    first, nearest = ndimage.distance_transform_edt(cells == 0, sampling=steps, return_indices=True)
    owner = cells[tuple(nearest)]
    reach = _MAX_WIDTHS * sigma
    # The second distance is needed only at pixels that have this cell as their nearest and that
    # are within reach of it.
    owner[first > reach] = 0
    margins = [min(math.ceil(reach / s), n) for s, n in zip(steps, labels.shape, strict=True)]
    for cell, box in enumerate(ndimage.find_objects(owner), start=1):
        if box is None:
            continue
        window = tuple(
            slice(max(0, side.start - margin), side.stop + margin)
            for side, margin in zip(box, margins, strict=True)
        )
        others = (cells[window] > 0) & (cells[window] != cell)
        if not others.any():
            continue
        distance = first[window] + _distance_to(others, steps)
        here = (owner[window] == cell) & (labels[window] == background) & (distance <= reach)
        weights = gap_weight * np.exp(-0.5 * np.square(distance[here] / sigma))
        out[window][here] = weights
    return out


def _cells(labels: NDArray[np.int64], background: int) -> NDArray[np.int32]:
    """Number the connected components of all values except the background from 1; 0 elsewhere."""
    everywhere = np.ones((3,) * labels.ndim)
    out = np.zeros(labels.shape, dtype=np.int32)
    n_cells = 0
    values = np.unique(labels[(labels >= 0) & (labels != background)])
    for value, box in zip(values, _boxes(labels, values), strict=True):
        found, n_found = ndimage.label(labels[box] == value, structure=everywhere)
        out[box][found > 0] = found[found > 0] + n_cells
        n_cells += n_found
    return out


def _boxes(labels: NDArray[np.int64], values: NDArray[np.int64]) -> list[tuple[slice, ...]]:
    """Return the bounding box of each value, in one pass instead of one pass for each instance."""
    ranks = np.where(np.isin(labels, values), np.searchsorted(values, labels) + 1, 0)
    return list(ndimage.find_objects(ranks))
