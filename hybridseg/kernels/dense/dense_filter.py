"""All Gaussian kernels of one image as one filter on permutohedral lattices (Adams et al. [1]_).

A filter spreads (splats) values from points to lattice vertices, smooths (blurs) the vertices and
reads (slices) the result back; `hybridseg.kernels.dense.lattice_build` makes the lattices. A
mean-field iteration filters the same rows with every kernel and adds the results, so the lattices
share one table. A point has one list of corners, those of its simplex in every lattice, and reading
all messages of a point is one sum over ``C = sum(d + 1)`` rows of the table.

A table is (rows, width) float32. A row holds all channels side by side and is padded with zeros to
a multiple of `LANES`; a table of one channel has the width 1. The last row is zero and stands for
all vertices that no point touches.

Threads: each part of the points is spread to a table of its own, numba's threads share the parts,
and the tables are added up. The number of parts depends on the filter only, so sums do not depend
on the number of threads. `hybridseg.inference.mean_field.dense_model` calls these kernels.

References
----------
.. [1] A. Adams, J. Baek, M. A. Davis, "Fast high-dimensional filtering using the permutohedral
   lattice", Computer Graphics Forum 29(2) (Eurographics), 2010.
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

#: The channels in a vector, which fills a register of most processors.
LANES = 8

#: The points that are processed together; parts begin at multiples of it.
CHUNK = 32

#: The largest number of vertices of a lattice that one thread smooths alone, direction after
#: direction. In larger lattices threads share each direction, which costs a barrier per direction.
_MAX_VERTICES_OF_ONE_THREAD = 1 << 16

#: In large lattices the neighbors of a row are fetched into the cache this many rows ahead.
_ROWS_AHEAD = 32

#: The number of vectors of a row that one task smooths in small lattices.
_VECTORS_PER_TASK = 4


class DenseFilter(NamedTuple):
    """The normalized kernels of n points in m lattices: ``N^-1/2 K N^-1/2``, N the row sums of K.

    Attributes
    ----------
    vertices : (n, C) int32
        The table rows of the corners of each point, lattice after lattice.
    weights : (n, C) float32
        The barycentric coordinates, divided by the square root of the row sum of the point. They
        are used both to spread and to read.
    links : (T, 2) int32
        For each lattice, direction and vertex: the table rows one step ahead and one step behind.
    sections : (m, 4) int64
        For each lattice: its first row, its number of vertices, its number of directions, and its
        first place in ``links``.
    """

    vertices: Numbers
    weights: Singles
    links: Numbers
    sections: Longs

    @property
    def n_rows(self) -> int:
        """The number of rows of a table: the vertices of all lattices, and the row of zeros."""
        return int(self.sections[:, 1].sum()) + 1

    @property
    def n_parts(self) -> int:
        """The number of parts of the points; fewer if tables are large compared to the points."""
        points_per_row = len(self.vertices) // self.n_rows
        return 8 if points_per_row >= 16 else 4 if points_per_row >= 6 else 2


class Tables(NamedTuple):
    """The working memory of one filter for one number of channels.

    Attributes
    ----------
    parts : (n_parts, rows, width) float32
        The values spread by each part of the points; set to 0 when they are added up.
    table : (rows, width) float32
        Their sum, smoothed, from which points read.
    spare : (rows, width) float32
        The other table of each smoothing step.
    """

    parts: Singles
    table: Singles
    spare: Singles


def tables_for(dense: DenseFilter, n_channels: int) -> Tables:
    """Return working memory of zeros; the width is 1 for one channel, else a multiple of eight."""
    shape = (dense.n_rows, 1 if n_channels == 1 else padded(n_channels, LANES))
    parts = simd.aligned((dense.n_parts, *shape), np.float32)
    return Tables(parts, simd.aligned(shape, np.float32), simd.aligned(shape, np.float32))


def embed(features: Sequence[Real], n_points: int) -> DenseFilter:
    """Make a lattice for each set of features, and normalize the kernels.

    Parameters
    ----------
    features : sequence of (n, d) float32 or float64
        As for `hybridseg.kernels.dense.lattice_build.place_points`.
    n_points : int
        At least 1, also without any features (then there are no messages).

    Returns
    -------
    DenseFilter
    """
    directions = [each.shape[1] + 1 for each in features]
    corners = np.cumsum([0, *directions])
    vertices = np.empty((n_points, corners[-1]), np.int32)
    weights = np.empty((n_points, corners[-1]), np.float32)
    # Find the simplex of each point in each lattice.
    rows, places = [0], []
    for lattice, corner in zip(features, corners, strict=False):
        places.append(place_points(lattice, vertices, weights, int(corner), rows[-1]))
        rows.append(rows[-1] + places[-1].n_vertices)
    # Find the neighbors of each vertex; a missing one is the last row, which is zero.
    sizes = np.diff(rows)
    first_links = np.cumsum([0, *(sizes * directions)])
    links = np.empty((first_links[-1], 2), np.int32)
    for place, row, first, end in zip(places, rows, first_links, first_links[1:], strict=False):
        own = links[first:end].reshape(-1, place.n_vertices, 2)
        link_neighbors(place, rows[-1], row, own)
    sections = np.array([rows[:-1], sizes, directions, first_links[:-1]], np.int64).T.copy()
    dense = DenseFilter(vertices, weights, links, sections)
    # Filter ones with each kernel, which gives its row sums, and divide by their roots.
    tables = tables_for(dense, 1)
    spread_one(np.ones(n_points, np.float32), vertices, weights, tables.parts)
    smooth(dense, np.ones(len(features), np.float32), tables)
    _normalize(vertices, weights, sections, tables.table)
    return dense


@parallel_kernel
def _normalize(vertices: Numbers, weights: Singles, sections: Longs, sums: Singles) -> None:
    """Divide the weights of each point by the square root of its row sum, for each lattice.

    Spreading and reading with these weights gives N^-1/2 K N^-1/2. The lattice filters with the
    kernel up to a constant factor, which cancels here.
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
    """Spread one number of each point over the rows of its corners.

    Parameters
    ----------
    values : (n,) float32
    vertices, weights : (n, C)
    parts : (n_parts, rows, 1) float32
        Zero. Each part of the points adds to its own table.
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
    """Write to ``out`` the weighted sum of the rows of each point's corners, one number per point.

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
    """Return the row sums (n,) of ``sum_m scales_m N_m^-1/2 K_m N_m^-1/2``.

    The messages of a point are not negative and sum to its row sum.
    """
    tables = tables_for(dense, 1)
    sums = np.ones(len(dense.vertices), np.float32)
    spread_one(sums, dense.vertices, dense.weights, tables.parts)
    smooth(dense, scales, tables)
    read_one(dense.vertices, dense.weights, tables.table, sums)
    return sums


