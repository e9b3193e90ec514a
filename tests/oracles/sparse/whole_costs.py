"""Costs as integers, computed on whole arrays."""

import numpy as np


def cost_limits(first, weight, unary):
    """Each node's least cost, twice the sum of its edge weights, and the range of its costs."""
    around = [float(weight[first[v] : first[v + 1]].sum()) for v in range(len(unary))]
    limit = 2 * np.array(around)
    spread = unary.max(axis=1).astype(float) - unary.min(axis=1).astype(float)
    return unary.min(axis=1), limit, (np.minimum(spread, limit) + limit).max(initial=0)


def shift_costs(unary, least, limit, bits):
    """Costs minus the least, clipped at the limit plus 1, times ``2**bits``."""
    return np.minimum(unary - least[:, None], np.ceil(limit)[:, None] + 1).astype(np.int64) << bits


def round_costs(unary, least, limit, bits):
    """Costs minus the least in units of ``2**-bits``, clipped at one unit above the limit."""
    over = unary.astype(np.float64) - least[:, None]
    top = limit + 2.0**-bits
    return np.ceil(np.minimum(over, top[:, None]) * 2.0**bits).astype(np.int64)
