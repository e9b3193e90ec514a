"""Structured SVMs: the optimum of a general solver, bounds, and a dual that never falls."""

import numpy as np
import pytest
from scipy.optimize import minimize

from hybridseg.learning.max_margin import Dual, max_margin

CENTER, LOWER = np.array([1.0, 0.2, 0.0]), np.array([0.05, 0.0, -np.inf])


def blocks(seed, n_blocks=5, n_labelings=12, size=3):
    """Planes of a few blocks: losses from 0 to 1, and 0 for the truth."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(n_blocks):
        losses = random.random((n_labelings, 1))
        planes = np.hstack([losses, random.normal(size=(n_labelings, size))])
        found.append(np.vstack([np.zeros(1 + size), planes]))
    return found


def largest_of(planes):
    def oracle(point):
        return planes[(planes[:, 0] + planes[:, 1:] @ point).argmax()]

    return oracle


def objective(planes, point, alpha, center=CENTER):
    hinges = [(each[:, 0] + each[:, 1:] @ point).max() for each in planes]
    return alpha / 2 * ((point - center) ** 2).sum() + np.mean(hinges)


def quadratic_program(planes, alpha):
    """The optimum with one slack for each block and one constraint for each labeling."""
    size, n = len(CENTER), len(planes)
    constraints = [
        {
            "type": "ineq",
            "fun": lambda x, each=each, i=i: x[size + i] - each[:, 0] - each[:, 1:] @ x[:size],
        }
        for i, each in enumerate(planes)
    ]
    return minimize(
        lambda x: alpha / 2 * ((x[:size] - CENTER) ** 2).sum() + x[size:].mean(),
        np.concatenate([CENTER, np.full(n, 9.0)]),
        constraints=constraints,
        bounds=[(low, None) for low in LOWER] + [(None, None)] * n,
        method="SLSQP",
        options={"maxiter": 1000, "ftol": 1e-13},
    )


def learned(planes, alpha, **options):
    settings = {"max_iter": 300, "tol": 1e-7} | options
    oracles = [largest_of(each) for each in planes]
    return max_margin(
        oracles, CENTER, LOWER, alpha=alpha, random=np.random.RandomState(0), **settings
    )


@pytest.mark.parametrize("alpha", [0.02, 0.1, 1.0, 10.0])
@pytest.mark.parametrize("seed", range(4))
def test_it_finds_the_optimum_of_a_quadratic_program(seed, alpha):
    planes = blocks(seed)
    expected = quadratic_program(planes, alpha)
    assert expected.success
    found = learned(planes, alpha)
    assert found.converged
    np.testing.assert_allclose(found.point, expected.x[:3], atol=2e-3)
    assert objective(planes, found.point, alpha) == pytest.approx(expected.fun, abs=1e-5)
    assert found.duals[-1] == pytest.approx(expected.fun, abs=1e-5)
    assert found.primals[-1] == pytest.approx(expected.fun, abs=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_the_dual_never_falls_and_is_a_lower_bound(seed):
    planes = blocks(seed, n_blocks=8, n_labelings=30)
    found = learned(planes, 0.05)
    assert (np.diff(found.duals) >= -1e-12).all()
    random = np.random.default_rng(seed)
    for _ in range(50):
        point = np.maximum(LOWER, found.point + random.normal(size=3))
        assert objective(planes, point, 0.05) >= found.duals[-1] - 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_every_single_step_raises_the_dual(seed):
    planes = blocks(seed)
    random = np.random.default_rng(seed)
    dual = Dual(len(planes), CENTER, LOWER, 0.03)
    before = dual.value()
    for _ in range(60):
        block = int(random.integers(len(planes)))
        if random.random() < 0.5:
            position = dual.add(block, largest_of(planes[block])(dual.point()))
            dual.towards(block, position)
        else:
            dual.exchange(block, dual.point())
        assert dual.value() >= before - 1e-12
        before = dual.value()
        for weights in dual.weights:
            assert weights.sum() == pytest.approx(1)
            assert (weights >= 0).all()
        mean = np.mean([dual.mean_plane(i) for i in range(len(planes))], axis=0)
        np.testing.assert_allclose(dual.total, mean, atol=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_a_step_has_the_best_length(seed):
    random = np.random.default_rng(seed)
    dual = Dual(2, CENTER, LOWER, 0.4)
    dual.total = random.normal(size=4)
    direction = random.normal(size=4)
    step = dual._step(direction, 1.0)
    start = dual.total.copy()
    values = []
    for length in np.linspace(0, 1, 2001):
        dual.total = start + length * direction
        values.append(dual.value())
    dual.total = start + step * direction
    assert dual.value() >= max(values) - 1e-12
    assert 0 <= step <= 1


def test_points_stay_within_their_bounds():
    """Planes that ask for negative parameters: the bounds hold, exactly, at every call."""
    seen = []

    def oracle(point):
        seen.append(point.copy())
        return np.array([1.0, 3.0, 2.0, 1.0])

    found = max_margin(
        [oracle] * 3, CENTER, LOWER, alpha=0.1, max_iter=20, random=np.random.RandomState(0)
    )
    assert (np.array([*seen, found.point]) >= LOWER).all()
    np.testing.assert_array_equal(found.point[:2], LOWER[:2])
    # The last one has no bound: it moves to where the margin holds.
    assert found.point[2] == pytest.approx(-1.15)


def test_one_sweep_returns_the_mean_of_points_and_many_a_lower_objective():
    planes = blocks(0)
    early, late = (learned(planes, 0.02, max_iter=n, tol=0.0) for n in (1, 60))
    assert not early.converged
    assert len(early.duals) == 1
    assert objective(planes, late.point, 0.02) < objective(planes, early.point, 0.02)


def test_without_a_violated_margin_the_point_is_the_center():
    planes = [np.array([[0.0, 0, 0, 0], [0.5, -1.0, 0, 0]])] * 3  # a margin of 1 - 0.5
    found = learned(planes, 0.1)
    np.testing.assert_allclose(found.point, CENTER)
    assert found.converged
    assert found.duals == (0.0,)


def test_an_oracle_that_finds_less_still_gives_a_lower_bound():
    planes = blocks(1)
    random = np.random.default_rng(0)

    def weak(each):
        def oracle(point):
            some = each[random.permutation(len(each))[:4]]
            return largest_of(some)(point)

        return oracle

    found = max_margin(
        [weak(each) for each in planes],
        *(CENTER, LOWER),
        alpha=0.1,
        max_iter=30,
        tol=0.0,
        random=np.random.RandomState(0),
    )
    best = quadratic_program(planes, 0.1).fun
    assert (np.diff(found.duals) >= -1e-12).all()
    assert found.duals[-1] <= best + 1e-9
    assert objective(planes, found.point, 0.1) >= best - 1e-9


def test_the_same_seed_gives_the_same_and_sweeps_are_noted():
    planes, notes = blocks(2), []
    first = learned(planes, 0.05, note=lambda number, primal: notes.append((number, primal)))
    second = learned(planes, 0.05)
    np.testing.assert_array_equal(first.point, second.point)
    assert [primal for _, primal in notes] == list(first.primals)
    assert [number for number, _ in notes] == list(range(len(notes)))
