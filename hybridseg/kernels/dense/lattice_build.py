"""Construction of the permutohedral lattice: which vertices points touch, and who is near whom.

Points of R^d are lifted onto the hyperplane of R^(d+1) whose coordinates sum to zero, where the
lattice A*_d tiles space with simplices. A filter spreads a value over the d + 1 corners of its
simplex, smooths the corners along the d + 1 lattice directions and reads the result back at the
points. With features divided by their standard deviations that approximates the sum over all
points of exp(-|f_i - f_j|^2 / 2) values_j, up to one constant factor, in time linear in the number
of points (Adams, Baek and Davis, "Fast high-dimensional filtering using the permutohedral lattice",
Eurographics 2010); `hybridseg.kernels.dense.dense_filter` does it.

A corner of remainder k has coordinates ``(d + 1) q_j + k`` with integers q_j that sum to -k, so
that (k, q_0 .. q_(d-1)) names it. These integers are packed in mixed radix into one 64-bit word,
or into as many as a high dimension needs; a step along a lattice direction is then the addition
of a constant to the key.

Points are taken in runs, whose simplices `hybridseg.kernels.dense.simplices` finds.
Neighboring points of a picture share simplices: a name for the whole simplex is looked up first,
in a small cache without collision lists, whose lines hold the numbers of all corners. Only where
that fails, corner by corner, the hash table of the vertices is asked. Keys are never held for all
points.

Every thread takes one band of the points and has a cache and a table of its own; the tables are
joined in the order of the bands, so that the numbers do not depend on how many there were. The
threads are Python's: the kernels let go of the interpreter, tables can grow between two calls, and
compiling for one thread takes a fraction of the time.
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
from hybridseg.kernels.dense.hashing import enter, enter_directly, find, find_directly, grow, tag
from hybridseg.kernels.dense.simplices import (
    NOBODY,
    REMEMBERED,
    RUN,
    lift,
    load,
    name,
    name_corners,
    name_simplices,
    rank,
    recall,
    share,
    sort,
    wrap,
    write_shares,
)

Real = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Keys = NDArray[np.int64]
Numbers = NDArray[np.int32]

#: Points, or vertices, below which another thread costs more than it brings.
LEAST_POINTS = 1 << 13
LEAST_VERTICES = 1 << 14

#: Words of a key stay below the first; below the second where one of their coordinates can take
#: so many values that its product with half a stride would not be exact as a double.
MOST_KEY = 2**62
MOST_EXACT = 2**51
MANY_VALUES = 2**16

#: A direct table may have so many entries, or two for each point if that is more.
DIRECT = 1 << 14


class Places(NamedTuple):
    """Where points of dimension ``d`` lie in the lattice.

    Attributes
    ----------
    keys : (words, M) int64
        The name of each vertex. The lowest digit of its first word is the remainder.
    table : (2**b, 8) int64
        The hash table of the keys; see `hybridseg.kernels.dense.hashing`.
    direct : (2**b,) or (0,) int32
        A direct table in its stead where keys lie close together.
    strides : (words, d + 1) int64
        What one step of each coordinate q adds to a key.
    """

    keys: Keys
    table: Keys
    direct: Numbers
    strides: Keys

    @property
    def n_vertices(self) -> int:
        """Number of vertices that a point touches."""
        return self.keys.shape[1]


class _Frame(NamedTuple):
    """How the coordinates of a lattice are packed.

    Attributes
    ----------
    scales : (d,)
        What features are multiplied with; see `_axis_scales`.
    start : (d + 1,)
        Whole numbers near the first point, from which keys count.
    strides : (words, d + 1)
        See `Places`.
    code : int
        How many bits the ranks of a simplex's axes take in its name; 0 where it has none.
    n_direct : int
        Entries of a direct table; 0 where keys lie too far apart.
    """

    scales: Doubles
    start: Doubles
    strides: Keys
    code: int
    n_direct: int


#: Hashes wrap around, as NumPy says where nothing is compiled; each thread has a state of its own.
_wrapping = np.errstate(over="ignore")


@_wrapping
def place_points(
    features: Real, vertices: Numbers, weights: Real, corner: int = 0, first: int = 0
) -> Places:
    """Find each point's simplex, and number the vertices in the order in which points touch them.

    The corners of a simplex are those of remainder 0 to d, and each follows on the one before by a
    single step of the lattice.

    Parameters
    ----------
    features : (n, d) float32 or float64
        Positions, already divided by the standard deviations of the wanted Gaussian. The caller
        guarantees ``n >= 1``, ``d >= 1``, values within +-1e12 and ``n * (d + 1) < 2**31``.
    vertices : (n, C) int32, C-contiguous
        Columns ``corner`` to ``corner + d`` receive the numbers of the corners of every point's
        simplex, from ``first`` on.
    weights : (n, C) float32 or float64, C-contiguous
        The same columns receive the barycentric coordinates.
    corner, first : int

    Returns
    -------
    Places
    """
    features = np.ascontiguousarray(features)
    n_points, n_dims = features.shape
    bands = _bands(n_points, LEAST_POINTS)
    boxes = _each(lambda band: _bounds(features[band]), bands)
    frame = _frame(features[0], np.array(boxes), n_points)

    def place(band: slice) -> tuple[Keys, Keys, Numbers]:
        return _place_band(features[band], frame, vertices[band], weights[band], corner, first)

    keys, table, direct, numbers = _join(_each(place, bands))

    def renumber(which: slice) -> None:
        rows = vertices[bands[which.start]]
        _renumber(rows, corner, n_dims + 1, first, numbers[which.start])

    _each(renumber, [slice(band, band + 1) for band in range(1, len(bands))])
    return Places(keys, table, direct, frame.strides)


def _bands(size: int, least: int) -> list[slice]:
    """Cut a range into one part for each thread, of at least so many elements."""
    n_bands = max(1, min(get_num_threads(), size // least))
    ends = [size * band // n_bands for band in range(n_bands + 1)]
    return [slice(*pair) for pair in pairwise(ends)]


def _each(task: Callable[[slice], Any], bands: list[slice]) -> list[Any]:
    """Do a task for all bands at once: what it compiles runs without the interpreter's lock."""
    if len(bands) < 2:
        return [task(band) for band in bands]
    with ThreadPoolExecutor(len(bands) - 1) as pool:
        others = [pool.submit(task, band) for band in bands[1:]]
        return [task(bands[0]), *(other.result() for other in others)]


