"""Selection of the numbers around a rank, without sorting the others: for percentiles.

A histogram of ``N_INTERVALS`` equal intervals says in which intervals the numbers of two successive
ranks lie, and only the numbers in these intervals are returned. A sort of those few gives the exact
numbers. `hybridseg.inference.contours.morphological` calls `around_rank` for the threshold of its
balloon. It runs on one thread.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel

#: Number of equal intervals into which the range of the values is divided.
N_INTERVALS = 4096


@kernel
def around_rank(values, least, scale, rank):
    """Return all numbers in the intervals of those at ``rank`` and ``rank + 1`` in sorted order.

    ``values`` (n,) are finite and not below ``least``. ``scale * (value - least)`` is below
    ``N_INTERVALS`` for all of them, and its integer part is the interval. Returns the numbers in
    their original order, and the number of values in lower intervals. ``rank`` is at most n - 2.
    """
    counts = np.zeros((2, N_INTERVALS), np.int64)  # two, so that equal neighbors do not wait
    for i in range(len(values)):
        counts[i % 2, np.int64(scale * (values[i] - least))] += 1
    # the intervals of the two ranks
    before, first = 0, 0
    while before + counts[0, first] + counts[1, first] <= rank:
        before += counts[0, first] + counts[1, first]
        first += 1
    n_found, last = counts[0, first] + counts[1, first], first
    while before + n_found <= rank + 1:
        last += 1
        n_found += counts[0, last] + counts[1, last]
    # each number is written, and kept if it lies there, so nothing branches
    found = np.empty(n_found + 1, values.dtype)
    n_found = 0
    for i in range(len(values)):
        interval = np.int64(scale * (values[i] - least))
        found[n_found] = values[i]
        n_found += (interval >= first) & (interval <= last)
    return found[:n_found], before
