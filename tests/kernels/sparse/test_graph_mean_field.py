"""The sweeps over sparse graphs equal their slow twins."""

import numpy as np
import pytest

from hybridseg.kernels.sparse import graph_mean_field as kernels
from hybridseg.kernels.sparse.graph_mean_field import LANES, Graph, color_graph, sweep_graph
from hybridseg.kernels.vectors import simd as simd
from tests.kernels.sparse.test_grid_mean_field import WAYS, matrices, problem
from tests.kernels.vectors.assembly import assembly_of, on_x86
from tests.oracles.sparse import graph_mean_field as oracle


def adjacency(n, edges):
    """The arrays of a graph whose ``edges`` are (i, j, w)."""
    lists = [[] for _ in range(n)]
    for i, j, w in edges:
        lists[i].append((j, w))
        lists[j].append((i, w))
    first = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    flat = [pair for one in lists for pair in one]
    neighbors = np.array([j for j, _ in flat], np.int32)
    return first, neighbors, np.array([w for _, w in flat], np.float32)


def filled_up(rows, value):
    width = -(-rows.shape[1] // LANES) * LANES
    return np.pad(rows, [(0, 0), (0, width - rows.shape[1])], constant_values=np.float32(value))


def graph_of(n, edges, unary, matrix, damping):
    first, neighbors, weights = adjacency(n, edges)
    colors = color_graph(first, neighbors)
    nodes = np.argsort(colors, kind="stable").astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(np.bincount(colors))])
    costs, pairs = filled_up(unary, 3e38), filled_up(matrix, 0)
    return Graph(costs, first, neighbors, weights, nodes, starts, pairs, np.float32(damping))


@pytest.fixture(params=WAYS, ids=lambda way: "vectors" if way else "numbers")
def way(request, monkeypatch):
    monkeypatch.setattr(simd, "ENABLED", request.param)


@pytest.mark.parametrize("pairs", ["potts", "matrix"])
@pytest.mark.parametrize("n_labels", [1, 2, 8, 21, 40])
@pytest.mark.parametrize("n", [1, 2, 400])
def test_sweep_graph(rng, n, n_labels, pairs, way):
    ends = rng.integers(0, n, (n // 2, 2))  # few edges: hundreds of nodes have one color
    edges = [(i, j, rng.uniform(-1, 2)) for i, j in ends.tolist() if i != j]
    unary, marginals = problem(rng, n, n_labels)
    marginals = filled_up(marginals, 0)
    graph = graph_of(n, edges, unary, matrices(rng, n_labels)[pairs], 0.1)
    expected, largest = oracle.sweep_graph(graph, 2, marginals)
    changes = sweep_graph(graph, 2, marginals)
    assert np.abs(marginals - expected).max() < 1e-5
    assert changes == pytest.approx(largest, abs=1e-5)


@pytest.mark.parametrize("size", [1e-30, 50.0, 1e4, 1e15])
def test_sweep_graph_of_any_size_of_costs(rng, size, way):
    unary, marginals = problem(rng, 12, 3, size)
    marginals = filled_up(marginals, 0)
    graph = graph_of(12, [(0, 1, 2.0)], unary, matrices(rng, 3)["potts"], 0.0)
    expected, _ = oracle.sweep_graph(graph, 1, marginals)
    sweep_graph(graph, 1, marginals)
    assert np.abs(marginals - expected).max() < 1e-5


def test_color_graph(rng):
    graphs = [
        (1, []),
        (5, []),
        (2, [(0, 1, 1.0)]),
        (4, [(i, j, 1.0) for i in range(4) for j in range(i)]),
        (60, [(i, j, 1.0) for i, j in rng.integers(0, 60, (150, 2)).tolist() if i != j]),
    ]
    for n, edges in graphs:
        first, neighbors, _ = adjacency(n, edges)
        colors = color_graph(first, neighbors)
        assert np.array_equal(colors, oracle.color_graph(first, neighbors))
        assert all(colors[i] != colors[j] for i, j, _ in edges)


@on_x86
def test_the_sweep_is_packed(rng):
    unary, marginals = problem(rng, 2, 24)
    graph = graph_of(2, [(0, 1, 1.0)], unary, matrices(rng, 24)["potts"], 0.0)
    room = np.zeros(48, np.float32)
    code = assembly_of(kernels._add_messages, graph, 0, 1, marginals, room)
    assert "fmadd" in code
    code = assembly_of(kernels._settle, graph, 0, 1, room, marginals)
    assert "maxps" in code
