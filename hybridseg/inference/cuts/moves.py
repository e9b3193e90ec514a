"""Minimization by cuts: one exact cut for two labels, expansion or swap moves for more.

All functions work on a checked `EnergyGraph` with flat nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridseg.inference.cuts.auxiliary import Arcs, CliqueNodes, with_leaving_costs
from hybridseg.inference.cuts.grid_cuts import fits_grid
from hybridseg.kernels.cuts.expansion import expansion_graph, move_graph, potts_energy
from hybridseg.kernels.cuts.maxflow import build_arcs, maxflow, source_side
from hybridseg.kernels.sparse.grid_messages import LANES as STRIPS
from hybridseg.pairwise.edges import EdgeGroup, edge_list
from hybridseg.pairwise.higher_order.presence import PresenceCosts


class Grid(NamedTuple):
    """The positions of a graph's nodes in an image.

    Attributes
    ----------
    shape : tuple of int
        (Z, H, W), with Z = 1 for an image.
    offsets : ndarray of int64, (K, 3)
        The steps from a pixel to its later neighbors. Edge k N + v starts at pixel v with step k.
    """

    shape: tuple[int, int, int]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, groups: Sequence[EdgeGroup], shape: tuple[int, ...]) -> Grid | None:
        """Return the grid of checked weights; None for other graphs and for very small images."""
        groups = [group for group in groups if group.weight.size]
        if not groups or len(shape) > 3 or not fits_grid(groups, shape):
            return None
        n_slices, n_rows, n_columns = shape if len(shape) == 3 else (1, *shape)
        if n_rows <= STRIPS or n_columns < 3:
            return None
        offsets = np.zeros((len(groups), 3), np.int64)
        for row, group in zip(offsets, groups, strict=True):
            steps = [q.start - p.start for p, q in zip(group.p, group.q, strict=True)]
            row[3 - len(shape) :] = max(steps, [-step for step in steps])
        return cls((n_slices, n_rows, n_columns), offsets)


class EnergyGraph(NamedTuple):
    """An energy on flat nodes: arcs of the kernel ``build_arcs``, and costs.

    Attributes
    ----------
    first : ndarray of int32, (N + 1,)
    head, rev : ndarray of int32, (2E,)
    weight : ndarray of int64 or float64, (2E,)
    unary : ndarray, (N, L)
        int64 if and only if ``weight`` is; otherwise float32 or float64.
    cost : ndarray, (L, L), optional
        The compatibility, in the dtype of ``weight``. None: Potts.
    grid : Grid, optional
        Given if the nodes are all pixels of an image and every pixel has the same neighborhood.
    costs_of_set : PresenceCosts, optional
        The costs of the set of labels that occur, >= 0, in the dtype of ``weight``.
    counted : ndarray of bool, (N,), optional
        The nodes whose labels count for ``costs_of_set``; given with these.
    cliques : CliqueNodes, optional
        Sets of nodes that should agree, with costs in the dtype of ``weight``.
    """

    first: NDArray[np.int32]
    head: NDArray[np.int32]
    rev: NDArray[np.int32]
    weight: NDArray[Any]
    unary: NDArray[Any]
    cost: NDArray[Any] | None = None
    grid: Grid | None = None
    costs_of_set: PresenceCosts | None = None
    counted: NDArray[np.bool_] | None = None
    cliques: CliqueNodes | None = None

    @classmethod
    def build(
        cls, i: NDArray[Any], j: NDArray[Any], weight: NDArray[Any], unary: NDArray[Any]
    ) -> EnergyGraph:
        """Build the graph from an edge list and costs (N, L); integers stay integers."""
        exact = weight.dtype.kind == unary.dtype.kind == "i"
        if not exact and unary.dtype.kind == "i":
            unary = unary.astype(np.float64)
        first, head, rev, strengths = build_arcs(
            len(unary),
            np.array(i, dtype=np.int32),
            np.array(j, dtype=np.int32),
            weight.astype(np.int64 if exact else np.float64),
        )
        return cls(first, head, rev, strengths, unary)

    def energy(self, labels: NDArray[np.int32]) -> int | float:
        """Return the energy of ``labels`` (N,), in 64 bits."""
        if self.cost is None:
            found = potts_energy(self.first, self.head, self.weight, self.unary, labels)
        else:
            tail = np.repeat(np.arange(len(labels), dtype=np.int32), np.diff(self.first))
            once = tail < self.head
            pairs = self.cost[labels[tail[once]], labels[self.head[once]]]
            found = np.take_along_axis(self.unary, labels[:, np.newaxis], 1).sum(
                dtype=self.weight.dtype
            ) + (self.weight[once] * pairs).sum(dtype=self.weight.dtype)
        if self.costs_of_set is not None:
            found += self.costs_of_set.of_set(np.unique(labels[self.counted]))
        if self.cliques is not None:
            found += self.cliques.cliques.cost(labels, self.unary.shape[1])
        return int(found) if self.weight.dtype.kind == "i" else float(found)


Cut = Callable[[Arcs, NDArray[Any], NDArray[Any]], NDArray[np.bool_]]


def cut_numba(graph: Arcs, cap: NDArray[Any], excess: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the smallest source side of a minimum cut, (N,); overwrite ``cap`` and ``excess``."""
    maxflow(graph.first, graph.head, graph.rev, cap, excess)
    sides: NDArray[np.bool_] = source_side(graph.first, graph.head, cap, excess)
    return sides


