"""Expansion moves of Potts energies that reuse flows, and message passing that starts them."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridseg.inference.cuts.moves import Descent, EnergyGraph
from hybridseg.kernels._compile import get_num_threads
from hybridseg.kernels.cuts.expansion_flow import expand_label, fit_flows, own_heights, refresh
from hybridseg.kernels.sparse.coarsening import cells_bound, merge_costs, merge_edges, pair_nodes
from hybridseg.kernels.sparse.grid_messages import LANES as STRIPS
from hybridseg.kernels.sparse.grid_messages import (
    count_shares,
    make_strips,
    pass_messages,
    settle_strips,
    strip_edges,
    to_strips,
)
from hybridseg.kernels.sparse.potts_messages import LANES, edge_numbers, send_messages, settle_flows
from hybridseg.kernels.sparse.whole_costs import cost_limits, round_costs, shift_costs
from hybridseg.kernels.vectors import simd as _simd
from hybridseg.kernels.vectors.padding import padded

#: Message passing stops after this many sweeps, or when a sweep raises the bound, for each label,
#: by less than this fraction of the sum of all weights. Moves are then faster than further sweeps.
#: Sweeps take longer on general graphs than on images.
MAX_SWEEPS = 100
MIN_GAIN_ON_IMAGES = 2e-6
MIN_GAIN = 2e-5

#: The number of moves that each thread prepares at a time. With fewer, threads wait for others;
#: with more, labels change too much before the last move.
MOVES_PER_THREAD = 2

#: The largest number of threads, which bounds the memory for their working space.
_MAX_THREADS = 8

#: Threads prepare a label's move only if at least one node in this many may change to it.
MIN_WAITING = 16

#: The smallest number of nodes for which several threads save time.
MIN_NODES_FOR_THREADS = 8192

#: The number of message-passing sweeps on cells; more take longer than they save.
CELL_SWEEPS = 10

#: The smallest number of nodes for which labels constant on cells are tried as a start.
MIN_NODES_FOR_CELLS = 1000

#: Cells are tried if joining nodes to pairs closes at most this fraction of the gap between bound
#: and energy. On images it was 0.02 where cells gave a better start, above 0.25 where not.
MAX_GAP_FRACTION = 0.125


def merge(graph: EnergyGraph, cell: NDArray[np.int32], n_cells: int, n_labels: int) -> EnergyGraph:
    """Return the energy of labelings that are constant on cells, in floats."""
    i, j, weight = merge_edges(graph.first, graph.head, graph.weight, cell, n_cells)
    return EnergyGraph.build(i, j, weight, merge_costs(graph.unary, cell, n_cells, n_labels))


class Flows:
    """Labels, and the flows from which each expansion move continues.

    Costs and weights are integers: they are multiplied by a power of two and rounded, to 32 bits if
    the rounding error is below a millionth of the median weight, otherwise to 64 bits. Costs of a
    node are first limited to twice the sum of its edge weights above its cheapest label, because no
    optimal labeling pays more.

    Parameters
    ----------
    graph : EnergyGraph
    n_sweeps : int or None
        Sweeps of message passing, which yield initial flows, a bound and a labeling. None: stop
        when further sweeps do not save time. If labels that are constant on cells of eight nodes
        may have a lower energy, the graph of cells is solved in the same way for a start.
    rough : bool, default=False
        Whether to use 32 bits for any rounding error.

    Attributes
    ----------
    labels : ndarray of int32, (N,)
    bound : int or float
        A lower bound on the energy of all labelings, with an allowance for rounding.
    """

    def __init__(self, graph: EnergyGraph, n_sweeps: int | None, rough: bool = False) -> None:
        n_nodes = len(graph.unary)
        self.graph = graph
        self._edge = _edge_numbers(graph)
        self._weight, costs, least, scale = _whole_costs(graph, rough)
        settle = _messages_on_arcs if graph.grid is None else _messages_on_strips
        found = settle(graph, self._edge, self._weight, costs, n_sweeps)
        self._flow, self._height, self.labels = found.flow, found.height, found.labels
        self.bound = _as_bound(graph, found.bound, least, scale)
        start = self.labels
        if n_nodes >= MIN_NODES_FOR_CELLS:
            reached = (graph.energy(start) - least.sum().item()) * scale
            start = self._better_start(costs, found.bound, reached)
        self._own = np.empty(n_nodes, np.int64)
        n_spaces = (
            min(get_num_threads(), graph.unary.shape[1], _MAX_THREADS)
            if n_nodes >= MIN_NODES_FOR_THREADS
            else 1
        )
        self._spaces = [self._working_space() for _ in range(n_spaces)]
        self._touched = np.empty(n_nodes, np.int32)
        self._waiting: list[list[NDArray[np.int32]]] = []
        self.start_from(start)

    def _better_start(self, costs: NDArray[Any], bound: int, reached: float) -> NDArray[np.int32]:
        """Return ``self.labels``, or better labels that are constant on cells of eight nodes.

        ``reached`` is the energy of ``self.labels``, in the integer unit of ``bound``. Cells are
        not tried if joining nodes to pairs already raises the bound by much of the gap between
        them.
        """
        graph, n_labels = self.graph, self.graph.unary.shape[1]
        cell, n_cells = pair_nodes(graph.first, graph.head, self._weight)
        paired = cells_bound(self._height, cell, n_cells)
        if paired - bound >= MAX_GAP_FRACTION * (reached - bound):
            return self.labels
        cells = merge(graph._replace(weight=self._weight, unary=costs), cell, n_cells, n_labels)
        for _ in range(2):
            wider, n_cells = pair_nodes(cells.first, cells.head, cells.weight)
            cells = merge(cells, wider, n_cells, n_labels)
            cell = wider[cell]
        if 4 * n_cells > len(cell):  # few edges have weights
            return self.labels
        labels = flow_moves(Flows(cells, CELL_SWEEPS, rough=True), 1).labels[cell]
        return labels if graph.energy(labels) < graph.energy(self.labels) else self.labels

    def start_from(self, labels: NDArray[np.int32]) -> None:
        """Replace the labels, and find the nodes that may hold excess."""
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

    def _working_space(self) -> tuple[NDArray[Any], ...]:
        """Return the working arrays of a search: capacities, forest, excess, lists and marks."""
        n_nodes, dtype = len(self.labels), self._flow.dtype
        return (
            np.empty(len(self.graph.head), dtype),
            np.full((n_nodes, 4), -1, np.int32),
            np.empty(n_nodes, dtype),
            np.empty((3, n_nodes), np.int32),
            np.zeros(n_nodes, bool),
        )

    def search_ahead(self, step: int) -> None:
        """Send the excess of the next moves in several threads, before the labels are final.

        Each move still finds its unique optimum later, so the results do not change.
        """
        n_labels, n_threads = len(self._waiting), len(self._spaces)
        if n_threads == 1 or step % (MOVES_PER_THREAD * n_threads):
            return
        labels = [(step + k) % n_labels for k in range(min(MOVES_PER_THREAD * n_threads, n_labels))]
        n_waiting = {label: sum(map(len, self._waiting[label])) for label in labels}
        labels = [label for label in labels if n_waiting[label] * MIN_WAITING >= len(self.labels)]
        if len(labels) < 2:
            return
        free: SimpleQueue[Any] = SimpleQueue()
        for space in self._spaces:
            free.put(space)
        with ThreadPoolExecutor(n_threads) as pool:
            list(pool.map(partial(self._send_excess, free), labels))

    def _send_excess(self, free: SimpleQueue[Any], alpha: int) -> None:
        space = free.get()
        nodes = np.concatenate(self._waiting[alpha])
        first, head, *rest = self._state()
        given = (first, head, self.graph.rev, *rest, self._own, alpha, nodes, *space, False)
        n_left, _ = expand_label(*given)
        self._waiting[alpha] = [space[3][1, :n_left].copy()]
        free.put(space)

    def expand(self, alpha: int) -> bool:
        """Make the best move to ``alpha``; return whether any label changed."""
        waiting = self._waiting[alpha]
        self._waiting[alpha] = []
        nodes = np.concatenate([*waiting, np.empty(0, np.int32)])
        if not nodes.size:
            return False
        first, head, *rest = self._state()
        space = self._spaces[0]
        given = (first, head, self.graph.rev, *rest, self._own, alpha, nodes, *space, True)
        n_changed, _ = expand_label(*given)
        if n_changed == 0:
            return False
        changed = (space[3][1, :n_changed], space[4], self._touched)
        n_touched = refresh(*(*self._state(), self._own, *changed))
        touched = self._touched[:n_touched].copy()
        for label, others in enumerate(self._waiting):
            if label != alpha:
                others.append(touched)
        return True


def flow_moves(flows: Flows, max_iter: int) -> Descent:
    """Make expansion moves from ``flows.labels``; each repairs the flow of the previous move."""
    graph, n_labels = flows.graph, flows.graph.unary.shape[1]
    energies = [graph.energy(flows.labels)]
    best, failed = flows.labels.copy(), 0
    for step in range(max_iter * n_labels):
        flows.search_ahead(step)
        failed = 1 if flows.expand(step % n_labels) else failed + 1
        if failed < n_labels and (step + 1) % n_labels:
            continue
        energies.append(graph.energy(flows.labels))
        if energies[-1] > energies[-2]:  # only by rounding: no move lowers the energy
            energies[-1] = energies[-2]
            return Descent(best, tuple(energies), step // n_labels + 1, True)
        best = flows.labels.copy()
        if failed == n_labels:
            return Descent(best, tuple(energies), step // n_labels + 1, True)
    return Descent(best, tuple(energies), max_iter, False)


class _Settled(NamedTuple):
    """The result of message passing: flows (L, E), heights (L, N), labels (N,), and a bound."""

    flow: NDArray[Any]
    height: NDArray[Any]
    labels: NDArray[np.int32]
    bound: int


def _messages_on_arcs(
    graph: EnergyGraph,
    edge: NDArray[np.int32],
    weight: NDArray[np.int64],
    costs: NDArray[Any],
    n_sweeps: int | None,
) -> _Settled:
    """Pass messages on any graph, eight labels at a time."""
    n_nodes, n_labels = costs.shape
    width = padded(n_labels, LANES)
    heights = np.full((n_nodes, width), _unreached(costs.dtype), costs.dtype)
    heights[:, :n_labels] = costs
    unary = _simd.aligned(heights.shape, np.float32)
    unary[:] = heights
    messages = _simd.aligned((len(graph.head) // 2, width), np.float32)
    arcs, strength = (graph.first, graph.head, edge), weight.astype(np.float32)
    given = (*arcs, strength, unary, messages)
    min_gain = MIN_GAIN * n_labels * weight.sum() / 2
    _sweep_messages(partial(send_messages, *given), min_gain, n_sweeps)
    flow, labels = np.empty(messages.shape, costs.dtype), np.empty(n_nodes, np.int32)
    bound = settle_flows(*arcs, weight, unary, messages, n_labels, heights, flow, labels)
    flow, heights = (np.ascontiguousarray(rows[:, :n_labels].T) for rows in (flow, heights))
    return _Settled(flow, heights, labels, int(bound))


def _messages_on_strips(
    graph: EnergyGraph,
    edge: NDArray[np.int32],
    weight: NDArray[np.int64],
    costs: NDArray[Any],
    n_sweeps: int | None,
) -> _Settled:
    """Pass messages on an image, eight pixels at a time."""
    assert graph.grid is not None
    (n_nodes, n_labels), (shape, offsets) = costs.shape, graph.grid
    strips = make_strips(shape, offsets)
    n_cells, n_groups = strips.n_cells, len(offsets)
    cells = _simd.aligned((n_cells, n_labels, STRIPS), costs.dtype)
    to_strips(strips, costs, cells)
    strengths = np.zeros((n_groups * n_nodes, 1), costs.dtype)
    strengths[edge, 0] = weight
    limits = _simd.aligned((n_groups, n_cells, STRIPS), costs.dtype)
    for k in range(n_groups):
        to_strips(strips, strengths[k * n_nodes :][:n_nodes], limits[k][:, np.newaxis])
    share, last_share = (_simd.aligned((n_cells, STRIPS), np.float32) for _ in range(2))
    count_shares(strips, offsets, share, last_share)
    messages = _simd.aligned((n_groups, n_cells, n_labels, STRIPS), np.float32)
    given = (strips, limits, cells, share, messages)
    min_gain = MIN_GAIN_ON_IMAGES * n_labels * weight.sum() / 2
    _sweep_messages(partial(pass_messages, *given), min_gain, n_sweeps)
    flow = np.zeros((n_labels, n_groups * n_nodes), costs.dtype)
    height, labels = np.empty((n_labels, n_nodes), costs.dtype), np.empty(n_nodes, np.int32)
    bound = settle_strips(strips, limits, cells, last_share, messages, height, flow, labels)
    return _Settled(flow, height, labels, int(bound))


def _sweep_messages(send: Callable[[bool], float], min_gain: float, n_sweeps: int | None) -> None:
    """Make ``n_sweeps`` sweeps, or sweep until the bound rises by less than ``min_gain``."""
    before = -math.inf
    for _ in range(MAX_SWEEPS if n_sweeps is None else n_sweeps):
        send(True)
        bound = send(False)
        if n_sweeps is None and bound - before < min_gain:
            return
        before = bound


def _edge_numbers(graph: EnergyGraph) -> NDArray[np.int32]:
    if graph.grid is None:
        numbers: NDArray[np.int32] = edge_numbers(graph.first, graph.head, graph.rev)
    else:
        numbers = strip_edges(graph.first, graph.head, graph.grid.shape, graph.grid.offsets)
    return numbers


def _unreached(dtype: Any) -> int:
    """Return a cost that is larger than any real one."""
    return 2**29 if dtype == np.int32 else 2**60


def _whole_costs(
    graph: EnergyGraph, rough: bool
) -> tuple[NDArray[np.int64], NDArray[Any], Any, float]:
    """Return integer weights (A,), costs (N, L) above their minima, the minima, and the scale.

    Costs are rounded up and weights down, so that costs larger than the sum of a node's edges stay
    larger. Weights below 2^-60 of the sum of all weights become 0.
    """
    n_nodes, n_labels = graph.unary.shape
    whole = graph.weight.dtype.kind == "i"
    least, limit = np.empty(n_nodes, graph.weight.dtype), np.empty(n_nodes)
    reach = cost_limits(graph.first, graph.weight, graph.unary, least, limit)
    reach = reach + 1.0 if whole else reach or 1.0
    weights = graph.weight[:0] if whole else graph.weight[graph.weight > 0]
    usual = float(np.median(weights)) if weights.size else math.inf
    bits = math.floor(math.log2(2.0**29 / reach))
    narrow = bits >= 0 if whole else rough or 2.0**-bits <= 1e-6 * usual
    if not narrow:  # sums over all nodes must fit in 64 bits
        bits = math.floor(math.log2(2.0**60 / max(reach, limit.sum())))
    bits = max(bits, 0) if whole else min(bits, 1000)
    dtype: Any = np.int32 if narrow else np.int64
    costs = np.empty((n_nodes, n_labels), dtype)
    (shift_costs if whole else round_costs)(graph.unary, least, limit, bits, costs)
    scale = 2.0**bits
    weight = graph.weight << bits if whole else np.floor(graph.weight * scale).astype(np.int64)
    return weight, costs, least, scale


def _as_bound(graph: EnergyGraph, bound: int, least: NDArray[Any], scale: float) -> int | float:
    """Return the bound in the unit of the energy, minus the largest possible rounding error."""
    if graph.weight.dtype.kind == "i":
        return -(-bound // int(scale)) + int(least.sum())
    rounded = len(least)  # each cost went up by less than a unit, weights went down
    total = bound / scale + float(least.sum(dtype=np.float64))
    slack = rounded / scale + 1e-12 * (abs(bound) / scale + float(np.abs(least).sum()))
    return total - slack
