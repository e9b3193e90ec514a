"""Boxes of pixels: around a mask, and those that an image is cut into to save memory."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

#: One slice with both ends for each spatial axis.
Box = tuple[slice, ...]


def boxes(shape: tuple[int, ...], spacing: Sequence[float], n_pixels: int) -> Iterator[Box]:
    """Divide an image into boxes of at most ``n_pixels`` pixels that are nearly square in space.

    A filter has the same radius in space along all axes, so a square box needs the smallest halo.
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


def bounding_box(mask: NDArray[np.bool_]) -> Box:
    """Return the smallest box with all true pixels; an empty box if there are none."""
    found = find_objects(np.ascontiguousarray(mask).view(np.int8))
    return found[0] if found else (slice(0, 0),) * mask.ndim
