"""Message passing for Potts energies, and the flows and the bound that it leaves.

A message is a row of P float32, one place for each label; P is a multiple of 8, and what fills the
rows up has costs that no label reaches.

References
----------
Kolmogorov, "Convergent tree-reweighted message passing for energy minimization", PAMI 28(10),
2006: figure 3 (TRW-S on monotonic chains), section 4 and section 5.3 (labels from messages).
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.vectors import simd as _simd

#: Labels are handled in blocks of so many.
LANES = 8


@kernel
def edge_numbers(first, head, rev):
    """The number 0..E-1 of the edge that each arc belongs to, (2E,) int32."""
    numbers = np.empty(head.size, np.int32)
    n_edges = 0
    for v in range(first.size - 1):
        for a in range(first[v], first[v + 1]):
            if head[a] > v:
                numbers[a] = numbers[rev[a]] = n_edges
                n_edges += 1
    return numbers


def send_messages(first, head, edge, weight, unary, messages, forward):
    """One pass over the nodes, in rising (``forward``) or falling order; rewrites ``messages``.

    Returns a lower bound on the energy, but for rounding. Each edge keeps one message in
    ``messages`` (E, P), towards its later node after a forward pass and towards its earlier one
    after a backward pass. A node's costs are shared out evenly among the chains that pass it; each
    edge ahead turns its share h into the message min(h(l) - min h, weight).

    ``first`` (N + 1,), ``head`` (A,) are arcs as from `hybridseg.kernels.cuts.maxflow.build_arcs`,
    ``edge`` (A,) the number of each arc's edge, ``weight`` (A,) and ``unary`` (N, P) float32.
    """
    send = _send_vectors if _simd.ENABLED else _send_numbers
    return send(first, head, edge, weight, unary, messages, forward)


@kernel
def _send_numbers(first, head, edge, weight, unary, messages, forward):
    n_nodes, width = unary.shape
    costs = np.empty(width, np.float32)
    bound = 0.0
    for step in range(n_nodes):
        v = step if forward else n_nodes - 1 - step
        n_ahead = 0
        costs[:] = unary[v]
        for a in range(first[v], first[v + 1]):
            n_ahead += (head[a] > v) == forward
            for label in range(width):
                costs[label] += messages[edge[a], label]
        n_arcs = first[v + 1] - first[v]
        share = np.float32(1) / np.float32(max(n_ahead, n_arcs - n_ahead, 1))
        lowest = costs.min() * share
        bound += costs.min()
        for label in range(width):
            costs[label] *= share
        for a in range(first[v], first[v + 1]):
            if (head[a] > v) == forward:
                bound += _send(costs, messages[edge[a]], weight[a]) - lowest
    return bound


@kernel
def _send(costs, message, weight):
    """Replace ``message`` by the one in the other direction, its least entry made 0.

    Returns what that entry was.
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
        highest = _simd.fill(np.float32(-np.inf), LANES)
        for block in range(0, width, LANES):
            total = _simd.load(unary, v * width + block, LANES)
            for a in range(start, stop):
                total = total + _simd.load(messages, edge[a] * width + block, LANES)
            highest = _simd.maximum(zero - total, highest)
            _simd.store(costs, block, total * _simd.fill(share, LANES))
        lowest = -_simd.greatest(highest)
        bound += lowest
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
    """A last forward pass, whose messages become whole flows; returns a lower bound.

    ``messages`` (E, P) are those after a backward pass (or zeros), and are used up. ``weight``
    (A,) int64. ``height`` (N, P) comes as the whole unary costs and leaves as `expansion_flow` has
    it (transposed), with the flows written to ``flow`` (E, P). Each flow lies within half the
    edge's weight of 0, so the sum of the nodes' least heights is a bound on the energy. A node
    keeps a share of its cost differences, because moves look near by for what can take excess.

    ``labels`` (N,) becomes a labeling: each node in turn takes the label that is best with those
    before it, the messages standing for those after it.
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
    """The costs of ``v`` with what its edges send; ``merit``: with the labels before as found."""
    n_ahead = 0
    for label in range(costs.size):
        costs[label] = height[v, label]  # what edges behind send has come already
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
