"""The simplex of the permutohedral lattice in which a point lies (Adams et al. [1]_, section 3).

`hybridseg.kernels.dense.lattice_build` calls these kernels for a run of `RUN` points at a time, on
the thread that the points belong to. Each kernel is one step, in this order: `load` and `lift` the
features, find the nearest vertex of remainder 0 (`rank`, `wrap`), the barycentric coordinates
(`sort`, `share`, `write_shares`), and the keys of the corners (`name`, `name_simplices`, `recall`,
`name_corners`).

Arrays of a run are (d + 1, RUN): one row for each lattice axis, so that the loops over the points
become vectors, and small enough for the first-level cache. Positions are float64, in which the
integers of the lattice are exact. Keys are int64 words as in `hybridseg.kernels.dense.hashing`.

References
----------
.. [1] A. Adams, J. Baek, M. A. Davis, "Fast high-dimensional filtering using the permutohedral
   lattice", Computer Graphics Forum 29(2) (Eurographics), 2010.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel

Real = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Keys = NDArray[np.int64]
Numbers = NDArray[np.int32]

#: The number of points that are processed together.
RUN = 128

#: Adding and subtracting it rounds a float64 below 2^51 to an integer.
ROUNDING_SUM = 1.5 * 2.0**52

#: The bits of one half of a stride.
HALF_STRIDE_BITS = 31

#: The number of lines of the cache of simplices. It is small enough for the second-level cache of a
#: processor, next to the points.
CACHE_INDEX_BITS = 13
N_CACHE_LINES = 1 << CACHE_INDEX_BITS

#: The name in an empty line of the cache. No simplex has it, because its ranks are not all 0.
EMPTY_LINE = -(2**63)


@kernel
def load(features: Real, begin: int, scales: Doubles, rows: Doubles) -> None:
    """Write scaled features to rows 1..d; past the last point that point is repeated."""
    n_points, n_dims = features.shape
    for p in range(RUN):
        i = min(begin + p, n_points - 1)
        for j in range(n_dims):
            rows[j + 1, p] = features[i, j] * scales[j]


@kernel
def lift(rows: Doubles, start: Doubles, origin: Doubles, excess: Doubles) -> None:
    """Lift points onto the hyperplane of zero sum, in units of d + 1 (Adams et al., section 3.1).

    Writes the nearest integers minus ``start`` to ``origin``, the sum of the nearest integers to
    ``excess``, and the differences of the coordinates from them to ``rows``.
    """
    n_axes = len(rows)
    for p in range(RUN):
        rows[0, p] = 0.0
        excess[p] = 0.0
    for j in range(n_axes - 1, 0, -1):
        factor, offset = np.float64(j), start[j]
        for p in range(RUN):
            scaled = rows[j, p]
            lifted = rows[0, p] - factor * scaled
            rows[0, p] += scaled
            whole = (lifted + ROUNDING_SUM) - ROUNDING_SUM
            rows[j, p] = lifted - whole
            origin[j, p] = whole - offset
            excess[p] += whole
    offset = start[0]
    for p in range(RUN):
        whole = (rows[0, p] + ROUNDING_SUM) - ROUNDING_SUM
        rows[0, p] = rows[0, p] - whole
        origin[0, p] = whole - offset
        excess[p] += whole


@kernel
def rank(rest: Doubles, ranks: Doubles) -> None:
    """Write how many coordinates are larger than each; of equal ones the first is the larger."""
    n_axes = len(rest)
    for j in range(n_axes):
        for p in range(RUN):
            ranks[j, p] = n_axes - 1.0 - j
    for i in range(n_axes):
        for j in range(i + 1, n_axes):
            for p in range(RUN):
                ahead = 1.0 if rest[i, p] >= rest[j, p] else 0.0
                ranks[i, p] -= ahead
                ranks[j, p] += ahead


@kernel
def wrap(ranks: Doubles, excess: Doubles, origin: Doubles) -> None:
    """Move to the nearest point of remainder 0 (Conway and Sloane; Adams et al., section 3.2).

    The integers sum to ``excess`` but must sum to 0. If the sum is positive, the coordinates that
    were rounded up the most are lowered by one, which makes their differences the largest; if it is
    negative, the reverse. Ranks are updated without another sort.
    """
    n_axes = len(ranks)
    turn = np.float64(n_axes)
    for j in range(n_axes):
        for p in range(RUN):
            rank = ranks[j, p] + excess[p]
            down = 1.0 if rank >= turn else 0.0
            up = 1.0 if rank < 0.0 else 0.0
            ranks[j, p] = rank + turn * (up - down)
            origin[j, p] += up - down


@kernel
def sort(rows: Doubles) -> None:
    """Sort each column in descending order."""
    n_axes = len(rows)
    for i in range(n_axes):
        for j in range(i + 1, n_axes):
            for p in range(RUN):
                a, b = rows[i, p], rows[j, p]
                rows[i, p] = a if a > b else b
                rows[j, p] = b if a > b else a


@kernel
def share(falling: Doubles, shares: Real) -> None:
    """Write the barycentric coordinates: differences of successive sorted differences.

    The last one is 1 minus the difference between the largest and the smallest.
    """
    last = len(falling) - 1
    for rank in range(last):
        for p in range(RUN):
            shares[rank, p] = falling[rank, p] - falling[rank + 1, p]
    for p in range(RUN):
        shares[last, p] = 1.0 - (falling[0, p] - falling[last, p])


@kernel
def write_shares(
    shares: Real, excess: Doubles, count: int, weights: Real, place: int, n_columns: int
) -> None:
    """Write the barycentric coordinates to columns of ``weights``, in the order of the corners.

    ``weights`` is flat with ``n_columns`` columns, and ``place`` is the first number of the run. A
    move of `wrap` shifts all ranks, so the coordinates start at corner ``c`` and go around.
    """
    last = len(shares) - 1
    for p in range(count):
        row = place + p * n_columns
        c = np.int64(last - excess[p] if excess[p] >= 0.0 else -1.0 - excess[p])
        for rank in range(last + 1):
            weights[np.uint64(row + c)] = shares[np.uint64(rank), np.uint64(p)]
            c += last if c == 0 else -1


@kernel
def name(origin: Doubles, strides: Keys, word: int, bases: Keys) -> None:
    """Write one word of the keys of the corners of remainder 0 to ``bases`` (words, RUN).

    Strides are split into two halves, so that products with coordinates are exact in float64.
    """
    bases[word] = 0
    for shift in (0, HALF_STRIDE_BITS):
        total = np.zeros(RUN)
        for axis in range(len(origin)):
            part = (strides[word, axis] >> shift) & ((1 << HALF_STRIDE_BITS) - 1)
            if part > 0:
                factor = np.float64(part)
                for p in range(RUN):
                    total[p] += origin[axis, p] * factor
        for p in range(RUN):
            bases[word, p] += np.int64(total[p]) << shift


@kernel
def name_simplices(bases: Keys, ranks: Doubles, code: int, lines: Keys) -> None:
    """Write the name of each simplex to ``lines[0]``, and its line in the cache to ``lines[1]``.

    The name is the key of the corner of remainder 0, shifted by ``code`` bits, plus the ranks of
    the axes.
    """
    n_axes = len(ranks)
    total = np.zeros(RUN)
    digit, factor = 2.0 ** (code // n_axes), 1.0
    for axis in range(n_axes):
        for p in range(RUN):
            total[p] += ranks[axis, p] * factor
        factor *= digit
    for p in range(RUN):
        lines[0, p] = (bases[0, p] << code) + np.int64(total[p])
    for p in range(RUN):
        mixed = np.uint64(lines[0, p]) * np.uint64(0x9E3779B97F4A7C15)
        lines[1, p] = np.int64(mixed >> np.uint64(64 - CACHE_INDEX_BITS))


@kernel
def recall(
    lines: Keys,
    count: int,
    names: Keys,
    known: Numbers,
    vertices: Numbers,
    place: int,
    n_columns: int,
    unknown: Keys,
) -> Any:
    """Write the corners of the simplices that are in the cache, and list the other points.

    ``names`` (N_CACHE_LINES,) and ``known`` (N_CACHE_LINES, d + 1) are the cache: names, and
    numbers of the corners. Returns the number of points in ``unknown``. The corners in the
    cache line are written in any case, because a branch would often be predicted wrongly.
    """
    n_unknown = np.int64(0)
    for p in range(count):
        line = np.uint64(lines[1, p])
        unknown[n_unknown] = p
        n_unknown += np.int64(names[line] != lines[0, p])
        row = place + p * n_columns
        for c in range(known.shape[1]):
            vertices[np.uint64(row + c)] = known[line, np.uint64(c)]
    return n_unknown


@kernel
def name_corners(
    bases: Keys, ranks: Doubles, strides: Keys, points: Keys, count: int, keys: Keys
) -> None:
    """Write the keys (words, d + 1, RUN) of all corners, remainder 0 to d, for the listed points.

    From each corner to the next one, the step is along the axis with the smallest difference that
    was not used before.
    """
    n_words, n_axes = strides.shape
    order = np.empty(n_axes, np.int64)
    for i in range(count):
        p = np.uint64(points[i])
        for axis in range(n_axes):
            order[np.uint64(ranks[np.uint64(axis), p])] = axis
        for word in range(n_words):
            key = bases[word, p]
            rise = 1 if word == 0 else 0  # the lowest digit of the first word is the remainder
            keys[word, 0, i] = key
            for c in range(1, n_axes):
                key += rise - strides[word, np.uint64(order[np.uint64(n_axes - c)])]
                keys[word, c, i] = key