# -- smoothing ------------------------------------------------------------------------------------


def smooth(dense: DenseFilter, scales: Singles, tables: Tables) -> None:
    """Add up the parts, scale each lattice, and smooth it along all its directions.

    Parameters
    ----------
    dense : DenseFilter
    scales : (m,) float32
        The factor of the values of each lattice: the weight of its kernel.
    tables : Tables
        ``table`` receives the result. ``parts`` is read and set to 0. ``spare`` is overwritten.
    """
    add_parts(dense, scales, tables)
    blur(dense, tables)


def add_parts(dense: DenseFilter, scales: Singles, tables: Tables) -> None:
    """Add up the parts and scale each lattice, into the rows where its smoothing begins.

    These rows are in ``table``, or in ``spare`` for an odd number of directions: see
    `rows_before_blur`. ``parts`` is set to 0 while its rows are in the cache.
    """
    vectors = simd.ENABLED and tables.table.shape[1] > 1
    add_up = _add_up_vectors if vectors else _add_up_numbers
    add_up(dense.sections, scales, *tables)


def rows_before_blur(dense: DenseFilter, tables: Tables, lattice: int) -> Singles:
    """Return a view (M, width) of the rows of a lattice in which `blur` begins."""
    first, size, n_axes = (int(number) for number in dense.sections[lattice, :3])
    table = tables.table if n_axes % 2 == 0 else tables.spare
    return table[first : first + size]


def rows_after_blur(dense: DenseFilter, tables: Tables, lattice: int) -> Singles:
    """Return a view (M, width) of the rows of a lattice in ``table``, where `blur` ends."""
    first, size = int(dense.sections[lattice, 0]), int(dense.sections[lattice, 1])
    return tables.table[first : first + size]


