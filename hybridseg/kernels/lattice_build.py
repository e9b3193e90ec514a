"""Construction of the permutohedral lattice: which vertices points touch, and who is near whom.

Points are taken in runs of 64. Within a run every step is a loop over the points, one coordinate at
a time, in arrays that stay in the first cache, so that the compiler packs it. Positions are 64-bit
floats throughout: lattice coordinates are whole numbers in them, and so are keys below 2^51.

Corners are numbered by a hash table as the runs go by, so that keys are never held for all points.
Every thread takes one band of the points and has a table of its own; the tables are joined in the
order of the bands, so that the numbers do not depend on how many there were. The threads are
Python's: the kernels let go of the interpreter, tables can grow between two calls, and compiling
for one thread takes a fraction of the time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel
from hybridseg.kernels._hashing import enter, find, grow, tag

Real = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Keys = NDArray[np.int64]
Numbers = NDArray[np.int32]

#: Points whose coordinates are worked on together.
RUN = 128

#: Points, or vertices, below which another thread costs more than it brings.
LEAST_POINTS = 1 << 13
LEAST_VERTICES = 1 << 14

#: Adding it rounds a double below 2^51 to a whole number.
MAGIC = 1.5 * 2.0**52

#: Words of a key stay below it, so that they are exact as doubles, and sums of them.
MOST_KEY = 2**51


class Places(NamedTuple):
    """Where ``n`` points of dimension ``d`` lie in the lattice.

    Attributes
    ----------
    vertices : (n, d + 1) int32
        The corners of every point's simplex, as numbers 0..M-1.
    weights : (n, d + 1) float32 or float64
        Barycentric coordinates.
    keys : (words, M) int64
        The name of each vertex. The lowest digit of its first word is the remainder.
    table : (2**b, 8) int64
        The hash table of the keys; see `hybridseg.kernels._hashing`.
    strides : (words, d + 1) int64
        What one step of each coordinate q adds to a key.
    """

    vertices: Numbers
    weights: Real
    keys: Keys
    table: Keys
    strides: Keys


def place_points(features: Real) -> Places:
    """Find each point's simplex, and number the vertices in the order in which points touch them.

    Corners of a simplex follow one another by single steps of the lattice: each is one remainder
    above the one before, from the corner that rounding finds first.

    Parameters
    ----------
    features : (n, d) float32 or float64
        As for `hybridseg.kernels.lattice.build`.

    Returns
    -------
    Places
        With weights of the features' dtype.
    """
    features = np.ascontiguousarray(features)
    n_points, n_dims = features.shape
    scales = _axis_scales(n_dims)
    first = _nearest_whole(features[0] * scales)
    strides = _key_strides(_bounds(features), scales)
    vertices = np.empty((n_points, n_dims + 1), np.int32)
    weights = np.empty((n_points, n_dims + 1), features.dtype)

    def place(band: slice) -> tuple[Keys, Keys]:
        return _place_band(
            features[band], scales, first, strides, vertices[band].ravel(), weights[band].ravel()
        )

    bands = _bands(n_points, LEAST_POINTS)
    keys, table = _join(_each(place, bands), [vertices[band].ravel() for band in bands])
    return Places(vertices, weights, keys, table, strides)


def _bands(size: int, least: int) -> list[slice]:
    """Cut a range into one part for each thread, of at least so many elements."""
    n_bands = max(1, min(get_num_threads(), size // least))
    ends = [size * band // n_bands for band in range(n_bands + 1)]
    return [slice(*pair) for pair in pairwise(ends)]


def _each(task: Callable[[slice], Any], bands: list[slice]) -> list[Any]:
    """Do a task for all bands at once: what it compiles runs without the interpreter's lock."""
    if len(bands) == 1:
        return [task(bands[0])]
    with ThreadPoolExecutor(len(bands)) as pool:
        return list(pool.map(task, bands))


def _place_band(
    features: Real, scales: Doubles, first: Doubles, strides: Keys, vertices: Numbers, weights: Real
) -> tuple[Keys, Keys]:
    """Place points with a table of their own, which grows; the keys of the vertices, and it."""
    n_words, n_corners = strides.shape
    room = 1 << (4 * RUN * n_corners).bit_length()
    vertex_keys, table = grow(np.empty((n_words, 0), np.int64), 0, room)
    done, n_vertices = 0, 0
    while True:
        done, n_vertices = _place(
            *(features, scales, first, strides, done, vertices, weights),
            *(n_vertices, vertex_keys, table),
        )
        if done >= len(features):
            return vertex_keys[:, :n_vertices], table
        vertex_keys, table = grow(vertex_keys, n_vertices, 2 * vertex_keys.shape[1])


