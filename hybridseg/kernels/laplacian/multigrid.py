"""Multigrid for Laplacians of image grids: interpolation along links, and the V-cycle.

`interpolation` and `coarse_links` build a coarse grid of every second pixel: the interpolation P of
black-box multigrid [1]_ and the Galerkin operator ``P^T A P``. `cycle` applies a symmetric V-cycle
with a Chebyshev smoother [2]_.

Grids are laid out as in `random_walker`. Each coarse point has S fine neighbors, itself included;
``moves`` (S,) are the distances to them, ``weights`` (S, n_coarse) the entries of P. Points are
visited in rows: ``base[row]`` is the first fine point, the step between fine points (2, or 1 if the
last axis has length one) and the number of points; ``coarse[row, 0]`` is the first coarse point.

`hybridseg.inference.random_walk.multigrid` calls these kernels. Each runs on one thread; several
Python threads may apply one hierarchy, each with its own ``rooms``.

References
----------
.. [1] J. E. Dendy, "Black box multigrid", Journal of Computational Physics 48, 1982.
.. [2] M. Adams, M. Brezina, J. Hu, R. Tuminaro, "Parallel multigrid smoothing: polynomial versus
   Gauss-Seidel", Journal of Computational Physics 188, 2003.
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
    """Write the weights of the interpolation from coarse points to the fine points around each.

    Parameters
    ----------
    links, ground : (m, n) and (n,) float64
        The fine operator.
    base : (rows, 3) int64
        For each row of coarse points: the place of the first among the fine points, the step
        between fine points, and the number of points.
    coarse : (rows, 1) int64
        The place of each row's first among the coarse points.
    moves : (S,) int64
        The distance from a coarse point's own place to its s-th fine neighbor; ``moves[0]`` is 0.
    first : (S + 1,) int64
        ``table[first[s] : first[s + 1]]`` are the links of the s-th neighbor.
    table : (E, 3) int64
        For each link: its row in ``links``, the distance back to the pixel where it is stored, and
        the neighbor of the same coarse point to which it leads, -1 if it leads elsewhere.
    out : (S, n_coarse) float64
        Row s becomes the weight of each coarse point at its s-th neighbor: the mean of the weights
        to which its links lead, weighted by the links. Links along other axes are folded into the
        point.
    """
    _interpolation(links, ground, base, coarse, moves, first, table, out, way())


@kernel
def _interpolation(links, ground, base, coarse, moves, first, table, out, vectors):
    """Do what `interpolation` does, neighbor by neighbor, nearest first."""
    n, n_below = len(ground), out.shape[1]
    for row in range(len(base)):
        start, to, stride, length = base[row, 0], coarse[row, 0], base[row, 1], base[row, 2]
        for j in range(length):
            out[0, to + j] = 1
        for s in range(1, len(moves)):
            j, reach = 0, 0
            for e in range(first[s], first[s + 1]):
                reach = max(reach, table[e, 1])
            # vectors only if the first link that is read lies in the array
            if vectors is not None and stride == 2 and start + moves[s] >= reach:
                zero = simd.fill(0.0, LANES)
                while j + LANES < length:  # not <=: a vector reads one number beyond its pairs
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
    """Return eight numbers of ``array``, every second one from element ``i`` on, as float64."""
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
    """Write the links between coarse points: minus the off-diagonal entries of ``P^T A P``.

    Parameters
    ----------
    links, diagonal : (m, n) and (n,) float64
        The fine operator, and the diagonal of its matrix.
    base, coarse, moves
        As in :func:`interpolation`.
    weights : (S, n_coarse) float64
        The result of :func:`interpolation`.
    table : (E, 6) int64
        The products to be summed: the neighbor s; the link's row in ``links`` (-1 for the diagonal)
        and the distance back to the pixel where it is stored; the neighbor of the other coarse
        point to which it leads; the distance to that coarse point; the row of ``out``.
    out : (m_coarse, n_coarse) float64, zeros
    """
    _coarse_links(links, diagonal, base, coarse, moves, weights, table, out, way())


@kernel
def _coarse_links(links, diagonal, base, coarse, moves, weights, table, out, vectors):
    """Do what `coarse_links` does, product by product within each row."""
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
    """Restrict from ``row`` on, while a row's fine points are below ``ready``; return the next.

    ``ready`` is the number of fine points that are computed, so restriction can follow smoothing.
    """
    n_below, reach = len(out), moves.max()
    while row < len(base):
        start, to, stride, length = base[row, 0], coarse[row, 0], base[row, 1], base[row, 2]
        if start + stride * (length - 1) + reach >= ready:
            break
        j = 0
        if vectors is not None and stride == 2:
            while j + LANES < length:  # not <=: a vector reads one number beyond its pairs
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
    """Prolong from ``row`` on, until fine points below ``needed`` are done; return the next row."""
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

    LAPACK would share even small matrices among threads that wait for each other, which is slow on
    a busy machine.
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


#: Columns of a multigrid's plan: for each level, the beginning of its part of every flat array
#: (points, links, steps to the neighbors, weights of the interpolation, moves, rows) and lengths.
POINTS, N_POINTS, LINKS, STEPS, WEIGHTS, MOVES, N_MOVES, ROWS, N_ROWS = range(9)
N_COLUMNS = 9
#: Points of a level that one pass handles before the next pass follows it, in the cache.
_CHUNK = 4096


def cycle(hierarchy, rooms, keeps, gains) -> int:
    """Apply a symmetric V-cycle to the right side in the first level's part of ``rooms[0]``.

    Returns the row of ``rooms`` whose first level's part holds the result.

    Parameters
    ----------
    hierarchy : tuple
        The plan (levels + 1, 9) int64, whose last row is the coarsest grid; links, ground, inverse
        diagonals and interpolation weights of all levels, float32, flat; steps and moves, int64,
        flat; ``base`` and ``coarse`` of :func:`interpolation`, of all levels; the inverse matrix of
        the coarsest grid's pixels, float32, and their places, int64; two tuples with as many
        numbers as the first level, and each other level, has steps.
    rooms : (5, n) float32
        Working memory, zero at the border of each grid: right sides, two rows of solutions, steps
        and residuals, for all levels.
    keeps, gains : (levels, degree) float64
        Coefficients of the Chebyshev iteration; see `random_walker.smooth`.
    """
    _cycle(hierarchy, rooms, keeps, gains, way())
    return _home(*keeps.shape)


@kernel
def _home(n_levels, degree):
    """Return the room that holds the solution of a level ``n_levels`` above the coarsest."""
    return 1 + degree % 2 if n_levels > 0 else 1


@inner_kernel
def _part(array, start, n_rows, n):
    """Return the part of a flat array from ``start`` on, as (n_rows, n)."""
    return array[start : start + n_rows * n].reshape(n_rows, n)


@inner_kernel
def _rooms_at(rooms, start, n):
    """Return a level's part of each row of the rooms; each is contiguous."""
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
    """Go down the levels and up again: restrict, solve the coarsest directly, prolong.

    The first level has another number of neighbors than the others, so it is compiled on its own.
    """
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
    """Write the inverse matrix times ``right`` to ``x``, for the pixels at ``places``."""
    for i in range(len(places)):
        x[places[i]] = 0
    for j in range(len(places)):
        number = right[places[j]]
        for i in range(len(places)):
            x[places[i]] += inverse[j, i] * number


@inner_kernel
def _lag(steps):
    """Return the number of pixels by which a pass stays behind the pass whose results it reads."""
    return padded(max(steps), LANES)


@inner_kernel
def _begin(inverse, right, step, gain, out, first, last, vectors):
    """Make the first step of `random_walker._smooth`, from ``x = 0``."""
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
    """Smooth from zero and restrict the residual, with all passes interleaved.

    So memory is read only once. Each pass stays ``lag`` pixels behind the one before: at pixel i it
    reads at most ``lag`` pixels ahead, and overwrites only what the pass before no longer needs.
    """
    links, steps, ground = system
    keeps, gains = numbers
    base, coarse, moves, weights = transfer
    right, step, rest = room[0], room[3], room[4]
    n, degree, margin, lag = len(right), len(keeps), max(steps), _lag(steps)
    row, end = np.int64(0), n - margin  # int64 like later rows: callees compile once
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
    """Add the coarse correction and smooth, with all passes interleaved as in `_descend`."""
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
