"""The logarithmic opinion pool: its loss, its gradient and its minimum."""

import numpy as np
import pytest
from scipy.optimize import minimize

from hybridseg.unary.opinion_pool import MAX_COST, fit_pool, normalized_costs, pool_objective


def problem(rng, n_models=3, n_pixels=80, n_labels=4):
    targets = rng.integers(0, n_labels, n_pixels)
    logits = rng.normal(size=(n_models, n_pixels, n_labels))
    strengths = np.linspace(0.5, 3, n_models)
    logits[:, np.arange(n_pixels), targets] += strengths[:, np.newaxis]
    return normalized_costs(-logits), targets, rng.random(n_pixels) + 0.1


def plain_loss(weights, bias, costs, targets, sample_weight, alpha):
    """The same loss by plain loops."""
    n_models, n_pixels, n_labels = costs.shape
    total = 0.0
    for i in range(n_pixels):
        mixed = [
            bias[label] + sum(weights[m, label] * costs[m, i, label] for m in range(n_models))
            for label in range(n_labels)
        ]
        proba = np.exp(-np.array(mixed, dtype=float))
        total -= sample_weight[i] * np.log(proba[targets[i]] / proba.sum())
    return total + alpha / 2 * (((weights - 1 / n_models) ** 2).sum() + (bias**2).sum())


@pytest.mark.parametrize("shape", [(5,), (4, 3), (3, 4, 2)])
def test_normalized_costs_are_those_of_the_softmax(rng, shape):
    costs = rng.normal(size=(*shape, 6)).astype(np.float32) * 3 + 50
    proba = np.exp(-costs.astype(float))
    proba /= proba.sum(axis=-1, keepdims=True)
    found = normalized_costs(costs)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.minimum(-np.log(proba), MAX_COST), atol=1e-5)
    np.testing.assert_allclose(found, normalized_costs(costs - 1000), atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_normalized_costs_have_a_bound(dtype):
    costs = np.array([[0.0, 1e30], [-1e30, 1e30], [3.0, 3.0]], dtype)
    expected = [[0, MAX_COST], [0, MAX_COST], [np.log(2)] * 2]
    np.testing.assert_allclose(normalized_costs(costs), expected, atol=1e-6)


def test_the_loss_equals_plain_loops(rng):
    costs, targets, sample_weight = problem(rng)
    weights, bias = rng.random((3, 4)), rng.normal(size=4)
    found = pool_objective(weights, bias, costs, targets, sample_weight, 0.3)[0]
    assert found == pytest.approx(
        plain_loss(weights, bias, costs, targets, sample_weight, 0.3), rel=1e-9
    )


def test_the_gradient_equals_finite_differences(rng):
    costs, targets, sample_weight = problem(rng)
    weights, bias = rng.random((3, 4)), rng.normal(size=4)
    _, by_weights, by_bias = pool_objective(weights, bias, costs, targets, sample_weight, 0.3)
    step = 1e-6
    for values, gradient in ((weights, by_weights), (bias, by_bias)):
        for place in np.ndindex(values.shape):
            ends = []
            for sign in (1, -1):
                moved = values.copy()
                moved[place] += sign * step
                both = (moved, bias) if values is weights else (weights, moved)
                ends.append(pool_objective(*both, costs, targets, sample_weight, 0.3)[0])
            assert gradient[place] == pytest.approx((ends[0] - ends[1]) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("per_class", [True, False])
@pytest.mark.parametrize("alpha", [1e-3, 1.0])
def test_learned_weights_minimize_the_loss(rng, per_class, alpha):
    """Another optimizer, without gradients of ours, finds the same minimum."""
    costs, targets, sample_weight = problem(rng)
    shares = sample_weight / sample_weight.sum()
    n_models, _, n_labels = costs.shape

    def parts(values):
        if not per_class:
            return np.repeat(values[:, np.newaxis], n_labels, axis=1), np.zeros(n_labels)
        return values[: n_models * n_labels].reshape(n_models, n_labels), values[-n_labels:]

    def loss(values):
        weights, bias = parts(values)
        data = plain_loss_in_arrays(weights, bias, costs, targets, shares)
        own = values - np.where(np.arange(len(values)) < n_weights, 1 / n_models, 0)
        return data + alpha / 2 * (own**2).sum()

    n_weights = n_models * (n_labels if per_class else 1)
    n_values = n_weights + (n_labels if per_class else 0)
    bounds = [(0, None)] * n_weights + [(None, None)] * (n_values - n_weights)
    expected = minimize(loss, np.full(n_values, 0.2), method="SLSQP", bounds=bounds, tol=1e-12)
    weights, bias = fit_pool(
        costs, targets, sample_weight=sample_weight, alpha=alpha, per_class=per_class
    )
    wanted = parts(expected.x)
    np.testing.assert_allclose(weights, wanted[0], atol=5e-3)
    np.testing.assert_allclose(bias, wanted[1], atol=5e-3)
    assert (weights >= 0).all()


def plain_loss_in_arrays(weights, bias, costs, targets, shares):
    mixed = (weights[:, np.newaxis] * costs).sum(axis=0) + bias
    proba = np.exp(-mixed)
    proba /= proba.sum(axis=1, keepdims=True)
    return -(shares * np.log(proba[np.arange(len(targets)), targets])).sum()


@pytest.mark.parametrize("per_class", [True, False])
def test_regularization_pulls_to_equal_weights(rng, per_class):
    costs, targets, _ = problem(rng)
    weights, bias = fit_pool(costs, targets, alpha=1e6, per_class=per_class)
    np.testing.assert_allclose(weights, 1 / 3, atol=1e-4)
    np.testing.assert_allclose(bias, 0, atol=1e-4)


@pytest.mark.parametrize("per_class", [True, False])
def test_a_permutation_of_models_permutes_weights(rng, per_class):
    costs, targets, _ = problem(rng)
    weights, bias = fit_pool(costs, targets, per_class=per_class)
    order = [2, 0, 1]
    permuted, same = fit_pool(costs[order], targets, per_class=per_class)
    np.testing.assert_allclose(permuted, weights[order], atol=1e-3)
    np.testing.assert_allclose(same, bias, atol=1e-3)


def test_the_weight_of_pixels_counts_like_their_number(rng):
    costs, targets, _ = problem(rng, n_pixels=40)
    times = rng.integers(1, 4, 40)
    repeated = np.repeat(costs, times, axis=1), np.repeat(targets, times)
    one = fit_pool(costs, targets, sample_weight=times.astype(float), per_class=True)
    two = fit_pool(*repeated, per_class=True)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_random_costs_get_no_weight(rng):
    n_pixels = 4000
    targets = rng.integers(0, 3, n_pixels)
    good = rng.normal(size=(n_pixels, 3))
    good[np.arange(n_pixels), targets] += 2
    costs = normalized_costs(-np.stack([good, rng.normal(size=(n_pixels, 3))]))
    weights, _ = fit_pool(costs, targets, per_class=False)
    assert weights[0, 0] > 0.8
    assert weights[1, 0] < 0.05
    np.testing.assert_array_equal(weights, weights[:, :1].repeat(3, axis=1))
