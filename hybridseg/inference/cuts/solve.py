"""Minimum cuts: from an energy to a labeling of low energy and a lower bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.inference.cuts.auxiliary import CliqueNodes, as_cut_cliques
from hybridseg.inference.cuts.conditions import (
    as_pair_costs,
    check_cliques,
    check_groups,
    check_presence_costs,
    check_range,
)
from hybridseg.inference.cuts.flows import Flows, flow_moves
from hybridseg.inference.cuts.grid_cuts import fits_grid, grid_cut_labels, grid_energy
from hybridseg.inference.cuts.moves import (
    CUTS,
    Descent,
    EnergyGraph,
    binary_cut,
    energy_graph,
    expansion_moves,
    swap_moves,
    with_seeds,
)
from hybridseg.pairwise.edges import EdgeGroup, edge_groups
from hybridseg.pairwise.energy import Energy
from hybridseg.pairwise.higher_order.cliques import Cliques
from hybridseg.pairwise.labels import as_label_indices
from hybridseg.pairwise.terms import has_cliques, has_edges, refuse_terms
from hybridseg.validation import as_label_map, check_number, check_option

MOVES = ("expansion", "swap")


@dataclass(frozen=True, eq=False)
class GraphCutResult:
    """The result of :func:`solve_cuts` or :func:`graph_cut`.

    Attributes
    ----------
    labels : ndarray of int32, (*spatial,) or (R,)
        The index 0..L-1 of the label of each pixel or region.
    energy : float
        The energy of ``labels``, in 64 bits, exact for integer input.
    lower_bound : float
        No labeling that obeys the seeds has a lower energy. It equals ``energy`` for one or two
        labels, where the result is the optimum up to rounding. For more labels it is lowered to
        allow for rounding. For integer input it is an integer.
    converged : bool
        Whether no further move lowers the energy (by more than a millionth of the median weight for
        each pixel, where costs are not integers).
    n_iter : int
        Sweeps made over the labels, or over the pairs of labels.
    energies : tuple of float
        The energy at the start and after every sweep; it never rises. It has a single entry for
        one or two labels.

    Examples
    --------
    >>> from hybridseg.inference import solve_cuts
    >>> from hybridseg.pairwise import EdgeTerm, Energy
    >>> edges = EdgeTerm(([0], [1], [2]))  # two regions, three labels
    >>> result = solve_cuts(Energy([[0, 4, 4], [3, 1, 4]], [edges]))
    >>> result.energy, result.lower_bound <= result.energy, result.converged
    (3.0, True, True)
    """

    labels: NDArray[np.int32]
    energy: float
    lower_bound: float
    converged: bool
    n_iter: int
    energies: tuple[float, ...]


def solve_cuts(
    energy: Energy,
    *,
    moves: str = "expansion",
    solver: str = "numba",
    max_iter: int = 20,
    bound_iter: int | None = None,
    init: ArrayLike | None = None,
) -> GraphCutResult:
    r"""Minimize an energy by minimum cuts: exactly for two labels, by moves for more.

    The edges of all terms form one graph. Cuts [1]_ are fastest if it is a pixel grid whose edges
    join adjacent pixels. Seeds are kept. With two labels, the result is the optimum also with label
    costs. With more, an expansion move has one auxiliary node for each label: the move saves the
    cost of a label if all sites leave it [2]_. Costs of pairs of labels that occur together
    (:class:`hybridseg.pairwise.CoOccurrence`) are divided among these nodes in two ways [3]_; a
    move is made only if it lowers the energy. Each clique has two auxiliary nodes [4]_.

    Parameters
    ----------
    energy : Energy
        All terms need edges with weights >= 0, cliques, or costs of label sets. The compatibility
        must be symmetric, with a diagonal of zeros and no negative entry. Costs of labels and of
        their pairs must be >= 0. With more than two labels, the cap of a clique must be at most
        half of its slope times its weights.
    moves, solver, max_iter, bound_iter, init
        As in :func:`graph_cut`.

    Returns
    -------
    GraphCutResult

    Raises
    ------
    TypeError
        A term has neither edges nor cliques.
    ValueError
        Cuts cannot minimize these weights, compatibility, label costs or cliques, or an option is
        out of its range.
    ImportError
        ``solver="pymaxflow"`` without the package.

    Notes
    -----
    If no expansion lowers the energy further, and with Potts and unary costs >= 0, the energy is at
    most twice the optimum plus the sum of all label costs ([2]_, theorem 1), unless there are
    cliques or costs of pairs of labels. The lower bound is that of the energy without label costs
    and cliques plus the costs of labels that must occur: the labels of the seeds and their pairs,
    or without seeds the smallest label cost.

    References
    ----------
    .. [1] Y. Boykov, O. Veksler, R. Zabih, "Fast approximate energy minimization via graph cuts",
       PAMI 23(11), 2001.
    .. [2] A. Delong, A. Osokin, H. N. Isack, Y. Boykov, "Fast approximate energy minimization with
       label costs", International Journal of Computer Vision 96, 2012, section 3.
    .. [3] L. Ladicky, C. Russell, P. Kohli, P. H. S. Torr, "Graph cut based inference with
       co-occurrence statistics", ECCV, 2010, section 3.1.
    .. [4] P. Kohli, L. Ladicky, P. H. S. Torr, "Robust higher order potentials for enforcing label
       consistency", International Journal of Computer Vision 82, 2009, section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import solve_cuts
    >>> from hybridseg.pairwise import Energy, GridTerm
    >>> unary = np.array([[[0, 9], [5, 4], [9, 0]]])  # one row of three pixels
    >>> neighbors = GridTerm(2.0, contrast=None)
    >>> solve_cuts(Energy(unary, [neighbors])).labels.tolist()
    [[0, 1, 1]]
    >>> solve_cuts(Energy(unary, [neighbors], label_costs=[0, 20])).labels.tolist()
    [[0, 0, 0]]
    """
    check_option(moves, "moves", MOVES)
    check_option(solver, "solver", tuple(CUTS))
    check_number(max_iter, "max_iter", minimum=1, integer=True)
    if bound_iter is not None:
        check_number(bound_iter, "bound_iter", minimum=0, integer=True)
    groups, pairs = _pair_terms(energy, moves)
    costs, seeds, shape, n_labels = energy.total_unary, energy.seeds, energy.shape, energy.n_labels
    start = None if init is None else _start(energy, init)
    joined = any(group.weight.size for group in groups) and not len(energy.cliques)
    if n_labels == 2 and solver == "numba" and joined and fits_grid(groups, shape):
        labels = grid_cut_labels(costs, groups, seeds)
        if energy.presence_costs is None:
            return cut_result(costs, groups, labels)
        return _cheapest_of([labels, *_constants(energy)], energy, groups)
    prices = energy.presence_costs
    fractions = prices is not None and prices.single.dtype.kind == "f"
    if fractions or not energy.cliques.exact:
        costs = np.asarray(costs, np.float64)  # the graph has one dtype: keep fractions
    graph = _with_clique_nodes(energy_graph(costs, groups, pairs), energy.cliques)
    if prices is not None:
        dtype, counted = graph.weight.dtype, energy.sites.counted
        graph = graph._replace(
            costs_of_set=prices.astype(dtype),
            counted=np.ones(len(graph.unary), bool) if counted is None else counted.ravel(),
        )
    seeded = graph if seeds is None else with_seeds(graph, seeds.ravel())
    constants = [] if prices is None else [c.ravel() for c in _constants(energy)]
    way = moves, solver, max_iter, bound_iter
    found, bound = _descend(seeded, constants, start, *way)
    bound += _least_presence_cost(energy) if n_labels > 2 else 0
    constant = graph.energy(found.labels) - found.energies[-1]
    energies = tuple(float(value + constant) for value in found.energies)
    return GraphCutResult(
        labels=found.labels.reshape(shape),
        energy=energies[-1],
        lower_bound=min(float(bound + constant), energies[-1]),
        converged=found.converged,
        n_iter=found.n_iter,
        energies=energies,
    )


def _with_clique_nodes(graph: EnergyGraph, cliques: Cliques) -> EnergyGraph:
    """Return the graph with cliques, whose costs have its dtype."""
    if not len(cliques) or graph.unary.shape[1] == 1:
        return graph
    cliques = as_cut_cliques(cliques, graph.unary.shape[1])
    if graph.weight.dtype.kind == "f":
        cliques = cliques.scaled(1.0)
    return graph._replace(cliques=CliqueNodes.of(graph, cliques))


def cut_result(
    costs: NDArray[Any],
    groups: Sequence[EdgeGroup],
    labels: NDArray[np.int32],
    strength: float = 1,
) -> GraphCutResult:
    """Return the result for optimal ``labels`` 0 and 1 of a grid."""
    least = float(grid_energy(labels, costs, groups, strength))
    return GraphCutResult(labels, least, least, converged=True, n_iter=1, energies=(least,))


def _pair_terms(energy: Energy, moves: str) -> tuple[list[EdgeGroup], NDArray[Any] | None]:
    """Return edges and compatibility; for two labels, weights are scaled so that it is Potts."""
    refuse_terms(
        [
            term
            for term in energy.local_terms
            if not (has_edges(term, energy.sites) or has_cliques(term, energy.sites))
        ],
        *("solve_cuts", "edges(sites) or cliques(sites)"),
        "Dense kernels have edges between regions: pass costs (R, L) and regions=map to Energy. "
        "Or use solve_mean_field.",
    )
    costs, prices = energy.total_unary, energy.presence_costs
    pairs = as_pair_costs(energy.compatibility, energy.n_labels, moves)
    groups = energy.edges or edge_groups(([], [], np.zeros(0, np.int64)), energy.shape)
    check_groups(groups, energy.shape)
    cliques = energy.cliques
    check_cliques(cliques, groups)
    more = float(
        (2 * cliques.sizes * cliques.slope).sum(dtype=np.float64) + 2.0 * cliques.cap.sum()
    )
    if prices is not None:
        check_presence_costs(prices, "label_costs" if energy.label_costs is not None else "costs")
        more += prices.sum
    if pairs is not None and energy.n_labels == 2:
        factor, pairs = pairs[0, 1], None
        check_range(costs, groups, factor.item(), more)
        groups = [group._replace(weight=np.asarray(group.weight * factor)) for group in groups]
    check_range(costs, groups, 1 if pairs is None else pairs.max(initial=1).item(), more)
    return groups, pairs


def _start(energy: Energy, init: ArrayLike) -> NDArray[np.int64]:
    """Return checked initial labels (n,), with seeds; 0 where not valid."""
    counted, seeds = energy.sites.counted, energy.seeds
    if counted is not None:
        given = as_label_map(init, shape=energy.shape, name="init")
        init = np.where(counted, given, 0)
    start = as_label_indices(init, energy.shape, energy.n_labels, name="init")
    return (start if seeds is None else np.where(seeds >= 0, seeds, start)).ravel()


def _constants(energy: Energy) -> list[NDArray[np.int32]]:
    """Return one labeling for each label: that label everywhere except at the seeds."""
    every = [np.full(energy.shape, label, np.int32) for label in range(energy.n_labels)]
    if energy.seeds is None:
        return every
    seeds = energy.seeds.astype(np.int32)
    return [np.where(seeds >= 0, seeds, labels) for labels in every]


def _cheapest_of(
    candidates: Sequence[NDArray[np.int32]], energy: Energy, groups: Sequence[EdgeGroup]
) -> GraphCutResult:
    """Return the optimum of two labels with label costs: the cut or a constant labeling.

    The cut is the optimum without label costs. If it uses both labels, it is the best labeling with
    both, because all of these pay both label costs. If it uses one label, no labeling with both is
    cheaper. Labelings with one label are constant, and all of them are candidates.
    """
    totals = [
        float(grid_energy(labels, energy.total_unary, groups) + energy.cost_of_labels(labels))
        for labels in candidates
    ]
    least = min(totals)
    labels = candidates[totals.index(least)]
    return GraphCutResult(labels, least, least, converged=True, n_iter=1, energies=(least,))


def _least_presence_cost(energy: Energy) -> int | float:
    """Return a lower bound on the costs of label sets, for all labelings that obey the seeds."""
    prices = energy.presence_costs
    if prices is None or not _anything_counts(energy):
        return 0
    if energy.seeds is not None and (energy.seeds >= 0).any():
        seeds = energy.seeds[energy.seeds >= 0]
        return prices.of_set(np.unique(seeds))
    least: int | float = prices.single.min().item()
    return least


def _anything_counts(energy: Energy) -> bool:
    return energy.sites.counted is None or bool(energy.sites.counted.any())


def _descend(
    graph: EnergyGraph,
    constants: Sequence[NDArray[np.int32]],
    start: NDArray[Any] | None,
    moves: str,
    solver: str,
    max_iter: int,
    bound_iter: int | None,
) -> tuple[Descent, int | float]:
    """Return labels, and a lower bound; with more than two labels, that of unary and edges."""
    n_nodes, n_labels = graph.unary.shape
    if n_labels == 1:
        labels = np.zeros(n_nodes, np.int32)
        found = Descent(labels, (graph.energy(labels),), 0, True)
        return found, found.energies[-1]
    if n_labels == 2:  # one of these is the optimum; see _cheapest_of
        best = binary_cut(graph._replace(costs_of_set=None), CUTS[solver]).labels
        labels = _least([best, *constants], graph)
        found = Descent(labels, (graph.energy(labels),), 1, True)
        return found, found.energies[-1]
    lower_moves = expansion_moves if moves == "expansion" else swap_moves
    if graph.cost is not None:
        first = graph.unary.argmin(axis=1).astype(np.int32)
        first = _least([first, *constants], graph) if start is None else start.astype(np.int32)
        bound = graph.unary.min(axis=1).sum(dtype=graph.weight.dtype).item()
        return lower_moves(graph, first, max_iter, CUTS[solver]), bound
    flows = Flows(graph._replace(costs_of_set=None, cliques=None), bound_iter)
    if start is not None:
        flows.start_from(start.astype(np.int32))
    if solver == "numba" and moves == "expansion" and graph.costs_of_set is None is graph.cliques:
        return flow_moves(flows, max_iter), flows.bound
    first = flows.labels if start is not None else _least([flows.labels, *constants], graph)
    return lower_moves(graph, first, max_iter, CUTS[solver]), flows.bound


def _least(candidates: Sequence[NDArray[np.int32]], graph: EnergyGraph) -> NDArray[np.int32]:
    return candidates[0] if len(candidates) == 1 else min(candidates, key=graph.energy)
