"""Slow twin of ``kernels.contours.ranks``, which sorts all values."""

from __future__ import annotations

import numpy as np


def around_rank(values, least, scale, rank):
    intervals = np.array([int(scale * (value - least)) for value in values])
    order = np.argsort(values, kind="stable")
    first, last = intervals[order[rank]], intervals[order[rank + 1]]
    return values[(intervals >= first) & (intervals <= last)], (intervals < first).sum()
