"""Products for eight pixels, computed one by one."""

from __future__ import annotations

import numpy as np

LANES = 8


def steps_at(array, start, alike):
    return tuple(int(array[start + k]) for k in range(len(alike)))


def doubles(array, i):
    return [float(array[i + k]) for k in range(LANES)]


def store_narrow(array, i, vector):
    for k in range(LANES):
        array[i + k] = array.dtype.type(vector[k])


def laplacian(links, steps, ground, x, i):
    """The product in float64."""
    links, ground, x = (np.asarray(a, np.float64) for a in (links, ground, x))
    return [
        ground[j] * x[j]
        + sum(
            row[j] * (x[j] - x[j + step]) + row[j - step] * (x[j] - x[j - step])
            for row, step in zip(links, steps, strict=True)
        )
        for j in range(i, i + LANES)
    ]
