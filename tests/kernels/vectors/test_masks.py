"""Boolean values become the bits of a word, and bits become Boolean values again."""

import numpy as np
import pytest

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.masks import _lowest, bits, lowest, truths

pytestmark = pytest.mark.skipif(not simd.ENABLED, reason="vectors are switched off")

LANES = 8


@kernel
def places_below(values, limit, out):
    left = bits(simd.less(simd.load(values, 0, LANES), simd.fill(limit, LANES)))
    n_found = 0
    while left:
        out[n_found] = lowest(left)
        left &= left - np.uint64(1)
        n_found += 1
    return n_found


def test_truth_values_become_bits():
    values = np.array([3, -1, 4, -1, 5, 9, 2, 6], np.int32)
    out = np.zeros(LANES, np.int64)
    for limit in (-5, 0, 4, 10):
        expected = np.flatnonzero(values < limit)
        assert places_below(values, np.int32(limit), out) == len(expected)
        np.testing.assert_array_equal(out[: len(expected)], expected)


@kernel
def there_and_back(word, few):
    if few:
        return bits(truths(word, 8))
    return bits(truths(word, 64))


@pytest.mark.parametrize("few", [True, False])
def test_words_that_become_truth_values_come_back(few, rng):
    """Eight lanes use the lowest bits of a word, and 64 lanes use all."""
    words = [0, 1, 2**63, 2**64 - 1, *rng.integers(0, 2**63, 20).tolist()]
    for word in words:
        expected = word & 0xFF if few else word
        assert there_and_back(np.uint64(word), few) == expected


@kernel
def lowest_of(word):
    return lowest(word)


def test_the_lowest_bit_is_the_first_that_is_set():
    for place in range(64):
        for above in (0, 1, 2**40 + 1):
            word = (1 << place | above << (place + 1)) & (2**64 - 1)
            assert lowest_of(np.uint64(word)) == _lowest(np.uint64(word)) == place
