"""Rows of many channels between points and the tables of a lattice: one step of a filter.

A point reads the weighted sum of the rows of its corners, or adds its own row to them. Tables are
(rows, width) float32 as in `hybridseg.kernels.dense.dense_filter`. `read_rows` and `spread_rows`
work on a few points at a time, whose rows lie in a buffer (points * width) that stays in the
first-level cache; ``width`` is a multiple of `LANES`. `read_row` and `spread_row` do the same for
one point without explicit vectors. `hybridseg.kernels.dense.mean_field` and
`hybridseg.kernels.dense.adjoint` call them inside their loops over the points.

`multiply_rows` and `inner_products` are products of tables with small matrices. BLAS would do
them as well, but its threads and numba's disturb each other where both are called in turn.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel, parallel_kernel
from hybridseg.kernels.dense.dense_filter import LANES
from hybridseg.kernels.vectors import simd as simd

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]
Numbers = NDArray[np.int32]

#: The number of runs of rows that threads share; sums do not depend on the number of threads.
_N_RUNS = 8


@kernel
def read_row(vertices: Numbers, weights: Singles, table: Singles, messages: Singles) -> None:
    """Add the messages of one point, read from the rows of its corners."""
    for corner in range(len(vertices)):
        for label in range(len(messages)):
            messages[label] += weights[corner] * table[vertices[corner], label]


@kernel
def spread_row(vertices: Numbers, weights: Singles, values: Singles, part: Singles) -> None:
    """Spread the marginals of one point over the rows of its corners."""
    for corner in range(len(vertices)):
        for label in range(len(values)):
            part[vertices[corner], label] += weights[corner] * values[label]


@kernel
def read_rows(
    first: int, count: int, vertices: Numbers, weights: Singles, table: Singles, buffer: Singles
) -> None:
    """Add the messages of each point to its row of the buffer, three vectors at a time.

    The three sums stay in registers while the loop passes over the corners.
    """
    n_corners, width = vertices.shape[1], table.shape[1]
    for point in range(count):
        i = np.uint64(first + point)
        start = 0
        while start + 3 * LANES <= width:
            to = point * width + start
            one = simd.load(buffer, to, LANES)
            two = simd.load(buffer, to + LANES, LANES)
            three = simd.load(buffer, to + 2 * LANES, LANES)
            for corner in range(n_corners):
                place = np.int64(vertices[i, np.uint64(corner)]) * width + start
                weight = simd.fill(weights[i, np.uint64(corner)], LANES)
                one = simd.fma(weight, simd.load(table, place, LANES), one)
                two = simd.fma(weight, simd.load(table, place + LANES, LANES), two)
                three = simd.fma(weight, simd.load(table, place + 2 * LANES, LANES), three)
            simd.store(buffer, to, one)
            simd.store(buffer, to + LANES, two)
            simd.store(buffer, to + 2 * LANES, three)
            start += 3 * LANES
        while start < width:
            to = point * width + start
            one = simd.load(buffer, to, LANES)
            for corner in range(n_corners):
                place = np.int64(vertices[i, np.uint64(corner)]) * width + start
                weight = simd.fill(weights[i, np.uint64(corner)], LANES)
                one = simd.fma(weight, simd.load(table, place, LANES), one)
            simd.store(buffer, to, one)
            start += LANES


@kernel
def spread_rows(
    first: int,
    count: int,
    vertices: Numbers,
    weights: Singles,
    buffer: Singles,
    parts: Singles,
    part: int,
) -> None:
    """Add the row of each point, times its weights, to the rows of its corners in its part's table.

    Three vectors at a time are held in registers while the loop passes over the corners.
    """
    n_corners = vertices.shape[1]
    _, n_rows, width = parts.shape
    for point in range(count):
        i = np.uint64(first + point)
        start = 0
        while start + 3 * LANES <= width:
            here, base = point * width + start, part * n_rows * width + start
            one = simd.load(buffer, here, LANES)
            two = simd.load(buffer, here + LANES, LANES)
            three = simd.load(buffer, here + 2 * LANES, LANES)
            for corner in range(n_corners):
                to = base + np.int64(vertices[i, np.uint64(corner)]) * width
                weight = simd.fill(weights[i, np.uint64(corner)], LANES)
                _add(parts, to, weight, one)
                _add(parts, to + LANES, weight, two)
                _add(parts, to + 2 * LANES, weight, three)
            start += 3 * LANES
        while start < width:
            here, base = point * width + start, part * n_rows * width + start
            one = simd.load(buffer, here, LANES)
            for corner in range(n_corners):
                to = base + np.int64(vertices[i, np.uint64(corner)]) * width
                _add(parts, to, simd.fill(weights[i, np.uint64(corner)], LANES), one)
            start += LANES


@kernel
def _add(table: Singles, place: int, weight: Any, values: Any) -> None:  # vectors have no type here
    """Add the vector ``weight * values`` to the table."""
    simd.store(table, place, simd.fma(weight, values, simd.load(table, place, LANES)))


# -- products with small matrices -----------------------------------------------------------------


def multiply_rows(rows: Singles, matrix: Singles, out: Singles) -> None:
    """Write the product of the first columns of each row with a matrix, and zeros as padding.

    Parameters
    ----------
    rows : (M, width) float32
        The width is a multiple of `LANES`.
    matrix : (L, L) float32, L <= width
    out : (M, width) float32
        It may be ``rows`` itself.
    """
    whole = np.zeros((len(matrix), rows.shape[1]), np.float32)
    whole[:, : len(matrix)] = matrix
    if simd.ENABLED:
        _multiply_vectors(rows, whole, out)
    else:
        _multiply_numbers(rows, whole, out)


@parallel_kernel
def _multiply_numbers(rows: Singles, matrix: Singles, out: Singles) -> None:
    """Do the work of `multiply_rows` without explicit vectors."""
    n_rows, width = rows.shape
    for run in prange(_N_RUNS):
        total = np.empty(width, np.float32)
        for row in range(run * n_rows // _N_RUNS, (run + 1) * n_rows // _N_RUNS):
            total[:] = 0
            for k in range(len(matrix)):
                for label in range(width):
                    total[label] += rows[row, k] * matrix[k, label]
            out[row] = total


@parallel_kernel
def _multiply_vectors(rows: Singles, matrix: Singles, out: Singles) -> None:
    """Do the work of `multiply_rows` with explicit vectors."""
    n_rows = len(rows)
    for run in prange(_N_RUNS):
        _multiply_run(run * n_rows // _N_RUNS, (run + 1) * n_rows // _N_RUNS, rows, matrix, out)


@kernel
def _multiply_run(first: int, stop: int, rows: Singles, matrix: Singles, out: Singles) -> None:
    """Multiply some rows; a row is copied first, because ``out`` may be ``rows``."""
    n_labels, width = matrix.shape
    own = np.empty(n_labels, np.float32)
    for row in range(first, stop):
        for k in range(n_labels):
            own[k] = rows[row, k]
        for start in range(0, width, LANES):
            total = simd.fill(np.float32(0), LANES)
            for k in range(n_labels):
                factor = simd.fill(own[np.uint64(k)], LANES)
                total = simd.fma(factor, simd.load(matrix, k * width + start, LANES), total)
            simd.store(out, row * width + start, total)


def inner_products(left: Singles, right: Singles, n_labels: int) -> Doubles:
    """Return ``left^T right`` (L, L) of the first columns of two tables.

    Parameters
    ----------
    left, right : (M, width) float32
    n_labels : int
        L, at most the width.
    """
    sums = np.zeros((_N_RUNS, n_labels, left.shape[1]), np.float32)
    if simd.ENABLED:
        _sum_products_vectors(left, right, sums)
    else:
        _sum_products_numbers(left, right, sums)
    total: Doubles = sums[..., :n_labels].sum(axis=0, dtype=np.float64)
    return total


@parallel_kernel
def _sum_products_numbers(left: Singles, right: Singles, sums: Singles) -> None:
    """Write the products of each run of rows to its sums (runs, L, width)."""
    n_rows, (_, n_labels, width) = len(left), sums.shape
    for run in prange(_N_RUNS):
        for row in range(run * n_rows // _N_RUNS, (run + 1) * n_rows // _N_RUNS):
            for k in range(n_labels):
                for label in range(width):
                    sums[run, k, label] += left[row, k] * right[row, label]


@parallel_kernel
def _sum_products_vectors(left: Singles, right: Singles, sums: Singles) -> None:
    """Do the work of `_sum_products_numbers` with explicit vectors."""
    n_rows = len(left)
    for run in prange(_N_RUNS):
        _sum_run(run * n_rows // _N_RUNS, (run + 1) * n_rows // _N_RUNS, left, right, sums[run])


@kernel
def _sum_run(first: int, stop: int, left: Singles, right: Singles, sums: Singles) -> None:
    """Add the products of some rows to ``sums`` (L, width), one vector of columns at a time."""
    n_labels, width = sums.shape
    for row in range(first, stop):
        for start in range(0, width, LANES):
            values = simd.load(right, row * width + start, LANES)
            for k in range(n_labels):
                factor = simd.fill(left[np.uint64(row), np.uint64(k)], LANES)
                place = k * width + start
                simd.store(sums, place, simd.fma(factor, values, simd.load(sums, place, LANES)))
