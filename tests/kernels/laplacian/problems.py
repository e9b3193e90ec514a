"""Laplacians on small grids, and right-hand sides."""

import numpy as np

from hybridseg.inference.random_walk.multigrid import Grid, Operator

SHAPES = [(1, 1), (1, 7), (6, 1), (2, 2), (5, 8), (6, 9), (1, 3, 4), (3, 4, 5), (4, 4, 3)]


def operator_on(rng, shape, *, full=False, weakest=-6, grounded=0.1):
    """Links over many orders of magnitude, with some missing, and weak ground."""
    grid = Grid(shape)
    offsets = grid.all_offsets() if full else grid.axis_offsets()
    links = np.zeros((len(offsets), *grid.bordered))
    for row, offset in zip(links, offsets, strict=True):
        from_ = tuple(
            slice(b + max(0, -o), b + n - max(0, o))
            for b, n, o in zip(grid.border, shape, offset, strict=True)
        )
        if all(s.start < s.stop for s in from_):
            strengths = 10 ** rng.uniform(weakest, 0, row[from_].shape)
            row[from_] = strengths * (rng.random(row[from_].shape) < 0.9)
    ground = grid.spread((rng.random(shape) < grounded) * 0.5 + 1e-8, 1.0)
    return Operator(grid, offsets, links.reshape(len(offsets), -1), ground)


def vectors(rng, operator, n_rows=2, dtype=float):
    grid = operator.grid
    rows = rng.normal(0, 1, (n_rows, *grid.shape)).astype(dtype)
    return np.stack([grid.spread(row, 0) for row in rows])


def steps_of(operator):
    return operator.grid.distances(operator.offsets)


def places_of(grid):
    return np.flatnonzero(grid.spread(np.ones(grid.shape, bool), False))
