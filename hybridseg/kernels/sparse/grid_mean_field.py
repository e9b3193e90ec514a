"""Mean-field sweeps over pixel grids, one color at a time, many sweeps per pass over memory.

Pixels of one color have no edge between them, so all of them can be updated to their optimum at
once. Each such update is a step of block coordinate descent on the free energy, which never rises
([1]_ algorithm 11.7 and theorem 11.10).

An image is divided into *slabs*: rows of an image, planes of a volume. Every row is stored as two
halves, its even and its odd pixels, so that the neighbors of consecutive pixels of one color are
consecutive too. A half is divided into *tiles* of ``LANES`` pixels. Within a tile the labels follow
one another: a vector holds one label of all pixels of a tile. Costs and marginals are flat float32
arrays of tiles, with an empty tile before the first and after the last one.

A sweep has two steps: step 0 updates the first colors of a slab, step 1 the others. A step needs
its neighboring slabs to be one step behind, and no more. So the steps of many sweeps follow one
another along the image, one slab apart (temporal blocking), and a slab is read once for all.

`hybridseg.inference.mean_field.sweeps` calls these kernels. Parts of the grid are shared among
numba's threads; the result does not depend on the parts.

References
----------
.. [1] D. Koller, N. Friedman, "Probabilistic Graphical Models", MIT Press, 2009.
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

#: Pixels in a tile, and numbers in a vector.
LANES = 16
#: Number of scores that are computed together, so that they stay in the first-level cache.
_SCORES_IN_CACHE = 4096


class Grid(NamedTuple):
    """The layout of the pixels of an image or volume in tiles, as returned by :func:`grid_of`."""

    n_slabs: int
    n_rows: int  # in a slab: 1 for an image
    width: int
    n_labels: int
    n_tiles: int  # in half a row
    checkerboard: bool  # two colors are enough: all neighbors differ along one axis only


class Terms(NamedTuple):
    """The energy of a grid: costs, links, compatibility.

    Attributes
    ----------
    costs : (t * L * LANES,) float32
        In tiles, with a tile of zeros before the first and after the last.
    links : float32
        As returned by :func:`lay_out_links`.
    offsets : (m, 3) int64
        From a pixel p to its neighbor p + offset, in slabs, rows and pixels: -1, 0 or 1 each.
    compatibility : (L, L) float32, or (0, 0) for Potts
    damping : float32
        The fraction of the old marginals that is kept.
    """

    costs: Single
    links: Single
    offsets: Whole
    compatibility: Single
    damping: np.float32


def grid_of(shape: tuple[int, ...], n_labels: int, offsets: Whole) -> Grid:
    """Return the layout of an image (H, W) or volume (D, H, W), for ``offsets`` (m, 3)."""
    n_slabs, n_rows, width = (shape[0], 1, shape[1]) if len(shape) == 2 else shape
    n_tiles = padded((width + 1) // 2, LANES) // LANES
    checkerboard = bool((np.abs(offsets).sum(axis=1) == 1).all())
    return Grid(n_slabs, n_rows, width, n_labels, n_tiles, checkerboard)


def empty_tiles(grid: Grid) -> Single:
    """Return tiles of zeros for a number at each label of each pixel."""
    n_tiles = 2 * grid.n_slabs * grid.n_rows * grid.n_tiles
    return np.zeros((n_tiles + 2) * grid.n_labels * LANES, np.float32)


def lay_out_links(weights: Single, grid: Grid) -> Single:
    """Arrange the weights of edges in the order in which sweeps read them.

    Parameters
    ----------
    weights : (m, n_slabs, n_rows, width) float32
        The weight of the edge from each pixel to its neighbor at offset m; 0 if there is none.
    grid : Grid

    Returns
    -------
    (LANES + m * n_slabs * n_rows * 2 * (n_tiles + 1) * LANES,) float32
        Halves of rows, each with at least ``LANES`` zeros before and after it, so that a vector
        that begins one place before or after a tile reads zeros beyond the row.
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
    """Return the first tile of half a row; tile 0 is the empty one."""
    return 1 + ((slab * grid.n_rows + row) * 2 + half) * grid.n_tiles


