"""What SLIC does with one row of pixels and their new slots, in vectors and without.

A *slot* says which of the centers about a pixel's own cell the pixel belongs to. The sums of a
center are those of its colors, four channels for each quad, and of its pixels' (z, y, x, 1).
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import inner_kernel
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors import simd_pairs as pairs
from hybridseg.kernels.vectors.masks import bits, lowest

#: Channels that lie beside each other.
QUAD = 4
#: Pixels whose slots are compared at once.
WORD = 64
#: The slot of a pixel that belongs nowhere.
OUTSIDE = np.uint8(255)


@inner_kernel
def _within(n):
    """The first n of 64 bits."""
    every = ~np.uint64(0)
    return every if n >= WORD else ~(every << np.uint64(n))


@inner_kernel
def take_over(slots, start, found, line, width, vectors):
    """Take over a row's new slots, but where the old one is OUTSIDE; the number that change.

    ``slots`` and ``found`` are flat; the row begins at ``start`` in one, at ``line`` in the other.
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
    """Add the places (z, y, x) and the number of the pixels begin..end-1 of a row."""
    n = end - begin
    sums[c] += z * n
    sums[c + 1] += y * n
    sums[c + 2] += (begin + end - 1) * n // 2
    sums[c + 3] += n


@inner_kernel
def _run(colors, first, plane, n_quads, width, running):
    """Running sums of a row's colors: of the pixels before each, four for each quad."""
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

    ``colors``, ``slots``, ``running`` and ``sums`` are flat; the row's colors begin at ``first``,
    the next quad's ``plane`` further on. ``borders`` has a bit for each first pixel of a cell.
    """
    width, pitch = cells.size, QUAD * (n_quads + 1)
    line, quad = np.uint64(QUAD * (width + 1)), np.uint64(QUAD)
    _run(colors, first, plane, n_quads, width, running)
    begin = np.int64(0)
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
    """The plain twin of ``add_row_vectors``."""
    n_channels = quads.shape[0] * QUAD
    for x in range(cells.size):
        if slots[start + x] != OUTSIDE:
            at = (n_channels + QUAD) * (own + cells[x] + steps[slots[start + x]])
            for c in range(n_channels):
                sums[at + c] += quads[c // QUAD, z, y, x, c % QUAD]
            add_place(z, y, x, x + 1, at + n_channels, sums)


@inner_kernel
def _move(colors, at, plane, n_quads, place, source, target, sums):
    """Let a pixel take its colors and its place from one center to another."""
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
    """Take over a row's new slots; the pixels that change take what they hold to the new center.

    As in ``add_row_vectors``; ``columns`` has (0, 0, x, 1) for each pixel, and room for four more.
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
    """The plain twin of ``move_changed_vectors``."""
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
