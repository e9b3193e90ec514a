"""One iteration of Chan-Vese equals its twin, and does not depend on the number of threads."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from hybridseg.kernels.contours.chan_vese import N_SUMS, _iterate_vectors, iterate_level_set
from hybridseg.kernels.vectors import simd as simd
from tests.kernels.vectors.assembly import assembly_of, on_x86
from tests.oracles.contours import chan_vese as oracles


def case(shape, dtype, spread):
    rng = np.random.default_rng(0)
    phi = np.pad(rng.normal(0, spread, shape), 1, mode="edge").astype(dtype)
    return rng.random(shape).astype(dtype), phi


def iterate(step, image, phi, with_energy=True):
    new, sums = np.empty_like(phi), np.zeros((len(image), N_SUMS))
    means, weights = np.array([0.7, 0.2]), np.array([1.0, 1.5])
    step(image, phi, new, means, 0.3, weights, 0.5, with_energy, sums)
    return new, sums


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (3, 8), (2, 16), (21, 37)])
@pytest.mark.parametrize("spread", [0.0, 0.5, 20.0])
@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-12), (np.float32, 3e-5)])
def test_equals_twin(shape, spread, dtype, rtol):
    image, phi = case(shape, dtype, spread)
    new, sums = iterate(iterate_level_set, image, phi)
    expected, expected_sums = iterate(oracles.iterate_level_set, image, phi)
    np.testing.assert_allclose(new, expected, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(sums, expected_sums, rtol=rtol, atol=rtol * shape[1])
    assert new.dtype == dtype


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_plain_loops_find_the_same(dtype, monkeypatch):
    image, phi = case((13, 43), dtype, 1.0)
    new, sums = iterate(iterate_level_set, image, phi)
    monkeypatch.setattr(simd, "ENABLED", False)
    plain, plain_sums = iterate(iterate_level_set, image, phi)
    rtol = 60 * np.finfo(dtype).eps
    np.testing.assert_allclose(plain, new, rtol=rtol, atol=rtol)
    np.testing.assert_allclose(plain_sums, sums, rtol=rtol, atol=43 * rtol)


@on_x86
@pytest.mark.parametrize(("dtype", "suffix"), [(np.float64, "pd"), (np.float32, "ps")])
def test_roots_and_quotients_are_packed(dtype, suffix):
    image, phi = case((4, 24), dtype, 1.0)
    numbers = tuple(map(dtype, (0.7, 0.2, 0.3, 1.0, 1.5, 0.5)))
    code = assembly_of(
        _iterate_vectors, image, phi, phi.copy(), 0, 4, numbers, True, np.zeros((4, N_SUMS))
    )
    for packed in ("sqrt", "div", "mul", "add"):
        assert f"{packed}{suffix}" in code
    for scalar in ("sqrt", "div", "mul"):
        assert f"{scalar}s{suffix[1]}" not in code


def test_energy_may_be_left_out():
    image, phi = case((8, 11), np.float64, 1.0)
    new, sums = iterate(iterate_level_set, image, phi, with_energy=False)
    full, full_sums = iterate(iterate_level_set, image, phi)
    np.testing.assert_array_equal(new, full)
    np.testing.assert_array_equal(sums[:, :3], full_sums[:, :3])
    assert (sums[:, 3:] == 0).all()


def test_threads_do_not_matter():
    image, phi = case((50, 61), np.float32, 1.0)
    before = numba.get_num_threads()
    results = []
    try:
        for n_threads in {1, min(2, numba.config.NUMBA_NUM_THREADS)}:
            numba.set_num_threads(n_threads)
            results.append(iterate(iterate_level_set, image, phi))
    finally:
        numba.set_num_threads(before)
    for new, sums in results[1:]:
        np.testing.assert_array_equal(new, results[0][0])
        np.testing.assert_array_equal(sums, results[0][1])