def _join(parts: list[tuple[Keys, Keys]], vertices: list[Numbers]) -> tuple[Keys, Keys]:
    """Number the vertices of all bands as if there were one, and enter them in one table."""
    vertex_keys, table = parts[0]
    n_vertices = vertex_keys.shape[1]
    for (keys, _), numbers in zip(parts[1:], vertices[1:], strict=True):
        most = n_vertices + keys.shape[1]
        vertex_keys, table = grow(vertex_keys, n_vertices, 1 << (most - 1).bit_length())
        places = np.arange(keys.shape[1])
        renumbered = np.empty(len(places), np.int32)
        n_vertices = enter(keys, places, len(places), renumbered, n_vertices, vertex_keys, table)
        _renumber(numbers, renumbered)
    return vertex_keys[:, :n_vertices].copy(), table


def _axis_scales(n_dims: int) -> Doubles:
    """Per feature, what makes splat, blur and slice a Gaussian of deviation one.

    The three together have variance ``2/3 (d + 1)^2`` along each axis (Adams et al., section 3),
    and the columns of the elevation matrix have squared length ``(j + 1)(j + 2)``, j = 0..d-1.
    Lengths are in units of d + 1.
    """
    j = np.arange(n_dims)
    scales: Doubles = np.sqrt(2 / 3 / ((j + 1) * (j + 2)))
    return scales


def _nearest_whole(scaled: Doubles) -> Doubles:
    """Whole numbers near the lifted coordinates of one point, from which keys count."""
    later = np.append(np.cumsum(scaled[::-1])[::-1], 0.0)
    lifted = later - np.arange(len(scaled) + 1) * np.append(0.0, scaled)
    whole: Doubles = np.rint(lifted)
    return whole


def _key_strides(box: Doubles, scales: Doubles) -> Keys:
    """Weights (words, d + 1) of q_0 .. q_d in a vertex's key; each q_j counts in one word only.

    The last coordinate follows from the others and has no digit of its own; the remainder k is
    the lowest digit of the first word, of a power of two. The keys of all vertices and of their
    neighbours differ.
    """
    n_dims = len(scales)
    words: list[list[int]] = [[0] * (n_dims + 1)]
    size = 1 << n_dims.bit_length()
    for j, extent in enumerate(_extents((box[1] - box[0]) * scales)):
        if size * extent >= MOST_KEY:
            words.append([0] * (n_dims + 1))
            size = 1
        words[-1][j] = size
        size *= extent
    return np.array(words, dtype=np.int64)


def _extents(spans: Doubles) -> list[int]:
    """How many values each q_0 .. q_(d-1) can take, from the sides of the box around the points."""
    later = np.cumsum(spans[::-1])[::-1]  # row j of the elevation matrix: -j, then ones
    rows = [later[0]] + [later[j] + j * spans[j - 1] for j in range(1, len(spans))]
    # the nearest remainder-0 point, a corner and its neighbour lie up to three steps off
    return [math.ceil(row) + 7 for row in rows]


@kernel
def _bounds(features: Real) -> Doubles:
    """The least and the largest value of each feature, (2, d)."""
    n_points, n_dims = features.shape
    box = np.empty((2, n_dims))
    for j in range(n_dims):
        box[0, j] = box[1, j] = features[0, j]
    for begin in range(0, n_points, RUN):  # a run at a time: its lines stay in the first cache
        end = min(begin + RUN, n_points)
        for j in range(n_dims):
            least, most = box[0, j], box[1, j]
            for i in range(begin, end):
                value = np.float64(features[i, j])
                least = value if value < least else least
                most = value if value > most else most
            box[0, j], box[1, j] = least, most
    return box


@kernel
def _renumber(vertices: Numbers, numbers: Numbers) -> None:
    for i in range(len(vertices)):
        vertices[i] = numbers[vertices[i]]


