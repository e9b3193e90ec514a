"""One iteration of dense mean field: read the messages, take the softmax, spread the marginals.

The three are done together for a few points at a time, in a buffer that stays in the first cache,
so that the marginals of all points need never be written to memory but once, at the end. Each
step is a loop of its own over the points of the buffer: done one point after the other, the long
chains of a softmax would leave the processor waiting.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel, parallel_kernel
from hybridseg.kernels.dense.dense_filter import CHUNK, LANES, DenseFilter, Tables
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.padding import padded, room_for

Singles = NDArray[np.float32]
Numbers = NDArray[np.int32]

#: The exponential is taken of so many numbers at a time; a buffer is a multiple of it.
_WIDE = 16

#: Marginals below exp(-69) = 1e-30 become zero: spread, they would end in denormal numbers, which
#: processors handle many times slower.
NOTHING = np.float32(-69)
_LOWEST = np.float32(-3e38)


class Steps(NamedTuple):
    """What an iteration does besides the softmax.

    Attributes
    ----------
    read : bool
        Add the messages in the table to the scores; the first pass has none.
    spread : bool
        Spread the new marginals for the next iteration; the last pass need not.
    keep : bool
        Write the marginals out.
    compare : bool
        Say by how much they differ from those that stood there before; implies ``keep``.
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
    """Make new marginals of the messages in the table, and spread them.

    Parameters
    ----------
    unary : (n, L) float32, C-contiguous
        Costs.
    dense : DenseFilter
    tables : Tables
        Of a width that is a multiple of eight. ``table`` is read, ``parts`` added to: it should be
        zero, as new tables and smoothing leave it.
    compatibility : (L, P) float32, or (0, 0)
        Row l' holds what label l' asks of every label, P being the tables' width. Empty
        for Potts, where ``scores = messages - unary`` but for a constant.
    steps : Steps
    marginals : (n, L) float32
        Written to if ``steps.keep``: numbers from 0 to 1 that sum to one in each row; below 1e-30
        they are 0.

    Returns
    -------
    float
        The largest absolute difference of any marginal to what it was, if ``steps.compare``; else
        0.
    """
    n_points, n_labels = unary.shape
    changes = np.zeros(dense.n_parts, np.float32)
    if simd.ENABLED:
        # a vector may begin at a row's last cost: the last chunk is read from a copy with room
        # behind, and the one before it too, since the last may be shorter than a vector
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
    n_points, n_labels = unary.shape
    n_parts = len(parts)
    n_chunks = (n_points + CHUNK - 1) // CHUNK
    for part in prange(n_parts):
        messages, scores = np.empty(n_labels, np.float32), np.empty(n_labels, np.float32)
        stop = min(n_points, (part + 1) * n_chunks // n_parts * CHUNK)
        for i in range(part * n_chunks // n_parts * CHUNK, stop):
            messages[:] = 0
            if read:
                _read_numbers(vertices[i], weights[i], table, messages)
            _score_numbers(unary[i], messages, compatibility, scores)
            _softmax_numbers(scores)
            if spread:
                _spread_numbers(vertices[i], weights[i], scores, parts[part])
            for label in range(n_labels):
                if compare:
                    change = abs(scores[label] - marginals[i, label])
                    changes[part] = max(changes[part], change)
                if keep:
                    marginals[i, label] = scores[label]


@kernel
def _read_numbers(vertices: Numbers, weights: Singles, table: Singles, messages: Singles) -> None:
    for corner in range(len(vertices)):
        for label in range(len(messages)):
            messages[label] += weights[corner] * table[vertices[corner], label]


@kernel
def _spread_numbers(vertices: Numbers, weights: Singles, values: Singles, part: Singles) -> None:
    for corner in range(len(vertices)):
        for label in range(len(values)):
            part[vertices[corner], label] += weights[corner] * values[label]


@kernel
def _score_numbers(
    unary: Singles, messages: Singles, compatibility: Singles, scores: Singles
) -> None:
    for label in range(len(unary)):
        total = messages[label]
        if len(compatibility) > 0:
            total = np.float32(0)
            for other in range(len(unary)):
                total -= messages[other] * compatibility[other, label]
        scores[label] = total - unary[label]


@kernel
def _softmax_numbers(scores: Singles) -> None:
    best = scores[0]
    for label in range(1, len(scores)):
        best = max(best, scores[label])
    total = np.float32(0)
    for label in range(len(scores)):
        less = scores[label] - best
        scores[label] = np.exp(less) if less >= NOTHING else np.float32(0)
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
    """All of one run of points; apart from the parallel loop it compiles to faster code."""
    n_points, n_labels = marginals.shape
    n_parts, width = len(parts), table.shape[1]
    n_chunks = (n_points + CHUNK - 1) // CHUNK
    first_copied = max(0, n_chunks - 2)  # chunks from here on are in ``last``
    largest = np.float32(0)
    for chunk in range(part * n_chunks // n_parts, (part + 1) * n_chunks // n_parts):
        first = chunk * CHUNK
        count = min(CHUNK, n_points - first)
        if chunk >= first_copied:
            _negate(last, (first - first_copied * CHUNK) * n_labels, count, n_labels, buffer)
        else:
            _negate(unary, first * n_labels, count, n_labels, buffer)
        if read and len(compatibility) == 0:
            _read(first, count, vertices, weights, table, buffer)
        elif read:
            messages[:] = 0
            _read(first, count, vertices, weights, table, messages)
            _ask(count, messages, compatibility, buffer)
        _softmax(count, width, buffer)
        if spread:
            _spread(first, count, vertices, weights, buffer, parts, part)
        if compare:
            largest = max(largest, _largest_change(first, count, width, buffer, marginals))
        if keep:
            _keep(first, count, width, buffer, marginals)
    return largest


@kernel
def _negate(unary: Singles, place: int, count: int, n_labels: int, buffer: Singles) -> None:
    """Start the scores of ``count`` points with minus their costs, and what fills up with -3e38."""
    zero, lowest = simd.fill(np.float32(0), LANES), simd.fill(_LOWEST, LANES)
    n_full = padded(n_labels, LANES) // LANES - 1  # blocks before the last
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
def _read(
    first: int, count: int, vertices: Numbers, weights: Singles, table: Singles, buffer: Singles
) -> None:
    """Add each point's messages to its row of the buffer, three vectors at a time."""
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
def _ask(count: int, messages: Singles, compatibility: Singles, buffer: Singles) -> None:
    """Subtract from the scores what the messages ask for: ``messages @ compatibility``."""
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
    for start in range(0, count * width, width):
        most = simd.load(buffer, start, LANES)
        for to in range(start + LANES, start + width, LANES):
            most = simd.maximum(most, simd.load(buffer, to, LANES))
        best = simd.fill(simd.greatest(most), LANES)
        for to in range(start, start + width, LANES):
            simd.store(buffer, to, simd.load(buffer, to, LANES) - best)
    nothing, zero = simd.fill(NOTHING, _WIDE), simd.fill(np.float32(0), _WIDE)
    for to in range(0, count * width, _WIDE):  # at the end it may pass over one block too many
        scores = simd.load(buffer, to, _WIDE)
        raised = simd.select(simd.less(scores, nothing), zero, simd.exp(scores))
        simd.store(buffer, to, raised)
    for start in range(0, count * width, width):
        total = simd.load(buffer, start, LANES)
        for to in range(start + LANES, start + width, LANES):
            total = total + simd.load(buffer, to, LANES)
        share = simd.fill(np.float32(1) / simd.total(total), LANES)
        for to in range(start, start + width, LANES):
            simd.store(buffer, to, simd.load(buffer, to, LANES) * share)


@kernel
def _spread(
    first: int,
    count: int,
    vertices: Numbers,
    weights: Singles,
    buffer: Singles,
    parts: Singles,
    part: int,
) -> None:
    """Add each point's row of the buffer to the table rows of its corners."""
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
    simd.store(table, place, simd.fma(weight, values, simd.load(table, place, LANES)))


@kernel
def _largest_change(
    first: int, count: int, width: int, buffer: Singles, marginals: Singles
) -> np.float32:
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
    """Write the buffer's rows out, without what fills them up."""
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