@inner_kernel
def _find_neighbors(offsets: Whole, grid: Grid, slab: int, row: int, half: int, near: Whole) -> int:
    """List the neighbors of half a row in ``near`` (2 m, 3); return their number.

    For each: the first tile of the half row with the neighbors, the number of places (-1, 0 or 1)
    by which they are further on there, and the place of the first link.
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
            place = half + sign * offsets[o, 2]  # column of the neighbor of this half's first pixel
            near[count, 0] = _first_tile(grid, there_slab, there_row, place & 1)
            near[count, 1] = place >> 1
            if sign > 0:
                near[count, 2] = first + here * pitch
            else:  # an edge's weight is stored at its first end
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
    """Update half a row; return the largest change.

    ``near`` (2 m, 3) and ``room`` (2, max(_SCORES_IN_CACHE, L * LANES)) are working memory for
    neighbors and scores.
    """
    count = _find_neighbors(terms.offsets, grid, slab, row, half, near)
    tile = _first_tile(grid, slab, row, half)
    if vectors is None:
        return _update_pixels(terms, grid, marginals, near[:count], tile, half, room)
    # as many tiles at a time as ``room`` can hold
    some = room.shape[1] // (grid.n_labels * LANES)
    largest = np.float32(0)
    for t in range(0, grid.n_tiles, some):
        n = min(some, grid.n_tiles - t)
        _add_messages(terms, grid, marginals, near[:count], tile, t, n, room[0])
        if len(terms.compatibility) > 0:
            _score(terms, grid, tile + t, n, room[0], room[1])
            change = _settle(grid, terms.damping, tile + t, n, room[1], marginals)
        else:
            change = _settle(grid, terms.damping, tile + t, n, room[0], marginals)
        largest = max(largest, change)
    return largest


@inner_kernel
def _add_messages(
    terms: Terms, grid: Grid, marginals: Single, near: Whole, tile: int, t: int, n: int, out: Single
) -> None:
    """Sum the neighbors' messages to n tiles of half a row, from its tile t on, into ``out``.

    With Potts, the costs are subtracted: the cost of label l is the sum of m(l') over l' != l, a
    constant less m(l), and the softmax drops the constant.
    """
    size = grid.n_labels * LANES
    own = simd.fill(np.float32(-1 if len(terms.compatibility) == 0 else 0), LANES)
    for place in range(n):
        at, to, label = (tile + t + place) * size, place * size, 0
        while label + 4 <= grid.n_labels:  # four labels for each link that is read
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
    """Return the marginals of the pixels ``shift`` (-1, 0 or 1) places after those of a tile.

    ``at`` is the place of one label in the tile, ``size`` the length of a tile.
    """
    here = simd.load(marginals, at, LANES)
    if shift > 0:
        return after_first(here, simd.load(marginals, at + size, LANES))
    if shift < 0:
        return before_last(simd.load(marginals, at - size, LANES), here)
    return here


@inner_kernel
def _score(terms: Terms, grid: Grid, tile: int, n: int, messages: Single, scores: Single) -> None:
    """Write the scores: minus the costs, minus the compatibility times the messages."""
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
    """Update n tiles to the softmax of their scores, with damping; return the largest change."""
    size = grid.n_labels * LANES
    zero = simd.fill(np.float32(0), LANES)
    rest, keep, largest = simd.fill(np.float32(1) - damping, LANES), simd.fill(damping, LANES), zero
    for first in range(0, n * size, size):
        # the largest score of each pixel, then exponentials and their sum
        best, total = simd.load(scores, first, LANES), zero
        for at in range(first + LANES, first + size, LANES):
            best = simd.maximum(best, simd.load(scores, at, LANES))
        for at in range(first, first + size, LANES):
            raised = simd.exp(simd.load(scores, at, LANES) - best)
            simd.store(scores, at, raised)
            total = total + raised
        # normalize, damp and compare with the old marginals
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
    """Do what the vectors do, pixel by pixel; return the largest change."""
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
    """Make step 0 or 1 of a sweep on a slab; return the largest change of a marginal.

    With two colors (checkerboard), a step updates one half of each row. Otherwise colors are given
    by the parities of slab, row and column, and a step updates every second slab, color by color.
    """
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
    """Make the steps of all sweeps that need no slab outside ``start`` to ``stop - 1``.

    ``changes`` (n_sweeps,) gets the largest changes. Step s of slab i comes when the front is at
    slab i + s. At a border with another part, each step leaves out one slab more.
    """
    near = np.empty((2 * len(terms.offsets), 3), np.int64)
    room = np.empty((2, max(_SCORES_IN_CACHE, grid.n_labels * LANES)), np.float32)
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
    """Make the steps that two parts left out on both sides of their border."""
    near = np.empty((2 * len(terms.offsets), 3), np.int64)
    room = np.empty((2, max(_SCORES_IN_CACHE, grid.n_labels * LANES)), np.float32)
    for step in range(1, 2 * len(changes)):
        for slab in range(border - step, border + step):
            change = _update_slab(terms, grid, marginals, step & 1, slab, near, room, vectors)
            changes[step // 2] = max(changes[step // 2], change)


def sweep_grid(
    terms: Terms, grid: Grid, borders: Whole, n_sweeps: int, marginals: Single
) -> NDArray[np.float32]:
    """Update all pixels, color by color, ``n_sweeps`` times.

    Parameters
    ----------
    terms : Terms
    grid : Grid
    borders : (n_parts + 1,) int64
        From 0 to n_slabs: the parts for the threads. If there are several, each has at least
        ``4 * n_sweeps`` slabs. The results do not depend on them.
    n_sweeps : int
        At least one. Each keeps two more slabs in the cache.
    marginals : float32
        In tiles; updated in place. Without offsets, a sweep sets them to the softmax of minus the
        costs.

    Returns
    -------
    (n_sweeps,) float32
        The largest change of a marginal in each sweep.
    """
    return _sweep_grid(terms, grid, borders, n_sweeps, marginals, way())


@parallel_kernel
def _sweep_grid(terms, grid, borders, n_sweeps, marginals, vectors):
    """Sweep all parts at the same time, then all gaps between them."""
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


# -- from and to rows of labels, pixel by pixel ----------------------------------------------------


@inner_kernel
def _place(grid: Grid, line: int, x: int) -> int:
    """Return the place in tiles of the first label of pixel x of a line."""
    tile, k = 1 + (line * 2 + (x & 1)) * grid.n_tiles, x >> 1
    return (tile + k // LANES) * grid.n_labels * LANES + k % LANES


@parallel_kernel
def write_tiles(rows: Single, grid: Grid, tiles: Single) -> None:
    """Copy ``rows`` (n * L,), pixel by pixel, to tiles."""
    for line in prange(grid.n_slabs * grid.n_rows):
        for x in range(grid.width):
            first, place = (line * grid.width + x) * grid.n_labels, _place(grid, line, x)
            for label in range(grid.n_labels):
                tiles[np.uint64(place + label * LANES)] = rows[np.uint64(first + label)]


@parallel_kernel
def read_tiles(tiles: Single, grid: Grid, rows: Single) -> None:
    """Copy tiles to ``rows`` (n * L,), pixel by pixel."""
    for line in prange(grid.n_slabs * grid.n_rows):
        for x in range(grid.width):
            first, place = (line * grid.width + x) * grid.n_labels, _place(grid, line, x)
            for label in range(grid.n_labels):
                rows[np.uint64(first + label)] = tiles[np.uint64(place + label * LANES)]