@_wrapping
def _place_band(
    features: Real, frame: _Frame, vertices: Numbers, weights: Real, corner: int, first: int
) -> tuple[Keys, Keys, Numbers]:
    """Place points with tables of their own; the keys of the vertices, and the tables."""
    n_words, n_corners = frame.strides.shape
    direct = np.zeros(frame.n_direct, np.int32)
    least = frame.n_direct + n_corners * RUN if frame.n_direct else len(features) // 16
    room = 1 << (max(4 * RUN * n_corners, least) - 1).bit_length()
    vertex_keys, table = _room(np.empty((n_words, 0), np.int64), 0, room, direct)
    names = np.full(REMEMBERED, NOBODY, np.int64)
    known = np.empty((REMEMBERED, n_corners), np.int32)
    flat_vertices, flat_weights, n_columns = vertices.ravel(), weights.ravel(), vertices.shape[1]
    done, n_vertices = 0, 0
    while True:
        done, n_vertices = _place(
            *(features, frame.scales, frame.start, frame.strides, frame.code, done),
            *(flat_vertices, flat_weights, n_columns, corner, first, n_vertices),
            *(vertex_keys, table, direct, names, known),
        )
        if done >= len(features):
            return vertex_keys[:, :n_vertices], table, direct
        vertex_keys, table = _room(vertex_keys, n_vertices, 2 * vertex_keys.shape[1], direct)


def _room(keys: Keys, n_vertices: int, room: int, direct: Numbers) -> tuple[Keys, Keys]:
    """Make room for so many keys, and a hash table unless there is a direct one."""
    if len(direct) == 0:
        return grow(keys, n_vertices, room)
    larger = np.empty((len(keys), room), np.int64)
    larger[:, :n_vertices] = keys[:, :n_vertices]
    return larger, grow(keys, 0, 1)[1]


def _join(
    parts: list[tuple[Keys, Keys, Numbers]],
) -> tuple[Keys, Keys, Numbers, list[Numbers]]:
    """Number the vertices of all bands as if there were one, and enter them in one table.

    The last says for each band which number each of its own becomes.
    """
    vertex_keys, table, direct = parts[0]
    n_vertices = vertex_keys.shape[1]
    numbers = [np.arange(n_vertices, dtype=np.int32)]
    for keys, *_ in parts[1:]:
        n_keys = keys.shape[1]
        room = 1 << (n_vertices + n_keys).bit_length()
        vertex_keys, table = _room(vertex_keys, n_vertices, room, direct)
        numbers.append(np.empty(n_keys, np.int32))
        if len(direct):
            n_vertices = enter_directly(
                *(keys[:, np.newaxis], n_keys, numbers[-1], n_vertices, vertex_keys, direct)
            )
        else:
            n_vertices = enter(
                *(keys, np.arange(n_keys), n_keys, numbers[-1], n_vertices, vertex_keys, table)
            )
    return vertex_keys[:, :n_vertices].copy(), table, direct, numbers


