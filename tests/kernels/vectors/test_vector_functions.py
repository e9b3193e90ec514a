"""Functions are accurate to a few units in the last place; shuffles move lanes like NumPy."""

import numpy as np
import pytest

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.vector_functions import (
    after_first,
    arctangent_ratio,
    before_last,
    evens,
    exponential,
    inverse_root,
    square_root,
    zip_high,
    zip_low,
)
from tests.kernels.vectors.assembly import assembly_of, on_x86

pytestmark = pytest.mark.skipif(not simd.ENABLED, reason="vectors are switched off")

LANES = 8
DTYPES = [np.float32, np.float64]


@kernel
def roots(values, root, inverse):
    for i in range(0, values.size, LANES):
        vector = simd.load(values, i, LANES)
        simd.store(root, i, square_root(vector))
        simd.store(inverse, i, inverse_root(vector))


@kernel
def arctangents(squares, out):
    for i in range(0, squares.size, LANES):
        simd.store(out, i, arctangent_ratio(simd.load(squares, i, LANES)))


def units(found, expected):
    """The greatest error in units of the last place."""
    spacing = np.spacing(expected.astype(found.dtype)).astype(np.longdouble)
    return float(np.abs((found - expected) / spacing).max())


@pytest.mark.parametrize("dtype", DTYPES)
def test_roots(dtype):
    info = np.finfo(dtype)
    exponents = np.random.default_rng(0).uniform(info.minexp, info.maxexp - 0.01, 80_000)
    values = np.exp2(exponents).astype(dtype)
    values[:8] = info.tiny, info.max, 1, 2, 4, 0.25, 1 + info.eps, 1 - info.epsneg
    root, inverse = np.empty_like(values), np.empty_like(values)
    roots(values, root, inverse)
    np.testing.assert_array_equal(root, np.sqrt(values))
    assert units(inverse, 1 / np.sqrt(values.astype(np.longdouble))) <= 2


def test_roots_of_zero_and_below():
    values = np.array([0, 0, -1, np.nan, np.inf, 4, 9, 16], np.float32)
    root, inverse = np.empty_like(values), np.empty_like(values)
    roots(values, root, inverse)
    np.testing.assert_array_equal(root, [0, 0, np.nan, np.nan, np.inf, 2, 3, 4])


@pytest.mark.parametrize(("dtype", "most"), [(np.float32, 4), (np.float64, 5)])
def test_arctangent(dtype, most):
    squares = np.linspace(0, 1, 80_000).astype(dtype)
    found = np.empty_like(squares)
    arctangents(squares, found)
    t = np.sqrt(squares.astype(np.longdouble))
    expected = np.ones_like(t)
    expected[1:] = np.arctan(t[1:]) / t[1:]
    assert units(found, expected) <= most


@on_x86
@pytest.mark.parametrize(("dtype", "suffix"), [(np.float32, "ps"), (np.float64, "pd")])
def test_they_are_packed(dtype, suffix):
    values = np.ones(32, dtype)
    code = assembly_of(roots, values, values.copy(), values.copy())
    assert f"sqrt{suffix}" in code
    assert f"mul{suffix}" in code
    code = assembly_of(arctangents, values, values.copy())
    assert f"div{suffix}" in code


def test_whole_numbers_are_refused():
    @kernel
    def of_integers(values):
        simd.store(values, 0, inverse_root(simd.load(values, 0, LANES)))

    with pytest.raises(Exception, match="inverse_root"):
        of_integers(np.ones(8, np.int32))


@kernel
def shuffled(values, out):
    a, b = simd.load(values, 0, LANES), simd.load(values, LANES, LANES)
    simd.store(out, 0, evens(a, b))
    simd.store(out, LANES, zip_low(a, b))
    simd.store(out, 2 * LANES, zip_high(a, b))
    simd.store(out, 3 * LANES, after_first(a, b))
    simd.store(out, 4 * LANES, before_last(a, b))


@pytest.mark.parametrize("dtype", [*DTYPES, np.int16])
def test_shuffles(dtype):
    values, out = np.arange(16).astype(dtype), np.empty((5, 8), dtype)
    shuffled(values, out)
    pairs = values.reshape(2, 8).T.ravel()
    expected = [values[::2], pairs[:8], pairs[8:], values[1:9], values[7:15]]
    np.testing.assert_array_equal(out, expected)


@kernel
def exponentials(values, out):
    for i in range(0, values.size, LANES):
        simd.store(out, i, exponential(simd.load(values, i, LANES)))


def test_exponential():
    values = np.random.default_rng(0).uniform(-700, 700, 80_000)
    values[:8] = 0, -700, 700, 1, 1e-300, np.log(2) / 2, -0.0, -1e-8
    out = np.empty_like(values)
    exponentials(values, out)
    assert units(out, np.exp(values.astype(np.longdouble))) <= 3
    values = np.array([-1e4, -np.inf, 1e4, np.inf, np.nan, 0, 0, 0])
    out = np.empty_like(values)
    exponentials(values, out)
    np.testing.assert_allclose(out[:4], np.exp([-700.0, -700.0, 700.0, 700.0]), rtol=1e-15)
    assert np.isnan(out[4])
