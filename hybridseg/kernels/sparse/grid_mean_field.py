"""Mean-field sweeps over pixel grids, color by color, many sweeps to a pass through memory.

Pixels of one color have no edge between them, so all of them can be brought to their best at
once: each such step is one of block coordinate descent, and the free energy cannot rise.

A picture is cut into *slabs*: rows of a picture, planes of a volume. Every row is kept as two
halves, its pixels at even and at odd places, so that the neighbors of neighboring pixels of one
color lie side by side. A half is cut into *tiles* of ``LANES`` pixels, in which the labels follow
one another: a vector holds one label of a tile's pixels, and whatever the number of labels, memory
is read in a few straight streams.

A sweep is two steps: step 0 updates the first colors of a slab, step 1 the others. A step needs
its neighboring slabs to be one step behind, and no more. So the steps of many sweeps follow each
other down the picture, one slab apart, and a slab is read from memory once for all of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from hybridseg.kernels._compile import inner_kernel, parallel_kernel
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.padding import padded
from hybridseg.kernels.vectors.vector_functions import after_first, before_last
from hybridseg.kernels.vectors.way import way

Single = NDArray[np.float32]
Whole = NDArray[np.int64]

#: Pixels of a tile.
LANES = 16
#: Scores that are worked on together: they stay in the first-level cache.
_ROOM = 4096


class Grid(NamedTuple):
    """How the pixels of a picture or volume lie in tiles; from :func:`grid_of`."""

    n_slabs: int
    n_rows: int  # of a slab: 1 in a picture
    width: int
    n_labels: int
    n_tiles: int  # of half a row
    checkerboard: bool  # two colors, where pixels that differ along two axes are no neighbors


class Terms(NamedTuple):
    """What a pixel's marginals are made of.

    Attributes
    ----------
    costs : (t * L * LANES,) float32
        In tiles, one tile of zeros before the first and one after the last.
    links : float32
        From :func:`lay_out_links`.
    offsets : (m, 3) int64
        From a pixel p to its neighbor p + offset, in slabs, rows and pixels: -1, 0 or 1 each.
    compatibility : (L, L) float32, or (0, 0) for Potts
    damping : float32
        The share of the old marginals that stays.
    """

    costs: Single
    links: Single
    offsets: Whole
    compatibility: Single
    damping: np.float32


def grid_of(shape: tuple[int, ...], n_labels: int, offsets: Whole) -> Grid:
    """Lay out a picture (H, W) or a volume (D, H, W) whose neighbors are at ``offsets`` (m, 3)."""
    n_slabs, n_rows, width = (shape[0], 1, shape[1]) if len(shape) == 2 else shape
    n_tiles = padded((width + 1) // 2, LANES) // LANES
    checkerboard = bool((np.abs(offsets).sum(axis=1) == 1).all())
    return Grid(n_slabs, n_rows, width, n_labels, n_tiles, checkerboard)


def empty_tiles(grid: Grid) -> Single:
    """Room for a number at every label of every pixel, zero."""
    n_tiles = 2 * grid.n_slabs * grid.n_rows * grid.n_tiles
    return np.zeros((n_tiles + 2) * grid.n_labels * LANES, np.float32)


def lay_out_links(weights: Single, grid: Grid) -> Single:
    """Put the weights of edges as sweeps take them.

    Parameters
    ----------
    weights : (m, n_slabs, n_rows, width) float32
        Of the edge from each pixel to its neighbor at offset m; 0 where there is none.
    grid : Grid

    Returns
    -------
    (LANES + m * n_slabs * n_rows * 2 * (n_tiles + 1) * LANES,) float32
        Halves of rows with at least ``LANES`` zeros before and after each.
    """
    pitch = (grid.n_tiles + 1) * LANES
    links = np.zeros(LANES + 2 * pitch * (weights.size // grid.width), np.float32)
    halves = links[LANES:].reshape(*weights.shape[:-1], 2, pitch)
    for half in (0, 1):
        every_second = weights[..., half::2]
        halves[..., half, : every_second.shape[-1]] = every_second
    return links


# -- one half of a row ----------------------------------------------------------------------------


@inner_kernel
def _first_tile(grid: Grid, slab: int, row: int, half: int) -> int:
    return 1 + ((slab * grid.n_rows + row) * 2 + half) * grid.n_tiles


@inner_kernel
def _find_neighbors(offsets: Whole, grid: Grid, slab: int, row: int, half: int, near: Whole) -> int:
    """List the neighbors of half a row in ``near`` (2 m, 3); returns how many there are.

    For each: the tile that the first tile's neighbors are in, by how many places they stand
    before or after, and where the first link is.
    """
    pitch = (grid.n_tiles + 1) * LANES
    here = (slab * grid.n_rows + row) * 2 + half
    count = 0
    for o in range(len(offsets)):
        first = LANES + o * grid.n_slabs * grid.n_rows * 2 * pitch
        for sign in range(-1, 2, 2):
            there_slab, there_row = slab + sign * offsets[o, 0], row + sign * offsets[o, 1]
            if not (0 <= there_slab < grid.n_slabs and 0 <= there_row < grid.n_rows):
                continue
            place = half + sign * offsets[o, 2]  # of the neighbor of the pixel at 0 of this half
            near[count, 0] = _first_tile(grid, there_slab, there_row, place & 1)
            near[count, 1] = place >> 1
            if sign > 0:
                near[count, 2] = first + here * pitch
            else:  # an edge's weight stands at its first end
                there = (there_slab * grid.n_rows + there_row) * 2 + (place & 1)
                near[count, 2] = first + there * pitch + (place >> 1)
            count += 1
    return count


@inner_kernel
def _update_half(
    terms: Terms,
    grid: Grid,
    marginals: Single,
    slab: int,
    row: int,
    half: int,
    near: Whole,
    room: Single,
    vectors: Any,
) -> np.float32:
    """Give half a row its new marginals; returns the largest change.

    ``near`` (2 m, 3) is room for neighbors, ``room`` (2, max(_ROOM, L * LANES)) for scores.
    """
    count = _find_neighbors(terms.offsets, grid, slab, row, half, near)
    tile = _first_tile(grid, slab, row, half)
    if vectors is None:
        return _update_pixels(terms, grid, marginals, near[:count], tile, half, room)
    some = room.shape[1] // (grid.n_labels * LANES)
    largest = np.float32(0)
    for t in range(0, grid.n_tiles, some):
        n = min(some, grid.n_tiles - t)
        _add_messages(terms, grid, marginals, near[:count], tile, t, n, room[0])
        if len(terms.compatibility) > 0:
            _ask(terms, grid, tile + t, n, room[0], room[1])
            change = _settle(grid, terms.damping, tile + t, n, room[1], marginals)
        else:
            change = _settle(grid, terms.damping, tile + t, n, room[0], marginals)
        largest = max(largest, change)
    return largest


@inner_kernel
def _add_messages(
    terms: Terms, grid: Grid, marginals: Single, near: Whole, tile: int, t: int, n: int, out: Single
) -> None:
    """Write the neighbors' messages to tiles t, t + 1, ..., t + n - 1 of half a row, in tiles.

    With Potts less the costs: sum over l' != l of m(l') is a constant less m(l), and the softmax
    drops the constant.
    """
    size = grid.n_labels * LANES
    own = simd.fill(np.float32(-1 if len(terms.compatibility) == 0 else 0), LANES)
    for place in range(n):
        at, to, label = (tile + t + place) * size, place * size, 0
        while label + 4 <= grid.n_labels:  # a link is read once for four labels
            one = own * simd.load(terms.costs, at, LANES)
            two = own * simd.load(terms.costs, at + LANES, LANES)
            three = own * simd.load(terms.costs, at + 2 * LANES, LANES)
            four = own * simd.load(terms.costs, at + 3 * LANES, LANES)
            for k in range(len(near)):
                link = simd.load(terms.links, near[k, 2] + (t + place) * LANES, LANES)
                there, shift = (near[k, 0] + t + place) * size + label * LANES, near[k, 1]
                one = simd.fma(link, _shifted(marginals, there, shift, size), one)
                two = simd.fma(link, _shifted(marginals, there + LANES, shift, size), two)
                three = simd.fma(link, _shifted(marginals, there + 2 * LANES, shift, size), three)
                four = simd.fma(link, _shifted(marginals, there + 3 * LANES, shift, size), four)
            simd.store(out, to, one)
            simd.store(out, to + LANES, two)
            simd.store(out, to + 2 * LANES, three)
            simd.store(out, to + 3 * LANES, four)
            at, to, label = at + 4 * LANES, to + 4 * LANES, label + 4
        while label < grid.n_labels:
            one = own * simd.load(terms.costs, at, LANES)
            for k in range(len(near)):
                link = simd.load(terms.links, near[k, 2] + (t + place) * LANES, LANES)
                there = (near[k, 0] + t + place) * size + label * LANES
                one = simd.fma(link, _shifted(marginals, there, near[k, 1], size), one)
            simd.store(out, to, one)
            at, to, label = at + LANES, to + LANES, label + 1


@inner_kernel
def _shifted(marginals: Single, at: int, shift: int, size: int) -> Any:
    """The marginals ``shift`` (-1, 0, 1) places after those of a tile, which has ``size``."""
    here = simd.load(marginals, at, LANES)
    if shift > 0:
        return after_first(here, simd.load(marginals, at + size, LANES))
    if shift < 0:
        return before_last(simd.load(marginals, at - size, LANES), here)
    return here


@inner_kernel
def _ask(terms: Terms, grid: Grid, tile: int, n: int, messages: Single, scores: Single) -> None:
    """Make scores of the costs and of what the messages ask for by the compatibility."""
    size = grid.n_labels * LANES
    zero = simd.fill(np.float32(0), LANES)
    for place in range(n):
        for label in range(grid.n_labels):
            to = place * size + label * LANES
            score = zero - simd.load(terms.costs, tile * size + to, LANES)
            for other in range(grid.n_labels):
                cost = simd.fill(-terms.compatibility[label, other], LANES)
                message = simd.load(messages, place * size + other * LANES, LANES)
                score = simd.fma(cost, message, score)
            simd.store(scores, to, score)


@inner_kernel
def _settle(
    grid: Grid, damping: np.float32, tile: int, n: int, scores: Single, marginals: Single
) -> np.float32:
    """Give n tiles the softmax of their scores; returns the largest change."""
    size = grid.n_labels * LANES
    zero = simd.fill(np.float32(0), LANES)
    rest, keep, largest = simd.fill(np.float32(1) - damping, LANES), simd.fill(damping, LANES), zero
    for first in range(0, n * size, size):
        best, total = simd.load(scores, first, LANES), zero
        for at in range(first + LANES, first + size, LANES):
            best = simd.maximum(best, simd.load(scores, at, LANES))
        for at in range(first, first + size, LANES):
            raised = simd.exp(simd.load(scores, at, LANES) - best)
            simd.store(scores, at, raised)
            total = total + raised
        share = rest / total
        for at in range(first, first + size, LANES):
            old = simd.load(marginals, tile * size + at, LANES)
            value = simd.fma(simd.load(scores, at, LANES), share, keep * old)
            change = value - old
            largest = simd.maximum(largest, simd.maximum(change, zero - change))
            simd.store(marginals, tile * size + at, value)
    return simd.greatest(largest)


@inner_kernel
def _update_pixels(
    terms: Terms, grid: Grid, marginals: Single, near: Whole, tile: int, half: int, room: Single
) -> np.float32:
    """What the vectors do, pixel by pixel."""
    n_labels, size = grid.n_labels, grid.n_labels * LANES
    scores, messages = room[0], room[1]
    largest = np.float32(0)
    for k in range((grid.width - half + 1) // 2):
        first = (tile + k // LANES) * size + k % LANES
        messages[:n_labels] = 0
        for j in range(len(near)):
            link, there = terms.links[near[j, 2] + k], k + near[j, 1]
            if link != 0:
                there = (near[j, 0] + there // LANES) * size + there % LANES
                for label in range(n_labels):
                    messages[label] += link * marginals[there + label * LANES]
        best = np.float32(-np.inf)
        for label in range(n_labels):
            score = -terms.costs[first + label * LANES]
            if len(terms.compatibility) == 0:
                score += messages[label]
            for other in range(len(terms.compatibility)):
                score -= terms.compatibility[label, other] * messages[other]
            scores[label] = score
            best = max(best, score)
        total = np.float32(0)
        for label in range(n_labels):
            scores[label] = np.exp(scores[label] - best)
            total += scores[label]
        share = (np.float32(1) - terms.damping) / total
        for label in range(n_labels):
            old = marginals[first + label * LANES]
            value = scores[label] * share + terms.damping * old
            largest = max(largest, abs(value - old))
            marginals[first + label * LANES] = value
    return largest


# -- all slabs ------------------------------------------------------------------------------------


@inner_kernel
def _update_slab(
    terms: Terms,
    grid: Grid,
    marginals: Single,
    step: int,
    slab: int,
    near: Whole,
    room: Single,
    vectors: Any,
) -> np.float32:
    """Make step 0 or 1 of a sweep; returns the largest change of a marginal."""
    largest = np.float32(0)
    if grid.checkerboard:
        for row in range(grid.n_rows):
            half = (step + slab + row) & 1
            change = _update_half(terms, grid, marginals, slab, row, half, near, room, vectors)
            largest = max(largest, change)
    elif slab & 1 == step:
        for parity in range(2):
            for half in range(2):
                for row in range(parity, grid.n_rows, 2):
                    change = _update_half(
                        terms, grid, marginals, slab, row, half, near, room, vectors
                    )
                    largest = max(largest, change)
    return largest


@inner_kernel
def _sweep_part(
    terms: Terms,
    grid: Grid,
    marginals: Single,
    start: int,
    stop: int,
    changes: Single,
    vectors: Any,
) -> None:
    """Make the steps of all sweeps that need no slab beyond ``start`` and ``stop``."""
    near = np.empty((2 * len(terms.offsets), 3), np.int64)
    room = np.empty((2, max(_ROOM, grid.n_labels * LANES)), np.float32)
    n_steps = 2 * len(changes)
    for front in range(start, stop + n_steps - 1):
        for step in range(n_steps):
            slab = front - step
            least = start + step if start > 0 else 0
            end = stop - step if stop < grid.n_slabs else stop
            if least <= slab < end:
                change = _update_slab(terms, grid, marginals, step & 1, slab, near, room, vectors)
                changes[step // 2] = max(changes[step // 2], change)


@inner_kernel
def _sweep_gap(
    terms: Terms, grid: Grid, marginals: Single, border: int, changes: Single, vectors: Any
) -> None:
    """Make the steps that two parts left at their border."""
    near = np.empty((2 * len(terms.offsets), 3), np.int64)
    room = np.empty((2, max(_ROOM, grid.n_labels * LANES)), np.float32)
    for step in range(1, 2 * len(changes)):
        for slab in range(border - step, border + step):
            change = _update_slab(terms, grid, marginals, step & 1, slab, near, room, vectors)
            changes[step // 2] = max(changes[step // 2], change)


def sweep_grid(
    terms: Terms, grid: Grid, borders: Whole, n_sweeps: int, marginals: Single
) -> NDArray[np.float32]:
    """Update all pixels, color by color, ``n_sweeps`` times over.

    Parameters
    ----------
    terms : Terms
    grid : Grid
    borders : (n_parts + 1,) int64
        From 0 to n_slabs: the parts that threads work on. Several parts have ``4 * n_sweeps``
        slabs at least. The results do not depend on them.
    n_sweeps : int
        At least one. Each keeps two more slabs in the cache.
    marginals : float32
        In tiles; updated in place. Without any offsets a sweep makes them the softmax of the
        costs' negative.

    Returns
    -------
    (n_sweeps,) float32
        The largest change of a marginal in each sweep.
    """
    return _sweep_grid(terms, grid, borders, n_sweeps, marginals, way())


@parallel_kernel
def _sweep_grid(terms, grid, borders, n_sweeps, marginals, vectors):
    n_parts = len(borders) - 1
    changes = np.zeros((n_parts, n_sweeps), np.float32)
    for part in prange(n_parts):
        start, stop = borders[part], borders[part + 1]
        _sweep_part(terms, grid, marginals, start, stop, changes[part], vectors)
    for part in prange(1, n_parts):
        _sweep_gap(terms, grid, marginals, borders[part], changes[part], vectors)
    largest = changes[0].copy()
    for part in range(1, n_parts):
        largest = np.maximum(largest, changes[part])
    return largest


# -- from and to pixels one after the other -------------------------------------------------------


@inner_kernel
def _place(grid: Grid, line: int, x: int) -> int:
    """Where the first label of a line's pixel x stands in tiles."""
    tile, k = 1 + (line * 2 + (x & 1)) * grid.n_tiles, x >> 1
    return (tile + k // LANES) * grid.n_labels * LANES + k % LANES


@parallel_kernel
def write_tiles(rows: Single, grid: Grid, tiles: Single) -> None:
    """Lay out ``rows`` (n * L,), pixel by pixel, in tiles."""
    for line in prange(grid.n_slabs * grid.n_rows):
        for x in range(grid.width):
            first, place = (line * grid.width + x) * grid.n_labels, _place(grid, line, x)
            for label in range(grid.n_labels):
                tiles[np.uint64(place + label * LANES)] = rows[np.uint64(first + label)]


@parallel_kernel
def read_tiles(tiles: Single, grid: Grid, rows: Single) -> None:
    """Write what stands in tiles to ``rows`` (n * L,), pixel by pixel."""
    for line in prange(grid.n_slabs * grid.n_rows):
        for x in range(grid.width):
            first, place = (line * grid.width + x) * grid.n_labels, _place(grid, line, x)
            for label in range(grid.n_labels):
                rows[np.uint64(first + label)] = tiles[np.uint64(place + label * LANES)]
