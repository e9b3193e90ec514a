"""All lattices of one picture as one filter, laid out for speed.

A mean-field iteration filters the same rows with every kernel and adds the results. Here the
lattices share one table: a point has one list of corners, the corners of its simplex in every
lattice, so that reading all messages of a point is one sum over ``C = sum(d + 1)`` table rows.

A row of the table holds all channels side by side and is filled up with zeros to a multiple of
eight, the numbers in a vector register (a table of one channel stays one number wide). The last row
is zero and stands for every vertex that no point touches.

Points are spread into several tables side by side, one for each run of points, which are then
added up. How many depends on the filter alone, so that sums do not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel, parallel_kernel
from hybridseg.kernels.dense.lattice_build import link_neighbors, place_points
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.padding import padded

Real = NDArray[np.floating[Any]]
Singles = NDArray[np.float32]
Numbers = NDArray[np.int32]
Longs = NDArray[np.int64]

#: Channels that are handled at once: a vector register of most processors.
LANES = 8

#: Points that are worked on together; parts begin at multiples of it.
CHUNK = 32

#: Rows of a lattice up to which one thread smooths it alone, along one direction after the other;
#: in larger ones threads share each direction, which costs a barrier for each.
_SMALL = 1 << 16

#: How many rows ahead of its turn the neighbors of a row of a large lattice are asked for.
_EARLY = 32

#: Vectors of a row that one task smooths.
_GROUP = 4


class DenseFilter(NamedTuple):
    """The symmetrically normalized kernels of ``n`` points, ``N^-1/2 K N^-1/2`` for each lattice.

    Attributes
    ----------
    vertices : (n, C) int32
        The table rows of each point's corners, lattice after lattice.
    weights : (n, C) float32
        Barycentric coordinates over the root of the kernel's row sum, used both to spread and to
        read; they hold the root of the lattice's constant factor, too.
    links : (T, 2) int32
        For every lattice, direction and vertex: the rows one step ahead and one step behind.
    sections : (m, 4) int64
        For every lattice: its first row, its number of vertices, its number of directions, and
        its first place in ``links``.
    """

    vertices: Numbers
    weights: Singles
    links: Numbers
    sections: Longs

    @property
    def n_rows(self) -> int:
        """Rows of a table: every lattice's vertices, and the row of zeros."""
        return int(self.sections[:, 1].sum()) + 1

    @property
    def n_parts(self) -> int:
        """How many tables are filled side by side: few where they are large next to the points."""
        points_per_row = len(self.vertices) // self.n_rows
        return 8 if points_per_row >= 16 else 4 if points_per_row >= 6 else 2


class Tables(NamedTuple):
    """Working memory of one filter and one number of channels.

    Attributes
    ----------
    parts : (n_parts, rows, width) float32
        What was spread by each run of points; zero once it is added up.
    table : (rows, width) float32
        Their sum, smoothed: what is read.
    spare : (rows, width) float32
    """

    parts: Singles
    table: Singles
    spare: Singles


def tables_for(dense: DenseFilter, n_channels: int) -> Tables:
    """Make working memory, zero everywhere; one channel is one wide, others a multiple of eight."""
    shape = (dense.n_rows, 1 if n_channels == 1 else padded(n_channels, LANES))
    parts = simd.aligned((dense.n_parts, *shape), np.float32)
    return Tables(parts, simd.aligned(shape, np.float32), simd.aligned(shape, np.float32))


