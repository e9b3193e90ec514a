"""All solvers with costs of label sets: against all labelings, against label costs, and laws."""

import numpy as np
import pytest

from hybridseg import CRF, Scene
from hybridseg.inference import free_energy, solve_cuts, solve_mean_field
from hybridseg.inference.cuts.moves import energy_graph as graph_of
from hybridseg.inference.cuts.moves import expand, swap
from hybridseg.pairwise import (
    BilateralKernel,
    CoOccurrence,
    EdgeTerm,
    Energy,
    GaussianKernel,
    GridTerm,
    LabelCosts,
)
from tests.inference.cuts.problems import case
from tests.oracles import energy as oracle


def set_costs(rng, n_labels, dtype=int, most=25):
    costs = rng.integers(0, most, (n_labels, n_labels)) * (rng.random((n_labels, n_labels)) < 0.8)
    costs = costs * (1 if dtype is int else rng.random(costs.shape))
    return (np.triu(costs) + np.triu(costs, 1).T).astype(dtype)


def problem(seed, n_labels, dtype=int, shape=(3, 3), **options):
    rng = np.random.default_rng(seed)
    unary, weights = case(rng, shape, n_labels, dtype)
    return Energy(
        unary, [EdgeTerm(weights), CoOccurrence(set_costs(rng, n_labels, dtype), 2)], **options
    )


