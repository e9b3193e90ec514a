"""Multigrid for Laplacians of image grids: interpolation along links, and the V-cycle.

Arrays are laid out as in :mod:`hybridseg.kernels.laplacian.random_walker`.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import inner_kernel, kernel
from hybridseg.kernels.laplacian.random_walker import Real, Whole, _multiply, _smooth
from hybridseg.kernels.laplacian.stencils import LANES, doubles, steps_at
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.padding import padded
from hybridseg.kernels.vectors.vector_functions import evens, zip_high, zip_low
from hybridseg.kernels.vectors.way import way


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
        How far the s-th fine neighbor is from the coarse point's own place; ``moves[0]`` is 0.
    first : (S + 1,) int64
        ``table[first[s] : first[s + 1]]`` are the links of the s-th neighbor.
    table : (E, 3) int64
        Of each link: its row in ``links``, how far back it is stored, and which neighbor of the
        same coarse point it leads to, or -1 if to none.
    out : (S, n_coarse) float64
        Row s becomes the weight of each coarse point at its s-th neighbor: the mean of what its
        links lead to, once those along the other axes are folded into it.
    """
    _interpolation(links, ground, base, coarse, moves, first, table, out, way())


@kernel
def _interpolation(links, ground, base, coarse, moves, first, table, out, vectors):
    n, n_below = len(ground), out.shape[1]
    for row in range(len(base)):
        start, to, stride, length = base[row, 0], coarse[row, 0], base[row, 1], base[row, 2]
        for j in range(length):
            out[0, to + j] = 1
        for s in range(1, len(moves)):
            j, reach = 0, 0
            for e in range(first[s], first[s + 1]):
                reach = max(reach, table[e, 1])
            # a border may have no room for links before it: it has none
            if vectors is not None and stride == 2 and start + moves[s] >= reach:
                zero = simd.fill(0.0, LANES)
                while j + LANES < length:  # less: the last number that is read is not needed
                    i = start + 2 * j + moves[s]
                    below, above = _every_second(ground, i), zero
                    for e in range(first[s], first[s + 1]):
                        strength = _every_second(links, table[e, 0] * n + i - table[e, 1])
                        below = below + strength
                        if table[e, 2] >= 0:
                            other = simd.load(out, table[e, 2] * n_below + to + j, LANES)
                            above = simd.fma(strength, other, above)
                    mean = simd.select(simd.less(zero, below), above / below, zero)
                    simd.store(out, s * n_below + to + j, mean)
                    j += LANES
            while j < length:
                i = start + stride * j + moves[s]
                below, above = np.float64(ground[i]), 0.0
                for e in range(first[s], first[s + 1]):
                    at = i - table[e, 1]
                    strength = np.float64(links[table[e, 0], at]) if at >= 0 else 0.0
                    below += strength
                    if table[e, 2] >= 0:
                        above += strength * out[table[e, 2], to + j]
                out[s, to + j] = above / below if below > 0 else 0.0
                j += 1


