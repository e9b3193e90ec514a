"""Labellings lowered by cuts: one exact cut for two labels, expansion moves for more.

Every public solver here works on an `EnergyGraph`, flat and checked; users see
:func:`hybridseg.inference.graph_cut`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels.dual_bound import edge_numbers, potts_pass
from hybridseg.kernels.expansion import expansion_graph, potts_energy
from hybridseg.kernels.maxflow import build_arcs, maxflow, source_side


class EnergyGraph(NamedTuple):
    """A Potts energy on flat nodes: arcs as from the kernel ``build_arcs``, and costs.

    Attributes
    ----------
    first : ndarray of int32, (N + 1,)
    head, rev : ndarray of int32, (2E,)
    weight : ndarray of int64 or float64, (2E,)
    unary : ndarray, (N, L)
        int64 if and only if ``weight`` is; otherwise float32 or float64.
    """

    first: NDArray[np.int32]
    head: NDArray[np.int32]
    rev: NDArray[np.int32]
    weight: NDArray[Any]
    unary: NDArray[Any]

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
        found = potts_energy(self.first, self.head, self.weight, self.unary, labels)
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
    cap = np.empty_like(graph.weight)
    excess = np.empty(len(labels), graph.weight.dtype)
    expansion_graph(graph.first, graph.head, graph.weight, graph.unary, labels, alpha, cap, excess)
    return np.where(cut(graph, cap, excess), np.int32(alpha), labels)


def binary_cut(graph: EnergyGraph, cut: Cut = cut_numba) -> Descent:
    """The optimum of two labels: the expansion of label 1 from label 0 everywhere."""
    labels = expand(graph, np.zeros(len(graph.unary), np.int32), 1, cut)
    return Descent(labels, (graph.energy(labels),), 1, True)


def expansion_moves(
    graph: EnergyGraph, labels: NDArray[np.int32], max_iter: int, cut: Cut = cut_numba
) -> Descent:
    """Alpha-expansion (Boykov, Veksler & Zabih 2001, section 5): sweeps over the labels.

    A move counts only if it lowers the energy. Converged: each label has failed since the last
    success (an expansion right after itself changes nothing, so that label need not fail again).
    """
    n_labels = graph.unary.shape[1]
    energies = [graph.energy(labels)]
    failed = 0
    for step in range(max_iter * n_labels):
        moved = expand(graph, labels, step % n_labels, cut)
        lowered = graph.energy(moved)
        if lowered < energies[-1]:
            labels, failed = moved, 1
            energies.append(lowered)
        else:
            failed += 1
            energies.append(energies[-1])
        if failed == n_labels:
            return Descent(labels, tuple(energies), step // n_labels + 1, True)
    return Descent(labels, tuple(energies), max_iter, False)


def lower_bound(graph: EnergyGraph, n_sweeps: int, target: int | float) -> int | float:
    """A bound that no labelling is below: the best of 2 ``n_sweeps`` message-passing passes.

    What the passes may have gained by rounding is taken off; a bound on integers is rounded up.
    Stops when it has come to ``target``, the energy of a labelling, but for rounding.
    """
    numbers = edge_numbers(graph.first, graph.head, graph.rev)
    messages = np.zeros((len(graph.head) // 2, graph.unary.shape[1]))
    best = float(graph.unary.min(axis=1).sum(dtype=np.float64))
    for step in range(2 * n_sweeps):
        found = potts_pass(
            graph.first, graph.head, graph.weight, numbers, graph.unary, messages, step % 2 == 0
        )
        best = max(best, float(found))
        if best >= target - 1e-9 * abs(target):
            break
    best -= _rounding(graph)
    return min(math.ceil(best) if isinstance(target, int) else best, target)


def _rounding(graph: EnergyGraph) -> float:
    """More than the rounding error of a message-passing pass.

    Each of its additions errs by less than eps times the sum of all costs at hand; at a node these
    are as many as it has arcs, and the pass adds up the nodes with a compensated sum.
    """
    costs = np.abs(graph.unary).max(axis=1).sum(dtype=np.float64) + graph.weight.sum(
        dtype=np.float64
    )
    most_arcs = int(np.diff(graph.first).max(initial=0))
    return float(8 * (most_arcs + 4) * np.finfo(np.float64).eps * costs)
