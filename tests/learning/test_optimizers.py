"""Optimizers reach the minimum of functions whose minimum is known."""

import numpy as np
import pytest

from hybridseg.learning.optimizers import adam, lbfgs

TARGET = np.array([1.5, -0.7, 0.0])


def bowl(point, _step):
    away = (point - TARGET) * [1.0, 10.0, 0.1]
    return float(away @ away), 2 * away * [1.0, 10.0, 0.1]


def banana(point, _step):
    """The function of Rosenbrock (1960), least at (1, 1)."""
    x, y = point
    gradient = [-400 * x * (y - x * x) - 2 * (1 - x), 200 * (y - x * x)]
    return 100 * (y - x * x) ** 2 + (1 - x) ** 2, np.array(gradient)


def test_adam_reaches_the_minimum_at_any_scale_of_the_axes():
    noted = []
    found = adam(bowl, np.zeros(3), 200, 0.1, lambda step, loss: noted.append((step, loss)))
    np.testing.assert_allclose(found, TARGET, atol=0.1)
    assert [step for step, _ in noted] == list(range(200))
    assert noted[-1][1] < noted[0][1] / 100


def test_adam_averages_out_noise():
    random = np.random.default_rng(0)

    def noisy(point, step):
        loss, gradient = bowl(point, step)
        return loss, gradient + random.standard_normal(3) * [1.0, 50.0, 0.05]

    found = adam(noisy, np.zeros(3), 300, 0.1, lambda *_: None)
    np.testing.assert_allclose(found[:2], TARGET[:2], atol=0.2)


def test_one_step_of_adam_moves_each_parameter_by_the_rate():
    found = adam(bowl, np.zeros(3), 1, 0.1, lambda *_: None)
    np.testing.assert_allclose(found, [0.1, -0.1, 0.0], atol=1e-6)


@pytest.mark.parametrize(
    ("function", "start", "least"),
    [(bowl, np.zeros(3), TARGET), (banana, np.array([-1.0, 1.0]), np.ones(2))],
)
def test_lbfgs_reaches_the_minimum(function, start, least):
    noted = []
    found = lbfgs(function, start, 100, lambda step, loss: noted.append((step, loss)))
    np.testing.assert_allclose(found, least, atol=1e-3)
    assert [step for step, _ in noted] == list(range(len(noted)))


def test_lbfgs_returns_the_best_point_that_it_saw():
    """A loss with steps may rise along the line search."""
    seen = {}

    def rough(point, step):
        loss, gradient = bowl(np.round(point, 1), step)
        seen[tuple(point)] = loss
        return loss, gradient

    found = lbfgs(rough, np.zeros(3), 20, lambda *_: None)
    assert seen[tuple(found)] == min(seen.values())
