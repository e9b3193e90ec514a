"""Contrast-sensitive Potts weights between neighboring pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.pairwise.edges import EdgeGroup, EdgeWeights, edge_groups
from hybridseg.pairwise.sites import Sites
from hybridseg.space import pixel_sides
from hybridseg.validation import (
    IntensityRange,
    as_colors,
    as_mask,
    as_numbers,
    check_number,
    check_option,
)

#: The largest factor of squared color differences: their product stays finite.
_MAX_BETA = 1e300

GridWeights = dict[tuple[int, ...], NDArray[np.float32]]


@dataclass(frozen=True)
class GridTerm:
    """A term under which neighboring pixels of similar color should agree.

    The weights are those of :func:`grid_weights`. If the sites are regions, the weight between two
    regions is the sum of the weights of the pixel edges across their border. A labeling of the
    regions then has the same pairwise energy as the corresponding labeling of the pixels.

    Parameters
    ----------
    weight : float, default=1.0
        The cost of an edge along the finest axis between pixels of equal color, in the unit of the
        unary costs. Larger values make smoother results; try 1 to 50 with negative
        log-probabilities.
    contrast : "auto", float or None, default="auto"
        The standard deviation of the color difference, on the scale 0..255. "auto" estimates it
        from the image; None ignores the colors, and needs no image.
    connectivity : int, default=1
        1 for 4 neighbors (6 in a volume), 2 for 8 (18), 3 for 26 in a volume.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.pairwise import Energy, GridTerm
    >>> image = np.array([[0, 0, 255, 255]], np.uint8)
    >>> energy = Energy(np.zeros((1, 4, 2)), [GridTerm(contrast=100.0)], image=image)
    >>> round(energy.energy([[0, 0, 1, 1]]), 2), energy.energy([[0, 1, 1, 1]])
    (0.04, 1.0)
    """

    weight: float = 1.0
    contrast: str | float | None = "auto"
    connectivity: int = 1

    def __post_init__(self) -> None:
        check_number(self.weight, "weight", minimum=0)
        check_contrast(self.contrast)
        check_number(self.connectivity, "connectivity", minimum=1, integer=True)

    def edges(self, sites: Sites) -> EdgeWeights:
        """Return weights {offset: array} between pixels, or (i, j, w) between regions.

        Raises
        ------
        ValueError
            The sites are regions without a region map, or the energy has no image.
        """
        shape = sites.spatial_shape
        if len(shape) == 1:
            raise ValueError(
                "GridTerm joins the pixels of an image, but this energy has regions whose pixels "
                "are not known: pass regions=map to Energy, or use EdgeTerm((i, j, w))."
            )
        check_number(self.connectivity, "connectivity", minimum=1, maximum=len(shape), integer=True)
        weights = weights_of_colors(
            np.zeros((*shape, 1), np.float32) if self.contrast is None else sites.colors,
            weight=float(self.weight),
            contrast=self.contrast,
            connectivity=self.connectivity,
            spacing=sites.spacing,
            valid=sites.valid,
        )
        if sites.regions is None:
            return weights
        return across_borders(edge_groups(weights, shape), sites.regions)


def grid_weights(
    image: ArrayLike,
    *,
    weight: float = 1.0,
    contrast: str | float | None = "auto",
    connectivity: int = 1,
    spacing: Sequence[float] | float | None = None,
    intensity_range: IntensityRange = "dtype",
    spatial_ndim: int | None = None,
    valid: ArrayLike | None = None,
) -> GridWeights:
    r"""Return the cost of cutting each edge of the pixel grid: low where the colors differ.

    .. math:: w_{pq} = \frac{\text{weight}}{\mathrm{dist}(p, q)}
              \exp\left(-\frac{\|c_p - c_q\|^2}{2 \sigma^2}\right)

    with dist the distance in pixels of the finest axis, so that the unit of ``spacing`` does not
    matter [1]_.

    Parameters
    ----------
    image : array-like, (H, W[, C]) or (D, H, W[, C])
        Any real dtype.
    weight : float, default=1.0
        The cost of an edge along the finest axis between pixels of equal color, in the unit of the
        unary costs. Larger values make smoother results; try 1 to 50 with negative
        log-probabilities.
    contrast : "auto", float or None, default="auto"
        sigma, the standard deviation of the color difference, on the scale 0..255. ``"auto"`` is
        the root mean squared difference over all edges of the image [2]_. None ignores the colors:
        uniform weights.
    connectivity : int, default=1
        The maximum number of axes along which neighbors differ, as in :mod:`scipy.ndimage`: 1 for
        4 neighbors (6 in a volume), 2 for 8 (18), 3 for 26 in a volume. With diagonals, boundaries
        cost nearly the same in all directions, and solving takes longer.
    spacing : sequence of float, optional
        The distance between pixels along each axis, in any unit, for ``dist``. Default: 1.
    intensity_range : {"dtype", "image"} or (low, high)
        How values become colors; see :func:`hybridseg.validation.as_colors`.
    spatial_ndim : {2, 3}, optional
        The number of spatial axes, if the shape of the image is ambiguous.
    valid : array-like of bool, (*spatial,), optional
        Edges that touch a pixel where this is False have weight 0 and do not count for "auto".

    Returns
    -------
    dict of {offset: ndarray of float32}
        One entry for each pair of opposite neighbors. The array has the image's shape minus
        ``abs(offset)``: one weight for each pixel p whose neighbor p + offset lies in the image.
        With ``connectivity=1`` the entries are in the order of the axes, so
        ``list(weights.values())`` is the form with one array per axis.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit the description above.

    References
    ----------
    .. [1] Y. Boykov, M.-P. Jolly, "Interactive graph cuts for optimal boundary and region
       segmentation of objects in N-D images", ICCV, 2001, section 2.4.
    .. [2] C. Rother, V. Kolmogorov, A. Blake, "GrabCut: interactive foreground extraction using
       iterated graph cuts", SIGGRAPH, 2004, equations 4 and 5.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.pairwise import grid_weights
    >>> image = np.array([[0, 0, 255, 255]], np.uint8)
    >>> grid_weights(image, contrast=100.0)[0, 1].round(2)
    array([[1.  , 0.04, 1.  ]], dtype=float32)
    """
    check_number(weight, "weight", minimum=0)
    check_contrast(contrast)
    mask = None if valid is None else as_numbers(valid, "valid", expected="a mask of booleans")
    colors = as_colors(
        image, spatial_ndim=spatial_ndim, intensity_range=intensity_range, valid=mask
    )
    shape = colors.shape[:-1]
    check_number(connectivity, "connectivity", minimum=1, maximum=len(shape), integer=True)
    return weights_of_colors(
        colors,
        weight=float(weight),
        contrast=contrast,
        connectivity=connectivity,
        spacing=spacing,
        valid=None if mask is None else as_mask(mask, shape),
    )


def weights_of_colors(
    colors: NDArray[np.float32],
    *,
    weight: float,
    contrast: str | float | None,
    connectivity: int,
    spacing: Sequence[float] | float | None,
    valid: NDArray[np.bool_] | None,
) -> GridWeights:
    """Return the weights of :func:`grid_weights` for arguments that are checked."""
    shape = colors.shape[:-1]
    lengths = _offset_lengths(connectivity, pixel_sides(spacing, len(shape)))
    groups = edge_groups({offset: _blank(offset, shape) for offset in lengths}, shape)
    present = [np.True_ if valid is None else valid[g.p] & valid[g.q] for g in groups]
    squares = [
        np.zeros(group.weight.shape, np.float32) if contrast is None else _squares(colors, group)
        for group in groups
    ]
    beta = _beta(contrast, squares, present)
    return {
        offset: _damped(square, weight / length, beta) * seen
        for (offset, length), square, seen in zip(lengths.items(), squares, present, strict=True)
    }


def check_contrast(contrast: str | float | None) -> None:
    """Accept "auto", a positive number or None."""
    if isinstance(contrast, str):
        check_option(contrast, "contrast", ("auto",))
    elif contrast is not None:
        check_number(contrast, "contrast", minimum=0, strict=True)


def contrast_beta(contrast: str | float | None, mean_square: float) -> float:
    """The factor 1 / (2 sigma^2) of squared color differences; 0 where colors are ignored."""
    if contrast is None:
        return 0.0
    if isinstance(contrast, str):
        return min(0.5 / mean_square, _MAX_BETA) if mean_square > 0 else 0.0
    variance = max(float(contrast) ** 2, 0.5 / _MAX_BETA)  # the square of 1e-200 is 0
    return min(0.5 / variance, _MAX_BETA)


def _offset_lengths(connectivity: int, sides: tuple[float, ...]) -> Mapping[tuple[int, ...], float]:
    """Return the offsets to neighbors later in row-major order, with their distances."""
    ndim = len(sides)
    later = [o for o in product((-1, 0, 1), repeat=ndim) if o > (0,) * ndim]
    near = [o for o in later if sum(map(abs, o)) <= connectivity]
    near.sort(key=lambda o: (sum(map(abs, o)), [-step for step in o]))
    return {o: float(np.hypot.reduce(np.multiply(o, sides))) for o in near}


def _blank(offset: tuple[int, ...], shape: tuple[int, ...]) -> NDArray[np.float32]:
    less = [max(0, n - abs(step)) for n, step in zip(shape, offset, strict=True)]
    return np.broadcast_to(np.float32(0), less)


def _squares(colors: NDArray[np.float32], group: EdgeGroup) -> NDArray[np.float32]:
    difference = colors[group.p] - colors[group.q]
    return np.einsum("...c,...c->...", difference, difference)


def _beta(
    contrast: str | float | None, squares: list[NDArray[np.float32]], present: list[Any]
) -> float:
    if not isinstance(contrast, str):
        return contrast_beta(contrast, 0.0)
    n_edges = sum(np.broadcast_to(p, s.shape).sum() for s, p in zip(squares, present, strict=True))
    total = sum(s.sum(dtype=np.float64, where=p) for s, p in zip(squares, present, strict=True))
    return contrast_beta(contrast, float(total) / n_edges if n_edges else 0.0)


def _damped(squares: NDArray[np.float32], weight: float, beta: float) -> NDArray[np.float32]:
    with np.errstate(under="ignore"):
        exponent = np.minimum(np.float64(beta) * squares, 1e3)  # exp(-1e3) is 0 in any case
        return (weight * np.exp(-exponent)).astype(np.float32)


def across_borders(
    groups: Sequence[EdgeGroup], regions: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Add up the weights of pixel edges between each pair of regions: (i, j, w), i < j."""
    n_regions = int(regions.max(initial=-1)) + 1
    keys, weights = [], []
    for group in groups:
        one, other = regions[group.p], regions[group.q]
        between = (one != other) & (one >= 0) & (other >= 0)
        one, other = one[between], other[between]
        keys.append(np.minimum(one, other) * n_regions + np.maximum(one, other))
        weights.append(group.weight[between])
    pairs, place = np.unique(np.concatenate(keys), return_inverse=True)
    sums = np.bincount(place, np.concatenate(weights), len(pairs))
    i, j = np.divmod(pairs, max(n_regions, 1))
    return i, j, sums
