"""The conditions of minimum cuts: compatibility, weights, and sums that do not overflow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.pairwise.compatibility import as_compatibility, is_potts
from hybridseg.pairwise.edges import EdgeGroup
from hybridseg.pairwise.higher_order.cliques import Cliques
from hybridseg.pairwise.higher_order.presence import PresenceCosts

#: Arcs are counted in 32 bits; an edge is two arcs.
MAX_ARCS = 2**31


def as_pair_costs(compatibility: str | ArrayLike, n_labels: int, moves: str) -> NDArray[Any] | None:
    """Check the compatibility for cuts: (L, L) int64 or float64, or None for Potts.

    Raises
    ------
    ValueError
        The matrix is not square and symmetric, or it has a nonzero diagonal or a negative entry;
        for expansion moves, three labels violate the triangle inequality.
    """
    matrix = as_compatibility(compatibility, n_labels)
    if isinstance(compatibility, str) or is_potts(matrix):
        return None
    if np.asarray(compatibility).dtype.kind in "bui":
        matrix = matrix.astype(np.int64)
    if bool(matrix.diagonal().any()) or (matrix < 0).any():
        i, j = np.argwhere((matrix < 0) | ((matrix != 0) & np.eye(n_labels, dtype=bool)))[0]
        raise ValueError(
            f"compatibility[{i}, {j}]={matrix[i, j]:g}; minimum cuts need costs >= 0 and a "
            f"diagonal of zeros. Add costs of single labels to unary."
        )
    detour = matrix[:, :, np.newaxis] + matrix[np.newaxis]  # i to j to k
    excess = matrix[:, np.newaxis] - detour
    if moves == "expansion" and excess.max(initial=0) > 1e-12 * float(matrix.max(initial=0)):
        i, j, k = np.unravel_index(int(excess.argmax()), excess.shape)
        raise ValueError(
            f"compatibility breaks the triangle inequality: [{i}, {k}]={matrix[i, k]:g} is more "
            f"than [{i}, {j}] + [{j}, {k}]={matrix[i, j] + matrix[j, k]:g}, and expansion moves "
            f"need it. Use moves='swap'."
        )
    return matrix


def check_presence_costs(costs: PresenceCosts, name: str) -> None:
    """Raise an error for negative costs of labels or of pairs of labels."""
    least = min(costs.single.min(), 0 if costs.joint is None else costs.joint.min())
    if least < 0:
        raise ValueError(
            f"{name} holds {least:g}; minimum cuts need costs >= 0. Use solve_mean_field for "
            f"negative ones."
        )


def check_groups(groups: Sequence[EdgeGroup], shape: tuple[int, ...]) -> None:
    """Raise an error for negative weights, weights with an infinite sum, and too many edges."""
    n_edges = sum(group.weight.size for group in groups)
    if max(2 * n_edges, int(np.prod(shape))) >= MAX_ARCS:
        raise ValueError(
            f"unary and weights make a graph of {int(np.prod(shape))} nodes and {n_edges} edges; "
            f"expected at most {MAX_ARCS // 2 - 1} edges, because arcs are counted in 32 bits. "
            f"Divide the image into parts, or solve on superpixels (a region graph)."
        )
    least = min((group.weight.min() for group in groups if group.weight.size), default=0)
    if least < 0:
        raise ValueError(
            f"weights holds {least:g}; expected costs >= 0: a negative weight makes the energy "
            f"not submodular, and no cut minimizes it. Clip the weights at 0."
        )
    with np.errstate(over="ignore"):
        total = sum(4 * group.weight.sum(dtype=np.float64) for group in groups)
    if not np.isfinite(total):
        raise ValueError(
            "weights holds costs whose sum overflows float64; divide unary and weights by a common "
            "factor."
        )


def check_cliques(cliques: Cliques, groups: Sequence[EdgeGroup]) -> None:
    """Raise an error for too many arcs: each member of a clique has two edges."""
    n_edges = sum(group.weight.size for group in groups) + 2 * len(cliques.site)
    if 2 * n_edges >= MAX_ARCS:
        raise ValueError(
            f"weights and cliques make a graph of {n_edges} edges; expected at most "
            f"{MAX_ARCS // 2 - 1}, because arcs are counted in 32 bits. Divide the image into "
            f"parts, or solve on superpixels (a region graph)."
        )


def check_range(
    costs: NDArray[Any], groups: Sequence[EdgeGroup], largest: float = 1, more: float = 0
) -> None:
    """Raise an error for integers whose sums would overflow, and floats whose sums are infinite.

    ``largest`` is the largest factor of an edge's weight (the compatibility), ``more`` the sum of
    the label costs.
    """
    if any(array.dtype.kind != "i" for array in (costs, *(group.weight for group in groups))):
        _check_float_range(costs, groups, largest, more)
        return
    costs_at_most = max(-float(costs.min()), float(costs.max())) * costs[..., 0].size
    weights_at_most = sum(float(g.weight.max()) * g.weight.size for g in groups if g.weight.size)
    if 2.0 * costs_at_most + 2.1 * (largest * weights_at_most + more) < 2.0**62:
        return
    greatest = np.abs(costs.astype(np.float64)).max(axis=-1).sum()
    strengths = sum(float(group.weight.sum(dtype=np.float64)) for group in groups)
    total = 2.0 * float(greatest) + 2.1 * (largest * strengths + more)
    if total >= 2.0**63:
        raise ValueError(
            f"unary and weights hold integers whose sum may reach {total:.3g} and overflow int64; "
            f"pass floats, or divide by a common factor."
        )


def _check_float_range(
    costs: NDArray[Any], groups: Sequence[EdgeGroup], largest: float, more: float
) -> None:
    most = np.finfo(np.float64).max
    with np.errstate(over="ignore"):
        strengths = 4.0 * largest * sum(float(g.weight.sum(dtype=np.float64)) for g in groups)
        strengths += 4.0 * more
        total = strengths + 4.0 * max(-float(costs.min()), float(costs.max())) * costs[..., 0].size
        if total > most:  # the bound by the largest cost is too coarse; sum exactly
            total = strengths + 4.0 * float(np.abs(costs).max(axis=-1).sum(dtype=np.float64))
    if not total <= most:
        raise ValueError(
            "unary and weights hold costs whose sum overflows float64; divide them by a common "
            "factor."
        )
