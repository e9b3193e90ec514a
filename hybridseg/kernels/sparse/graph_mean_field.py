"""Mean-field sweeps over sparse graphs, color by color.

Nodes of one color have no edge between them, so all of them can be brought to their best at once:
each such step is one of block coordinate descent, and the free energy cannot rise.

The labels of a node lie side by side, filled up to a multiple of ``LANES``: a message is a number
times a few vectors, and a node's messages are summed in registers.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel, parallel_kernel
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.way import way

Single = NDArray[np.float32]
Whole = NDArray[np.int64]

LANES = 8
#: Nodes that a thread takes at a time; a color with fewer is not worth a barrier.
_BLOCK = 128


class Graph(NamedTuple):
    """What nodes pay.

    Attributes
    ----------
    costs : (n, width) float32
        Of each label; what fills up to a multiple of ``LANES`` is 3e38.
    first : (n + 1,) int64
        ``neighbors[first[i] : first[i + 1]]`` are those of node i, and ``weights`` their edges'.
    neighbors : int32
    weights : float32
    nodes : (n,) int32
        All nodes, color by color; no edge joins two of one color.
    starts : (n_colors + 1,) int64
        Where each color starts in ``nodes``.
    compatibility : (L, width) float32, or (0, 0) for Potts
        Symmetric; filled up with zeros.
    damping : float32
        The share of the old marginals that stays.
    """

    costs: Single
    first: Whole
    neighbors: NDArray[np.int32]
    weights: Single
    nodes: NDArray[np.int32]
    starts: Whole
    compatibility: Single
    damping: np.float32


def sweep_graph(graph: Graph, n_sweeps: int, marginals: Single) -> Single:
    """Update all nodes, color by color, ``n_sweeps`` times over.

    Parameters
    ----------
    graph : Graph
    n_sweeps : int
    marginals : (n, width) float32
        Updated in place; what fills up is zero.

    Returns
    -------
    (n_sweeps,) float32
        The largest change of a marginal in each sweep.
    """
    return _sweep_graph(graph, n_sweeps, marginals, way())


@parallel_kernel
def _sweep_graph(graph, n_sweeps, marginals, vectors):
    largest = np.zeros(n_sweeps, np.float32)
    for sweep in range(n_sweeps):
        for color in range(len(graph.starts) - 1):
            start, stop = graph.starts[color], graph.starts[color + 1]
            n_blocks = (stop - start + _BLOCK - 1) // _BLOCK
            if n_blocks == 1:
                change = _update_nodes(graph, start, stop, marginals, vectors)
                largest[sweep] = max(largest[sweep], change)
                continue
            changes = np.zeros(n_blocks, np.float32)
            for block in prange(n_blocks):
                begin = start + block * _BLOCK
                end = min(stop, begin + _BLOCK)
                changes[block] = _update_nodes(graph, begin, end, marginals, vectors)
            largest[sweep] = max(largest[sweep], changes.max())
    return largest


@kernel
def _update_nodes(graph: Graph, start: int, stop: int, marginals: Single, vectors: Any) -> Any:
    """Give at most ``_BLOCK`` nodes of one color their new marginals; returns the largest change.

    Each step is a loop over all of them: done node by node, the long chain of a softmax would
    leave the processor waiting.
    """
    room = np.empty((2, (stop - start) * marginals.shape[1]), np.float32)
    if vectors is None:
        largest = np.float32(0)
        for place in range(start, stop):
            change = _update_numbers(graph, int(graph.nodes[place]), marginals, room)
            largest = max(largest, change)
        return largest
    _add_messages(graph, start, stop, marginals, room[0])
    if len(graph.compatibility) > 0:
        _ask(graph, start, stop, room[0], room[1])
        return _settle(graph, start, stop, room[1], marginals)
    return _settle(graph, start, stop, room[0], marginals)


@kernel
def _update_numbers(graph: Graph, node: int, marginals: Single, room: Single) -> np.float32:
    width = marginals.shape[1]
    messages, scores = room[0, :width], room[1, :width]
    messages[:] = 0
    for edge in range(graph.first[node], graph.first[node + 1]):
        other = graph.neighbors[edge]
        for label in range(width):
            messages[label] += graph.weights[edge] * marginals[other, label]
    for label in range(width):
        scores[label] = -graph.costs[node, label]
        if len(graph.compatibility) == 0:
            # sum over l' != l of m(l') is a constant less m(l), and the softmax drops it
            scores[label] += messages[label]
        for other in range(len(graph.compatibility)):
            scores[label] -= graph.compatibility[other, label] * messages[other]
    best, total = scores.max(), np.float32(0)
    for label in range(width):
        scores[label] = np.exp(scores[label] - best)
        total += scores[label]
    share, largest = (np.float32(1) - graph.damping) / total, np.float32(0)
    for label in range(width):
        old = marginals[node, label]
        value = scores[label] * share + graph.damping * old
        largest = max(largest, abs(value - old))
        marginals[node, label] = value
    return largest


# -- with explicit vectors ------------------------------------------------------------------------


@kernel
def _add_messages(graph: Graph, start: int, stop: int, marginals: Single, out: Single) -> None:
    """Sum the neighbors' messages, three vectors at a time; with Potts less the costs.

    The sum over l' != l of m(l') is a constant less m(l), and the softmax drops the constant.
    """
    width, to = marginals.shape[1], 0
    own = simd.fill(np.float32(-1 if len(graph.compatibility) == 0 else 0), LANES)
    for place in range(start, stop):
        node = np.int64(graph.nodes[place])
        begin, end = graph.first[node], graph.first[node + 1]
        label, at = 0, node * width
        while label + 3 * LANES <= width:
            one = own * simd.load(graph.costs, at + label, LANES)
            two = own * simd.load(graph.costs, at + label + LANES, LANES)
            three = own * simd.load(graph.costs, at + label + 2 * LANES, LANES)
            for edge in range(begin, end):
                weight = simd.fill(graph.weights[edge], LANES)
                there = np.int64(graph.neighbors[edge]) * width + label
                one = simd.fma(weight, simd.load(marginals, there, LANES), one)
                two = simd.fma(weight, simd.load(marginals, there + LANES, LANES), two)
                three = simd.fma(weight, simd.load(marginals, there + 2 * LANES, LANES), three)
            simd.store(out, to + label, one)
            simd.store(out, to + label + LANES, two)
            simd.store(out, to + label + 2 * LANES, three)
            label += 3 * LANES
        while label < width:
            one = own * simd.load(graph.costs, at + label, LANES)
            for edge in range(begin, end):
                weight = simd.fill(graph.weights[edge], LANES)
                there = np.int64(graph.neighbors[edge]) * width + label
                one = simd.fma(weight, simd.load(marginals, there, LANES), one)
            simd.store(out, to + label, one)
            label += LANES
        to += width


@kernel
def _ask(graph: Graph, start: int, stop: int, messages: Single, scores: Single) -> None:
    """Make scores of the costs and of what the messages ask for by the compatibility."""
    width, zero = graph.compatibility.shape[1], simd.fill(np.float32(0), LANES)
    for place in range(start, stop):
        node, row = np.int64(graph.nodes[place]), (place - start) * width
        for label in range(0, width, LANES):
            score = zero - simd.load(graph.costs, node * width + label, LANES)
            for other in range(len(graph.compatibility)):
                message = simd.fill(-messages[row + other], LANES)
                cost = simd.load(graph.compatibility, other * width + label, LANES)
                score = simd.fma(message, cost, score)
            simd.store(scores, row + label, score)


@kernel
def _settle(graph: Graph, start: int, stop: int, scores: Single, marginals: Single) -> np.float32:
    """Give nodes the softmax of their scores; returns the largest change."""
    width, zero = marginals.shape[1], simd.fill(np.float32(0), LANES)
    keep, largest = simd.fill(graph.damping, LANES), zero
    for place in range(start, stop):
        row = (place - start) * width
        most = simd.load(scores, row, LANES)
        for at in range(row + LANES, row + width, LANES):
            most = simd.maximum(most, simd.load(scores, at, LANES))
        best, total = simd.fill(simd.greatest(most), LANES), zero
        for at in range(row, row + width, LANES):
            raised = simd.exp(simd.load(scores, at, LANES) - best)
            simd.store(scores, at, raised)
            total = total + raised
        share = simd.fill((np.float32(1) - graph.damping) / simd.total(total), LANES)
        there = np.int64(graph.nodes[place]) * width - row
        for at in range(row, row + width, LANES):
            old = simd.load(marginals, there + at, LANES)
            value = simd.fma(simd.load(scores, at, LANES), share, keep * old)
            change = value - old
            largest = simd.maximum(largest, simd.maximum(change, zero - change))
            simd.store(marginals, there + at, value)
    return simd.greatest(largest)


@kernel
def color_graph(first: Whole, neighbors: NDArray[np.int32]) -> NDArray[np.int32]:
    """Give each node, in turn, the least color that none of its neighbors has yet.

    At most one color more than the greatest number of neighbors.
    """
    n = len(first) - 1
    colors = np.full(n, -1, np.int32)
    most = 0
    for i in range(n):
        most = max(most, first[i + 1] - first[i])
    taken_by = np.full(most + 2, -1, np.int64)
    for i in range(n):
        for edge in range(first[i], first[i + 1]):
            color = colors[neighbors[edge]]
            if color >= 0:
                taken_by[color] = i
        color = 0
        while taken_by[color] == i:
            color += 1
        colors[i] = color
    return colors