def embed(features: Sequence[Real], n_points: int) -> DenseFilter:
    """Place points in one lattice for each set of features, and normalize the kernels.

    Parameters
    ----------
    features : sequence of (n, d) float32 or float64
        As for `hybridseg.kernels.dense.lattice_build.place_points`.
    n_points : int
        At least 1; without features there are no messages.

    Returns
    -------
    DenseFilter
    """
    directions = [each.shape[1] + 1 for each in features]
    corners = np.cumsum([0, *directions])
    vertices = np.empty((n_points, corners[-1]), np.int32)
    weights = np.empty((n_points, corners[-1]), np.float32)
    rows, places = [0], []
    for lattice, corner in zip(features, corners, strict=False):
        places.append(place_points(lattice, vertices, weights, int(corner), rows[-1]))
        rows.append(rows[-1] + places[-1].n_vertices)
    sizes = np.diff(rows)
    first_links = np.cumsum([0, *(sizes * directions)])
    links = np.empty((first_links[-1], 2), np.int32)
    for place, row, first, end in zip(places, rows, first_links, first_links[1:], strict=False):
        own = links[first:end].reshape(-1, place.n_vertices, 2)
        link_neighbors(place, rows[-1], row, own)
    sections = np.array([rows[:-1], sizes, directions, first_links[:-1]], np.int64).T.copy()
    dense = DenseFilter(vertices, weights, links, sections)
    tables = tables_for(dense, 1)
    spread_one(np.ones(n_points, np.float32), vertices, weights, tables.parts)
    smooth(dense, np.ones(len(features), np.float32), tables)
    _normalize(vertices, weights, sections, tables.table)
    return dense


