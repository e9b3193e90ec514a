"""Gaussian kernels between points equal their slow twin."""

import numba
import numpy as np
import pytest

from hybridseg.kernels.superpixels import region_pairs as kernels
from hybridseg.kernels.superpixels.region_pairs import LANES, point_pairs
from hybridseg.kernels.vectors import simd as simd
from tests.kernels.sparse.test_grid_mean_field import WAYS
from tests.kernels.vectors.assembly import assembly_of, on_x86
from tests.oracles.superpixels import region_pairs as oracle


@pytest.fixture(params=WAYS, ids=lambda way: "vectors" if way else "numbers")
def way(request, monkeypatch):
    monkeypatch.setattr(simd, "ENABLED", request.param)


def problem(rng, n, splits, scale=1.0):
    features = np.zeros((splits[-1], -(-n // LANES) * LANES), np.float32)
    features[:, :n] = rng.normal(0, scale, (splits[-1], n))
    weights = rng.uniform(1, 9, len(splits) - 1).astype(np.float32)
    return features, np.array(splits), weights, rng.integers(1, 400, n).astype(np.float32)


@pytest.mark.parametrize("least", [0.0, 1e-2])
@pytest.mark.parametrize("splits", [[0, 1], [0, 5], [0, 2, 7]])
@pytest.mark.parametrize("n", [1, 2, 16, 35])
def test_point_pairs(rng, n, splits, least, way):
    args = problem(rng, n, splits)
    i, j, strengths = point_pairs(*args, least)
    expected = oracle.point_pairs(*args, least)
    assert np.array_equal(i, expected[0])
    assert np.array_equal(j, expected[1])
    assert strengths == pytest.approx(expected[2], rel=1e-4)


def test_no_kernels(rng, way):
    args = problem(rng, 5, [0])
    assert all(len(part) == 0 for part in point_pairs(*args, 1e-7))
    assert all(len(part) == 0 for part in oracle.point_pairs(*args, 1e-7))


def test_threads_do_not_matter(rng):
    args = problem(rng, 300, [0, 2, 7])
    before, found = numba.get_num_threads(), []
    try:
        for n_threads in (1, numba.config.NUMBA_NUM_THREADS):
            numba.set_num_threads(n_threads)
            found.append(point_pairs(*args, 1e-7))
    finally:
        numba.set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


@on_x86
def test_it_is_packed(rng):
    features, *_ = problem(rng, 20, [0, 5])
    out = np.zeros(features.shape[1], np.float32)
    assert "fmadd" in assembly_of(kernels._likeness, features, 0, 5, 3, 0, out, True)
