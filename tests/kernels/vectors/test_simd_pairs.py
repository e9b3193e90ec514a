"""Vectors of 16-bit pairs equal NumPy, and become the single instruction for them."""

from __future__ import annotations

import numpy as np
import pytest

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors import simd_pairs as pairs
from tests.kernels.vectors.assembly import assembly_of, on_x86

pytestmark = pytest.mark.skipif(not simd.ENABLED, reason="vectors are switched off")


@kernel
def dot_eight(a, b, out):
    x, y = simd.load(a, 0, 8), simd.load(b, 0, 8)
    simd.store(out, 0, pairs.dot_pairs(x, y, simd.load(out, 0, 8)))


@kernel
def dot_four(a, b, out):
    for i in range(0, 8, 4):
        x, y = simd.load(a, i, 4), simd.load(b, i, 4)
        simd.store(out, i, pairs.dot_pairs(x, y, simd.load(out, i, 4)))


@kernel
def part(values, even, odd):
    first, second = pairs.load_every_second(values, 3, 4)
    simd.store(even, 0, first)
    simd.store(odd, 0, second)


@kernel
def count(word):
    return pairs.population(word)


@pytest.mark.parametrize("dot", [dot_eight, dot_four])
def test_dot_of_pairs(dot):
    rng = np.random.default_rng(0)
    a, b = rng.integers(-(2**14), 2**14, (2, 16)).astype(np.int16)
    start = rng.integers(-1000, 1000, 8).astype(np.int32)
    out = start.copy()
    dot(a.view(np.int32), b.view(np.int32), out)
    products = a.astype(int) * b
    np.testing.assert_array_equal(out, start + products[::2] + products[1::2])


def test_load_every_second():
    values, even, odd = np.arange(20, dtype=np.int32), *np.zeros((2, 4), np.int32)
    part(values, even, odd)
    np.testing.assert_array_equal(even, [3, 5, 7, 9])
    np.testing.assert_array_equal(odd, [4, 6, 8, 10])


@pytest.mark.parametrize("word", [0, 1, 2**63, 2**64 - 1, 0x123456789ABCDEF])
def test_population(word):
    assert count(np.uint64(word)) == word.bit_count()


@on_x86
def test_dot_is_one_instruction():
    code = assembly_of(dot_eight, *np.zeros((3, 8), np.int32))
    assert "vpmaddwd" in code or "vpdpwssd" in code or not pairs._HAS_AVX2
