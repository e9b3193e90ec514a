import os
import subprocess
import sys

import numba
import numpy as np
import pytest

from hybridseg.kernels.dense import hashing as _hashing
from hybridseg.kernels.dense import lattice as fast
from hybridseg.kernels.dense import lattice_build
from hybridseg.kernels.dense import simplices as _simplices
from tests.oracles.dense import lattice as oracle


def picture(rng, shape=(9, 13), n_channels=3, width=4.0, color=20.0):
    grid = np.stack(np.indices(shape)[::-1], axis=-1) / width
    colors = rng.integers(0, 256, (*shape, n_channels)) / color
    return np.concatenate([grid, colors], axis=-1).reshape(-1, 2 + n_channels).astype(np.float32)


def stretched(n_dims, dim):
    return np.where(np.arange(n_dims) == dim, 1e5, 1).astype(np.float32)


FEATURES = {
    "one point": lambda rng: np.zeros((1, 5), np.float32),
    "one point far away": lambda rng: np.full((1, 2), -12345.6, np.float32),
    "constant": lambda rng: np.full((40, 3), 0.7, np.float32),
    "one dimension": lambda rng: np.arange(50, dtype=np.float32)[:, np.newaxis] / 3,
    "grid": lambda rng: picture(rng, n_channels=0),
    "grey": lambda rng: picture(rng, n_channels=1),
    "rgb": picture,
    "narrow rgb": lambda rng: picture(rng, width=1.0, color=1.0),
    "seven channels": lambda rng: picture(rng, n_channels=7),
    "ten channels": lambda rng: picture(rng, n_channels=10),
    "far apart at first": lambda rng: picture(rng, n_channels=9) * stretched(11, 0),
    "far apart later": lambda rng: picture(rng, n_channels=7) * stretched(9, 6),
    "two words": lambda rng: picture(rng, n_channels=20),
    "three words": lambda rng: picture(rng, (4, 5), n_channels=10, color=0.05),
    "far from zero": lambda rng: picture(rng, n_channels=4, color=0.3) + np.float32(30000),
    "clustered": lambda rng: rng.standard_normal((300, 4)).astype(np.float32),
}


@pytest.fixture(params=FEATURES)
def features(request):
    return FEATURES[request.param](np.random.default_rng(0))


def placed(features):
    """Numbers, weights and what else is known of the points' places."""
    shape = len(features), features.shape[1] + 1
    vertices, weights = np.empty(shape, np.int32), np.empty(shape, features.dtype)
    return vertices, weights, lattice_build.place_points(features, vertices, weights)


def values_for(features, n_channels=3, dtype=np.float32):
    return np.random.default_rng(1).random((len(features), n_channels)).astype(dtype)


def test_build_equals_the_dictionary(features):
    ours, theirs = fast.build(features), oracle.build(features)
    np.testing.assert_array_equal(ours.vertices, theirs.vertices)
    np.testing.assert_array_equal(ours.neighbours, theirs.neighbours)
    np.testing.assert_allclose(ours.weights, theirs.weights, rtol=0, atol=1e-6)


@pytest.mark.parametrize("reverse", [False, True])
def test_apply_equals_the_oracle(features, reverse):
    values = values_for(features)
    ours = fast.apply(fast.build(features), values, reverse)
    theirs = oracle.apply(oracle.build(features), values.astype(np.float64), reverse)
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_doubles_stay_doubles(features):
    wide, values = features.astype(np.float64), values_for(features, dtype=np.float64)
    ours = fast.apply(fast.build(wide), values)
    assert ours.dtype == np.float64
    np.testing.assert_allclose(ours, oracle.apply(oracle.build(wide), values), rtol=1e-12)


def test_each_step_equals_its_twin():
    features = FEATURES["rgb"](np.random.default_rng(0))
    values = values_for(features, 4)
    lattice = fast.build(features)
    vertices, weights, neighbours = lattice
    table = fast.splat(vertices, weights, values, lattice.n_vertices, 3)
    theirs = oracle.splat(vertices, weights, values, lattice.n_vertices)
    np.testing.assert_allclose(table, theirs, rtol=1e-5, atol=1e-6)
    blurred = fast.blur(neighbours, table, False)
    theirs = oracle.blur(neighbours, theirs)
    np.testing.assert_allclose(blurred, theirs, rtol=1e-5, atol=1e-6)
    out, expected = np.ones_like(values), np.ones(values.shape)
    fast.slice_add(vertices, weights, blurred, out)
    oracle.slice_add(vertices, weights, theirs, expected)
    np.testing.assert_allclose(out, expected, rtol=1e-5)