def cut_pymaxflow(graph: Arcs, cap: NDArray[Any], excess: NDArray[Any]) -> NDArray[np.bool_]:
    """Return the result of :func:`cut_numba`, computed by PyMaxflow.

    PyMaxflow puts undecided nodes on the source side, so the terminals are swapped to get the
    smallest source side.
    """
    library = _import_pymaxflow()
    n_nodes = len(excess)
    tail = np.repeat(np.arange(n_nodes, dtype=np.int32), np.diff(graph.first))
    once = np.flatnonzero(tail < graph.head)
    network = library.Graph[int if cap.dtype.kind == "i" else float](n_nodes, len(once))
    nodes = network.add_grid_nodes((n_nodes,))
    if len(once):
        network.add_edges(tail[once], graph.head[once], cap[graph.rev[once]], cap[once])
    network.add_grid_tedges(nodes, np.maximum(-excess, 0), np.maximum(excess, 0))
    network.maxflow()
    sides: NDArray[np.bool_] = network.get_grid_segments(nodes)
    return sides


def _import_pymaxflow() -> Any:
    try:
        import maxflow as library
    except ImportError as error:
        raise ImportError(
            "solver='pymaxflow' needs the package PyMaxflow, which is not installed: "
            "`pip install hybridseg[pymaxflow]` (its license is the GPL, so it is optional), or "
            "use solver='numba'."
        ) from error
    return library


#: The max-flow solvers by name.
CUTS: dict[str, Cut] = {"numba": cut_numba, "pymaxflow": cut_pymaxflow}


class Descent(NamedTuple):
    """The result of the moves."""

    labels: NDArray[np.int32]
    energies: tuple[int | float, ...]
    n_iter: int
    converged: bool


def expand(
    graph: EnergyGraph, labels: NDArray[np.int32], alpha: int, cut: Cut = cut_numba
) -> NDArray[np.int32]:
    """Return the best labeling in which every node keeps its label or takes ``alpha``.

    With equal energies, a node keeps its label. If pairs of labels have costs, the labeling is
    the better one of two that are near the best; see `_leaving_costs`.
    """
    if graph.cost is not None and graph.costs_of_set is None:
        return propose(graph, labels, np.full_like(labels, alpha), cut)
    cap = np.empty_like(graph.weight)
    excess = np.empty(len(labels), graph.weight.dtype)
    arcs = graph.first, graph.head, graph.weight, graph.unary
    if graph.cost is None:
        expansion_graph(*arcs, labels, alpha, cap, excess)
    else:
        move_graph(*arcs, labels, np.full_like(labels, alpha), graph.cost, cap, excess)
    network = _with_cliques(graph, labels, np.full_like(labels, alpha), cap, excess)
    if graph.costs_of_set is None:
        return np.where(cut(*network)[: len(labels)], np.int32(alpha), labels)
    assert graph.counted is not None
    found, least = labels, graph.energy(labels)
    for costs in _leaving_costs(graph, labels, alpha):
        charged = with_leaving_costs(network[0], labels, alpha, graph.counted, costs, *network[1:])
        taken = cut(*charged)[: len(labels)]
        moved = np.where(taken, np.int32(alpha), labels)
        if (lowered := graph.energy(moved)) < least:
            found, least = moved, lowered
    return found


