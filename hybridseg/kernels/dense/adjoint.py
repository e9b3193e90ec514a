"""The gradient of dense mean field: each iteration is passed through backwards.

An iteration computes the scores ``s = A(q') - u`` from the marginals q' of the iteration before,
with the linear filter A, and the marginals ``q = softmax(s)``. Given the gradient g of a loss with
respect to q, the gradient with respect to s is ``q * (g - <q, g>)``, and the gradient with respect
to q' is the transpose of A applied to it (Krähenbühl and Koltun [1]_, section 3). The filter is
``A = spread^T blur spread`` (see `hybridseg.kernels.dense.dense_filter`), so the transpose spreads
and reads with the same weights. Only the blur differs: its directions come in reverse order, as in
`transposed`. A step backwards thus costs what an iteration costs.

A loss also depends on the features of the points, through the barycentric coordinates. A coordinate
is used to spread the marginals and to read the messages, and its gradient is the sum of two
products of rows. Inside a simplex, coordinates are linear in the features, which gives the gradient
with respect to features and widths. It is exact for the filter as computed, wherever no point lies
on the border of a simplex.

Tables are (rows, width) float32 as in `hybridseg.kernels.dense.dense_filter`. Points are processed
`CHUNK` at a time, in two buffers (CHUNK * width) in the first-level cache. Each part of the points
has a table of its own, and numba's threads share the parts; sums do not depend on the number of
threads. `hybridseg.inference.mean_field.dense_gradient` and `term_gradient` call these kernels.

References
----------
.. [1] P. Krähenbühl, V. Koltun, "Parameter learning and convergent inference for dense random
   fields", International Conference on Machine Learning (ICML), 2013.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel, parallel_kernel
from hybridseg.kernels.dense.dense_filter import (
    CHUNK,
    LANES,
    DenseFilter,
    Tables,
    smooth,
    spread_one,
    tables_for,
)
from hybridseg.kernels.dense.lattice_build import axis_scales
from hybridseg.kernels.dense.rows import read_row, read_rows, spread_row, spread_rows
from hybridseg.kernels.dense.simplices import RUN, lift, load, rank, wrap
from hybridseg.kernels.vectors import simd as simd

Real = NDArray[np.floating[Any]]
Doubles = NDArray[np.float64]
Singles = NDArray[np.float32]
Numbers = NDArray[np.int32]


def transposed(dense: DenseFilter) -> DenseFilter:
    """Return the transpose of a filter: it smooths along the directions in reverse order."""
    links = np.empty_like(dense.links)
    for _, size, n_axes, place in dense.sections:
        own = slice(place, place + n_axes * size)
        links[own] = dense.links[own].reshape(n_axes, size, 2)[::-1].reshape(-1, 2)
    return dense._replace(links=links)


def retreat(
    dense: DenseFilter,
    marginals: Singles,
    given: Singles,
    tables: Tables,
    scores: Singles,
    unary_gradient: Singles,
    corner_gradient: Singles,
) -> None:
    """Pass backwards through the softmax of one iteration, and spread the gradient of its scores.

    Parameters
    ----------
    dense : DenseFilter
    marginals : (n, L) float32, C-contiguous
        Those that the iteration computed.
    given : (n, L) or (0, L) float32, C-contiguous
        The gradient of the loss with respect to ``marginals``. If empty, it is read from
        ``tables.table``: the transposed filter of the gradient of the next iteration's scores.
    tables : Tables
        The gradient of the scores is added to ``parts``, which must be 0, unless ``scores`` is
        empty.
    scores : (rows, width) or (0, width) float32
        The table from which the iteration read its messages. Empty at the initial marginals,
        which were not computed from messages.
    unary_gradient : (n, L) float32
        The gradient of the loss with respect to the costs is added.
    corner_gradient : (n, C) or (0, C) float32
        The gradient with respect to the weights of the filter is added, unless it is empty.
    """
    if simd.ENABLED:
        buffers = simd.aligned((dense.n_parts, 2, CHUNK * tables.table.shape[1]), np.float32)
        _retreat_vectors(
            *(marginals, given, *dense[:2], tables.table, tables.parts, scores, buffers),
            *(unary_gradient, corner_gradient),
        )
    else:
        _retreat_numbers(
            *(marginals, given, *dense[:2], tables.table, tables.parts, scores),
            *(unary_gradient, corner_gradient),
        )


@parallel_kernel
def _retreat_numbers(
    marginals: Singles,
    given: Singles,
    vertices: Numbers,
    weights: Singles,
    table: Singles,
    parts: Singles,
    scores: Singles,
    unary_gradient: Singles,
    corner_gradient: Singles,
) -> None:
    """Do the work of `retreat` without explicit vectors, point by point."""
    n_points, n_labels = marginals.shape
    n_parts = len(parts)
    n_chunks = (n_points + CHUNK - 1) // CHUNK
    for part in prange(n_parts):
        row = np.empty(n_labels, np.float32)
        stop = min(n_points, (part + 1) * n_chunks // n_parts * CHUNK)
        for i in range(part * n_chunks // n_parts * CHUNK, stop):
            if len(given) > 0:
                row[:] = given[i]
            else:
                row[:] = 0
                read_row(vertices[i], weights[i], table, row)
                if len(corner_gradient) > 0:
                    _match_row(vertices[i], table, marginals[i], corner_gradient[i])
            mean = np.float32(0)
            for label in range(n_labels):
                mean += marginals[i, label] * row[label]
            for label in range(n_labels):
                row[label] = marginals[i, label] * (row[label] - mean)
                unary_gradient[i, label] -= row[label]
            if len(scores) > 0:
                spread_row(vertices[i], weights[i], row, parts[part])
                if len(corner_gradient) > 0:
                    _match_row(vertices[i], scores, row, corner_gradient[i])


@kernel
def _match_row(vertices: Numbers, table: Singles, values: Singles, products: Singles) -> None:
    """Add the inner products of the values of one point with the rows of its corners."""
    for corner in range(len(vertices)):
        total = np.float32(0)
        for label in range(len(values)):
            total += table[vertices[corner], label] * values[label]
        products[corner] += total


@parallel_kernel
def _retreat_vectors(
    marginals: Singles,
    given: Singles,
    vertices: Numbers,
    weights: Singles,
    table: Singles,
    parts: Singles,
    scores: Singles,
    buffers: Singles,
    unary_gradient: Singles,
    corner_gradient: Singles,
) -> None:
    """Do the work of `retreat` with explicit vectors."""
    for part in prange(len(parts)):
        _retreat_part(
            *(part, marginals, given, vertices, weights, table, parts, scores),
            *(buffers[part, 0], buffers[part, 1], unary_gradient, corner_gradient),
        )


@kernel
def _retreat_part(
    part: int,
    marginals: Singles,
    given: Singles,
    vertices: Numbers,
    weights: Singles,
    table: Singles,
    parts: Singles,
    scores: Singles,
    buffer: Singles,
    own: Singles,
    unary_gradient: Singles,
    corner_gradient: Singles,
) -> None:
    """Pass backwards through one part of the points; ``own`` holds marginals of a chunk."""
    n_points = len(marginals)
    n_parts, width = len(parts), table.shape[1]
    n_chunks = (n_points + CHUNK - 1) // CHUNK
    features = len(corner_gradient) > 0
    for chunk in range(part * n_chunks // n_parts, (part + 1) * n_chunks // n_parts):
        first = chunk * CHUNK
        count = min(CHUNK, n_points - first)
        _fetch(first, count, width, marginals, own)
        if len(given) > 0:
            _fetch(first, count, width, given, buffer)
        else:
            buffer[:] = 0
            read_rows(first, count, vertices, weights, table, buffer)
            if features:
                _match_rows(first, count, vertices, table, own, corner_gradient)
        _differentiate(count, width, own, buffer)
        _subtract(first, count, width, buffer, unary_gradient)
        if len(scores) > 0:
            spread_rows(first, count, vertices, weights, buffer, parts, part)
            if features:
                _match_rows(first, count, vertices, scores, buffer, corner_gradient)


@kernel
def _fetch(first: int, count: int, width: int, rows: Singles, buffer: Singles) -> None:
    """Copy rows (n, L) of points to the buffer, with zeros as padding."""
    n_labels = rows.shape[1]
    n_full = n_labels // LANES
    zero = simd.fill(np.float32(0), LANES)
    for point in range(count):
        here, there = point * width, (first + point) * n_labels
        simd.store(buffer, here + width - LANES, zero)
        for _ in range(n_full):
            simd.store(buffer, here, simd.load(rows, there, LANES))
            here, there = here + LANES, there + LANES
        for label in range(n_full * LANES, n_labels):
            buffer[here] = rows[first + point, label]
            here += 1


@kernel
def _differentiate(count: int, width: int, own: Singles, buffer: Singles) -> None:
    """Replace each row g of the buffer by ``q * (g - <q, g>)``, with the marginals q in ``own``."""
    for start in range(0, count * width, width):
        total = simd.fill(np.float32(0), LANES)
        for to in range(start, start + width, LANES):
            total = simd.fma(simd.load(own, to, LANES), simd.load(buffer, to, LANES), total)
        mean = simd.fill(simd.total(total), LANES)
        for to in range(start, start + width, LANES):
            change = simd.load(buffer, to, LANES) - mean
            simd.store(buffer, to, simd.load(own, to, LANES) * change)


@kernel
def _subtract(first: int, count: int, width: int, buffer: Singles, unary_gradient: Singles) -> None:
    """Subtract the rows of the buffer, without the padding, from ``unary_gradient``."""
    n_labels = unary_gradient.shape[1]
    n_full = n_labels // LANES
    for point in range(count):
        here, there = point * width, (first + point) * n_labels
        for _ in range(n_full):
            less = simd.load(unary_gradient, there, LANES) - simd.load(buffer, here, LANES)
            simd.store(unary_gradient, there, less)
            here, there = here + LANES, there + LANES
        for label in range(n_full * LANES, n_labels):
            unary_gradient[first + point, label] -= buffer[here]
            here += 1


@kernel
def _match_rows(
    first: int,
    count: int,
    vertices: Numbers,
    table: Singles,
    buffer: Singles,
    corner_gradient: Singles,
) -> None:
    """Add the inner products of each point's row of the buffer with the rows of its corners."""
    n_corners, width = vertices.shape[1], table.shape[1]
    for point in range(count):
        i = np.uint64(first + point)
        for corner in range(n_corners):
            place = np.int64(vertices[i, np.uint64(corner)]) * width
            total = simd.fill(np.float32(0), LANES)
            for k in range(0, width, LANES):
                values = simd.load(buffer, point * width + k, LANES)
                total = simd.fma(simd.load(table, place + k, LANES), values, total)
            corner_gradient[i, np.uint64(corner)] += simd.total(total)


