"""Message passing (TRW-S [1]_) for Potts energies on pixel grids, eight rows at a time.

The image is divided into eight strips of rows, one for each lane of a vector. A *cell* is one pixel
of every strip. Nodes are visited in the order of the cells, row by row, so that nothing moves
between lanes, except at the border of two strips: edges of the last row of a strip lead to the next
lane, to the first row of the strip below, which was visited earlier. TRW-S allows any order.

Arrays by cells have the lanes last and the labels before them: costs (n_cells, L, LANES), messages
(K, n_cells, L, LANES) for K groups of edges, weights (K, n_cells, LANES). So memory is read from
end to end. An edge is kept (stored) at the end that is first in the image. Arc number ``m`` of a
row is an edge that its nodes keep, or one that a neighbor keeps. Edges that leave the grid have
weight 0, so their messages stay 0; cells of padding give them a place.

`hybridseg.inference.cuts.flows` calls these kernels, on one thread. `potts_messages` is the same
for other graphs.

References
----------
.. [1] V. Kolmogorov, "Convergent tree-reweighted message passing for energy minimization", PAMI
   28(10), 2006: figure 3 (TRW-S on monotonic chains), section 4, section 5.3 (labels).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.vectors import simd as _simd
from hybridseg.kernels.vectors.padding import padded

#: Number of strips, and of lanes in a vector.
LANES = 8

# Columns of ``Strips.arcs``: the edge's group; the cell of its messages at column 0 and the step
# between lanes; the same for the neighbor; and the difference between a pixel's number and that of
# the pixel that keeps the edge.
_GROUP, _CELL, _LANE, _NEXT_CELL, _NEXT_LANE, _KEEPER = 0, 1, 2, 3, 4, 5


class Strips(NamedTuple):
    """A grid divided into strips.

    Attributes
    ----------
    shape : tuple of int
        (Z, H, W), with Z = 1 for an image.
    height : int
        Rows in a strip.
    arcs : ndarray of int64, (Z * height, 2K, 6)
        The arcs of the nodes of each row, those to later nodes first; the columns are above.
    n_ahead, n_arcs : ndarray of int64, (Z * height,)
        The number of arcs to later nodes, and of all arcs.
    n_cells : int
        With cells of padding: one before all others, one after each row and one at the end.
    """

    shape: tuple[int, int, int]
    height: int
    arcs: NDArray[np.int64]
    n_ahead: NDArray[np.int64]
    n_arcs: NDArray[np.int64]
    n_cells: int


def make_strips(shape, offsets):
    """Divide a grid (Z, H, W), with H > `LANES`, for edges to ``offsets`` (K, 3).

    Each offset leads to a later pixel, at most one step along each axis.
    """
    height = padded(shape[1], LANES) // LANES
    arcs, n_ahead, n_arcs = _row_arcs(shape, offsets, height)
    n_cells = 2 + shape[0] * height * (shape[2] + 1)
    return Strips(tuple(shape), height, arcs, n_ahead, n_arcs, n_cells)


@kernel
def _row_arcs(shape, offsets, height):
    """Return the arcs of each row, the number of those to later nodes, and of all."""
    n_groups, n_rows = offsets.shape[0], shape[0] * height
    stride = shape[2] + 1
    arcs = np.zeros((n_rows, 2 * n_groups, 6), np.int64)
    n_ahead, n_arcs = np.zeros(n_rows, np.int64), np.zeros(n_rows, np.int64)
    for row in range(n_rows):
        for wanted in (1, 0):  # arcs to later nodes first
            for k in range(2 * n_groups):
                group = k % n_groups
                kept = k < n_groups
                sign = 1 if kept else -1
                z = row // height + sign * offsets[group, 0]
                r = row % height + sign * offsets[group, 1]
                column = sign * offsets[group, 2]
                lane = np.int64(r >= height) - np.int64(r < 0)
                there = z * height + r - lane * height
                ahead = there > row or (there == row and column > 0)
                if z < 0 or z >= shape[0] or ahead != wanted:
                    continue
                arc = arcs[row, n_arcs[row]]
                arc[_GROUP] = group
                arc[_NEXT_CELL] = 1 + there * stride + column
                arc[_NEXT_LANE] = lane
                arc[_CELL] = 1 + row * stride if kept else arc[_NEXT_CELL]
                arc[_LANE] = 0 if kept else lane
                if not kept:
                    arc[_KEEPER] = (offsets[group, 0] * shape[1] + offsets[group, 1]) * shape[2]
                    arc[_KEEPER] += offsets[group, 2]
                n_arcs[row] += 1
                n_ahead[row] += wanted
    return arcs, n_ahead, n_arcs


@kernel
def strip_edges(first, head, shape, offsets):
    """Return the number of each arc's edge, (2E,) int32: k N + v if pixel v keeps it in group k.

    ``first`` (N + 1,) and ``head`` (2E,) are arcs as from
    `hybridseg.kernels.cuts.maxflow.build_arcs`.
    """
    n_nodes = first.size - 1
    numbers = np.empty(head.size, np.int32)
    for v in range(n_nodes):
        for a in range(first[v], first[v + 1]):
            for k in range(offsets.shape[0]):
                step = (offsets[k, 0] * shape[1] + offsets[k, 1]) * shape[2] + offsets[k, 2]
                if abs(head[a] - v) == step:
                    numbers[a] = k * n_nodes + min(v, head[a])
    return numbers


@kernel
def to_strips(strips, values, cells):
    """Copy ``values`` (N, V) to ``cells`` (n_cells, V, LANES); padding stays as it is."""
    n_slices, n_rows, width = strips.shape
    v = 0
    for z in range(n_slices):
        for r in range(n_rows):
            begin = 1 + (z * strips.height + r % strips.height) * (width + 1)
            lane = r // strips.height
            for cell in range(begin, begin + width):
                for value in range(values.shape[1]):
                    cells[cell, value, lane] = values[v, value]
                v += 1


@kernel
def count_shares(strips, offsets, share, last_share):
    """Write the fraction of a node's costs that each edge ahead gets, (n_cells, LANES) float32.

    ``share`` is for all passes but the last; in the last one a node keeps a fraction itself.
    """
    n_slices, n_rows, width = strips.shape
    for z in range(n_slices):
        for r in range(n_rows):
            row = z * strips.height + r % strips.height
            lane = r // strips.height
            for c in range(width):
                cell = 1 + row * (width + 1) + c
                # inside a row, the fraction is that of the pixel before
                if 1 < c < width - 1:
                    share[cell, lane] = share[cell - 1, lane]
                    last_share[cell, lane] = last_share[cell - 1, lane]
                    continue
                ahead, behind = 0, 0
                for m in range(strips.n_arcs[row]):
                    arc = strips.arcs[row, m]
                    sign = 1 if arc[_KEEPER] == 0 else -1
                    there = r + sign * offsets[arc[_GROUP], 1]
                    column = c + sign * offsets[arc[_GROUP], 2]
                    if 0 <= there < n_rows and 0 <= column < width:
                        ahead += m < strips.n_ahead[row]
                        behind += m >= strips.n_ahead[row]
                share[cell, lane] = np.float32(1) / np.float32(max(ahead, behind, 1))
                last_share[cell, lane] = np.float32(1) / np.float32(max(ahead + 1, behind))


def pass_messages(strips, weight, costs, share, messages, forward):
    """Pass once over the nodes, in ascending (``forward``) or descending order; write ``messages``.

    Returns a lower bound on the energy, up to rounding. Each edge has one message: to its later
    node after a forward pass, and to its earlier one after a backward pass. A node's costs are
    divided among the chains through it. Each edge ahead turns its share h into the message min(h(l)
    - min h, weight).

    ``weight`` (K, n_cells, LANES) and ``costs`` (n_cells, L, LANES) are integers, ``share``
    (n_cells, LANES) and ``messages`` (K, n_cells, L, LANES) float32.
    """
    send = _pass_vectors if _simd.ENABLED else _pass_numbers
    return send(strips, weight, costs, share, messages, forward)


@kernel
def _pass_vectors(strips, weight, costs, share, messages, forward):
    """Do what `pass_messages` does, one cell at a time.

    Where an arc leads to another lane, the vector of its messages begins one number earlier or
    later. The number at its end belongs to an edge that leaves the grid, and is and stays 0.
    """
    n_rows, width = strips.n_arcs.size, strips.shape[2]
    n_labels = costs.shape[1]
    places = np.empty((2, strips.arcs.shape[1]), np.int64)
    total = np.empty(n_labels * LANES, np.float32)
    bounds = np.zeros(LANES, np.float64)
    infinity = _simd.fill(np.float32(np.inf), LANES)
    # a backward pass reads memory backward throughout, so that the processor's prefetch works
    top, way = (0, LANES) if forward else ((n_labels - 1) * LANES, -LANES)
    for step in range(n_rows):
        row = step if forward else n_rows - 1 - step
        n_arcs = strips.n_arcs[row]
        begin = 0 if forward else strips.n_ahead[row]
        end = strips.n_ahead[row] if forward else n_arcs
        _find_places(strips, row, n_labels, places)
        for k in range(width):
            c = k if forward else width - 1 - k
            here = (1 + row * (width + 1) + c) * LANES
            along = c * n_labels * LANES
            part = _simd.load(share, here, LANES)
            # the costs of a cell with all messages to it
            lowest = infinity
            for label in range(n_labels):
                at = top + label * way
                costs_here = _simd.load(costs, here * n_labels + at, LANES)
                gathered = _simd.convert(costs_here, np.float32)
                for m in range(n_arcs):
                    gathered = gathered + _simd.load(messages, places[0, m] + along + at, LANES)
                lowest = _simd.minimum(gathered, lowest)
                _simd.store(total, at, gathered * part)
            # new messages along the edges ahead
            bound = _simd.load(bounds, 0, LANES) + _simd.convert(lowest, np.float64)
            for m in range(begin, end):
                start = places[0, m] + along
                least = infinity
                for label in range(n_labels):
                    at = top + label * way
                    rise = _simd.load(total, at, LANES) - _simd.load(messages, start + at, LANES)
                    _simd.store(messages, start + at, rise)
                    least = _simd.minimum(rise, least)
                bound = bound + _simd.convert(least - lowest * part, np.float64)
                most = _simd.load(weight, places[1, m] + c * LANES, LANES)
                most = _simd.convert(most, np.float32)
                for at in range(0, n_labels * LANES, LANES):
                    rise = _simd.load(messages, start + at, LANES) - least
                    _simd.store(messages, start + at, _simd.minimum(rise, most))
            _simd.store(bounds, 0, bound)
    return bounds.sum()


@kernel
def _find_places(strips, row, n_labels, places):
    """Write the places of the messages and of the weights of a row's arcs, at column 0."""
    for m in range(strips.n_arcs[row]):
        arc = strips.arcs[row, m]
        cell = arc[_GROUP] * strips.n_cells + arc[_CELL]
        places[0, m] = cell * n_labels * LANES + arc[_LANE]
        places[1, m] = cell * LANES + arc[_LANE]


