"""One iteration of dense mean field: read messages, take the softmax, spread the new marginals.

This is an iteration of algorithm 1 of Krähenbühl and Koltun [1]_, with the symmetric normalization
of their later paper [2]_. The filter itself is in `hybridseg.kernels.dense.dense_filter`; between
two iterations `hybridseg.kernels.dense.dense_filter.smooth` smooths the tables.

The three steps are made for `CHUNK` points at a time, in a buffer (CHUNK, width) that stays in the
first-level cache. So marginals are written to memory only once, after the last iteration, unless
they are compared. Each step is a loop of its own over the points of the buffer: one point after the
other, the processor would wait for the long chain of operations of each softmax.

Tables are (rows, width) float32, with the labels side by side and padded to ``width``, a multiple
of `LANES`. Padding has the score -3e38 and so the marginal 0. ``vertices`` (n, C) int32 and
``weights`` (n, C) float32 are those of `hybridseg.kernels.dense.dense_filter.DenseFilter`.
`hybridseg.inference.mean_field.dense_model` calls `advance`. Each part of the points has a table of
its own, and numba's threads share the parts.

References
----------
.. [1] P. Krähenbühl, V. Koltun, "Efficient inference in fully connected CRFs with Gaussian edge
   potentials", Advances in Neural Information Processing Systems (NIPS), 2011.
.. [2] P. Krähenbühl, V. Koltun, "Parameter learning and convergent inference for dense random
   fields", International Conference on Machine Learning (ICML), 2013.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel, parallel_kernel
from hybridseg.kernels.dense.dense_filter import CHUNK, LANES, DenseFilter, Tables
from hybridseg.kernels.dense.rows import read_row, read_rows, spread_row, spread_rows
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.padding import padded, room_for

Singles = NDArray[np.float32]
Numbers = NDArray[np.int32]

#: The length of the vectors in which exponentials are computed; it divides the length of a buffer.
_EXP_LANES = 16

#: The score below which a marginal becomes 0: exp(-69) = 1e-30. Smaller ones would become denormal
#: numbers when they are spread, and processors are many times slower with these.
MIN_SCORE = np.float32(-69)
#: The score of the padding.
_PADDING_SCORE = np.float32(-3e38)


class Steps(NamedTuple):
    """The steps of an iteration besides the softmax.

    Attributes
    ----------
    read : bool
        Whether to add the messages in the table to the scores; the first pass has none.
    spread : bool
        Whether to spread the new marginals for the next iteration; the last pass need not.
    keep : bool
        Whether to write the marginals.
    compare : bool
        Whether to compare the marginals with those written before. The caller then sets ``keep``
        as well.
    """

    read: bool
    spread: bool
    keep: bool
    compare: bool


def advance(
    unary: Singles,
    dense: DenseFilter,
    tables: Tables,
    compatibility: Singles,
    steps: Steps,
    marginals: Singles,
) -> float:
    """Compute the marginals from the messages in the table, and spread them.

    Parameters
    ----------
    unary : (n, L) float32, C-contiguous
        The costs.
    dense : DenseFilter
    tables : Tables
        Their width is a multiple of eight. ``table`` is read. The marginals are added to ``parts``,
        which must be 0, as new tables and `smooth` leave it.
    compatibility : (L, P) float32, or (0, 0)
        Entry (l', l) is the cost of label l next to label l'; P is the width of the tables. Empty
        for Potts, for which ``scores = messages - unary`` up to a constant.
    steps : Steps
    marginals : (n, L) float32
        Written if ``steps.keep``: numbers from 0 to 1 that sum to one in each row. Those below
        1e-30 are 0.

    Returns
    -------
    float
        The largest absolute change of any marginal if ``steps.compare``, otherwise 0.
    """
    n_points, n_labels = unary.shape
    changes = np.zeros(dense.n_parts, np.float32)
    if simd.ENABLED:
        # A vector may begin at the last cost of a row and so leave the array. The last chunk is
        # read from a padded copy, and the chunk before it as well, because the last one may be
        # shorter than a vector.
        n_last = min(n_points, (n_points - 1) % CHUNK + 1 + CHUNK)
        last = np.zeros(room_for(n_last * n_labels, LANES, LANES), np.float32)
        last[: n_last * n_labels] = unary[n_points - n_last :].ravel()
        buffers = simd.aligned((dense.n_parts, 2, CHUNK * tables.table.shape[1]), np.float32)
        _advance_vectors(
            *(unary.ravel(), last, *dense[:2], tables.table, tables.parts, compatibility),
            *(buffers, *steps, marginals, changes),
        )
    else:
        _advance_numbers(
            *(unary, *dense[:2], tables.table, tables.parts, compatibility),
            *(*steps, marginals, changes),
        )
    return float(changes.max())


@parallel_kernel
def _advance_numbers(
    unary: Singles,
    vertices: Numbers,
    weights: Singles,
    table: Singles,
    parts: Singles,
    compatibility: Singles,
    read: bool,
    spread: bool,
    keep: bool,
    compare: bool,
    marginals: Singles,
    changes: Singles,
) -> None:
    """Do the work of `advance` without explicit vectors, point by point."""
    n_points, n_labels = unary.shape
    n_parts = len(parts)
    n_chunks = (n_points + CHUNK - 1) // CHUNK
    for part in prange(n_parts):
        messages, scores = np.empty(n_labels, np.float32), np.empty(n_labels, np.float32)
        stop = min(n_points, (part + 1) * n_chunks // n_parts * CHUNK)
        for i in range(part * n_chunks // n_parts * CHUNK, stop):
            messages[:] = 0
            if read:
                read_row(vertices[i], weights[i], table, messages)
            _score_numbers(unary[i], messages, compatibility, scores)
            _softmax_numbers(scores)
            if spread:
                spread_row(vertices[i], weights[i], scores, parts[part])
            for label in range(n_labels):
                if compare:
                    change = abs(scores[label] - marginals[i, label])
                    changes[part] = max(changes[part], change)
                if keep:
                    marginals[i, label] = scores[label]


@kernel
def _score_numbers(
    unary: Singles, messages: Singles, compatibility: Singles, scores: Singles
) -> None:
    """Write the scores of one point: minus its costs and what its messages cost each label."""
    for label in range(len(unary)):
        total = messages[label]
        if len(compatibility) > 0:
            total = np.float32(0)
            for other in range(len(unary)):
                total -= messages[other] * compatibility[other, label]
        scores[label] = total - unary[label]


@kernel
def _softmax_numbers(scores: Singles) -> None:
    """Replace the scores of one point by their softmax."""
    best = scores[0]
    for label in range(1, len(scores)):
        best = max(best, scores[label])
    total = np.float32(0)
    for label in range(len(scores)):
        less = scores[label] - best
        scores[label] = np.exp(less) if less >= MIN_SCORE else np.float32(0)
        total += scores[label]
    for label in range(len(scores)):
        scores[label] /= total


# -- with explicit vectors ------------------------------------------------------------------------


@parallel_kernel
def _advance_vectors(
    unary: Singles,
    last: Singles,
    vertices: Numbers,
    weights: Singles,
    table: Singles,
    parts: Singles,
    compatibility: Singles,
    buffers: Singles,
    read: bool,
    spread: bool,
    keep: bool,
    compare: bool,
    marginals: Singles,
    changes: Singles,
) -> None:
    """Do the work of `advance` with explicit vectors."""
    for part in prange(len(parts)):
        changes[part] = _advance_part(
            *(part, unary, last, vertices, weights, table, parts, compatibility),
            *(buffers[part, 0], buffers[part, 1], read, spread, keep, compare, marginals),
        )


@kernel
def _advance_part(
    part: int,
    unary: Singles,
    last: Singles,
    vertices: Numbers,
    weights: Singles,
    table: Singles,
    parts: Singles,
    compatibility: Singles,
    buffer: Singles,
    messages: Singles,
    read: bool,
    spread: bool,
    keep: bool,
    compare: bool,
    marginals: Singles,
) -> np.float32:
    """Advance one part of the points, and return its largest change.

    It is a kernel of its own because numba compiles it to faster code than inside a parallel loop.
    """
    n_points, n_labels = marginals.shape
    n_parts, width = len(parts), table.shape[1]
    n_chunks = (n_points + CHUNK - 1) // CHUNK
    first_copied = max(0, n_chunks - 2)  # the first chunk that is read from ``last``
    largest = np.float32(0)
    for chunk in range(part * n_chunks // n_parts, (part + 1) * n_chunks // n_parts):
        first = chunk * CHUNK
        count = min(CHUNK, n_points - first)
        if chunk >= first_copied:
            _negate(last, (first - first_copied * CHUNK) * n_labels, count, n_labels, buffer)
        else:
            _negate(unary, first * n_labels, count, n_labels, buffer)
        if read and len(compatibility) == 0:
            read_rows(first, count, vertices, weights, table, buffer)
        elif read:
            messages[:] = 0
            read_rows(first, count, vertices, weights, table, messages)
            _ask(count, messages, compatibility, buffer)
        _softmax(count, width, buffer)
        if spread:
            spread_rows(first, count, vertices, weights, buffer, parts, part)
        if compare:
            largest = max(largest, _largest_change(first, count, width, buffer, marginals))
        if keep:
            _keep(first, count, width, buffer, marginals)
    return largest


@kernel
def _negate(unary: Singles, place: int, count: int, n_labels: int, buffer: Singles) -> None:
    """Write minus the costs of ``count`` points to the buffer, and -3e38 to the padding.

    ``place`` is the first cost in ``unary``, a flat array that may be read one vector beyond them.
    """
    zero, lowest = simd.fill(np.float32(0), LANES), simd.fill(_PADDING_SCORE, LANES)
    n_full = padded(n_labels, LANES) // LANES - 1  # vectors before the last one
    n_rest = np.int32(n_labels - n_full * LANES)
    filled = simd.less(simd.count_up(np.int32(0), LANES), simd.fill(n_rest, LANES))
    to = 0
    for point in range(count):
        here = place + point * n_labels
        for _ in range(n_full):
            simd.store(buffer, to, zero - simd.load(unary, here, LANES))
            here, to = here + LANES, to + LANES
        rest = simd.select(filled, zero - simd.load(unary, here, LANES), lowest)
        simd.store(buffer, to, rest)
        to += LANES


@kernel
def _ask(count: int, messages: Singles, compatibility: Singles, buffer: Singles) -> None:
    """Subtract the expected costs ``messages @ compatibility`` from the scores."""
    n_labels, width = compatibility.shape
    zero = simd.fill(np.float32(0), LANES)
    for point in range(count):
        for to in range(0, width, LANES):
            total = simd.load(buffer, point * width + to, LANES)
            for label in range(n_labels):
                message = simd.fill(messages[np.uint64(point * width + label)], LANES)
                asked = zero - simd.load(compatibility, label * width + to, LANES)
                total = simd.fma(message, asked, total)
            simd.store(buffer, point * width + to, total)


@kernel
def _softmax(count: int, width: int, buffer: Singles) -> None:
    """Replace the scores of each point by their softmax, in three loops over the points."""
    # Subtract the largest score of each point.
    for start in range(0, count * width, width):
        most = simd.load(buffer, start, LANES)
        for to in range(start + LANES, start + width, LANES):
            most = simd.maximum(most, simd.load(buffer, to, LANES))
        best = simd.fill(simd.greatest(most), LANES)
        for to in range(start, start + width, LANES):
            simd.store(buffer, to, simd.load(buffer, to, LANES) - best)
    # Take exponentials of the whole buffer.
    nothing, zero = simd.fill(MIN_SCORE, _EXP_LANES), simd.fill(np.float32(0), _EXP_LANES)
    for to in range(0, count * width, _EXP_LANES):  # may pass the last row, not the buffer
        scores = simd.load(buffer, to, _EXP_LANES)
        raised = simd.select(simd.less(scores, nothing), zero, simd.exp(scores))
        simd.store(buffer, to, raised)
    # Divide by the sum of each point.
    for start in range(0, count * width, width):
        total = simd.load(buffer, start, LANES)
        for to in range(start + LANES, start + width, LANES):
            total = total + simd.load(buffer, to, LANES)
        share = simd.fill(np.float32(1) / simd.total(total), LANES)
        for to in range(start, start + width, LANES):
            simd.store(buffer, to, simd.load(buffer, to, LANES) * share)


@kernel
def _largest_change(
    first: int, count: int, width: int, buffer: Singles, marginals: Singles
) -> np.float32:
    """Return the largest absolute difference of the buffer from the earlier marginals."""
    n_labels = marginals.shape[1]
    zero = simd.fill(np.float32(0), LANES)
    n_full = n_labels // LANES
    largest, rest = zero, np.float32(0)
    for point in range(count):
        here, there = point * width, (first + point) * n_labels
        for _ in range(n_full):
            change = simd.load(buffer, here, LANES) - simd.load(marginals, there, LANES)
            largest = simd.maximum(largest, simd.maximum(change, zero - change))
            here, there = here + LANES, there + LANES
        for label in range(n_full * LANES, n_labels):
            change_of_one = buffer[here] - marginals[first + point, label]
            rest = max(rest, abs(change_of_one))
            here += 1
    return max(rest, simd.greatest(largest))


@kernel
def _keep(first: int, count: int, width: int, buffer: Singles, marginals: Singles) -> None:
    """Write the rows of the buffer, without the padding, to ``marginals``."""
    n_labels = marginals.shape[1]
    n_full = n_labels // LANES
    for point in range(count):
        here, there = point * width, (first + point) * n_labels
        for _ in range(n_full):
            simd.store(marginals, there, simd.load(buffer, here, LANES))
            here, there = here + LANES, there + LANES
        for label in range(n_full * LANES, n_labels):
            marginals[first + point, label] = buffer[here]
            here += 1