# -- from weights to barycentric coordinates -------------------------------------------------------


def coordinate_gradient(dense: DenseFilter, lattice: int, corner_gradient: Singles) -> Singles:
    """Return the gradient with respect to barycentric coordinates, given that of the weights.

    The weights of a point are its coordinates b divided by the root of its row sum ``n = <b, t>``,
    where t is the filtered table of ones. So a coordinate has three effects: on its own weight, on
    the row sum of its point, and, through t, on the row sums of other points.

    Parameters
    ----------
    dense : DenseFilter
    lattice : int
        The number of the lattice among those of the filter.
    corner_gradient : (n, C) float32
        The gradient with respect to the weights of all lattices.

    Returns
    -------
    (n, d + 1) float32
        The gradient with respect to the coordinates in one lattice.
    """
    one, columns = _one_lattice(dense, lattice)
    given = corner_gradient[:, columns]
    roots = one.weights.sum(axis=1)  # coordinates sum to one, so this is 1 / sqrt(n)
    ones = np.ones(1, np.float32)
    tables = tables_for(one, 1)
    spread_one(1 / roots, one.vertices, one.weights, tables.parts)
    smooth(one, ones, tables)
    sums = tables.table.ravel()[one.vertices]
    row_gradient = -0.5 * roots**2 * np.einsum("ic,ic->i", given, one.weights)
    spread_one(row_gradient / roots, one.vertices, one.weights, tables.parts)
    smooth(transposed(one), ones, tables)
    gradient: Singles = given * roots[:, np.newaxis] + row_gradient[:, np.newaxis] * sums
    gradient += tables.table.ravel()[one.vertices]
    return gradient


