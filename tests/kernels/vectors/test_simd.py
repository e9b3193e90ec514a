"""The explicit vectors equal NumPy in every lane, and become packed instructions."""

import re

import numpy as np
import pytest

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.vectors import simd as simd
from tests.kernels.vectors.assembly import assembly_of, on_x86

pytestmark = pytest.mark.skipif(not simd.ENABLED, reason="vectors are switched off")

LANES = 8


@kernel
def exponentials(values, out):
    for i in range(0, values.size, LANES):
        simd.store(out, i, simd.exp(simd.load(values, i, LANES)))


@kernel
def axpy(factor, values, out):
    scale = simd.fill(factor, LANES)
    for i in range(0, values.size, LANES):
        simd.store(out, i, simd.fma(scale, simd.load(values, i, LANES), simd.load(out, i, LANES)))


@kernel
def lane_by_lane(first, second, out):
    a, b = simd.load(first, 0, LANES), simd.load(second, 0, LANES)
    simd.store(out, 0, a + b)
    simd.store(out, 8, a - b)
    simd.store(out, 16, a * b)
    simd.store(out, 24, a / b)
    simd.store(out, 32, simd.minimum(a, b))
    simd.store(out, 40, simd.maximum(a, b))
    simd.store(out, 48, simd.floor(a))
    simd.store(out, 56, simd.select(simd.less(a, b), a, simd.select(simd.equal(a, b), b - b, b)))
    simd.store(out, 64, simd.convert(simd.convert(a, np.int32), np.float32))
    simd.store(out, 72, simd.convert(simd.count_up(np.int32(3), LANES), np.float32))
    return simd.total(a), simd.greatest(a), simd.any_true(simd.less(a, b))


@kernel
def of_integers(values, places, out):
    a = simd.gather(values, simd.load(places, 0, LANES))
    five = simd.fill(np.int16(5), LANES)
    simd.store(out, 0, (a & five) | (a ^ five))
    simd.store(out, 8, a << simd.fill(np.int16(2), LANES))
    simd.store(out, 16, simd.shift_right(a, simd.fill(np.int16(2), LANES)))
    simd.store(out, 24, simd.reinterpret(simd.reinterpret(a, np.uint16), np.int16))
    simd.prefetch(values, 0)
    return simd.total(simd.convert(a, np.int32))


def test_exp_is_accurate_to_two_units_in_the_last_place():
    values = np.linspace(-87.3, 88.3, 80_000, dtype=np.float32)
    found = np.empty_like(values)
    exponentials(values, found)
    expected = np.exp(values.astype(np.float64))
    assert np.abs(found - expected).max(initial=0, where=expected < 1e-30) < 1e-36
    assert (np.abs(found - expected) <= 2 * np.spacing(expected.astype(np.float32))).all()


def test_exp_at_the_ends():
    values = np.array([np.nan, np.inf, -np.inf, 0, -1e30, -88, 1e30, -0.0], np.float32)
    found = np.empty_like(values)
    exponentials(values, found)
    assert np.isnan(found[0])
    np.testing.assert_array_equal(found[2:6], [0, 1, 0, 0])
    assert found[1] == found[6] > 2e38
    assert found[7] == 1


def test_floats_lane_by_lane():
    random = np.random.default_rng(0)
    a = random.normal(size=8).astype(np.float32) * 9
    b = random.normal(size=8).astype(np.float32) * 9
    b[3] = a[3]
    out = np.empty((10, 8), np.float32)
    total, greatest, anywhere = lane_by_lane(a, b, out)
    expected = [a + b, a - b, a * b, a / b, np.minimum(a, b), np.maximum(a, b), np.floor(a)]
    expected += [np.where(a < b, a, np.where(a == b, 0, b)), np.trunc(a), np.arange(3, 11)]
    np.testing.assert_array_equal(out, expected)
    assert total == pytest.approx(a.sum(), rel=1e-5)
    assert greatest == a.max()
    assert anywhere == bool((a < b).any())


def test_integers_lane_by_lane():
    values = np.array([-7, 3, 1000, -32768, 32767, 0, 12, -1], np.int16)
    places = np.array([7, 6, 5, 4, 3, 2, 1, 0], np.int32)
    out = np.empty((4, 8), np.int16)
    total = of_integers(values, places, out)
    a = values[places]
    np.testing.assert_array_equal(out, [(a & 5) | (a ^ 5), a << 2, a >> 2, a])
    assert total == a.sum(dtype=np.int64)


def test_aligned_arrays_begin_at_a_cache_line():
    for shape in ((1,), (3, 5), (0, 4)):
        array = simd.aligned(shape, np.float32)
        assert array.shape == shape
        assert array.size == 0 or array.ctypes.data % simd.LINE == 0
        assert (array == 0).all()


@on_x86
def test_the_loop_is_packed():
    ones = np.ones(64, np.float32)
    assembly = assembly_of(axpy, np.float32(2), ones, ones.copy())
    assert re.search(r"vfmadd\d+ps|mulps", assembly)
    assert not re.search(r"vfmadd\d+ss", assembly)
