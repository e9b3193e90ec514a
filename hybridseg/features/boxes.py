"""Cut a large image into boxes, so that the features of one box at a time are in memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from hybridseg.features.pixels import Box


def boxes(shape: tuple[int, ...], spacing: Sequence[float], n_pixels: int) -> Iterator[Box]:
    """Cut an image into boxes of at most ``n_pixels`` pixels that are nearly square in space.

    A filter reaches equally far in space along all axes, so a square box needs the fewest
    additional pixels around it.
    """
    counts = [1] * len(shape)
    sides = list(shape)
    while math.prod(sides) > n_pixels:
        extents = [
            side * step if side > 1 else 0 for side, step in zip(sides, spacing, strict=True)
        ]
        axis = int(np.argmax(extents))
        counts[axis] += 1
        sides[axis] = -(-shape[axis] // counts[axis])
    cuts = [
        [slice(size * i // n, size * (i + 1) // n) for i in range(n)]
        for size, n in zip(shape, counts, strict=True)
    ]
    yield from product(*cuts)
