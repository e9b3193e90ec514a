"""Laplacians of image grids, and the multigrid pieces that solve them, without any matrix.

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
from numba import prange
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel, parallel_kernel

Real = NDArray[np.floating[Any]]
Whole = NDArray[np.int64]

#: Pixels that are worked on together: what a block reads stays in the first-level cache.
_BLOCK = 2048


@kernel
def _apply_block(links, offsets, ground, x, start, out):
    """``out = (A x)[start : start + len(out)]``."""
    n = len(out)
    middle, pull = x[start : start + n], ground[start : start + n]
    for i in range(n):
        out[i] = pull[i] * middle[i]
    for o in range(len(offsets)):
        step = offsets[o]
        ahead, behind = x[start + step : start + step + n], x[start - step : start - step + n]
        to, fro = links[o, start : start + n], links[o, start - step : start - step + n]
        for i in range(n):
            out[i] += to[i] * (middle[i] - ahead[i]) + fro[i] * (middle[i] - behind[i])


@parallel_kernel
def multiply(
    links: Real, offsets: Whole, ground: Real, x: Real, right: Real, sign: float, out: Real
) -> None:
    """Write ``right + sign A x`` to ``out``, for each row of ``x`` (K, n)."""
    margin = offsets.max()
    n_blocks = (x.shape[1] - 2 * margin + _BLOCK - 1) // _BLOCK
    factor = out.dtype.type(sign)
    for block in prange(n_blocks):
        start = margin + block * _BLOCK
        size = min(_BLOCK, x.shape[1] - margin - start)
        product = np.empty(size, x.dtype)
        for k in range(len(x)):
            _apply_block(links, offsets, ground, x[k], start, product)
            base, target = right[k, start : start + size], out[k, start : start + size]
            for i in range(size):
                target[i] = base[i] + factor * product[i]


@parallel_kernel
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
    margin = offsets.max()
    n_blocks = (x.shape[1] - 2 * margin + _BLOCK - 1) // _BLOCK
    old, new = out.dtype.type(keep), out.dtype.type(gain)
    for block in prange(n_blocks):
        start = margin + block * _BLOCK
        size = min(_BLOCK, x.shape[1] - margin - start)
        product = np.empty(size, x.dtype)
        scale = inverse[start : start + size]
        for k in range(len(x)):
            _apply_block(links, offsets, ground, x[k], start, product)
            base, moved = right[k, start : start + size], step[k, start : start + size]
            for i in range(size):
                moved[i] = old * moved[i] + new * (scale[i] * (base[i] - product[i]))
            source, target = x[k, start : start + size], out[k, start : start + size]
            for i in range(size):
                target[i] = source[i] + moved[i]


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


@kernel
def interpolation(
    links: Real,
    ground: Real,
    base: Whole,
    coarse: Whole,
    moves: Whole,
    first: Whole,
    table: Whole,
    out: Real,
) -> None:
    """Weights of the interpolation from coarse points to the fine points around each.

    Parameters
    ----------
    links, ground : (m, n) and (n,) float64
        The fine operator.
    base, coarse : (rows, 3) int64
        For each row of coarse points: where its first lies among the fine points and among the
        coarse ones, and (in the third column) the step between fine ones and the row's length.
    moves : (S,) int64
        How far the s-th fine neighbour is from the coarse point's own place; ``moves[0]`` is 0.
    first : (S + 1,) int64
        ``table[first[s] : first[s + 1]]`` are the links of the s-th neighbour.
    table : (E, 3) int64
        Of each link: its row in ``links``, how far back it is stored, and which neighbour of the
        same coarse point it leads to, or -1 if to none.
    out : (S, n_coarse) of any float
        Row s becomes the weight of each coarse point at its s-th neighbour: the mean of what its
        links lead to, once those along the other axes are folded into it.
    """
    for row in range(len(base)):
        start, to, stride, length = base[row, 0], coarse[row, 0], base[row, 1], base[row, 2]
        for j in range(length):
            out[0, to + j] = 1
        for s in range(1, len(moves)):
            for j in range(length):
                i = start + stride * j + moves[s]
                below, above = ground[i], 0.0
                for e in range(first[s], first[s + 1]):
                    strength = links[table[e, 0], i - table[e, 1]]
                    below += strength
                    if table[e, 2] >= 0:
                        above += strength * out[table[e, 2], to + j]
                out[s, to + j] = above / below if below > 0 else 0.0


@kernel
def coarse_links(
    links: Real,
    diagonal: Real,
    base: Whole,
    coarse: Whole,
    moves: Whole,
    weights: Real,
    table: Whole,
    out: Real,
) -> None:
    """Links between coarse points: minus the entries off the diagonal of ``P^T A P``.

    Parameters
    ----------
    links, diagonal : (m, n) and (n,) float64
        The fine operator, and the diagonal of its matrix.
    base, coarse, moves, weights
        As in :func:`interpolation`, whose result ``weights`` is.
    table : (E, 6) int64
        The products to be summed: the neighbour s; the link's row in ``links`` (-1 for the
        diagonal) and how far back it is stored; the neighbour of the other coarse point that it
        leads to; how far that coarse point is; the row of ``out``.
    out : (m_coarse, n_coarse) float64, zeros
    """
    for row in range(len(base)):
        start, to, stride, length = base[row, 0], coarse[row, 0], base[row, 1], base[row, 2]
        for e in range(len(table)):
            s, o, back, other, far, target = table[e]
            here, there = weights[s, to : to + length], weights[other, to + far : to + far + length]
            total = out[target, to : to + length]
            i = start + moves[s]
            if o < 0:
                for j in range(length):
                    total[j] -= here[j] * diagonal[i + stride * j] * there[j]
            else:
                for j in range(length):
                    total[j] += here[j] * links[o, i - back + stride * j] * there[j]


@parallel_kernel
def restrict(base: Whole, coarse: Whole, moves: Whole, weights: Real, x: Real, out: Real) -> None:
    """Write ``P^T x`` to ``out``, for each row of ``x`` (K, n)."""
    for row in prange(len(base)):
        start, to, stride, length = base[row, 0], coarse[row, 0], base[row, 1], base[row, 2]
        for k in range(len(x)):
            total = out[k, to : to + length]
            for j in range(length):
                total[j] = x[k, start + stride * j]
            for s in range(1, len(moves)):
                weight, i = weights[s, to : to + length], start + moves[s]
                for j in range(length):
                    total[j] += weight[j] * x[k, i + stride * j]


@kernel
def prolong(base: Whole, coarse: Whole, moves: Whole, weights: Real, x: Real, out: Real) -> None:
    """Add ``P x`` to ``out``, for each row of ``x`` (K, n_coarse)."""
    for row in range(len(base)):
        start, to, stride, length = base[row, 0], coarse[row, 0], base[row, 1], base[row, 2]
        for k in range(len(x)):
            source = x[k, to : to + length]
            for s in range(len(moves)):
                weight, i = weights[s, to : to + length], start + moves[s]
                for j in range(length):
                    out[k, i + stride * j] += weight[j] * source[j]


@kernel
def inner_products(a: Real, b: Real, out: Real) -> None:
    """Write ``sum_i a[k, i] b[k, i]`` to ``out`` (K,), in 64 bits."""
    for k in range(len(a)):
        sums = np.zeros(8)  # side by side, for one after the other would wait for each
        whole = a.shape[1] // 8 * 8
        for i in range(0, whole, 8):
            for lane in range(8):
                sums[lane] += a[k, i + lane] * b[k, i + lane]
        total = 0.0
        for i in range(whole, a.shape[1]):
            total += a[k, i] * b[k, i]
        for lane in range(8):
            total += sums[lane]
        out[k] = total


@kernel
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def strong_parts(
    links: Real, ground: Real, offsets: Whole, weak: float, part: NDArray[np.int32]
) -> int:
    """Number the parts that links of at least ``weak`` hold together, in order of first pixels.

    ``part`` (n,) becomes the number of each pixel's part, -1 where a pixel has no links and its
    ``ground`` is one: no unknown, or one that a smoother solves for. Returns how many parts there
    are.
    """
    n = len(part)
    for i in range(n):
        part[i] = i
    for o in range(len(offsets)):
        for i in range(n - offsets[o]):
            if links[o, i] >= weak:
                one, other = _root(part, i), _root(part, i + offsets[o])
                part[max(one, other)] = min(one, other)
    n_parts = 0
    for i in range(n):
        if part[i] < i:
            part[i] = part[part[i]]  # its root came before, and has its number
            continue
        linked = ground[i] != 1
        for o in range(len(offsets)):
            step = offsets[o]
            if links[o, i] > 0 or (i >= step and links[o, i - step] > 0):
                linked = True
        part[i] = n_parts if linked else -1
        n_parts += linked
    return n_parts


@kernel
def sum_parts(part: NDArray[np.int32], x: Real, out: Real) -> None:
    """Add up each row of ``x`` (K, n) over the parts, into ``out`` (K, n_parts)."""
    out[:] = 0
    for k in range(len(x)):
        for i in range(len(part)):
            if part[i] >= 0:
                out[k, part[i]] += x[k, i]


@kernel
def add_parts(part: NDArray[np.int32], values: Real, sign: float, out: Real) -> None:
    """Add ``sign`` times the value of each pixel's part to ``out`` (K, n)."""
    for k in range(len(out)):
        for i in range(len(part)):
            if part[i] >= 0:
                out[k, i] += sign * values[k, part[i]]


@parallel_kernel
def add_scaled(factors: Real, a: Real, scales: Real, b: Real, out: Real) -> None:
    """Write ``factors[k] a[k] + scales[k] b[k]`` to ``out``, which may be ``a`` or ``b``."""
    n = out.shape[1]
    n_blocks = (n + _BLOCK - 1) // _BLOCK
    for block in prange(n_blocks):
        start = block * _BLOCK
        size = min(_BLOCK, n - start)
        for k in range(len(out)):
            one, two = a[k, start : start + size], b[k, start : start + size]
            target = out[k, start : start + size]
            for i in range(size):
                target[i] = out.dtype.type(factors[k] * one[i] + scales[k] * two[i])


@kernel
def largest_entries(x: Real, out: Real) -> None:
    """Write ``max_i |x[k, i]|`` to ``out`` (K,)."""
    for k in range(len(x)):
        largest = 0.0
        for i in range(x.shape[1]):
            largest = max(largest, abs(x[k, i]))
        out[k] = largest