def energies(energy):
    """The energies of all labelings that obey the seeds, and these labelings, by the oracle."""
    labelings = oracle.every_labeling(energy.shape, energy.n_labels)
    if energy.seeds is not None:
        certain = energy.seeds >= 0
        labelings = labelings[(labelings == energy.seeds)[:, certain].all(axis=1)]
    counted = energy.sites.counted
    matrix = sum(t.label_set_costs(energy.n_labels) for t in energy.terms if t in paying(energy))
    edged = [term for term in energy.terms if term not in paying(energy)]
    edges = [e for term in edged for e in oracle.grid_edges(term.weights, energy.shape)]
    if counted is not None:
        edges = [(p, q, w) for p, q, w in edges if counted[p] and counted[q]]
    found = oracle.energies(labelings, energy.unary, edges)
    seen = np.ones(energy.shape, bool) if counted is None else counted
    sets = [oracle.cost_of_set(labels[seen], matrix) for labels in labelings]
    found = found + np.array(sets)
    for k in range(0, len(labelings), 1 + len(labelings) // 20):
        assert energy.energy(labelings[k]) == pytest.approx(found[k], rel=1e-12, abs=1e-12)
    return found, labelings


def paying(energy):
    return [term for term in energy.terms if isinstance(term, CoOccurrence | LabelCosts)]


@pytest.mark.parametrize("dtype", [int, float])
@pytest.mark.parametrize("given", ["nothing", "seeds", "valid"])
@pytest.mark.parametrize("shape", [(3, 4), (1, 9), (2, 2, 2)])
def test_two_labels_are_solved_exactly(shape, given, dtype):
    for seed in range(8):
        rng = np.random.default_rng(seed)
        options = {}
        if given == "seeds":
            options["seeds"] = np.where(rng.random(shape) < 0.2, rng.integers(0, 2, shape), -1)
        if given == "valid":
            options["valid"] = rng.random(shape) < 0.7
        energy = problem(seed, 2, dtype, shape, **options)
        found, (every, _) = solve_cuts(energy), energies(energy)
        if dtype is int:
            assert found.energy == found.lower_bound == every.min()
        assert found.energy == pytest.approx(every.min(), rel=1e-9, abs=1e-9)
        assert found.energy == pytest.approx(energy.energy(found.labels), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("dtype", [int, float])
@pytest.mark.parametrize("given", ["nothing", "seeds", "valid"])
@pytest.mark.parametrize("moves", ["expansion", "swap"])
def test_three_labels_lie_between_bound_and_start(moves, given, dtype):
    n_best, slack = 0, 0 if dtype is int else 1e-9
    for seed in range(8):
        rng = np.random.default_rng(seed)
        shape, options = (3, 3), {}
        if given == "seeds":
            options["seeds"] = np.where(rng.random(shape) < 0.2, rng.integers(0, 3, shape), -1)
        if given == "valid":
            options["valid"] = rng.random(shape) < 0.7
        energy = problem(seed, 3, dtype, **options)
        every, labelings = energies(energy)
        found = solve_cuts(energy, moves=moves)
        assert found.lower_bound <= every.min() + slack
        assert found.energy >= every.min() - slack
        assert found.energy == pytest.approx(energy.energy(found.labels), rel=1e-12)
        assert (np.diff(found.energies) <= 0).all()
        assert found.converged
        if given != "seeds":  # every label everywhere is a start
            assert found.energy <= min(energy.energy(np.full(shape, k)) for k in range(3)) + slack
        if given == "seeds":
            certain = energy.seeds >= 0
            assert (found.labels == energy.seeds)[certain].all()
        if dtype is int and given != "valid":  # a mask turns the costs into floats
            assert found.lower_bound == int(found.lower_bound)
        n_best += found.energy <= every.min() + slack
        start = labelings[-1]
        again = solve_cuts(energy, moves=moves, init=start, max_iter=1)
        assert again.energy <= energy.energy(start) + slack
    assert n_best >= 5


@pytest.mark.parametrize("dtype", [int, float])
def test_an_expansion_is_at_most_what_either_sum_allows(dtype):
    """No move that a label leaves alone, and no move that the overestimate allows, is better."""
    for seed in range(10):
        rng = np.random.default_rng(seed)
        unary, weights = case(rng, (2, 4), 4, dtype)
        matrix = set_costs(rng, 4, dtype)
        energy = Energy(unary, [EdgeTerm(weights), CoOccurrence(matrix)])
        graph = graph_of(energy.unary, energy.edges, None)
        graph = graph._replace(
            costs_of_set=energy.presence_costs.astype(graph.weight.dtype), counted=np.ones(8, bool)
        )
        start = rng.integers(0, 4, 8).astype(np.int32)
        before = graph.energy(start)
        for alpha in range(4):
            options = oracle.every_labeling((8,), 2)
            options = np.where(options == 1, alpha, start).astype(np.int32)
            moved = expand(graph, start, alpha)
            assert set(np.unique(moved[moved != start])) <= {alpha}
            found = graph.energy(moved)
            assert found <= before
            halves = [overestimate(graph, matrix, start, labels, alpha) for labels in options]
            slack = 0 if dtype is int else 1e-9
            assert found <= min(halves) + slack
            others = set(start.tolist()) - {alpha}
            if len(others) < 2:
                assert found == pytest.approx(min(graph.energy(labels) for labels in options))
        for pair in ((0, 1), (1, 3)):
            free = np.isin(start, pair)
            every = oracle.every_labeling((8,), 2)
            options = np.where(free, np.take(pair, every), start).astype(np.int32)
            best = min(graph.energy(labels) for labels in options)
            assert graph.energy(swap(graph, start, *pair)) == pytest.approx(best)


def overestimate(graph, matrix, start, labels, alpha):
    """The energy of a move, in which a pair that one label leaves still pays for the other."""
    left = set(start.tolist()) - set(labels.tolist()) - {alpha}
    stay = (set(start.tolist()) & set(labels.tolist())) - {alpha}
    paid = 0
    for a in left:
        for b in stay:
            half = matrix[a, b] // 2 if matrix.dtype.kind == "i" else matrix[a, b] / 2
            paid += half if b > a else matrix[a, b] - half
    return graph.energy(labels) + paid


def test_two_labels_that_exclude_a_third_leave_together():
    """Labels 1 and 2 exclude label 0 and each other."""
    unary = np.full((1, 8, 3), 9)
    unary[0, :6, 0] = 0
    unary[0, 6] = [4, 0, 9]
    unary[0, 7] = [4, 9, 0]
    apart = CoOccurrence([[0, 5, 5], [5, 0, 3], [5, 3, 0]])
    found = solve_cuts(Energy(unary, [apart]))
    assert found.labels.tolist() == [[0] * 8]
    assert found.energy == 8
    kept = solve_cuts(Energy(unary, [CoOccurrence([[0, 1, 1], [1, 0, 1], [1, 1, 0]])]))
    assert kept.labels.tolist() == [[0] * 6 + [1, 2]]
    assert kept.energy == 3


@pytest.mark.parametrize("moves", ["expansion", "swap"])
@pytest.mark.parametrize("n_labels", [2, 3, 4])
def test_a_diagonal_equals_label_costs(n_labels, moves):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        unary, weights = case(rng, (3, 4), n_labels)
        costs = rng.integers(0, 20, n_labels)
        known = solve_cuts(Energy(unary, [EdgeTerm(weights)], label_costs=2 * costs), moves=moves)
        for term in (CoOccurrence(np.diag(costs), 2), LabelCosts(costs, 2.0)):
            found = solve_cuts(Energy(unary, [EdgeTerm(weights), term]), moves=moves)
            np.testing.assert_array_equal(found.labels, known.labels)
            assert (found.energies, found.lower_bound) == (known.energies, known.lower_bound)
        options = {"n_iter": 8}
        soft = solve_mean_field(Energy(unary, [EdgeTerm(weights)], label_costs=costs), **options)
        again = solve_mean_field(Energy(unary, [EdgeTerm(weights), LabelCosts(costs)]), **options)
        np.testing.assert_array_equal(again.marginals, soft.marginals)


def test_permuted_labels_give_permuted_results(rng):
    unary, image = rng.normal(0, 2, (5, 6, 3)), rng.integers(0, 256, (5, 6, 3)).astype(np.uint8)
    matrix, order = set_costs(rng, 3, float, 6), np.array([2, 0, 1])

    def solved(costs, pays):
        terms = [GridTerm(0.5), CoOccurrence(pays)]
        energy = Energy(costs, terms, image=image)
        soft = solve_mean_field(energy, n_iter=200, tol=1e-6).marginals
        return solve_cuts(energy).labels, soft

    hard, soft = solved(unary, matrix)
    hard_too, soft_too = solved(unary[..., order], matrix[np.ix_(order, order)])
    np.testing.assert_array_equal(order[hard_too], hard)
    np.testing.assert_allclose(soft_too, soft[..., order], atol=1e-4)


def test_regions_give_the_labels_of_their_pixels():
    for seed in range(6):
        rng = np.random.default_rng(seed)
        regions = np.repeat(np.arange(6).reshape(2, 3), 2, axis=1)
        unary = rng.integers(0, 12, (6, 3))
        term = CoOccurrence(set_costs(rng, 3))
        edges = EdgeTerm(([0, 1, 3, 4, 0, 1, 2], [1, 2, 4, 5, 3, 4, 5], rng.integers(0, 5, 7)))
        energy = Energy(unary, [edges, term], regions=regions)
        found = solve_cuts(energy)
        labelings = oracle.every_labeling((6,), 3)
        least = min(energy.energy(labels) for labels in labelings)
        assert found.lower_bound <= least <= found.energy == energy.energy(found.labels)
        pixels = np.where(np.eye(3, dtype=bool)[found.labels[regions]], 0, 1)
        spread = Energy(pixels, [term]).energy(found.labels[regions])
        assert spread == Energy(np.zeros((6, 3)), [term]).energy(found.labels)


def test_pairs_exclude_a_label_in_all_solvers(rng):
    """A label that some pixels prefer, and that does not occur beside the others."""
    unary = rng.gumbel([0.0, 0.0, 6.0], 0.3, (9, 11, 3))
    unary[:, :5, 1] += 4
    unary[:, 5:, 0] += 4
    unary[4, 5, 2] -= 9
    apart = np.array([[0.0, 0.0, 8.0], [0.0, 0.0, 8.0], [8.0, 8.0, 0.0]])
    for costs, kept in ((0 * apart, True), (apart, False)):
        energy = Energy(unary, [CoOccurrence(costs)])
        assert (2 in solve_cuts(energy).labels) == kept
        soft = solve_mean_field(energy, n_iter=100, tol=1e-5)
        assert soft.converged
        assert (2 in soft.marginals.argmax(axis=-1)) == kept


@pytest.mark.parametrize("masked", [False, True])
def test_fixed_points_have_a_free_energy_without_slope(rng, masked):
    """No change of the logarithm of one marginal changes it, but where no solver was."""
    valid = rng.random((3, 4)) < 0.8 if masked else None
    term = CoOccurrence(set_costs(rng, 3, float, 3))
    unary = rng.normal(0, 1, (3, 4, 3))
    energy = Energy(unary, [GridTerm(0.4, contrast=None), term], valid=valid, label_costs=[1, 0, 2])
    soft = solve_mean_field(energy, n_iter=3000, tol=1e-7)
    assert soft.converged

    def steepest(q):  # marginals are scaled to sum to one
        slopes = []
        for place in np.ndindex(*q.shape):
            low, high = (np.array(q, np.float64) for _ in range(2))
            low[place] *= np.exp(-0.02)
            high[place] *= np.exp(0.02)
            slopes.append((free_energy(energy, high) - free_energy(energy, low)) / 0.04)
        return np.abs(slopes).max()

    assert steepest(soft.marginals) < 1e-3
    assert steepest(rng.dirichlet(np.ones(3), (3, 4))) > 0.1


def test_the_free_energy_bounds_that_of_the_crf(rng):
    for _ in range(5):
        energy = Energy(rng.normal(0, 1, (2, 3, 3)), [CoOccurrence(set_costs(rng, 3, float, 4))])
        labelings = oracle.every_labeling((2, 3), 3)
        every = np.array([energy.energy(labels) for labels in labelings])
        found = solve_mean_field(energy, n_iter=50, with_energy=True)
        assert -oracle.log_partition(every) <= found.energies[-1]
        assert found.energies[-1] <= found.energies[0] + 1e-6
        sure = labelings[rng.integers(len(labelings))]
        assert free_energy(energy, np.eye(3)[sure]) == pytest.approx(energy.energy(sure), rel=1e-5)


def test_dense_kernels_and_label_sets_go_to_mean_field_together(rng):
    image = rng.integers(0, 256, (6, 7, 3)).astype(np.uint8)
    unary, valid = rng.normal(0, 1, (6, 7, 3)), rng.random((6, 7)) < 0.8
    terms = [GaussianKernel(0.7, 1.5), BilateralKernel(0.5, 3.0, 60.0)]
    term = CoOccurrence(set_costs(rng, 3, float, 4))
    energy = Energy(unary, [*terms, term], image=image, valid=valid)
    found = solve_mean_field(energy, n_iter=6, with_energy=True)
    assert len(found.energies) == 7
    np.testing.assert_allclose(found.marginals[~valid], 1 / 3, atol=1e-6)

    class Told:
        """The same messages from a term that the solver knows nothing of."""

        messages = staticmethod(term.messages)

    told = solve_mean_field(Energy(unary, [*terms, Told()], image=image, valid=valid), n_iter=6)
    np.testing.assert_allclose(told.marginals, found.marginals, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 1), (1,)])
