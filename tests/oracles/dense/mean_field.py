"""Mean field with kernel matrices (N, N) written out, in float64."""

from __future__ import annotations

import numpy as np

from tests.oracles import lattice


def softmax(scores):
    raised = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return raised / raised.sum(axis=-1, keepdims=True)


def advance(unary, dense, table, compatibility, steps):
    """One pass on points (n, L) with a table (rows, L): the new marginals."""
    scores = -np.asarray(unary, dtype=np.float64)
    if steps.read:
        messages = (dense.weights[..., np.newaxis] * table[dense.vertices]).sum(axis=1)
        asked = -np.eye(unary.shape[1]) if compatibility is None else compatibility
        scores = scores - messages @ asked
    return softmax(scores)


def gaussian_matrix(features):
    """The matrix exp(-|f_i - f_j|^2 / 2) of all pairs, including i = j."""
    features = np.asarray(features, dtype=np.float64)
    squares = ((features[:, np.newaxis] - features[np.newaxis]) ** 2).sum(axis=-1)
    return np.exp(-squares / 2)


def lattice_matrix(features):
    """The lattice's approximation of the same matrix."""
    return lattice.apply(lattice.build(features), np.eye(len(features)))


def normalized(matrix):
    norm = 1 / np.sqrt(matrix.sum(axis=1))
    return norm[:, np.newaxis] * matrix * norm


def mean_field(unary, terms, compatibility, n_iter):
    """Marginals by algorithm 1 of Krähenbühl and Koltun (2011).

    ``unary`` is (N, L), ``terms`` are pairs (weight, matrix) of normalized kernel matrices.
    """
    marginals = softmax(-np.asarray(unary, dtype=np.float64))
    for _ in range(n_iter):
        messages = np.zeros_like(marginals)
        for weight, matrix in terms:
            messages += weight * (matrix @ marginals)
        marginals = softmax(-unary - messages @ compatibility)
    return marginals


def dense_energy(labels, unary, terms, compatibility):
    """The energy, pair by pair."""
    labels = np.ravel(labels)
    total = sum(float(cost[label]) for cost, label in zip(unary, labels, strict=True))
    for i in range(len(labels)):
        for j in range(i + 1, len(labels)):
            pays = compatibility[labels[i], labels[j]]
            total += sum(weight * pays * matrix[i, j] for weight, matrix in terms)
    return total