def _one_lattice(dense: DenseFilter, lattice: int) -> tuple[DenseFilter, slice]:
    """Return the filter of one lattice alone, and the columns of its corners."""
    first, size, n_axes, place = (int(number) for number in dense.sections[lattice])
    corner = int(dense.sections[:lattice, 2].sum())
    columns = slice(corner, corner + n_axes)
    missing = dense.n_rows - 1
    links = dense.links[place : place + n_axes * size]
    links = np.where(links == missing, np.int32(size), links - np.int32(first))
    alone = DenseFilter(
        np.ascontiguousarray(dense.vertices[:, columns]) - np.int32(first),
        np.ascontiguousarray(dense.weights[:, columns]),
        links,
        np.array([[0, size, n_axes, 0]], np.int64),
    )
    return alone, columns


# -- from barycentric coordinates to features -----------------------------------------------------


def feature_gradient(features: Real, corner_gradient: Singles) -> Doubles:
    """Return the gradient with respect to features, given that with respect to coordinates.

    Parameters
    ----------
    features : (n, d) float32 or float64
        Those of which `hybridseg.kernels.dense.lattice_build.place_points` made a lattice.
    corner_gradient : (n, d + 1) float32
        The gradient with respect to the barycentric coordinates, in the order of the corners.

    Returns
    -------
    (n, d) float64
    """
    gradient = np.empty(features.shape)
    scales = axis_scales(features.shape[1])
    _lower(np.ascontiguousarray(features), scales, corner_gradient, gradient)
    return gradient


