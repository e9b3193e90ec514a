"""The sweeps over sparse graphs beside their slow twins."""

import numpy as np
import pytest

from hybridseg.kernels.graph_mean_field import color_graph, sweep_graph
from tests.kernels.test_grid_mean_field import matrices, problem
from tests.oracles import graph_mean_field as oracle


def adjacency(n, edges):
    """The arrays of a graph whose ``edges`` are (i, j, w)."""
    lists = [[] for _ in range(n)]
    for i, j, w in edges:
        lists[i].append((j, w))
        lists[j].append((i, w))
    first = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    flat = [pair for one in lists for pair in one]
    neighbours = np.array([j for j, _ in flat], np.int32)
    return first, neighbours, np.array([w for _, w in flat], np.float32)


@pytest.mark.parametrize("pairs", ["potts", "matrix"])
@pytest.mark.parametrize("n_labels", [1, 2, 5])
@pytest.mark.parametrize("n", [1, 2, 400])
def test_sweep_graph(rng, n, n_labels, pairs):
    ends = rng.integers(0, n, (2 * n, 2))
    edges = [(i, j, rng.uniform(-1, 2)) for i, j in ends.tolist() if i != j]
    first, neighbours, weights = adjacency(n, edges)
    colors = color_graph(first, neighbours)
    unary, marginals = problem(rng, n, n_labels)
    matrix = matrices(rng, n_labels)[pairs]
    for color in range(colors.max() + 1):
        nodes = np.flatnonzero(colors == color).astype(np.int32)
        args = (unary, first, neighbours, weights, nodes, matrix, np.float32(0.1))
        expected, largest = oracle.sweep_graph(*args, marginals)
        change = sweep_graph(*args, marginals)
        assert np.abs(marginals - expected).max() < 1e-5
        assert change == pytest.approx(largest, abs=1e-5)


def test_color_graph(rng):
    graphs = [
        (1, []),
        (5, []),
        (2, [(0, 1, 1.0)]),
        (4, [(i, j, 1.0) for i in range(4) for j in range(i)]),
        (60, [(i, j, 1.0) for i, j in rng.integers(0, 60, (150, 2)).tolist() if i != j]),
    ]
    for n, edges in graphs:
        first, neighbours, _ = adjacency(n, edges)
        colors = color_graph(first, neighbours)
        assert np.array_equal(colors, oracle.color_graph(first, neighbours))
        assert all(colors[i] != colors[j] for i, j, _ in edges)
