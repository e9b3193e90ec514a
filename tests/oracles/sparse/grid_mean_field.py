"""Mean field on grids in float64, and the places of pixels in tiles, both pixel by pixel."""

from __future__ import annotations

from itertools import product

import numpy as np

from hybridseg.kernels.sparse.grid_mean_field import LANES, Grid
from tests.oracles.dense.mean_field import softmax
from tests.oracles.sparse.graph_mean_field import updated


def sweep_grid(unary, shape, offsets, weights, compatibility, damping, n_sweeps):
    """Marginals and largest changes, color by color, from the softmax of the costs."""
    places = np.array(list(product(*map(range, shape))))
    number = {tuple(place): p for p, place in enumerate(places.tolist())}
    edges = [
        (p, number[tuple(places[p] + offset)], row[p])
        for row, offset in zip(weights.reshape(len(offsets), -1), offsets, strict=True)
        for p in np.flatnonzero(row)
    ]
    marginals, changes = softmax(-unary), []
    for _ in range(n_sweeps):
        largest = 0.0
        for nodes in colors(places, offsets):
            marginals, change = updated(unary, edges, nodes, compatibility, damping, marginals)
            largest = max(largest, change)
        changes.append(largest)
    return marginals, changes


def colors(places, offsets):
    """The pixels of each color: two colors of a checkerboard, or one color for each parity."""
    if all(np.abs(offset).sum() == 1 for offset in offsets):
        return [np.flatnonzero(places.sum(axis=1) % 2 == color) for color in (0, 1)]
    parities = product((0, 1), repeat=3)
    return [np.flatnonzero((places % 2 == parity).all(axis=1)) for parity in parities]


# -- tiles ----------------------------------------------------------------------------------------


def grid_of(shape, n_labels, offsets):
    shape = (shape[0], 1, shape[1]) if len(shape) == 2 else shape
    n_tiles = int(np.ceil(np.ceil(shape[2] / 2) / LANES))
    return Grid(*shape, n_labels, n_tiles, all(np.abs(o).sum() == 1 for o in offsets))


def empty_tiles(grid):
    halves = grid.n_slabs * grid.n_rows * 2
    return np.zeros((2 + halves * grid.n_tiles) * LANES * grid.n_labels, np.float32)


def place_of(grid, line, x, label):
    half, k = x % 2, x // 2
    tile = 1 + (2 * line + half) * grid.n_tiles + k // LANES
    return (tile * grid.n_labels + label) * LANES + k % LANES


def numbers(grid):
    """The place of each number in the rows and in the tiles."""
    lines = grid.n_slabs * grid.n_rows
    every = product(range(lines), range(grid.width), range(grid.n_labels))
    return [(row, place_of(grid, *number)) for row, number in enumerate(every)]


def lay_out_links(weights, grid):
    pitch = (grid.n_tiles + 1) * LANES
    lines = weights.reshape(-1, grid.width)
    links = np.zeros(LANES + 2 * len(lines) * pitch, np.float32)
    for line, row in enumerate(lines):
        for x, weight in enumerate(row):
            links[LANES + (2 * line + x % 2) * pitch + x // 2] = weight
    return links


def write_tiles(rows, grid, tiles):
    for row, place in numbers(grid):
        tiles[place] = rows[row]


def read_tiles(tiles, grid, rows):
    for row, place in numbers(grid):
        rows[row] = tiles[place]
