"""Slow twins of ``hybridseg.kernels.slic``, in float64, one pixel and one candidate at a time."""

from __future__ import annotations

from itertools import product

import numpy as np


def cell_of(pixel, bounds):
    """Grid cell (z, y, x) of a pixel."""
    return tuple(
        int(np.searchsorted(b, p, side="right")) - 1 for p, b in zip(pixel, bounds, strict=True)
    )


def candidate_distances(pixel, planes, bounds, centres, alive, weights):
    """{centre: squared distance} for the living centres of the 9 or 27 cells around a pixel."""
    grid = tuple(len(b) - 1 for b in bounds)
    found = {}
    for offset in product((-1, 0, 1), repeat=3):
        cell = np.add(cell_of(pixel, bounds), offset)
        if (cell < 0).any() or (cell >= grid).any():
            continue
        k = int(np.ravel_multi_index(tuple(cell), grid))
        if alive[k]:
            color = planes[(slice(None), *pixel)].astype(float) - centres[k, :-3]
            place = (np.array(pixel) - centres[k, -3:].astype(float)) * weights
            found[k] = (color**2).sum() + (place**2).sum()
    return found


def assign_pixels(planes, bounds, centres, alive, weights, labels):
    """New labels, where the kernel writes in place."""
    new = labels.copy()
    for pixel in np.ndindex(labels.shape):
        if labels[pixel] >= 0:
            found = candidate_distances(pixel, planes, bounds, centres, alive, weights)
            new[pixel] = min(found, key=lambda k: (found[k], k))
    return new


def centre_sums(planes, labels, n_centres):
    sums = np.zeros((n_centres, len(planes) + 4), np.int64)
    for pixel in np.ndindex(labels.shape):
        if labels[pixel] >= 0:
            sums[labels[pixel]] += np.array([*planes[(slice(None), *pixel)], *pixel, 1])
    return sums


def squared_gradient(planes, shape, pixel):
    total = 0
    for axis, size in enumerate(shape):
        ends = []
        for step in (-1, 1):
            place = list(pixel)
            place[axis] = min(max(place[axis] + step, 0), size - 1)
            ends.append(planes[(slice(None), *place)].astype(int))
        total += ((ends[1] - ends[0]) ** 2).sum()
    return total


def leave_edges(planes, inside, bounds, centres):
    """New centres, where the kernel writes in place."""
    new = centres.copy()
    for k, cell in enumerate(np.ndindex(*(len(b) - 1 for b in bounds))):
        low = np.array([b[c] for b, c in zip(bounds, cell, strict=True)])
        high = np.array([b[c + 1] - 1 for b, c in zip(bounds, cell, strict=True)])
        least = np.inf
        for offset in sorted(product((-1, 0, 1), repeat=3), key=np.count_nonzero):
            pixel = tuple(np.clip((low + high) // 2 + offset, low, high))
            slope = squared_gradient(planes, inside.shape, pixel)
            if inside[pixel] and slope < least:
                least = slope
                new[k] = [*planes[(slice(None), *pixel)], *pixel]
    return new
