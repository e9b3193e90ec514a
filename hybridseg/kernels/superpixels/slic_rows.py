"""The updates of SLIC for one row of pixels and their new slots, with vectors and without.

A *slot* (uint8) says which of the centers around a pixel's own cell the pixel belongs to: 0..8 in
an image and 0..26 in a volume, in raster order, or OUTSIDE. The sums of a center are one flat int64
array of 4 (G + 1) numbers for each center: its colors, four channels for each of G quads, and the
sums of (z, y, x, 1) over its pixels.

In the first pass the sums are built from scratch (`add_row_vectors`), in later passes only pixels
that change slot move their color and position from one center to another
(`move_changed_vectors`). All sums are integers, so both ways give the same result in any order.

Names: ``start`` and ``line`` are the places of the row in ``slots`` and ``found``; ``own`` is the
first cell of the band, ``cells`` (W,) the cell of each column, ``steps`` the difference of each
slot's center from the pixel's own cell. Indices are uint64 where that spares numba the test for
negative ones.

`slic` calls these kernels from its threads; each thread has its own sums.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import inner_kernel
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors import simd_pairs as pairs
from hybridseg.kernels.vectors.masks import bits, lowest

#: Channels that lie side by side in memory.
QUAD = 4
#: Pixels whose slots are compared at once, one bit each.
WORD = 64
#: The slot of a pixel that belongs to no center.
OUTSIDE = np.uint8(255)


@inner_kernel
def _within(n):
    """Return a word of 64 bits in which the first n are set."""
    every = ~np.uint64(0)
    return every if n >= WORD else ~(every << np.uint64(n))


@inner_kernel
def take_over(slots, start, found, line, width, vectors):
    """Replace a row's slots by the new ones unless they are OUTSIDE; return the number of changes.

    ``slots`` and ``found`` are flat; the row begins at ``start`` in one and at ``line`` in the
    other.
    """
    if vectors is None:
        n_changed = 0
        for x in range(width):
            old, new = slots[start + x], found[line + x]
            n_changed += (old != new) & (old != OUTSIDE)
            slots[start + x] = new if old != OUTSIDE else OUTSIDE
        return n_changed
    total, outside = np.uint64(0), simd.fill(OUTSIDE, WORD)
    for x in range(0, width, WORD):
        old, new = simd.load(slots, start + x, WORD), simd.load(found, line + x, WORD)
        nowhere = simd.equal(old, outside)
        same = bits(simd.equal(old, new)) | bits(nowhere)
        total += pairs.population(~same & _within(width - x))
        simd.store(slots, start + x, simd.select(nowhere, old, new))
    return np.int64(total)


@inner_kernel
def add_place(z, y, begin, end, c, sums):
    """Add the positions (z, y, x) and the number of pixels begin..end-1 of a row to ``sums``."""
    n = end - begin
    sums[c] += z * n
    sums[c + 1] += y * n
    sums[c + 2] += (begin + end - 1) * n // 2
    sums[c + 3] += n


@inner_kernel
def _run(colors, first, plane, n_quads, width, running):
    """Write running sums of a row's colors: the sum over all pixels before each, for each quad.

    The sum over any segment of the row is then one difference.
    """
    quad = np.uint64(QUAD)
    for g in range(np.uint64(n_quads)):
        at = np.uint64(first) + g * np.uint64(plane)
        to = g * np.uint64(width + 1) * quad
        total = simd.fill(np.int32(0), QUAD)
        for x in range(np.uint64(width)):
            total = total + simd.convert(simd.load(colors, at + quad * x, QUAD), np.int32)
            simd.store(running, to + quad * (x + np.uint64(1)), total)


@inner_kernel
def add_row_vectors(
    colors, first, plane, n_quads, z, y, slots, start, cells, borders, own, steps, running, sums
):
    """Add the pixels of a row to the sums of their centers.

    ``colors``, ``slots``, ``running`` and ``sums`` are flat. The row's colors begin at ``first``,
    those of the next quad ``plane`` further on. ``borders`` has a bit for the first pixel of each
    cell and for the end of the row.
    """
    width, pitch = cells.size, QUAD * (n_quads + 1)
    line, quad = np.uint64(QUAD * (width + 1)), np.uint64(QUAD)
    _run(colors, first, plane, n_quads, width, running)
    begin = np.int64(0)
    # segments of one slot within one cell: each is one difference of running sums
    # the column after the row ends the last segment; the first word reads one slot before the row
    for word in range(0, width + 1, WORD):
        here = simd.load(slots, start + word, WORD)
        before = simd.load(slots, start + word - 1, WORD)
        left = ~bits(simd.equal(here, before)) | borders[word // WORD]
        left &= _within(width + 1 - word)
        while left:
            end = np.int64(word) + np.int64(lowest(left))
            left &= left - np.uint64(1)
            slot = slots[start + begin]
            if end > begin and slot != OUTSIDE:
                to = np.uint64(pitch * (own + cells[begin] + steps[slot]))
                a, b = np.uint64(QUAD * begin), np.uint64(QUAD * end)
                for _ in range(n_quads):
                    more = simd.load(running, b, QUAD) - simd.load(running, a, QUAD)
                    total = simd.load(sums, to, QUAD) + simd.convert(more, np.int64)
                    simd.store(sums, to, total)
                    a, b, to = a + line, b + line, to + quad
                add_place(z, y, begin, end, np.int64(to), sums)
            begin = end


@inner_kernel
def add_row_numbers(quads, z, y, slots, start, cells, own, steps, sums):
    """Do what `add_row_vectors` does, pixel by pixel."""
    n_channels = quads.shape[0] * QUAD
    for x in range(cells.size):
        if slots[start + x] != OUTSIDE:
            at = (n_channels + QUAD) * (own + cells[x] + steps[slots[start + x]])
            for c in range(n_channels):
                sums[at + c] += quads[c // QUAD, z, y, x, c % QUAD]
            add_place(z, y, x, x + 1, at + n_channels, sums)


@inner_kernel
def _move(colors, at, plane, n_quads, place, source, target, sums):
    """Move a pixel's color and position from the sums of center ``source`` to those of ``target``.

    ``place`` is the vector (z, y, x, 1); ``at``, ``source`` and ``target`` are flat uint64 indices.
    """
    quad = np.uint64(QUAD)
    for _ in range(n_quads):
        color = simd.convert(simd.load(colors, at, QUAD), np.int64)
        simd.store(sums, source, simd.load(sums, source, QUAD) - color)
        simd.store(sums, target, simd.load(sums, target, QUAD) + color)
        at, source, target = at + plane, source + quad, target + quad
    simd.store(sums, source, simd.load(sums, source, QUAD) - place)
    simd.store(sums, target, simd.load(sums, target, QUAD) + place)


@inner_kernel
def move_changed_vectors(
    colors, first, plane, n_quads, z, y, slots, start, found, line, cells, own, steps, columns, sums
):
    """Replace a row's slots by the new ones, and move the pixels that change between the sums.

    Arguments are as in `add_row_vectors`. ``columns`` (flat) holds (0, 0, x, 1) for each pixel, and
    four more numbers at the end, which become (z, y, 0, 0). Returns the number of changes.
    """
    width, n_changed = cells.size, 0
    quad, pitch = np.uint64(QUAD), np.uint64(QUAD * (n_quads + 1))
    first, plane, start, line = (
        np.uint64(first),
        np.uint64(plane),
        np.uint64(start),
        np.uint64(line),
    )
    end = np.uint64(QUAD * width)
    columns[end], columns[end + np.uint64(1)] = z, y
    corner = simd.load(columns, end, QUAD)
    # 64 slots are compared at once; most words have no change
    for begin in range(np.uint64(0), np.uint64(width), np.uint64(WORD)):
        old = simd.load(slots, start + begin, WORD)
        new = simd.load(found, line + begin, WORD)
        left = ~bits(simd.equal(old, new)) & _within(np.int64(width) - np.int64(begin))
        if left == np.uint64(0):
            continue
        nowhere = simd.equal(old, simd.fill(OUTSIDE, WORD))
        left &= ~bits(nowhere)
        while left:
            x = begin + lowest(left)
            left &= left - np.uint64(1)
            n_changed += 1
            k = own + cells[x]
            source = pitch * np.uint64(k + steps[slots[start + x]])
            target = pitch * np.uint64(k + steps[found[line + x]])
            place = simd.load(columns, quad * x, QUAD) + corner
            _move(colors, first + quad * x, plane, n_quads, place, source, target, sums)
        simd.store(slots, start + begin, simd.select(nowhere, old, new))
    return n_changed


@inner_kernel
def move_changed_numbers(quads, z, y, slots, start, found, line, cells, own, steps, sums):
    """Do what `move_changed_vectors` does, pixel by pixel."""
    n_channels, n_changed = quads.shape[0] * QUAD, 0
    for x in range(cells.size):
        old, new = slots[start + x], found[line + x]
        if (old == new) | (old == OUTSIDE):
            continue
        k = own + cells[x]
        source = (n_channels + QUAD) * (k + steps[old])
        target = (n_channels + QUAD) * (k + steps[new])
        for c in range(n_channels):
            color = quads[c // QUAD, z, y, x, c % QUAD]
            sums[source + c] -= color
            sums[target + c] += color
        for value in (z, y, x, 1):
            sums[source + n_channels] -= value
            sums[target + n_channels] += value
            source, target = source + 1, target + 1
        slots[start + x] = new
        n_changed += 1
    return n_changed
