"""The places of points and the links of vertices equal those by a dictionary of coordinates."""

import os
import subprocess
import sys

import numba
import numpy as np
import pytest

from hybridseg.kernels.dense import lattice_build
from hybridseg.kernels.dense.simplices import N_CACHE_LINES
from tests.kernels.dense.points import FEATURES, image_features
from tests.oracles.dense import lattice_build as oracle
from tests.oracles.lattice import apply, build_by_kernels


@pytest.fixture(params=FEATURES)
def features(request):
    return FEATURES[request.param](np.random.default_rng(0))


def placed(features):
    """The vertex numbers and weights of the points, and the state of the placement."""
    shape = len(features), features.shape[1] + 1
    vertices, weights = np.empty(shape, np.int32), np.empty(shape, features.dtype)
    return vertices, weights, lattice_build.place_points(features, vertices, weights)


@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 1e-6), (np.float64, 1e-10)])
def test_placed_points_equal_the_dictionary(features, dtype, atol):
    before = features.copy()
    numbers, shares, ours = placed(features.astype(dtype))
    vertices, weights, vertex_keys = oracle.place_points(features)
    np.testing.assert_array_equal(numbers, vertices)
    np.testing.assert_allclose(shares, weights, rtol=0, atol=atol)
    assert ours.keys.shape[1] == len(vertex_keys) == len(np.unique(ours.keys.T, axis=0))
    remainders = ours.keys[0] & ((1 << features.shape[1].bit_length()) - 1)
    np.testing.assert_array_equal(remainders, vertex_keys[:, 0] % (features.shape[1] + 1))
    np.testing.assert_array_equal(features, before)


def test_neighbors_of_placed_points_equal_the_dictionary(features):
    ours = placed(features)[2]
    n_vertices = ours.n_vertices
    found = np.zeros((features.shape[1] + 1, n_vertices, 2), np.int32)
    lattice_build.link_neighbors(ours, n_vertices + 7, 5, found)
    expected = oracle.link_neighbors(oracle.place_points(features)[2])
    expected = np.where(expected == n_vertices, n_vertices + 7, expected + 5)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["one point", "rgb", "two words"])
def test_read_only_points_that_do_not_lie_close_together(name):
    features = FEATURES[name](np.random.default_rng(0))
    spaced = np.zeros((2 * len(features), features.shape[1]), np.float32)[::2]
    spaced[:] = features
    spaced.flags.writeable = False
    for one, other in zip(placed(spaced)[:2], placed(features)[:2], strict=True):
        np.testing.assert_array_equal(one, other)


def test_corners_surround_their_point(features):
    """Barycentric coordinates satisfy their definition, with the elevation matrix written out."""
    n_dims = features.shape[1]
    corners, _ = oracle.simplices(features)
    weights = build_by_kernels(features.astype(np.float64)).weights
    matrix = np.array(
        [
            [1.0 if i <= j else -i if i == j + 1 else 0.0 for j in range(n_dims)]
            for i in range(n_dims + 1)
        ]
    )
    lengths = np.linalg.norm(matrix, axis=0)
    lifted = features.astype(np.float64) @ (matrix / lengths).T * (n_dims + 1) * np.sqrt(2 / 3)
    blended = (weights[..., np.newaxis] * corners).sum(axis=1)
    np.testing.assert_allclose(blended, lifted, atol=1e-6 * (1 + np.abs(lifted).max()))
    assert weights.min() >= -1e-9
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-9)


def test_neighbors_lead_back(features):
    lattice = build_by_kernels(features)
    for along in lattice.neighbors:
        present = np.flatnonzero(along[:, 0] < lattice.n_vertices)
        np.testing.assert_array_equal(along[along[present, 0], 1], present)


@pytest.mark.compiled
@pytest.mark.parametrize("n_channels", [0, 3])
def test_one_thread_equals_two(n_channels):
    if numba.get_num_threads() == 1:
        pytest.skip("numba has one thread only")
    features = image_features(
        np.random.default_rng(3), (180, 200), n_channels, width=5.0, color=30.0
    )
    assert len(features) > 2 * lattice_build.MIN_POINTS_PER_THREAD
    results = []
    n_threads = numba.get_num_threads()
    try:
        for n in (1, n_threads):
            numba.set_num_threads(n)
            results.append(build_by_kernels(features))
    finally:
        numba.set_num_threads(n_threads)
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_table_grows_past_its_first_size():
    rng = np.random.default_rng(4)
    features = (rng.random((900, 2)) * 100).astype(np.float32)
    lattice = build_by_kernels(features)
    assert lattice.n_vertices > 2048
    np.testing.assert_array_equal(lattice.vertices, oracle.place_points(features)[0])


