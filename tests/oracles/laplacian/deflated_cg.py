"""Parts by flood fill, sums over masks, and iterations with matrices written out."""

from __future__ import annotations

import numpy as np


def strong_parts(links, ground, offsets, weak):
    """Parts by flood fill from each pixel in turn."""
    n = len(ground)
    strong, linked = np.zeros((n, n), bool), np.asarray(ground) != 1
    for row, step in zip(links, offsets, strict=True):
        for i in np.flatnonzero(row):
            linked[[i, i + step]] = True
            if row[i] >= weak:
                strong[i, i + step] = strong[i + step, i] = True
    part, n_parts = np.full(n, -1), 0
    for i in range(n):
        if not linked[i] or part[i] >= 0:
            continue
        waiting = [i]
        while waiting:
            here = waiting.pop()
            if part[here] < 0:
                part[here] = n_parts
                waiting.extend(np.flatnonzero(strong[here]))
        n_parts += 1
    return part, n_parts


def sum_parts(part, x, n_parts):
    return np.array([x[part == p].sum() for p in range(n_parts)])


def add_parts(part, values, out):
    return out + np.where(part >= 0, values[np.maximum(part, 0)], 0)


def find_pulls(links, steps, ground, part):
    """The links that leave parts: pixel, other pixel or -1 for the ground, and strength."""
    pulls = [(i, -1, g) for i, g in enumerate(ground) if part[i] >= 0 and g != 0]
    for row, step in zip(links, steps, strict=True):
        for i in np.flatnonzero(row):
            if part[i] != part[i + step]:
                pulls.append((i, i + step, row[i]))
    return pulls


def take_pulls(operator, part, size, x, sums):
    return sums - sum_parts(part, size * np.asarray(x, float) @ operator, len(sums))


def _preconditioned(part, values, found, size):
    """The preconditioned residual: the sum of the cycle's result and each part's value."""
    return add_parts(part, values, size * np.asarray(found, float))


def measure(part, values, found, size, rest):
    step = _preconditioned(part, values, found, size)
    return np.abs(step).max(), step @ rest


def turn(part, values, found, size, ratio, operator, along):
    """The new direction, and its product with the operator."""
    along = _preconditioned(part, values, found, size) + ratio * along
    return along, along @ operator


def advance(length, along, product, x, rest):
    return x + length * along, rest - length * product
