"""Message passing for Potts energies on graphs, and the flows and the bound that it leaves.

`send_messages` is TRW-S (sequential tree-reweighted message passing) on monotonic chains, figure 3
and section 4 of [1]_. `settle_flows` chooses labels as in section 5.3 and turns the messages into
integer flows, with which expansion moves start.

Graphs are arcs as from `hybridseg.kernels.cuts.maxflow.build_arcs`: ``first`` (N + 1,), ``head``
(A,) and the reverse arcs ``rev`` (A,); ``edge`` (A,) int32 is the number of each arc's edge. A
message is a row of P float32, one for each label. P is a multiple of ``LANES``; padding labels have
costs that no real label reaches.

`hybridseg.inference.cuts.flows` calls these kernels, for graphs that are not pixel grids (see
`grid_messages`). Each node uses the messages of the node before it, so they run on one thread.

References
----------
.. [1] V. Kolmogorov, "Convergent tree-reweighted message passing for energy minimization", PAMI
   28(10), 2006.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.vectors import simd as _simd

#: Labels in a vector.
LANES = 8


@kernel
def edge_numbers(first, head, rev):
    """Return the number 0..E-1 of each arc's edge, (2E,) int32."""
    numbers = np.empty(head.size, np.int32)
    n_edges = 0
    for v in range(first.size - 1):
        for a in range(first[v], first[v + 1]):
            if head[a] > v:
                numbers[a] = numbers[rev[a]] = n_edges
                n_edges += 1
    return numbers


def send_messages(first, head, edge, weight, unary, messages, forward):
    """Pass once over the nodes, in ascending (``forward``) or descending order; write ``messages``.

    Returns a lower bound on the energy, up to rounding. Each edge has one message in ``messages``
    (E, P): to its later node after a forward pass, and to its earlier one after a backward pass. A
    node's costs are divided evenly among the chains through it. Each edge ahead turns its share h
    into the message min(h(l) - min h, weight).

    ``first`` (N + 1,) and ``head`` (A,) are arcs, ``edge`` (A,) the number of each arc's edge,
    ``weight`` (A,) and ``unary`` (N, P) float32.
    """
    send = _send_vectors if _simd.ENABLED else _send_numbers
    return send(first, head, edge, weight, unary, messages, forward)


@kernel
def _send_numbers(first, head, edge, weight, unary, messages, forward):
    """Do what `send_messages` does, without vectors."""
    n_nodes, width = unary.shape
    costs = np.empty(width, np.float32)
    bound = 0.0
    for step in range(n_nodes):
        v = step if forward else n_nodes - 1 - step
        n_ahead = 0
        # the node's costs with all messages to it
        costs[:] = unary[v]
        for a in range(first[v], first[v + 1]):
            n_ahead += (head[a] > v) == forward
            for label in range(width):
                costs[label] += messages[edge[a], label]
        n_arcs = first[v + 1] - first[v]
        # divided among the chains through it
        share = np.float32(1) / np.float32(max(n_ahead, n_arcs - n_ahead, 1))
        lowest = costs.min() * share
        bound += costs.min()
        for label in range(width):
            costs[label] *= share
        # new messages along the edges ahead
        for a in range(first[v], first[v + 1]):
            if (head[a] > v) == forward:
                bound += _send(costs, messages[edge[a]], weight[a]) - lowest
    return bound


@kernel
def _send(costs, message, weight):
    """Replace ``message`` by that in the other direction, shifted to make its smallest entry 0.

    Returns the smallest entry before the shift, which the bound gains.
    """
    least = np.float32(np.inf)
    for label in range(costs.size):
        message[label] = costs[label] - message[label]
        least = min(least, message[label])
    for label in range(costs.size):
        message[label] = min(message[label] - least, weight)
    return least


