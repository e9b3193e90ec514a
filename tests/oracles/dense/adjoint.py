"""Gradients of one iteration of mean field, slowly: in float64, by products and by differences."""

from __future__ import annotations

import numpy as np

from tests.oracles.dense import dense_filter
from tests.oracles.dense.lattice_build import simplices

STEP = 1e-6


def retreat(dense, marginals, given, table, scores):
    """Gradients of costs and of weights, and the spread gradient of the scores (rows, K).

    ``given`` is None where the gradient is read from ``table``; ``scores`` is None at the start.
    """
    marginals = marginals.astype(np.float64)
    corners = np.zeros(dense.weights.shape)
    if given is None:
        given = (dense.weights[..., np.newaxis] * table[dense.vertices]).sum(axis=1)
        corners += (table[dense.vertices] * marginals[:, np.newaxis]).sum(axis=-1)
    jacobians = np.array([np.diag(q) - np.outer(q, q) for q in marginals])
    gradient = np.einsum("iab,ib->ia", jacobians, given)
    if scores is None:
        return -gradient, corners, None
    corners += (scores[dense.vertices] * gradient[:, np.newaxis]).sum(axis=-1)
    return -gradient, corners, dense_filter.spread(dense, gradient)


def normalized_weights(dense, coordinates):
    """The weights of a filter of one lattice, from barycentric coordinates (n, d + 1)."""
    raw = dense._replace(weights=coordinates)
    sums = dense_filter.filtered(raw, [1.0], np.ones((len(coordinates), 1)))
    return coordinates / np.sqrt(sums)


def coordinate_gradient(dense, coordinates, corner_gradient):
    """The gradient (n, d + 1), by central differences of each coordinate."""
    gradient = np.zeros(coordinates.shape)
    for place in np.ndindex(coordinates.shape):
        sides = []
        for sign in (1, -1):
            moved = coordinates.copy()
            moved[place] += sign * STEP
            sides.append((normalized_weights(dense, moved) * corner_gradient).sum())
        gradient[place] = (sides[0] - sides[1]) / (2 * STEP)
    return gradient


def feature_gradient(features, corner_gradient):
    """The gradient (n, d), by central differences of each feature."""
    gradient = np.zeros(features.shape)
    for j in range(features.shape[1]):
        step = STEP * (np.arange(features.shape[1]) == j)
        ahead, behind = (simplices(features + sign * step)[1] for sign in (1, -1))
        gradient[:, j] = ((ahead - behind) * corner_gradient).sum(axis=1) / (2 * STEP)
    return gradient
