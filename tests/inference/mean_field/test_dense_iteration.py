"""The changes and energies that the iteration on lattices records."""

import itertools

import numpy as np
import pytest

from hybridseg.inference.mean_field.dense_iteration import iterate
from hybridseg.kernels.dense.dense_filter import embed


@pytest.mark.parametrize("tol", [0.0, 1e-6])
@pytest.mark.parametrize("n_labels", [2, 3])
def test_the_record_sees_what_fewer_iterations_return(rng, n_labels, tol):
    lattices = embed([rng.normal(0, 1, (50, 2)).astype(np.float32)], 50)
    unary = rng.normal(0, 1, (50, n_labels)).astype(np.float32)
    weights, matrix = np.array([2.0], np.float32), 1.0 - np.eye(n_labels)

    def run(n_iter, record=None):
        return iterate(lattices, weights, unary, matrix, n_iter, tol, unary, record)

    seen = []
    marginals, changes, made = run(4, lambda rows: seen.append(rows.copy()))
    assert made == 4
    assert len(seen) == 5
    for n_iter, rows in enumerate(seen):
        np.testing.assert_array_equal(rows, run(n_iter)[0])
    np.testing.assert_array_equal(seen[-1], marginals)
    expected = [np.abs(b - a).max() for a, b in itertools.pairwise(seen)]
    np.testing.assert_allclose(changes, expected if tol else [], atol=1e-6)
