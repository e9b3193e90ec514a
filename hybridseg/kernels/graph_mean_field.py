"""Mean-field sweeps over sparse graphs, colour by colour.

Nodes of one colour have no edge between them, so all of them can be brought to their best at once:
each such step is one of block coordinate descent, and the free energy cannot rise.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel, parallel_kernel

Single = NDArray[np.float32]
Whole = NDArray[np.int64]

#: Nodes that are worked on together: their scores stay in the first-level cache.
_BLOCK = 128


@kernel
def _exponentials(scores, powers, scales) -> None:
    """Overwrite ``scores`` (n,), at most 0, by their exponentials, to 2e-7 of each.

    ``powers`` (n,) int32 is room for powers of two and ``scales`` its view as float32. What would
    be less than 1e-37 becomes about that.
    """
    for i in range(len(scores)):
        x = max(scores[i], np.float32(-87.0))
        whole = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
        r = x - whole * np.float32(0.693359375)  # ln 2 in two parts, the first exact in few bits
        r = r + whole * np.float32(2.12194440e-4)
        # Taylor's series on |r| <= ln(2) / 2
        p = np.float32(1 / 5040) * r + np.float32(1 / 720)
        p = p * r + np.float32(1 / 120)
        p = p * r + np.float32(1 / 24)
        p = p * r + np.float32(1 / 6)
        p = p * r + np.float32(0.5)
        p = p * r + np.float32(1.0)
        scores[i] = p * r + np.float32(1.0)
        powers[i] = (np.int32(whole) + np.int32(127)) << np.int32(23)
    for i in range(len(scores)):
        scores[i] *= scales[i]


@kernel
def _settle(nodes, scores, messages, unary, compatibility, damping, marginals):
    """Give nodes their new marginals, once their neighbours' ``messages`` (n, L) are summed.

    An empty ``compatibility`` means Potts. ``scores`` is room for (n, L). Returns the largest
    change of a marginal.
    """
    n, n_labels = messages.shape
    potts = len(compatibility) == 0
    for place in range(n):
        node = np.uint64(nodes[place])
        for label in range(n_labels):
            score = -unary[node, label]
            if potts:
                # sum over l' != l of m(l') is a constant less m(l), and the softmax drops it
                score += messages[place, label]
            else:
                for other in range(n_labels):
                    score -= compatibility[label, other] * messages[place, other]
            scores[place, label] = score
        best = scores[place, 0]
        for label in range(1, n_labels):
            best = max(best, scores[place, label])
        for label in range(n_labels):
            scores[place, label] -= best
    powers = np.empty(n * n_labels, np.int32)
    _exponentials(scores.reshape(-1), powers, powers.view(np.float32))
    largest = np.float32(0)
    for place in range(n):
        node = np.uint64(nodes[place])
        total = np.float32(0)
        for label in range(n_labels):
            total += scores[place, label]
        share = (np.float32(1) - damping) / total
        for label in range(n_labels):
            old = marginals[node, label]
            value = scores[place, label] * share + damping * old
            largest = max(largest, abs(value - old))
            marginals[node, label] = value
    return largest


@parallel_kernel
def sweep_graph(
    unary: Single,
    first: Whole,
    neighbours: NDArray[np.int32],
    weights: Single,
    nodes: NDArray[np.int32],
    compatibility: Single,
    damping: np.float32,
    marginals: Single,
) -> float:
    """Update ``nodes``, which have no edges among them; returns the largest change of a marginal.

    Parameters
    ----------
    unary : (n, L) float32
    first : (n + 1,) int64
        ``neighbours[first[i] : first[i + 1]]`` are those of node i, and ``weights`` their edges'.
    nodes : (k,) int32
    compatibility : (L, L) float32, or (0, 0) for Potts
    damping : float32
        The share of the old marginals that stays.
    marginals : (n, L) float32
        Updated in place.
    """
    n_labels = unary.shape[1]
    n_blocks = (len(nodes) + _BLOCK - 1) // _BLOCK
    changes = np.zeros(n_blocks, np.float32)
    for block in prange(n_blocks):
        some = nodes[block * _BLOCK : (block + 1) * _BLOCK].astype(np.int64)
        size = len(some)
        scores = np.empty((size, n_labels), np.float32)
        messages = np.zeros((size, n_labels), np.float32)
        for place in range(size):
            for edge in range(first[some[place]], first[some[place] + 1]):
                weight, q = weights[edge], np.uint64(neighbours[edge])
                for label in range(n_labels):
                    messages[place, label] += weight * marginals[q, label]
        changes[block] = _settle(some, scores, messages, unary, compatibility, damping, marginals)
    return float(changes.max()) if n_blocks else 0.0


@kernel
def color_graph(first: Whole, neighbours: NDArray[np.int32]) -> NDArray[np.int32]:
    """Give each node, in turn, the least colour that none of its neighbours has yet.

    At most one colour more than the greatest number of neighbours.
    """
    n = len(first) - 1
    colors = np.full(n, -1, np.int32)
    most = 0
    for i in range(n):
        most = max(most, first[i + 1] - first[i])
    taken_by = np.full(most + 2, -1, np.int64)
    for i in range(n):
        for edge in range(first[i], first[i + 1]):
            color = colors[neighbours[edge]]
            if color >= 0:
                taken_by[color] = i
        color = 0
        while taken_by[color] == i:
            color += 1
        colors[i] = color
    return colors
