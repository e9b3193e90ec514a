"""Which simplex of the permutohedral lattice a point lies in: positions, shares and names.

Points are taken in runs of 128. Within a run every step is a loop over the points, one coordinate
at a time, in arrays that stay in the first cache, so that the compiler packs it. Positions are
64-bit floats throughout, in which lattice coordinates are whole numbers.
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

#: Points whose coordinates are worked on together.
RUN = 128

#: Adding it rounds a double below 2^51 to a whole number.
MAGIC = 1.5 * 2.0**52

#: Bits of one half of a stride.
HALF = 31

#: Simplices that are remembered at most: a megabyte would not stay in the second cache.
REMEMBERED_BITS = 13
REMEMBERED = 1 << REMEMBERED_BITS

#: The name of no simplex: no ranks are all 0.
NOBODY = -(2**63)


@kernel
def load(features: Real, begin: int, scales: Doubles, rows: Doubles) -> None:
    """Write scaled features to rows 1..d; a run that reaches past the last point repeats it."""
    n_points, n_dims = features.shape
    for p in range(RUN):
        i = min(begin + p, n_points - 1)
        for j in range(n_dims):
            rows[j + 1, p] = features[i, j] * scales[j]


@kernel
def lift(rows: Doubles, start: Doubles, origin: Doubles, excess: Doubles) -> None:
    """Lift points onto the plane of zero sum, in units of d + 1 (Adams et al., section 3.1).

    Leaves in ``origin`` the nearest whole numbers, less those of ``start``, in ``excess`` their sum
    and in ``rows`` the difference to them.
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
            whole = (lifted + MAGIC) - MAGIC
            rows[j, p] = lifted - whole
            origin[j, p] = whole - offset
            excess[p] += whole
    offset = start[0]
    for p in range(RUN):
        whole = (rows[0, p] + MAGIC) - MAGIC
        rows[0, p] = rows[0, p] - whole
        origin[0, p] = whole - offset
        excess[p] += whole


@kernel
def rank(rest: Doubles, ranks: Doubles) -> None:
    """How many coordinates are larger than each; of equal ones the first counts as the larger."""
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

    The whole numbers sum to ``excess`` and should to 0: those that were rounded up the most come
    down by one, and with that become the least used.
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
    """Sort each column from large to small."""
    n_axes = len(rows)
    for i in range(n_axes):
        for j in range(i + 1, n_axes):
            for p in range(RUN):
                a, b = rows[i, p], rows[j, p]
                rows[i, p] = a if a > b else b
                rows[j, p] = b if a > b else a


@kernel
def share(falling: Doubles, shares: Real) -> None:
    """Barycentric coordinates: the sorted differences' own differences, around the circle."""
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
    """Write the shares of corners d to 0; the circle begins anew where the ranks have wrapped."""
    last = len(shares) - 1
    for p in range(count):
        row = place + p * n_columns
        c = np.int64(last - excess[p] if excess[p] >= 0.0 else -1.0 - excess[p])
        for rank in range(last + 1):
            weights[np.uint64(row + c)] = shares[np.uint64(rank), np.uint64(p)]
            c += last if c == 0 else -1


@kernel
def name(origin: Doubles, strides: Keys, word: int, bases: Keys) -> None:
    """Pack one word of the coordinates of the corner of remainder 0.

    Strides are taken apart in halves, so that products with coordinates are exact as doubles.
    """
    bases[word] = 0
    for shift in (0, HALF):
        total = np.zeros(RUN)
        for axis in range(len(origin)):
            part = (strides[word, axis] >> shift) & ((1 << HALF) - 1)
            if part > 0:
                factor = np.float64(part)
                for p in range(RUN):
                    total[p] += origin[axis, p] * factor
        for p in range(RUN):
            bases[word, p] += np.int64(total[p]) << shift


@kernel
def name_simplices(bases: Keys, ranks: Doubles, code: int, lines: Keys) -> None:
    """Write each simplex's name, and the line of the memory where it should stand."""
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
        lines[1, p] = np.int64(mixed >> np.uint64(64 - REMEMBERED_BITS))


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
    """Write the corners of the simplices that are remembered, and list the other points.

    What stands in the line is written in any case: a branch would often be foretold wrongly.
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
    """Write the keys of all corners of some points' simplices, from remainder 0 to d.

    The way from a corner to the next is along the axis of the smallest difference not yet used.
    """
    n_words, n_axes = strides.shape
    order = np.empty(n_axes, np.int64)
    for i in range(count):
        p = np.uint64(points[i])
        for axis in range(n_axes):
            order[np.uint64(ranks[np.uint64(axis), p])] = axis
        for word in range(n_words):
            key = bases[word, p]
            rise = 1 if word == 0 else 0  # the remainder is a digit of the first word
            keys[word, 0, i] = key
            for c in range(1, n_axes):
                key += rise - strides[word, np.uint64(order[np.uint64(n_axes - c)])]
                keys[word, c, i] = key
