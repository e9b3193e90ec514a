"""Mean-field sweeps over sparse graphs, colour by colour.

Nodes of one colour have no edge between them, so all of them can be brought to their best at once:
each such step is one of block coordinate descent, and the free energy cannot rise.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from hybridseg.kernels import _simd as simd
from hybridseg.kernels._compile import kernel, parallel_kernel
from hybridseg.kernels._vector_functions import evens, odds, zip_high, zip_low

Single = NDArray[np.float32]
Whole = NDArray[np.int64]

#: Nodes that are worked on together: their scores stay in the first-level cache.
_BLOCK = 128
#: Runs of pixels to a block.
_RUNS = 8
_LANES = 8


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


@kernel
def _update_pixel(unary, links, steps, compatibility, damping, marginals, room, p):
    """Give one pixel its new marginals; ``room`` is (2, L). Returns the largest change."""
    n_labels = len(unary)
    scores, messages = room[0], room[1]
    messages[:] = 0
    for o in range(len(steps)):
        step = steps[o]
        if links[o, p] != 0:
            for label in range(n_labels):
                messages[label] += links[o, p] * marginals[label, p + step]
        if p >= step and links[o, p - step] != 0:
            for label in range(n_labels):
                messages[label] += links[o, p - step] * marginals[label, p - step]
    best = np.float32(-np.inf)
    for label in range(n_labels):
        score = -unary[label, p]
        if len(compatibility) == 0:
            # sum over l' != l of m(l') is a constant less m(l), and the softmax drops it
            score += messages[label]
        else:
            for other in range(n_labels):
                score -= compatibility[label, other] * messages[other]
        scores[label] = score
        best = max(best, score)
    total = np.float32(0)
    for label in range(n_labels):
        scores[label] = np.exp(scores[label] - best)
        total += scores[label]
    share, largest = (np.float32(1) - damping) / total, np.float32(0)
    for label in range(n_labels):
        old = marginals[label, p]
        value = scores[label] * share + damping * old
        largest = max(largest, abs(value - old))
        marginals[label, p] = value
    return largest


@kernel
def _every_second(array, at):
    return evens(simd.load(array, at, _LANES), simd.load(array, at + _LANES, _LANES))


@kernel
def _score_pixels(unary, links, steps, compatibility, marginals, room, p):
    """Write the scores of the pixels p, p + 2, ... of one vector to ``room[0]``; their maximum."""
    n_labels, n = unary.shape
    zero = simd.fill(np.float32(0), _LANES)
    best = simd.fill(np.float32(-np.inf), _LANES)
    potts = len(compatibility) == 0
    for label in range(n_labels):
        first = label * n + p
        message = zero
        for o in range(len(steps)):
            step, link = steps[o], o * n + p
            ahead, behind = _every_second(links, link), _every_second(links, link - step)
            message = simd.fma(ahead, _every_second(marginals, first + step), message)
            message = simd.fma(behind, _every_second(marginals, first - step), message)
        if potts:
            message = message - _every_second(unary, first)
            best = simd.maximum(best, message)
        simd.store(room, label * _LANES, message)
    if potts:
        return best
    for label in range(n_labels):
        score = zero - _every_second(unary, label * n + p)
        for other in range(n_labels):
            cost = simd.fill(-compatibility[label, other], _LANES)
            score = simd.fma(cost, simd.load(room, other * _LANES, _LANES), score)
        simd.store(room, (n_labels + label) * _LANES, score)
        best = simd.maximum(best, score)
    for label in range(n_labels * _LANES):
        room[0, label] = room[1, label]
    return best


@kernel
def _update_pixels(unary, links, steps, compatibility, damping, marginals, room, p):
    """What ``_update_pixel`` does, for every second pixel of two vectors; all in the picture.

    ``room`` is (2, L * lanes).
    """
    n_labels, n = unary.shape
    best = _score_pixels(unary, links, steps, compatibility, marginals, room, p)
    zero = simd.fill(np.float32(0), _LANES)
    total = zero
    for label in range(n_labels):
        raised = simd.exp(simd.load(room, label * _LANES, _LANES) - best)
        simd.store(room, label * _LANES, raised)
        total = total + raised
    share = simd.fill(np.float32(1) - damping, _LANES) / total
    keep, largest = simd.fill(damping, _LANES), zero
    for label in range(n_labels):
        at = label * n + p
        low, high = simd.load(marginals, at, _LANES), simd.load(marginals, at + _LANES, _LANES)
        old, others = evens(low, high), odds(low, high)
        value = simd.fma(simd.load(room, label * _LANES, _LANES), share, keep * old)
        change = value - old
        largest = simd.maximum(largest, simd.maximum(change, zero - change))
        simd.store(marginals, at, zip_low(value, others))
        simd.store(marginals, at + _LANES, zip_high(value, others))
    return simd.greatest(largest)


def sweep_grid(
    unary: Single,
    links: Single,
    steps: Whole,
    runs: Whole,
    compatibility: Single,
    damping: np.float32,
    marginals: Single,
) -> float:
    """Update the pixels of one colour; returns the largest change of a marginal.

    Parameters
    ----------
    unary : (L, n) float32
    links : (m, n) float32
        The weight of the edge between pixel p and p + steps[o]; 0 where there is none.
    steps : (m,) int64
        How far the neighbours are in flat memory, > 0.
    runs : (R, 3) int64
        The colour: pixels ``runs[r, 0] + 2 k`` for k < ``runs[r, 1]``. All others from
        ``runs[r, 0]`` to ``runs[r, 2]``, such as the row's end, are of other colours.
    compatibility : (L, L) float32, or (0, 0) for Potts
    damping : float32
        The share of the old marginals that stays.
    marginals : (L, n) float32
        Updated in place.
    """
    vectors = True if simd.ENABLED else None
    return _sweep_grid(unary, links, steps, runs, compatibility, damping, marginals, vectors)


@parallel_kernel
def _sweep_grid(unary, links, steps, runs, compatibility, damping, marginals, vectors):
    n_labels, n = unary.shape
    n_blocks = (len(runs) + _RUNS - 1) // _RUNS
    changes = np.zeros(n_blocks, np.float32)
    reach = steps.max() if len(steps) else 0
    for block in prange(n_blocks):
        room = np.empty((2, n_labels), np.float32)
        wide = np.empty((2, n_labels * _LANES), np.float32)
        for run in range(block * _RUNS, min(len(runs), (block + 1) * _RUNS)):
            p, last = runs[run, 0], runs[run, 0] + 2 * runs[run, 1]
            if vectors is not None and p >= reach:
                while p + 2 * _LANES <= min(runs[run, 2], n - reach):
                    change = _update_pixels(
                        unary, links, steps, compatibility, damping, marginals, wide, p
                    )
                    changes[block] = max(changes[block], change)
                    p += 2 * _LANES
            while p < last:
                change = _update_pixel(
                    unary, links, steps, compatibility, damping, marginals, room, p
                )
                changes[block] = max(changes[block], change)
                p += 2
    return float(changes.max()) if n_blocks else 0.0


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
    compatibility, damping, marginals
        As in :func:`sweep_grid`.
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