def test_a_direct_table_equals_the_hash_table(monkeypatch):
    features = FEATURES["grid"](np.random.default_rng(0))
    direct = placed(features)
    assert len(direct[2].direct) > 0
    monkeypatch.setattr(lattice_build, "MAX_DIRECT_ENTRIES", 0)
    hashed = placed(features)
    assert len(hashed[2].direct) == 0
    for one, other in zip(direct[:2], hashed[:2], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(direct[2].keys, hashed[2].keys)


@pytest.mark.compiled
def test_simplices_that_share_a_line_do_not_mix():
    """More simplices than cache lines occur, and each occurs again after its line was replaced."""
    rng = np.random.default_rng(6)
    features = (rng.random((20_000, 3)) * 40).astype(np.float32)
    twice = np.concatenate([features, features])
    vertices, weights, _ = placed(twice)
    np.testing.assert_array_equal(vertices[:20_000], vertices[20_000:])
    np.testing.assert_array_equal(weights[:20_000], weights[20_000:])
    assert len(np.unique(vertices, axis=0)) > 1.5 * N_CACHE_LINES


def test_keys_need_more_words_in_high_dimensions():
    strides = {
        name: placed(FEATURES[name](np.random.default_rng(0)))[2].strides
        for name in ("rgb", "seven channels", "ten channels", "two words", "three words")
    }
    words = {name: len(each) for name, each in strides.items()}
    assert words["rgb"] == words["seven channels"] == words["ten channels"] == 1
    assert strides["ten channels"].max() > 2**53  # sums of keys are not exact in float64
    assert words["two words"] > 1
    assert words["three words"] > words["rgb"] + 1


def test_points_are_placed_in_columns_of_larger_arrays():
    features = FEATURES["rgb"](np.random.default_rng(0))
    expected_vertices, expected_weights, _ = placed(features)
    vertices = np.full((len(features), 10), -1, np.int32)
    weights = np.full((len(features), 10), np.nan, np.float32)
    lattice_build.place_points(features, vertices, weights, 3, 100)
    np.testing.assert_array_equal(vertices[:, 3:9], expected_vertices + 100)
    np.testing.assert_array_equal(weights[:, 3:9], expected_weights)
    for rest in (slice(0, 3), slice(9, 10)):
        assert (vertices[:, rest] == -1).all()
        assert np.isnan(weights[:, rest]).all()


@pytest.mark.parametrize("n_dims", [1, 2, 3])
def test_impulse_spreads_like_a_gaussian(n_dims):
    """Away from borders the filter is a Gaussian of standard deviation 1, but for a factor."""
    step = 0.25
    axis = np.arange(-4, 4 + step / 2, step)
    points = np.stack(np.meshgrid(*[axis] * n_dims, indexing="ij"), axis=-1).reshape(-1, n_dims)
    # impulses in a whole cell, so that the position of the simplices does not matter
    near = np.abs(points).max(axis=1) <= 0.5
    found = apply(build_by_kernels(points), near[:, np.newaxis].astype(float))[:, 0]
    squares = ((points[:, np.newaxis] - points[near]) ** 2).sum(axis=-1)
    wanted = np.exp(-squares / 2).sum(axis=1)
    found /= found.sum()
    wanted /= wanted.sum()
    assert np.abs(found - wanted).sum() < 0.2  # total variation below 0.1
    variance = (found[:, np.newaxis] * points**2).sum(axis=0)
    np.testing.assert_allclose(variance, (wanted[:, np.newaxis] * points**2).sum(axis=0), rtol=0.1)


def test_nothing_warns_where_nothing_is_compiled():
    code = (
        "import numpy as np; from tests.oracles.lattice import build_by_kernels; "
        "build_by_kernels(np.random.default_rng(0).random((20, 5)) * 9)"
    )
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr


def test_the_largest_features_that_are_allowed():
    features = np.random.default_rng(0).uniform(-1e12, 1e12, (50, 5)).astype(np.float32)
    lattice = build_by_kernels(features)
    assert lattice.n_vertices > 200
    np.testing.assert_allclose(lattice.weights.sum(axis=1), 1, atol=1e-2)
