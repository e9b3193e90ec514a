"""Random walks with matrices written out, in 64 bits."""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components


def matrix(links, offsets, ground):
    """The operator as a dense matrix (n, n)."""
    out = np.diag(np.asarray(ground, float))
    for row, step in zip(links, offsets, strict=True):
        for i in np.flatnonzero(row):
            j, w = i + step, float(row[i])
            out[i, i] += w
            out[j, j] += w
            out[i, j] -= w
            out[j, i] -= w
    return out


def multiply(links, offsets, ground, x, right, sign):
    return right + sign * x @ matrix(links, offsets, ground)


def smooth(links, offsets, ground, inverse, x, right, step, keep, gain):
    """The new step and the new x."""
    step = keep * step + gain * inverse * (right - x @ matrix(links, offsets, ground))
    return step, x + step


def ground_seeds(weights, offsets, seeds, n_rows):
    """Links, ground and right side of the system of the unknowns."""
    links, n = np.zeros_like(weights), len(seeds)
    ground, right = (np.asarray(seeds) != -1).astype(float), np.zeros((n_rows, n))
    for o, step in enumerate(offsets):
        for i in range(n - step):
            for here, there in ((i, i + step), (i + step, i)):
                if seeds[here] == -1 and seeds[there] >= 0:
                    ground[here] += weights[o, i]
                    if seeds[there] < n_rows:
                        right[seeds[there], here] += weights[o, i]
            if seeds[i] == -1 and seeds[i + step] == -1:
                links[o, i] = weights[o, i]
    return links, ground, right


def contrast_weights(colors, offsets, scales, floor):
    colors = np.asarray(colors, float).T
    out = np.zeros((len(offsets), len(colors)))
    for o, step in enumerate(offsets):
        for i in range(len(colors) - step):
            out[o, i] = np.exp(-scales[o] * ((colors[i] - colors[i + step]) ** 2).sum()) + floor
    return out


def neighbours(links, offsets, place):
    """Offsets and strengths of a pixel's links; ``links`` is (m, *shape)."""
    shape = links.shape[1:]
    for row, offset in zip(links, offsets, strict=True):
        for sign in (1, -1):
            there = tuple(a + sign * o for a, o in zip(place, offset, strict=True))
            if all(0 <= a < n for a, n in zip(there, shape, strict=True)):
                strength = row[place if sign == 1 else there]
                yield tuple(sign * o for o in offset), strength


def interpolation(links, offsets, ground):
    """P (n, n_coarse), from (m, *shape) links and ``shape`` ground: Dendy (1982), any dimension.

    Pixels with even coordinates are the coarse ones. Any other takes the mean of the pixels that
    its links lead to once they are projected on its odd axes.
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
        for offset, strength in neighbours(links, offsets, place):
            folded = tuple(o * parity for o, parity in zip(offset, odd, strict=True))
            if any(folded):
                total += strength
                there = tuple(a + o for a, o in zip(place, folded, strict=True))
                mean += strength * rows[number[there]]
        rows[number[place]] = mean / total if total > 0 else 0
    return rows


def coarse_links(transfer, operator):
    """Minus the Galerkin product, without its diagonal."""
    out = -transfer.T @ operator @ transfer
    return out - np.diag(np.diag(out))


def restrict(transfer, x):
    return x @ transfer


def prolong(transfer, x):
    return x @ transfer.T


def strong_parts(links, ground, offsets, weak):
    """Parts by flooding from each pixel in turn."""
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
    """Pixel, other pixel or -1, and strength of all that pulls at a part as a whole."""
    pulls = [(i, -1, g) for i, g in enumerate(ground) if part[i] >= 0 and g != 0]
    for row, step in zip(links, steps, strict=True):
        for i in np.flatnonzero(row):
            if part[i] != part[i + step]:
                pulls.append((i, i + step, row[i]))
    return pulls


def take_pulls(operator, part, size, x, sums):
    return sums - sum_parts(part, size * np.asarray(x, float) @ operator, len(sums))


def _preconditioned(part, values, found, size):
    """The preconditioned residual: what the cycle found, and each part's value."""
    return add_parts(part, values, size * np.asarray(found, float))


def measure(part, values, found, size, rest):
    step = _preconditioned(part, values, found, size)
    return np.abs(step).max(), step @ rest


def turn(part, values, found, size, ratio, operator, along):
    """The new direction, and its product."""
    along = _preconditioned(part, values, found, size) + ratio * along
    return along, along @ operator


def advance(length, along, product, x, rest):
    return x + length * along, rest - length * product


def invert(matrix):
    return np.linalg.inv(matrix)


def cycle(operator, right):
    """What a V-cycle comes near to: the solution."""
    return np.linalg.solve(operator, right)


def random_walker(colors, seeds, beta, spacing, valid):
    """Probabilities (*shape, L) from colours on the scale 0..1, by a dense solve; NaN elsewhere.

    Grady (2006), equations 1, 8 and 10, with the weights of scikit-image
    and distances in multiples of the least spacing.
    """
    shape, n = seeds.shape, seeds.size
    sides = np.divide(spacing, np.min(spacing))
    number = np.arange(n).reshape(shape)
    scale = beta / (10 * colors[valid].std() * np.sqrt(colors.shape[-1]))
    laplacian = np.zeros((n, n))
    for place in product(*map(range, shape)):
        for axis in range(len(shape)):
            there = tuple(a + (axis == b) for b, a in enumerate(place))
            if there[axis] < shape[axis] and valid[place] and valid[there]:
                square = ((colors[place] - colors[there]) ** 2).sum() / sides[axis] ** 2
                w, i, j = np.exp(-scale * square) + 1e-10, number[place], number[there]
                laplacian[[i, j], [i, j]] += w
                laplacian[[i, j], [j, i]] -= w
    flat = np.where(valid, seeds, -1).ravel()
    classes = np.unique(flat[flat >= 0])
    part = connected_components(csr_array(laplacian != 0))[1]
    reached = np.isin(part, part[flat >= 0]) & valid.ravel()
    unknown = reached & (flat < 0)
    proba = np.full((n, len(classes)), np.nan)
    proba[flat >= 0] = flat[flat >= 0, np.newaxis] == classes
    right = -laplacian[np.ix_(unknown, flat >= 0)] @ proba[flat >= 0]
    proba[unknown] = np.linalg.solve(laplacian[np.ix_(unknown, unknown)], right)
    return proba.reshape(*shape, len(classes))
