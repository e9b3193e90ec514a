"""Gaussian kernels between all pairs of regions: the dense CRF of [1]_, with regions as its points.

Each of n points (up to some thousand) has a feature vector and a size, the number of pixels that it
stands for. All n^2 kernel values are computed directly, twice: once to normalize the kernels and
to count the pairs that matter, once to write these pairs. ``features`` (D, width) has one column
for each point, so that a vector holds one feature of 16 points; columns beyond n are padding.

`hybridseg.pairwise.regions` calls `point_pairs`. The loops over points are shared among numba's
threads. Each point's pairs have places of their own, so the result does not depend on the threads.

References
----------
.. [1] P. Krähenbühl, V. Koltun, "Efficient inference in fully connected CRFs with Gaussian edge
   potentials", NIPS, 2011, equation (3).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel, parallel_kernel
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.padding import whole
from hybridseg.kernels.vectors.way import way

Singles = NDArray[np.float32]

#: Numbers in a vector.
LANES = 16


def point_pairs(
    features: Singles, splits: NDArray[np.int64], weights: Singles, sizes: Singles, least: float
) -> tuple[NDArray[np.int32], NDArray[np.int32], Singles]:
    """List the pairs r < s with the sums of their normalized Gaussian kernels.

    With ``k = exp(-|f_r - f_s|^2 / 2)`` and ``d_r = sum_s n_s k_rs``, the strength of a pair is the
    sum of ``w n_r n_s k / sqrt(d_r d_s)`` over the kernels.

    Parameters
    ----------
    features : (D, width) float32
        One column for each point, padded to a multiple of ``LANES`` columns. The features of all
        kernels follow one another, each divided by its standard deviation.
    splits : (m + 1,) int64
        Kernel k uses the rows ``splits[k]`` to ``splits[k + 1] - 1``.
    weights : (m,) float32
    sizes : (n,) float32
        The number of pixels of each point, > 0.
    least : float
        Pairs are left out if no kernel value is above this.

    Returns
    -------
    i, j : (E,) int32
    strengths : (E,) float32
    """
    vectors = way()
    shares, starts = _measure(features, splits, weights, sizes, np.float32(least), vectors)
    return _write(features, splits, shares, starts, np.float32(least), vectors)


@kernel
def _likeness(
    features: Singles, first: int, last: int, r: int, start: int, out: Singles, vectors: Any
) -> None:
    """Write ``exp(-|f_r - f_s|^2 / 2)`` to ``out`` for all points s from ``start`` on.

    The features are the rows ``first`` to ``last - 1``. ``start`` must be a multiple of LANES.
    """
    width = features.shape[1]
    if vectors is None:
        for s in range(start, width):
            total = np.float32(0)
            for d in range(first, last):
                total += (features[d, s] - features[d, r]) ** 2
            out[s] = np.exp(np.float32(-0.5) * total)
        return
    zero, half = simd.fill(np.float32(0), LANES), simd.fill(np.float32(-0.5), LANES)
    for s in range(start, width, LANES):
        squares = zero
        for d in range(first, last):
            here = simd.fill(features[d, r], LANES)
            difference = simd.load(features, d * width + s, LANES) - here
            squares = simd.fma(difference, difference, squares)
        simd.store(out, s, simd.exp(half * squares))


@parallel_kernel
def _measure(features, splits, weights, sizes, least, vectors):
    """Return each point's factor w^(1/2) n / d^(1/2) for every kernel, and its pairs' places.

    The product of two points' factors and their kernel value is their strength. The results are
    ``shares`` (m, n) and ``starts`` (n + 1,).
    """
    n, m, width = len(sizes), len(weights), features.shape[1]
    shares, counts = np.empty((m, n), np.float32), np.zeros(n + 1, np.int64)
    for r in prange(n):
        likeness, most = np.empty(width, np.float32), np.zeros(width, np.float32)
        for k in range(m):
            _likeness(features, splits[k], splits[k + 1], r, 0, likeness, vectors)
            total = 0.0
            for s in range(n):
                total += sizes[s] * likeness[s]
                most[s] = max(most[s], likeness[s])
            shares[k, r] = np.sqrt(weights[k] / total) * sizes[r]
        # the pairs of r with later points, so each pair counts once
        count = 0
        for s in range(r + 1, n):
            count += most[s] > least
        counts[r + 1] = count
    return shares, np.cumsum(counts)


@parallel_kernel
def _write(features, splits, shares, starts, least, vectors):
    """Write the pairs of each point to its places in ``i``, ``j`` and ``strengths``."""
    m, n, width = len(shares), shares.shape[1], features.shape[1]
    i, j = np.empty(starts[n], np.int32), np.empty(starts[n], np.int32)
    strengths = np.empty(starts[n], np.float32)
    for r in prange(n):
        likeness, most = np.empty(width, np.float32), np.zeros(width, np.float32)
        sums, place = np.zeros(width, np.float32), starts[r]
        for k in range(m):
            # vectors begin at a multiple of LANES, at or before point r + 1
            start = whole(r + 1, LANES)
            _likeness(features, splits[k], splits[k + 1], r, start, likeness, vectors)
            for s in range(r + 1, n):
                sums[s] += shares[k, r] * shares[k, s] * likeness[s]
                most[s] = max(most[s], likeness[s])
        for s in range(r + 1, n):
            if most[s] > least:
                i[place], j[place], strengths[place] = r, s, sums[s]
                place += 1
    return i, j, strengths
