"""Labellings lowered by cuts: one exact cut for two labels, expansion or swap moves for more.

Every public solver here works on an `EnergyGraph`, flat and checked; users see
:func:`hybridseg.inference.graph_cut`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels import _simd
from hybridseg.kernels.coarsening import cells_bound, merge_costs, merge_edges, pair_nodes
from hybridseg.kernels.expansion import expansion_graph, move_graph, potts_energy
from hybridseg.kernels.expansion_flow import expand_label, fit_flows, own_heights, refresh
from hybridseg.kernels.maxflow import build_arcs, maxflow, source_side
from hybridseg.kernels.potts_messages import LANES, edge_numbers, send_messages, settle_flows


class EnergyGraph(NamedTuple):
    """An energy on flat nodes: arcs as from the kernel ``build_arcs``, and costs.

    Attributes
    ----------
    first : ndarray of int32, (N + 1,)
    head, rev : ndarray of int32, (2E,)
    weight : ndarray of int64 or float64, (2E,)
    unary : ndarray, (N, L)
        int64 if and only if ``weight`` is; otherwise float32 or float64.
    cost : ndarray, (L, L), optional
        What a pair of labels costs, times the weight, in the dtype of ``weight``. None: Potts.
    """

    first: NDArray[np.int32]
    head: NDArray[np.int32]
    rev: NDArray[np.int32]
    weight: NDArray[Any]
    unary: NDArray[Any]
    cost: NDArray[Any] | None = None

    @classmethod
    def build(
        cls, i: NDArray[Any], j: NDArray[Any], weight: NDArray[Any], unary: NDArray[Any]
    ) -> EnergyGraph:
        """Put an edge list and costs (N, L) together; all integers stay integers."""
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
        """The energy of ``labels`` (N,), in 64 bits."""
        if self.cost is None:
            found = potts_energy(self.first, self.head, self.weight, self.unary, labels)
        else:
            tail = np.repeat(np.arange(len(labels), dtype=np.int32), np.diff(self.first))
            once = tail < self.head
            pairs = self.cost[labels[tail[once]], labels[self.head[once]]]
            found = np.take_along_axis(self.unary, labels[:, np.newaxis], 1).sum(
                dtype=self.weight.dtype
            ) + (self.weight[once] * pairs).sum(dtype=self.weight.dtype)
        return int(found) if self.weight.dtype.kind == "i" else float(found)


Cut = Callable[[EnergyGraph, NDArray[Any], NDArray[Any]], NDArray[np.bool_]]


def cut_numba(graph: EnergyGraph, cap: NDArray[Any], excess: NDArray[Any]) -> NDArray[np.bool_]:
    """The smallest source side of a minimum cut, (N,) bool; overwrites ``cap`` and ``excess``."""
    _, level = maxflow(graph.first, graph.head, graph.rev, cap, excess)
    sides: NDArray[np.bool_] = source_side(graph.first, graph.head, cap, level)
    return sides


def cut_pymaxflow(graph: EnergyGraph, cap: NDArray[Any], excess: NDArray[Any]) -> NDArray[np.bool_]:
    """The same by PyMaxflow, which is asked for by name only.

    Its free nodes count to the source, so the terminals are swapped to make our side the smallest.
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
            "`pip install hybridseg[pymaxflow]` (its licence is the GPL, so it is optional), or "
            "use solver='numba'."
        ) from error
    return library


#: The solvers of a single cut.
CUTS: dict[str, Cut] = {"numba": cut_numba, "pymaxflow": cut_pymaxflow}


class Descent(NamedTuple):
    """How far the moves came."""

    labels: NDArray[np.int32]
    energies: tuple[int | float, ...]
    n_iter: int
    converged: bool


def expand(
    graph: EnergyGraph, labels: NDArray[np.int32], alpha: int, cut: Cut = cut_numba
) -> NDArray[np.int32]:
    """The best labelling in which every node keeps its label or takes ``alpha``.

    Where the energy does not decide, a node keeps its label.
    """
    if graph.cost is not None:
        return propose(graph, labels, np.full_like(labels, alpha), cut)
    cap = np.empty_like(graph.weight)
    excess = np.empty(len(labels), graph.weight.dtype)
    expansion_graph(graph.first, graph.head, graph.weight, graph.unary, labels, alpha, cap, excess)
    return np.where(cut(graph, cap, excess), np.int32(alpha), labels)


