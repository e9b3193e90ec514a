"""SLIC's kernels for a row of pixels equal their twins, with and without vectors."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.superpixels import slic_rows as kernels
from hybridseg.kernels.superpixels.slic import LANES
from hybridseg.kernels.superpixels.slic_rows import OUTSIDE, QUAD, WORD
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.padding import room_for
from hybridseg.kernels.vectors.way import way
from tests.oracles.superpixels import slic_rows as oracles

WIDTHS = [1, 2, 9, 63, 64, 65, 130]
#: The neighbors of a cell in a grid of 3 x 3.
STEPS = np.array([3 * y + x for y in (-1, 0, 1) for x in (-1, 0, 1)])
Z, Y, OWN = 1, 2, 3  # a row of the middle cells

only_with_vectors = pytest.mark.skipif(not simd.ENABLED, reason="vectors are switched off")


# kernels must call these kernels


@kernel
def take_over(slots, start, found, line, width, vectors):
    return kernels.take_over(slots, start, found, line, width, vectors)


@kernel
def add_place(z, y, begin, end, c, sums):
    kernels.add_place(z, y, begin, end, c, sums)


@kernel
def add_row_vectors(
    colors, first, plane, n_quads, z, y, slots, start, cells, borders, own, steps, running, sums
):
    kernels.add_row_vectors(
        colors, first, plane, n_quads, z, y, slots, start, cells, borders, own, steps, running, sums
    )


@kernel
def add_row_numbers(quads, z, y, slots, start, cells, own, steps, sums):
    kernels.add_row_numbers(quads, z, y, slots, start, cells, own, steps, sums)


@kernel
def move_changed_vectors(
    colors, first, plane, n_quads, z, y, slots, start, found, line, cells, own, steps, columns, sums
):
    return kernels.move_changed_vectors(
        colors, first, plane, n_quads, z, y, slots, start, found, line, cells, own, steps, columns,
        sums,
    )  # fmt: skip


@kernel
def move_changed_numbers(quads, z, y, slots, start, found, line, cells, own, steps, sums):
    return kernels.move_changed_numbers(
        quads, z, y, slots, start, found, line, cells, own, steps, sums
    )


class Row(NamedTuple):
    """A row of a small volume: its old slots and its new ones in SLIC's layout."""

    quads: np.ndarray
    slots: np.ndarray  # flat, with padding for vectors; the row begins at ``start``
    start: int
    found: np.ndarray  # flat, from ``line`` on
    line: int
    cells: np.ndarray
    borders: np.ndarray

    @property
    def width(self):
        return self.cells.size

    @property
    def old(self):
        return self.slots[self.start : self.start + self.width]

    @property
    def new(self):
        return self.found[self.line : self.line + self.width]

    @property
    def colors(self):
        """The flat colors, the row's start in them, the pitch of quads, and their number."""
        n_quads, depth, height, room, _ = self.quads.shape
        first = (Z * height + Y) * room * QUAD
        return self.quads.ravel(), first, depth * height * room * QUAD, n_quads