def _frame(point: Real, boxes: Doubles, n_points: int) -> _Frame:
    """Choose how to pack coordinates, from one point and boxes (k, 2, d) around parts of them.

    The remainder k is the lowest digit of a key's first word, of a power of two; every q_j but the
    last, which follows from the others, has a digit of its own in one word only. The keys of all
    vertices and of their neighbors differ.

    A simplex is named by the key of its corner of remainder 0 and the ranks of its axes, if both
    have room in one word.
    """
    n_dims = len(point)
    scales = _axis_scales(n_dims)
    words: list[list[int]] = [[0] * (n_dims + 1)]
    digit = n_dims.bit_length()
    size = 1 << digit
    spans = boxes[:, 1].max(axis=0) - boxes[:, 0].min(axis=0)
    for j, extent in enumerate(_extents(spans * scales)):
        if size * extent >= (MOST_KEY if extent < MANY_VALUES else MOST_EXACT):
            words.append([0] * (n_dims + 1))
            size = 1
        words[-1][j] = size
        size *= extent
    code = digit * (n_dims + 1)
    fits = len(words) == 1 and size << code < 2**64
    n_direct = 1 << (size - 1).bit_length()
    close = len(words) == 1 and n_direct <= max(DIRECT, 2 * n_points)
    return _Frame(
        scales,
        _nearest_whole(point * scales),
        np.array(words, dtype=np.int64),
        code if fits else 0,
        n_direct if close else 0,
    )


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


def _extents(spans: Doubles) -> list[int]:
    """How many values each q_0 .. q_(d-1) can take, from the sides of the box around the points."""
    later = np.cumsum(spans[::-1])[::-1]  # row j of the elevation matrix: -j, then ones
    rows = [later[0]] + [later[j] + j * spans[j - 1] for j in range(1, len(spans))]
    # the nearest remainder-0 point, a corner and its neighbor lie up to three steps off
    return [math.ceil(row) + 7 for row in rows]


@kernel
def _bounds(features: Real) -> Doubles:
    """The least and the largest value of each feature, (2, d)."""
    n_points, n_dims = features.shape
    numbers, width = features.reshape(-1), min(16, n_points) * n_dims
    least, most = numbers[:width].copy(), numbers[:width].copy()
    for begin in range(0, len(numbers), width):
        start = min(begin, len(numbers) - width)
        for k in range(width):  # side by side, and not feature by feature: the compiler packs it
            value = numbers[np.uint64(start + k)]
            least[k] = value if value < least[k] else least[k]
            most[k] = value if value > most[k] else most[k]
    box = np.empty((2, n_dims))
    for j in range(n_dims):
        box[0, j], box[1, j] = least[j::n_dims].min(), most[j::n_dims].max()
    return box


@kernel
def _renumber(vertices: Numbers, corner: int, n_corners: int, first: int, numbers: Numbers) -> None:
    for i in range(len(vertices)):
        for c in range(corner, corner + n_corners):
            vertices[i, c] = first + numbers[np.uint64(vertices[i, c] - first)]


