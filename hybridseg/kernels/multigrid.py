"""Multigrid for Laplacians of image grids: interpolation along links, and the V-cycle.

Arrays are laid out as in :mod:`hybridseg.kernels.random_walker`.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels import _simd as simd
from hybridseg.kernels._compile import kernel
from hybridseg.kernels._vector_functions import evens, zip_high, zip_low
from hybridseg.kernels.random_walker import Real, Whole, _multiply, _smooth

_LANES = 8


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


def restrict(base: Whole, coarse: Whole, moves: Whole, weights: Real, x: Real, out: Real) -> None:
    """Write ``P^T x`` to ``out``, for each row of ``x`` (K, n)."""
    _restrict(base, coarse, moves, weights, x, out, True if simd.ENABLED else None)


@kernel
def _restrict(base, coarse, moves, weights, x, out, vectors):
    n, n_below = x.shape[1], out.shape[1]
    for row in range(len(base)):
        start, to, stride, length = base[row, 0], coarse[row, 0], base[row, 1], base[row, 2]
        for k in range(len(x)):
            j = 0
            if vectors is not None and stride == 2:
                while j + _LANES < length:  # less: the last number that is read is not needed
                    at = k * n + start + 2 * j
                    total = evens(simd.load(x, at, _LANES), simd.load(x, at + _LANES, _LANES))
                    for s in range(1, len(moves)):
                        there = at + moves[s]
                        fine = evens(
                            simd.load(x, there, _LANES), simd.load(x, there + _LANES, _LANES)
                        )
                        weight = simd.load(weights, s * n_below + to + j, _LANES)
                        total = simd.fma(weight, fine, total)
                    simd.store(out, k * n_below + to + j, total)
                    j += _LANES
            while j < length:
                i = start + stride * j
                total = x[k, i]
                for s in range(1, len(moves)):
                    total += weights[s, to + j] * x[k, i + moves[s]]
                out[k, to + j] = total
                j += 1


def prolong(base: Whole, coarse: Whole, moves: Whole, weights: Real, x: Real, out: Real) -> None:
    """Add ``P x`` to ``out``, for each row of ``x`` (K, n_coarse)."""
    _prolong(base, coarse, moves, weights, x, out, True if simd.ENABLED else None)


@kernel
def _prolong(base, coarse, moves, weights, x, out, vectors):
    n, n_below = out.shape[1], x.shape[1]
    for row in range(len(base)):
        start, to, stride, length = base[row, 0], coarse[row, 0], base[row, 1], base[row, 2]
        for k in range(len(x)):
            for s in range(len(moves)):
                j = 0
                if vectors is not None and stride == 2:
                    zero = simd.fill(out.dtype.type(0), _LANES)
                    while j + _LANES < length:
                        at = k * n + start + 2 * j + moves[s]
                        more = simd.load(weights, s * n_below + to + j, _LANES)
                        more = more * simd.load(x, k * n_below + to + j, _LANES)
                        simd.store(out, at, simd.load(out, at, _LANES) + zip_low(more, zero))
                        at += _LANES
                        simd.store(out, at, simd.load(out, at, _LANES) + zip_high(more, zero))
                        j += _LANES
                while j < length:
                    i = start + stride * j + moves[s]
                    out[k, i] += weights[s, to + j] * x[k, to + j]
                    j += 1


@kernel
def invert(matrix: Real) -> None:
    """Replace a symmetric positive definite matrix (n, n) by its inverse (Gauss and Jordan).

    LAPACK shares even small ones among threads that wait for each other, on a busy machine for
    hundreds of times as long as one takes.
    """
    n = len(matrix)
    for i in range(n):
        pivot = 1 / matrix[i, i]
        matrix[i, i] = 1.0
        for j in range(n):
            matrix[i, j] *= pivot
        for k in range(n):
            if k != i:
                factor = matrix[k, i]
                matrix[k, i] = 0.0
                for j in range(n):
                    matrix[k, j] -= factor * matrix[i, j]


#: Columns of a multigrid's plan: of each level, where its part of every flat array begins (points,
#: links, steps to the neighbours, weights of the interpolation, moves, rows) and how long it is.
POINTS, N_POINTS, LINKS, STEPS, N_STEPS, WEIGHTS, MOVES, N_MOVES, ROWS, N_ROWS = range(10)
N_COLUMNS = 10


def cycle(hierarchy, rooms, keeps, gains) -> None:
    """Apply a symmetric V-cycle to what stands in the first level's part of ``rooms[0]``.

    Parameters
    ----------
    hierarchy : tuple
        plan (levels + 1, 10) int64, of which the last row is the coarsest grid's; links, ground,
        inverse diagonals and interpolation weights of all levels, float32, flat; steps and moves,
        int64, flat; ``base`` and ``coarse`` of :func:`interpolation`, of all levels; and the
        inverse matrix of the coarsest grid, float32.
    rooms : (5, n) float32
        Zero at the border of each grid: right sides; solutions; room for three more. The result
        stands in the first level's part of ``rooms[1]``.
    keeps, gains : (levels, degree) float64
        Of the Chebyshev iteration; see :func:`smooth`.
    """
    _cycle(hierarchy, rooms, keeps, gains, True if simd.ENABLED else None)


@kernel
def _part(array, start, n_rows, n):
    return array[start : start + n_rows * n].reshape(n_rows, n)


@kernel
def _cycle(hierarchy, rooms, keeps, gains, vectors):
    plan, links, ground, inverse, weights, steps, moves, bases, coarse, coarsest = hierarchy
    n_levels, degree = keeps.shape
    for down in range(2 * n_levels + 1):
        level = n_levels - abs(n_levels - down)
        start, n = plan[level, POINTS], plan[level, N_POINTS]
        right, x = rooms[0, start : start + n], rooms[1, start : start + n]
        if level == n_levels:
            for i in range(n):
                total = np.float32(0)
                for j in range(n):
                    total += coarsest[i, j] * right[j]
                x[i] = total
            continue
        other, step = rooms[2, start : start + n], rooms[3, start : start + n]
        rest = rooms[4, start : start + n]
        m = plan[level, N_STEPS]
        system = (
            _part(links, plan[level, LINKS], m, n),
            steps[plan[level, STEPS] : plan[level, STEPS] + m],
            ground[start : start + n],
        )
        scale = inverse[start : start + n]
        n_moves, n_below = plan[level, N_MOVES], plan[level + 1, N_POINTS]
        row, stop = plan[level, ROWS], plan[level, ROWS] + plan[level, N_ROWS]
        how = (
            bases[row:stop],
            coarse[row:stop],
            moves[plan[level, MOVES] : plan[level, MOVES] + n_moves],
            _part(weights, plan[level, WEIGHTS], n_moves, n_below),
        )
        below = plan[level + 1, POINTS]
        b, e, f = right.reshape(1, n), x.reshape(1, n), other.reshape(1, n)
        s, r = step.reshape(1, n), rest.reshape(1, n)
        if down < n_levels:
            gain = np.float32(gains[level, 0])
            for i in range(n):
                step[i] = right[i] * (scale[i] * gain)
                x[i] = step[i]
            first = 1
        else:
            part = rooms[1, below : below + n_below].reshape(1, n_below)
            _prolong(how[0], how[1], how[2], how[3], part, e, vectors)
            first = 0
        for turn in range(first, degree):
            keep, gain = keeps[level, turn], gains[level, turn]
            _smooth(system[0], system[1], system[2], scale, e, b, s, keep, gain, f, vectors)
            e, f = f, e
        if (degree - first) % 2:
            for i in range(n):
                x[i] = other[i]
        if down < n_levels:
            e = x.reshape(1, n)
            _multiply(system[0], system[1], system[2], e, b, -1.0, r, vectors)
            part = rooms[0, below : below + n_below].reshape(1, n_below)
            _restrict(how[0], how[1], how[2], how[3], r, part, vectors)