def make_row(rng, width, n_quads, outside=0.2):
    bounds = np.arange(4) * width // 3
    cells = np.repeat(np.arange(3, dtype=np.int32), np.diff(bounds))
    pitch = room_for(width, WORD, LANES)
    borders = np.packbits(np.isin(np.arange(pitch), bounds), bitorder="little").view(np.uint64)
    quads = rng.integers(-900, 900, (n_quads, 2, 3, room_for(width, LANES, LANES), 4), np.int16)

    def some_slots():
        slots = np.repeat(rng.integers(0, 9, pitch), 3)[:pitch].astype(np.uint8)  # short runs
        for x, cell in enumerate(cells):
            while not 0 <= OWN + cell + STEPS[slots[x]] < 9:
                slots[x] = rng.integers(0, 9)
        return slots

    old, new = some_slots(), some_slots()
    new[: width // 2] = old[: width // 2]
    old[:width][rng.random(width) < outside] = OUTSIDE
    slots = np.concatenate([np.full(pitch, 4, np.uint8), old])
    return Row(quads, slots, pitch, np.tile(new, 2), pitch, cells, borders)


@pytest.mark.parametrize("vectors", [way(), None] if simd.ENABLED else [None])
@pytest.mark.parametrize("outside", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("width", WIDTHS)
def test_slots_are_taken_over_as_by_their_twin(width, outside, vectors, rng):
    row = make_row(rng, width, 1, outside)
    expected, n_changed = oracles.take_over(row.old, row.new)
    assert take_over(row.slots, row.start, row.found, row.line, width, vectors) == n_changed
    np.testing.assert_array_equal(row.old, expected)


@pytest.mark.parametrize(("begin", "end"), [(0, 1), (0, 7), (3, 4), (5, 260)])
def test_places_equal_their_twin(begin, end):
    sums = np.full(6, 10)
    add_place(3, 5, begin, end, 1, sums)
    np.testing.assert_array_equal(sums[1:5] - 10, oracles.add_place(3, 5, begin, end))
    assert sums[0] == sums[5] == 10


@only_with_vectors
@pytest.mark.parametrize("n_quads", [1, 2, 3])
@pytest.mark.parametrize("width", WIDTHS)
def test_vectors_add_a_row_as_their_twin(width, n_quads, rng):
    row = make_row(rng, width, n_quads)
    sums = rng.integers(0, 99, (9, QUAD * (n_quads + 1)))
    how = (Z, Y, row.old, row.cells, OWN, STEPS)
    expected = oracles.add_row_vectors(row.quads, *how, sums)
    running = np.zeros(n_quads * (width + 1) * QUAD, np.int32)
    place = (row.slots, row.start, row.cells, row.borders, OWN, STEPS)
    add_row_vectors(*row.colors, Z, Y, *place, running, sums.ravel())
    np.testing.assert_array_equal(sums, expected)


@pytest.mark.parametrize("n_quads", [1, 2, 3])
@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_add_a_row_as_their_twin(width, n_quads, rng):
    row = make_row(rng, width, n_quads)
    sums = rng.integers(0, 99, (9, QUAD * (n_quads + 1)))
    how = (Z, Y, row.old, row.cells, OWN, STEPS)
    expected = oracles.add_row_numbers(row.quads, *how, sums)
    place = (row.slots, row.start, row.cells, OWN, STEPS)
    add_row_numbers(row.quads, Z, Y, *place, sums.ravel())
    np.testing.assert_array_equal(sums, expected)


@only_with_vectors
@pytest.mark.parametrize("n_quads", [1, 2, 3])
@pytest.mark.parametrize("width", WIDTHS)
def test_vectors_move_changed_pixels_like_their_twin(width, n_quads, rng):
    row = make_row(rng, width, n_quads)
    sums = rng.integers(0, 99, (9, QUAD * (n_quads + 1)))
    how = (Z, Y, row.old.copy(), row.new, row.cells, OWN, STEPS)
    expected = oracles.move_changed_vectors(row.quads, *how, sums)
    columns = np.zeros((width + 1, QUAD), np.int64)
    columns[:-1, 2], columns[:-1, 3] = np.arange(width), 1
    place = (row.slots, row.start, row.found, row.line, row.cells, OWN, STEPS)
    n_changed = move_changed_vectors(*row.colors, Z, Y, *place, columns.ravel(), sums.ravel())
    for ours, theirs in zip((row.old, n_changed, sums), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("n_quads", [1, 2, 3])
@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_move_changed_pixels_like_their_twin(width, n_quads, rng):
    row = make_row(rng, width, n_quads)
    sums = rng.integers(0, 99, (9, QUAD * (n_quads + 1)))
    how = (Z, Y, row.old.copy(), row.new, row.cells, OWN, STEPS)
    expected = oracles.move_changed_numbers(row.quads, *how, sums)
    place = (row.slots, row.start, row.found, row.line, row.cells, OWN, STEPS)
    n_changed = move_changed_numbers(row.quads, Z, Y, *place, sums.ravel())
    for ours, theirs in zip((row.old, n_changed, sums), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)