@kernel
def _pass_numbers(strips, weight, costs, share, messages, forward):
    """Do what `pass_messages` does, without vectors."""
    n_rows, width = strips.n_arcs.size, strips.shape[2]
    n_labels = costs.shape[1]
    places = np.empty((2, strips.arcs.shape[1]), np.int64)
    total = np.empty(n_labels, np.float32)
    weights, sent = weight.ravel(), messages.ravel()
    bounds = np.zeros(LANES, np.float64)
    for step in range(n_rows):
        row = step if forward else n_rows - 1 - step
        n_arcs = strips.n_arcs[row]
        begin = 0 if forward else strips.n_ahead[row]
        end = strips.n_ahead[row] if forward else n_arcs
        _find_places(strips, row, n_labels, places)
        for k in range(width * LANES):
            c, lane = k // LANES if forward else width - 1 - k // LANES, k % LANES
            cell = 1 + row * (width + 1) + c
            along = c * n_labels * LANES + lane
            lowest = np.float32(np.inf)
            for label in range(n_labels):
                total[label] = costs[cell, label, lane]
                for m in range(n_arcs):
                    total[label] += sent[places[0, m] + along + label * LANES]
                lowest = min(lowest, total[label])
                total[label] *= share[cell, lane]
            bounds[lane] += lowest
            for m in range(begin, end):
                start = places[0, m] + along
                least = np.float32(np.inf)
                for label in range(n_labels):
                    sent[start + label * LANES] = total[label] - sent[start + label * LANES]
                    least = min(least, sent[start + label * LANES])
                bounds[lane] += least - lowest * share[cell, lane]
                most = np.float32(weights[places[1, m] + c * LANES + lane])
                for label in range(n_labels):
                    at = start + label * LANES
                    sent[at] = min(sent[at] - least, most)
    return bounds.sum()