@kernel
def _place(
    features: Real,
    scales: Doubles,
    first: Doubles,
    strides: Keys,
    done: int,
    vertices: Numbers,
    weights: Real,
    n_vertices: int,
    vertex_keys: Keys,
    table: Keys,
) -> tuple[int, int]:
    """Place the points from ``done`` on until there might be no room for their vertices.

    Gives the number of points done, and that of the vertices.
    """
    n_words, n_corners = strides.shape
    rest = np.empty((n_corners, RUN))
    shares = np.empty((n_corners, RUN), weights.dtype)
    origin = np.empty((n_corners, RUN))
    excess = np.empty(RUN)
    keys = np.empty((n_words, n_corners, RUN), np.int64)
    tags = np.empty((n_corners, RUN), np.int64)
    lost = np.empty(n_corners * RUN, np.int64)
    lost_keys = np.empty((n_words, n_corners * RUN), np.int64)
    for begin in range(done, len(features), RUN):
        if n_vertices + n_corners * RUN > vertex_keys.shape[1]:
            return begin, n_vertices
        count = min(RUN, len(features) - begin)
        _load(features, begin, scales, rest)
        _lift(rest, first, origin, excess)
        _sort(rest)
        _share(rest, shares)
        for word in range(n_words):
            _name(rest, origin, excess, strides, word, keys)
        start = begin * n_corners
        place = start
        for p in range(count):
            for corner in range(n_corners):
                weights[place] = shares[corner, p]
                place += 1
        tag(keys, tags)
        n_lost = find(keys, tags, count, vertex_keys, table, vertices, start, lost)
        for i in range(n_lost):
            p, corner = lost[i] // n_corners, lost[i] % n_corners
            for word in range(n_words):
                lost_keys[word, i] = keys[word, corner, p]
            lost[i] += start
        n_vertices = enter(lost_keys, lost, n_lost, vertices, n_vertices, vertex_keys, table)
    return len(features), n_vertices


@kernel
def _load(features: Real, begin: int, scales: Doubles, rows: Doubles) -> None:
    """Write scaled features to rows 1..d; a run that reaches past the last point repeats it."""
    n_points, n_dims = features.shape
    for p in range(RUN):
        i = min(begin + p, n_points - 1)
        for j in range(n_dims):
            rows[j + 1, p] = features[i, j] * scales[j]


@kernel
def _lift(rows: Doubles, first: Doubles, origin: Doubles, excess: Doubles) -> None:
    """Lift points onto the plane of zero sum, in units of d + 1 (Adams et al., section 3.1).

    Leaves in ``origin`` the nearest whole numbers, less those of ``first``, in ``excess`` their sum
    and in ``rows`` the difference to them plus 1, which makes it positive.
    """
    n_axes = len(rows)
    for p in range(RUN):
        rows[0, p] = 0.0
        excess[p] = 0.0
    for j in range(n_axes - 1, 0, -1):
        factor, offset = np.float64(j), first[j]
        for p in range(RUN):
            scaled = rows[j, p]
            lifted = rows[0, p] - factor * scaled
            rows[0, p] += scaled
            whole = (lifted + MAGIC) - MAGIC
            rows[j, p] = (lifted - whole) + 1.0
            origin[j, p] = whole - offset
            excess[p] += whole
    offset = first[0]
    for p in range(RUN):
        whole = (rows[0, p] + MAGIC) - MAGIC
        rows[0, p] = (rows[0, p] - whole) + 1.0
        origin[0, p] = whole - offset
        excess[p] += whole


@kernel
def _sort(rows: Doubles) -> None:
    """Sort each column from large to small; the lowest bits of a number say where it was."""
    n_axes = len(rows)
    mask = _low_bits(n_axes)
    bits = rows.view(np.int64)
    for j in range(n_axes):
        axis = mask - j  # of equal numbers the first stays first
        for p in range(RUN):
            bits[j, p] = (bits[j, p] & ~mask) | axis
    for i in range(n_axes):
        for j in range(i + 1, n_axes):
            for p in range(RUN):
                a, b = rows[i, p], rows[j, p]
                rows[i, p] = a if a > b else b
                rows[j, p] = b if a > b else a


@kernel
def _low_bits(n_axes: int) -> int:
    """The bits of a number from 0 to ``n_axes`` - 1, all of them set."""
    mask = 1
    while mask < n_axes - 1:
        mask = 2 * mask + 1
    return mask


@kernel
def _share(falling: Doubles, shares: Real) -> None:
    """Barycentric coordinates: the sorted differences' own differences, around the circle."""
    last = len(falling) - 1
    for p in range(RUN):
        shares[0, p] = 1.0 - (falling[0, p] - falling[last, p])
    for corner in range(1, last + 1):
        for p in range(RUN):
            shares[corner, p] = falling[last - corner, p] - falling[last - corner + 1, p]


