"""Energies of grids and of random graphs."""

import numpy as np

from hybridseg.inference.cuts.moves import EnergyGraph
from hybridseg.kernels.cuts.maxflow import build_arcs

SHAPES = [(1, 1), (1, 6), (5, 1), (3, 3), (2, 2, 2)]


def problem(seed, shape=(3, 3), n_labels=3, dtype=np.int64):
    """A grid's energy with many ties, and with costs small enough that none is clipped."""
    rng = np.random.default_rng(seed)
    index = np.arange(np.prod(shape)).reshape(shape)
    ends = [
        (np.moveaxis(index, axis, 0)[:-1].ravel(), np.moveaxis(index, axis, 0)[1:].ravel())
        for axis in range(len(shape))
    ]
    i, j = (np.concatenate(end) for end in zip(*ends, strict=True))
    weight = rng.integers(4, 10, i.size)
    if weight.size:
        weight[0] *= 1000 if seed % 5 == 4 else 1
    unary = rng.integers(0, 8, (index.size, n_labels))
    if dtype is np.float64:
        return EnergyGraph.build(i, j, weight * 0.37, unary * 0.23)
    return EnergyGraph.build(i, j, weight, unary)


def noise(seed, shape, n_labels, strength):
    """Costs that are mostly noise, and edges that favor equal labels of neighbors."""
    graph = problem(seed, shape, n_labels, np.float64)
    rng = np.random.default_rng(seed)
    graph.weight[:] = strength
    return graph._replace(unary=rng.normal(size=graph.unary.shape))


def energy_graph(rng, dtype, n_nodes=14, n_labels=4):
    i = rng.integers(0, n_nodes, 30).astype(np.int32)
    j = ((i + rng.integers(1, n_nodes, 30)) % n_nodes).astype(np.int32)
    arcs = build_arcs(n_nodes, i, j, rng.integers(0, 9, 30).astype(dtype))
    unary = rng.integers(0, 9, (n_nodes, n_labels)).astype(dtype)
    return *arcs, unary, rng.integers(0, n_labels, n_nodes).astype(np.int32)
