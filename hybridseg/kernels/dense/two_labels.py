"""One iteration of dense mean field with two labels, which needs only one channel.

It is the iteration of `hybridseg.kernels.dense.mean_field` (see there for the papers). The two
marginals of a pixel sum to one, and the kernels map the constant 1 to the row sums of the pixels,
called ``reach``. So it is enough to filter ``Q_1 - 1/2``. If m is the result, the messages of the
labels are ``m_1 = reach / 2 + m`` and ``m_0 = reach / 2 - m``, and the difference of the scores is

    z = u_0 - u_1 - sum_l' (mu(1, l') - mu(0, l')) m_l'
      = u_0 - u_1 - (a + b) / 2 reach + (a - b) m,
    a = mu(1, 0) - mu(0, 0),  b = mu(1, 1) - mu(0, 1).

The marginal of label 1 is ``1 / (1 + exp(-z))``. For Potts a + b is 0, so the reach is not needed.

A row of a table is one float32; vertices (n, C) int32 and weights (n, C) float32 are those of
`hybridseg.kernels.dense.dense_filter.DenseFilter`. `hybridseg.inference.mean_field.dense_model`
calls `advance_two`. Each part of the points has a table of its own, and numba's threads share the
parts.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel, parallel_kernel
from hybridseg.kernels.dense.dense_filter import CHUNK, LANES, DenseFilter, Tables
from hybridseg.kernels.dense.mean_field import MIN_SCORE, Steps
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
    """Compute the marginals of label 1 from the messages in the table, and spread them minus 1/2.

    Parameters
    ----------
    fixed : (n,) float32
        The part of z that does not change, ``u_0 - u_1 - (a + b) / 2 reach``. In the first pass,
        which has no messages, ``u_0 - u_1``.
    slope : float
        ``a - b`` above: 2 for Potts.
    dense : DenseFilter
    tables : Tables
        For one channel. ``table`` is read; the new values are added to ``parts``, which must be 0.
    steps : Steps
    marginals : (n,) float32
        The marginals of label 1, written if ``steps.keep``. Those below 1e-30 are 0.

    Returns
    -------
    float
        The largest absolute change of any marginal if ``steps.compare``, otherwise 0.
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
    """Do the work of `advance_two` without explicit vectors."""
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
                buffer[point] = raised if score >= MIN_SCORE else np.float32(0)
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
    """Do the work of `advance_two`, with explicit vectors for the logistic function."""
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
    """Replace all `CHUNK` scores of the buffer by ``1 / (1 + exp(-score))``."""
    one, zero = simd.fill(np.float32(1), LANES), simd.fill(np.float32(0), LANES)
    nothing = simd.fill(MIN_SCORE, LANES)
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
    """Write the scores z of ``count`` points, from point ``first`` on, to the buffer."""
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
    """Spread the marginals in the buffer, minus 1/2, over the rows of their corners."""
    for point in range(count):
        i, ahead = np.uint64(first + point), buffer[point] - np.float32(0.5)
        for corner in range(vertices.shape[1]):
            c = np.uint64(corner)
            part[np.uint64(vertices[i, c])] += weights[i, c] * ahead


@kernel
def _largest_change(first: int, count: int, buffer: Singles, marginals: Singles) -> np.float32:
    """Return the largest absolute difference of the buffer from the earlier marginals."""
    largest = np.float32(0)
    for point in range(count):
        largest = max(largest, abs(buffer[point] - marginals[first + point]))
    return largest
