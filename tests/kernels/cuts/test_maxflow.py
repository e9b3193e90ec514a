"""Flows on sparse graphs equal the textbook's, and cuts certify them."""

import numpy as np
import pytest

from hybridseg.kernels.cuts import maxflow as kernels
from tests.oracles.cuts import maxflow as oracle


def random_graph(rng, dtype, n_nodes=None):
    """A sparse graph with parallel edges, zero capacities and one-way arcs, maybe disconnected."""
    n_nodes = n_nodes or int(rng.integers(2, 30))
    n_edges = int(rng.integers(1, 3 * n_nodes))
    i = rng.integers(0, n_nodes, n_edges).astype(np.int32)
    j = ((i + rng.integers(1, n_nodes, n_edges)) % n_nodes).astype(np.int32)
    weight = (rng.integers(0, 10, n_edges) * (rng.random(n_edges) < rng.random())).astype(dtype)
    first, head, rev, cap = kernels.build_arcs(n_nodes, i, j, weight)
    cap[rng.random(cap.size) < 0.3] = 0
    excess = (rng.integers(-20, 20, n_nodes) * (rng.random(n_nodes) < rng.random())).astype(dtype)
    return first, head, rev, cap, excess


def grid_graph(rng, shape, dtype):
    index = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    i = np.concatenate([index[:-1].ravel(), index[:, :-1].ravel()])
    j = np.concatenate([index[1:].ravel(), index[:, 1:].ravel()])
    weight = rng.integers(0, 30, i.size).astype(dtype)
    arcs = kernels.build_arcs(index.size, i, j, weight)
    return *arcs, rng.integers(-40, 40, index.size).astype(dtype)


def solve(graph):
    first, head, rev, cap, excess = graph
    left, rest = cap.copy(), excess.copy()
    flow = kernels.maxflow(first, head, rev, left, rest)
    return flow, left, rest, kernels.source_side(first, head, left, rest)


def assert_certified(graph, exact=True):
    """A feasible flow whose value is a cut's capacity is maximal, and the cut minimal."""
    first, head, rev, cap, excess = graph
    flow, left, rest, side = solve(graph)
    tolerance = 0 if exact else 1e-9 * max(1.0, np.abs(excess).sum())
    tail = np.repeat(np.arange(excess.size), np.diff(first))
    assert (left >= 0).all()
    np.testing.assert_allclose(left + left[rev], cap + cap[rev], rtol=0, atol=tolerance)
    outflow = np.zeros_like(excess)
    np.add.at(outflow, tail, cap - left)
    np.testing.assert_allclose(outflow, excess - rest, rtol=0, atol=2 * tolerance)
    assert (rest[side] >= 0).all()
    assert (rest[~side] <= 0).all()
    capacity = oracle.cut_capacity(first, head, cap, excess, side)
    np.testing.assert_allclose(flow, capacity, rtol=0, atol=tolerance)


def test_build_arcs_equals_its_twin():
    rng = np.random.default_rng(0)
    for n_edges in (0, 1, 30):
        i = rng.integers(0, 7, n_edges).astype(np.int32)
        j = ((i + rng.integers(1, 7, n_edges)) % 7).astype(np.int32)
        weight = rng.random(n_edges)
        found = kernels.build_arcs(7, i, j, weight)
        for array, expected in zip(found, oracle.build_arcs(7, i, j, weight), strict=True):
            np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("seed", range(60))
def test_integer_flow_and_cuts_equal_the_textbook(seed):
    graph = random_graph(np.random.default_rng(seed), np.int64)
    first, head, _, cap, excess = graph
    flow, _, _, side = solve(graph)
    expected, residual = oracle.maxflow(first, head, cap, excess)
    assert flow == expected
    np.testing.assert_array_equal(side, oracle.source_side(residual))


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (9, 1), (23, 31), (70, 50)])
def test_grid_flow_is_certified_by_a_cut(shape, dtype):
    assert_certified(grid_graph(np.random.default_rng(1), shape, dtype), exact=dtype is np.int64)


