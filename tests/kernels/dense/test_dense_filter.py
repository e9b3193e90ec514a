import numba
import numpy as np
import pytest

from hybridseg.kernels.dense import dense_filter as fast
from hybridseg.kernels.vectors import simd as simd
from tests.kernels.vectors.assembly import assembly_of, on_x86
from tests.oracles.dense import dense_filter as oracle
from tests.oracles.lattice import build_by_kernels

PROBLEMS = {
    "one point": [np.zeros((1, 2)), np.zeros((1, 5))],
    "one row": [np.arange(70)[:, np.newaxis] / 3],
    "constant": [np.zeros((50, 2)), np.full((50, 5), 0.3)],
    "two lattices": [(np.random.default_rng(n).random((200, n)) * 4) for n in (2, 5)],
    "three lattices": [(np.random.default_rng(n).random((90, n)) * 6) for n in (1, 3, 4)],
    "many a row": [np.random.default_rng(0).random((900, 2)) * 1.5],
    "none": [],
}


@pytest.fixture(params=PROBLEMS)
def problem(request):
    features = [f.astype(np.float32) for f in PROBLEMS[request.param]]
    n_points = len(features[0]) if features else 30
    return features, n_points, fast.embed(features, n_points)


def test_filter_equals_its_twin(problem):
    features, n_points, dense = problem
    expected = oracle.embed(features, n_points)
    for name in ("vertices", "links", "sections"):
        np.testing.assert_array_equal(getattr(dense, name), getattr(expected, name))
    np.testing.assert_allclose(dense.weights, expected.weights, rtol=2e-5, atol=1e-7)
    assert dense.weights.dtype == np.float32


@pytest.mark.parametrize("n_channels", [1, 2, 8, 21])
def test_tables_equal_their_twin(problem, n_channels):
    dense = problem[2]
    ours, theirs = fast.tables_for(dense, n_channels), oracle.tables_for(dense, n_channels)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)
        assert mine.dtype == np.float32
        assert mine.ctypes.data % simd.LINE == 0


def test_one_channel_equals_its_twin(problem, rng):
    features, n_points, dense = problem
    values = rng.random(n_points).astype(np.float32)
    scales = np.arange(1, len(features) + 1).astype(np.float32)
    tables = fast.tables_for(dense, 1)
    fast.spread_one(values, dense.vertices, dense.weights, tables.parts)
    summed = tables.parts.sum(axis=0)[:, 0]
    expected = oracle.spread_one(values, dense.vertices, dense.weights)
    np.testing.assert_allclose(summed[: len(expected)], expected, rtol=1e-4, atol=1e-6)
    assert (summed[len(expected) :] == 0).all()
    fast.smooth(dense, scales, tables)
    smoothed = oracle.smooth(dense, scales, oracle.spread(dense, values[:, np.newaxis]))
    np.testing.assert_allclose(tables.table, smoothed, rtol=1e-4, atol=1e-6)
    out = np.full(n_points, np.nan, np.float32)
    fast.read_one(dense.vertices, dense.weights, tables.table, out)
    expected = oracle.read_one(dense.vertices, dense.weights, smoothed[:, 0])
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-6)


def test_row_sums_equal_their_twin(problem):
    features, _, dense = problem
    scales = np.arange(1, len(features) + 1).astype(np.float32)
    found, expected = fast.total_weights(dense, scales), oracle.total_weights(dense, scales)
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("small", [0, 1 << 16])
@pytest.mark.parametrize("n_channels", [2, 11, 41])
@pytest.mark.parametrize("vectors", [False, True])
def test_smoothing_equals_its_twin(problem, n_channels, small, vectors, rng, monkeypatch):
    features, _, dense = problem
    monkeypatch.setattr(fast, "_MAX_VERTICES_OF_ONE_THREAD", small)
    monkeypatch.setattr(simd, "ENABLED", vectors and simd.ENABLED)
    scales = np.arange(1, len(features) + 1).astype(np.float32)
    tables = fast.tables_for(dense, n_channels)
    tables.parts[:] = rng.random(tables.parts.shape)
    tables.parts[:, -1] = 0
    expected = oracle.smooth(dense, scales, tables.parts.sum(axis=0, dtype=np.float64))
    fast.smooth(dense, scales, tables)
    np.testing.assert_allclose(tables.table, expected, rtol=1e-5, atol=1e-6)
    assert (tables.parts == 0).all()  # ready for the next spread


@pytest.mark.parametrize("n_channels", [1, 11])
def test_adding_up_and_blurring_equal_their_twins(problem, n_channels, rng):
    features, _, dense = problem
    scales = np.arange(1, len(features) + 1).astype(np.float32)
    tables = fast.tables_for(dense, n_channels)
    tables.parts[:] = rng.random(tables.parts.shape)
    tables.parts[:, -1] = 0
    expected = oracle.add_parts(dense, scales, tables.parts)
    fast.add_parts(dense, scales, tables)
    assert (tables.parts == 0).all()
    for lattice, (first, size, *_) in enumerate(dense.sections):
        rows = fast.rows_before_blur(dense, tables, lattice)
        np.testing.assert_allclose(rows, expected[first : first + size], rtol=1e-5)
    fast.blur(dense, tables)
    expected = oracle.blur(dense, expected)
    for lattice, (first, size, *_) in enumerate(dense.sections):
        rows = fast.rows_after_blur(dense, tables, lattice)
        np.testing.assert_allclose(rows, expected[first : first + size], rtol=1e-5)


def test_a_kernel_keeps_the_root_of_its_row_sums():
    """N^-1/2 K N^-1/2 applied to N^1/2 1 gives N^1/2 1."""
    features = (np.random.default_rng(0).random((300, 3)) * 5).astype(np.float32)
    lattice = build_by_kernels(features)
    dense = fast.embed([features], 300)
    roots = lattice.weights[:, :1] / dense.weights[:, :1]
    found = oracle.filtered(dense, [1.0], roots.astype(np.float64))
    np.testing.assert_allclose(found, roots, rtol=1e-4)


def test_parts_do_not_depend_on_the_number_of_threads():
    features = (np.random.default_rng(0).random((5000, 2)) * 9).astype(np.float32)
    n_threads = numba.get_num_threads()
    found = []
    try:
        for n in (1, n_threads):
            numba.set_num_threads(n)
            found.append(fast.total_weights(fast.embed([features], 5000), np.ones(1, np.float32)))
    finally:
        numba.set_num_threads(n_threads)
    np.testing.assert_array_equal(*found)


@on_x86
def test_smoothing_is_packed():
    dense = fast.embed([np.zeros((4, 2), np.float32)], 4)
    tables = fast.tables_for(dense, 8)
    code = assembly_of(
        fast._smooth_vectors, dense.links, 0, 0, 0, 3, 0, 8, 2, tables.table, tables.spare
    )
    packed = code.count("vfmadd231ps") + code.count("vfmadd213ps") + code.count("mulps")
    assert packed > 0
    assert code.count("vfmadd231ss") + code.count("vfmadd213ss") + code.count("mulss") == 0
