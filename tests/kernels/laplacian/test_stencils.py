"""Products for eight pixels at a time equal those for single pixels."""

import numpy as np
import pytest

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.laplacian.stencils import LANES, doubles, laplacian, steps_at, store_narrow
from hybridseg.kernels.vectors import simd as simd
from tests.oracles.laplacian import stencils as oracle

pytestmark = pytest.mark.skipif(not simd.ENABLED, reason="vectors are switched off")


@kernel
def steps_of(array, start, alike):
    return steps_at(array, start, alike)


@kernel
def write_doubles(array, i, out):
    simd.store(out, 0, doubles(array, i))


@kernel
def write_narrow(values, array, i):
    store_narrow(array, i, simd.load(values, 0, LANES))


@kernel
def write_product(links, steps, ground, x, i, out):
    simd.store(out, 0, laplacian(links, steps, ground, x, i))


@pytest.mark.parametrize("n_steps", [1, 2, 4, 13])
def test_steps(n_steps, rng):
    array, alike = rng.integers(-9, 99, 20), (0,) * n_steps
    for start in (0, 3, 20 - n_steps):
        found = steps_of(array, start, alike)
        assert found == oracle.steps_at(array, start, alike)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_eight_numbers_of_either_kind(dtype, rng):
    array = (rng.normal(0, 1, 20) * 10.0 ** rng.integers(-30, 30, 20)).astype(dtype)
    array[9] = np.nan
    out = np.empty(LANES)
    for i in (0, 5, 12):
        write_doubles(array, i, out)
        np.testing.assert_array_equal(out, oracle.doubles(array, i))
        values, found, expected = rng.normal(0, 1, LANES), array.copy(), array.copy()
        write_narrow(values, found, i)
        oracle.store_narrow(expected, i, values)
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("kind", "wide", "rtol"),
    [(np.float32, np.float32, 1e-5), (np.float32, np.float64, 1e-13), (float, float, 1e-13)],
)
@pytest.mark.parametrize("steps", [(1,), (1, 9), (1, 8, 9, 10)])
def test_products(steps, kind, wide, rtol, rng):
    n = 60
    links, ground = rng.random((len(steps), n)).astype(kind), rng.random(n).astype(kind)
    x, out = rng.normal(0, 1, n).astype(wide), np.empty(LANES, wide)
    x[30:45] = 1  # for a constant vector only the ground remains
    for i in (max(steps), 33, n - LANES - max(steps)):
        write_product(links, steps, ground, x, i, out)
        expected = oracle.laplacian(links, steps, ground, x, i)
        np.testing.assert_allclose(out, expected, rtol=rtol, atol=10 * rtol)