def test_corners_surround_their_point(features):
    """The definition of barycentric coordinates, against the elevation matrix written out."""
    n_dims = features.shape[1]
    corners, _ = oracle.simplices(features)
    weights = fast.build(features.astype(np.float64)).weights
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


def test_neighbours_lead_back(features):
    lattice = fast.build(features)
    for along in lattice.neighbours:
        present = np.flatnonzero(along[:, 0] < lattice.n_vertices)
        np.testing.assert_array_equal(along[along[present, 0], 1], present)


def test_reverse_order_is_the_transpose(features):
    rng = np.random.default_rng(2)
    lattice = fast.build(features.astype(np.float64))
    a, b = rng.standard_normal((2, len(features), 3))
    forward = (a * fast.apply(lattice, b)).sum()
    backward = (fast.apply(lattice, a, reverse=True) * b).sum()
    assert forward == pytest.approx(backward, rel=1e-10, abs=1e-9)


def test_channels_do_not_mix(features):
    lattice, values = fast.build(features), values_for(features, 7)
    every = fast.apply(lattice, values)
    one = fast.apply(lattice, np.ascontiguousarray(values[:, 4:5]))
    np.testing.assert_allclose(every[:, 4:5], one, rtol=1e-6)


def test_out_is_added_to():
    features = FEATURES["rgb"](np.random.default_rng(0))
    lattice, values = fast.build(features), values_for(features)
    out = np.full_like(values, 5)
    assert fast.apply(lattice, values, out=out) is out
    np.testing.assert_allclose(out, 5 + fast.apply(lattice, values), rtol=1e-6)


def test_values_are_not_written_to():
    features = FEATURES["rgb"](np.random.default_rng(0))
    values = values_for(features)
    before = features.copy(), values.copy()
    fast.apply(fast.build(features), values)
    np.testing.assert_array_equal(features, before[0])
    np.testing.assert_array_equal(values, before[1])


@pytest.mark.parametrize("n_channels", [0, 3])
def test_one_thread_equals_two(n_channels):
    if numba.get_num_threads() == 1:
        pytest.skip("numba has one thread only")
    features = picture(np.random.default_rng(3), (180, 200), n_channels, width=5.0, color=30.0)
    assert len(features) > 2 * lattice_build.LEAST_POINTS
    values = values_for(features, 5)
    results = []
    n_threads = numba.get_num_threads()
    try:
        for n in (1, n_threads):
            numba.set_num_threads(n)
            lattice = fast.build(features)
            results.append((*lattice, fast.apply(lattice, values)))
    finally:
        numba.set_num_threads(n_threads)
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def test_table_grows_past_its_first_size():
    rng = np.random.default_rng(4)
    features = (rng.random((900, 2)) * 100).astype(np.float32)
    lattice = fast.build(features)
    assert lattice.n_vertices > 2048
    np.testing.assert_array_equal(lattice.vertices, oracle.build(features).vertices)


