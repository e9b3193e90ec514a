import numpy as np
import pytest

from hybridseg.inference.cuts.dynamic_cut import DynamicCut
from hybridseg.inference.cuts.graph_cut import graph_cut
from hybridseg.pairwise import energy
from tests.inference.cuts.test_grid_cuts import CASES, problem


def assert_same(found, unary, weights, seeds=None, exact=False):
    cold = graph_cut(unary, weights, seeds=seeds)
    np.testing.assert_array_equal(found.labels, cold.labels)
    assert found.energy == pytest.approx(cold.energy, rel=0 if exact else 1e-12, abs=1e-12)
    assert found.lower_bound == found.energy
    assert found.converged


@pytest.mark.parametrize(("shape", "connectivity"), CASES)
@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64])
def test_every_cut_equals_a_cold_one(shape, connectivity, dtype):
    unary, weights = problem(shape, connectivity, 0, dtype)
    rng = np.random.default_rng(0)
    cut = DynamicCut(weights)
    assert cut.shape == shape
    for step in range(6):
        seeds = rng.integers(-5, 2, shape) if step % 2 else None
        assert_same(cut.solve(unary, seeds), unary, weights, seeds, dtype is np.int64)
        change = rng.integers(-20, 20, unary.shape) * (rng.random(unary.shape) < 0.2)
        unary = (unary + change).astype(dtype)
    assert cut.n_cuts == 6


@pytest.mark.parametrize("n_changed", [1, 3, 60])
def test_few_changes_and_many(n_changed):
    """The forest is repaired after few clicks and grown anew after many; clicks come and go."""
    shape = (16, 20)
    unary, weights = problem(shape, 1, 9)
    weights = {o: 3 * w for o, w in weights.items()}
    rng = np.random.default_rng(9)
    cut = DynamicCut(weights)
    for step in range(20):
        seeds = np.full(shape, -1)
        seeds.ravel()[rng.choice(seeds.size, n_changed, replace=False)] = step % 2
        assert_same(cut.solve(unary, seeds), unary, weights, seeds, exact=True)
        assert_same(cut.solve(unary), unary, weights, exact=True)


@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_nothing_drifts_in_200_changes(dtype):
    """The costs are tenths and sevenths, which floats round; large costs come and go."""
    rng = np.random.default_rng(1)
    shape = (14, 17)
    unary, weights = problem(shape, 2, 1)
    if dtype is np.float64:
        unary, weights = unary / 10, {o: w / 7 for o, w in weights.items()}
    cut = DynamicCut(weights)
    for step in range(200):
        changed = unary.copy()
        if step % 3:
            changed[rng.random(shape) < 0.3] *= 10 ** (step % 7)
        seeds = rng.integers(-9, 2, shape) if step % 5 == 0 else None
        assert_same(cut.solve(changed, seeds), changed, weights, seeds, dtype is np.int64)


def test_seeds_and_costs_are_not_remembered():
    unary, weights = problem((8, 9), 1, 2)
    cut = DynamicCut(weights)
    first = cut.solve(unary)
    everywhere = cut.solve(unary, np.ones((8, 9), int))
    assert (everywhere.labels == 1).all()
    np.testing.assert_array_equal(
        cut.solve(unary[:, ::-1]).labels, graph_cut(unary[:, ::-1], weights).labels
    )
    again = cut.solve(unary)
    np.testing.assert_array_equal(again.labels, first.labels)
    assert again.energy == first.energy


@pytest.mark.parametrize("strengths", [(0.25, 0.5, 1, 2.0, 8.0), (8.0, 1, 0.125)])
def test_a_sweep_over_the_strength(strengths):
    unary, weights = problem((9, 11), 2, 3)
    cut = DynamicCut(weights)
    for strength in strengths:
        scaled = {o: w * strength for o, w in weights.items()}
        found = cut.solve(unary, strength=strength)
        assert_same(found, unary, scaled, exact=True)
    third = cut.solve(unary, strength=1 / 3)
    scaled = {o: w / 3 for o, w in weights.items()}
    assert third.energy == pytest.approx(graph_cut(unary, scaled).energy, rel=1e-13)
    assert third.energy == pytest.approx(energy(third.labels, unary, scaled), rel=1e-13)


def test_integer_and_real_costs_in_turns():
    unary, weights = problem((7, 8), 1, 4)
    cut = DynamicCut(list(weights.values()))
    for costs in (unary, unary * 0.3, unary.astype(np.float32), unary * 2**40):
        assert_same(cut.solve(costs), costs, weights)


def test_walls_are_cut_in_floats():
    unary, weights = problem((7, 8), 1, 5, np.float64)
    weights[1, 0][3, 4] = 1e25
    cut = DynamicCut(weights)
    for seed in range(3):
        costs = unary + np.random.default_rng(seed).normal(size=unary.shape)
        assert_same(cut.solve(costs), costs, weights)
        doubled = {o: 2 * w for o, w in weights.items()}
        strong = cut.solve(costs, strength=2)
        np.testing.assert_array_equal(strong.labels, graph_cut(costs, doubled).labels)


def test_input_is_not_changed():
    unary, weights = problem((6, 7), 2, 6)
    seeds = np.full((6, 7), -1)
    for array in (unary, seeds, *weights.values()):
        array.setflags(write=False)
    cut = DynamicCut(weights)
    first = cut.solve(unary, seeds)
    kept = first.labels.copy()
    cut.solve(-unary)
    np.testing.assert_array_equal(first.labels, kept)


AXES = [np.ones((2, 4)), np.ones((3, 3))]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (3.0, "weights is a float; expected one array for each axis"),
        ([], "weights is a list; expected one array for each axis"),
        ([np.ones(3)], "the first array of weights has shape"),
        (([0], [1], [2.0]), "the first array of weights has shape"),
        ({(0, 1): np.ones(3)}, "the first array of weights has shape"),
        ({1: np.ones((3, 3))}, "the first array of weights has shape"),
        ([AXES[0], np.ones((3, 4))], r"weights\[.*\] has shape \(3, 4\); expected \(3, 3\)"),
        ([AXES[0], -AXES[1]], "weights holds -1; .*submodular"),
        ([AXES[0], np.full((3, 3), np.nan)], "holds NaN or infinite weights"),
        ({(0, 2): np.ones((3, 2))}, r"weights holds the offsets \[\(0, 2\)\]; .*one step"),
    ],
)
def test_bad_weights_are_named(weights, message):
    with pytest.raises((TypeError, ValueError), match=message):
        DynamicCut(weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unary": np.zeros((3, 5, 2))}, r"unary has shape \(3, 5, 2\); expected \(3, 4, L\)"),
        ({"unary": np.zeros((3, 4, 3))}, "unary has 3 labels; expected 2"),
        ({"unary": np.full((3, 4, 2), np.nan)}, "unary holds NaN or infinite"),
        ({"seeds": np.full((3, 4), 2)}, "seeds holds 2; expected label indices"),
        ({"seeds": np.zeros((4, 3), int)}, "seeds has shape"),
        ({"strength": 0}, "strength=0"),
        ({"strength": "much"}, "strength='much'"),
    ],
)
def test_bad_input_is_named(arguments, message):
    cut = DynamicCut(AXES)
    with pytest.raises((TypeError, ValueError), match=message):
        cut.solve(**({"unary": np.zeros((3, 4, 2))} | arguments))
    assert cut.n_cuts == 0  # the flow did not change
    whole = DynamicCut([np.ones((2, 4), int), np.ones((3, 3), int)])
    with pytest.raises(ValueError, match="integers whose sum may reach"):
        whole.solve(np.full((3, 4, 2), 2**61))