def swap(
    graph: EnergyGraph, labels: NDArray[np.int32], alpha: int, beta: int, cut: Cut = cut_numba
) -> NDArray[np.int32]:
    """The best labelling in which the nodes of ``alpha`` and ``beta`` share these out anew.

    ``labels`` themselves where none is better; of several, that with the fewest nodes of ``beta``.
    """
    taking_part = (labels == alpha) | (labels == beta)
    if not taking_part.any():
        return labels
    start = np.where(taking_part, np.int32(alpha), labels)
    moved = propose(graph, start, np.where(taking_part, np.int32(beta), labels), cut)
    return moved if graph.energy(moved) < graph.energy(labels) else labels


def propose(
    graph: EnergyGraph,
    labels: NDArray[np.int32],
    proposal: NDArray[np.int32],
    cut: Cut = cut_numba,
) -> NDArray[np.int32]:
    """The best labelling in which every node keeps its label or takes what is proposed."""
    cost = graph.cost
    if cost is None:
        cost = (1 - np.eye(graph.unary.shape[1])).astype(graph.weight.dtype)
    cap = np.empty_like(graph.weight)
    excess = np.empty(len(labels), graph.weight.dtype)
    move_graph(
        *(graph.first, graph.head, graph.weight, graph.unary),
        *(labels, proposal, cost, cap, excess),
    )
    return np.where(cut(graph, cap, excess), proposal, labels)


def binary_cut(graph: EnergyGraph, cut: Cut = cut_numba) -> Descent:
    """The optimum of two labels: the expansion of label 1 from label 0 everywhere."""
    labels = expand(graph, np.zeros(len(graph.unary), np.int32), 1, cut)
    return Descent(labels, (graph.energy(labels),), 1, True)


def expansion_moves(
    graph: EnergyGraph, labels: NDArray[np.int32], max_iter: int, cut: Cut = cut_numba
) -> Descent:
    """Alpha-expansion (Boykov, Veksler & Zabih 2001, section 5), each move cut from scratch."""
    moves = [partial(expand, alpha=alpha, cut=cut) for alpha in range(graph.unary.shape[1])]
    return _sweep(graph, labels, moves, max_iter)


def swap_moves(
    graph: EnergyGraph, labels: NDArray[np.int32], max_iter: int, cut: Cut = cut_numba
) -> Descent:
    """Alpha-beta swaps (Boykov, Veksler & Zabih 2001, section 4), over all pairs of labels."""
    pairs = combinations(range(graph.unary.shape[1]), 2)
    moves = [partial(swap, alpha=alpha, beta=beta, cut=cut) for alpha, beta in pairs]
    return _sweep(graph, labels, moves, max_iter)