def settle_strips(strips, weight, costs, last_share, messages, height, flow, labels):
    """Make a last forward pass whose messages become integer flows; return a lower bound.

    ``messages`` are those after a backward pass (or zeros), and may be overwritten. ``height`` (L,
    N) and ``flow`` (L, K N), of zeros and of the type of ``costs``, receive those of
    `expansion_flow`; the edge that pixel v keeps in group k has the number k N + v. Each flow
    differs from 0 by at most half the edge's weight, so the sum of the nodes' smallest heights is a
    bound on the energy. A node keeps a fraction of its cost differences, because moves look nearby
    for nodes that can take excess.

    ``labels`` (N,) receives a labeling: each node in turn takes the best label given the labels of
    the nodes before it, with the messages in place of the nodes after it.
    """
    settle = _settle_vectors if _simd.ENABLED else _settle_numbers
    return settle(strips, weight, costs, last_share, messages, height, flow, labels)


@kernel
def _settle_vectors(strips, weight, costs, last_share, messages, height, flow, labels):
    """Do what `settle_strips` does, one cell at a time."""
    _, n_rows, width = strips.shape
    n_labels = height.shape[0]
    size = n_labels * LANES
    share, given = np.empty(size, np.float32), np.empty(size, costs.dtype)
    heights = costs.copy()
    chosen = np.zeros((strips.n_cells + 1, LANES), np.int32)
    places = np.empty((2, strips.arcs.shape[1]), np.int64)
    sums = np.zeros(LANES, np.int64)
    one = _simd.fill(costs.dtype.type(1), LANES)
    for row in range(strips.n_arcs.size):
        _find_places(strips, row, n_labels, places)
        n_ahead, n_arcs = strips.n_ahead[row], strips.n_arcs[row]
        r = row % strips.height
        n_lanes = (n_rows - r + strips.height - 1) // strips.height
        for c in range(width):
            cell = 1 + row * (width + 1) + c
            v = ((row // strips.height) * n_rows + r) * width + c
            _choose_labels(
                strips.arcs[row], n_ahead, n_arcs, places, weight, costs, heights, messages,
                last_share, cell, c, chosen, share,
            )  # fmt: skip
            # each edge ahead: the message, rounded to a flow between the cell and its neighbors
            for m in range(n_ahead):
                arc = strips.arcs[row, m]
                start = places[0, m] + c * size
                there = (arc[_NEXT_CELL] + c) * size + arc[_NEXT_LANE]
                least = _simd.fill(np.float32(np.inf), LANES)
                for at in range(0, size, LANES):
                    rise = _simd.load(share, at, LANES) - _simd.load(messages, start + at, LANES)
                    least = _simd.minimum(rise, least)
                room = _simd.load(weight, places[1, m] + c * LANES, LANES)
                limit, half = _simd.convert(room, np.float32), _simd.shift_right(room, one)
                for at in range(0, size, LANES):
                    rise = _simd.load(share, at, LANES) - _simd.load(messages, start + at, LANES)
                    rise = _simd.minimum(rise - least, limit)
                    sent = _simd.maximum(half - _simd.convert(rise, costs.dtype), half - room)
                    _simd.store(given, at, sent)
                    here = cell * size + at
                    _simd.store(heights, here, _simd.load(heights, here, LANES) + sent)
                    _simd.store(heights, there + at, _simd.load(heights, there + at, LANES) - sent)
                _keep_given(strips, arc, v, n_lanes, given, flow, height.shape[1])
            # the cell is final: bound, labels and heights
            lowest = _simd.load(heights, cell * size, LANES)
            for at in range(LANES, size, LANES):
                lowest = _simd.minimum(_simd.load(heights, cell * size + at, LANES), lowest)
            total = _simd.load(sums, 0, LANES) + _simd.convert(lowest, np.int64)
            _simd.store(sums, 0, total)
            for lane in range(n_lanes):
                place = v + lane * strips.height * width
                labels[place] = chosen[cell, lane]
                for label in range(n_labels):
                    height[label, place] = heights[cell, label, lane]
    return sums.sum()


@kernel
def _choose_labels(
    arcs, n_ahead, n_arcs, places, weight, costs, heights, messages,
    last_share, cell, c, chosen, share,
):  # fmt: skip
    """Write the labels of a cell to ``chosen``, and each edge ahead's costs to ``share``."""
    size = share.size
    zero = _simd.fill(np.float32(0), LANES)
    part = _simd.load(last_share, cell * LANES, LANES)
    least = _simd.fill(np.float32(np.inf), LANES)
    choice = _simd.fill(np.int32(0), LANES)
    for label in range(size // LANES):
        at = label * LANES
        own = _simd.convert(_simd.load(heights, cell * size + at, LANES), np.float32)
        merit = _simd.convert(_simd.load(costs, cell * size + at, LANES), np.float32)
        for m in range(n_ahead):
            coming = _simd.load(messages, places[0, m] + c * size + at, LANES)
            own, merit = own + coming, merit + coming
        for m in range(n_ahead, n_arcs):
            there = (arcs[m, _NEXT_CELL] + c) * LANES + arcs[m, _NEXT_LANE]
            has = _simd.equal(_simd.load(chosen, there, LANES), _simd.fill(np.int32(label), LANES))
            saved = _simd.load(weight, places[1, m] + c * LANES, LANES)
            merit = merit - _simd.select(has, _simd.convert(saved, np.float32), zero)
        _simd.store(share, at, own * part)
        better = _simd.less(merit, least)
        least = _simd.select(better, merit, least)
        choice = _simd.select(better, _simd.fill(np.int32(label), LANES), choice)
    _simd.store(chosen, cell * LANES, choice)


@kernel
def _keep_given(strips, arc, v, n_lanes, given, flow, n_nodes):
    """Write the flows ``given`` of a cell's edges to ``flow``; ``v`` is the cell's first node."""
    step = strips.height * strips.shape[2]
    edge = arc[_GROUP] * n_nodes + v - arc[_KEEPER]
    for lane in range(1 if arc[_LANE] < 0 else 0, n_lanes):
        for label in range(flow.shape[0]):
            sent = given[label * LANES + lane]
            flow[label, edge + lane * step] = sent if arc[_KEEPER] == 0 else -sent


@kernel
def _settle_numbers(strips, weight, costs, last_share, messages, height, flow, labels):
    """Do what `settle_strips` does, without vectors."""
    _, n_rows, width = strips.shape
    n_labels, n_nodes = height.shape
    share, merit = np.empty((2, n_labels), np.float32)
    heights = costs.copy().ravel()
    sent, weights = messages.ravel(), weight.ravel()
    chosen = np.zeros((strips.n_cells + 1) * LANES, np.int32)
    places = np.empty((2, strips.arcs.shape[1]), np.int64)
    bound = np.int64(0)
    for row in range(strips.n_arcs.size):
        _find_places(strips, row, n_labels, places)
        r = row % strips.height
        n_lanes = (n_rows - r + strips.height - 1) // strips.height
        for k in range(width * n_lanes):
            c, lane = k // n_lanes, k % n_lanes
            v = ((row // strips.height) * n_rows + lane * strips.height + r) * width + c
            cell = 1 + row * (width + 1) + c
            here = cell * n_labels * LANES + lane
            along = c * n_labels * LANES + lane
            share[:] = heights[here:][: n_labels * LANES : LANES]
            merit[:] = costs[cell, :, lane]
            for m in range(strips.n_arcs[row]):
                arc = strips.arcs[row, m]
                if m < strips.n_ahead[row]:
                    coming = sent[places[0, m] + along :][: n_labels * LANES : LANES]
                    share += coming
                    merit += coming
                else:
                    there = (arc[_NEXT_CELL] + c) * LANES + arc[_NEXT_LANE] + lane
                    merit[chosen[there]] -= weights[places[1, m] + c * LANES + lane]
            labels[v] = chosen[cell * LANES + lane] = merit.argmin()
            share *= last_share[cell, lane]
            for m in range(strips.n_ahead[row]):
                arc = strips.arcs[row, m]
                w = weights[places[1, m] + c * LANES + lane]
                if w == 0:
                    continue
                start = places[0, m] + along
                there = (arc[_NEXT_CELL] + c) * n_labels * LANES + arc[_NEXT_LANE] + lane
                least = np.float32(np.inf)
                for label in range(n_labels):
                    rise = share[label] - sent[start + label * LANES]
                    sent[start + label * LANES] = rise
                    least = min(rise, least)
                limit = np.float32(w)
                half = w >> 1
                edge = arc[_GROUP] * n_nodes + v - arc[_KEEPER]
                for label in range(n_labels):
                    rise = min(sent[start + label * LANES] - least, limit)
                    given = max(half - np.int64(rise), half - w)
                    heights[here + label * LANES] += given
                    heights[there + label * LANES] -= given
                    flow[label, edge] = given if arc[_KEEPER] == 0 else -given
            height[:, v] = heights[here:][: n_labels * LANES : LANES]
            bound += height[:, v].min()
    return bound
