"""The step between two labels equals its twin, with and without vectors."""

import numpy as np
import pytest

from hybridseg.kernels.dense import two_labels
from hybridseg.kernels.dense.dense_filter import tables_for
from hybridseg.kernels.dense.mean_field import Steps
from hybridseg.kernels.dense.two_labels import advance_two
from tests.kernels.dense.points import EVERYTHING, filter_of
from tests.kernels.vectors.assembly import assembly_of, on_x86, products
from tests.oracles.dense import dense_filter
from tests.oracles.dense import two_labels as oracle


@pytest.mark.parametrize("n_points", [1, 31, 200])
def test_two_labels_equal_their_twin_and_the_general_step(vectors, n_points, rng):
    dense = filter_of(n_points)
    tables, table = tables_for(dense, 1), rng.random(dense.n_rows).astype(np.float32)
    table[-1] = 0
    tables.table[:, 0] = table
    fixed = (rng.standard_normal(n_points) * 30).astype(np.float32)
    before = rng.random(n_points).astype(np.float32)
    marginals = before.copy()
    change = advance_two(fixed, 2.0, dense, tables, EVERYTHING, marginals)
    expected = oracle.advance_two(fixed, 2.0, dense, table, EVERYTHING)
    np.testing.assert_allclose(marginals, expected, rtol=2e-5, atol=1e-6)
    assert change == pytest.approx(np.abs(expected - before).max(), abs=1e-5)
    found = tables.parts.sum(axis=0)
    spread = dense_filter.spread(dense, expected[:, np.newaxis] - 0.5)
    np.testing.assert_allclose(found, spread, rtol=1e-4, atol=1e-6)


@np.errstate(over="ignore")  # unused exponentials overflow
def test_two_labels_at_the_ends(vectors):
    dense = filter_of(4)
    fixed = np.array([-1e30, -70, 70, 1e30], np.float32)
    marginals = np.empty(4, np.float32)
    keep = Steps(read=False, spread=False, keep=True, compare=False)
    advance_two(fixed, 2.0, dense, tables_for(dense, 1), keep, marginals)
    np.testing.assert_array_equal(marginals, [0, 0, 1, 1])


@on_x86
def test_logistic_is_packed():
    packed, scalar = products(assembly_of(two_labels._logistic, np.zeros(32, np.float32)))
    assert packed >= 4
    assert scalar == 0
