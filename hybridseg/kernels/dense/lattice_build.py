"""Construction of a permutohedral lattice: the vertices near points, and their neighbors.

Points of R^d are lifted onto the hyperplane of R^(d+1) whose coordinates sum to zero, where the
lattice A*_d tiles space with simplices. A filter spreads a value over the d + 1 corners of its
simplex, smooths the corners along the d + 1 lattice directions and reads the result back. If
features are divided by their standard deviations, it approximates the sum over all points of
exp(-|f_i - f_j|^2 / 2) values_j up to a constant factor, in time linear in the number of points
(Adams et al. [1]_). `hybridseg.kernels.dense.dense_filter` filters, and calls this module.

A corner of remainder k has coordinates ``(d + 1) q_j + k`` with integers q_j that sum to -k, so
(k, q_0 .. q_(d-1)) is its key. These integers are packed in mixed radix into one int64 word, or
several in high dimensions, so that a step along a lattice direction adds a constant to the key.

Points are processed in runs, whose simplices `hybridseg.kernels.dense.simplices` finds. Neighboring
points of an image often share a simplex. So its name is looked up first in a small direct-mapped
cache, which holds the numbers of all corners; only if it is not there, each corner is looked up in
the table of vertices (`hybridseg.kernels.dense.hashing`). Keys are never held for all points.

Each thread takes one band of the points and has its own cache and table. The tables are joined in
the order of the bands, so the numbers do not depend on the number of threads. Threads are Python's:
kernels release the interpreter lock, and a table that is full can grow between two calls.

References
----------
.. [1] A. Adams, J. Baek, M. A. Davis, "Fast high-dimensional filtering using the permutohedral
   lattice", Computer Graphics Forum 29(2) (Eurographics), 2010.
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
    EMPTY_LINE,
    N_CACHE_LINES,
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

#: The smallest number of points, or vertices, for each thread.
MIN_POINTS_PER_THREAD = 1 << 13
MIN_VERTICES_PER_THREAD = 1 << 14

#: The bound on a word of a key. If a coordinate in it has at least `MIN_VALUES_OF_EXACT_KEYS`
#: values, the smaller bound keeps its product with half a stride exact in float64.
MAX_KEY = 2**62
MAX_EXACT_KEY = 2**51
MIN_VALUES_OF_EXACT_KEYS = 2**16

#: The largest number of entries of a direct table, unless two for each point are more.
MAX_DIRECT_ENTRIES = 1 << 14


class Places(NamedTuple):
    """The M vertices of a lattice of dimension d that points touch.

    Attributes
    ----------
    keys : (words, M) int64
        The key of each vertex. The lowest digit of its first word is the remainder.
    table : (2**b, 8) int64
        The hash table of the keys; see `hybridseg.kernels.dense.hashing`.
    direct : (2**b,) or (0,) int32
        The direct table instead, if keys are close together.
    strides : (words, d + 1) int64
        The change of a key when a coordinate q rises by one.
    """

    keys: Keys
    table: Keys
    direct: Numbers
    strides: Keys

    @property
    def n_vertices(self) -> int:
        """The number of vertices that points touch."""
        return self.keys.shape[1]


class _Frame(NamedTuple):
    """The packing of the coordinates of a lattice into keys.

    Attributes
    ----------
    scales : (d,)
        The factors of the features; see `axis_scales`.
    start : (d + 1,)
        Integers near the first point, which are subtracted from coordinates.
    strides : (words, d + 1)
        See `Places`.
    code : int
        The number of bits of a simplex's name for the ranks of its axes; 0 if it has no name.
    n_direct : int
        The number of entries of the direct table; 0 if keys are too far apart for one.
    """

    scales: Doubles
    start: Doubles
    strides: Keys
    code: int
    n_direct: int


#: Hashes wrap around; NumPy would warn if nothing is compiled. Each thread sets it for itself.
_wrapping = np.errstate(over="ignore")


@_wrapping
def place_points(
    features: Real, vertices: Numbers, weights: Real, corner: int = 0, first: int = 0
) -> Places:
    """Find the simplex of each point, and number vertices in the order in which points touch them.

    The corners of a simplex have remainders 0 to d, each one lattice step after the one before.

    Parameters
    ----------
    features : (n, d) float32 or float64
        Positions, divided by the standard deviations of the Gaussian. The caller guarantees
        ``n >= 1``, ``d >= 1``, values within +-1e12 and ``n * (d + 1) < 2**31``.
    vertices : (n, C) int32, C-contiguous
        Columns ``corner`` to ``corner + d`` receive the numbers of the corners of each point's
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
    bands = _bands(n_points, MIN_POINTS_PER_THREAD)
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
    """Cut a range into one band for each thread, of at least ``least`` elements each."""
    n_bands = max(1, min(get_num_threads(), size // least))
    ends = [size * band // n_bands for band in range(n_bands + 1)]
    return [slice(*pair) for pair in pairwise(ends)]


def _each(task: Callable[[slice], Any], bands: list[slice]) -> list[Any]:
    """Call a task for each band, each on its own thread, and return the results."""
    if len(bands) < 2:
        return [task(band) for band in bands]
    with ThreadPoolExecutor(len(bands) - 1) as pool:
        others = [pool.submit(task, band) for band in bands[1:]]
        return [task(bands[0]), *(other.result() for other in others)]


@_wrapping
def _place_band(
    features: Real, frame: _Frame, vertices: Numbers, weights: Real, corner: int, first: int
) -> tuple[Keys, Keys, Numbers]:
    """Place the points of a band with new tables; return the vertices' keys and the tables."""
    n_words, n_corners = frame.strides.shape
    direct = np.zeros(frame.n_direct, np.int32)
    least = frame.n_direct + n_corners * RUN if frame.n_direct else len(features) // 16
    room = 1 << (max(4 * RUN * n_corners, least) - 1).bit_length()
    vertex_keys, table = _room(np.empty((n_words, 0), np.int64), 0, room, direct)
    names = np.full(N_CACHE_LINES, EMPTY_LINE, np.int64)
    known = np.empty((N_CACHE_LINES, n_corners), np.int32)
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
    """Return an array for ``room`` keys, and a hash table unless there is a direct table."""
    if len(direct) == 0:
        return grow(keys, n_vertices, room)
    larger = np.empty((len(keys), room), np.int64)
    larger[:, :n_vertices] = keys[:, :n_vertices]
    return larger, grow(keys, 0, 1)[1]


def _join(
    parts: list[tuple[Keys, Keys, Numbers]],
) -> tuple[Keys, Keys, Numbers, list[Numbers]]:
    """Join the vertices of all bands in one table, numbered as if there were one band.

    The last result is, for each band, the new number of each of its vertices.
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
    """Choose how to pack coordinates, from one point and bounding boxes (k, 2, d) of all bands.

    The remainder k is the lowest digit of the first word, with a power of two as its radix. Each
    q_j has a digit in one of the words, except the last, which follows from the others. Different
    vertices or neighbors of vertices have different keys.

    The name of a simplex is the key of its corner of remainder 0 and the ranks of its axes, if both
    fit in one word.
    """
    n_dims = len(point)
    scales = axis_scales(n_dims)
    words: list[list[int]] = [[0] * (n_dims + 1)]
    digit = n_dims.bit_length()
    size = 1 << digit
    spans = boxes[:, 1].max(axis=0) - boxes[:, 0].min(axis=0)
    for j, extent in enumerate(_extents(spans * scales)):
        if size * extent >= (MAX_KEY if extent < MIN_VALUES_OF_EXACT_KEYS else MAX_EXACT_KEY):
            words.append([0] * (n_dims + 1))
            size = 1
        words[-1][j] = size
        size *= extent
    code = digit * (n_dims + 1)
    fits = len(words) == 1 and size << code < 2**64
    n_direct = 1 << (size - 1).bit_length()
    close = len(words) == 1 and n_direct <= max(MAX_DIRECT_ENTRIES, 2 * n_points)
    return _Frame(
        scales,
        _nearest_whole(point * scales),
        np.array(words, dtype=np.int64),
        code if fits else 0,
        n_direct if close else 0,
    )


def axis_scales(n_dims: int) -> Doubles:
    """Return the factors of the features for which the filter is a Gaussian of deviation one.

    Splat, blur and slice together have the variance ``2/3 (d + 1)^2`` along each axis (Adams et
    al., section 3), and the columns of the elevation matrix have the squared length
    ``(j + 1)(j + 2)``, j = 0..d-1. Lengths are in units of d + 1.
    """
    j = np.arange(n_dims)
    scales: Doubles = np.sqrt(2 / 3 / ((j + 1) * (j + 2)))
    return scales


def _nearest_whole(scaled: Doubles) -> Doubles:
    """Return the integers nearest to the lifted coordinates of one point."""
    later = np.append(np.cumsum(scaled[::-1])[::-1], 0.0)
    lifted = later - np.arange(len(scaled) + 1) * np.append(0.0, scaled)
    whole: Doubles = np.rint(lifted)
    return whole


def _extents(spans: Doubles) -> list[int]:
    """Return the numbers of values of q_0 .. q_(d-1), from the sides of the box of all points."""
    later = np.cumsum(spans[::-1])[::-1]  # row j of the elevation matrix: -j, then ones
    rows = [later[0]] + [later[j] + j * spans[j - 1] for j in range(1, len(spans))]
    # the nearest point of remainder 0, a corner and its neighbor are up to three steps away
    return [math.ceil(row) + 7 for row in rows]


@kernel
def _bounds(features: Real) -> Doubles:
    """Return the smallest and the largest value of each feature, (2, d)."""
    n_points, n_dims = features.shape
    numbers, width = features.reshape(-1), min(16, n_points) * n_dims
    least, most = numbers[:width].copy(), numbers[:width].copy()
    for begin in range(0, len(numbers), width):
        start = min(begin, len(numbers) - width)
        for k in range(width):  # 16 points at a time, which becomes vectors
            value = numbers[np.uint64(start + k)]
            least[k] = value if value < least[k] else least[k]
            most[k] = value if value > most[k] else most[k]
    box = np.empty((2, n_dims))
    for j in range(n_dims):
        box[0, j], box[1, j] = least[j::n_dims].min(), most[j::n_dims].max()
    return box


@kernel
def _renumber(vertices: Numbers, corner: int, n_corners: int, first: int, numbers: Numbers) -> None:
    """Replace the vertex numbers of a band by those of the joined table."""
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
    """Place the points from ``done`` on, until the next run might have more vertices than fit.

    ``vertices`` and ``weights`` are flat. Returns the numbers of points done and of vertices.
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
        # The nearest point of remainder 0, and the barycentric coordinates.
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
        # Simplices that are in the cache; ``unknown`` lists the points of the others.
        n_unknown = count
        if code > 0:
            name_simplices(bases, ranks, code, lines)
            n_unknown = recall(lines, count, names, known, vertices, place, n_columns, unknown)
        else:
            for p in range(count):
                unknown[p] = p
        # Number the corners of the other simplices, in the table of vertices.
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
    """Find the neighbors of each vertex along each direction, one step ahead and one step behind.

    A step along axis j adds 1 to all coordinates except the j-th, from which it subtracts d. The
    remainder k becomes k + 1 and q_j falls by one; from k = d, all q except q_j rise by one and k
    becomes 0. A vertex is the neighbor behind of its neighbor ahead.

    Parameters
    ----------
    places : Places
    missing : int
        The number that is written if there is no neighbor.
    first : int
        The number of the first vertex.
    neighbors : (d + 1, M, 2) int32
        Receives the numbers one step ahead and one step behind, along each direction.
    """
    neighbors[:] = missing

    @_wrapping
    def link(band: slice) -> None:
        _link(*places, band.start, band.stop, first, neighbors)

    _each(link, _bands(places.n_vertices, MIN_VERTICES_PER_THREAD))


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
    """Write the neighbors ahead of vertices start..stop-1, and those vertices as theirs behind."""
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
    """Write one word of the keys one step ahead of some vertices, along each axis."""
    n_axes = strides.shape[1]
    digit = 1  # the mask of the remainder's bits
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
