"""Slow twins of ``kernels.superpixels.slic_rows``, pixel by pixel on arrays of one row."""

from __future__ import annotations

import numpy as np

from hybridseg.kernels.superpixels.slic_rows import OUTSIDE
from tests.oracles.superpixels.slic_centers import channels_of


def take_over(old, new):
    """The row's slots, and the number of changed slots."""
    slots = np.where(old == OUTSIDE, OUTSIDE, new)
    return slots, np.count_nonzero(slots != old)


def add_place(z, y, begin, end):
    return np.sum([(z, y, x, 1) for x in range(begin, end)], axis=0, dtype=np.int64)


def add_row(quads, z, y, slots, cells, own, steps, sums):
    """The sums of all centers after the pixels of a row are added."""
    sums = sums.copy()
    for x, (slot, cell) in enumerate(zip(slots, cells, strict=True)):
        if slot != OUTSIDE:
            sums[own + cell + steps[slot]] += [*channels_of(quads)[:, z, y, x], z, y, x, 1]
    return sums


def move_changed(quads, z, y, old, new, cells, own, steps, sums):
    """The row's slots, the number of changed slots, and the sums of all centers."""
    slots, n_changed = take_over(old, new)
    nothing = np.zeros_like(sums)
    left = add_row(quads, z, y, old, cells, own, steps, nothing)
    return slots, n_changed, sums - left + add_row(quads, z, y, slots, cells, own, steps, nothing)


add_row_vectors = add_row_numbers = add_row
move_changed_vectors = move_changed_numbers = move_changed
