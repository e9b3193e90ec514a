"""One iteration of dense mean field between two labels, for which one channel is enough.

The marginals of a pixel sum to one, and what the kernels make of a constant one is known: the
``reach`` of a pixel, the sum of its row. What is spread is ``Q_1 - 1/2``; with the message m that
comes of it, those of the labels are ``m_1 = reach / 2 + m`` and ``m_0 = reach / 2 - m``, and the
difference of the two scores is

    z = u_0 - u_1 - sum_l' (mu(1, l') - mu(0, l')) m_l'
      = u_0 - u_1 - (a + b) / 2 reach + (a - b) m,
    a = mu(1, 0) - mu(0, 0),  b = mu(1, 1) - mu(0, 1).

The marginal of label 1 is ``1 / (1 + exp(-z))``. With Potts a + b is 0, and the reach need not be
known. Tables hold four bytes a row.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel, parallel_kernel
from hybridseg.kernels.dense.dense_filter import CHUNK, LANES, DenseFilter, Tables
from hybridseg.kernels.dense.mean_field import NOTHING, Steps
from hybridseg.kernels.vectors import simd as simd

Singles = NDArray[np.float32]
Numbers = NDArray[np.int32]


def advance_two(
    fixed: Singles,
    slope: float,
    dense: DenseFilter,
    tables: Tables,
    steps: Steps,
    marginals: Singles,
) -> float:
    """Make new marginals of label 1 of the messages in the table, and spread them less 1/2.

    Parameters
    ----------
    fixed : (n,) float32
        What does not change: ``u_0 - u_1 - (a + b) / 2 reach``; in the first pass, without
        messages, ``u_0 - u_1``.
    slope : float
        ``a - b`` above: 2 for Potts.
    dense : DenseFilter
    tables : Tables
        For one channel. ``table`` is read, ``parts``, which should be zero, added to.
    steps : Steps
    marginals : (n,) float32
        Of label 1; written to if ``steps.keep``. Below 1e-30 they are 0.

    Returns
    -------
    float
        The largest absolute difference of any marginal to what it was, if ``steps.compare``; else
        0.
    """
    changes = np.zeros(dense.n_parts, np.float32)
    run = _advance_vectors if simd.ENABLED else _advance_numbers
    corners, table = dense[:2], tables.table.reshape(-1)
    parts = tables.parts.reshape(dense.n_parts, -1)
    run(fixed, np.float32(slope), *corners, table, parts, *steps, marginals, changes)
    return float(changes.max())


@parallel_kernel
def _advance_numbers(
    fixed: Singles,
    slope: np.float32,
    vertices: Numbers,
    weights: Singles,
    table: Singles,
    parts: Singles,
    read: bool,
    spread: bool,
    keep: bool,
    compare: bool,
    marginals: Singles,
    changes: Singles,
) -> None:
    n_points, n_parts = len(fixed), len(parts)
    n_chunks = (n_points + CHUNK - 1) // CHUNK
    for part in prange(n_parts):
        buffer = np.empty(CHUNK, np.float32)
        for chunk in range(part * n_chunks // n_parts, (part + 1) * n_chunks // n_parts):
            first = chunk * CHUNK
            count = min(CHUNK, n_points - first)
            _score(first, count, fixed, slope, vertices, weights, table, read, buffer)
            for point in range(count):
                score, one = buffer[point], np.float32(1)
                raised = one / (one + np.exp(-score))
                buffer[point] = raised if score >= NOTHING else np.float32(0)
            if spread:
                _spread(first, count, vertices, weights, buffer, parts[part])
            if compare:
                changes[part] = max(changes[part], _largest_change(first, count, buffer, marginals))
            if keep:
                marginals[first : first + count] = buffer[:count]


@parallel_kernel
def _advance_vectors(
    fixed: Singles,
    slope: np.float32,
    vertices: Numbers,
    weights: Singles,
    table: Singles,
    parts: Singles,
    read: bool,
    spread: bool,
    keep: bool,
    compare: bool,
    marginals: Singles,
    changes: Singles,
) -> None:
    n_points, n_parts = len(fixed), len(parts)
    n_chunks = (n_points + CHUNK - 1) // CHUNK
    for part in prange(n_parts):
        buffer = np.zeros(CHUNK, np.float32)
        for chunk in range(part * n_chunks // n_parts, (part + 1) * n_chunks // n_parts):
            first = chunk * CHUNK
            count = min(CHUNK, n_points - first)
            _score(first, count, fixed, slope, vertices, weights, table, read, buffer)
            _logistic(buffer)
            if spread:
                _spread(first, count, vertices, weights, buffer, parts[part])
            if compare:
                changes[part] = max(changes[part], _largest_change(first, count, buffer, marginals))
            if keep:
                marginals[first : first + count] = buffer[:count]


@kernel
def _logistic(buffer: Singles) -> None:
    one, zero = simd.fill(np.float32(1), LANES), simd.fill(np.float32(0), LANES)
    nothing = simd.fill(NOTHING, LANES)
    for place in range(0, CHUNK, LANES):
        score = simd.load(buffer, place, LANES)
        raised = one / (one + simd.exp(zero - score))
        simd.store(buffer, place, simd.select(simd.less(score, nothing), zero, raised))


@kernel
def _score(
    first: int,
    count: int,
    fixed: Singles,
    slope: np.float32,
    vertices: Numbers,
    weights: Singles,
    table: Singles,
    read: bool,
    buffer: Singles,
) -> None:
    for point in range(count):
        i = np.uint64(first + point)
        message = np.float32(0)
        if read:
            for corner in range(vertices.shape[1]):
                c = np.uint64(corner)
                message += weights[i, c] * table[np.uint64(vertices[i, c])]
        buffer[point] = fixed[i] + slope * message


@kernel
def _spread(
    first: int, count: int, vertices: Numbers, weights: Singles, buffer: Singles, part: Singles
) -> None:
    for point in range(count):
        i, ahead = np.uint64(first + point), buffer[point] - np.float32(0.5)
        for corner in range(vertices.shape[1]):
            c = np.uint64(corner)
            part[np.uint64(vertices[i, c])] += weights[i, c] * ahead


@kernel
def _largest_change(first: int, count: int, buffer: Singles, marginals: Singles) -> np.float32:
    largest = np.float32(0)
    for point in range(count):
        largest = max(largest, abs(buffer[point] - marginals[first + point]))
    return largest
