"""Costs as whole numbers, of which no more is kept than what can matter."""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel


@kernel
def cost_limits(first, weight, unary, least, limit):
    """Write each node's least cost and twice the weights of its edges, both (N,).

    ``first`` (N + 1,) and ``weight`` (A,) are arcs as from
    `cuts.maxflow.build_arcs`, ``unary`` is (N, L). Returns how far a node's costs and
    what its edges add can reach, where costs further above the least than the limit do not count.
    """
    reach = 0.0
    for v in range(limit.size):
        around = 0.0
        for a in range(first[v], first[v + 1]):
            around += weight[a]
        lowest = highest = unary[v, 0]
        for label in range(1, unary.shape[1]):
            lowest, highest = min(lowest, unary[v, label]), max(highest, unary[v, label])
        least[v], limit[v] = lowest, 2 * around
        spread = np.float64(highest) - np.float64(lowest)
        reach = max(reach, min(spread, limit[v]) + limit[v])
    return reach


@kernel
def shift_costs(unary, least, limit, bits, costs):
    """Write whole costs above the least, times ``2**bits``; cut off where they exceed the limit."""
    for v in range(limit.size):
        top = np.int64(np.ceil(limit[v])) + 1
        for label in range(unary.shape[1]):
            costs[v, label] = min(np.int64(unary[v, label]) - least[v], top) << bits


@kernel
def round_costs(unary, least, limit, bits, costs):
    """As `shift_costs` for real costs, which are rounded up."""
    scale = 2.0**bits
    for v in range(limit.size):
        top = limit[v] + 1 / scale
        for label in range(unary.shape[1]):
            costs[v, label] = np.ceil(min(np.float64(unary[v, label]) - least[v], top) * scale)
