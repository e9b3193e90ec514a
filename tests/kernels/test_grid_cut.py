import numpy as np
import pytest

from hybridseg.inference.cuts import GridNetwork, fits_grid, grid_cut_labels
from hybridseg.kernels.grid_cut import grid_cut
from hybridseg.pairwise.edges import edge_groups
from hybridseg.pairwise.energy import energy
from hybridseg.pairwise.grid import grid_weights
from tests.oracles import grid_cut as oracle

SHAPES = [(1, 1), (1, 7), (6, 1), (5, 6), (2, 3, 3), (1, 1, 4)]


def problem(shape, connectivity, seed, dtype=np.int64, scale=8):
    """Random costs (*shape, 2) and weights, a third of them zero."""
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
    network = GridNetwork.build([g for g in groups if g.weight.size], shape, costs.dtype)
    network.add(costs[..., 0] - costs[..., 1], shape)
    return network


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(6))
def test_grid_cut_equals_the_textbook(shape, seed):
    costs, weights = problem(shape, 1 + seed % len(shape), seed)
    cap, excess, offsets, _ = network_of(costs, weights)
    expected, flow = oracle.grid_cut(cap, excess, offsets)
    left, rest = cap.copy(), excess.copy()
    np.testing.assert_array_equal(grid_cut(left, rest, offsets), expected)
    assert np.maximum(excess, 0).sum() - np.maximum(rest, 0).sum() == flow
    assert (left >= 0).all()


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
@pytest.mark.parametrize("shape", [(40, 50), (9, 10, 11)])
def test_the_cut_is_certified_by_a_flow(shape, dtype):
    """The flow leaves ``cap >= 0``, conserves what it moves, and fills every arc of the cut."""
    costs, weights = problem(shape, len(shape), 1, dtype)
    if dtype is np.float64:
        costs = costs * 0.1
    cap, excess, offsets, inside = network_of(costs, weights)
    left, rest = cap.copy(), excess.copy()
    side = grid_cut(left, rest, offsets)
    tail, arc = np.nonzero((cap + left) > 0)
    head = tail + offsets[arc]
    assert (left >= 0).all()
    sent = cap[tail, arc] - left[tail, arc]
    change = np.bincount(head, sent, side.size) - np.bincount(tail, sent, side.size)
    np.testing.assert_allclose(2 * (rest - excess), change, rtol=0, atol=1e-9)
    assert (left[tail, arc][side[tail] & ~side[head]] == 0).all()
    assert (rest[side] >= 0).all()
    assert (rest[~side] <= 0).all()
    assert not side[~inside].any()


@pytest.mark.parametrize("factor", [0, 1, 2**40])
def test_weights_of_nothing_and_huge_ones(factor):
    costs, weights = problem((6, 7), 2, 3)
    weights = {offset: w * factor for offset, w in weights.items()}
    labels = grid_cut_labels(costs, edge_groups(weights, (6, 7)))
    cap, excess, offsets, inside = network_of(costs, weights)
    expected = oracle.grid_cut(cap, excess, offsets)[0][inside].reshape(6, 7)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("seed", range(5))
def test_a_warm_start_equals_a_cold_one(seed):
    shape = (12, 15)
    costs, weights = problem(shape, 2, seed)
    rng = np.random.default_rng(seed)
    network = network_of(costs, weights)
    network.solve(shape)
    for _ in range(6):
        change = rng.integers(-30, 30, shape) * (rng.random(shape) < 0.1)
        costs[..., 0] += change
        network.add(change, shape)
        cold = grid_cut_labels(costs, edge_groups(weights, shape))
        np.testing.assert_array_equal(network.solve(shape), cold)


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