def blur(dense: DenseFilter, tables: Tables) -> None:
    """Smooth each lattice along all its directions, with the weights [1/2, 1, 1/2] along each.

    The values lie in `rows_before_blur`; ``table`` receives the result. ``table`` and ``spare`` are
    read and written in turn.
    """
    vectors = simd.ENABLED and tables.table.shape[1] > 1
    for_small = _smooth_small_vectors if vectors else _smooth_small_numbers
    for_large = _smooth_large_vectors if vectors else _smooth_large_numbers
    small = dense.sections[:, 1] <= _MAX_VERTICES_OF_ONE_THREAD
    if small.any():
        for_small(np.ascontiguousarray(dense.sections[small]), dense.links, *tables[1:])
    for section in dense.sections[~small]:
        for_large(section, dense.links, *tables[1:])


@parallel_kernel
def _add_up_numbers(
    sections: Longs, scales: Singles, parts: Singles, table: Singles, spare: Singles
) -> None:
    """Sum the parts into the table with which the smoothing of each lattice begins.

    A lattice with an odd number of directions begins in ``spare``, so that all end in ``table``.
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
    """Do the work of `_add_up_numbers` with explicit vectors."""
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
    """Sum the rows of one task of each lattice; the tables are read as flat arrays."""
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
    """Smooth small lattices, each on one thread."""
    for task in prange(len(sections)):
        size, n_axes = sections[task, 1], sections[task, 2]
        for axis in range(n_axes):
            place = sections[task, 3] + axis * size
            even = (n_axes - axis) % 2 == 0
            here, there = (table, spare) if even else (spare, table)
            _smooth_numbers(links, place, sections[task, 0], 0, size, here, there)


@parallel_kernel
def _smooth_large_numbers(section: Longs, links: Numbers, table: Singles, spare: Singles) -> None:
    """Smooth one large lattice; threads share the vertices of each direction."""
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
    """Smooth rows ``first + low .. first + high - 1`` along one direction.

    ``place`` is the first place of this lattice and direction in ``links``.
    """
    half, width = np.float32(0.5), here.shape[1]
    old, new = here.reshape(-1), there.reshape(-1)
    if width == 1:  # no loop over channels, and unsigned indices: faster
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
    """Smooth small lattices with explicit vectors; a task is one lattice and a few channels."""
    n_sections, width = len(sections), table.shape[1]
    n_groups = (width + _VECTORS_PER_TASK * LANES - 1) // (_VECTORS_PER_TASK * LANES)
    for task in prange(n_groups * n_sections):
        section = task % n_sections
        start = task // n_sections * _VECTORS_PER_TASK * LANES
        stop = min(width, start + _VECTORS_PER_TASK * LANES)
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
    """Smooth one large lattice with explicit vectors; threads share its vertices."""
    first, size, n_axes = section[0], section[1], section[2]
    for axis in range(n_axes):
        place = section[3] + axis * size
        even = (n_axes - axis) % 2 == 0
        for task in prange(16):
            low, high = task * size // 16, (task + 1) * size // 16
            here, there = (table, spare) if even else (spare, table)
            _smooth_vectors(
                links, place, first, low, high, 0, table.shape[1], _ROWS_AHEAD, here, there
            )


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
    """Smooth the channels ``start .. stop - 1`` of some rows along one direction.

    The neighbors of the row ``early`` rows later are fetched into the cache, unless ``early`` is 0.
    The other arguments are those of `_smooth_numbers`.
    """
    width = here.shape[1]
    half = simd.fill(np.float32(0.5), LANES)
    for vertex in range(low, high):
        ahead = np.int64(links[np.uint64(place + vertex), 0]) * width
        behind = np.int64(links[np.uint64(place + vertex), 1]) * width
        own = (first + vertex) * width
        if early > 0:
            later = np.uint64(place + min(vertex + early, high - 1))
            for k in range(start, stop, 2 * LANES):  # a cache line holds two vectors
                simd.prefetch(here, np.int64(links[later, 0]) * width + k)
                simd.prefetch(here, np.int64(links[later, 1]) * width + k)
        for k in range(start, stop, LANES):
            sides = simd.load(here, ahead + k, LANES) + simd.load(here, behind + k, LANES)
            simd.store(there, own + k, simd.fma(half, sides, simd.load(here, own + k, LANES)))