@kernel
def _place(
    features: Real,
    scales: Doubles,
    start: Doubles,
    strides: Keys,
    code: int,
    done: int,
    vertices: Numbers,
    weights: Real,
    n_columns: int,
    corner: int,
    first: int,
    n_vertices: int,
    vertex_keys: Keys,
    table: Keys,
    direct: Numbers,
    names: Keys,
    known: Numbers,
) -> tuple[int, int]:
    """Place the points from ``done`` on until there might be no room for their vertices.

    Gives the number of points done, and that of the vertices.
    """
    n_words, n_corners = strides.shape
    rest, origin = np.empty((n_corners, RUN)), np.empty((n_corners, RUN))
    ranks, excess = np.empty((n_corners, RUN)), np.empty(RUN)
    shares = np.empty((n_corners, RUN), weights.dtype)
    bases, lines = np.empty((n_words, RUN), np.int64), np.empty((2, RUN), np.int64)
    keys = np.empty((n_words, n_corners, RUN), np.int64)
    tags = np.empty((n_corners, RUN), np.int64)
    numbers = np.empty(n_corners * RUN, np.int32)
    unknown, lost = np.empty(RUN, np.int64), np.empty(n_corners * RUN, np.int64)
    lost_keys = np.empty((n_words, n_corners * RUN), np.int64)
    for begin in range(done, len(features), RUN):
        if n_vertices + n_corners * RUN > vertex_keys.shape[1]:
            return begin, n_vertices
        count = min(RUN, len(features) - begin)
        load(features, begin, scales, rest)
        lift(rest, start, origin, excess)
        rank(rest, ranks)
        wrap(ranks, excess, origin)
        sort(rest)
        share(rest, shares)
        for word in range(n_words):
            name(origin, strides, word, bases)
        place = begin * n_columns + corner
        write_shares(shares, excess, count, weights, place, n_columns)
        n_unknown = count
        if code > 0:
            name_simplices(bases, ranks, code, lines)
            n_unknown = recall(lines, count, names, known, vertices, place, n_columns, unknown)
        else:
            for p in range(count):
                unknown[p] = p
        name_corners(bases, ranks, strides, unknown, n_unknown, keys)
        if len(direct) > 0:
            n_vertices = enter_directly(keys, n_unknown, numbers, n_vertices, vertex_keys, direct)
        else:
            tag(keys, n_unknown, tags)
            n_lost = find(keys, tags, n_unknown, vertex_keys, table, numbers, 0, lost)
            for i in range(n_lost):
                for word in range(n_words):
                    lost_keys[word, i] = keys[word, lost[i] % n_corners, lost[i] // n_corners]
            n_vertices = enter(lost_keys, lost, n_lost, numbers, n_vertices, vertex_keys, table)
        for i in range(n_unknown):
            p = unknown[i]
            for c in range(n_corners):
                vertices[place + p * n_columns + c] = first + numbers[i * n_corners + c]
            if code > 0:
                line = lines[1, p]
                names[line] = lines[0, p]
                for c in range(n_corners):
                    known[line, c] = first + numbers[i * n_corners + c]
    return len(features), n_vertices


def link_neighbors(places: Places, missing: int, first: int, neighbors: Numbers) -> None:
    """Look up every vertex's neighbor along every direction; the way back is its inverse.

    One step along axis j adds 1 to all coordinates but the j-th, which loses d: remainder k
    becomes k + 1 and q_j falls by one, or from k = d all q but q_j rise by one and k returns to 0.

    Parameters
    ----------
    places : Places
    missing : int
        What to write where there is no neighbor.
    first : int
        The number of the first vertex.
    neighbors : (d + 1, M, 2) int32
        Receives the numbers one step ahead and one step behind, along each direction.
    """
    neighbors[:] = missing

    @_wrapping
    def link(band: slice) -> None:
        _link(*places, band.start, band.stop, first, neighbors)

    _each(link, _bands(places.n_vertices, LEAST_VERTICES))


@kernel
def _link(
    vertex_keys: Keys,
    table: Keys,
    direct: Numbers,
    strides: Keys,
    start: int,
    stop: int,
    first: int,
    neighbors: Numbers,
) -> None:
    """Write down the neighbors ahead of the vertices start..stop-1, and these as theirs behind."""
    n_words, n_axes = strides.shape
    keys = np.empty((n_words, n_axes, RUN), np.int64)
    tags = np.empty((n_axes, RUN), np.int64)
    lost = np.empty(n_axes * RUN, np.int64)
    numbers = np.empty(n_axes * RUN, np.int32)
    for begin in range(start, stop, RUN):
        count = min(RUN, stop - begin)
        for word in range(n_words):
            _step(vertex_keys, begin, count, word, strides, keys)
        if len(direct) > 0:
            find_directly(keys, count, direct, numbers)
        else:
            tag(keys, count, tags)
            find(keys, tags, count, vertex_keys, table, numbers, 0, lost)
        for axis in range(n_axes):
            for p in range(count):
                other = numbers[p * n_axes + axis]
                if other >= 0:
                    neighbors[axis, begin + p, 0] = first + other
                    neighbors[axis, other, 1] = first + begin + p


@kernel
def _step(vertex_keys: Keys, begin: int, count: int, word: int, strides: Keys, keys: Keys) -> None:
    """Write one word of the keys one step on from some vertices, along every axis."""
    n_axes = strides.shape[1]
    digit = 1  # the bits of the remainder, all of them set
    while digit < n_axes - 1:
        digit = 2 * digit + 1
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
