"""Sums of the pixels of one word of labels, by label, in float64.

Sums of floats depend on their order. Here the order is that of eight interleaved sums, which are
added in halves, with vectors and without. So a sum depends on the word and its pixels only, and a
sum that is computed again is the same again: in `snakes`, equal labels give equal means.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.masks import truths
from hybridseg.kernels.vectors.padding import whole

#: Pixels in a vector, and interleaved sums.
LANES = 8
ONE = np.uint64(1)


@kernel
def sum_word(values, first, n, word, vectors, parts):
    """Return the sums of the pixels whose bit in ``word`` is 0, and of those whose bit is 1.

    The pixels are the ``n`` <= 64 numbers of ``values`` (flat, float32 or float64) from ``first``
    on. ``parts`` (16,) float64 is working memory.
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
    # the rest, one by one
    for k in range(in_vectors, n):
        if (word >> np.uint64(k)) & ONE:
            of_ones += values[first + k]
        else:
            of_zeros += values[first + k]
    return of_zeros, of_ones


@kernel
def _in_halves(sums, at):
    """Return the sum of eight sums, from ``at`` on, in the order of `simd.total`."""
    even = (sums[at] + sums[at + 4]) + (sums[at + 2] + sums[at + 6])
    return even + ((sums[at + 1] + sums[at + 5]) + (sums[at + 3] + sums[at + 7]))
