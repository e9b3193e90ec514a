"""Rows that points read from tables and add to tables equal their twins."""

import numpy as np
import pytest

from hybridseg.kernels.dense import rows as fast
from hybridseg.kernels.vectors import simd as simd
from tests.kernels.dense.points import filter_of
from tests.kernels.vectors.assembly import assembly_of, on_x86, products
from tests.oracles.dense import rows as oracle


@pytest.mark.parametrize("width", [8, 24, 32, 40])
@pytest.mark.parametrize(("first", "count"), [(0, 1), (3, 32), (68, 32)])
def test_rows_of_several_points_equal_their_twins(first, count, width, rng):
    if not simd.ENABLED:
        pytest.skip("vectors are switched off")
    dense = filter_of(100)
    own = slice(first, first + count)
    table = rng.standard_normal((dense.n_rows, width)).astype(np.float32)
    before = rng.standard_normal((32, width)).astype(np.float32)
    buffer = before.ravel().copy()
    fast.read_rows(first, count, *dense[:2], table, buffer)
    expected = before.astype(np.float64)
    expected[:count] += oracle.read_rows(dense.vertices[own], dense.weights[own], table)
    np.testing.assert_allclose(buffer.reshape(32, width), expected, rtol=1e-4, atol=1e-5)

    parts = np.ones((2, dense.n_rows, width), np.float32)
    fast.spread_rows(first, count, *dense[:2], before.ravel(), parts, 1)
    rows = before[:count].astype(np.float64)
    added = oracle.spread_rows(dense.vertices[own], dense.weights[own], rows, dense.n_rows)
    np.testing.assert_allclose(parts[1], 1 + added, rtol=1e-4, atol=1e-5)
    assert (parts[0] == 1).all()


@pytest.mark.parametrize("n_labels", [1, 3, 21])
def test_the_row_of_one_point_equals_its_twins(n_labels, rng):
    dense = filter_of(10)
    table = rng.standard_normal((dense.n_rows, n_labels)).astype(np.float32)
    for vertices, weights in zip(dense.vertices, dense.weights, strict=True):
        row = np.ones(n_labels, np.float32)
        fast.read_row(vertices, weights, table, row)
        expected = 1 + oracle.read_row(vertices, weights, table)
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-5)
        part = np.zeros((dense.n_rows, n_labels), np.float32)
        fast.spread_row(vertices, weights, row, part)
        added = oracle.spread_row(vertices, weights, row.astype(np.float64), dense.n_rows)
        np.testing.assert_allclose(part, added, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("n_labels", "width"), [(1, 8), (8, 8), (11, 16), (21, 24)])
@pytest.mark.parametrize("n_rows", [0, 1, 7, 100])
def test_products_with_small_matrices_equal_their_twins(vectors, n_rows, n_labels, width, rng):
    left, right = rng.standard_normal((2, n_rows, width)).astype(np.float32)
    matrix = rng.standard_normal((n_labels, n_labels)).astype(np.float32)
    out = np.full((n_rows, width), np.nan, np.float32)
    left[:, n_labels:] = np.nan  # the padding is not used
    fast.multiply_rows(left, matrix, out)
    expected = oracle.multiply_rows(left, matrix)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-5)
    assert (out[:, n_labels:] == 0).all()
    products = fast.inner_products(left, right, n_labels)
    expected = oracle.inner_products(left, right, n_labels)
    np.testing.assert_allclose(products, expected, rtol=1e-4, atol=1e-4)
    fast.multiply_rows(left, matrix, left)
    np.testing.assert_array_equal(left, out)


@on_x86
@pytest.mark.parametrize("name", ["read_rows", "spread_rows"])
def test_loops_over_channels_are_packed(name):
    dense, buffer = filter_of(32), np.zeros(32 * 24, np.float32)
    table = np.zeros((dense.n_rows, 24), np.float32)
    own = {"read_rows": (table, buffer), "spread_rows": (buffer, table[np.newaxis], 0)}[name]
    packed, scalar = products(assembly_of(getattr(fast, name), 0, 32, *dense[:2], *own))
    assert packed >= 4
    assert scalar == 0
