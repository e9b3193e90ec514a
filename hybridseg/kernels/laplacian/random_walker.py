"""Laplacians of image grids without a matrix: the random walker's system [1]_, products, smoothing.

The operator A is ``(A x)_i = ground_i x_i + sum_j links_ij (x_i - x_j)``: ``links[o, i]`` is the
weight of the edge between pixels i and ``i + offsets[o]``, and ``ground[i]`` that of an edge from i
to a pixel of value 0. `ground_seeds` makes the Dirichlet problem of [1]_ in this form: edges to
seeds become ground and right side. Since products use differences of x, the null space is exact and
weak links keep their precision in float32.

All arrays are flat, in raster order, with a border of one pixel along every axis longer than one,
so that each neighbor is at a fixed distance and no loop tests for the end of the image. ``offsets``
(or ``steps``, as a tuple) are these distances, all positive. The border, and pixels that are not
unknowns, have no links, and their ground is 1. Rows begin at multiples of ``LANES``, so that most
vectors are aligned.

`hybridseg.inference.random_walk` calls these kernels: its `random_walker` builds the system, its
`multigrid` multiplies. Each kernel runs on one thread; labels are solved for in several Python
threads.

References
----------
.. [1] L. Grady, "Random walks for image segmentation", PAMI 28(11), 2006, equations 1, 8 and 10.
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
#: The distances to the neighbors in memory, one for each row of the links.
Steps = tuple[int, ...]


@inner_kernel
def _product(links, steps, ground, x, i):
    """Return ``(A x)_i``, in the type of ``x``."""
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
    """Do what `multiply` does from pixel ``first`` to ``last - 1``.

    Vectors begin at multiples of their length only, so that they are aligned as rows are.
    """
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

    ``step`` becomes ``keep * step + gain * inverse * (right - A x)``, with the inverse of the
    diagonal of A, and ``out`` becomes ``x + step``.
    """
    margin = max(steps)
    last = len(x) - margin
    _smooth(links, steps, ground, inverse, x, right, step, keep, gain, out, margin, last, way())


@kernel
def _smooth(links, steps, ground, inverse, x, right, step, keep, gain, out, first, last, vectors):
    """Do what `smooth` does from pixel ``first`` to ``last - 1``."""
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
    """Turn the weights of all edges into the random walker's system for the unknown pixels.

    Parameters
    ----------
    weights : (m, n) float64
        The weight of the edge between i and ``i + offsets[o]``; 0 if there is none. Edges that do
        not join two unknowns are set to 0.
    seeds : (n,) int32
        -1 at the unknowns, the label at seeds, -2 elsewhere and on the border.
    ground : (n,) float64
        Overwritten: the sum of the weights to seeds, and 1 where a pixel is not unknown.
    right : (K, n) float64, zeros
        Row k becomes the sum of the weights to seeds of label k. Labels from K on have no row.
    """
    _ground_seeds(weights, offsets, seeds, ground, right, way())


@kernel
def _ground_seeds(weights, offsets, seeds, ground, right, vectors):
    """Do what `ground_seeds` does. Vectors skip pixels far from any seed."""
    n = len(ground)
    # ground and right sides
    i = 0
    while i < n:
        if vectors is not None and i + LANES <= n and _unknown(seeds, offsets, i, n):
            for j in range(i, i + LANES):
                ground[j] = 0
            i += LANES
            continue
        ground[i] = 1 if seeds[i] != -1 else _pull(weights, offsets, seeds, right, i)
        i += 1
    # links: only edges between two unknowns are left
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
    """Return whether pixel i and the following ones of a vector are unknown."""
    apart = simd.load(seeds, i, LANES) ^ simd.fill(np.int32(-1), LANES)
    none = simd.fill(np.uint32(0), LANES)
    return not simd.any_true(simd.less(none, simd.reinterpret(apart, np.uint32)))


@inner_kernel
def _both_unknown(seeds, i, j):
    """Return whether the pixels of the vectors from i and from j on are unknown."""
    return _all_unknown(seeds, i) & _all_unknown(seeds, j)


@inner_kernel
def _unknown(seeds, offsets, i, n):
    """Return whether the pixels of a vector and all their neighbors are unknown."""
    found = _all_unknown(seeds, i)
    for o in range(len(offsets)):
        step = offsets[o]
        found = found and i >= step and i + step + LANES <= n
        found = found and _both_unknown(seeds, i + step, i - step)
    return found


@inner_kernel
def _pull(weights, offsets, seeds, right, i):
    """Return the sum of the weights between an unknown pixel and seeds.

    The weights to each label are added to the label's row of ``right``.
    """
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

    ``colors`` is (C, n), in the bordered layout. Weights across the border have no meaning.
    """
    _contrast_weights(colors, offsets, scales, floor, weights, way())


@kernel
def _contrast_weights(colors, offsets, scales, floor, weights, vectors):
    """Do what `contrast_weights` does: whole vectors, then the last pixels one by one."""
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
