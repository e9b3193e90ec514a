"""Laplacians of image grids, without any matrix: the walker's system, products and smoothing.

All arrays are flat and carry a border of one pixel along every axis longer than one, so that a
neighbour is at a fixed distance in memory and no loop asks where the image ends. ``links[o, i]`` is
the strength with which i and ``i + offsets[o]`` pull at each other, and ``ground[i]`` that with
which i is pulled to zero: ``(A x)_i = ground_i x_i + sum_j links_ij (x_i - x_j)``. Differences keep
the null space exact, so that weak links survive in 32 bits. Pixels that are not unknowns, and the
border, have no links and ``ground`` one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels import _simd as simd
from hybridseg.kernels._compile import kernel

Real = NDArray[np.floating[Any]]
Whole = NDArray[np.int64]

_LANES = 8


@kernel
def _product(links, offsets, ground, row, i):
    """``(A x)_i`` of one row of ``x``."""
    here = row[i]
    total = ground[i] * here
    for o in range(len(offsets)):
        step = offsets[o]
        total += links[o, i] * (here - row[i + step])
        total += links[o, i - step] * (here - row[i - step])
    return total


@kernel
def _products(links, offsets, ground, x, first, i):
    """``(A x)_i`` and the following ones, of the row that begins at element ``first`` of ``x``."""
    here = simd.load(x, first + i, _LANES)
    total = simd.load(ground, i, _LANES) * here
    n = len(ground)
    for o in range(len(offsets)):
        step = offsets[o]
        ahead, behind = (
            simd.load(x, first + i + step, _LANES),
            simd.load(x, first + i - step, _LANES),
        )
        to, fro = simd.load(links, o * n + i, _LANES), simd.load(links, o * n + i - step, _LANES)
        total = simd.fma(to, here - ahead, simd.fma(fro, here - behind, total))
    return total


def multiply(
    links: Real, offsets: Whole, ground: Real, x: Real, right: Real, sign: float, out: Real
) -> None:
    """Write ``right + sign A x`` to ``out``, for each row of ``x`` (K, n)."""
    _multiply(links, offsets, ground, x, right, sign, out, True if simd.ENABLED else None)


@kernel
def _multiply(links, offsets, ground, x, right, sign, out, vectors):
    n, margin = x.shape[1], offsets.max()
    factor = out.dtype.type(sign)
    for k in range(len(x)):
        i = margin
        if vectors is not None:
            wide = simd.fill(factor, _LANES)
            while i + _LANES <= n - margin:
                product = _products(links, offsets, ground, x, k * n, i)
                base = simd.load(right, k * n + i, _LANES)
                simd.store(out, k * n + i, simd.fma(wide, product, base))
                i += _LANES
        while i < n - margin:
            out[k, i] = right[k, i] + factor * _product(links, offsets, ground, x[k], i)
            i += 1


def smooth(
    links: Real,
    offsets: Whole,
    ground: Real,
    inverse: Real,
    x: Real,
    right: Real,
    step: Real,
    keep: float,
    gain: float,
    out: Real,
) -> None:
    """Make one step of the Chebyshev iteration for ``A x = right``, for each row.

    ``step`` becomes ``keep step + gain inverse (right - A x)``, and ``out`` is ``x + step``.
    """
    vectors = True if simd.ENABLED else None
    _smooth(links, offsets, ground, inverse, x, right, step, keep, gain, out, vectors)


@kernel
def _smooth(links, offsets, ground, inverse, x, right, step, keep, gain, out, vectors):
    n, margin = x.shape[1], offsets.max()
    old, new = out.dtype.type(keep), out.dtype.type(gain)
    for k in range(len(x)):
        i = margin
        if vectors is not None:
            wide_old, wide_new = simd.fill(old, _LANES), simd.fill(new, _LANES)
            while i + _LANES <= n - margin:
                at = k * n + i
                rest = simd.load(right, at, _LANES) - _products(links, offsets, ground, x, k * n, i)
                rest = rest * simd.load(inverse, i, _LANES)
                moved = simd.fma(wide_old, simd.load(step, at, _LANES), wide_new * rest)
                simd.store(step, at, moved)
                simd.store(out, at, simd.load(x, at, _LANES) + moved)
                i += _LANES
        while i < n - margin:
            rest = right[k, i] - _product(links, offsets, ground, x[k], i)
            step[k, i] = old * step[k, i] + new * (inverse[i] * rest)
            out[k, i] = x[k, i] + step[k, i]
            i += 1


def curvature(links: Real, offsets: Whole, ground: Real, along: Real, product: Real) -> float:
    """Write ``A along`` to ``product``, both (n,); returns the inner product of the two."""
    return _curvature(links, offsets, ground, along, product, True if simd.ENABLED else None)


@kernel
def _curvature(links, offsets, ground, along, product, vectors):
    n, margin = len(along), offsets.max()
    i, total = margin, 0.0
    if vectors is not None:
        sums = simd.fill(0.0, _LANES)
        while i + _LANES <= n - margin:
            found = _products(links, offsets, ground, along, 0, i)
            simd.store(product, i, found)
            sums = simd.fma(found, simd.load(along, i, _LANES), sums)
            i += _LANES
        total = simd.total(sums)
    while i < n - margin:
        product[i] = _product(links, offsets, ground, along, i)
        total += product[i] * along[i]
        i += 1
    return total


@kernel
def ground_seeds(
    weights: Real, offsets: Whole, seeds: NDArray[np.int32], ground: Real, right: Real
) -> None:
    """Make the walker's system of the weights of all edges: seeds become ground and right side.

    Parameters
    ----------
    weights : (m, n) float64
        Of the edge between i and ``i + offsets[o]``; 0 where there is none. Afterwards the links
        between unknowns alone.
    seeds : (n,) int32
        -1 at the unknowns, the label at seeds, -2 elsewhere and on the border.
    ground : (n,) float64
        Overwritten.
    right : (K, n) float64, zeros
        Row k becomes the pull of the seeds of label k; labels from K on have no row.
    """
    margin = offsets.max()
    n = len(ground)
    for i in range(n):
        ground[i] = 1.0
        if seeds[i] != -1:
            continue
        pull = 0.0
        for o in range(len(offsets)):
            for there, weight in (
                (i + offsets[o], weights[o, i]),
                (i - offsets[o], weights[o, i - offsets[o]]),
            ):
                label = seeds[there]
                if label >= 0:
                    pull += weight
                    if label < len(right):
                        right[label, i] += weight
        ground[i] = pull
    for o in range(len(offsets)):
        for i in range(n):
            if i >= n - margin or seeds[i] != -1 or seeds[i + offsets[o]] != -1:
                weights[o, i] = 0.0


@kernel
def contrast_weights(
    colors: NDArray[np.float32], offsets: Whole, scales: Real, floor: float, weights: Real
) -> None:
    """Write ``exp(-scales[o] |c_i - c_(i + offsets[o])|^2) + floor`` to ``weights`` (m, n).

    ``colors`` is (n, C), in the bordered layout; what is written across the border means nothing.
    """
    n, n_channels = colors.shape
    for o in range(len(offsets)):
        step = offsets[o]
        for i in range(n - step):
            square = 0.0
            for channel in range(n_channels):
                here, there = colors[i, channel], colors[i + step, channel]
                difference = np.float64(here) - np.float64(there)
                square += difference * difference
            weights[o, i] = np.exp(-scales[o] * square) + floor
