"""Gaussian kernels between all pairs of points, pair by pair, in float64."""

from __future__ import annotations

import numpy as np


def point_pairs(features, splits, weights, sizes, least):
    n, found = len(sizes), []

    def likeness(k, r, s):
        rows = features[splits[k] : splits[k + 1]].astype(float)
        return np.exp(-0.5 * ((rows[:, r] - rows[:, s]) ** 2).sum())

    sums = [
        [sum(sizes[s] * likeness(k, r, s) for s in range(n)) for r in range(n)]
        for k in range(len(weights))
    ]
    for r in range(n):
        for s in range(r + 1, n):
            each = [likeness(k, r, s) for k in range(len(weights))]
            if max(each, default=0.0) > least:
                strength = sum(
                    w * sizes[r] * sizes[s] * one / np.sqrt(sums[k][r] * sums[k][s])
                    for k, (w, one) in enumerate(zip(weights, each, strict=True))
                )
                found.append((r, s, strength))
    i, j, strengths = zip(*found, strict=True) if found else ((), (), ())
    return np.array(i, int), np.array(j, int), np.array(strengths, float)
