"""Gradients of mean field equal their twins; the transposed filter is the transpose."""

import numba
import numpy as np
import pytest

from hybridseg.kernels.dense import adjoint as fast
from hybridseg.kernels.dense.dense_filter import embed, tables_for
from tests.kernels.dense.points import FEATURES, filter_of
from tests.kernels.vectors.assembly import assembly_of, on_x86, products
from tests.oracles.dense import adjoint as oracle
from tests.oracles.dense import dense_filter
from tests.oracles.dense.lattice_build import simplices


def rows_of(dense, n_labels, rng):
    """A table whose last row is zero."""
    rows = rng.standard_normal((dense.n_rows, n_labels)).astype(np.float32)
    rows[-1] = 0
    return rows


def wide(rows, width):
    return np.pad(rows, [(0, 0), (0, width - rows.shape[1])])


@pytest.mark.parametrize("features", [False, True], ids=["without features", "with features"])
@pytest.mark.parametrize("where", ["last", "between", "first"])
@pytest.mark.parametrize("n_labels", [1, 2, 8, 9, 21, 33])
@pytest.mark.parametrize("n_points", [1, 31, 200])
def test_retreat_equals_its_twin(vectors, n_points, n_labels, where, features, rng):
    dense = filter_of(n_points)
    tables = tables_for(dense, max(2, n_labels))
    width = tables.table.shape[1]
    table, scores = rows_of(dense, n_labels, rng), rows_of(dense, n_labels, rng)
    tables.table[:] = wide(table, width)
    marginals = rng.dirichlet(np.ones(n_labels), n_points).astype(np.float32)
    given = rng.standard_normal((n_points, n_labels)).astype(np.float32)
    costs = np.ones_like(given)
    corners = np.ones((n_points if features else 0, dense.vertices.shape[1]), np.float32)
    fast.retreat(
        *(dense, marginals, given if where == "last" else given[:0], tables),
        *(wide(scores, width) if where != "first" else tables.table[:0], costs, corners),
    )
    expected = oracle.retreat(
        *(dense, marginals, given if where == "last" else None, table),
        scores if where != "first" else None,
    )
    np.testing.assert_allclose(costs, 1 + expected[0], rtol=1e-4, atol=2e-5)
    if features:
        np.testing.assert_allclose(corners, 1 + expected[1], rtol=1e-4, atol=5e-5)
    spread = tables.parts.sum(axis=0)
    if where == "first":
        assert (spread == 0).all()
    else:
        np.testing.assert_allclose(spread[:, :n_labels], expected[2], rtol=1e-4, atol=5e-5)
    assert (spread[:, n_labels:] == 0).all()
    assert (spread[-1] == 0).all()


def test_the_transposed_filter_is_the_transpose(rng):
    dense = filter_of(80)
    identity, scales = np.eye(80), [0.7, 1.9]
    matrix = dense_filter.filtered(dense, scales, identity)
    back = dense_filter.filtered(fast.transposed(dense), scales, identity)
    np.testing.assert_allclose(back, matrix.T, rtol=1e-6, atol=1e-9)
    assert abs(matrix - matrix.T).max() > 1e-4  # the blur alone is not symmetric


@pytest.mark.parametrize("lattice", [0, 1, 2])
def test_gradient_of_coordinates_equals_its_twin(lattice, rng):
    features = [rng.random((25, d)).astype(np.float32) * 3 for d in (1, 4, 2)]
    dense = embed(features, 25)
    given = rng.standard_normal(dense.weights.shape).astype(np.float32)
    found = fast.coordinate_gradient(dense, lattice, given)
    alone = dense_filter.embed([features[lattice].astype(np.float64)], 25)
    coordinates = simplices(features[lattice].astype(np.float64))[1]
    first = sum(each.shape[1] + 1 for each in features[:lattice])
    own = given[:, first : first + features[lattice].shape[1] + 1]
    expected = oracle.coordinate_gradient(alone, coordinates, own)
    # a constant added to all corners of a point changes nothing: coordinates sum to one
    found, expected = (g - g.mean(axis=1, keepdims=True) for g in (found, expected))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


#: Points on the border of a simplex have no gradient.
INSIDE = ["rgb", "gray", "seven channels", "clustered", "far from zero", "two words"]


@pytest.mark.parametrize("name", INSIDE)
def test_gradient_of_features_equals_its_twin(name, rng):
    features = FEATURES[name](rng)
    features += rng.random(features.shape).astype(np.float32) * np.float32(0.1)
    shares = simplices(features.astype(np.float64))[1]
    given = rng.standard_normal(shares.shape).astype(np.float32)
    found = fast.feature_gradient(features, given)
    expected = oracle.feature_gradient(features.astype(np.float64), given)
    inside = shares.min(axis=1) > 1e-4
    assert inside.mean() > 0.5
    np.testing.assert_allclose(found[inside], expected[inside], rtol=1e-3, atol=1e-4)


def test_gradients_do_not_depend_on_the_number_of_threads(rng):
    dense = filter_of(3000)
    marginals = rng.dirichlet(np.ones(9), 3000).astype(np.float32)
    given = rng.standard_normal((3000, 9)).astype(np.float32)
    n_threads, found = numba.get_num_threads(), []
    try:
        for n in (1, n_threads):
            numba.set_num_threads(n)
            tables, costs = tables_for(dense, 9), np.zeros_like(given)
            corners = np.zeros(dense.weights.shape, np.float32)
            fast.retreat(dense, marginals, given, tables, tables.table, costs, corners)
            found.append(tables.parts.sum(axis=0))
    finally:
        numba.set_num_threads(n_threads)
    np.testing.assert_array_equal(*found)


@on_x86
@pytest.mark.parametrize("name", ["_differentiate", "_match_rows"])
def test_inner_loops_are_packed(name):
    dense, buffer = filter_of(32), np.zeros(32 * 24, np.float32)
    arguments = {
        "_differentiate": (32, 24, buffer, buffer.copy()),
        "_match_rows": (
            *(0, 32, dense.vertices, np.zeros((dense.n_rows, 24), np.float32), buffer),
            np.zeros(dense.weights.shape, np.float32),
        ),
    }[name]
    packed, scalar = products(assembly_of(getattr(fast, name), *arguments))
    assert packed > 0
    assert scalar == 0
