"""Label maps and images of sizes around the size of a word."""

from __future__ import annotations

import numpy as np

# Shapes, and whether they are flat (images are); many widths are near the 64 pixels of a word.
SHAPES = [
    ((1, 1, 1), True),
    ((1, 1, 9), True),
    ((1, 9, 1), True),
    ((1, 2, 63), True),
    ((1, 12, 64), True),
    ((1, 23, 65), True),
    ((1, 17, 200), True),
    ((1, 6, 7), False),
    ((4, 1, 1), False),
    ((5, 9, 64), False),
    ((6, 7, 70), False),
]


def blobs(shape, rng):
    """Labels with large parts and specks."""
    rough = rng.random(tuple(-(-n // 4) for n in shape)) < 0.5
    for axis, n in enumerate(shape):
        rough = np.repeat(rough, 4, axis=axis).take(range(n), axis=axis)
    return (rough ^ (rng.random(shape) < 0.1)).astype(np.uint8)


def label_maps(shape, rng):
    """A map without label 1, a map of label 1 alone, and a map of both labels."""
    yield np.zeros(shape, np.uint8)
    yield np.ones(shape, np.uint8)
    yield blobs(shape, rng)