@parallel_kernel
def _normalize(vertices: Numbers, weights: Singles, sections: Longs, sums: Singles) -> None:
    """Divide each point's weights by the root of its row sum, lattice by lattice.

    With alpha = 1 / (1 + 2^-d), the constant factor of Adams et al., a row of K sums to alpha
    times what is read here. Spreading and reading with weights times sqrt(alpha / row sum) gives
    N^-1/2 K N^-1/2; alpha falls out.
    """
    n_points = len(vertices)
    for block in prange((n_points + 4095) // 4096):
        rows = sums.reshape(-1)
        for point in range(block * 4096, min(n_points, (block + 1) * 4096)):
            i, corner = np.uint64(point), 0
            for section in range(len(sections)):
                end = corner + sections[section, 2]
                total = np.float32(0)
                for c in range(corner, end):
                    row = np.uint64(vertices[i, np.uint64(c)])
                    total += weights[i, np.uint64(c)] * rows[row]
                scale = np.float32(1) / np.sqrt(total)
                for c in range(corner, end):
                    weights[i, np.uint64(c)] *= scale
                corner = end


# -- one channel ----------------------------------------------------------------------------------


@parallel_kernel
def spread_one(values: Singles, vertices: Numbers, weights: Singles, parts: Singles) -> None:
    """Spread one number per point over the rows of its corners.

    Parameters
    ----------
    values : (n,) float32
    vertices, weights : (n, C)
    parts : (n_parts, rows, 1) float32
        Zero; each run of points adds to the table of its own.
    """
    n_points, n_corners = vertices.shape
    n_parts = len(parts)
    n_chunks = (n_points + CHUNK - 1) // CHUNK
    for part in prange(n_parts):
        table = parts[part].reshape(-1)
        stop = min(n_points, (part + 1) * n_chunks // n_parts * CHUNK)
        for i in range(part * n_chunks // n_parts * CHUNK, stop):
            for corner in range(n_corners):
                row = np.uint64(vertices[np.uint64(i), np.uint64(corner)])
                table[row] += weights[np.uint64(i), np.uint64(corner)] * values[i]


@parallel_kernel
def read_one(vertices: Numbers, weights: Singles, table: Singles, out: Singles) -> None:
    """Read one number per point: ``out`` (n,) becomes the weighted sum of its corners' rows.

    Parameters
    ----------
    vertices, weights : (n, C)
    table : (rows, 1) float32
    out : (n,) float32
    """
    n_points, n_corners = vertices.shape
    for block in prange((n_points + 4095) // 4096):
        rows = table.reshape(-1)
        for i in range(block * 4096, min(n_points, (block + 1) * 4096)):
            total = np.float32(0)
            for corner in range(n_corners):
                row = np.uint64(vertices[np.uint64(i), np.uint64(corner)])
                total += weights[np.uint64(i), np.uint64(corner)] * rows[row]
            out[i] = total


def total_weights(dense: DenseFilter, scales: Singles) -> Singles:
    """Row sums (n,) of ``sum_m scales_m N_m^-1/2 K_m N_m^-1/2``: what a message can reach."""
    tables = tables_for(dense, 1)
    sums = np.ones(len(dense.vertices), np.float32)
    spread_one(sums, dense.vertices, dense.weights, tables.parts)
    smooth(dense, scales, tables)
    read_one(dense.vertices, dense.weights, tables.table, sums)
    return sums


# -- smoothing ------------------------------------------------------------------------------------


def smooth(dense: DenseFilter, scales: Singles, tables: Tables) -> None:
    """Add up the parts, scale each lattice, and smooth with [1/2, 1, 1/2] along all directions.

    Parameters
    ----------
    dense : DenseFilter
    scales : (m,) float32
        What each lattice's values are multiplied with: its kernel's weight.
    tables : Tables
        ``table`` receives the result; ``parts`` is read and becomes zero while its rows are in
        the cache; ``spare`` is used.
    """
    vectors = simd.ENABLED and tables.table.shape[1] > 1
    add_up = _add_up_vectors if vectors else _add_up_numbers
    for_small = _smooth_small_vectors if vectors else _smooth_small_numbers
    for_large = _smooth_large_vectors if vectors else _smooth_large_numbers
    add_up(dense.sections, scales, *tables)
    small = dense.sections[:, 1] <= _SMALL
    if small.any():
        for_small(np.ascontiguousarray(dense.sections[small]), dense.links, *tables[1:])
    for section in dense.sections[~small]:
        for_large(section, dense.links, *tables[1:])


@parallel_kernel
def _add_up_numbers(
    sections: Longs, scales: Singles, parts: Singles, table: Singles, spare: Singles
) -> None:
    """Sum the parts into the table from which the smoothing of each lattice begins.

    An odd number of directions begins in the spare one, so that all end in ``table``.
    """
    n_parts, _, width = parts.shape
    for task in prange(8):
        for section in range(len(sections)):
            first, size, n_axes = sections[section, 0], sections[section, 1], sections[section, 2]
            to = table if n_axes % 2 == 0 else spare
            for row in range(first + task * size // 8, first + (task + 1) * size // 8):
                for channel in range(width):
                    total = np.float32(0)
                    for part in range(n_parts):
                        total += parts[part, row, channel]
                        parts[part, row, channel] = 0
                    to[row, channel] = total * scales[section]


@parallel_kernel
def _add_up_vectors(
    sections: Longs, scales: Singles, parts: Singles, table: Singles, spare: Singles
) -> None:
    for task in prange(8):
        _add_up_share(task, 8, sections, scales, parts, table, spare)


@kernel
def _add_up_share(
    task: int,
    n_tasks: int,
    sections: Longs,
    scales: Singles,
    parts: Singles,
    table: Singles,
    spare: Singles,
) -> None:
    n_parts, n_rows, width = parts.shape
    for section in range(len(sections)):
        first, size, n_axes = sections[section, 0], sections[section, 1], sections[section, 2]
        to = table if n_axes % 2 == 0 else spare
        scale, zero = simd.fill(scales[section], LANES), simd.fill(np.float32(0), LANES)
        start = (first + task * size // n_tasks) * width
        stop = (first + (task + 1) * size // n_tasks) * width
        for place in range(start, stop, LANES):
            total = zero
            for part in range(n_parts):
                here = part * n_rows * width + place
                total = total + simd.load(parts, here, LANES)
                simd.store(parts, here, zero)
            simd.store(to, place, total * scale)


@parallel_kernel
def _smooth_small_numbers(sections: Longs, links: Numbers, table: Singles, spare: Singles) -> None:
    for task in prange(len(sections)):
        size, n_axes = sections[task, 1], sections[task, 2]
        for axis in range(n_axes):
            place = sections[task, 3] + axis * size
            even = (n_axes - axis) % 2 == 0
            here, there = (table, spare) if even else (spare, table)
            _smooth_numbers(links, place, sections[task, 0], 0, size, here, there)


@parallel_kernel
def _smooth_large_numbers(section: Longs, links: Numbers, table: Singles, spare: Singles) -> None:
    first, size, n_axes = section[0], section[1], section[2]
    for axis in range(n_axes):
        place = section[3] + axis * size
        even = (n_axes - axis) % 2 == 0
        for task in prange(16):
            low, high = task * size // 16, (task + 1) * size // 16
            here, there = (table, spare) if even else (spare, table)
            _smooth_numbers(links, place, first, low, high, here, there)


@kernel
def _smooth_numbers(
    links: Numbers, place: int, first: int, low: int, high: int, here: Singles, there: Singles
) -> None:
    """Smooth rows ``first + low .. first + high`` along one direction."""
    half, width = np.float32(0.5), here.shape[1]
    old, new = here.reshape(-1), there.reshape(-1)
    if width == 1:  # without a loop over channels it is twice as fast
        for vertex in range(low, high):
            ahead = np.uint64(links[np.uint64(place + vertex), 0])
            behind = np.uint64(links[np.uint64(place + vertex), 1])
            own = np.uint64(first + vertex)
            new[own] = old[own] + half * (old[ahead] + old[behind])
        return
    for vertex in range(low, high):
        ahead, behind = links[place + vertex, 0] * width, links[place + vertex, 1] * width
        own = (first + vertex) * width
        for k in range(width):
            new[own + k] = old[own + k] + half * (old[ahead + k] + old[behind + k])


@parallel_kernel
def _smooth_small_vectors(sections: Longs, links: Numbers, table: Singles, spare: Singles) -> None:
    n_sections, width = len(sections), table.shape[1]
    n_groups = (width + _GROUP * LANES - 1) // (_GROUP * LANES)
    for task in prange(n_groups * n_sections):
        section = task % n_sections
        start = task // n_sections * _GROUP * LANES
        stop = min(width, start + _GROUP * LANES)
        size, n_axes = sections[section, 1], sections[section, 2]
        for axis in range(n_axes):
            place = sections[section, 3] + axis * size
            even = (n_axes - axis) % 2 == 0
            here, there = (table, spare) if even else (spare, table)
            _smooth_vectors(
                *(links, place, sections[section, 0], 0, size, start, stop, 0, here, there)
            )


@parallel_kernel
def _smooth_large_vectors(section: Longs, links: Numbers, table: Singles, spare: Singles) -> None:
    first, size, n_axes = section[0], section[1], section[2]
    for axis in range(n_axes):
        place = section[3] + axis * size
        even = (n_axes - axis) % 2 == 0
        for task in prange(16):
            low, high = task * size // 16, (task + 1) * size // 16
            here, there = (table, spare) if even else (spare, table)
            _smooth_vectors(links, place, first, low, high, 0, table.shape[1], _EARLY, here, there)


@kernel
def _smooth_vectors(
    links: Numbers,
    place: int,
    first: int,
    low: int,
    high: int,
    start: int,
    stop: int,
    early: int,
    here: Singles,
    there: Singles,
) -> None:
    """Smooth the channels ``start .. stop`` of some rows along one direction.

    The neighbors of the row that comes ``early`` rows later are fetched into the cache, unless it
    is 0.
    """
    width = here.shape[1]
    half = simd.fill(np.float32(0.5), LANES)
    for vertex in range(low, high):
        ahead = np.int64(links[np.uint64(place + vertex), 0]) * width
        behind = np.int64(links[np.uint64(place + vertex), 1]) * width
        own = (first + vertex) * width
        if early > 0:
            later = np.uint64(place + min(vertex + early, high - 1))
            for k in range(start, stop, 2 * LANES):  # a line of the cache is two vectors long
                simd.prefetch(here, np.int64(links[later, 0]) * width + k)
                simd.prefetch(here, np.int64(links[later, 1]) * width + k)
        for k in range(start, stop, LANES):
            sides = simd.load(here, ahead + k, LANES) + simd.load(here, behind + k, LANES)
            simd.store(there, own + k, simd.fma(half, sides, simd.load(here, own + k, LANES)))
