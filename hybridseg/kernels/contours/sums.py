"""Sums of the pixels of one word of labels, by label, in 64 bits.

Sums of floats depend on their order. Here it is that of eight interleaved sums, which are added in
halves, with vectors and without; so it depends on nothing but the word and its pixels, and a sum
that is made anew is the same again.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.masks import truths
from hybridseg.kernels.vectors.padding import whole

LANES = 8
ONE = np.uint64(1)


@kernel
def sum_word(values, first, n, word, vectors, parts):
    """Sums of ``n`` numbers from ``first`` on, at most 64, whose bit in ``word`` is 0, and is 1.

    ``values`` is float32 or float64, ``parts`` float64 and has room for 16 numbers.
    """
    in_vectors = whole(n, LANES)
    if vectors is None:
        for k in range(2 * LANES):
            parts[k] = 0
        for k in range(in_vectors):
            bit = np.int64((word >> np.uint64(k)) & ONE)
            parts[LANES * bit + k % LANES] += values[first + k]
        of_zeros, of_ones = _in_halves(parts, 0), _in_halves(parts, LANES)
    else:
        none = simd.fill(0.0, LANES)
        zeros, ones = none, none
        for k in range(0, in_vectors, LANES):
            here = truths(word >> np.uint64(k), LANES)
            eight = simd.convert(simd.load(values, first + k, LANES), np.float64)
            zeros = zeros + simd.select(here, none, eight)
            ones = ones + simd.select(here, eight, none)
        of_zeros, of_ones = simd.total(zeros), simd.total(ones)
    for k in range(in_vectors, n):
        if (word >> np.uint64(k)) & ONE:
            of_ones += values[first + k]
        else:
            of_zeros += values[first + k]
    return of_zeros, of_ones


@kernel
def _in_halves(sums, at):
    """Add up eight sums, from ``at`` on, as `simd.total` does."""
    even = (sums[at] + sums[at + 4]) + (sums[at + 2] + sums[at + 6])
    return even + ((sums[at + 1] + sums[at + 5]) + (sums[at + 3] + sums[at + 7]))