@pytest.mark.parametrize("n_labels", [1, 2, 3])
def test_one_site(shape, n_labels):
    unary = np.arange(n_labels).reshape((1,) * len(shape) + (-1,))
    costs = 5 * np.ones((n_labels, n_labels), int) - 2 * np.eye(n_labels, dtype=int)
    energy = Energy(unary, [CoOccurrence(costs)])
    found = solve_cuts(energy)
    assert found.energy == found.lower_bound == 3
    soft = solve_mean_field(energy).marginals.ravel()
    assert soft.argmax() == 0
    assert soft.sum() == pytest.approx(1.0, rel=1e-5)


def test_seeds_hold_against_pairs():
    seeds = np.full((3, 4), -1)
    seeds[0, 0], seeds[2, 3] = 1, 2
    unary, _ = case(np.random.default_rng(0), (3, 4), 3)
    term = CoOccurrence([[50, 9, 9], [9, 1, 900], [9, 900, 1]])
    energy = Energy(unary, [GridTerm(3.0, contrast=None), term], seeds=seeds)
    found = solve_cuts(energy)
    assert set(np.unique(found.labels)) == {1, 2}
    assert 902 <= found.lower_bound <= found.energy
    soft = solve_mean_field(energy).marginals
    np.testing.assert_array_equal(soft[0, 0], [0, 1, 0])


