"""The numbers around a place of the sorted order, without sorting the others."""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel

#: Equal intervals into which the values' range is cut.
N_INTERVALS = 4096


@kernel
def around_rank(values, least, scale, rank):
    """All numbers in the intervals of those that come at ``rank`` and next in the sorted order.

    ``values`` (n,) are finite, none below ``least``; ``scale (value - least)`` is below
    ``N_INTERVALS`` for all, and its whole part the interval. Returns the numbers, in the order in
    which they come, and how many are in lower intervals.
    """
    counts = np.zeros((2, N_INTERVALS), np.int64)  # two, so that equal neighbors need not wait
    for i in range(len(values)):
        counts[i % 2, np.int64(scale * (values[i] - least))] += 1
    before, first = 0, 0
    while before + counts[0, first] + counts[1, first] <= rank:
        before += counts[0, first] + counts[1, first]
        first += 1
    n_found, last = counts[0, first] + counts[1, first], first
    while before + n_found <= rank + 1:
        last += 1
        n_found += counts[0, last] + counts[1, last]
    found = np.empty(n_found + 1, values.dtype)
    n_found = 0
    for i in range(len(values)):
        interval = np.int64(scale * (values[i] - least))
        found[n_found] = values[i]
        n_found += (interval >= first) & (interval <= last)
    return found[:n_found], before
