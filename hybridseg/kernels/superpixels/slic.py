"""SLIC superpixels [1]_: the assignment of pixels to centers, and the sums for the new centers.

An image is a volume of depth 1. The grid of cells has one center for each cell. A pixel is compared
with the centers of its own cell and of the cells around it (9, or 27 in a volume). A *band* is the
cells with the same z and y; numba's threads share the bands. Within a band, four rows of pixels
are assigned at once, so that the numbers of a candidate are read once for all of them.

Colors are int16 *quads* (four channels side by side), distances int32. The lowest 5 bits of a
distance hold the candidate's *slot*, 0..8 or 0..26 in raster order around the pixel's own cell. So
two multiply-adds of int16 pairs (for four channels) and one minimum evaluate a candidate for eight
pixels, and the least distance contains the slot of the nearest center.

The sums of the centers are exact, so after the first pass only pixels that change update them
(see `slic_rows`), and no result depends on the number of threads or on the order of a sum.
`hybridseg.features.slic` calls `assign_pixels`.

References
----------
.. [1] R. Achanta, A. Shaji, K. Smith, A. Lucchi, P. Fua, S. Suesstrunk, "SLIC superpixels compared
   to state-of-the-art superpixel methods", IEEE TPAMI 34(11), 2012, equation (3), algorithm 1.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, prange

from hybridseg.kernels._compile import inner_kernel, kernel, parallel_kernel
from hybridseg.kernels.superpixels.slic_rows import (
    OUTSIDE,
    QUAD,
    WORD,
    add_row_numbers,
    add_row_vectors,
    move_changed_numbers,
    move_changed_vectors,
    take_over,
)
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors import simd_pairs as pairs
from hybridseg.kernels.vectors.padding import padded, room_for
from hybridseg.kernels.vectors.way import way

#: Pixels in a vector. A cell's vectors begin at its first pixel, anywhere in a row, and its last
#: one is partly wasted, so longer ones waste more.
LANES = 8
#: Rows that are assigned at once; `_nearest_vectors` is written for this number.
ROWS = 4
#: Distance of a dead candidate before its position counts; distances of others are smaller.
_FAR = np.int32(1 << 30)

#: Distances are multiplied by this, which leaves 5 bits for the slot; the mask of these bits.
UNIT = np.int32(32)
_SLOT_MASK = np.int32(31)


@inner_kernel
def _put_across(places, weights, left, n, across, vectors):
    """Write half the squared distance along the row from each candidate to n pixels, plus its slot.

    The rows of ``across``, one for each candidate, have room for whole vectors.
    """
    half, stride = np.float32(0.5), across.size // weights.size
    if vectors is not None:
        steps = simd.count_up(np.int32(0), LANES)
    for e in range(weights.size):
        to, slot = e * stride, np.int32(e)
        if vectors is None:
            for i in range(n):
                distance = (np.float32(left + i) - places[e]) * weights[e]
                across[to + i] = UNIT * np.int32(distance * distance * half + half) + slot
            continue
        place, weight = simd.fill(places[e], LANES), simd.fill(weights[e], LANES)
        for i in range(0, n, LANES):
            x = simd.convert(steps + simd.fill(np.int32(left + i), LANES), np.float32)
            distance, halves = (x - place) * weight, simd.fill(half, LANES)
            whole = simd.convert(distance * distance * halves + halves, np.int32)
            simd.store(across, to + i, simd.fill(UNIT, LANES) * whole + simd.fill(slot, LANES))


@inner_kernel
def _round_centers(centers, rounded, squares):
    """Write the colors of all centers as candidates use them, and half their squared lengths.

    ``rounded`` is int16: -UNIT times the rounded color. ``squares`` is int32, times UNIT.
    """
    for k in range(centers.shape[0]):
        square = np.int32(0)
        for c in range(rounded.shape[1]):
            value = np.int32(np.rint(centers[k, c]))
            square += value * value
            rounded[k, c] = np.int16(-UNIT * value)
        squares[k] = UNIT * ((square + np.int32(1)) >> np.int32(1))


@inner_kernel
def _put_candidates(
    cz, cy, cx, bounds, grid, centers, alive, rounded, squares, weights, coefs, across, fixed,
    places, vectors,
):  # fmt: skip
    """Write the numbers from which the distances to the candidates of a cell are made.

    For candidate e, ``coefs[e]`` is -UNIT times its color in int16 (``rounded`` and ``coefs`` hold
    four in one int64), ``across[e]`` half the squared distance along the row for each pixel of the
    cell plus the slot, and ``fixed[e]`` half the squared length of its color; both times UNIT.
    ``places[:, e]`` is its (z, y, x) and the weight of a pixel's distance along the row. A dead
    candidate is infinitely far.
    """
    depth = 0 if grid[0] == 1 else 1
    last = centers.shape[1] - 1
    left = bounds[2][cx]
    e = 0
    for z in range(cz - depth, cz + depth + 1):
        for y in range(cy - 1, cy + 2):
            for x in range(cx - 1, cx + 2):
                inside = 0 <= z < grid[0] and 0 <= y < grid[1] and 0 <= x < grid[2]
                k = (z * grid[1] + y) * grid[2] + x if inside else 0
                known = inside and alive[k]
                for g in range(coefs.shape[1]):
                    coefs[e, g] = rounded[k, g] if known else 0
                fixed[e] = squares[k] if known else _FAR
                places[0, e] = centers[k, last - 2] if known else np.float32(bounds[0][cz])
                places[1, e] = centers[k, last - 1] if known else np.float32(bounds[1][cy])
                places[2, e] = centers[k, last]
                places[3, e] = weights[2] if known else np.float32(0)
                e += 1
    n = padded(bounds[2][cx + 1] - left, LANES)
    _put_across(places[2], places[3], left, n, across, vectors)


@inner_kernel
def _put_bases(z, top, bottom, weights, fixed, places, bases, vectors):
    """Write each candidate's fixed part plus half its squared distance across each row of a cell.

    Rows are in groups of four. Within a group, each candidate has its four numbers side by side.
    The last row is repeated to fill the last group.
    """
    z, half, last = np.float32(z), np.float32(0.5), np.int32(bottom - 1)
    to = np.uint64(0)
    for y in range(top, bottom, ROWS):
        if vectors is not None:
            rows = simd.minimum(simd.count_up(np.int32(y), ROWS), simd.fill(last, ROWS))
            rows = simd.convert(rows, np.float32)
        for e in range(np.uint64(fixed.size)):
            dz = (z - places[0, e]) * weights[0]
            dz = dz * dz
            if vectors is None:
                for i in range(ROWS):
                    dy = (np.float32(min(np.int32(y + i), last)) - places[1, e]) * weights[1]
                    whole = np.int32((dz + dy * dy) * half + half)
                    bases[to + np.uint64(i)] = fixed[e] + UNIT * whole
            else:
                dy = (rows - simd.fill(places[1, e], ROWS)) * simd.fill(weights[1], ROWS)
                halves = simd.fill(half, ROWS)
                whole = simd.convert((simd.fill(dz, ROWS) + dy * dy) * halves + halves, np.int32)
                base = simd.fill(fixed[e], ROWS) + simd.fill(UNIT, ROWS) * whole
                simd.store(bases, to, base)
            to += np.uint64(ROWS)


@inner_kernel
def _further(words, at, plane, weights, w, n_words, distance):
    """Add the products of the channels beyond the first eight to distances."""
    at += plane
    for i in range(np.uint64(4), n_words, np.uint64(2)):
        at += plane
        low, high = pairs.load_every_second(words, at, LANES)
        distance = pairs.dot_pairs(low, simd.fill(weights[w + i], LANES), distance)
        weight = simd.fill(weights[w + i + np.uint64(1)], LANES)
        distance = pairs.dot_pairs(high, weight, distance)
    return distance


@inner_kernel
def _nearest_vectors(
    words, first, line, n_rows, plane, left, right, n_near, coefs, n_words, across, stride, bases,
    found, to, pitch, more,
):  # fmt: skip
    """Write the slot of the nearest candidate of each pixel of a cell, four rows at once.

    ``words`` are the quads as pairs in int32. The first row begins at ``first``, each next row is
    ``line`` and the next quad ``plane`` further on; ``coefs`` are pairs too. ``to`` is the first
    row in ``found``, whose rows have room for a vector that begins at the last pixel. Lanes beyond
    the cell get wrong slots, which the next cell overwrites or nobody reads. ``more`` is None for
    one quad, which is compiled on its own, False for two and True for more.
    """
    one, two, three, four = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(4)
    slots = simd.fill(_SLOT_MASK, LANES)
    most = simd.fill(np.int32(0x7FFFFFFF), LANES)
    for y in range(np.uint64(0), n_rows, four):
        last = n_rows - one - y  # rows beyond the cell repeat its last row
        r1, r2, r3 = min(one, last), min(two, last), min(three, last)
        start, begin = y * n_near, first + y * line
        put = to + y * pitch
        for at in range(left, right, np.uint64(LANES)):
            at0 = begin + two * at
            at1, at2, at3 = at0 + r1 * line, at0 + r2 * line, at0 + r3 * line
            low0, high0 = pairs.load_every_second(words, at0, LANES)
            low1, high1 = pairs.load_every_second(words, at1, LANES)
            low2, high2 = pairs.load_every_second(words, at2, LANES)
            low3, high3 = pairs.load_every_second(words, at3, LANES)
            if more is not None:  # the second four channels
                low4, high4 = pairs.load_every_second(words, at0 + plane, LANES)
                low5, high5 = pairs.load_every_second(words, at1 + plane, LANES)
                low6, high6 = pairs.load_every_second(words, at2 + plane, LANES)
                low7, high7 = pairs.load_every_second(words, at3 + plane, LANES)
            # for each candidate: its column, its row and the product of colors; keep the minimum
            best0, best1, best2, best3 = most, most, most, most
            w, place = np.uint64(0), at - left
            for e in range(start, start + four * n_near, four):
                column = simd.load(across, place, LANES)
                weight = simd.fill(coefs[w], LANES)
                d0 = pairs.dot_pairs(low0, weight, column + simd.fill(bases[e], LANES))
                d1 = pairs.dot_pairs(low1, weight, column + simd.fill(bases[e + one], LANES))
                d2 = pairs.dot_pairs(low2, weight, column + simd.fill(bases[e + two], LANES))
                d3 = pairs.dot_pairs(low3, weight, column + simd.fill(bases[e + three], LANES))
                weight = simd.fill(coefs[w + one], LANES)
                d0 = pairs.dot_pairs(high0, weight, d0)
                d1 = pairs.dot_pairs(high1, weight, d1)
                d2 = pairs.dot_pairs(high2, weight, d2)
                d3 = pairs.dot_pairs(high3, weight, d3)
                if more is not None:
                    weight = simd.fill(coefs[w + two], LANES)
                    d0, d1 = pairs.dot_pairs(low4, weight, d0), pairs.dot_pairs(low5, weight, d1)
                    d2, d3 = pairs.dot_pairs(low6, weight, d2), pairs.dot_pairs(low7, weight, d3)
                    weight = simd.fill(coefs[w + three], LANES)
                    d0, d1 = pairs.dot_pairs(high4, weight, d0), pairs.dot_pairs(high5, weight, d1)
                    d2, d3 = pairs.dot_pairs(high6, weight, d2), pairs.dot_pairs(high7, weight, d3)
                if more:
                    d0 = _further(words, at0, plane, coefs, w, n_words, d0)
                    d1 = _further(words, at1, plane, coefs, w, n_words, d1)
                    d2 = _further(words, at2, plane, coefs, w, n_words, d2)
                    d3 = _further(words, at3, plane, coefs, w, n_words, d3)
                best0, best1 = simd.minimum(best0, d0), simd.minimum(best1, d1)
                best2, best3 = simd.minimum(best2, d2), simd.minimum(best3, d3)
                w += n_words
                place += stride
            simd.store(found, put + at, simd.convert(best0 & slots, np.uint8))
            simd.store(found, put + r1 * pitch + at, simd.convert(best1 & slots, np.uint8))
            simd.store(found, put + r2 * pitch + at, simd.convert(best2 & slots, np.uint8))
            simd.store(found, put + r3 * pitch + at, simd.convert(best3 & slots, np.uint8))


@inner_kernel
def _nearest_numbers(quads, z, top, bottom, left, right, n_near, coefs, across, bases, found, to):
    """Do what `_nearest_vectors` does, pixel by pixel."""
    n_channels = quads.shape[0] * QUAD
    stride = across.size // n_near
    for y in range(top, bottom):
        i = y - top
        start = i // ROWS * ROWS * n_near + i % ROWS
        for x in range(left, right):
            best = np.int32(0x7FFFFFFF)
            for e in range(n_near):
                distance = across[e * stride + x - left] + bases[start + e * ROWS]
                for c in range(n_channels):
                    color = quads[c // QUAD, z, y, x, c % QUAD]
                    distance += np.int32(coefs[e, c]) * np.int32(color)
                best = min(best, distance)
            found[to + i, x] = best & _SLOT_MASK


@inner_kernel
def _renew(changes, sums, centers):
    """Add the threads' changes to the sums, and move the centers that have pixels to their means.

    ``changes`` (n_threads, R, 4 G + 4) is set to zero again.
    """
    n_chunks, n_centers, n_sums = changes.shape
    for k in range(n_centers):
        for chunk in range(n_chunks):
            for c in range(n_sums):
                sums[k, c] += changes[chunk, k, c]
                changes[chunk, k, c] = 0
        count = sums[k, n_sums - 1]
        if count > 0:
            for c in range(n_sums - 1):
                centers[k, c] = np.float32(sums[k, c] / count)


@kernel
def _slot_steps(grid):
    """Return the difference of each slot's center from the number of a pixel's own cell."""
    n_near = 9 if grid[0] == 1 else 27
    steps = np.empty(n_near, np.int64)
    for slot in range(n_near):
        z = 0 if grid[0] == 1 else slot // 9 - 1
        steps[slot] = (z * grid[1] + slot // 3 % 3 - 1) * grid[2] + slot % 3 - 1
    return steps


@inner_kernel
def _find_nearest(
    quads, words, cz, cy, bounds, grid, centers, alive, rounded, squares, weights, coefs,
    coef_words, coef_pairs, across, fixed, places, bases, found, flat, vectors, more,
):  # fmt: skip
    """Write the slots of the pixels of a band to ``found`` (rows, pitch), one row after another.

    ``flat`` is a flat view of ``found``.
    """
    n_quads, _, height, room, _ = quads.shape
    n_near, pitch = fixed.size, found.shape[1]
    line, plane = 2 * room, quads.size // n_quads // 2
    top, bottom = bounds[1][cy], bounds[1][cy + 1]
    for cx in range(grid[2]):
        _put_candidates(
            cz, cy, cx, bounds, grid, centers, alive, rounded, squares, weights, coef_words,
            across, fixed, places, vectors,
        )  # fmt: skip
        left, right = bounds[2][cx], bounds[2][cx + 1]
        for z in range(bounds[0][cz], bounds[0][cz + 1]):
            to = (z - bounds[0][cz]) * (bottom - top)
            _put_bases(z, top, bottom, weights, fixed, places, bases, vectors)
            if vectors is not None:
                _nearest_vectors(
                    words, np.uint64((z * height + top) * line), np.uint64(line),
                    np.uint64(bottom - top), np.uint64(plane), np.uint64(left), np.uint64(right),
                    np.uint64(n_near), coef_pairs, np.uint64(2 * n_quads), across,
                    np.uint64(across.size // n_near), bases, flat, np.uint64(to * pitch),
                    np.uint64(pitch), more,
                )  # fmt: skip
            else:
                _nearest_numbers(
                    quads, z, top, bottom, left, right, n_near, coefs, across, bases, found, to
                )


@inner_kernel
def _assign_share(
    quads, colors, words, bounds, centers, alive, rounded, squares, weights, slots, pitch, first,
    share, n_shares, cells, borders, steps, coefs, coef_words, coef_pairs, across, fixed, places,
    bases, found, columns, running, changes, vectors, more,
):  # fmt: skip
    """Assign the pixels of one thread's range of bands; return how many of them changed."""
    grid = (bounds[0].size - 1, bounds[1].size - 1, bounds[2].size - 1)
    n_bands, total = grid[0] * grid[1], 0
    n_quads, depth, height, room, _ = quads.shape
    plane, sums, new = depth * height * room * QUAD, changes.ravel(), found.ravel()
    flat_pairs = coef_pairs.ravel()
    for band in range(share * n_bands // n_shares, (share + 1) * n_bands // n_shares):
        cz, cy, own = band // grid[1], band % grid[1], band * grid[2]
        to = np.int64(0)  # a bare 0 has a literal type, which would compile the callees again
        _find_nearest(
            quads, words, cz, cy, bounds, grid, centers, alive, rounded, squares, weights, coefs,
            coef_words, flat_pairs, across, fixed, places, bases, found, new, vectors, more,
        )  # fmt: skip
        for z in range(bounds[0][cz], bounds[0][cz + 1]):
            for y in range(bounds[1][cy], bounds[1][cy + 1]):
                row = z * height + y
                start, at = (row + 1) * pitch, row * room * QUAD
                if first:
                    total += take_over(slots, start, new, to, cells.size, vectors)
                    if vectors is not None:
                        add_row_vectors(
                            colors, at, plane, n_quads, z, y, slots, start, cells, borders, own,
                            steps, running, sums,
                        )  # fmt: skip
                    else:
                        add_row_numbers(quads, z, y, slots, start, cells, own, steps, sums)
                elif vectors is not None:
                    total += move_changed_vectors(
                        colors, at, plane, n_quads, z, y, slots, start, new, to, cells, own, steps,
                        columns, sums,
                    )  # fmt: skip
                else:
                    total += move_changed_numbers(
                        quads, z, y, slots, start, new, to, cells, own, steps, sums
                    )
                to += pitch
    return total


@parallel_kernel
def _assign(
    quads, colors, words, bounds, centers, alive, rounded, rounded_words, squares, weights, slots,
    pitch, sums, n_iter, cells, borders, steps, coefs, coef_words, coef_pairs, across, fixed,
    places, bases, found, columns, running, changes, vectors, more,
):  # fmt: skip
    """Make up to ``n_iter`` passes; return the number of changes in the last one."""
    n_shares = changes.shape[0]
    n_changed, total = np.zeros(n_shares, np.int64), 0
    for i in range(n_iter):
        _round_centers(centers, rounded, squares)
        for s in prange(n_shares):
            share = np.int64(s)  # prange counts unsigned, which would compile the callees again
            n_changed[share] = _assign_share(
                quads, colors, words, bounds, centers, alive, rounded_words, squares, weights,
                slots, pitch, i == 0, share, n_shares, cells, borders, steps, coefs[share],
                coef_words[share], coef_pairs[share], across[share], fixed[share], places[share],
                bases[share], found[share], columns[share], running[share], changes[share],
                vectors, more,
            )  # fmt: skip
        _renew(changes, sums, centers)
        total = n_changed.sum()
        if total == 0:
            break
    return total


@kernel
def _write_labels(slots, pitch, bounds, cells, labels):
    """Write the number of each pixel's center, from its slot; labels OUTSIDE stay as they are."""
    grid = (bounds[0].size - 1, bounds[1].size - 1, bounds[2].size - 1)
    flat, n_x = grid[0] == 1, np.int32(grid[2])
    for cz in range(grid[0]):
        for cy in range(grid[1]):
            for z in range(bounds[0][cz], bounds[0][cz + 1]):
                for y in range(bounds[1][cy], bounds[1][cy + 1]):
                    start, target = (z * labels.shape[1] + y + 1) * pitch, labels[z, y]
                    # the center of slot 0: one cell back along each axis
                    own = np.int32((cz * grid[1] + cy - 1) * grid[2] - 1)
                    if not flat:
                        own -= np.int32(grid[1] * grid[2])
                    plane = np.int32((grid[1] - 3) * grid[2])
                    for x in range(cells.size):
                        slot = np.int32(slots[start + x])
                        line = (slot * np.int32(43)) >> np.int32(7)  # slot // 3
                        part = (slot * np.int32(57)) >> np.int32(9)  # slot // 9
                        k = own + cells[x] + line * (n_x - np.int32(3)) + slot + part * plane
                        target[x] = k if slot != OUTSIDE else target[x]


def assign_pixels(quads, bounds, centers, alive, weights, labels, sums, n_iter=1):
    """Assign each pixel to the nearest center of its own and the neighboring cells, in passes.

    The squared distance is ``sum_c (color_c - center_c)^2 + sum_a (weight_a (p_a - center_a))^2``,
    equation (3) of [1]_ of the module, with compactness, grid step and spacing in the weights. The
    squares are multiplied out, and terms that all centers share are dropped. Half of the rest, in
    integers, is ``-sum_c color_c center_c`` plus one number for the row and one for the column; the
    color of a center is rounded for that. Pixels begin in their own cells. After each pass, a
    center with pixels moves to their mean. A pass in which no pixel changes is the last. Results
    are the same, bit for bit, for any number of threads.

    Parameters
    ----------
    quads : int16 array (G, D, H, P, 4), C-contiguous, P >= room_for(W, LANES, LANES)
        Four channels each; a number times ``UNIT`` must fit 16 bits.
    bounds : three int64 arrays (grid_a + 1,)
        First pixel of each cell along each axis, and the length of the axis.
    centers : float32 array (R, 4 G + 3), R = number of cells in raster order, written
        Colors, then the position (z, y, x) in pixels.
    alive : bool array (R,)
        Where False, no pixel may go there. The center of a labeled pixel's own cell is alive.
    weights : float32 array (3,)
        Color distance that counts as much as one pixel along each axis. Half the greatest squared
        distance, times ``UNIT``, must stay below 2**30.
    labels : int32 array (D, H, W), C-contiguous, written
        A negative value stays as it is.
    sums : int64 array (R, 4 G + 4), written
        As of `center_sums` for the labels after the last pass.
    n_iter : int
        Maximum number of passes.

    Returns
    -------
    n_changed : int
        The number of pixels that changed in the last pass.
    """
    grid = tuple(len(b) - 1 for b in bounds)
    n_shares, (depth, height, width) = get_num_threads(), labels.shape
    n_near, n_words = (9 if grid[0] == 1 else 27), len(quads)
    cells = np.repeat(np.arange(grid[2], dtype=np.int32), np.diff(bounds[2]))
    pitch = room_for(width, WORD, LANES)  # at least one more than the width
    borders = np.packbits(np.isin(np.arange(pitch), bounds[2]), bitorder="little").view(np.uint64)
    slots = np.full((depth * height + 1, pitch), n_near // 2, np.uint8)
    if labels.min() < 0:
        slots[1:, :width][labels.reshape(-1, width) < 0] = OUTSIDE
    rounded = np.zeros((len(centers), n_words), np.int64)
    squares = np.zeros(len(centers), np.int32)
    n = n_shares, n_near
    coefs = np.zeros((*n, n_words), np.int64)
    widest, highest, deepest = (int(np.diff(b).max()) for b in reversed(bounds))
    across = simd.aligned((n_shares, n_near * padded(widest, LANES)), np.int32)
    fixed = np.zeros(n, np.int32)
    places = np.zeros((n_shares, 4, n_near), np.float32)
    bases = np.zeros((n_shares, n_near * padded(highest, ROWS)), np.int32)
    found = np.zeros((n_shares, deepest * highest, pitch), np.uint8)
    columns = np.zeros((n_shares, width + 1, QUAD), np.int64)
    columns[:, :-1, 2], columns[:, :-1, 3] = np.arange(width), 1
    running = np.zeros((n_shares, n_words * (width + 1) * QUAD), np.int32)
    changes = np.zeros((n_shares, *sums.shape), np.int64)
    sums[:] = 0
    n_changed = _assign(
        quads, quads.ravel(), quads.view(np.int32).ravel(), bounds, centers, alive,
        rounded.view(np.int16), rounded, squares, weights, slots.ravel(), pitch, sums, n_iter,
        cells, borders, _slot_steps(grid), coefs.view(np.int16), coefs, coefs.view(np.int32),
        across, fixed, places, bases, found, columns.reshape(n_shares, -1), running,
        changes, way(), None if n_words == 1 else n_words > 2,
    )  # fmt: skip
    _write_labels(slots.ravel(), pitch, bounds, cells, labels)
    return int(n_changed)
