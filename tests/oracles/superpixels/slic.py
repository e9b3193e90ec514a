"""Slow twins of ``kernels.superpixels.slic``, one pixel and one candidate at a time."""

from __future__ import annotations

from itertools import product

import numpy as np

from tests.oracles.superpixels.slic_centers import center_sums, channels_of


def cell_of(pixel, bounds):
    """The grid cell (z, y, x) of a pixel."""
    return tuple(
        int(np.searchsorted(b, p, side="right")) - 1 for p, b in zip(pixel, bounds, strict=True)
    )


def half_square(distance, weight):
    """The square of a weighted distance in float32; the caller halves it."""
    distance = np.float32(distance) * np.float32(weight)
    return distance * distance


def candidate_costs(pixel, quads, bounds, centers, alive, weights):
    """The costs {center: cost} of the nonempty centers of the 9 or 27 cells around a pixel."""
    grid, half = tuple(len(b) - 1 for b in bounds), np.float32(0.5)
    color = channels_of(quads)[(slice(None), *pixel)].astype(int)
    found = {}
    for offset in product((-1, 0, 1), repeat=3):
        cell = np.add(cell_of(pixel, bounds), offset)
        if (cell < 0).any() or (cell >= grid).any():
            continue
        k = int(np.ravel_multi_index(tuple(cell), grid))
        if alive[k]:
            center = np.rint(centers[k, :-3]).astype(int)
            z, y, x = (
                half_square(np.float32(p) - c, w)
                for p, c, w in zip(pixel, centers[k, -3:], weights, strict=True)
            )
            place = int(np.int32((z + y) * half + half)) + int(np.int32(x * half + half))
            found[k] = ((center**2).sum() + 1) // 2 - (center * color).sum() + place
    return found


def assign_pixels(quads, bounds, centers, alive, weights, labels, n_iter=1):
    """New labels, sums, centers and the number of changed pixels; labels start as the cells."""
    grid, centers = tuple(len(b) - 1 for b in bounds), centers.copy()
    old = labels.copy()
    for pixel in np.argwhere(labels >= 0):
        old[tuple(pixel)] = np.ravel_multi_index(cell_of(pixel, bounds), grid)
    for _ in range(n_iter):
        new = old.copy()
        for pixel in map(tuple, np.argwhere(labels >= 0)):
            found = candidate_costs(pixel, quads, bounds, centers, alive, weights)
            new[pixel] = min(found, key=lambda k: (found[k], k))
        n_changed, old = np.count_nonzero(new != old), new
        sums = center_sums(quads, new, len(centers))
        filled = sums[:, -1] > 0
        centers[filled] = sums[filled, :-1] / sums[filled, -1:]
        if n_changed == 0:
            break
    return old, sums, centers, n_changed
