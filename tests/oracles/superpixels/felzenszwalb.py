"""Slow twins of ``kernels.superpixels.felzenszwalb``, with sets and the paper's predicate."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np


def edge_costs(planes, inside, offsets):
    costs = np.full((len(offsets), *inside.shape), np.inf)
    for k, offset in enumerate(offsets):
        for pixel in np.ndindex(inside.shape):
            other = tuple(np.add(pixel, offset))
            within = all(0 <= o < n for o, n in zip(other, inside.shape, strict=True))
            if within and inside[pixel] and inside[other]:
                change = planes[(slice(None), *pixel)].astype(float) - planes[:, *other]
                costs[(k, *pixel)] = math.sqrt((change**2).sum())
    return costs


def part_edges(costs, limits):
    """Edges (cost, pixel, direction) with a cost from one limit to below the next."""
    edges = [(c, pixel, k) for k, row in enumerate(costs) for pixel, c in enumerate(row)]
    return [e for low, high in pairwise(limits) for e in edges if low <= e[0] < high]


def blur(values, taps):
    """The filtered row; each neighbor is found in the row with its mirror images on both sides."""
    n, radius = values.shape[1], len(taps) - 1
    mirrored = [i % (2 * n) for i in range(-radius, n + radius)]
    long = values[:, [min(i, 2 * n - 1 - i) for i in mirrored]].astype(float)
    weights = [*taps[:0:-1], *taps]
    return sum(w * long[:, k : k + n] for k, w in enumerate(weights))


def sort_edges(costs):
    """The edges (cost, pixel, direction) in order; the kernel packs them."""
    edges = [(c, pixel, k) for k, row in enumerate(costs) for pixel, c in enumerate(row)]
    return sorted((e for e in edges if e[0] < np.inf), key=lambda e: e[0])


def merge_edges(edges, shifts, scale, min_size, inside):
    """Regions from the twin's edges; the internal difference is the costliest merge so far."""
    region = {pixel: {pixel} for pixel in range(len(inside))}
    internal = dict.fromkeys(region, 0.0)
    where = {pixel: pixel for pixel in region}

    def merge(a, b, cost):
        internal[a] = max(internal[a], internal[b], cost)
        for pixel in region[b]:
            where[pixel] = a
        region[a] |= region.pop(b)

    for cost, pixel, k in edges:
        a, b = where[pixel], where[pixel + shifts[k]]
        if a != b and cost < min(internal[r] + scale / len(region[r]) for r in (a, b)):
            merge(a, b, cost)
    for cost, pixel, k in edges:
        a, b = where[pixel], where[pixel + shifts[k]]
        if a != b and min(len(region[a]), len(region[b])) < min_size:
            merge(a, b, cost)
    numbers = {}
    return np.array(
        [
            numbers.setdefault(where[p], len(numbers)) if inside[p] else -1
            for p in range(len(inside))
        ]
    )
