"""Sums in the order in which NumPy adds the numbers of a contiguous array, part by part.

Sums of floats depend on their order. Comparisons with a region's mean agree to the last bit with
what NumPy code decides only where the sums agree to the last bit. NumPy halves an array (at a
multiple of 8) until at most 128 numbers are left, and adds these in eight interleaved sums. The
leaves of that tree are kept, so that only those with a changed pixel are added up anew.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.masks import truths
from hybridseg.kernels.vectors.padding import whole

#: The most numbers of a leaf.
LEAF = 128
ONE = np.uint64(1)


@kernel
def leaf_starts(n_numbers):
    """Where the leaves begin, and where the last one ends."""
    starts = np.empty(n_numbers // (LEAF // 2 - 8) + 3, np.int64)
    sizes = np.empty(70, np.int64)
    sizes[0], depth, n_leaves, at = n_numbers, 1, 0, 0
    while depth > 0:
        depth -= 1
        size = sizes[depth]
        if size <= LEAF:
            starts[n_leaves] = at
            n_leaves += 1
            at += size
        else:
            half = size // 2
            half -= half % 8
            sizes[depth], sizes[depth + 1] = size - half, half
            depth += 2
    starts[n_leaves] = at
    return starts[: n_leaves + 1]


@kernel
def sum_leaf(values, first, last, low, high, vectors, parts):
    """Sums of numbers ``first`` to ``last`` whose bit, in ``low`` and then ``high``, is 0 and 1.

    A number that does not count is added as 0, which leaves the sum as it is. ``parts`` has room
    for 16 numbers.
    """
    number = values.dtype.type
    in_vectors = whole(last - first, 8)
    if vectors is None:
        for k in range(16):
            parts[k] = number(0)
        for j in range(in_vectors):
            bit = np.int64(((low if j < 64 else high) >> np.uint64(j % 64)) & ONE)
            parts[8 * bit + j % 8] += values[first + j]
    else:
        none = simd.fill(number(0), 8)
        zeros, ones = none, none
        for j in range(0, in_vectors, 8):
            here = truths((low if j < 64 else high) >> np.uint64(j % 64), 8)
            eight = simd.load(values, first + j, 8)
            zeros = zeros + simd.select(here, none, eight)
            ones = ones + simd.select(here, eight, none)
        simd.store(parts, 0, zeros)
        simd.store(parts, 8, ones)
    of_zeros, of_ones = _join(parts, 0), _join(parts, 8)
    for j in range(in_vectors, last - first):
        word = low if j < 64 else high
        if (word >> np.uint64(j % 64)) & ONE:
            of_ones += values[first + j]
        else:
            of_zeros += values[first + j]
    return of_zeros, of_ones


@kernel
def _join(sums, at):
    """Add up eight sums, from ``at`` on, in NumPy's order."""
    first = (sums[at] + sums[at + 1]) + (sums[at + 2] + sums[at + 3])
    return first + ((sums[at + 4] + sums[at + 5]) + (sums[at + 6] + sums[at + 7]))


@kernel
def sum_tree(leaves, n_numbers, stack):
    """Add up the leaves in the order of the tree."""
    sizes = np.empty(140, np.int64)
    sizes[0], depth, n_sums, leaf = n_numbers, 1, 0, 0
    while depth > 0:
        depth -= 1
        size = sizes[depth]
        if size < 0:
            n_sums -= 1
            stack[n_sums - 1] += stack[n_sums]
        elif size <= LEAF:
            stack[n_sums] = leaves[leaf]
            n_sums += 1
            leaf += 1
        else:
            half = size // 2
            half -= half % 8
            sizes[depth], sizes[depth + 1], sizes[depth + 2] = -1, size - half, half
            depth += 3
    return stack[0]