@kernel
def _name(
    falling: Doubles, origin: Doubles, excess: Doubles, strides: Keys, word: int, keys: Keys
) -> None:
    """Pack one word of the corners' coordinates.

    The way from a corner to the next is along the axis of the smallest difference not yet used. It
    begins ``excess`` below remainder 0, so that it reaches the remainder d + 1, which is 0 with
    all coordinates one higher, on its way: the nearest point of remainder 0 of Conway and Sloane's
    rounding (Adams et al., section 3.2).
    """
    n_corners = len(falling)
    mask = _low_bits(n_corners)
    bits = falling.view(np.int64)
    rise = 1 if word == 0 else 0  # the remainder is a digit of the first word
    turn = -n_corners * rise
    for axis in range(n_corners):
        turn += strides[word, axis]
    total = np.empty(RUN)
    for p in range(RUN):
        total[p] = -rise * excess[p] - (turn if excess[p] > 0.0 else 0.0)
    for axis in range(n_corners):
        stride = np.float64(strides[word, axis])
        for p in range(RUN):
            total[p] += origin[axis, p] * stride
    for p in range(RUN):
        keys[word, 0, p] = np.int64(total[p])
    for corner in range(1, n_corners):
        for p in range(RUN):
            axis = mask - (bits[n_corners - corner, p] & mask)
            keys[word, corner, p] = keys[word, corner - 1, p] + rise
            keys[word, corner, p] -= strides[word, np.uint64(axis)]
        for p in range(RUN):
            turns = (excess[p] == corner) | (excess[p] == corner - n_corners)
            keys[word, corner, p] += turn if turns else 0


def link_neighbours(places: Places) -> Numbers:
    """Look up every vertex's neighbour along every direction; the way back is its inverse.

    One step along axis j adds 1 to all coordinates but the j-th, which loses d: remainder k
    becomes k + 1 and q_j falls by one, or from k = d all q but q_j rise by one and k returns to 0.

    Parameters
    ----------
    places : Places

    Returns
    -------
    (d + 1, M, 2) int32
        As in `hybridseg.kernels.lattice.Lattice`.
    """
    n_vertices = places.keys.shape[1]
    neighbours = np.full((places.strides.shape[1], n_vertices, 2), n_vertices, np.int32)

    def link(band: slice) -> None:
        _link(places.keys, places.table, places.strides, band.start, band.stop, neighbours)

    _each(link, _bands(n_vertices, LEAST_VERTICES))
    return neighbours


@kernel
def _link(
    vertex_keys: Keys, table: Keys, strides: Keys, start: int, stop: int, neighbours: Numbers
) -> None:
    """Write down the neighbours ahead of the vertices start..stop-1, and these as theirs behind."""
    n_words, n_axes = strides.shape
    keys = np.empty((n_words, n_axes, RUN), np.int64)
    tags = np.empty((n_axes, RUN), np.int64)
    lost = np.empty(n_axes * RUN, np.int64)
    numbers = np.empty(n_axes * RUN, np.int32)
    for begin in range(start, stop, RUN):
        count = min(RUN, stop - begin)
        for word in range(n_words):
            _step(vertex_keys, begin, count, word, strides, keys)
        tag(keys, tags)
        find(keys, tags, count, vertex_keys, table, numbers, 0, lost)
        for axis in range(n_axes):
            for p in range(count):
                other = numbers[p * n_axes + axis]
                if other >= 0:
                    neighbours[axis, begin + p, 0] = other
                    neighbours[axis, other, 1] = begin + p


@kernel
def _step(vertex_keys: Keys, begin: int, count: int, word: int, strides: Keys, keys: Keys) -> None:
    """Write one word of the keys one step on from some vertices, along every axis."""
    n_axes = strides.shape[1]
    digit = _low_bits(n_axes)  # the remainder's
    total = 0
    for axis in range(n_axes):
        total += strides[word, axis]
    rise = 1 if word == 0 else 0
    for axis in range(n_axes):
        onward = rise - strides[word, axis]
        back = onward + total - n_axes * rise
        for p in range(count):
            wraps = (vertex_keys[0, begin + p] & digit) == n_axes - 1
            keys[word, axis, p] = vertex_keys[word, begin + p] + (back if wraps else onward)
