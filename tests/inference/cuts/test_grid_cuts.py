import numpy as np
import pytest

from hybridseg.inference.cuts.graph_cut import graph_cut
from hybridseg.inference.cuts.grid_cuts import WholeWeights, fits_grid, grid_cut_labels, grid_energy
from hybridseg.inference.cuts.moves import EnergyGraph, binary_cut
from hybridseg.pairwise import energy, grid_weights
from hybridseg.pairwise.edges import edge_groups, edge_list
from tests.oracles import energy as oracle

CASES = [
    *(((9, 14), 1), ((12, 7), 2), ((4, 5, 6), 1), ((3, 5, 4), 3)),
    *(((1, 20), 2), ((20, 1), 1), ((1, 1), 1), ((1, 1, 9), 2)),
]


def problem(shape, connectivity, seed, dtype=np.int64):
    rng = np.random.default_rng(seed)
    offsets = grid_weights(np.zeros(shape), connectivity=connectivity, spatial_ndim=len(shape))
    unary = rng.integers(-9, 10, (*shape, 2)).astype(dtype)
    weights = {o: rng.integers(0, 7, w.shape).astype(dtype) for o, w in offsets.items()}
    if np.dtype(dtype).kind == "f":
        unary += rng.random(unary.shape).astype(dtype)
        weights = {o: w * rng.random(w.shape).astype(dtype) for o, w in weights.items()}
    return unary, weights


def generic(unary, weights, seeds=None):
    """The labels by the solver on edge lists; a seed costs more than all other terms together."""
    shape = unary.shape[:-1]
    groups = edge_groups(weights, shape)
    costs = unary.astype(np.int64 if unary.dtype.kind == "i" else np.float64)
    if seeds is not None:
        total = 1 + sum(g.weight.sum() for g in groups)
        for label in (0, 1):
            costs[seeds == label, label] = 0
            costs[seeds == label, 1 - label] = total
    i, j, strengths = edge_list(groups, shape)
    graph = EnergyGraph.build(i, j, strengths, costs.reshape(-1, 2))
    return binary_cut(graph).labels.reshape(shape)


@pytest.mark.parametrize(("shape", "connectivity"), CASES)
@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64])
@pytest.mark.parametrize("seeded", [False, True])
def test_the_grid_and_the_edge_list_give_the_same(shape, connectivity, dtype, seeded):
    for seed in range(4):
        unary, weights = problem(shape, connectivity, seed, dtype)
        rng = np.random.default_rng(seed)
        seeds = rng.integers(-4, 2, shape) if seeded else None
        found = graph_cut(unary, weights, seeds=seeds)
        labels = generic(unary, weights, seeds)
        if dtype is np.int64:
            assert found.energy == energy(labels, unary, weights)
        np.testing.assert_array_equal(found.labels, labels)
        assert found.energy == pytest.approx(energy(labels, unary, weights), rel=1e-13)
        assert found.lower_bound == found.energy == found.energies[0]
        if seeded:
            np.testing.assert_array_equal(found.labels[seeds >= 0], seeds[seeds >= 0])


def test_the_edge_list_is_not_made_where_the_grid_fits(monkeypatch):
    def refuse(*_):
        raise AssertionError("the edge list was made")

    monkeypatch.setattr("hybridseg.inference.cuts.moves.edge_list", refuse)
    unary, weights = problem((5, 6), 2, 0)
    assert graph_cut(unary, weights).converged
    with pytest.raises(AssertionError, match="the edge list was made"):
        graph_cut(unary, {(0, 2): np.ones((5, 4), int)})


def test_longer_offsets_go_by_the_edge_list():
    rng = np.random.default_rng(1)
    unary = rng.integers(0, 9, (3, 4, 2))
    weights = {(0, 2): rng.integers(0, 5, (3, 2)), (1, 0): rng.integers(0, 5, (2, 4))}
    assert not fits_grid(edge_groups(weights, (3, 4)), (3, 4))
    least, optima = oracle.minimum(unary, oracle.grid_edges(weights, (3, 4)))
    found = graph_cut(unary, weights)
    assert found.energy == least
    np.testing.assert_array_equal(found.labels, optima.min(axis=0))


