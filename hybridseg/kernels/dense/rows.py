"""Rows of many channels between points and the tables of a lattice: one step of a filter.

A point reads the weighted sum of the rows of its corners, or adds its own row to them. Tables are
(rows, width) float32 as in `hybridseg.kernels.dense.dense_filter`. `read_rows` and `spread_rows`
work on a few points at a time, whose rows lie in a buffer (points * width) that stays in the
first-level cache; ``width`` is a multiple of `LANES`. `read_row` and `spread_row` do the same for
one point without explicit vectors. `hybridseg.kernels.dense.mean_field` and
`hybridseg.kernels.dense.adjoint` call them inside their loops over the points.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.dense.dense_filter import LANES
from hybridseg.kernels.vectors import simd as simd

Singles = NDArray[np.float32]
Numbers = NDArray[np.int32]


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
