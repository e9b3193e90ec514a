"""Mean-field sweeps over sparse graphs (regions), one color of a graph coloring at a time.

Nodes of one color have no edge between them, so all of them can be updated to their optimum at
once. Each such update is a step of block coordinate descent on the free energy, which never rises
([1]_ algorithm 11.7 and theorem 11.10).

A row of costs or marginals (float32) has the labels of one node, padded to a multiple of ``LANES``:
a message is a number times a few vectors, and the messages to a node are summed in registers. Costs
of padding labels are 3e38, so that their marginals are 0. Neighbors are in compressed rows; see
`Graph`.

`hybridseg.inference.mean_field.sweeps` calls `color_graph` once and then `sweep_graph`. Blocks of
nodes of one color are shared among numba's threads, with a barrier after each color. The result
does not depend on the number of threads.

References
----------
.. [1] D. Koller, N. Friedman, "Probabilistic Graphical Models", MIT Press, 2009.
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

#: Labels in a vector.
LANES = 8
#: Nodes that a thread updates at a time. A color with at most this many has no barrier.
_NODES_PER_BLOCK = 128


class Graph(NamedTuple):
    """The energy of a graph, with the order in which its nodes are updated.

    Attributes
    ----------
    costs : (n, width) float32
        Costs of the labels; 3e38 in the columns that pad to a multiple of ``LANES``.
    first : (n + 1,) int64
        The neighbors of node i are ``neighbors[first[i] : first[i + 1]]``; ``weights`` are those of
        the edges to them.
    neighbors : int32
    weights : float32
    nodes : (n,) int32
        All nodes, color by color. No edge joins two nodes of one color.
    starts : (n_colors + 1,) int64
        First place of each color in ``nodes``, and n.
    compatibility : (L, width) float32, or (0, 0) for Potts
        Symmetric; padded with zeros.
    damping : float32
        The fraction of the old marginals that is kept.
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
    """Update all nodes, color by color, ``n_sweeps`` times.

    Parameters
    ----------
    graph : Graph
    n_sweeps : int
    marginals : (n, width) float32
        Updated in place; zero in the padding columns.

    Returns
    -------
    (n_sweeps,) float32
        The largest change of a marginal in each sweep.
    """
    return _sweep_graph(graph, n_sweeps, marginals, way())


@parallel_kernel
def _sweep_graph(graph, n_sweeps, marginals, vectors):
    """Make all sweeps; a color of one block is updated without starting threads."""
    largest = np.zeros(n_sweeps, np.float32)
    for sweep in range(n_sweeps):
        for color in range(len(graph.starts) - 1):
            start, stop = graph.starts[color], graph.starts[color + 1]
            n_blocks = (stop - start + _NODES_PER_BLOCK - 1) // _NODES_PER_BLOCK
            if n_blocks == 1:
                change = _update_nodes(graph, start, stop, marginals, vectors)
                largest[sweep] = max(largest[sweep], change)
                continue
            changes = np.zeros(n_blocks, np.float32)
            for block in prange(n_blocks):
                begin = start + block * _NODES_PER_BLOCK
                end = min(stop, begin + _NODES_PER_BLOCK)
                changes[block] = _update_nodes(graph, begin, end, marginals, vectors)
            largest[sweep] = max(largest[sweep], changes.max())
    return largest


@kernel
def _update_nodes(graph: Graph, start: int, stop: int, marginals: Single, vectors: Any) -> Any:
    """Update the nodes ``nodes[start:stop]`` of one color; return the largest change.

    Each phase (messages, scores, softmax) is a loop over all nodes of the block. One node at a
    time, each softmax would be a long chain of dependent operations.
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
        _score(graph, start, stop, room[0], room[1])
        return _settle(graph, start, stop, room[1], marginals)
    return _settle(graph, start, stop, room[0], marginals)


@kernel
def _update_numbers(graph: Graph, node: int, marginals: Single, room: Single) -> np.float32:
    """Update one node without vectors; return the largest change.

    ``room`` (2, >= width) is working memory.
    """
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
            # Potts: the sum of m(l') over l' != l is a constant less m(l), and the softmax drops
            # the constant
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
    """Sum the neighbors' messages to each node, and with Potts subtract the costs.

    ``out`` has one row for each node, in order. With Potts, the cost of label l is the sum of m(l')
    over l' != l, a constant less m(l), and the softmax drops the constant.
    """
    width, to = marginals.shape[1], 0
    own = simd.fill(np.float32(-1 if len(graph.compatibility) == 0 else 0), LANES)
    for place in range(start, stop):
        node = np.int64(graph.nodes[place])
        begin, end = graph.first[node], graph.first[node + 1]
        label, at = 0, node * width
        # three vectors of labels at a time: an edge's weight and neighbor are read once for them
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
        # the rest, one vector at a time
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
def _score(graph: Graph, start: int, stop: int, messages: Single, scores: Single) -> None:
    """Write the scores: minus the costs, minus the compatibility times the messages."""
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
    """Update nodes to the softmax of their scores, with damping; return the largest change."""
    width, zero = marginals.shape[1], simd.fill(np.float32(0), LANES)
    keep, largest = simd.fill(graph.damping, LANES), zero
    for place in range(start, stop):
        row = (place - start) * width
        # the largest score, then exponentials and their sum
        most = simd.load(scores, row, LANES)
        for at in range(row + LANES, row + width, LANES):
            most = simd.maximum(most, simd.load(scores, at, LANES))
        best, total = simd.fill(simd.greatest(most), LANES), zero
        for at in range(row, row + width, LANES):
            raised = simd.exp(simd.load(scores, at, LANES) - best)
            simd.store(scores, at, raised)
            total = total + raised
        # normalize, damp and compare with the old marginals
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
    """Color a graph greedily: each node in turn gets the smallest color that no neighbor has.

    Returns the color of each node, (n,) int32. There is at most one color more than the largest
    number of neighbors.
    """
    n = len(first) - 1
    colors = np.full(n, -1, np.int32)
    most = 0
    for i in range(n):
        most = max(most, first[i + 1] - first[i])
    # the last node that has a neighbor of each color
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
