"""Minimum cuts on grids equal the textbook's, from cold and warm starts, in bands or whole."""

import numpy as np
import pytest

from hybridseg.inference.cuts import grid_cuts as cuts
from hybridseg.inference.cuts.grid_cuts import fits_grid, grid_cut_labels
from hybridseg.kernels.cuts import grid_cut as kernels
from hybridseg.kernels.cuts.grid_forest import LOST, ROOT, STEP
from hybridseg.pairwise.edges import edge_groups
from hybridseg.pairwise.energy import energy
from tests.kernels.cuts.grids import SHAPES, excess_of, flow_of, network_of, problem
from tests.oracles.cuts import grid_cut as oracle

WAYS = [(1, "trees"), (2, "trees"), (5, "trees"), (1, "branches"), (4, "branches"), (3, "as is")]


@pytest.fixture(params=WAYS, ids=lambda way: f"{way[0]} bands, {way[1]}")
def bands(request, monkeypatch):
    """Use bands, and trees or branches, for any size of grid and any number of threads."""
    n_bands, way = request.param
    monkeypatch.setattr(cuts, "MIN_ELEMENTS_FOR_THREADS", 0)
    monkeypatch.setattr(cuts, "_MIN_ROWS_PER_THREAD", 2)
    monkeypatch.setattr(cuts, "get_num_threads", lambda: n_bands)
    if way != "as is":
        monkeypatch.setattr(kernels, "_are_few", lambda excess: False)
        monkeypatch.setattr(kernels, "_by_trees", lambda n_arcs, left: way == "trees")


def textbook(network, costs):
    """The labels and the flow of an unsolved network by the oracle."""
    cap, excess, offsets = network.forest[:3]
    network.inside(excess)[...] = excess_of(costs)
    side, flow = oracle.grid_cut(cap, excess, offsets)
    return network.inside(side), flow


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("scale", [2, 8, 100])
def test_grid_cut_equals_the_textbook(bands, shape, seed, scale):
    costs, weights = problem(shape, 1 + seed % len(shape), seed, scale=scale)
    network = network_of(costs, weights)
    forest = network.forest
    expected, flow = textbook(network, costs)
    kernels.grid_cut(forest, network._bands(), shape[-1] + 2)
    np.testing.assert_array_equal(network.inside(forest.nodes >= STEP), expected)
    assert flow_of(network, costs) == flow
    assert (forest.cap >= 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 6), (2, 3, 4)])
@pytest.mark.parametrize("seed", range(4))
def test_grid_cut_again_equals_the_textbook(shape, seed):
    costs, weights = problem(shape, len(shape), seed)
    rng = np.random.default_rng(seed)
    network, fresh = network_of(costs, weights), network_of(costs, weights)
    network.solve(excess_of(costs), keep=True)
    fresh.inside(fresh.forest.excess)[...] = excess_of(costs)
    cap, excess, offsets = fresh.forest[:3]
    n_pixels = int(np.prod(shape))
    at = rng.choice(n_pixels, min(5, n_pixels), replace=False)
    nodes = fresh.inside(np.arange(excess.size)).ravel()[at]
    changes = dict(zip(nodes, rng.integers(-30, 30, at.size), strict=True))
    expected = oracle.grid_cut_again(cap, excess, offsets, changes)[0]
    for node, change in changes.items():
        network.forest.excess[node] += change
    kernels.grid_cut_again(network.forest, nodes)
    np.testing.assert_array_equal(network.forest.nodes >= STEP, expected)


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
@pytest.mark.parametrize("shape", [(40, 50), (9, 10, 11)])
@pytest.mark.parametrize("strength", [1, 20])
def test_the_cut_is_certified_by_a_flow(bands, shape, dtype, strength):
    """The flow keeps ``cap >= 0``, is conserved, and saturates every arc of the cut."""
    costs, weights = problem(shape, len(shape), 1, dtype)
    weights = {offset: strength * w for offset, w in weights.items()}
    if dtype is np.float64:
        costs = costs * 0.1
    network = network_of(costs, weights)
    cap = network.forest.cap.copy()
    labels = network.solve(excess_of(costs))
    left, rest, offsets = network.forest[:3]
    excess = np.zeros_like(rest)
    network.inside(excess)[...] = excess_of(costs)
    side = network.forest.nodes >= STEP
    arc, tail = np.nonzero((cap + left) > 0)
    head = tail + offsets[arc]
    assert (left >= 0).all()
    sent = cap[arc, tail] - left[arc, tail]
    change = np.bincount(head, sent, side.size) - np.bincount(tail, sent, side.size)
    np.testing.assert_allclose(2 * (rest - excess), change, rtol=0, atol=1e-9)
    assert (left[arc, tail][side[tail] & ~side[head]] == 0).all()
    assert (rest[side] >= 0).all()
    assert (rest[~side] <= 0).all()
    assert side.sum() == labels.sum()