@pytest.mark.parametrize(
    ("terms", "options", "message"),
    [
        ([CoOccurrence([[0, -1], [-1, 0]])], {}, "costs holds -1; minimum cuts need costs >= 0"),
        ([LabelCosts([0.0, -2.5])], {}, "costs holds -2.5; minimum cuts need"),
        ([LabelCosts([1])], {}, r"costs has shape \(1,\); expected 2"),
        ([CoOccurrence(np.full((2, 2), 2**62))], {}, "integers whose sum may reach"),
        ([CoOccurrence(np.eye(3))], {"label_costs": [1, 2]}, r"shape \(3, 3\); expected \(2, 2\)"),
    ],
)
def test_costs_that_no_cut_minimizes_are_named(terms, options, message):
    with pytest.raises(ValueError, match=message):
        solve_cuts(Energy(np.zeros((2, 3, 2), int), terms, **options))


def test_costs_beyond_float32_do_not_reach_mean_field():
    term = CoOccurrence(np.full((2, 2), 1e30))
    with pytest.raises(
        ValueError, match=r"label_set_costs\(n_labels\) of all terms holds a number"
    ):
        solve_mean_field(Energy(np.zeros((1, 2, 2)), [term]))


def test_rewards_reach_mean_field(rng):
    unary = np.tile([0.0, 0.1, 4.0], (1, 6, 1))
    reward = CoOccurrence([[0, 0, -6], [0, 0, 0], [-6, 0, 0]], 2)
    assert 2 not in solve_mean_field(Energy(unary)).marginals.argmax(axis=-1)
    unary[0, 0, 2] = 0.5
    found = solve_mean_field(Energy(unary, [reward]), n_iter=100, tol=1e-6)
    assert found.marginals[0, 0].argmax() == 2


def test_a_crf_learns_presence_from_its_training_maps(rng):
    """The rare label 2 never occurs beside label 1, but costs prefer it at some pixels."""
    maps = [rng.integers(0, 2, (6, 7)) for _ in range(20)]
    maps += [np.where(m == 1, 2, 0) for m in maps[:3]]
    logits = 4.0 * np.eye(3)[maps[0]] + rng.normal(0, 1, (6, 7, 3))
    logits[2, 3] = [0.0, 0.0, 5.0]
    scene = Scene.from_logits(np.zeros((6, 7, 3), np.uint8), logits)
    term = CoOccurrence.from_label_maps(maps, [0, 1, 2], weight=10.0)
    for solver in ("cuts", "mean_field"):
        plain, model = (CRF(terms, solver=solver) for terms in ([], [term]))
        assert 2 in plain.predict([scene])[0]
        assert 2 not in model.predict([scene])[0]
