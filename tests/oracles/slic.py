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


def centre_sums(planes, labels, bounds):
    n_centres = np.prod([len(b) - 1 for b in bounds])
    sums = np.zeros((n_centres, len(planes) + 4))
    for pixel in np.ndindex(labels.shape):
        if labels[pixel] >= 0:
            sums[labels[pixel]] += [*planes[(slice(None), *pixel)], *pixel, 1]
    return sums


def merge_small(edges, sums, sizes, min_size):
    """Groups as sets of components, merged by the same rounds."""
    groups = {i: {i} for i in range(len(sizes))}
    where = {i: i for i in groups}

    def size(g):
        return sum(sizes[i] for i in groups[g])

    def mean(g):
        return sum(sums[i] for i in groups[g]) / size(g)

    while True:
        choice = {}
        for g in groups:
            if size(g) < min_size:
                touching = {where[b] for a, b in edges if where[a] == g}
                touching |= {where[a] for a, b in edges if where[b] == g}
                touching.discard(g)
                if touching:
                    choice[g] = min(touching, key=lambda h: ((mean(h) - mean(g)) ** 2).sum())
        merged = False
        for g in sorted(choice):
            small, other = where[g], where[choice[g]]
            if small != other and size(small) < min_size:
                groups[other] |= groups.pop(small)
                where.update(dict.fromkeys(groups[other], other))
                merged = True
        if not merged:
            return np.array([where[i] for i in range(len(sizes))])