@pytest.mark.parametrize("shape", [(30, 40), (7, 8, 9)])
def test_the_forest_is_one(bands, shape):
    """Bits mark the open arcs; each node has an open arc from a parent one level lower."""
    costs, weights = problem(shape, len(shape), 2)
    network = network_of(costs, weights)
    network.solve(excess_of(costs), keep=True)
    rng = np.random.default_rng(0)
    for _ in range(5):
        forest = network.forest
        for d, offset in enumerate(forest.offsets):
            is_open = forest.cap[d] > 0
            np.testing.assert_array_equal(forest.out >> d & 1, is_open)
            back = len(forest.offsets) - 1 - d
            np.testing.assert_array_equal(np.roll(forest.into, -offset) >> back & 1, is_open)
        level, code = np.divmod(forest.nodes, STEP)
        assert (code[level == 0] == LOST).all()
        np.testing.assert_array_equal(code == ROOT, forest.excess > 0)
        assert (level[code == ROOT] == 1).all()
        (child,) = np.nonzero(code < ROOT)
        assert (level[child + forest.offsets[code[child]]] == level[child] - 1).all()
        assert (forest.into[child] >> code[child] & 1).all()
        at = rng.choice(np.prod(shape), 20, replace=False)
        network.solve_again(rng.integers(-20, 20, 20), at)


@pytest.mark.parametrize(("n_arcs", "left", "trees"), [(4, 0.9, 1), (8, 0.9, 1), (8, 0.1, 0)])
def test_trees_are_for_what_stays(n_arcs, left, trees):
    assert kernels._by_trees(n_arcs, left) == trees
    assert not kernels._by_trees(n_arcs, 0)
    assert not kernels._by_trees(26, left)


def test_bands_hold_whole_rows(bands):
    network = network_of(*problem((9, 10, 11), 1, 0))
    starts = network._bands()
    assert starts[0] == 0
    assert starts[-1] == network.forest.excess.size
    assert (np.diff(starts) >= 2 * 12 * 13).all()
    assert (starts % (12 * 13) == 0).all()


def test_small_grids_start_no_threads():
    assert network_of(*problem((60, 70), 1, 0))._bands().tolist() == [0, 62 * 72]


@pytest.mark.parametrize("factor", [0, 1, 2**40])
def test_weights_of_nothing_and_huge_ones(factor):
    costs, weights = problem((6, 7), 2, 3)
    weights = {offset: w * factor for offset, w in weights.items()}
    labels = grid_cut_labels(costs, edge_groups(weights, (6, 7)))
    expected = textbook(network_of(costs, weights), costs)[0]
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("connectivity", [1, 2])
@pytest.mark.parametrize("strength", [1, 5])
@pytest.mark.parametrize("seed", range(5))
def test_a_warm_start_equals_a_cold_one(seed, strength, connectivity):
    shape = (22, 25)
    costs, weights = problem(shape, connectivity, seed)
    weights = {offset: strength * w for offset, w in weights.items()}
    rng = np.random.default_rng(seed)
    network = network_of(costs, weights)
    network.solve(excess_of(costs), keep=True)
    for share in (0.01, 0.1, 1.0, 0.02, 0.0, 0.3, 0.01):
        change = rng.integers(-30, 30, shape) * (rng.random(shape) < share)
        costs[..., 0] += change
        at = np.flatnonzero(change)
        cold = grid_cut_labels(costs, edge_groups(weights, shape))
        np.testing.assert_array_equal(network.solve_again(change.ravel()[at], at), cold)


def test_energy_equals_pymaxflow():
    library = pytest.importorskip("maxflow")
    costs, weights = problem((60, 70), 1, 5, scale=50)
    peer = library.Graph[int]()
    nodes = peer.add_grid_nodes((60, 70))
    for (down, right), weight in weights.items():
        structure = np.zeros((3, 3))
        structure[1 + down, 1 + right] = 1
        padded = np.pad(weight, ((0, down), (0, right)))
        peer.add_grid_edges(nodes, padded, structure, symmetric=True)
    least = costs.min(axis=-1)
    peer.add_grid_tedges(nodes, costs[..., 0] - least, costs[..., 1] - least)
    labels = grid_cut_labels(costs, edge_groups(weights, (60, 70)))
    assert energy(labels, costs, weights) == peer.maxflow() + least.sum()


def test_long_offsets_do_not_fit():
    groups = edge_groups({(0, 2): np.ones((4, 3))}, (4, 5))
    assert not fits_grid(groups, (4, 5))
    assert fits_grid(edge_groups({(1, -1): np.ones((3, 4))}, (4, 5)), (4, 5))