def _leaving_costs(graph: EnergyGraph, labels: NDArray[np.int32], alpha: int) -> list[NDArray[Any]]:
    """Return what an expansion saves if all nodes of a label leave it: (L,), in one or two ways.

    A label l saves its own cost and the one that it has together with ``alpha``. The cost of a pair
    l and m of other labels that occur is saved if either leaves, which no cut can express. Two sums
    replace it. Half for each of both is never more than what is saved, and equal if both leave, so
    that the true energy falls by at least as much as that of the cut (the overestimation of section
    3.1 of [1]_). The whole for each is exact unless both leave; then it counts the pair twice.

    References
    ----------
    .. [1] L. Ladicky, C. Russell, P. Kohli, P. H. S. Torr, "Graph cut based inference with
       co-occurrence statistics", ECCV, 2010.
    """
    assert graph.costs_of_set is not None
    single, joint = graph.costs_of_set
    if joint is None:
        return [single]
    occurs = np.zeros(len(single), bool)
    occurs[labels[graph.counted]] = True
    occurs[alpha] = False
    own = single + joint[alpha]
    pairs = np.where(np.outer(occurs, occurs), joint, 0)
    if not pairs.any():
        return [own]
    # Of integers, the label with the lower number gets the larger half.
    lower = pairs // 2 if pairs.dtype.kind == "i" else pairs / 2
    halves = np.triu(pairs - lower) + np.tril(lower)
    return [own + halves.sum(axis=1), own + pairs.sum(axis=1)]


def _with_cliques(
    graph: EnergyGraph,
    labels: NDArray[np.int32],
    proposal: NDArray[np.int32],
    cap: NDArray[Any],
    excess: NDArray[Any],
) -> tuple[Arcs, NDArray[Any], NDArray[Any]]:
    """Return the graph of a move with the costs of its cliques."""
    if graph.cliques is None:
        return graph, cap, excess
    return graph.cliques.joined(labels, proposal, graph.unary.shape[1], cap, excess)


def swap(
    graph: EnergyGraph, labels: NDArray[np.int32], alpha: int, beta: int, cut: Cut = cut_numba
) -> NDArray[np.int32]:
    """Return the best labeling in which nodes of ``alpha`` and ``beta`` may exchange these labels.

    It returns ``labels`` if none is better, and the fewest nodes of ``beta`` among equal ones.
    """
    taking_part = (labels == alpha) | (labels == beta)
    if not taking_part.any():
        return labels
    start = np.where(taking_part, np.int32(alpha), labels)
    other = np.where(taking_part, np.int32(beta), labels)
    moved = propose(graph, start, other, cut)
    if graph.costs_of_set is not None:  # both labels occur, or only one of them
        moved = min(moved, start, other, key=graph.energy)
    return moved if graph.energy(moved) < graph.energy(labels) else labels


def propose(
    graph: EnergyGraph,
    labels: NDArray[np.int32],
    proposal: NDArray[np.int32],
    cut: Cut = cut_numba,
) -> NDArray[np.int32]:
    """Return the best labeling in which every node keeps its label or takes the proposed one.

    With cliques, all nodes that may change must be proposed the same label.
    """
    cost = graph.cost
    if cost is None:
        cost = (1 - np.eye(graph.unary.shape[1])).astype(graph.weight.dtype)
    cap = np.empty_like(graph.weight)
    excess = np.empty(len(labels), graph.weight.dtype)
    move_graph(
        *(graph.first, graph.head, graph.weight, graph.unary),
        *(labels, proposal, cost, cap, excess),
    )
    taken = cut(*_with_cliques(graph, labels, proposal, cap, excess))[: len(labels)]
    return np.where(taken, proposal, labels)


def binary_cut(graph: EnergyGraph, cut: Cut = cut_numba) -> Descent:
    """Return the optimum of two labels: the expansion of label 1 from label 0 everywhere."""
    labels = expand(graph, np.zeros(len(graph.unary), np.int32), 1, cut)
    return Descent(labels, (graph.energy(labels),), 1, True)


