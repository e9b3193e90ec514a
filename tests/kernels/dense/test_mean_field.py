"""Steps of mean field equal their twins, with and without vectors."""

import numba
import numpy as np
import pytest

from hybridseg.kernels.dense import mean_field as fast
from hybridseg.kernels.dense.dense_filter import DenseFilter, embed, tables_for
from hybridseg.kernels.dense.mean_field import Steps, advance
from tests.kernels.dense.points import EVERYTHING, filter_of
from tests.kernels.vectors.assembly import assembly_of, on_x86, products
from tests.oracles.dense import dense_filter, mean_field

POTTS = np.zeros((0, 0), np.float32)


def padded(matrix):
    width = -(-len(matrix) // fast.LANES) * fast.LANES
    out = np.zeros((len(matrix), width), np.float32)
    out[:, : len(matrix)] = matrix
    return out


@pytest.mark.parametrize("matrix", [False, True], ids=["potts", "matrix"])
@pytest.mark.parametrize("n_labels", [1, 2, 7, 8, 9, 21, 33])
@pytest.mark.parametrize("n_points", [1, 31, 200])
def test_step_equals_its_twin(vectors, n_points, n_labels, matrix, rng):
    dense = filter_of(n_points)
    tables = tables_for(dense, max(2, n_labels))
    rows = rng.random((dense.n_rows, n_labels)).astype(np.float32)
    rows[-1] = 0
    tables.table[:, :n_labels] = rows
    unary = (rng.standard_normal((n_points, n_labels)) * 10).astype(np.float32)
    before = rng.random((n_points, n_labels)).astype(np.float32)
    asked = rng.random((n_labels, n_labels)).astype(np.float32)
    marginals = before.copy()
    change = advance(
        unary, dense, tables, padded(asked) if matrix else POTTS, EVERYTHING, marginals
    )
    expected = mean_field.advance(unary, dense, rows, asked if matrix else None, EVERYTHING)
    np.testing.assert_allclose(marginals, expected, rtol=2e-5, atol=1e-6)
    np.testing.assert_allclose(marginals.sum(axis=1), 1, atol=1e-6)
    assert change == pytest.approx(np.abs(expected - before).max(), abs=1e-5)
    spread = tables.parts.sum(axis=0)[:, :n_labels]
    np.testing.assert_allclose(spread, dense_filter.spread(dense, expected), rtol=1e-4, atol=1e-6)
    assert (tables.parts[:, -1] == 0).all()


def test_skipped_steps_change_nothing(vectors, rng):
    dense = filter_of(100)
    tables = tables_for(dense, 5)
    tables.table[:] = np.nan
    tables.parts[:] = 7
    unary = rng.random((100, 5)).astype(np.float32)
    marginals = np.full((100, 5), -1, np.float32)
    nothing = Steps(read=False, spread=False, keep=False, compare=False)
    assert advance(unary, dense, tables, POTTS, nothing, marginals) == 0
    assert (marginals == -1).all()
    assert (tables.parts == 7).all()
    advance(unary, dense, tables, POTTS, nothing._replace(keep=True), marginals)
    np.testing.assert_allclose(marginals, mean_field.softmax(-unary.astype(float)), atol=1e-6)


def test_extreme_costs_give_zeros_and_ones(vectors):
    dense, unary = filter_of(3), np.zeros((3, 4), np.float32)
    unary[0], unary[1, 2], unary[2, :2] = 1e30, -1e30, 1e4
    marginals = np.empty((3, 4), np.float32)
    keep = Steps(read=False, spread=False, keep=True, compare=False)
    advance(unary, dense, tables_for(dense, 4), POTTS, keep, marginals)
    expected = [[0.25] * 4, [0, 0, 1, 0], [0, 0, 0.5, 0.5]]
    np.testing.assert_allclose(marginals, expected, atol=1e-6)


def test_steps_do_not_depend_on_the_number_of_threads(rng):
    dense = filter_of(3000)
    unary = rng.random((3000, 9)).astype(np.float32)
    n_threads, found = numba.get_num_threads(), []
    try:
        for n in (1, n_threads):
            numba.set_num_threads(n)
            tables = tables_for(dense, 9)
            steps = Steps(read=False, spread=True, keep=False, compare=False)
            advance(unary, dense, tables, POTTS, steps, unary)
            found.append(tables.parts)
    finally:
        numba.set_num_threads(n_threads)
    np.testing.assert_array_equal(*found)


@on_x86
@pytest.mark.parametrize("name", ["_softmax", "_ask"])
def test_inner_loops_are_packed(name):
    buffer = np.zeros(32 * 24, np.float32)
    matrix = np.zeros((21, 24), np.float32)
    arguments = {
        "_softmax": (32, 24, buffer),
        "_ask": (32, buffer, matrix, buffer.copy()),
    }[name]
    packed, scalar = products(assembly_of(getattr(fast, name), *arguments))
    assert packed >= 4
    assert scalar == 0


def test_a_filter_of_no_lattice_sends_no_messages(vectors):
    dense = embed([], 40)
    assert isinstance(dense, DenseFilter)
    assert dense.n_rows == 1
    unary = np.random.default_rng(0).random((40, 3)).astype(np.float32)
    marginals = np.empty_like(unary)
    tables = tables_for(dense, 3)
    advance(unary, dense, tables, POTTS, EVERYTHING._replace(compare=False), marginals)
    np.testing.assert_allclose(marginals, mean_field.softmax(-unary.astype(float)), atol=1e-6)
