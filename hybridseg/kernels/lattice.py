"""The permutohedral lattice (Adams, Baek, Davis 2010): a Gaussian filter in any dimension.

Points of R^d are lifted onto the hyperplane of R^(d+1) whose coordinates sum to zero, where the
lattice A*_d tiles space with simplices. A value is spread over the d + 1 corners of its simplex
(*splat*), the corners are smoothed along the d + 1 lattice directions (*blur*), and the result is
read back at the points (*slice*). With features divided by their standard deviations the three
together approximate the sum over all points of exp(-|f_i - f_j|^2 / 2) values_j, up to one
constant factor, in time linear in the number of points.

A corner of remainder k has coordinates ``(d + 1) q_j + k`` with integers q_j that sum to -k, so
that (k, q_0 .. q_(d-1)) names it. These integers are packed in mixed radix into one 64-bit word,
or into as many as a high dimension needs; a step along a lattice direction is then the addition
of a constant to the key.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel, parallel_kernel

Real = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Keys = NDArray[np.int64]
Numbers = NDArray[np.int32]


class Lattice(NamedTuple):
    """The part of a permutohedral lattice that ``n`` points of dimension ``d`` touch.

    Attributes
    ----------
    vertices : (n, d + 1) int32
        The corners of every point's simplex, as indices 0..M-1.
    weights : (n, d + 1) float32 or float64
        Barycentric coordinates: what share of a point's value each corner receives.
    neighbours : (d + 1, M, 2) int32
        The vertices one step forward and one step back along each direction; ``M`` stands for a
        vertex that no point touches, whose value is zero.
    """

    vertices: Numbers
    weights: Real
    neighbours: Numbers

    @property
    def n_vertices(self) -> int:
        """Number of lattice vertices that exist."""
        return len(self.neighbours[0])


def build(features: Real) -> Lattice:
    """Place points in the lattice and find which vertices are neighbours.

    Vertices are numbered in the order in which the points first touch them.

    Parameters
    ----------
    features : (n, d) float32 or float64
        Positions, already divided by the standard deviations of the wanted Gaussian. The caller
        guarantees ``n >= 1``, ``d >= 1``, values within +-1e12 and ``n * (d + 1) < 2**31``.

    Returns
    -------
    Lattice
        With weights of the features' dtype.
    """
    features = np.ascontiguousarray(features)
    strides = _key_strides(features)
    keys, weights = simplices(features, _axis_scales(features.shape[1]), strides)
    with np.errstate(over="ignore"):  # hashes wrap around, as NumPy says where nothing is compiled
        vertices, vertex_keys, table = number_vertices(keys)
        return Lattice(vertices, weights, link_neighbours(vertex_keys, table, strides))


def apply(lattice: Lattice, values: Real, reverse: bool = False, out: Real | None = None) -> Real:
    """Filter ``values``: the product ``K @ values`` without forming ``K``.

    Parameters
    ----------
    lattice : Lattice
    values : (n, K) float32 or float64
        One row per point, C-contiguous.
    reverse : bool
        Blur the directions from last to first. That is the transpose of ``K``, which differs from
        ``K`` a little where neighbours are missing.
    out : (n, K) array, optional
        The product is added to it; a new array otherwise.

    Returns
    -------
    (n, K) array of the values' dtype
    """
    table = splat(lattice.vertices, lattice.weights, values, lattice.n_vertices, _n_parts(lattice))
    table = blur(lattice.neighbours, table, reverse)
    if out is None:
        out = np.zeros_like(values)
    slice_add(lattice.vertices, lattice.weights, table, out)
    return out


def _n_parts(lattice: Lattice) -> int:
    """How many tables splat fills side by side: few where they are large next to the values.

    It depends on the lattice alone, so that sums do not depend on the number of threads.
    """
    points_per_vertex = len(lattice.vertices) // lattice.n_vertices
    return 8 if points_per_vertex >= 12 else 4 if points_per_vertex >= 4 else 2


def _axis_scales(n_dims: int) -> Doubles:
    """Per feature, the length that makes splat, blur and slice a Gaussian of deviation one.

    The three together have variance ``2/3 (d + 1)^2`` along each axis (Adams et al., section 3),
    and the columns of the elevation matrix have squared length ``(j + 1)(j + 2)``, j = 0..d-1.
    """
    j = np.arange(n_dims)
    scales: Doubles = (n_dims + 1) * np.sqrt(2 / 3 / ((j + 1) * (j + 2)))
    return scales


def _key_strides(features: Real) -> Keys:
    """Weights (words, d + 1) of q_0 .. q_d in a vertex's key; each q_j counts in one word only.

    The last coordinate follows from the others and has no digit of its own; the remainder k is
    the lowest digit of the first word. The keys of all vertices and of their neighbours differ.
    """
    n_dims = features.shape[1]
    words: list[list[int]] = [[0] * (n_dims + 1)]
    size = n_dims + 1
    for j, extent in enumerate(_extents(features)):
        if size * extent >= 2**63:
            words.append([0] * (n_dims + 1))
            size = 1
        words[-1][j] = size
        size *= extent
    return np.array(words, dtype=np.int64)


def _extents(features: Real) -> list[int]:
    """How many values each q_0 .. q_(d-1) can take, from the box around the features."""
    scales = _axis_scales(features.shape[1])
    spans = (features.max(axis=0).astype(np.float64) - features.min(axis=0)) * scales
    later = np.cumsum(spans[::-1])[::-1]  # row j of the elevation matrix: -j, then ones
    rows = [later[0]] + [later[j] + j * spans[j - 1] for j in range(1, len(spans))]
    # the nearest remainder-0 point, a corner and its neighbour lie up to three steps off
    return [math.ceil(span / (len(spans) + 1)) + 7 for span in rows]


@parallel_kernel
def simplices(features: Real, scales: Doubles, strides: Keys) -> tuple[Keys, Real]:
    """Find each point's simplex: the keys of its corners and its barycentric coordinates.

    Parameters
    ----------
    features : (n, d) float, C-contiguous, finite
    scales : (d,) float64
        Of ``_axis_scales``.
    strides : (words, d + 1) int64
        Of ``_key_strides``.

    Returns
    -------
    keys : (n, d + 1, words) int64
        Corner ``k`` is the one of remainder ``k``.
    weights : (n, d + 1) float of the features' dtype
    """
    n_points, n_dims = features.shape
    n_words = len(strides)
    keys = np.empty((n_points, n_dims + 1, n_words), np.int64)
    weights = np.empty((n_points, n_dims + 1), features.dtype)
    first = np.empty(n_dims + 1, np.int64)
    lifted_first = np.empty(n_dims + 1, np.float64)
    _elevate(features[0], scales, lifted_first)
    _round_to_origin(lifted_first, first, np.empty(n_dims + 1, np.int64))
    n_blocks = (n_points + 4095) // 4096
    for block in prange(n_blocks):
        lifted = np.empty(n_dims + 1, np.float64)
        origin = np.empty(n_dims + 1, np.int64)
        order = np.empty(n_dims + 1, np.int64)
        for i in range(block * 4096, min(n_points, (block + 1) * 4096)):
            _elevate(features[i], scales, lifted)
            _round_to_origin(lifted, origin, order)
            _weigh_corners(lifted, order, weights[i])
            _name_corners(origin, first, order, strides, keys[i])
    return keys, weights


@kernel
def _elevate(feature: Real, scales: Doubles, lifted: Doubles) -> None:
    """Lift a point onto the plane of zero sum, in units of d + 1 (Adams et al., section 3.1)."""
    n_dims = len(scales)
    later = 0.0
    for j in range(n_dims, 0, -1):
        scaled = np.float64(feature[j - 1]) * scales[j - 1]
        lifted[j] = (later - j * scaled) / (n_dims + 1)
        later += scaled
    lifted[0] = later / (n_dims + 1)


@kernel
def _round_to_origin(lifted: Doubles, origin: Keys, order: Keys) -> None:
    """Find the nearest lattice point of remainder 0, and sort the differences to it.

    Leaves the differences in ``lifted`` and the axes by falling difference in ``order``
    (Conway and Sloane's rounding; Adams et al., section 3.2). Units are d + 1.
    """
    n_axes = len(lifted)
    excess = 0
    for j in range(n_axes):
        nearest = math.floor(lifted[j] + 0.5)
        origin[j] = np.int64(nearest)
        excess += origin[j]
        lifted[j] -= nearest
    _sort_falling(lifted, order)
    # a sum that is not zero is paid by the axes that rounding favoured most
    if excess > 0:
        for place in range(n_axes - excess, n_axes):
            origin[order[place]] -= 1
            lifted[order[place]] += 1.0
    elif excess < 0:
        for place in range(-excess):
            origin[order[place]] += 1
            lifted[order[place]] -= 1.0
    if excess != 0:
        _rotate(order, n_axes - excess if excess > 0 else -excess)


@kernel
def _sort_falling(values: Doubles, order: Keys) -> None:
    """Write the indices that sort ``values`` from large to small; equal values keep their order."""
    for j in range(len(values)):
        place = j
        while place > 0 and values[order[place - 1]] < values[j]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = j


@kernel
def _rotate(order: Keys, start: int) -> None:
    """Rotate ``order`` in place so that it begins with its element ``start``."""
    for _ in range(start):
        first = order[0]
        for place in range(len(order) - 1):
            order[place] = order[place + 1]
        order[-1] = first


@kernel
def _weigh_corners(lifted: Doubles, order: Keys, weights: Real) -> None:
    """Barycentric coordinates from the sorted differences (Adams et al., proposition 3.3)."""
    last = len(order) - 1
    weights[0] = 1.0 - (lifted[order[0]] - lifted[order[last]])
    for k in range(1, last + 1):
        weights[k] = lifted[order[last - k]] - lifted[order[last - k + 1]]


@kernel
def _name_corners(origin: Keys, first: Keys, order: Keys, strides: Keys, keys: Keys) -> None:
    """Pack the corners' coordinates, counted from those of the first point so that they are small.

    The way from remainder k to k + 1 is along the axis of the k-th smallest difference.
    """
    n_axes = len(order)
    for word in range(len(strides)):
        key = 0
        for j in range(n_axes):
            key += (origin[j] - first[j]) * strides[word, j]
        keys[0, word] = key
        for k in range(1, n_axes):
            key -= strides[word, order[n_axes - k]]
            keys[k, word] = key + (k if word == 0 else 0)


@kernel
def number_vertices(keys: Keys) -> tuple[Numbers, Keys, Numbers]:
    """Give the distinct keys numbers in the order of first appearance, with a hash table.

    Parameters
    ----------
    keys : (n, d + 1, words) int64

    Returns
    -------
    vertices : (n, d + 1) int32
        The number of each key.
    vertex_keys : (M, words) int64
        The key of each number.
    table : (2**b,) int32
        Open addressing with linear probing; -1 marks a free slot, of which at least half are.
    """
    n_points, n_corners, n_words = keys.shape
    keys = keys.reshape(n_points * n_corners, n_words)
    vertices = np.empty(len(keys), np.int32)
    vertex_keys = np.empty((512, n_words), np.int64)
    table = np.full(1024, -1, np.int32)
    done, n_vertices = _enter(keys, 0, vertices, vertex_keys, 0, table)
    while done < len(keys):
        vertex_keys, table = _grow(vertex_keys)
        done, n_vertices = _enter(keys, done, vertices, vertex_keys, n_vertices, table)
    return vertices.reshape(n_points, n_corners), vertex_keys[:n_vertices], table


@kernel
def _enter(
    keys: Keys, start: int, vertices: Numbers, vertex_keys: Keys, n_vertices: int, table: Numbers
) -> tuple[int, int]:
    """Give the keys from ``start`` on their numbers until there is no room for another."""
    for i in range(start, len(keys)):
        slot = _find(keys, i, vertex_keys, table)
        if table[slot] < 0:
            if n_vertices == len(vertex_keys):
                return i, n_vertices
            table[slot] = n_vertices
            for word in range(keys.shape[1]):
                vertex_keys[n_vertices, word] = keys[i, word]
            n_vertices += 1
        vertices[i] = table[slot]
    return len(keys), n_vertices


@kernel
def _grow(vertex_keys: Keys) -> tuple[Keys, Numbers]:
    """Double the room for keys and enter them all in a new table."""
    n_vertices, n_words = vertex_keys.shape
    larger = np.empty((2 * n_vertices, n_words), np.int64)
    table = np.full(4 * n_vertices, -1, np.int32)
    for vertex in range(n_vertices):
        for word in range(n_words):
            larger[vertex, word] = vertex_keys[vertex, word]
        table[_find(larger, vertex, larger, table)] = vertex
    return larger, table


@kernel
def _find(keys: Keys, row: int, vertex_keys: Keys, table: Numbers) -> int:
    """Slot of the table where ``keys[row]`` is, or the free slot where it belongs."""
    n_words = keys.shape[1]
    mixed = np.uint64(0)
    for word in range(n_words):
        # Fibonacci hashing: multiply by 2^64 / golden ratio, and fold the high bits down
        mixed = (mixed ^ np.uint64(keys[row, word])) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(32)
    mask = np.uint64(len(table) - 1)
    slot = mixed & mask
    while table[slot] >= 0:
        vertex = table[slot]
        word = 0
        while word < n_words and vertex_keys[vertex, word] == keys[row, word]:
            word += 1
        if word == n_words:
            break
        slot = (slot + np.uint64(1)) & mask
    return int(slot)


@parallel_kernel
def link_neighbours(vertex_keys: Keys, table: Numbers, strides: Keys) -> Numbers:
    """Look up every vertex's neighbour along every direction; the way back is its inverse.

    One step along axis j adds 1 to all coordinates but the j-th, which loses d: remainder k
    becomes k + 1 and q_j falls by one, or from k = d all q but q_j rise by one and k returns to 0.

    Parameters
    ----------
    vertex_keys, table
        Of ``number_vertices``.
    strides : (words, d + 1) int64

    Returns
    -------
    (d + 1, M, 2) int32
        As in ``Lattice``.
    """
    n_vertices, n_words = vertex_keys.shape
    n_axes = strides.shape[1]
    neighbours = np.full((n_axes, n_vertices, 2), n_vertices, np.int32)
    totals = np.zeros(n_words, np.int64)  # a loop: compiling ``sum(axis=1)`` takes seconds
    for word in range(n_words):
        for axis in range(n_axes):
            totals[word] += strides[word, axis]
    for axis in prange(n_axes):
        key = np.empty((1, n_words), np.int64)
        for vertex in range(n_vertices):
            wraps = vertex_keys[vertex, 0] % n_axes == n_axes - 1
            for word in range(n_words):
                key[0, word] = vertex_keys[vertex, word] - strides[word, axis]
                if wraps:
                    key[0, word] += totals[word]
            key[0, 0] += 1 - n_axes if wraps else 1
            other = table[_find(key, 0, vertex_keys, table)]
            if other >= 0:
                neighbours[axis, vertex, 0] = other
                neighbours[axis, other, 1] = vertex
    return neighbours


@parallel_kernel
def splat(vertices: Numbers, weights: Real, values: Real, n_vertices: int, n_parts: int) -> Real:
    """Spread values over the corners of their simplices.

    Parameters
    ----------
    vertices, weights : (n, d + 1)
    values : (n, K) float, C-contiguous
    n_vertices : int
    n_parts : int
        The points are cut into so many runs, each summed into a table of its own; the sums depend
        on it in their last bits, and not on the number of threads.

    Returns
    -------
    (M + 1, K) of the values' dtype
        Row M is zero: the value of every missing vertex.
    """
    n_points, n_corners = vertices.shape
    n_channels = values.shape[1]
    parts = np.zeros((n_parts, n_vertices + 1, n_channels), values.dtype)
    for part in prange(n_parts):
        for i in range(part * n_points // n_parts, (part + 1) * n_points // n_parts):
            for corner in range(n_corners):
                vertex = vertices[i, corner]
                weight = weights[i, corner]
                for k in range(n_channels):
                    parts[part, vertex, k] += weight * values[i, k]
    for vertex in prange(n_vertices):
        for part in range(1, n_parts):
            for k in range(n_channels):
                parts[0, vertex, k] += parts[part, vertex, k]
    return parts[0]


@parallel_kernel
def blur(neighbours: Numbers, table: Real, reverse: bool) -> Real:
    """Smooth with [1/2, 1, 1/2] along every direction, in order 0..d or the reverse.

    Parameters
    ----------
    neighbours : (d + 1, M, 2) int32
    table : (M + 1, K) float
        Row M is zero. It is used as working memory.
    reverse : bool

    Returns
    -------
    (M + 1, K) of the same dtype
    """
    n_axes, n_vertices, _ = neighbours.shape
    n_channels = table.shape[1]
    half = table.dtype.type(0.5)
    blurred = np.zeros_like(table)
    for step in range(n_axes):
        axis = n_axes - 1 - step if reverse else step
        for vertex in prange(n_vertices):
            ahead = neighbours[axis, vertex, 0]
            behind = neighbours[axis, vertex, 1]
            for k in range(n_channels):
                blurred[vertex, k] = table[vertex, k] + half * (table[ahead, k] + table[behind, k])
        table, blurred = blurred, table
    return table


@parallel_kernel
def slice_add(vertices: Numbers, weights: Real, table: Real, out: Real) -> None:
    """Read the table at the points and add the result to ``out`` (n, K).

    The factor ``1 / (1 + 2^-d)`` makes up for the sum of the blur's taps as in Adams et al.
    """
    n_points, n_corners = vertices.shape
    n_channels = table.shape[1]
    alpha = 1.0 / (1.0 + 2.0 ** (1 - n_corners))
    for i in prange(n_points):
        for corner in range(n_corners):
            vertex = vertices[i, corner]
            weight = table.dtype.type(alpha * weights[i, corner])
            for k in range(n_channels):
                out[i, k] += weight * table[vertex, k]