@inner_kernel
def _every_second(array, i):
    """Eight numbers of ``array``, from element ``i`` on, as float64."""
    return evens(doubles(array, i), doubles(array, i + LANES))


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
        The products to be summed: the neighbor s; the link's row in ``links`` (-1 for the
        diagonal) and how far back it is stored; the neighbor of the other coarse point that it
        leads to; how far that coarse point is; the row of ``out``.
    out : (m_coarse, n_coarse) float64, zeros
    """
    _coarse_links(links, diagonal, base, coarse, moves, weights, table, out, way())


@kernel
def _coarse_links(links, diagonal, base, coarse, moves, weights, table, out, vectors):
    n, n_below = len(diagonal), out.shape[1]
    for row in range(len(base)):
        start, to, stride, length = base[row, 0], coarse[row, 0], base[row, 1], base[row, 2]
        for e in range(len(table)):
            s, o, back, other, far, target = table[e]
            i, j = start + moves[s], 0
            here, there, total = s * n_below + to, other * n_below + to + far, target * n_below + to
            if vectors is not None and stride == 2:
                while j + LANES < length:
                    pair = simd.load(weights, here + j, LANES)
                    pair = pair * simd.load(weights, there + j, LANES)
                    if o < 0:
                        entry = simd.fill(0.0, LANES) - _every_second(diagonal, i + 2 * j)
                    else:
                        entry = _every_second(links, o * n + i - back + 2 * j)
                    entry = simd.fma(pair, entry, simd.load(out, total + j, LANES))
                    simd.store(out, total + j, entry)
                    j += LANES
            while j < length:
                at = i + stride * j
                entry = -diagonal[at] if o < 0 else np.float64(links[o, at - back])
                out[target, to + j] += weights[s, to + j] * entry * weights[other, to + far + j]
                j += 1


def restrict(base: Whole, coarse: Whole, moves: Whole, weights: Real, x: Real, out: Real) -> None:
    """Write ``P^T x`` to ``out`` (n_coarse,), for ``x`` (n,)."""
    _restrict(base, coarse, moves, weights, x, out, 0, len(x), way())


@kernel
def _restrict(base, coarse, moves, weights, x, out, row, ready, vectors):
    """From a row of coarse points to the last whose fine points lie below ``ready``; the next."""
    n_below, reach = len(out), moves.max()
    while row < len(base):
        start, to, stride, length = base[row, 0], coarse[row, 0], base[row, 1], base[row, 2]
        if start + stride * (length - 1) + reach >= ready:
            break
        j = 0
        if vectors is not None and stride == 2:
            while j + LANES < length:  # less: the last number that is read is not needed
                at = start + 2 * j
                total = evens(simd.load(x, at, LANES), simd.load(x, at + LANES, LANES))
                for s in range(1, len(moves)):
                    there = at + moves[s]
                    fine = evens(simd.load(x, there, LANES), simd.load(x, there + LANES, LANES))
                    weight = simd.load(weights, s * n_below + to + j, LANES)
                    total = simd.fma(weight, fine, total)
                simd.store(out, to + j, total)
                j += LANES
        while j < length:
            i = start + stride * j
            total = x[i]
            for s in range(1, len(moves)):
                total += weights[s, to + j] * x[i + moves[s]]
            out[to + j] = total
            j += 1
        row += 1
    return row


def prolong(base: Whole, coarse: Whole, moves: Whole, weights: Real, x: Real, out: Real) -> None:
    """Add ``P x`` to ``out`` (n,), for ``x`` (n_coarse,)."""
    _prolong(base, coarse, moves, weights, x, out, 0, len(out), way())


@kernel
def _prolong(base, coarse, moves, weights, x, out, row, needed, vectors):
    """From a row of coarse points until all fine points below ``needed`` are done; the next row."""
    n_below, reach = len(x), -moves.min()
    while row < len(base):
        start, to, stride, length = base[row, 0], coarse[row, 0], base[row, 1], base[row, 2]
        if start - reach >= needed:
            break
        for s in range(len(moves)):
            j = 0
            if vectors is not None and stride == 2:
                zero = simd.fill(out.dtype.type(0), LANES)
                while j + LANES < length:
                    at = start + 2 * j + moves[s]
                    more = simd.load(weights, s * n_below + to + j, LANES)
                    more = more * simd.load(x, to + j, LANES)
                    simd.store(out, at, simd.load(out, at, LANES) + zip_low(more, zero))
                    at += LANES
                    simd.store(out, at, simd.load(out, at, LANES) + zip_high(more, zero))
                    j += LANES
            while j < length:
                out[start + stride * j + moves[s]] += weights[s, to + j] * x[to + j]
                j += 1
        row += 1
    return row


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
#: links, steps to the neighbors, weights of the interpolation, moves, rows) and how long it is.
POINTS, N_POINTS, LINKS, STEPS, WEIGHTS, MOVES, N_MOVES, ROWS, N_ROWS = range(9)
N_COLUMNS = 9
#: Points of a level that one pass takes before the next one follows it.
_CHUNK = 4096


def cycle(hierarchy, rooms, keeps, gains) -> int:
    """Apply a symmetric V-cycle to what stands in the first level's part of ``rooms[0]``.

    Returns the row of ``rooms`` in whose first level's part the result stands.

    Parameters
    ----------
    hierarchy : tuple
        plan (levels + 1, 9) int64, of which the last row is the coarsest grid's; links, ground,
        inverse diagonals and interpolation weights of all levels, float32, flat; steps and moves,
        int64, flat; ``base`` and ``coarse`` of :func:`interpolation`, of all levels; the inverse
        matrix of the coarsest grid's pixels, float32, and their places (int64); and two tuples with
        as many numbers as the first level has steps, and as every other has.
    rooms : (5, n) float32
        Zero at the border of each grid: right sides; room for four more.
    keeps, gains : (levels, degree) float64
        Of the Chebyshev iteration; see :func:`smooth`.
    """
    _cycle(hierarchy, rooms, keeps, gains, way())
    return _home(*keeps.shape)


@kernel
def _home(n_levels, degree):
    """In which row of the rooms a level's solution stands, ``n_levels`` above the coarsest."""
    return 1 + degree % 2 if n_levels > 0 else 1


@inner_kernel
def _part(array, start, n_rows, n):
    return array[start : start + n_rows * n].reshape(n_rows, n)


@inner_kernel
def _rooms_at(rooms, start, n):
    """The parts of a level, contiguous each."""
    stop = start + n
    return (
        rooms[0, start:stop],
        rooms[1, start:stop],
        rooms[2, start:stop],
        rooms[3, start:stop],
        rooms[4, start:stop],
    )


