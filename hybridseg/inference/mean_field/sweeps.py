"""Sweeps of mean field over the nodes of a grid or graph, one color at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

from hybridseg.kernels._compile import get_num_threads
from hybridseg.kernels.sparse.graph_mean_field import LANES as VECTOR
from hybridseg.kernels.sparse.graph_mean_field import Graph, color_graph, sweep_graph
from hybridseg.kernels.sparse.grid_mean_field import (
    Grid,
    Terms,
    empty_tiles,
    grid_of,
    lay_out_links,
    read_tiles,
    sweep_grid,
    write_tiles,
)
from hybridseg.kernels.vectors.padding import padded
from hybridseg.pairwise.edges import EdgeGroup, edge_list
from hybridseg.scene.costs import proba_from_costs

Singles = NDArray[np.float32]

#: The largest size of costs and marginals, in bytes, for sweeps that follow one another in a block:
#: the part of the last-level cache that one thread can expect.
_MAX_CACHED_BYTES = 1 << 22

#: The cost of the labels that pad a vector.
_PADDING_COST = 3e38


def sweeps_over(
    rows: Singles,
    groups: Sequence[EdgeGroup],
    shape: tuple[int, ...],
    pairs: Singles,
    damping: float,
) -> GridSweeps | GraphSweeps | LoneSweeps:
    """Return the sweeps: by parity on grids of adjacent pixels, by coloring on other graphs.

    Without edges, all nodes are updated at once. ``rows`` (n, L) are the costs, ``pairs`` (L, L) is
    the compatibility, of shape (0, 0) for Potts.
    """
    if not groups:
        return LoneSweeps(rows, damping, proba_from_costs(rows))
    if len(shape) > 1:
        offsets = [group.offset for group in groups]
        near = [o for o in offsets if o is not None and max(map(abs, o)) <= 1]
        if len(near) == len(offsets):
            return GridSweeps.build(rows, groups, near, shape, pairs, damping)
    return GraphSweeps.build(rows, groups, shape, pairs, damping)


@dataclass(frozen=True, eq=False)
class GridSweeps:
    """Sweeps over a pixel grid, one parity at a time; costs and marginals are stored in tiles."""

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

    def set_costs(self, rows: Singles) -> None:
        """Replace the costs (n, L)."""
        write_tiles(np.ascontiguousarray(rows).reshape(-1), self.grid, self.terms.costs)

    def start_from(self, marginals: Singles) -> None:
        """Replace the marginals (n, L)."""
        write_tiles(np.ascontiguousarray(marginals).reshape(-1), self.grid, self.tiles)

    def run(self, n_sweeps: int) -> list[float]:
        """Make ``n_sweeps`` sweeps; return the largest change of a marginal in each."""
        n_slabs = self.grid.n_slabs
        n_parts = max(1, min(get_num_threads(), n_slabs // 8))
        borders = np.arange(n_parts + 1) * n_slabs // n_parts
        slab = 8 * self.tiles.size // n_slabs
        most = max(1, _MAX_CACHED_BYTES // slab // 2)
        if n_parts > 1:
            most = min(most, n_slabs // n_parts // 4)
        changes: list[float] = []
        while len(changes) < n_sweeps:
            together = min(most, n_sweeps - len(changes))
            changes += sweep_grid(self.terms, self.grid, borders, together, self.tiles).tolist()
        return changes

    def marginals(self) -> Singles:
        """Return the current marginals (n, L)."""
        grid = self.grid
        shape = (grid.n_slabs * grid.n_rows * grid.width, grid.n_labels)
        marginals = np.empty(shape, np.float32)
        read_tiles(self.tiles, grid, marginals.reshape(-1))
        return marginals


@dataclass(frozen=True, eq=False)
class GraphSweeps:
    """Sweeps over a graph, one color of a greedy coloring at a time."""

    graph: Graph
    n_labels: int
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
        ends = np.concatenate([i, j]), np.concatenate([j, i])
        values = np.concatenate([strengths, strengths]).astype(np.float32)
        table = coo_array((values, ends), shape=(len(rows), len(rows))).tocsr()
        first, neighbors = table.indptr.astype(np.int64), table.indices.astype(np.int32)
        colors = color_graph(first, neighbors)
        nodes = np.argsort(colors, kind="stable").astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(np.bincount(colors))])
        graph = Graph(
            *(
                _padded_rows(_above_least(rows), _PADDING_COST),
                first,
                neighbors,
                table.data,
                nodes,
                starts,
            ),
            *(_padded_rows(pairs, 0), np.float32(damping)),
        )
        return cls(graph, rows.shape[1], _padded_rows(proba_from_costs(rows), 0))

    def set_costs(self, rows: Singles) -> None:
        """Replace the costs (n, L)."""
        self.graph.costs[:, : self.n_labels] = _above_least(rows)

    def start_from(self, marginals: Singles) -> None:
        """Replace the marginals (n, L)."""
        self.rows[:, : self.n_labels] = marginals

    def run(self, n_sweeps: int) -> list[float]:
        """Make ``n_sweeps`` sweeps; return the largest change of a marginal in each."""
        changes: list[float] = sweep_graph(self.graph, n_sweeps, self.rows).tolist()
        return changes

    def marginals(self) -> Singles:
        """Return the current marginals (n, L)."""
        return np.ascontiguousarray(self.rows[:, : self.n_labels])


@dataclass(eq=False)
class LoneSweeps:
    """Sweeps over nodes without edges: each gets the marginals of its costs."""

    costs: Singles
    damping: float
    rows: Singles

    def set_costs(self, rows: Singles) -> None:
        """Replace the costs (n, L)."""
        self.costs = rows

    def start_from(self, marginals: Singles) -> None:
        """Replace the marginals (n, L)."""
        self.rows = marginals

    def run(self, n_sweeps: int) -> list[float]:
        """Make ``n_sweeps`` sweeps; return the largest change of a marginal in each."""
        changes = []
        best = proba_from_costs(self.costs)
        for _ in range(n_sweeps):
            before, self.rows = self.rows, best + np.float32(self.damping) * (self.rows - best)
            changes.append(float(np.abs(self.rows - before).max()))
        return changes

    def marginals(self) -> Singles:
        """Return the current marginals (n, L)."""
        return self.rows


def _above_least(rows: Singles) -> Singles:
    """Return costs above each row's minimum, so that padding labels stay the most expensive."""
    with np.errstate(over="ignore"):
        above: Singles = rows - rows.min(axis=1, keepdims=True)
    return above


def _padded_rows(rows: Singles, value: float) -> Singles:
    """Return rows (n, L) padded with ``value`` to a multiple of the vector length."""
    n_rows, n_labels = rows.shape
    wide = np.full((n_rows, padded(n_labels, VECTOR)), value, np.float32)
    wide[:, :n_labels] = rows
    return wide
