"""Costs as whole numbers, by whole arrays."""

import numpy as np


def cost_limits(first, weight, unary):
    """Each node's least cost, twice the weights of its edges, and how far costs can reach."""
    around = [float(weight[first[v] : first[v + 1]].sum()) for v in range(len(unary))]
    limit = 2 * np.array(around)
    spread = unary.max(axis=1).astype(float) - unary.min(axis=1).astype(float)
    return unary.min(axis=1), limit, (np.minimum(spread, limit) + limit).max(initial=0)


def shift_costs(unary, least, limit, bits):
    """Costs above the least, none more than 1 above the limit, times ``2**bits``."""
    return np.minimum(unary - least[:, None], np.ceil(limit)[:, None] + 1).astype(np.int64) << bits


def round_costs(unary, least, limit, bits):
    """Costs above the least in parts of ``2**-bits``, none more than a part above the limit."""
    over = unary.astype(np.float64) - least[:, None]
    top = limit + 2.0**-bits
    return np.ceil(np.minimum(over, top[:, None]) * 2.0**bits).astype(np.int64)
