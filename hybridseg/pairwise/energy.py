"""The judge of every solver: what a labelling costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.pairwise.compatibility import as_compatibility
from hybridseg.pairwise.edges import EdgeGroup, EdgeWeights, edge_groups
from hybridseg.validation import as_costs, as_label_map, as_numbers, check_magnitude


def energy(
    labels: ArrayLike,
    unary: ArrayLike,
    weights: EdgeWeights,
    *,
    compatibility: str | ArrayLike = "potts",
    label_costs: ArrayLike | None = None,
) -> float:
    r"""Energy of a labelling, summed in 64 bits or, where all are integers, exactly.

    .. math:: E(y) = \sum_i u_i(y_i) + \sum_{(i, j)} w_{ij}\, \mu(y_i, y_j)
              + \sum_{l\,\text{present}} c_l

    Parameters
    ----------
    labels : array-like of int, (*spatial,) or (R,)
        The index 0..L-1 of the label of each pixel or region.
    unary : array-like, (*spatial, L), or (R, L) for a region graph
        The cost of each label, lower is better.
    weights : sequence of arrays, {offset: array}, or (i, j, w)
        What each edge pays; each edge counts once. For an image, one array per axis, shaped like
        the image less one along that axis, or a mapping as from
        :func:`hybridseg.pairwise.grid_weights` for diagonal neighbourhoods. For a region graph, an
        edge list.
    compatibility : "potts" or array-like, (L, L)
        What a pair of labels costs, times the weight: Potts pays 1 for two different labels.
    label_costs : array-like, (L,), optional
        Paid once for each label that occurs at all.

    Returns
    -------
    float
        Integers are summed exactly, whatever their number and size; the sum is then rounded to a
        float.

    Raises
    ------
    TypeError, ValueError
        Shapes that do not fit, values that are not finite, labels outside 0..L-1, or floats
        whose sum is beyond float64.

    Examples
    --------
    >>> from hybridseg.pairwise import energy
    >>> unary = [[0, 4], [3, 1]]  # two regions, two labels
    >>> energy([0, 1], unary, ([0], [1], [2]))
    3.0
    >>> energy([0, 0], unary, ([0], [1], [2]))
    3.0
    """
    costs = as_costs(unary, keep_double=True, keep_integer=True)
    shape = costs.shape[:-1]
    indices = as_label_indices(labels, shape, costs.shape[-1])
    with np.errstate(over="ignore", invalid="ignore"):  # refused below
        total = _sum(np.take_along_axis(costs, indices[..., np.newaxis], axis=-1))
        groups = edge_groups(weights, shape)
        total += _pairwise_energy(indices, groups, compatibility, costs.shape[-1])
        if label_costs is not None:
            total += _sum(_as_label_costs(label_costs, costs.shape[-1])[np.unique(indices)])
    if not np.isfinite(float(total)):
        raise ValueError(
            "unary, weights and label_costs hold costs whose sum is beyond float64; divide them by "
            "a common factor."
        )
    return float(total)


def as_label_indices(
    labels: ArrayLike, shape: tuple[int, ...], n_labels: int, *, name: str = "labels"
) -> NDArray[np.int64]:
    """Check a complete labelling: an index 0..n_labels-1 at each of ``shape``.

    Raises
    ------
    TypeError, ValueError
        Not integers, another shape, or values outside the range.
    """
    indices = as_label_map(labels, shape=shape, name=name)
    if indices.size and (indices.min() < 0 or indices.max() >= n_labels):
        raise ValueError(
            f"{name} holds values from {np.asarray(labels).min()} to {indices.max()}; expected an "
            f"index 0..{n_labels - 1} into the last axis of unary at every place (no void)."
        )
    return indices


def _pairwise_energy(
    indices: NDArray[np.int64],
    groups: Sequence[EdgeGroup],
    compatibility: str | ArrayLike,
    n_labels: int,
) -> Any:
    matrix = as_compatibility(compatibility, n_labels)
    if isinstance(compatibility, str):
        return sum(_sum(g.weight, where=indices[g.p] != indices[g.q]) for g in groups)
    exact = np.asarray(compatibility).dtype.kind in "bui"
    matrix = matrix.astype(np.int64) if exact else matrix
    return sum(_sum_of_products(g.weight, matrix[indices[g.p], indices[g.q]]) for g in groups)


def _sum(values: NDArray[Any], where: Any = True) -> int | float:
    """Sum in float64, or integers exactly: the upper and the lower halves of their bits apart."""
    if values.dtype.kind == "f":
        return float(values.sum(dtype=np.float64, where=where))
    whole = values.astype(np.int64, copy=False)
    upper = int((whole >> 32).sum(where=where))
    return (upper << 32) + int((whole & 0xFFFFFFFF).sum(where=where))


def _sum_of_products(weight: NDArray[Any], factor: NDArray[Any]) -> int | float:
    """Sum of ``weight * factor``; integers exactly."""
    if weight.dtype.kind == "f" or factor.dtype.kind == "f":
        return _sum(np.multiply(weight, factor, dtype=np.float64))
    sizes = (max(-int(x.min(initial=0)), int(x.max(initial=0))) for x in (weight, factor))
    if math.prod(sizes) < 2**63:
        return _sum(weight * factor)
    # what pays the same factor is added up first
    kinds, which = np.unique(factor, return_inverse=True)
    which = which.reshape(weight.shape)
    return sum(int(kind) * int(_sum(weight, where=which == k)) for k, kind in enumerate(kinds))


def _as_label_costs(label_costs: ArrayLike, n_labels: int) -> NDArray[Any]:
    array = as_numbers(label_costs, "label_costs", expected="real costs, one per label")
    if array.shape != (n_labels,):
        raise ValueError(
            f"label_costs has shape {array.shape}; expected {n_labels} finite costs, one per label."
        )
    check_magnitude(array, "label_costs", largest=np.finfo(np.float64).max)
    if array.dtype == np.uint64 and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"label_costs holds {array.max()}, which 64 bits with a sign cannot.")
    return array
