"""Random walks with matrices written out, in float64."""

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
    """The new step, and the new x."""
    step = keep * step + gain * inverse * (right - x @ matrix(links, offsets, ground))
    return step, x + step


def ground_seeds(weights, offsets, seeds, n_rows):
    """Links, ground and right-hand side of the system of the unknown pixels."""
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


def random_walker(colors, seeds, beta, spacing, valid):
    """Probabilities (*shape, L) from colors in 0..1 by a dense solve; NaN outside.

    The equations are 1, 8 and 10 of Grady (2006), with the weights of scikit-image and distances
    in multiples of the smallest spacing.
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
