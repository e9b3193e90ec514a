"""Slow twins of ``kernels.superpixels.slic_centers``, one pixel at a time."""

from __future__ import annotations

from itertools import product

import numpy as np


def channels_of(quads):
    """The planes (4 G, D, H, P) of the channels."""
    return np.moveaxis(quads, -1, 1).reshape(-1, *quads.shape[1:-1])


def center_sums(quads, labels, n_centers):
    channels = channels_of(quads)
    sums = np.zeros((n_centers, len(channels) + 4), np.int64)
    for pixel in np.ndindex(labels.shape):
        if labels[pixel] >= 0:
            sums[labels[pixel]] += np.array([*channels[(slice(None), *pixel)], *pixel, 1])
    return sums


def squared_gradient(channels, shape, pixel):
    total = 0
    for axis, size in enumerate(shape):
        ends = []
        for step in (-1, 1):
            place = list(pixel)
            place[axis] = min(max(place[axis] + step, 0), size - 1)
            ends.append(channels[(slice(None), *place)].astype(int))
        total += ((ends[1] - ends[0]) ** 2).sum()
    return total


def leave_edges(quads, inside, bounds, centers):
    """New centers; the kernel writes them in place."""
    new, channels = centers.copy(), channels_of(quads)
    for k, cell in enumerate(np.ndindex(*(len(b) - 1 for b in bounds))):
        low = np.array([b[c] for b, c in zip(bounds, cell, strict=True)])
        high = np.array([b[c + 1] - 1 for b, c in zip(bounds, cell, strict=True)])
        least = np.inf
        for offset in sorted(product((-1, 0, 1), repeat=3), key=np.count_nonzero):
            pixel = tuple(np.clip((low + high) // 2 + offset, low, high))
            slope = squared_gradient(channels, inside.shape, pixel)
            if inside[pixel] and slope < least:
                least = slope
                new[k] = [*channels[(slice(None), *pixel)], *pixel]
    return new