@kernel
def _cycle(hierarchy, rooms, keeps, gains, vectors):
    plan, links, ground, inverse, weights, steps, moves, bases, coarse = hierarchy[:9]
    coarsest, places, first, other = hierarchy[9:]
    n_levels = len(keeps)
    for down in range(2 * n_levels + 1):
        level = n_levels - abs(n_levels - down)
        start, n = plan[level, POINTS], plan[level, N_POINTS]
        room = _rooms_at(rooms, start, n)
        if level == n_levels:
            _solve_directly(coarsest, places, room[0], room[1])
            continue
        n_moves, n_below = plan[level, N_MOVES], plan[level + 1, N_POINTS]
        row, stop = plan[level, ROWS], plan[level, ROWS] + plan[level, N_ROWS]
        transfer = (
            bases[row:stop],
            coarse[row:stop],
            moves[plan[level, MOVES] : plan[level, MOVES] + n_moves],
            _part(weights, plan[level, WEIGHTS], n_moves, n_below),
        )
        below = plan[level + 1, POINTS]
        under = _rooms_at(rooms, below, n_below)
        from_ = _home(n_levels - level - 1, keeps.shape[1])
        numbers = (keeps[level], gains[level])
        scale = inverse[start : start + n]
        if level == 0:
            system = (
                _part(links, 0, len(first), n),
                steps_at(steps, 0, first),
                ground[:n],
            )
            if down < n_levels:
                _descend(system, scale, room, numbers, transfer, under[0], vectors)
            else:
                _ascend(system, scale, room, numbers, transfer, under[from_], vectors)
        else:
            system_below = (
                _part(links, plan[level, LINKS], len(other), n),
                steps_at(steps, plan[level, STEPS], other),
                ground[start : start + n],
            )
            if down < n_levels:
                _descend(system_below, scale, room, numbers, transfer, under[0], vectors)
            else:
                _ascend(system_below, scale, room, numbers, transfer, under[from_], vectors)


@inner_kernel
def _solve_directly(inverse, places, right, x):
    for i in range(len(places)):
        x[places[i]] = 0
    for j in range(len(places)):
        number = right[places[j]]
        for i in range(len(places)):
            x[places[i]] += inverse[j, i] * number


@inner_kernel
def _lag(steps):
    """How far one pass over a level must stay behind the one whose results it reads."""
    return padded(max(steps), LANES)


@inner_kernel
def _begin(inverse, right, step, gain, out, first, last, vectors):
    """The first step of `random_walker._smooth`, from ``x = 0``."""
    i, new = first, out.dtype.type(gain)
    while i < last:
        if vectors is not None and i % LANES == 0 and i + LANES <= last:
            rest = simd.load(right, i, LANES) * simd.load(inverse, i, LANES)
            rest = simd.fill(new, LANES) * rest
            simd.store(step, i, rest)
            simd.store(out, i, rest)
            i += LANES
            continue
        step[i] = new * (inverse[i] * right[i])
        out[i] = step[i]
        i += 1


@inner_kernel
def _descend(system, inverse, room, numbers, transfer, below, vectors):
    """Smooth from zero, and restrict the residual: all passes in one, each a little behind.

    So that memory is read but once. A pass at pixel i reads no more than ``lag`` pixels on, and
    overwrites what the pass before needs no more.
    """
    links, steps, ground = system
    keeps, gains = numbers
    base, coarse, moves, weights = transfer
    right, step, rest = room[0], room[3], room[4]
    n, degree, margin, lag = len(right), len(keeps), max(steps), _lag(steps)
    row, end = np.int64(0), n - margin  # a bare 0 would be a type of its own, compiled for
    for begin in range(0, end + degree * lag, _CHUNK):
        last = min(begin + _CHUNK, end)
        x, other = room[1 + (degree + 1) % 2], room[1 + degree % 2]
        _begin(inverse, right, step, gains[0], x, max(begin, margin), last, vectors)
        for turn in range(1, degree + 1):
            first = max(begin - turn * lag, margin)
            last = min(begin + _CHUNK - turn * lag, end)
            if turn < degree:
                old, new = keeps[turn], gains[turn]
                _smooth(
                    links,
                    steps,
                    ground,
                    inverse,
                    x,
                    right,
                    step,
                    old,
                    new,
                    other,
                    first,
                    last,
                    vectors,
                )
                x, other = other, x
            else:
                _multiply(links, steps, ground, x, right, -1.0, rest, first, last, vectors)
        ready = n if last == end else last
        row = _restrict(base, coarse, moves, weights, rest, below, row, ready, vectors)


@inner_kernel
def _ascend(system, inverse, room, numbers, transfer, below, vectors):
    """Add the coarse correction and smooth, all passes in one as in ``_descend``."""
    links, steps, ground = system
    keeps, gains = numbers
    base, coarse, moves, weights = transfer
    right, step = room[0], room[3]
    n, degree, margin, lag = len(right), len(keeps), max(steps), _lag(steps)
    row, end = np.int64(0), n - margin
    for begin in range(0, end + (degree - 1) * lag, _CHUNK):
        x, other = room[1], room[2]
        needed = begin + _CHUNK + margin
        row = _prolong(base, coarse, moves, weights, below, x, row, needed, vectors)
        for turn in range(degree):
            first = max(begin - turn * lag, margin)
            last = min(begin + _CHUNK - turn * lag, end)
            keep, gain = keeps[turn], gains[turn]
            _smooth(
                links,
                steps,
                ground,
                inverse,
                x,
                right,
                step,
                keep,
                gain,
                other,
                first,
                last,
                vectors,
            )
            x, other = other, x