@pytest.mark.parametrize("seed", range(40))
def test_general_flow_is_certified_by_a_cut(seed):
    rng = np.random.default_rng(seed)
    assert_certified(random_graph(rng, np.int64, n_nodes=200))
    first, head, rev, cap, excess = random_graph(rng, np.float64, n_nodes=200)
    noise = rng.random(cap.size) * (cap > 0)
    assert_certified((first, head, rev, cap * noise, excess * 0.1), exact=False)


def test_float32_flow_is_certified_to_rounding():
    first, head, rev, cap, excess = grid_graph(np.random.default_rng(2), (20, 30), np.float32)
    flow, _, _, side = solve((first, head, rev, cap, excess))
    assert flow == pytest.approx(oracle.cut_capacity(first, head, cap, excess, side), rel=1e-5)


def test_long_paths_between_far_terminals():
    """The graph is a chain, so that labels rise to its length."""
    n_nodes = 301
    i = np.arange(n_nodes - 1, dtype=np.int32)
    first, head, rev, cap = kernels.build_arcs(n_nodes, i, i + 1, 100 - abs(i - 150) % 7)
    excess = np.zeros(n_nodes, np.int64)
    excess[0], excess[-1] = 500, -400
    assert solve((first, head, rev, cap.astype(np.int64), excess))[0] == cap.min()
    assert_certified((first, head, rev, cap.astype(np.int64), excess))


def test_no_terminals_no_flow():
    first, head, rev, cap, excess = random_graph(np.random.default_rng(3), np.int64)
    flow, left, _, side = solve((first, head, rev, cap, np.zeros_like(excess)))
    assert flow == 0
    np.testing.assert_array_equal(left, cap)
    assert not side.any()


@pytest.mark.parametrize("kind", ["grid", "general"])
def test_integer_flow_equals_pymaxflow(kind):
    library = pytest.importorskip("maxflow")
    for seed in range(20):
        rng = np.random.default_rng(seed)
        shape = tuple(rng.integers(1, 40, 2))
        graph = (
            grid_graph(rng, shape, np.int64) if kind == "grid" else random_graph(rng, np.int64, 300)
        )
        first, head, rev, cap, excess = graph
        tail = np.repeat(np.arange(excess.size), np.diff(first))
        once = np.flatnonzero(tail < head)
        peer = library.Graph[int](excess.size, once.size)
        nodes = peer.add_grid_nodes((excess.size,))
        if once.size:
            peer.add_edges(tail[once], head[once], cap[once], cap[rev[once]])
        peer.add_grid_tedges(nodes, np.maximum(excess, 0), np.maximum(-excess, 0))
        assert solve(graph)[0] == peer.maxflow()


@pytest.mark.parametrize("afresh", [False, True])
@pytest.mark.parametrize("n", [40, 80, 160])
def test_nodes_that_reach_no_deficit_are_lifted_a_few_times(n, afresh):
    """Uniform capacities, one source and one sink in opposite corners: a constant per node."""
    first, head, rev, cap, excess = grid_graph(np.random.default_rng(0), (n, n), np.int64)
    cap[:], excess[:] = 1, 0
    excess[0], excess[-1] = 10, -10
    assert kernels._drain(first, head, rev, cap, excess, afresh) < 4 * n * n
    assert excess[excess > 0].sum() == 8


@pytest.mark.parametrize("seed", range(10))
def test_labels_that_are_searched_for_again_change_nothing(seed):
    graph = grid_graph(np.random.default_rng(seed), (40, 50), np.int64)
    first, head, rev, cap, excess = graph
    excess = np.where(np.random.default_rng(seed).random(excess.size) < 0.05, 20 * excess, 0)
    sides = []
    for afresh in (False, True):
        left, rest = cap.copy(), excess.copy()
        assert kernels._drain(first, head, rev, left, rest, afresh) > afresh * excess.size
        sides.append(kernels.source_side(first, head, left, rest))
    np.testing.assert_array_equal(*sides)
