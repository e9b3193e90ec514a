"""Contrast-sensitive weights between neighbouring regions."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.features.regions import RegionGraph
from hybridseg.pairwise.grid import check_contrast, contrast_beta
from hybridseg.validation import check_number


def region_weights(
    graph: RegionGraph,
    colors: ArrayLike,
    *,
    weight: float = 1.0,
    contrast: str | float | None = "auto",
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    r"""Cost of cutting each edge of a region graph: long boundaries between like colours cost most.

    .. math:: w_{rs} = \text{weight} \cdot \text{length}_{rs}
              \exp\left(-\frac{\|c_r - c_s\|^2}{2 \sigma^2}\right)

    Costs of regions that are sums over their pixels, with these weights, make the energy of a
    labelling of the regions that of the same labelling of the pixels, up to the contrast: the
    same ``weight`` serves both.

    Parameters
    ----------
    graph : RegionGraph
        As from :func:`hybridseg.features.region_graph`: ``edges`` (E, 2) and ``lengths`` (E,), the
        number of pixel faces on each boundary.
    colors : array-like, (R, C)
        Each region's mean colour on the scale 0..255, as from
        :func:`hybridseg.features.region_means`.
    weight : float, default=1.0
        The cost of one pixel face between regions of equal colour, in the unit of the unary costs.
    contrast : "auto", float or None, default="auto"
        sigma on the scale 0..255; ``"auto"`` takes the root of the mean squared difference over
        all boundaries, by their lengths; None ignores the colours.

    Returns
    -------
    i, j : ndarray of int32, (E,)
    w : ndarray of float32, (E,)
        The edge list that :func:`hybridseg.inference.graph_cut` takes.

    Raises
    ------
    TypeError, ValueError
        ``colors`` has no row for some region, or an option is not as above.

    References
    ----------
    Boykov and Jolly, ICCV 2001, section 2.4; Fulkerson, Vedaldi and Soatto, "Class segmentation
    and object localization with superpixel neighborhoods", ICCV 2009, equation 4, for the length
    of the boundary.

    Examples
    --------
    >>> from hybridseg.features import region_graph
    >>> from hybridseg.pairwise import region_weights
    >>> graph = region_graph([[0, 0, 1], [2, 2, 1]])
    >>> i, j, w = region_weights(graph, [[0.0], [0.0], [100.0]], contrast=50.0)
    >>> w.round(2)
    array([1.  , 0.27, 0.14], dtype=float32)
    """
    check_number(weight, "weight", minimum=0)
    check_contrast(contrast)
    i, j = graph.edges.T
    means = np.asarray(colors, dtype=np.float64)
    if means.ndim != 2 or (i.size and len(means) <= max(i.max(), j.max())):
        raise ValueError(
            f"colors has shape {means.shape}; expected (R, C): a row of mean colours for each of "
            f"the {int(max(i.max(), j.max())) + 1 if i.size else 0} regions of the graph."
        )
    squares = ((means[i] - means[j]) ** 2).sum(axis=1)
    total = float(graph.lengths.sum())
    beta = contrast_beta(contrast, float(squares @ graph.lengths) / total if total else 0.0)
    strengths = weight * graph.lengths * np.exp(-beta * squares)
    return np.ascontiguousarray(i), np.ascontiguousarray(j), strengths.astype(np.float32)
