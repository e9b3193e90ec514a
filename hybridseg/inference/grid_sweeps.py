"""The order in which mean field visits the nodes of a grid or of a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from hybridseg.costs import proba_from_costs
from hybridseg.kernels._compile import get_num_threads
from hybridseg.kernels.graph_mean_field import color_graph, sweep_graph
from hybridseg.kernels.grid_mean_field import (
    Grid,
    Terms,
    empty_tiles,
    grid_of,
    lay_out_links,
    read_tiles,
    sweep_grid,
    write_tiles,
)
from hybridseg.pairwise.edges import EdgeGroup, edge_list

Singles = NDArray[np.float32]

#: Costs and marginals that sweeps which follow one another may fill, in bytes: within the part of
#: the last cache that one thread can count on.
_CACHED = 1 << 22


def sweeps_over(
    rows: Singles,
    groups: Sequence[EdgeGroup],
    shape: tuple[int, ...],
    pairs: Singles,
    damping: float,
) -> GridSweeps | GraphSweeps:
    """Choose how nodes are visited: by parity on grids of near neighbours, else by colouring.

    ``rows`` (n, L) are the costs, ``pairs`` (L, L) the compatibility, (0, 0) for Potts.
    """
    if len(shape) > 1:
        offsets = [_offset(group) for group in groups]
        if all(max(map(abs, offset)) <= 1 for offset in offsets):
            return GridSweeps.build(rows, groups, offsets, shape, pairs, damping)
    return GraphSweeps.build(rows, groups, shape, pairs, damping)


def _offset(group: EdgeGroup) -> tuple[int, ...]:
    return tuple(q.start - p.start for p, q in zip(group.p, group.q, strict=True))


@dataclass(frozen=True, eq=False)
class GridSweeps:
    """Visits the pixels of each parity in turn; costs and marginals lie in tiles."""

    terms: Terms
    grid: Grid
    tiles: Singles

    @classmethod
    def build(
        cls,
        rows: Singles,
        groups: Sequence[EdgeGroup],
        offsets: Sequence[tuple[int, ...]],
        shape: tuple[int, ...],
        pairs: Singles,
        damping: float,
    ) -> GridSweeps:
        steps = np.zeros((len(groups), 3), np.int64)
        weights = np.zeros((len(groups), *shape), np.float32)
        for o, (group, offset) in enumerate(zip(groups, offsets, strict=True)):
            steps[o, 0], steps[o, 4 - len(shape) :] = offset[0], offset[1:]
            weights[o][group.p] = group.weight
        grid = grid_of(shape, rows.shape[1], steps)
        links = lay_out_links(weights.reshape(-1, grid.n_slabs, grid.n_rows, grid.width), grid)
        terms = Terms(empty_tiles(grid), links, steps, pairs, np.float32(damping))
        write_tiles(rows.reshape(-1), grid, terms.costs)
        sweeps = cls(terms, grid, empty_tiles(grid))
        replace(sweeps, terms=terms._replace(offsets=steps[:0], damping=np.float32(0))).run(1)
        return sweeps

    def run(self, n_sweeps: int) -> list[float]:
        """Make so many sweeps; returns the largest change of a marginal in each."""
        n_slabs = self.grid.n_slabs
        n_parts = max(1, min(get_num_threads(), n_slabs // 8))
        borders = np.arange(n_parts + 1) * n_slabs // n_parts
        slab = 8 * self.tiles.size // n_slabs
        most = max(1, _CACHED // slab // 2)
        if n_parts > 1:
            most = min(most, n_slabs // n_parts // 4)
        changes: list[float] = []
        while len(changes) < n_sweeps:
            together = min(most, n_sweeps - len(changes))
            changes += sweep_grid(self.terms, self.grid, borders, together, self.tiles).tolist()
        return changes

    def marginals(self) -> Singles:
        """As they are now, (n, L)."""
        grid = self.grid
        shape = (grid.n_slabs * grid.n_rows * grid.width, grid.n_labels)
        marginals = np.empty(shape, np.float32)
        read_tiles(self.tiles, grid, marginals.reshape(-1))
        return marginals


@dataclass(frozen=True, eq=False)
class GraphSweeps:
    """Visits the nodes of each colour of a greedy colouring in turn."""

    costs: Singles
    first: NDArray[np.int64]
    neighbours: NDArray[np.int32]
    weights: Singles
    colors: tuple[NDArray[np.int32], ...]
    pairs: Singles
    damping: np.float32
    rows: Singles

    @classmethod
    def build(
        cls,
        rows: Singles,
        groups: Sequence[EdgeGroup],
        shape: tuple[int, ...],
        pairs: Singles,
        damping: float,
    ) -> GraphSweeps:
        i, j, strengths = edge_list(groups, shape)
        tails, heads = np.concatenate([i, j]), np.concatenate([j, i])
        order = np.argsort(tails, kind="stable")
        first = np.zeros(len(rows) + 1, np.int64)
        np.cumsum(np.bincount(tails, minlength=len(rows)), out=first[1:])
        neighbours = heads[order].astype(np.int32)
        weights = np.concatenate([strengths, strengths])[order].astype(np.float32)
        colors = color_graph(first, neighbours)
        nodes = [np.flatnonzero(colors == c).astype(np.int32) for c in range(int(colors.max()) + 1)]
        factor, start = np.float32(damping), proba_from_costs(rows)
        return cls(rows, first, neighbours, weights, tuple(nodes), pairs, factor, start)

    def run(self, n_sweeps: int) -> list[float]:
        """Make so many sweeps; returns the largest change of a marginal in each."""
        return [max(map(self._update, self.colors)) for _ in range(n_sweeps)]

    def _update(self, nodes: NDArray[np.int32]) -> float:
        graph = (self.costs, self.first, self.neighbours, self.weights)
        return sweep_graph(*graph, nodes, self.pairs, self.damping, self.rows)

    def marginals(self) -> Singles:
        """As they are now, (n, L)."""
        return self.rows
