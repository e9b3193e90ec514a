"""Slow twin of ``kernels.contours.sums``, without intermediate rounding."""

from __future__ import annotations

import math


def sum_word(values, first, n, word):
    bits = [int(word) >> k & 1 for k in range(n)]
    here = [float(value) for value in values[first : first + n]]
    return tuple(
        math.fsum(value for value, bit in zip(here, bits, strict=True) if bit == label)
        for label in (0, 1)
    )