@kernel
def _send_vectors(first, head, edge, weight, unary, messages, forward):
    """Do what `send_messages` does, with vectors of labels."""
    n_nodes, width = unary.shape
    costs = np.empty(width, np.float32)
    bound = 0.0
    zero = _simd.fill(np.float32(0), LANES)
    for step in range(n_nodes):
        v = step if forward else n_nodes - 1 - step
        start, stop = np.int64(first[v]), np.int64(first[v + 1])
        n_ahead = 0
        for a in range(start, stop):
            n_ahead += (head[a] > v) == forward
        share = np.float32(1) / np.float32(max(n_ahead, int(stop - start) - n_ahead, 1))
        # the node's costs with all messages to it; the minimum is the negated maximum of -total
        highest = _simd.fill(np.float32(-np.inf), LANES)
        for block in range(0, width, LANES):
            total = _simd.load(unary, v * width + block, LANES)
            for a in range(start, stop):
                total = total + _simd.load(messages, edge[a] * width + block, LANES)
            highest = _simd.maximum(zero - total, highest)
            _simd.store(costs, block, total * _simd.fill(share, LANES))
        lowest = -_simd.greatest(highest)
        bound += lowest
        # new messages along the edges ahead: their minimum, then the limited difference from it
        for a in range(start, stop):
            if (head[a] > v) == forward:
                row = edge[a] * width
                most = zero - (_simd.load(costs, 0, LANES) - _simd.load(messages, row, LANES))
                for block in range(LANES, width, LANES):
                    back = _simd.load(messages, row + block, LANES)
                    rise = _simd.load(costs, block, LANES) - back
                    most = _simd.maximum(zero - rise, most)
                lost = -_simd.greatest(most)
                bound += lost - lowest * share
                least = _simd.fill(lost, LANES)
                limit = _simd.fill(weight[a], LANES)
                for block in range(0, width, LANES):
                    back = _simd.load(messages, row + block, LANES)
                    rise = _simd.load(costs, block, LANES) - back - least
                    _simd.store(messages, row + block, _simd.minimum(rise, limit))
    return bound


@kernel
def settle_flows(first, head, edge, weight, unary, messages, n_labels, height, flow, labels):
    """Make a last forward pass whose messages become integer flows; return a lower bound.

    ``messages`` (E, P) are those after a backward pass (or zeros). ``weight`` (A,) is int64.
    ``height`` (N, P) holds the integer unary costs, and receives the heights of `expansion_flow`
    (transposed); the flows are written to ``flow`` (E, P). Each flow differs from 0 by at most half
    the edge's weight, so the sum of the nodes' smallest heights is a bound on the energy. A node
    keeps a share of its cost differences, because expansion moves look nearby for nodes that can
    take excess.

    ``labels`` (N,) receives a labeling: each node in turn takes the best label given the labels of
    the nodes before it, with the messages in place of the nodes after it.
    """
    n_nodes, width = height.shape
    costs, merit = np.empty(width, np.float32), np.empty(width, np.float32)
    share = np.empty(width, np.float32)
    bound = np.int64(0)
    for v in range(n_nodes):
        n_ahead = _gather(
            first, head, edge, weight, unary, messages, height, labels, v, costs, merit
        )
        labels[v] = merit[:n_labels].argmin()
        n_shares = max(n_ahead + 1, first[v + 1] - first[v] - n_ahead)
        scale = np.float32(1) / np.float32(n_shares)
        # each edge ahead: the message, rounded to an integer flow that moves cost between v and w
        for a in range(first[v], first[v + 1]):
            if head[a] > v:
                e, w = edge[a], np.int64(head[a])
                least = np.float32(np.inf)
                for label in range(width):
                    share[label] = costs[label] * scale - messages[e, label]
                    least = share[label] if share[label] < least else least
                limit = np.float32(weight[a])
                half = weight[a] >> 1
                lowest = half - weight[a]
                for label in range(width):
                    rise = share[label] - least
                    rise = rise if rise < limit else limit
                    sent = max(half - np.int64(rise), lowest)
                    flow[e, label] = sent
                    height[v, label] += sent
                    height[w, label] -= sent
        bound += height[v, :n_labels].min()
    return bound


@kernel
def _gather(first, head, edge, weight, unary, messages, height, labels, v, costs, merit):
    """Write the two kinds of costs of node v; return the number of edges ahead.

    ``costs`` are its heights plus the messages from the nodes after it. ``merit`` are its unary
    costs plus these messages, less the weights of edges to nodes before it that have the label.
    """
    n_ahead = 0
    for label in range(costs.size):
        costs[label] = height[v, label]  # flows of the edges behind are in the heights already
        merit[label] = unary[v, label]
    for a in range(first[v], first[v + 1]):
        if head[a] > v:
            n_ahead += 1
            for label in range(costs.size):
                costs[label] += messages[edge[a], label]
                merit[label] += messages[edge[a], label]
        else:
            merit[labels[head[a]]] -= weight[a]
    return n_ahead
