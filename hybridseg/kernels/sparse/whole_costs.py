"""Costs as integers, limited to the range that can matter: the first step of exact expansion moves.

No optimal labeling pays more at a node than its smallest cost plus twice the weights of its edges.
So costs are shifted by the smallest one, cut off above that limit, and scaled by a power of two as
far as the integers' range allows.

``first`` (N + 1,) and ``weight`` (A,) are arcs as from `hybridseg.kernels.cuts.maxflow.build_arcs`,
``unary`` (N, L) holds costs, ``least`` and ``limit`` (N,) each node's smallest cost and its limit.

`hybridseg.inference.cuts.flows` calls these kernels, which run on one thread.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel


@kernel
def cost_limits(first, weight, unary, least, limit):
    """Write each node's smallest cost and twice the weights of its edges; return the reach.

    The reach is the largest sum, over all nodes, of a node's limited range of costs and twice the
    weights of its edges. It bounds a node's costs with all that its edges can add.
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
    """Write integer costs above the smallest, times ``2**bits``.

    Costs that exceed the limit are cut off just above it.
    """
    for v in range(limit.size):
        top = np.int64(np.ceil(limit[v])) + 1
        for label in range(unary.shape[1]):
            costs[v, label] = min(np.int64(unary[v, label]) - least[v], top) << bits


@kernel
def round_costs(unary, least, limit, bits, costs):
    """Do what `shift_costs` does for real costs, which are rounded up."""
    scale = 2.0**bits
    for v in range(limit.size):
        top = limit[v] + 1 / scale
        for label in range(unary.shape[1]):
            costs[v, label] = np.ceil(min(np.float64(unary[v, label]) - least[v], top) * scale)