@pytest.mark.parametrize("costs", [[[0, 3], [3, 0]], [[0, 0.5], [0.5, 0]]])
def test_the_cost_of_the_pair_multiplies_the_weights(costs):
    unary, weights = problem((6, 7), 1, 3)
    found = graph_cut(unary, weights, compatibility=costs)
    scaled = {o: w * costs[0][1] for o, w in weights.items()}
    np.testing.assert_array_equal(found.labels, generic(unary, scaled))
    assert found.energy == energy(found.labels, unary, scaled)


def test_ties_give_the_fewest_ones_also_between_fractions():
    """Sums of sevenths are inexact in floats; the cut must still find the tie."""
    unary = np.array([[[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]]) / 7
    weights = [np.zeros((0, 4)), np.full((1, 3), 1 / 7)]
    assert graph_cut(unary, weights).labels.tolist() == [[0, 0, 0, 0]]
    assert graph_cut(unary[..., ::-1], weights).labels.tolist() == [[0, 0, 0, 0]]


@pytest.mark.parametrize("scale", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_the_unit_of_the_costs_does_not_matter(scale):
    unary, weights = problem((8, 9), 2, 4, np.float64)
    expected = graph_cut(unary, weights).labels
    scaled = {o: w * scale for o, w in weights.items()}
    np.testing.assert_array_equal(graph_cut(unary * scale, scaled).labels, expected)


def test_weights_and_costs_of_both_kinds():
    unary, weights = problem((8, 9), 1, 5)
    expected = graph_cut(unary, weights).labels
    real = {o: w.astype(np.float64) for o, w in weights.items()}
    np.testing.assert_array_equal(graph_cut(unary, real).labels, expected)
    np.testing.assert_array_equal(graph_cut(unary.astype(np.float32), weights).labels, expected)
    great = {o: w << 60 for o, w in weights.items()}  # no sum fits int64
    found = graph_cut(unary * 2.0**60, great)
    np.testing.assert_array_equal(found.labels, expected)


def test_infinite_weights_beside_usual_ones_are_solved_in_floats():
    unary, weights = problem((8, 9), 1, 6, np.float64)
    expected = graph_cut(unary, weights | {(1, 0): np.where(weights[1, 0] > 3, 1e6, weights[1, 0])})
    walls = weights | {(1, 0): np.where(weights[1, 0] > 3, 1e25, weights[1, 0])}
    groups = edge_groups(walls, (8, 9))
    assert WholeWeights.of(groups, (8, 9)) is None
    np.testing.assert_array_equal(graph_cut(unary, walls).labels, expected.labels)
    seeds = np.full((8, 9), -1)
    seeds[2, 3], seeds[6, 6] = 1, 0
    found = graph_cut(unary, walls, seeds=seeds)
    assert found.labels[2, 3] == 1
    assert found.labels[6, 6] == 0


def test_costs_of_any_size_are_cut_off_at_the_edges():
    unary, weights = problem((6, 6), 1, 7, np.float64)
    unary[2, 2], unary[4, 4] = (1e308, -1e308), (-1e308, 1e308)
    labels = grid_cut_labels(unary, edge_groups(weights, (6, 6)))
    assert labels[2, 2] == 1
    assert labels[4, 4] == 0


def test_a_cost_equal_to_the_edges_still_ties():
    unary = np.array([[[4, 0], [0, 9]]])
    weights = [np.zeros((0, 2), int), np.array([[4]])]
    assert graph_cut(unary, weights).labels.tolist() == [[0, 0]]
    unary[0, 0, 0] = 5
    assert graph_cut(unary, weights).labels.tolist() == [[1, 0]]
    unary[0, 1, 0] = 6
    assert graph_cut(unary, weights).labels.tolist() == [[1, 1]]


def test_grid_energy_equals_the_public_one():
    unary, weights = problem((4, 5, 6), 3, 8)
    labels = np.random.default_rng(0).integers(0, 2, (4, 5, 6)).astype(np.int32)
    groups = edge_groups(weights, (4, 5, 6))
    assert grid_energy(labels, unary, groups) == energy(labels, unary, weights)
    doubled = {o: 2 * w for o, w in weights.items()}
    assert grid_energy(labels, unary, groups, 2.0) == energy(labels, unary, doubled)
