"""Points and their simplices one by one, with names as Python's integers."""

from __future__ import annotations

import numpy as np

from hybridseg.kernels.dense.simplices import N_CACHE_LINES, RUN


def in_64_bits(number):
    """An integer after it wraps around in a signed word of 64 bits."""
    return (int(number) + 2**63) % 2**64 - 2**63


def load(features, begin, scales):
    """Rows 1..d of the scaled points; the last point is repeated."""
    points = [features[min(begin + p, len(features) - 1)] for p in range(RUN)]
    return np.array(points, float).T * np.asarray(scales)[:, np.newaxis]


def lift(rows, start):
    """Lift points; return the distances to the nearest integers, these minus ``start``, and sums.

    ``rows`` (d, n) are scaled coordinates. The matrix is E of Adams et al. (2010), section 3.1:
    row j has -j before the diagonal and ones after it.
    """
    n_dims, n = rows.shape
    lifted = np.zeros((n_dims + 1, n))
    for p in range(n):
        later = 0.0
        for j in range(n_dims, 0, -1):
            lifted[j, p] = later - j * rows[j - 1, p]
            later += rows[j - 1, p]
        lifted[0, p] = later
    whole = np.rint(lifted)
    return lifted - whole, whole - np.asarray(start)[:, np.newaxis], whole.sum(axis=0)


def rank(rest):
    """The rank of each coordinate in descending order; of equal ones the first comes first."""
    ranks = np.empty_like(rest)
    for p, column in enumerate(rest.T):
        ranks[np.argsort(-column, kind="stable"), p] = np.arange(len(rest))
    return ranks


def wrap(ranks, excess, origin):
    """Ranks plus excess modulo the number of ranks; each wrap subtracts 1 from the origin."""
    moved = ranks + excess
    return moved % len(ranks), origin - moved // len(ranks)


def sort(rows):
    return np.sort(rows, axis=0)[::-1]


def share(falling):
    return np.concatenate([falling[:-1] - falling[1:], 1 - (falling[:1] - falling[-1:])])


def write_shares(shares, excess, count):
    """The shares (count, d + 1) of the corners of remainder 0 to d."""
    n_corners = len(shares)
    out = np.empty((count, n_corners), shares.dtype)
    for p in range(count):
        for place in range(n_corners):
            out[p, int(n_corners - 1 - excess[p] - place) % n_corners] = shares[place, p]
    return out


def name(origin, strides, word):
    """The sum of coordinates times strides."""
    return [
        in_64_bits(sum(int(c) * int(s) for c, s in zip(column, strides[word], strict=True)))
        for column in origin.T
    ]


def name_simplices(bases, ranks, code):
    """Names of the base and the ranks as digits, and cache lines by Fibonacci hashing."""
    n_axes = len(ranks)
    digit = 2 ** (code // n_axes)
    names, lines = [], []
    for base, column in zip(bases[0], ranks.T, strict=True):
        low = sum(int(place) * digit**axis for axis, place in enumerate(column))
        names.append(in_64_bits((int(base) << code) + low))
        lines.append(names[-1] * 0x9E3779B97F4A7C15 % 2**64 * N_CACHE_LINES // 2**64)
    return names, lines


def recall(lines, count, names, known):
    """The cached entry for each point's simplex, and the points with the entry of another one."""
    places = lines[1, :count]
    return known[places], [p for p in range(count) if names[places[p]] != lines[0, p]]


def name_corners(bases, ranks, strides, points):
    """Names (words, d + 1, points): the corner of remainder c is back along the last c axes."""
    n_words, n_axes = strides.shape
    keys = np.empty((n_words, n_axes, len(points)), np.int64)
    for word in range(n_words):
        for c in range(n_axes):
            for i, p in enumerate(points):
                back = sum(
                    int(strides[word, a]) for a in range(n_axes) if ranks[a, p] >= n_axes - c
                )
                keys[word, c, i] = int(bases[word, p]) + c * (word == 0) - back
    return keys
