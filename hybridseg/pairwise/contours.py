"""Weights between neighbors that fall with the strength of an edge map between them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.arguments import read_only
from hybridseg.pairwise.edges import EdgeWeights, edge_groups
from hybridseg.pairwise.grid import across_borders, weights_of_colors
from hybridseg.pairwise.sites import Sites
from hybridseg.space import nearest_valid
from hybridseg.validation import as_numbers, as_singles, check_number

#: The largest strength of an edge: sums over a border stay within float64.
_MAX_STRENGTH = 1e30


@dataclass(frozen=True, eq=False)
class ContourTerm:
    r"""A term under which neighboring pixels should agree, unless a contour lies between them.

    The contours come from an edge map e, such as that of a learned edge detector
    (:class:`hybridseg.deep.EdgeFeatures`). The weight between two neighboring pixels is that of
    the intervening contour [1]_ [2]_, in the exponential form of [3]_. The segment between two
    neighbors has no pixels but its ends:

    .. math:: w_{pq} = \frac{\text{weight}}{\mathrm{dist}(p, q)}
              \exp\left(-\frac{\max(e_p, e_q)}{\text{falloff}}\right)

    with dist the distance in pixels of the finest axis, as in :class:`GridTerm`. The color contrast
    of a :class:`GridTerm` is high in texture, too, where a learned detector finds no edge [4]_.

    If the sites are regions, the weight between two regions is the sum of weight / dist over the
    pairs of neighboring pixels across their border, times the exponential of the mean strength
    over these pairs. So a border is as strong as its average, even if parts of it miss the contour.

    Parameters
    ----------
    weight : float, default=1.0
        The cost of an edge along the finest axis between pixels where the map is 0, in the unit of
        the unary costs; at least 0. Try 1 to 50 with negative log-probabilities, and up to 400 if
        the costs come from a few scribbles and are too sure of themselves.
    edge_map : array-like (*spatial,), or callable
        The strength of the edge at each pixel, at least 0. Or a function ``edge_map(colors)`` that
        computes it from the colors ``(*spatial, C)`` on the scale 0..255; the term then fits images
        of any size. Pixels that are not valid get the color of the nearest valid pixel, so that
        there is no edge at the border of missing data. An array serves a single image, and needs no
        image.
    falloff : float, default=0.1
        The strength at which the weight has fallen to 1/e of its value without an edge, in the unit
        of the map; larger than 0. With smaller values, the labels may change at fainter edges; 0.05
        to 0.3 is usual for maps of probabilities.
    connectivity : int, default=1
        1 for 4 neighbors (6 in a volume), 2 for 8 (18), 3 for 26 in a volume.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described. ``edge_map`` is checked when it is used.

    Notes
    -----
    Along a strong edge the weights are nearly 0, so a jagged boundary costs no more than a straight
    one there. Add ``GridTerm(weight, contrast=None)`` for a price of length everywhere, or a
    GridTerm with a contrast, which places the boundary within a broad edge.

    References
    ----------
    .. [1] T. Leung, J. Malik, "Contour continuity in region based image segmentation", ECCV, 1998.
    .. [2] C. Fowlkes, D. Martin, J. Malik, "Learning affinity functions for image segmentation:
       combining patch-based and gradient-based approaches", CVPR, 2003.
    .. [3] P. Arbelaez, M. Maire, C. Fowlkes, J. Malik, "Contour detection and hierarchical image
       segmentation", IEEE Transactions on Pattern Analysis and Machine Intelligence 33(5), 2011.
    .. [4] L.-C. Chen, J. T. Barron, G. Papandreou, K. Murphy, A. L. Yuille, "Semantic image
       segmentation with task-specific edge detection using CNNs and a discriminatively trained
       domain transform", CVPR, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.pairwise import ContourTerm, Energy
    >>> contour = np.array([[0.0, 0.0, 0.9, 0.0]])
    >>> energy = Energy(np.zeros((1, 4, 2)), [ContourTerm(2.0, contour, falloff=0.3)])
    >>> round(energy.energy([[0, 0, 1, 1]]), 3), energy.energy([[0, 1, 1, 1]])
    (0.1, 2.0)
    """

    weight: float
    edge_map: ArrayLike | Callable[[NDArray[np.float32]], ArrayLike]
    falloff: float = 0.1
    connectivity: int = 1

    def __post_init__(self) -> None:
        check_number(self.weight, "weight", minimum=0)
        check_number(self.falloff, "falloff", minimum=0, strict=True)
        check_number(self.connectivity, "connectivity", minimum=1, integer=True)

    def edges(self, sites: Sites) -> EdgeWeights:
        """Return weights {offset: array} between pixels, or (i, j, w) between regions.

        Raises
        ------
        TypeError
            The function ``edge_map`` fails, or the map does not hold real numbers.
        ValueError
            The sites are regions without a region map; the energy has no image, but ``edge_map`` is
            a function; or the map has another shape than the image, or is negative or not finite at
            a valid pixel.
        """
        shape = sites.spatial_shape
        if len(shape) == 1:
            raise ValueError(
                "ContourTerm joins the pixels of an image, but this energy has regions whose "
                "pixels are not known: pass regions=map to Energy, or use EdgeTerm((i, j, w))."
            )
        check_number(self.connectivity, "connectivity", minimum=1, maximum=len(shape), integer=True)
        strengths = self._strengths(sites)
        plain = weights_of_colors(
            np.zeros((*shape, 1), np.float32),
            weight=float(self.weight),
            contrast=None,
            connectivity=self.connectivity,
            spacing=sites.spacing,
            valid=sites.valid,
        )
        groups = edge_groups(plain, shape)
        between = [np.maximum(strengths[group.p], strengths[group.q]) for group in groups]
        if sites.regions is None:
            return {
                offset: (weights * self._damping(each)).astype(np.float32)
                for (offset, weights), each in zip(plain.items(), between, strict=True)
            }
        i, j, total = across_borders(groups, sites.regions)
        products = [
            group._replace(weight=group.weight * each.astype(np.float64))
            for group, each in zip(groups, between, strict=True)
        ]
        sums = across_borders(products, sites.regions)[2]
        means = np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
        return i, j, total * self._damping(means)

    def _damping(self, strengths: NDArray[Any]) -> NDArray[np.float64]:
        """Return exp(-strength / falloff)."""
        with np.errstate(over="ignore", under="ignore"):
            return np.exp(-(strengths.astype(np.float64) / float(self.falloff)))

    def _strengths(self, sites: Sites) -> NDArray[np.float32]:
        """Return the checked map, (*spatial,); 0 where not valid."""
        given, shape, valid = self.edge_map, sites.spatial_shape, sites.valid
        if callable(given) and not isinstance(given, type):
            try:
                given = given(_filled(sites))
            except TypeError as error:  # the function may take other arguments
                raise TypeError(f"edge_map(colors) fails: {error}") from error
        found = as_numbers(given, "edge_map", expected="edge strengths (*spatial,), or a function")
        if found.shape != shape:
            raise ValueError(
                f"edge_map has shape {found.shape}; expected {shape}: one strength for each pixel "
                f"of the image. For images of several sizes, pass a function of the colors."
            )
        if valid is not None:
            found = np.where(valid, found, 0)
        strengths = as_singles(
            found, "edge_map", largest=_MAX_STRENGTH, cure="fill them, or mask their pixels"
        )
        if strengths.min(initial=0) < 0:
            raise ValueError(
                f"edge_map holds {strengths.min():g}; expected strengths >= 0: pass probabilities "
                f"of an edge, not logits."
            )
        return strengths


def _filled(sites: Sites) -> NDArray[np.float32]:
    """Return the colors; invalid pixels have the color of the nearest valid pixel."""
    colors = sites.colors
    nearest = None if sites.valid is None else nearest_valid(sites.valid, sites.spacing)
    return read_only(colors if nearest is None else colors[nearest])