def _sweep(
    graph: EnergyGraph,
    labels: NDArray[np.int32],
    moves: Sequence[Callable[[EnergyGraph, NDArray[np.int32]], NDArray[np.int32]]],
    max_iter: int,
) -> Descent:
    """Make all moves in turn; one counts only if it lowers the energy.

    Converged: each move has failed since the last success (a move right after itself changes
    nothing, so that one need not fail again).
    """
    energies = [graph.energy(labels)]
    now, failed = energies[0], 0
    for step in range(max_iter * len(moves)):
        moved = moves[step % len(moves)](graph, labels)
        lowered = graph.energy(moved)
        failed += 1
        if lowered < now:
            labels, now, failed = moved, lowered, 1
        if failed == len(moves) or (step + 1) % len(moves) == 0:
            energies.append(now)
        if failed == len(moves):
            return Descent(labels, tuple(energies), step // len(moves) + 1, True)
    return Descent(labels, tuple(energies), max_iter, False)


#: Below so many nodes, moves start from what message passing found.
SMALLEST = 1000

#: The share of the gap that pairing nodes may take, if cells are to be tried. On pictures it was
#: 0.02 where cells brought a better start, and above 0.25 where they did not.
LARGE_SHARE = 0.125


def merge(graph: EnergyGraph, cell: NDArray[np.int32], n_cells: int, n_labels: int) -> EnergyGraph:
    """The energy of the labellings that are constant on cells, in floats."""
    i, j, weight = merge_edges(graph.first, graph.head, graph.weight, cell, n_cells)
    return EnergyGraph.build(i, j, weight, merge_costs(graph.unary, cell, n_cells, n_labels))


class Flows:
    """Labels, and the flows that let expansion moves go on from one another.

    The energy is held in whole numbers: costs and weights times a power of two and rounded, in 32
    bits where that is finer than a millionth of the median weight (or exact), otherwise in 64.
    Costs that no good labelling pays are cut off first, at twice what all edges of the node cost.

    Parameters
    ----------
    graph : EnergyGraph
    n_sweeps : int
        Sweeps of message passing; they make good flows, a bound, and a labelling to start from.
        Where labels that are constant on cells of eight nodes promise less energy, those are sought
        by the same means on the smaller graph of cells.
    rough : bool, default=False
        Whether 32 bits do, whatever they round.

    Attributes
    ----------
    labels : ndarray of int32, (N,)
    bound : int or float
        No labelling is below, but for rounding where costs are not integers.
    """

    def __init__(self, graph: EnergyGraph, n_sweeps: int, rough: bool = False) -> None:
        n_nodes, n_labels = graph.unary.shape
        self.graph = graph
        self._edge = edge_numbers(graph.first, graph.head, graph.rev)
        self.labels = np.empty(n_nodes, np.int32)
        self._weight, costs, least, scale = _whole_costs(graph, rough)
        unary = _simd.aligned(costs.shape, np.float32)
        unary[:] = costs
        flow, bound = self._pass_messages(unary, costs, n_sweeps)  # costs turn into heights
        self.bound = _as_bound(graph, bound, least, scale)
        start = self.labels
        if n_nodes >= SMALLEST:
            reached = (graph.energy(start) - least.sum().item()) * scale
            start = self._better_start(unary, costs, bound, reached, n_sweeps)
        self._flow = np.ascontiguousarray(flow[:, :n_labels].T)
        self._height = np.ascontiguousarray(costs[:, :n_labels].T)
        self._own = np.empty(n_nodes, np.int64)
        self._tree = np.full((n_nodes, 4), -1, np.int32)
        self._lists = np.empty((3, n_nodes), np.int32)
        self._cap = np.empty(len(graph.head), self._flow.dtype)
        self._rest = np.empty(n_nodes, self._flow.dtype)
        self._marked = np.zeros(n_nodes, bool)
        self._touched = np.empty(n_nodes, np.int32)
        self._waiting: list[list[NDArray[np.int32]]] = []
        self.start_from(start)

    def _pass_messages(
        self, unary: NDArray[np.float32], costs: NDArray[Any], n_sweeps: int
    ) -> tuple[NDArray[Any], int]:
        """Make flows, heights of the ``costs``, and the labels to start from; gives the bound."""
        graph, n_labels = self.graph, self.graph.unary.shape[1]
        arcs = (graph.first, graph.head, self._edge)
        weight = self._weight.astype(np.float32)
        messages = _simd.aligned((len(graph.head) // 2, costs.shape[1]), np.float32)
        for _ in range(n_sweeps):
            send_messages(*arcs, weight, unary, messages, True)
            send_messages(*arcs, weight, unary, messages, False)
        flow = np.empty(messages.shape, costs.dtype)
        bound = settle_flows(
            *arcs, self._weight, unary, messages, n_labels, costs, flow, self.labels
        )
        return flow, int(bound)

    def _better_start(
        self,
        unary: NDArray[np.float32],
        heights: NDArray[Any],
        bound: int,
        reached: float,
        n_sweeps: int,
    ) -> NDArray[np.int32]:
        """``self.labels``, or labels of less energy that are constant on cells of eight nodes.

        ``reached`` is the energy of ``self.labels``, in the whole numbers of ``bound``. If a good
        part of what lies between is lost already by pairing nodes, cells are not tried.
        """
        graph, n_labels = self.graph, self.graph.unary.shape[1]
        cell, n_cells = pair_nodes(graph.first, graph.head, self._weight)
        paired = cells_bound(heights, cell, n_cells, n_labels)
        if paired - bound >= LARGE_SHARE * (reached - bound):
            return self.labels
        cells = merge(graph._replace(weight=self._weight, unary=unary), cell, n_cells, n_labels)
        for _ in range(2):
            wider, n_cells = pair_nodes(cells.first, cells.head, cells.weight)
            cells = merge(cells, wider, n_cells, n_labels)
            cell = wider[cell]
        if 4 * n_cells > len(cell):  # few edges have weights
            return self.labels
        labels = flow_moves(Flows(cells, n_sweeps, rough=True), 1).labels[cell]
        return labels if graph.energy(labels) < graph.energy(self.labels) else self.labels

    def start_from(self, labels: NDArray[np.int32]) -> None:
        """Take other labels, and find which nodes may hold excess."""
        self.labels = labels.astype(np.int32)
        fit_flows(*self._state())
        most = np.empty_like(self._own)
        own_heights(*(*self._state(), self._own, most))
        self._waiting = [
            [np.flatnonzero(self._height[label] < most).astype(np.int32)]
            for label in range(self.graph.unary.shape[1])
        ]

    def _state(self) -> Any:
        graph = self.graph
        return (
            *(graph.first, graph.head, self._edge),
            *(self._weight, self._flow, self._height, self.labels),
        )

    def expand(self, alpha: int) -> bool:
        """Make the best move to ``alpha``; says whether any label changed."""
        waiting = self._waiting[alpha]
        self._waiting[alpha] = []
        nodes = np.concatenate([*waiting, np.empty(0, np.int32)])
        if not nodes.size:
            return False
        first, head, *rest = self._state()
        working = (self._cap, self._tree, self._rest, self._lists, self._marked)
        given = (first, head, self.graph.rev, *rest, self._own, alpha, nodes, *working)
        n_changed, _ = expand_label(*given)
        if n_changed == 0:
            return False
        changed = (self._lists[1, :n_changed], self._marked, self._touched)
        n_touched = refresh(*(*self._state(), self._own, *changed))
        touched = self._touched[:n_touched].copy()
        for label, others in enumerate(self._waiting):
            if label != alpha:
                others.append(touched)
        return True


def flow_moves(flows: Flows, max_iter: int) -> Descent:
    """`expansion_moves` from ``flows.labels``, where each move mends the flow of those before."""
    graph, n_labels = flows.graph, flows.graph.unary.shape[1]
    energies = [graph.energy(flows.labels)]
    best, failed = flows.labels.copy(), 0
    for step in range(max_iter * n_labels):
        failed = 1 if flows.expand(step % n_labels) else failed + 1
        if failed < n_labels and (step + 1) % n_labels:
            continue
        energies.append(graph.energy(flows.labels))
        if energies[-1] > energies[-2]:  # by what was rounded away: nothing is left to gain
            energies[-1] = energies[-2]
            return Descent(best, tuple(energies), step // n_labels + 1, True)
        best = flows.labels.copy()
        if failed == n_labels:
            return Descent(best, tuple(energies), step // n_labels + 1, True)
    return Descent(best, tuple(energies), max_iter, False)


def _whole_costs(
    graph: EnergyGraph, rough: bool
) -> tuple[NDArray[np.int64], NDArray[Any], Any, float]:
    """Weights (A,), costs (N, P) above each node's least, those least ones, and the scale.

    Costs are rounded up and weights down, so that what outweighs a node's edges goes on to do so.
    """
    n_nodes, n_labels = graph.unary.shape
    whole = graph.weight.dtype.kind == "i"
    tail = np.repeat(np.arange(n_nodes), np.diff(graph.first))
    around = np.bincount(tail, graph.weight, n_nodes)
    unary = graph.unary
    least = unary.min(axis=1).astype(graph.weight.dtype)
    limit = 2 * around
    spread = unary.max(axis=1) - least
    reach = float((np.minimum(spread, limit) + limit).max(initial=0)) + 1.0
    weights = graph.weight[graph.weight > 0]
    usual = float(np.median(weights)) if weights.size and not whole else math.inf
    bits = math.floor(math.log2(2.0**29 / reach))
    narrow = bits >= 0 if whole else rough or 2.0**-bits <= 1e-6 * usual
    if not narrow:
        bits = math.floor(math.log2(2.0**60 / reach))
    bits = max(bits, 0) if whole else bits
    dtype: Any = np.int32 if narrow else np.int64
    width = -(-n_labels // LANES) * LANES
    costs = np.full((n_nodes, width), 2**29 if narrow else 2**60, dtype)
    for start in range(0, n_nodes, 4096):  # what is at hand stays in the cache
        part = slice(start, start + 4096)
        over = unary[part] - least[part, np.newaxis]
        if whole:
            whole_top = np.ceil(limit[part]).astype(np.int64) + 1
            costs[part, :n_labels] = np.minimum(over, whole_top[:, np.newaxis]) << bits
        else:
            top = limit[part] + 2.0**-bits
            costs[part, :n_labels] = np.ceil(np.minimum(over, top[:, np.newaxis]) * 2.0**bits)
    scale = 2.0**bits
    weight = graph.weight << bits if whole else np.floor(graph.weight * scale).astype(np.int64)
    return weight, costs, least, scale


def _as_bound(graph: EnergyGraph, bound: int, least: NDArray[Any], scale: float) -> int | float:
    """The bound in the unit of the energy, with what rounding may have added taken off."""
    if graph.weight.dtype.kind == "i":
        return -(-bound // int(scale)) + int(least.sum())
    rounded = len(least)  # each cost by less than a unit upwards, the weights downwards
    total = bound / scale + float(least.sum(dtype=np.float64))
    slack = rounded / scale + 1e-12 * (abs(bound) / scale + float(np.abs(least).sum()))
    return total - slack
