"""Laplacians of image grids, without any matrix: the walker's system, products and smoothing.

All arrays are flat and carry a border of one pixel along every axis longer than one, so that a
neighbor is at a fixed distance in memory and no loop asks where the image ends. ``links[o, i]`` is
the strength with which i and ``i + offsets[o]`` pull at each other, and ``ground[i]`` that with
which i is pulled to zero: ``(A x)_i = ground_i x_i + sum_j links_ij (x_i - x_j)``. Differences keep
the null space exact, so that weak links survive in 32 bits. Pixels that are not unknowns, and the
border, have no links and ``ground`` one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels._compile import inner_kernel, kernel
from hybridseg.kernels.laplacian.stencils import LANES, doubles, laplacian, store_narrow
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.vector_functions import exponential
from hybridseg.kernels.vectors.way import way

Real = NDArray[np.floating[Any]]
Whole = NDArray[np.int64]
#: To the neighbors in memory, one for each row of the links.
Steps = tuple[int, ...]


@inner_kernel
def _product(links, steps, ground, x, i):
    """``(A x)_i``, in the type of ``x``."""
    here = x[i]
    total = ground[i] * here
    for o in range(len(steps)):
        step = steps[o]
        total += links[o, i] * (here - x[i + step])
        total += links[o, i - step] * (here - x[i - step])
    return total


def multiply(
    links: Real, steps: Steps, ground: Real, x: Real, right: Real, sign: float, out: Real
) -> None:
    """Write ``right + sign A x`` to ``out``, all (n,)."""
    margin = max(steps)
    _multiply(links, steps, ground, x, right, sign, out, margin, len(x) - margin, way())


@kernel
def _multiply(links, steps, ground, x, right, sign, out, first, last, vectors):
    """From pixel ``first`` to ``last``; vectors begin at multiples of their length, as rows do."""
    i, factor = first, out.dtype.type(sign)
    while i < last:
        if vectors is not None and i % LANES == 0 and i + LANES <= last:
            product = laplacian(links, steps, ground, x, i)
            moved = simd.fma(simd.fill(factor, LANES), product, simd.load(right, i, LANES))
            simd.store(out, i, moved)
            i += LANES
            continue
        out[i] = right[i] + factor * _product(links, steps, ground, x, i)
        i += 1


def smooth(
    links: Real,
    steps: Steps,
    ground: Real,
    inverse: Real,
    x: Real,
    right: Real,
    step: Real,
    keep: float,
    gain: float,
    out: Real,
) -> None:
    """Make one step of the Chebyshev iteration for ``A x = right``, all (n,).

    ``step`` becomes ``keep step + gain inverse (right - A x)``, and ``out`` is ``x + step``.
    """
    margin = max(steps)
    last = len(x) - margin
    _smooth(links, steps, ground, inverse, x, right, step, keep, gain, out, margin, last, way())


@kernel
def _smooth(links, steps, ground, inverse, x, right, step, keep, gain, out, first, last, vectors):
    """From pixel ``first`` to ``last``."""
    i, old, new = first, out.dtype.type(keep), out.dtype.type(gain)
    while i < last:
        if vectors is not None and i % LANES == 0 and i + LANES <= last:
            rest = simd.load(right, i, LANES) - laplacian(links, steps, ground, x, i)
            rest = simd.fill(new, LANES) * (rest * simd.load(inverse, i, LANES))
            moved = simd.fma(simd.fill(old, LANES), simd.load(step, i, LANES), rest)
            simd.store(step, i, moved)
            simd.store(out, i, simd.load(x, i, LANES) + moved)
            i += LANES
            continue
        rest = right[i] - _product(links, steps, ground, x, i)
        step[i] = old * step[i] + new * (inverse[i] * rest)
        out[i] = x[i] + step[i]
        i += 1


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
    _ground_seeds(weights, offsets, seeds, ground, right, way())


@kernel
def _ground_seeds(weights, offsets, seeds, ground, right, vectors):
    n = len(ground)
    i = 0
    while i < n:
        if vectors is not None and i + LANES <= n and _unknown(seeds, offsets, i, n):
            for j in range(i, i + LANES):
                ground[j] = 0
            i += LANES
            continue
        ground[i] = 1 if seeds[i] != -1 else _pull(weights, offsets, seeds, right, i)
        i += 1
    for o in range(len(offsets)):
        step, i = offsets[o], 0
        while i < n:
            if vectors is not None and i + LANES + step <= n and _both_unknown(seeds, i, i + step):
                i += LANES
                continue
            if i + step >= n or seeds[i] != -1 or seeds[i + step] != -1:
                weights[o, i] = 0
            i += 1


@inner_kernel
def _all_unknown(seeds, i):
    """Whether pixel i and the following ones are unknown."""
    apart = simd.load(seeds, i, LANES) ^ simd.fill(np.int32(-1), LANES)
    none = simd.fill(np.uint32(0), LANES)
    return not simd.any_true(simd.less(none, simd.reinterpret(apart, np.uint32)))


@inner_kernel
def _both_unknown(seeds, i, j):
    return _all_unknown(seeds, i) & _all_unknown(seeds, j)


@inner_kernel
def _unknown(seeds, offsets, i, n):
    """Whether these pixels and all their neighbors are unknown."""
    found = _all_unknown(seeds, i)
    for o in range(len(offsets)):
        step = offsets[o]
        found = found and i >= step and i + step + LANES <= n
        found = found and _both_unknown(seeds, i + step, i - step)
    return found


@inner_kernel
def _pull(weights, offsets, seeds, right, i):
    """How strongly seeds pull at an unknown pixel; each label's pull is added to its row."""
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
    return pull


def contrast_weights(
    colors: NDArray[np.float32], offsets: Whole, scales: Real, floor: float, weights: Real
) -> None:
    """Write ``exp(-scales[o] |c_i - c_(i + offsets[o])|^2) + floor`` to ``weights`` (m, n).

    ``colors`` is (C, n), in the bordered layout; what is written across the border means nothing.
    """
    _contrast_weights(colors, offsets, scales, floor, weights, way())


@kernel
def _contrast_weights(colors, offsets, scales, floor, weights, vectors):
    n_channels, n = colors.shape
    for o in range(len(offsets)):
        step, i = offsets[o], 0
        if vectors is not None:
            zero, least = simd.fill(0.0, LANES), simd.fill(floor, LANES)
            scale = simd.fill(-scales[o], LANES)
            while i + LANES <= n - step:
                square = zero
                for channel in range(n_channels):
                    at = channel * n + i
                    difference = doubles(colors, at) - doubles(colors, at + step)
                    square = simd.fma(difference, difference, square)
                store_narrow(weights, o * n + i, exponential(scale * square) + least)
                i += LANES
        while i < n - step:
            square = 0.0
            for channel in range(n_channels):
                here, there = colors[channel, i], colors[channel, i + step]
                difference = np.float64(here) - np.float64(there)
                square += difference * difference
            weights[o, i] = np.exp(-scales[o] * square) + floor
            i += 1