def test_a_direct_table_equals_the_hash_table(monkeypatch):
    features = FEATURES["grid"](np.random.default_rng(0))
    direct = placed(features)
    assert len(direct[2].direct) > 0
    monkeypatch.setattr(lattice_build, "DIRECT", 0)
    hashed = placed(features)
    assert len(hashed[2].direct) == 0
    for one, other in zip(direct[:2], hashed[:2], strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(direct[2].keys, hashed[2].keys)


def test_simplices_that_share_a_line_do_not_mix():
    """Far more simplices than are remembered, each met again after others took its line."""
    rng = np.random.default_rng(6)
    features = (rng.random((20_000, 3)) * 40).astype(np.float32)
    twice = np.concatenate([features, features])
    vertices, weights, _ = placed(twice)
    np.testing.assert_array_equal(vertices[:20_000], vertices[20_000:])
    np.testing.assert_array_equal(weights[:20_000], weights[20_000:])
    assert len(np.unique(vertices, axis=0)) > 1.5 * _simplices.REMEMBERED


def test_keys_need_more_words_in_high_dimensions():
    strides = {
        name: placed(FEATURES[name](np.random.default_rng(0)))[2].strides
        for name in ("rgb", "seven channels", "ten channels", "two words", "three words")
    }
    words = {name: len(each) for name, each in strides.items()}
    assert words["rgb"] == words["seven channels"] == words["ten channels"] == 1
    assert strides["ten channels"].max() > 2**53  # sums of keys are no longer exact as doubles
    assert words["two words"] > 1
    assert words["three words"] > words["rgb"] + 1


def test_placed_points_equal_the_dictionary(features):
    numbers, shares, ours = placed(features)
    vertices, weights, vertex_keys = oracle.place_points(features)
    np.testing.assert_array_equal(numbers, vertices)
    np.testing.assert_allclose(shares, weights, rtol=0, atol=1e-6)
    assert ours.keys.shape[1] == len(vertex_keys) == len(np.unique(ours.keys.T, axis=0))
    remainders = ours.keys[0] & ((1 << features.shape[1].bit_length()) - 1)
    np.testing.assert_array_equal(remainders, vertex_keys[:, 0] % (features.shape[1] + 1))


def test_neighbours_of_placed_points_equal_the_dictionary(features):
    ours = placed(features)[2]
    n_vertices = ours.n_vertices
    found = np.zeros((features.shape[1] + 1, n_vertices, 2), np.int32)
    lattice_build.link_neighbours(ours, n_vertices + 7, 5, found)
    expected = oracle.link_neighbours(oracle.place_points(features)[2])
    expected = np.where(expected == n_vertices, n_vertices + 7, expected + 5)
    np.testing.assert_array_equal(found, expected)


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


def test_plain_lookup_equals_the_packed_one():
    """Keys of one word, a part of them unknown, in a table that is as full as it gets."""
    rng = np.random.default_rng(5)
    known = np.unique(rng.integers(-(2**40), 2**40, 2100))[:2048]
    keys, table = _hashing.grow(known[np.newaxis], len(known), len(known))
    crowded = np.ascontiguousarray(table[: len(table) // 2]) * 0  # half of the slots it would get
    _hashing.enter(
        known[np.newaxis], np.zeros(2048, int), 2048, np.empty(1, np.int32), 0, keys, crowded
    )
    asked = np.concatenate([known, known + 1])[rng.permutation(4096)]
    asked = np.ascontiguousarray(asked.reshape(1, 32, 128))
    tags = np.empty((32, 128), np.int64)
    _hashing.tag(asked, 128, tags)
    packed, plain, lost = np.empty(4096, np.int32), np.empty(4096, np.int32), np.empty(4096, int)
    n_lost = _hashing.find(asked, tags, 128, keys, crowded, packed, 0, lost)
    _hashing._find_keys(asked, tags, 128, keys, crowded, plain, 0)
    np.testing.assert_array_equal(packed, plain)
    expected = {key: number for number, key in enumerate(known.tolist())}
    np.testing.assert_array_equal(plain, [expected.get(k, -1) for k in asked[0].T.ravel().tolist()])
    np.testing.assert_array_equal(lost[:n_lost], np.flatnonzero(plain < 0))


@pytest.mark.parametrize("n_dims", [1, 2, 3])
def test_impulse_spreads_like_a_gaussian(n_dims):
    """Away from borders the filter is a Gaussian of deviation one, up to a constant factor."""
    step = 0.25
    axis = np.arange(-4, 4 + step / 2, step)
    points = np.stack(np.meshgrid(*[axis] * n_dims, indexing="ij"), axis=-1).reshape(-1, n_dims)
    # a whole cell of impulses, so that it does not matter where the simplices lie
    near = np.abs(points).max(axis=1) <= 0.5
    found = fast.apply(fast.build(points), near[:, np.newaxis].astype(float))[:, 0]
    squares = ((points[:, np.newaxis] - points[near]) ** 2).sum(axis=-1)
    wanted = np.exp(-squares / 2).sum(axis=1)
    found /= found.sum()
    wanted /= wanted.sum()
    assert np.abs(found - wanted).sum() < 0.2  # total variation below 0.1
    variance = (found[:, np.newaxis] * points**2).sum(axis=0)
    np.testing.assert_allclose(variance, (wanted[:, np.newaxis] * points**2).sum(axis=0), rtol=0.1)


def test_nothing_warns_where_nothing_is_compiled():
    code = (
        "import numpy as np; from hybridseg.kernels.dense.lattice import build; "
        "build(np.random.default_rng(0).random((20, 5)) * 9)"
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
    lattice = fast.build(features)
    assert lattice.n_vertices > 200
    np.testing.assert_allclose(lattice.weights.sum(axis=1), 1, atol=1e-2)
