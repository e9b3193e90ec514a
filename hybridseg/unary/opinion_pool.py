"""The logarithmic opinion pool: a weighted mix of the costs of several models, and its learning."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from hybridseg.scene.costs import MIN_PROBABILITY

#: The largest cost of a label in a mix. No model can rule a label out for all others.
MAX_COST = float(-np.log(MIN_PROBABILITY))
#: The maximum number of iterations of the optimizer. Fewer than a hundred are usual.
_MAX_ITERATIONS = 1000


def normalized_costs(costs: NDArray[Any]) -> NDArray[np.float32]:
    """Turn costs ``(..., L)`` into ``-log(p)`` of their softmax, at most ``-log(1e-4)``."""
    lowest = costs.min(axis=-1, keepdims=True)
    with np.errstate(over="ignore"):  # an infinite difference gets the largest cost
        found = np.subtract(costs, lowest, dtype=np.float32)
    found += np.log(np.exp(-found).sum(axis=-1, keepdims=True))
    return np.minimum(found, np.float32(MAX_COST), out=found)


def pool_objective(
    weights: NDArray[np.float64],
    bias: NDArray[np.float64],
    costs: NDArray[Any],
    targets: NDArray[np.integer[Any]],
    sample_weight: NDArray[np.float64],
    alpha: float,
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Return the loss of a pool and its gradients by the weights and the bias.

    The loss is the mean negative log-likelihood plus ``alpha / 2`` times the squared distance of
    the weights from ``1 / M`` and of the bias from zero. It is convex.

    Parameters
    ----------
    weights : ndarray, (M, L)
    bias : ndarray, (L,)
    costs : ndarray, (M, n, L)
        The normalized costs of each model for each pixel.
    targets : ndarray of int, (n,)
        The true class of each pixel, 0..L-1.
    sample_weight : ndarray, (n,)
        The weights of the pixels, which sum to one.
    alpha : float
        The strength of the regularization.

    Returns
    -------
    loss : float
    by_weights : ndarray, (M, L)
    by_bias : ndarray, (L,)
    """
    scores = -np.einsum("mnl,ml->nl", costs, weights) - bias
    scores -= scores.max(axis=1, keepdims=True)
    proba = np.exp(scores)
    totals = proba.sum(axis=1, keepdims=True)
    rows = np.arange(len(targets))
    loss = sample_weight @ (np.log(totals[:, 0]) - scores[rows, targets])
    proba /= totals
    proba[rows, targets] -= 1
    proba *= sample_weight[:, np.newaxis]
    apart = weights - 1 / len(weights)
    loss += alpha / 2 * ((apart**2).sum() + (bias**2).sum())
    by_weights = alpha * apart - np.einsum("mnl,nl->ml", costs, proba)
    return float(loss), by_weights, alpha * bias - proba.sum(axis=0)


def fit_pool(
    costs: NDArray[Any],
    targets: NDArray[np.integer[Any]],
    *,
    sample_weight: NDArray[np.float64] | None = None,
    alpha: float = 1e-3,
    per_class: bool = True,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Learn the weights of a pool, at least zero, by maximum likelihood with L-BFGS-B.

    Parameters
    ----------
    costs : ndarray, (M, n, L)
        The normalized costs of each model for each pixel.
    targets : ndarray of int, (n,)
        The true class of each pixel, 0..L-1.
    sample_weight : ndarray, (n,), optional
        The weights of the pixels.
    alpha : float
        The strength of the regularization; see :func:`pool_objective`.
    per_class : bool
        False: one weight per model, and no bias. The distance from ``1 / M`` then counts once per
        model instead of once per class.

    Returns
    -------
    weights : ndarray, (M, L)
    bias : ndarray, (L,)
    """
    n_models, n_pixels, n_labels = costs.shape
    doubles = costs.astype(np.float64)
    shares = np.ones(n_pixels) if sample_weight is None else sample_weight.astype(np.float64)
    shares = shares / shares.sum()
    n_weights = n_models * n_labels if per_class else n_models

    def parts(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Split the vector of the optimizer into weights and bias."""
        weights = values[:n_weights].reshape(n_models, -1)
        full = np.broadcast_to(weights, (n_models, n_labels))
        return full, values[n_weights:] if per_class else np.zeros(n_labels)

    def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        # With tied weights, each distance from 1 / M is counted once per class: divide by L.
        strength = alpha if per_class else alpha / n_labels
        found, by_weights, by_bias = pool_objective(
            *parts(values), doubles, targets, shares, strength
        )
        if per_class:
            return found, np.concatenate([by_weights.ravel(), by_bias])
        return found, by_weights.sum(axis=1)

    start = np.full(n_weights, 1 / n_models)
    limits: list[tuple[float | None, None]] = [(0.0, None)] * n_weights
    if per_class:
        start = np.concatenate([start, np.zeros(n_labels)])
        limits += [(None, None)] * n_labels
    options = {"maxiter": _MAX_ITERATIONS, "maxfun": 10 * _MAX_ITERATIONS, "ftol": 1e-12}
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=limits, options={**options, "gtol": 1e-7}
    )
    weights, bias = parts(found.x)
    return weights.copy(), bias.copy()
