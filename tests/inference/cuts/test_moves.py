import numpy as np
import pytest

from hybridseg.inference.cuts.graph_cut import graph_cut
from hybridseg.inference.cuts.moves import EnergyGraph, expand, swap
from hybridseg.pairwise import energy
from tests.inference.cuts.problems import case
from tests.oracles import energy as oracle

STEPS = np.abs(np.subtract.outer(np.arange(3), np.arange(3)))


def least_with(cost, unary, edges):
    """The optimum for arbitrary costs of label pairs."""
    every = np.array(list(np.ndindex(*[unary.shape[-1]] * int(np.prod(unary.shape[:-1])))))
    every = every.reshape(-1, *unary.shape[:-1])
    return min(oracle.energy(labels, unary, edges, cost) for labels in every)


@pytest.mark.parametrize("seed", range(8))
def test_every_expansion_move_is_the_best_of_all_moves(seed):
    rng = np.random.default_rng(seed)
    unary, weights = case(rng, n_labels=3)
    edges = oracle.grid_edges(weights, (3, 4))
    i, j, w = (np.array(x) for x in zip(*edges, strict=True))
    i, j = (np.ravel_multi_index(end.T, (3, 4)) for end in (i, j))
    graph = EnergyGraph.build(i, j, w, unary.reshape(12, 3))
    start = rng.integers(0, 3, (3, 4))
    for alpha in range(3):

        def reachable(labels, alpha=alpha):
            return ((labels == start) | (labels == alpha)).all(axis=(1, 2))

        least, optima = oracle.minimum(unary, edges, reachable)
        moved = expand(graph, start.ravel().astype(np.int32), alpha).reshape(3, 4)
        assert energy(moved, unary, weights) == least
        # a label stays if a change would not lower the energy
        expected = np.where((optima != start).all(axis=0), alpha, start)
        np.testing.assert_array_equal(moved, expected)


@pytest.mark.parametrize("dtype", [int, float])
@pytest.mark.parametrize(("moves", "cost"), [("expansion", STEPS), ("swap", STEPS**2)])
def test_other_pair_costs_lie_between_bound_and_start(moves, cost, dtype):
    for seed in range(4):
        unary, weights = case(np.random.default_rng(seed), (2, 3), 3, dtype)
        edges = oracle.grid_edges(weights, (2, 3))
        found = graph_cut(unary, weights, compatibility=cost, moves=moves)
        least = least_with(cost, unary, edges)
        expected = energy(found.labels, unary, weights, compatibility=cost)
        assert found.energy == pytest.approx(expected, rel=0 if dtype is int else 1e-12)
        assert found.lower_bound - 1e-9 <= least <= found.energy + 1e-9
        assert found.converged
        assert (np.diff(found.energies) <= 0).all()


def test_every_swap_is_the_best_of_all_swaps():
    for seed in range(6):
        rng = np.random.default_rng(seed)
        unary, weights = case(rng, (3, 3), 3)
        edges = oracle.grid_edges(weights, (3, 3))
        i, j, w = (np.array(x) for x in zip(*edges, strict=True))
        i, j = (np.ravel_multi_index(end.T, (3, 3)) for end in (i, j))
        graph = EnergyGraph.build(i, j, w, unary.reshape(9, 3))
        start = rng.integers(0, 3, (3, 3))
        for pair in ((0, 1), (0, 2), (1, 2)):

            def reachable(labels, pair=pair, start=start):
                free = np.isin(labels, pair) & np.isin(start, pair)
                return ((labels == start) | free).all(axis=(1, 2))

            least, _ = oracle.minimum(unary, edges, reachable)
            moved = swap(graph, start.ravel().astype(np.int32), *pair).reshape(3, 3)
            assert reachable(moved[np.newaxis]).all()
            assert energy(moved, unary, weights) == least


def test_potts_written_as_a_matrix_is_potts():
    unary, weights = case(np.random.default_rng(9), (7, 8), 4)
    potts = 1 - np.eye(4, dtype=int)
    assert (
        graph_cut(unary, weights, compatibility=potts).energies
        == graph_cut(unary, weights).energies
    )
    twice = graph_cut(unary[..., :2], weights, compatibility=[[0, 2], [2, 0]])
    doubled = graph_cut(unary[..., :2], {o: 2 * w for o, w in weights.items()})
    np.testing.assert_array_equal(twice.labels, doubled.labels)
    assert twice.energy == doubled.energy


def test_swaps_obey_seeds_and_solve_region_graphs():
    unary, weights = case(np.random.default_rng(11), (5, 6), 3)
    seeds = np.full((5, 6), -1)
    seeds[1, 1], seeds[3, 4] = 2, 0
    options = {"moves": "swap", "compatibility": STEPS**2, "seeds": seeds}
    found = graph_cut(unary, weights, **options)
    assert (found.labels == seeds)[seeds >= 0].all()
    edges = oracle.grid_edges(weights, (5, 6))
    i, j = (np.array([np.ravel_multi_index(e[end], (5, 6)) for e in edges]) for end in (0, 1))
    flat = options | {"seeds": seeds.ravel()}
    regions = graph_cut(unary.reshape(30, 3), (i, j, np.array([e[2] for e in edges])), **flat)
    np.testing.assert_array_equal(regions.labels, found.labels.ravel())