@parallel_kernel
def _lower(features: Real, scales: Doubles, corner_gradient: Singles, gradient: Doubles) -> None:
    """Write the gradients of runs of points, which threads share."""
    n_points = len(features)
    for run in prange((n_points + RUN - 1) // RUN):
        _lower_run(run * RUN, features, scales, corner_gradient, gradient)


@kernel
def _lower_run(
    begin: int, features: Real, scales: Doubles, corner_gradient: Singles, gradient: Doubles
) -> None:
    """Write the gradients of one run of points.

    Of the coordinates at the corners, only those at two successive corners depend on a lattice
    axis: the step between them is along this axis. The coordinate rises with slope 1 at the one,
    and falls at the other. The lifted coordinates are linear in the features, as in `lift`.
    """
    n_points, n_dims = features.shape
    rest, origin = np.empty((n_dims + 1, RUN)), np.empty((n_dims + 1, RUN))
    ranks, excess = np.empty((n_dims + 1, RUN)), np.empty(RUN)
    load(features, begin, scales, rest)
    lift(rest, np.zeros(n_dims + 1), origin, excess)
    rank(rest, ranks)
    wrap(ranks, excess, origin)
    for p in range(min(RUN, n_points - begin)):
        own, total = corner_gradient[begin + p], 0.0
        for axis in range(n_dims + 1):
            corner = n_dims - np.int64(ranks[axis, p])
            slope = np.float64(own[corner]) - np.float64(own[(corner + 1) % (n_dims + 1)])
            if axis > 0:
                gradient[begin + p, axis - 1] = scales[axis - 1] * (total - axis * slope)
            total += slope
