"""Each step from a point to its simplex equals its twin, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest

from hybridseg.kernels.dense import simplices as kernels
from hybridseg.kernels.dense.lattice_build import _frame
from hybridseg.kernels.dense.simplices import EMPTY_LINE, N_CACHE_LINES, RUN
from tests.kernels.dense.points import FEATURES
from tests.oracles.dense import simplices as oracle


@pytest.fixture(params=FEATURES)
def features(request):
    return FEATURES[request.param](np.random.default_rng(0))


def frame_of(features):
    """The packing of the lattice coordinates of the points."""
    box = np.stack([features.min(axis=0), features.max(axis=0)]).astype(np.float64)
    return _frame(features[0], box[np.newaxis], len(features))


def lifted(features, begin=0):
    """The results of the first steps: differences, ranks, whole numbers and their sums."""
    frame = frame_of(features)
    n_axes = features.shape[1] + 1
    rest, origin, ranks = np.empty((3, n_axes, RUN))
    excess = np.empty(RUN)
    kernels.load(features, begin, frame.scales, rest)
    kernels.lift(rest, frame.start, origin, excess)
    kernels.rank(rest, ranks)
    return rest, ranks, origin, excess


def test_points_are_lifted_as_by_their_twins(features):
    frame = frame_of(features)
    n_axes = features.shape[1] + 1
    for begin in range(0, len(features), RUN):
        rest, origin, ranks = np.empty((3, n_axes, RUN))
        excess = np.empty(RUN)
        kernels.load(features, begin, frame.scales, rest)
        expected = oracle.load(features, begin, frame.scales)
        np.testing.assert_array_equal(rest[1:], expected)
        kernels.lift(rest, frame.start, origin, excess)
        found = rest, origin, excess
        for ours, theirs in zip(found, oracle.lift(expected, frame.start), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        kernels.rank(rest, ranks)
        np.testing.assert_array_equal(ranks, oracle.rank(rest))
        expected = oracle.wrap(ranks, excess, origin)
        kernels.wrap(ranks, excess, origin)
        for ours, theirs in zip((ranks, origin), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert (origin.sum(axis=0) == -frame.start.sum()).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_shares_equal_their_twins(features, dtype):
    rest, _, _, excess = lifted(features)
    expected = oracle.sort(rest)
    kernels.sort(rest)
    np.testing.assert_array_equal(rest, expected)
    shares = np.empty(rest.shape, dtype)
    kernels.share(rest, shares)
    np.testing.assert_array_equal(shares, oracle.share(rest).astype(dtype))
    count, width = min(RUN, len(features)), len(rest) + 3
    weights = np.full(count * width + 2, 7, dtype)
    kernels.write_shares(shares, excess, count, weights, 2, width)
    rows = weights[2:].reshape(count, width)
    np.testing.assert_array_equal(rows[:, : len(rest)], oracle.write_shares(shares, excess, count))
    assert (rows[:, len(rest) :] == 7).all()


def test_equal_coordinates_keep_their_order():
    rest = np.zeros((4, RUN))
    rest[2] = 0.25
    ranks = np.empty_like(rest)
    kernels.rank(rest, ranks)
    np.testing.assert_array_equal(ranks, oracle.rank(rest))
    assert ranks[:, 0].tolist() == [1, 2, 0, 3]


@np.errstate(over="ignore")
def test_names_equal_their_twins(features):
    frame = frame_of(features)
    _, ranks, origin, excess = lifted(features)
    kernels.wrap(ranks, excess, origin)
    n_words, n_axes = frame.strides.shape
    bases, lines = (
        np.empty((n_words, RUN), np.int64),
        np.empty((2, RUN), np.int64),
    )
    for word in range(n_words):
        kernels.name(origin, frame.strides, word, bases)
        np.testing.assert_array_equal(bases[word], oracle.name(origin, frame.strides, word))
    code = frame.code or 2 * n_axes
    kernels.name_simplices(bases, ranks, code, lines)
    for ours, theirs in zip(lines, oracle.name_simplices(bases, ranks, code), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    points = np.arange(RUN)[:: 3 if len(features) > 1 else RUN]
    keys = np.zeros((n_words, n_axes, RUN), np.int64)
    kernels.name_corners(bases, ranks, frame.strides, points, len(points), keys)
    expected = oracle.name_corners(bases, ranks, frame.strides, points)
    np.testing.assert_array_equal(keys[..., : len(points)], expected)
    assert (keys[..., len(points) :] == 0).all()


@pytest.mark.parametrize("count", [0, 1, RUN])
def test_recall_equals_its_twin(count, rng):
    lines = rng.integers(0, 20, (2, RUN))
    names, known = (
        np.full(N_CACHE_LINES, EMPTY_LINE),
        rng.integers(0, 99, (N_CACHE_LINES, 3), np.int32),
    )
    names[:20] = rng.integers(0, 20, 20)
    names[lines[1, ::2]] = lines[0, ::2]
    vertices, unknown = (
        np.full(4 * RUN + 1, -1, np.int32),
        np.empty(RUN + 1, np.int64),
    )
    n_unknown = kernels.recall(lines, count, names, known, vertices, 1, 4, unknown)
    corners, expected = oracle.recall(lines, count, names, known)
    rows = vertices[1:].reshape(RUN, 4)
    np.testing.assert_array_equal(rows[:count, :3], corners)
    assert (rows[count:] == -1).all()
    assert unknown[:n_unknown].tolist() == expected
