"""Interpolation by its definition, and the V-cycle with matrices written out."""

from __future__ import annotations

from itertools import product

import numpy as np


def neighbors(links, offsets, place):
    """Offsets and strengths of a pixel's links; ``links`` is (m, *shape)."""
    shape = links.shape[1:]
    for row, offset in zip(links, offsets, strict=True):
        for sign in (1, -1):
            there = tuple(a + sign * o for a, o in zip(place, offset, strict=True))
            if all(0 <= a < n for a, n in zip(there, shape, strict=True)):
                strength = row[place if sign == 1 else there]
                yield tuple(sign * o for o in offset), strength


def interpolation(links, offsets, ground):
    """P (n, n_coarse) from links (m, *shape) and ground ``shape``: Dendy (1982), any dimension.

    Pixels with even coordinates are coarse. Each other pixel takes the weighted mean of the pixels
    that its links reach after projection on its odd axes.
    """
    shape = ground.shape
    number = np.arange(ground.size).reshape(shape)
    coarse = np.arange(np.prod([(n + 1) // 2 for n in shape]))
    coarse = coarse.reshape([(n + 1) // 2 for n in shape])
    rows = np.zeros((ground.size, coarse.size))
    places = sorted(product(*map(range, shape)), key=lambda p: sum(a % 2 for a in p))
    for place in places:
        odd = [a % 2 for a in place]
        if not any(odd):
            rows[number[place], coarse[tuple(a // 2 for a in place)]] = 1
            continue
        total, mean = ground[place], np.zeros(coarse.size)
        for offset, strength in neighbors(links, offsets, place):
            folded = tuple(o * parity for o, parity in zip(offset, odd, strict=True))
            if any(folded):
                total += strength
                there = tuple(a + o for a, o in zip(place, folded, strict=True))
                mean += strength * rows[number[there]]
        rows[number[place]] = mean / total if total > 0 else 0
    return rows


def coarse_links(transfer, operator):
    """The negative Galerkin product without its diagonal."""
    out = -transfer.T @ operator @ transfer
    return out - np.diag(np.diag(out))


def restrict(transfer, x):
    return x @ transfer


def prolong(transfer, x):
    return x @ transfer.T


def invert(matrix):
    return np.linalg.inv(matrix)


def cycle(levels, right):
    """The result of a V-cycle for ``right``.

    ``levels`` go from a grid to the coarsest. Each holds the matrix, the interpolation from the
    next level (None on the coarsest), and the factors of its Chebyshev iteration.
    """
    (operator, transfer, keeps, gains), *below = levels
    if transfer is None:
        return np.linalg.solve(operator, right)

    def smoothed(x):
        step = np.zeros_like(x)
        for keep, gain in zip(keeps, gains, strict=True):
            step = keep * step + gain * (right - operator @ x) / np.diag(operator)
            x = x + step
        return x

    x = smoothed(np.zeros_like(right))
    x = x + transfer @ cycle(below, transfer.T @ (right - operator @ x))
    return smoothed(x)
