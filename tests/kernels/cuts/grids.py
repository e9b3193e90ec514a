"""Networks on pixel grids with random costs and weights."""

import numpy as np

from hybridseg.inference.cuts.grid_cuts import GridNetwork
from hybridseg.pairwise.edges import edge_groups
from hybridseg.pairwise.grid import grid_weights

SHAPES = [(1, 1), (1, 7), (6, 1), (5, 6), (2, 3, 3), (1, 1, 4)]


def problem(shape, connectivity, seed, dtype=np.int64, scale=8):
    """Random costs (*shape, 2) and weights; a third of them are zero."""
    rng = np.random.default_rng(seed)
    offsets = grid_weights(np.zeros(shape), connectivity=connectivity, spatial_ndim=len(shape))
    weights = {
        offset: (rng.integers(0, scale, w.shape) * (rng.random(w.shape) < 0.7)).astype(dtype)
        for offset, w in offsets.items()
    }
    return rng.integers(-2 * scale, 2 * scale, (*shape, 2)).astype(dtype), weights


def network_of(costs, weights):
    shape = costs.shape[:-1]
    groups = edge_groups(weights, shape)
    return GridNetwork.build([g for g in groups if g.weight.size], shape, costs.dtype)


def excess_of(costs):
    return costs[..., 0] - costs[..., 1]


def flow_of(network, costs):
    return np.maximum(excess_of(costs), 0).sum() - np.maximum(network.forest.excess, 0).sum()


def filled(costs, weights):
    """A network with its excess, and with the bits of its open arcs."""
    network = network_of(costs, weights)
    forest = network.forest
    network.inside(forest.excess)[...] = excess_of(costs)
    mark_open(forest, 0, forest.excess.size)
    return network


def mark_open(forest, first, stop):
    """Write the bits of the arcs with capacity between nodes from ``first`` to ``stop``."""
    forest.out[:] = forest.into[:] = 0
    last = forest.offsets.size - 1
    for d, offset in enumerate(forest.offsets):
        for v in np.flatnonzero(forest.cap[d] > 0):
            if first <= v < stop and first <= v + offset < stop:
                forest.out[v] |= forest.out.dtype.type(1 << d)
                forest.into[v + offset] |= forest.into.dtype.type(1 << (last - d))
