"""Cuts of joined terms, with label costs and seeds, against all labelings."""

import numpy as np
import pytest

from hybridseg.inference import graph_cut, solve_cuts, solve_mean_field
from hybridseg.inference.cuts.moves import EnergyGraph, expand, swap
from hybridseg.pairwise import EdgeTerm, Energy, GridTerm, RegionTerm
from hybridseg.pairwise.edges import edge_list
from hybridseg.pairwise.higher_order.presence import PresenceCosts
from tests.inference.cuts.problems import case
from tests.oracles import energy as oracle


def edges_of(energy):
    """The energy's edges as (p, q, w), p and q index tuples."""
    index = np.indices(energy.shape)
    for group in energy.edges:
        p, q = (np.stack([axis[end].ravel() for axis in index], -1) for end in (group.p, group.q))
        yield from zip(map(tuple, p), map(tuple, q), group.weight.ravel(), strict=True)


def energies_of(energy, labelings):
    """The energies by the oracle; the method ``energy`` must agree for some labelings."""
    matrix = None if isinstance(energy.compatibility, str) else energy.compatibility
    found = oracle.energies(
        *(labelings, energy.unary, list(edges_of(energy)), matrix),
        *(energy.label_costs, energy.sites.counted),
    )
    for k in range(0, len(labelings), 1 + len(labelings) // 20):
        assert energy.energy(labelings[k]) == pytest.approx(found[k], rel=1e-12, abs=1e-12)
    return found


def optimum(energy):
    """The least energy of all labelings that obey the seeds."""
    labelings = oracle.every_labeling(energy.shape, energy.n_labels)
    if energy.seeds is not None:
        certain = energy.seeds >= 0
        labelings = labelings[(labelings == energy.seeds)[:, certain].all(axis=1)]
    return energies_of(energy, labelings).min()


def problem(seed, n_labels, dtype=int, shape=(3, 3), **options):
    rng = np.random.default_rng(seed)
    unary, weights = case(rng, shape, n_labels, dtype)
    costs = rng.integers(0, 25, n_labels) if dtype is int else rng.uniform(0, 25, n_labels)
    i = rng.integers(0, 9, 3)
    listed = (i, (i + rng.integers(1, 9, 3)) % 9, rng.integers(1, 5, 3).astype(dtype))
    terms = [EdgeTerm(weights), EdgeTerm(listed)]
    return Energy(unary, terms, label_costs=costs, **options)


@pytest.mark.parametrize("dtype", [int, float])
@pytest.mark.parametrize("n_labels", [2, 3])
@pytest.mark.parametrize("seeded", [False, True])
def test_results_lie_between_the_bound_and_the_guarantee(n_labels, dtype, seeded):
    seeds = np.full((3, 3), -1)
    seeds[1, 1] = n_labels - 1
    for seed in range(6):
        energy = problem(seed, n_labels, dtype, seeds=seeds if seeded else None)
        least = optimum(energy)
        for moves in ("expansion", "swap"):
            found = solve_cuts(energy, moves=moves)
            slack = 0 if dtype is int else 1e-9
            assert found.lower_bound <= least + slack
            assert found.energy >= least - slack
            assert found.energy == pytest.approx(energy.energy(found.labels), rel=1e-12)
            assert (np.diff(found.energies) <= 0).all()
            if n_labels == 2:
                assert found.energy == pytest.approx(least, rel=slack)
                assert found.lower_bound == found.energy
            elif moves == "expansion":
                assert found.energy <= 2 * least + energy.label_costs.sum() + slack
            if seeded:
                assert found.labels[1, 1] == n_labels - 1


def test_four_labels_on_a_grid():
    for seed in range(2):
        unary, weights = case(np.random.default_rng(seed), (2, 4), 4)
        energy = Energy(unary, [EdgeTerm(weights)], label_costs=[3, 1, 4, 1])
        found, least = solve_cuts(energy), optimum(energy)
        assert found.lower_bound <= least <= found.energy <= 2 * least + 9


@pytest.mark.parametrize("solver", ["numba", "pymaxflow"])
@pytest.mark.parametrize("shape", [(3, 4), (1, 9)])
def test_two_labels_with_label_costs_are_solved_exactly(shape, solver):
    """Joined terms of near neighbors stay a grid, which the grid's own kernel cuts."""
    if solver == "pymaxflow":
        pytest.importorskip("maxflow")
    for seed in range(12):
        rng = np.random.default_rng(seed)
        unary, weights = case(rng, shape, 2, connectivity=2)
        more = {(0, -1): rng.integers(0, 3, (shape[0], shape[1] - 1))}
        terms = [EdgeTerm(weights), EdgeTerm(more)]
        energy = Energy(unary, terms, label_costs=rng.integers(0, 30, 2))
        assert all(group.offset is not None for group in energy.edges)
        assert len(energy.edges) == len(weights)
        found = solve_cuts(energy, solver=solver)
        assert found.energy == found.lower_bound == optimum(energy)
        assert found.energy == energy.energy(found.labels)


@pytest.mark.parametrize("potts", [True, False])
def test_every_move_with_label_costs_is_the_best_of_all_moves(potts):
    steps = np.abs(np.subtract.outer(np.arange(3), np.arange(3)))
    labelings = oracle.every_labeling((9,), 3)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        unary, weights = case(rng, (3, 3), 3)
        costs, counted = rng.integers(0, 20, 3), rng.random(9) < 0.8
        whole = Energy(
            np.where(counted.reshape(3, 3, 1), unary, 0),
            [EdgeTerm(weights)],
            label_costs=costs,
            compatibility="potts" if potts else steps,
            valid=counted.reshape(3, 3),
        )
        energies = energies_of(whole, labelings.reshape(-1, 3, 3))
        graph = EnergyGraph.build(*edge_list(whole.edges, (3, 3)), whole.unary.reshape(9, 3))
        graph = graph._replace(
            costs_of_set=PresenceCosts(costs),
            counted=counted,
            cost=None if potts else steps.astype(np.int64),
        )
        start = rng.integers(0, 3, 9).astype(np.int32)
        for alpha in range(3):
            reached = ((labelings == start) | (labelings == alpha)).all(axis=1)
            moved = expand(graph, start, alpha)
            assert graph.energy(moved) == energies[reached].min()
        for pair in ((0, 1), (0, 2), (1, 2)):
            free = np.isin(labelings, pair) & np.isin(start, pair)
            reached = ((labelings == start) | free).all(axis=1)
            assert graph.energy(swap(graph, start, *pair)) == energies[reached].min()


STEPS = np.abs(np.subtract.outer(np.arange(3), np.arange(3)))


def moved_to(labelings, labels, moves):
    """Whether each labeling is one expansion, or one swap, away from ``labels``."""
    same = labelings == labels
    if moves == "expansion":
        reached = [same | (labelings == label) for label in range(3)]
    else:
        pairs = [(0, 1), (0, 2), (1, 2)]
        reached = [same | (np.isin(labelings, pair) & np.isin(labels, pair)) for pair in pairs]
    return np.any([each.all(axis=(1, 2)) for each in reached], axis=0)


@pytest.mark.parametrize("compatibility", ["potts", STEPS])
@pytest.mark.parametrize("moves", ["expansion", "swap"])
def test_converged_means_that_no_further_move_lowers_the_energy(moves, compatibility):
    labelings = oracle.every_labeling((3, 3), 3)
    for seed in range(12):
        unary, weights = case(np.random.default_rng(seed), (3, 3), 3)
        energy = Energy(unary, [EdgeTerm(weights)], compatibility=compatibility)
        energies = energies_of(energy, labelings)
        found = solve_cuts(energy, moves=moves, max_iter=100)
        assert found.converged
        assert found.energy == energy.energy(found.labels)
        assert found.lower_bound <= energies.min()
        assert energies[moved_to(labelings, found.labels, moves)].min() == found.energy


@pytest.mark.parametrize("compatibility", ["potts", STEPS])
@pytest.mark.parametrize("moves", ["expansion", "swap"])
@pytest.mark.parametrize("seeded", [False, True])
def test_moves_start_from_init_but_for_the_seeds(moves, compatibility, seeded):
    seeds = np.full((3, 3), -1)
    seeds[0, 1], seeds[2, 2] = 2, 0
    init = np.ones((3, 3), int)
    start = np.where(seeds >= 0, seeds, init) if seeded else init
    unary, weights = case(np.random.default_rng(0), (3, 3), 3)
    energy = Energy(
        unary,
        [EdgeTerm(weights)],
        compatibility=compatibility,
        seeds=seeds if seeded else None,
    )
    found = solve_cuts(energy, moves=moves, init=init)
    assert found.energies[0] == energy.energy(start)
    assert found.energies[-1] == found.energy < found.energies[0]
    if seeded:
        np.testing.assert_array_equal(found.labels[seeds >= 0], [2, 0])


def test_one_sweep_is_the_least():
    unary, weights = case(np.random.default_rng(0), (3, 3), 3)
    energy = Energy(unary, [EdgeTerm(weights)])
    found = solve_cuts(energy, max_iter=1, init=np.zeros((3, 3), int))
    assert (found.n_iter, len(found.energies)) == (1, 2)
    with pytest.raises(ValueError, match="max_iter=0"):
        solve_cuts(energy, max_iter=0)


def test_grid_region_and_label_costs_go_to_cuts_together(rng):
    regions = np.kron(np.arange(8).reshape(2, 4), np.ones((3, 3), int))
    image = rng.integers(0, 256, (6, 12, 3)).astype(np.uint8)
    energy = Energy(
        rng.normal(0, 4, (8, 3)),
        [GridTerm(0.5, connectivity=2), RegionTerm(0.3)],
        image=image,
        regions=regions,
        label_costs=[2.0, 1.0, 3.0],
    )
    found, least = solve_cuts(energy), optimum(energy)
    assert found.lower_bound <= least + 1e-9
    assert least - 1e-9 <= found.energy <= solved_by_mean_field(energy) + 1e-9
    assert found.energy == pytest.approx(energy.energy(found.labels))


def solved_by_mean_field(energy):
    return energy.energy(solve_mean_field(energy, n_iter=100).marginals.argmax(axis=-1))


@pytest.mark.parametrize("n_labels", [1, 2, 3])
def test_no_terms_leave_the_cheapest_labels(rng, n_labels):
    energy = Energy(rng.normal(0, 1, (4, 5, n_labels)))
    np.testing.assert_array_equal(solve_cuts(energy).labels, energy.cheapest())
    flat = Energy(rng.normal(0, 1, (7, n_labels)), label_costs=np.zeros(n_labels))
    np.testing.assert_array_equal(solve_cuts(flat).labels, flat.cheapest())


def test_label_costs_that_cost_nothing_change_nothing():
    for n_labels in (2, 4):
        unary, weights = case(np.random.default_rng(n_labels), (12, 15), n_labels)
        plain = graph_cut(unary, weights)
        free = solve_cuts(Energy(unary, [EdgeTerm(weights)], label_costs=np.zeros(n_labels, int)))
        assert free.energy <= 1.02 * plain.energy
        assert free.lower_bound <= plain.energy
        assert free.energy == int(free.energy)


def test_seeds_hold_against_label_costs():
    unary = np.zeros((3, 4, 3), int)
    seeds = np.full((3, 4), -1)
    seeds[0, 0], seeds[2, 3] = 1, 2
    energy = Energy(unary, [GridTerm(3.0, contrast=None)], seeds=seeds, label_costs=[50, 900, 900])
    found = solve_cuts(energy)
    assert (found.labels[0, 0], found.labels[2, 3]) == (1, 2)
    assert set(np.unique(found.labels)) == {1, 2}
    assert 1800 <= found.lower_bound <= optimum(energy) <= found.energy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_costs": [-1.0, 0.0]}, "label_costs holds -1; minimum cuts need costs >= 0"),
        ({"label_costs": [2**62, 2**62]}, "integers whose sum may reach"),
        ({"terms": [EdgeTerm([np.full((1, 3), -1), np.zeros((2, 2))])]}, "weights holds -1"),
        (
            {
                "unary": np.zeros((2, 3, 3), int),
                "compatibility": 2**40 * STEPS,
                "terms": [EdgeTerm(([0], [1], [2**30]))],
            },
            "integers whose sum may reach",
        ),
    ],
)
def test_terms_that_no_cut_minimizes_are_named(changes, message):
    given = {"unary": np.zeros((2, 3, 2), int), "terms": [EdgeTerm(([0], [1], [2]))]} | changes
    with pytest.raises(ValueError, match=message):
        solve_cuts(Energy(given.pop("unary"), given.pop("terms"), **given))


@pytest.mark.parametrize("n_labels", [1, 2, 3])
def test_label_costs_keep_their_fractions_beside_integers(n_labels):
    unary = np.array([[0, 1, 2], [1, 0, 2], [1, 1, 0]])[:, :n_labels]
    energy = Energy(unary, [EdgeTerm(([0], [1], [1]))], label_costs=[0.9] * n_labels)
    found = solve_cuts(energy)
    assert found.energy == pytest.approx(energy.energy(found.labels))
    assert found.energy == pytest.approx(optimum(energy))


def test_initial_labels_may_be_void_where_not_valid(rng):
    valid = np.array([[True, False], [True, True]])
    unary = rng.normal(0, 1, (2, 2, 3))
    energy = Energy(unary, [GridTerm(1.0, contrast=None)], valid=valid)
    found = solve_cuts(energy, init=[[0, -1], [2, 1]])
    assert found.energy == pytest.approx(optimum(energy))
    with pytest.raises(ValueError, match="init holds values from -1"):
        solve_cuts(energy, init=[[-1, 0], [2, 1]])