def expansion_moves(
    graph: EnergyGraph, labels: NDArray[np.int32], max_iter: int, cut: Cut = cut_numba
) -> Descent:
    """Make alpha-expansions (section 5 of [1]_), each with a cut from scratch.

    References
    ----------
    .. [1] Y. Boykov, O. Veksler, R. Zabih, "Fast approximate energy minimization via graph cuts",
       PAMI 23(11), 2001.
    """
    moves = [partial(expand, alpha=alpha, cut=cut) for alpha in range(graph.unary.shape[1])]
    return _sweep(graph, labels, moves, max_iter)


def swap_moves(
    graph: EnergyGraph, labels: NDArray[np.int32], max_iter: int, cut: Cut = cut_numba
) -> Descent:
    """Make alpha-beta swaps (section 4 of [1]_) over all pairs of labels.

    References
    ----------
    .. [1] Y. Boykov, O. Veksler, R. Zabih, "Fast approximate energy minimization via graph cuts",
       PAMI 23(11), 2001.
    """
    pairs = combinations(range(graph.unary.shape[1]), 2)
    moves = [partial(swap, alpha=alpha, beta=beta, cut=cut) for alpha, beta in pairs]
    return _sweep(graph, labels, moves, max_iter)


def _sweep(
    graph: EnergyGraph,
    labels: NDArray[np.int32],
    moves: Sequence[Callable[[EnergyGraph, NDArray[np.int32]], NDArray[np.int32]]],
    max_iter: int,
) -> Descent:
    """Make all moves in turn; keep each only if it lowers the energy.

    Converged: all other moves have failed since the last success (repeating the successful move
    changes nothing).
    """
    energies = [graph.energy(labels)]
    now, failed = energies[0], 0
    for step in range(max_iter * len(moves)):
        moved = moves[step % len(moves)](graph, labels)
        lowered = now if np.array_equal(moved, labels) else graph.energy(moved)
        failed += 1
        if lowered < now:
            labels, now, failed = moved, lowered, 1
        if failed == len(moves) or (step + 1) % len(moves) == 0:
            energies.append(now)
        if failed == len(moves):
            return Descent(labels, tuple(energies), step // len(moves) + 1, True)
    return Descent(labels, tuple(energies), max_iter, False)


def energy_graph(
    costs: NDArray[Any], groups: Sequence[EdgeGroup], pairs: NDArray[Any] | None
) -> EnergyGraph:
    """Return the graph of checked costs and edges."""
    i, j, strengths = edge_list(groups, costs.shape[:-1])
    if pairs is not None and pairs.dtype.kind == "f":
        strengths = np.asarray(strengths, np.float64)
    graph = EnergyGraph.build(i, j, strengths, costs.reshape(-1, costs.shape[-1]))
    return graph._replace(
        cost=None if pairs is None else pairs.astype(graph.weight.dtype),
        grid=Grid.of(groups, costs.shape[:-1]),
    )


def with_seeds(graph: EnergyGraph, seeds: NDArray[np.int64]) -> EnergyGraph:
    """Return the graph with seeds: a seed's label costs 0, other labels more than all edges."""
    nodes = np.flatnonzero(seeds >= 0)
    n_nodes = len(seeds)
    # Sums for each node: differences of cumulative sums would lose small weights.
    tail = np.repeat(np.arange(n_nodes), np.diff(graph.first))
    sums: NDArray[Any] = np.bincount(tail, graph.weight, n_nodes)
    unary = graph.unary.astype(graph.weight.dtype)  # int64 or float64
    if graph.cost is not None:
        sums = sums * float(graph.cost.max(initial=0))
    forbidding = np.ceil(1.001 * sums[nodes]) + 1
    if graph.cliques is not None:
        forbidding += np.ceil(1.001 * graph.cliques.largest_changes[nodes])
    if graph.costs_of_set is not None:
        forbidding += np.ceil(1.001 * graph.costs_of_set.sum)
    unary[nodes] = forbidding[:, np.newaxis].astype(unary.dtype)
    unary[nodes, seeds[nodes]] = 0
    return graph._replace(unary=unary)
