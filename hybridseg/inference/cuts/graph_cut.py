"""Minimum cuts of Potts energies, as a function and as an estimator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.base import (
    INTENSITY_RANGE,
    HardRefiner,
    HasMethods,
    Interval,
    Scene,
    StrOptions,
)
from hybridseg.features.regions import region_graph, region_labels, region_means
from hybridseg.inference.cuts.flows import Flows, flow_moves
from hybridseg.inference.cuts.grid_cuts import (
    as_seeds,
    check_range,
    fits_grid,
    grid_cut_labels,
    grid_energy,
)
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
from hybridseg.inference.cuts.pair_costs import as_pair_costs
from hybridseg.inference.restraint import Box, Restrained, Restraint, cut_out, strongest
from hybridseg.inference.scene_parts import decided_by_costs, regions_of, seed_indices, valid_costs
from hybridseg.kernels.superpixels.regions import sums_and_counts
from hybridseg.pairwise.edges import EdgeGroup, EdgeWeights, edge_groups
from hybridseg.pairwise.energy import as_label_indices
from hybridseg.pairwise.grid import grid_weights
from hybridseg.pairwise.regions import region_weights
from hybridseg.validation import (
    IntensityRange,
    as_costs,
    as_mask,
    check_number,
    check_option,
)

MOVES = ("expansion", "swap")

#: Arcs are counted in 32 bits; an edge is two arcs.
MAX_ARCS = 2**31


@dataclass(frozen=True, eq=False)
class GraphCutResult:
    """What :func:`graph_cut` found.

    Attributes
    ----------
    labels : ndarray of int32, (*spatial,) or (R,)
        The index 0..L-1 of the label of each pixel or region.
    energy : float
        Energy of ``labels``, in 64 bits, exact for integer input.
    lower_bound : float
        No labelling (that obeys the seeds) has less energy; equal to ``energy`` for one or two
        labels, where the result is the optimum, up to the rounding of that sum. For more labels
        allowance is made for rounding, and for integer input the bound is an integer.
    converged : bool
        Whether no move of the kind asked for lowers the energy any more (by more than a millionth
        of a median weight for each pixel, where costs are not integers).
    n_iter : int
        Sweeps over the labels, or over the pairs of labels.
    energies : tuple of float
        The energy at the start and after every sweep; it never rises. A single entry for one or
        two labels.
    """

    labels: NDArray[np.int32]
    energy: float
    lower_bound: float
    converged: bool
    n_iter: int
    energies: tuple[float, ...]


def graph_cut(
    unary: ArrayLike,
    weights: EdgeWeights,
    *,
    compatibility: str | ArrayLike = "potts",
    moves: str = "expansion",
    solver: str = "numba",
    init: ArrayLike | None = None,
    seeds: ArrayLike | None = None,
    max_iter: int = 20,
    bound_iter: int | None = None,
) -> GraphCutResult:
    r"""Minimise an energy by minimum cuts: exactly for two labels, by moves for more.

    .. math:: E(y) = \sum_i u_i(y_i) + \sum_{(i, j)} w_{ij}\, \mu(y_i, y_j)

    Two labels take one minimum cut; where several labellings are optimal, the one with the fewest
    pixels of label 1 is returned. More labels take moves: an expansion is the best of all
    labellings in which every pixel keeps its label or takes label alpha, a swap the best of those
    in which the pixels of two labels share them out anew. After expansions with Potts costs the
    energy is within a factor of two of the optimum, and in practice within a few percent, which
    ``lower_bound`` tells.

    With Potts costs, message passing first makes a labelling to start from, a bound, and flows
    that each expansion only mends; the time grows with the strength of the weights.

    Parameters
    ----------
    unary : array-like, (*spatial, L), or (R, L) for a region graph
        The cost of each label, finite, lower is better. If it and ``weights`` hold integers, all
        is computed exactly in int64; otherwise in float64.
    weights : sequence of arrays, {offset: array}, or (i, j, w)
        The cost >= 0 of cutting each edge, as from :func:`hybridseg.pairwise.grid_weights` or
        :func:`hybridseg.pairwise.region_weights`: one array per axis, shaped like the image less
        one along that axis; a mapping for diagonal neighbourhoods; an edge list for a region graph.
    compatibility : "potts" or array-like, (L, L), default="potts"
        What a pair of labels costs, times the weight: symmetric, with a diagonal of zeros and no
        negative entry. Integers keep integer input exact. Other costs than Potts take several
        times longer, and their bound is the sum of the least costs.
    moves : {"expansion", "swap"}, default="expansion"
        Expansions need costs that obey the triangle inequality, and find the lower energies then,
        faster. Swaps take any, such as truncated squares of label differences.
    solver : {"numba", "pymaxflow"}, default="numba"
        What computes the cuts: our own solvers, or the package PyMaxflow, which is GPL and has to
        be installed (``pip install hybridseg[pymaxflow]``).
    init : array-like of int, optional
        Where moves start, but for the seeds. Default: what message passing found, or, where weights
        are strong, what a move on cells of pixels found; the cheapest label of each pixel where
        ``compatibility`` is not Potts. One cut finds the optimum of two labels from anywhere.
    seeds : array-like of int, optional
        Labels that are certain, as indices 0..L-1; negative where unknown.
    max_iter : int, default=20
        Sweeps of moves at most; 3 to 6 are usual.
    bound_iter : int, optional
        Sweeps of message passing (TRW-S) before the moves, for three or more labels and Potts
        costs; memory is 12 to 24 bytes for each edge and label. More of them tighten
        ``lower_bound``, and the energy mostly falls; 0 leaves a weak bound. Default: as many as
        save more time in the moves than they take, 15 to 60 where neighbours matter, 100 at most.

    Returns
    -------
    GraphCutResult

    Raises
    ------
    TypeError, ValueError
        Shapes that do not fit, values that are not finite, negative weights, unknown labels.
    ImportError
        ``solver="pymaxflow"`` without the package.

    References
    ----------
    Boykov, Veksler and Zabih, "Fast approximate energy minimization via graph cuts", PAMI 23(11),
    2001, sections 5 and 6. Kolmogorov and Zabih, "What energy functions can be minimized via graph
    cuts?", PAMI 26(2), 2004, theorem 4.1. Boykov and Kolmogorov, "An experimental comparison of
    min-cut/max-flow algorithms for energy minimization in vision", PAMI 26(9), 2004. Kolmogorov,
    "Convergent tree-reweighted message passing for energy minimization", PAMI 28(10), 2006.
    Hochbaum, "The pseudoflow algorithm: a new algorithm for the maximum-flow problem", Operations
    Research 56(4), 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import graph_cut
    >>> unary = np.array([[[0, 9], [5, 4], [0, 9]]])  # one row of three pixels
    >>> result = graph_cut(unary, [np.zeros((0, 3), int), np.array([[2, 2]])])
    >>> result.labels.tolist(), result.energy, result.lower_bound
    ([[0, 0, 0]], 5.0, 5.0)
    """
    costs = as_costs(unary, keep_double=True, keep_integer=True)
    shape, n_labels = costs.shape[:-1], costs.shape[-1]
    check_option(moves, "moves", MOVES)
    check_option(solver, "solver", tuple(CUTS))
    check_number(max_iter, "max_iter", minimum=1, integer=True)
    if bound_iter is not None:
        check_number(bound_iter, "bound_iter", minimum=0, integer=True)
    groups, pairs = _energy_terms(costs, weights, as_pair_costs(compatibility, n_labels, moves))
    start = None if init is None else as_label_indices(init, shape, n_labels, name="init").ravel()
    fixed = None if seeds is None else as_seeds(seeds, shape, n_labels)
    if n_labels == 2 and solver == "numba" and fits_grid(groups, shape):
        return cut_result(costs, groups, grid_cut_labels(costs, groups, fixed))
    graph = energy_graph(costs, groups, pairs)
    fixed = None if fixed is None else fixed.ravel()
    seeded = graph if fixed is None else with_seeds(graph, fixed)
    if start is not None and fixed is not None:
        start = np.where(fixed >= 0, fixed, start)
    found, bound = _descend(seeded, moves, solver, start, max_iter, bound_iter)
    constant = graph.energy(found.labels) - found.energies[-1]
    energies = tuple(float(value + constant) for value in found.energies)
    return GraphCutResult(
        labels=found.labels.reshape(shape),
        energy=energies[-1],
        lower_bound=float(bound + constant),
        converged=found.converged,
        n_iter=found.n_iter,
        energies=energies,
    )


def cut_result(
    costs: NDArray[Any],
    groups: Sequence[EdgeGroup],
    labels: NDArray[np.int32],
    strength: float = 1,
) -> GraphCutResult:
    """The record of the optimal ``labels`` 0 and 1 of a grid."""
    least = float(grid_energy(labels, costs, groups, strength))
    return GraphCutResult(labels, least, least, converged=True, n_iter=1, energies=(least,))


def check_groups(groups: Sequence[EdgeGroup], shape: tuple[int, ...]) -> None:
    """Refuse weights that are negative or add up to infinity, and more edges than are counted."""
    n_edges = sum(group.weight.size for group in groups)
    if max(2 * n_edges, int(np.prod(shape))) >= MAX_ARCS:
        raise ValueError(
            f"unary and weights make a graph of {int(np.prod(shape))} nodes and {n_edges} edges; "
            f"the solver counts arcs in 32 bits, so at most {MAX_ARCS // 2 - 1} edges. Cut the "
            f"image into parts, or solve on superpixels (a region graph)."
        )
    least = min((group.weight.min() for group in groups if group.weight.size), default=0)
    if least < 0:
        raise ValueError(
            f"weights holds {least:g}; expected costs >= 0: with a negative one the "
            f"energy is not submodular, and no cut minimises it. Clip the weights at 0."
        )
    with np.errstate(over="ignore"):
        total = sum(4 * group.weight.sum(dtype=np.float64) for group in groups)
    if not np.isfinite(total):
        raise ValueError(
            "weights hold costs whose sum is beyond float64; divide unary and weights by a common "
            "factor."
        )


def _energy_terms(
    costs: NDArray[Any], weights: EdgeWeights, pairs: NDArray[Any] | None
) -> tuple[list[EdgeGroup], NDArray[Any] | None]:
    """The checked weights; for two labels what the pair costs is multiplied in (Potts again)."""
    groups = edge_groups(weights, costs.shape[:-1])
    check_groups(groups, costs.shape[:-1])
    if pairs is not None and costs.shape[-1] == 2:
        factor, pairs = pairs[0, 1], None
        check_range(costs, groups, factor.item())
        groups = [group._replace(weight=np.asarray(group.weight * factor)) for group in groups]
    check_range(costs, groups, 1 if pairs is None else pairs.max(initial=1).item())
    return groups, pairs


def _descend(
    graph: EnergyGraph,
    moves: str,
    solver: str,
    start: NDArray[Any] | None,
    max_iter: int,
    bound_iter: int | None,
) -> tuple[Descent, int | float]:
    """The labels found, and a bound on the energy of all."""
    n_nodes, n_labels = graph.unary.shape
    if n_labels <= 2:
        if n_labels == 2:
            found = binary_cut(graph, CUTS[solver])
        else:
            labels = np.zeros(n_nodes, np.int32)
            found = Descent(labels, (graph.energy(labels),), 0, True)
        return found, found.energies[-1]
    lower_moves = expansion_moves if moves == "expansion" else swap_moves
    if graph.cost is not None:
        first = graph.unary.argmin(axis=1) if start is None else start
        bound = graph.unary.min(axis=1).sum(dtype=graph.weight.dtype).item()
        return lower_moves(graph, first.astype(np.int32), max_iter, CUTS[solver]), bound
    flows = Flows(graph, bound_iter)
    if start is not None:
        flows.start_from(start.astype(np.int32))
    if solver == "numba" and moves == "expansion":
        found = flow_moves(flows, max_iter)
    else:
        found = lower_moves(graph, flows.labels, max_iter, CUTS[solver])
    return found, min(flows.bound, found.energies[-1])


class GraphCut(Restrained, HardRefiner):
    """Refine costs with a minimum cut: boundaries become short and follow the image's contrast.

    The neighbours' costs are contrast-sensitive Potts weights; see
    :func:`hybridseg.pairwise.grid_weights`. Seeds of the Scene are hard constraints; pixels that
    are not valid influence no others.

    Parameters
    ----------
    estimator : segmenter, optional
        Fitted inside; ``GraphCut(segmenter)`` equals ``make_pipeline(segmenter, GraphCut())``.
        Without it, the input is Scenes with costs.
    weight : "auto" or float, default="auto"
        The cost of cutting an edge between pixels of equal colour, in the unit of the costs
        (nats, where they are negative log-probabilities). Greater is smoother; 2 keeps thin
        parts, 50 leaves few large segments. "auto" is the greatest of 0 to 16 that the costs of
        each picture allow; see the notes.
    contrast : "auto", float or None, default="auto"
        The standard deviation of colour differences on the scale 0..255; "auto" takes it from each
        image, None ignores the colours.
    connectivity : int, default=1
        1 gives 4 (or 6) neighbours, 2 gives 8 (or 18), 3 gives 26. Plays no part with
        ``on="regions"``.
    on : {"pixels", "regions"}, default="pixels"
        What gets a label: pixels, or the Scene's superpixels, which is much faster and keeps their
        boundaries. Regions pay for the pixel faces between them.
    moves : {"expansion", "swap"}, default="expansion"
        How three or more labels are improved; expansions are faster and mostly find less energy.
    solver : {"numba", "pymaxflow"}, default="numba"
        What computes the cuts; PyMaxflow is GPL and has to be installed.
    max_iter : int, default=20
        Sweeps of moves at most, for three or more labels.
    intensity_range : {"dtype", "image"} or (low, high), optional
        How pixel values become colours. Default: as the Scene says.

    Attributes
    ----------
    classes_ : ndarray of int, (L,)
        The label values, once fitted.
    estimator_ : segmenter
        The fitted inner segmenter, where ``estimator`` was given.

    See Also
    --------
    graph_cut : the same on arrays, with the energy and a bound on it.

    Notes
    -----
    "auto" means to do no harm. Costs that are negative log-probabilities tell by how much the true
    labels are expected to cost more than the cheapest ones. The weight is the greatest with which
    the result costs no more than a share of that, in the whole picture and in every class. The
    share is small where neighbours make the same errors, as superpixels and networks do, and large
    where each pixel errs on its own. A search over weights on labelled pictures of your own mostly
    finds a better one, often 5 to 20 for large objects. ``parameters_for(X)`` tells what it took.

    References
    ----------
    Boykov and Jolly, "Interactive graph cuts for optimal boundary and region segmentation of
    objects in N-D images", ICCV 2001. Boykov, Veksler and Zabih, "Fast approximate energy
    minimization via graph cuts", PAMI 23(11), 2001.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg import GraphCut, Scene
    >>> image = np.zeros((12, 16), np.uint8)
    >>> image[:, 8:] = 200
    >>> logits = np.where(image[..., np.newaxis] > 0, [0.0, 0.4], [0.4, 0.0])
    >>> logits[5, 3] = [0.0, 0.4]  # a wrong pixel
    >>> labels = GraphCut().predict([Scene.from_logits(image, logits)])[0]
    >>> bool((labels == (image > 0)).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": [HasMethods(["fit", "transform"]), None],
        "weight": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "contrast": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither"), None],
        "connectivity": [Interval(Integral, 1, 3, closed="both")],
        "on": [StrOptions({"pixels", "regions"})],
        "moves": [StrOptions(set(MOVES))],
        "solver": [StrOptions(set(CUTS))],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "intensity_range": [*INTENSITY_RANGE, None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        weight: str | float = "auto",
        contrast: str | float | None = "auto",
        connectivity: int = 1,
        on: str = "pixels",
        moves: str = "expansion",
        solver: str = "numba",
        max_iter: int = 20,
        intensity_range: IntensityRange | None = None,
    ) -> None:
        self.estimator = estimator
        self.weight = weight
        self.contrast = contrast
        self.connectivity = connectivity
        self.on = on
        self.moves = moves
        self.solver = solver
        self.max_iter = max_iter
        self.intensity_range = intensity_range

    def _chosen(self, scene: Scene) -> dict[str, float]:
        return {"weight": self._refined_labels(scene)[0]}

    def _label_indices(self, scene: Scene) -> NDArray[np.integer[Any]]:
        return self._refined_labels(scene)[1]

    def _refined_labels(self, scene: Scene) -> tuple[float, NDArray[np.integer[Any]]]:
        """The weight and the labels."""
        valid = None if scene.valid is None else as_mask(scene.valid, scene.shape)
        seeds = seed_indices(scene, valid)
        return (self._cut_regions if self.on == "regions" else self._cut_pixels)(
            scene, valid, seeds
        )

    def _cut_pixels(
        self, scene: Scene, valid: NDArray[np.bool_] | None, seeds: NDArray[np.int64] | None
    ) -> tuple[float, NDArray[np.int32]]:
        costs = valid_costs(scene, valid)
        given = None if isinstance(self.weight, str) else self.weight
        weights = grid_weights(
            scene.colors,
            weight=1.0 if given is None else given,
            contrast=self.contrast,
            connectivity=self.connectivity,
            spacing=scene.spacing,
            intensity_range=(0, 255),
            spatial_ndim=scene.rank,
            valid=valid,
        )
        if given is not None:
            return given, self._cut(costs, weights, seeds)

        def solve(box: Box, strength: float) -> tuple[NDArray[Any], Any]:
            fixed = None if seeds is None else seeds[box]
            labels = self._cut(costs[box], cut_out(weights, box, strength), fixed)
            return labels, labels

        return strongest(Restraint.of(costs, decided_by_costs(valid, seeds)), solve)

    def _cut_regions(
        self, scene: Scene, valid: NDArray[np.bool_] | None, seeds: NDArray[np.int64] | None
    ) -> tuple[float, NDArray[np.int32]]:
        costs = valid_costs(scene, valid)
        regions = regions_of(scene, valid)
        labels = costs.argmin(axis=-1).astype(np.int32)
        inside = regions >= 0
        weight = 0.0 if isinstance(self.weight, str) else self.weight
        if inside.any():
            weight, found = self._cut_graph(scene, costs, regions, seeds)
            labels[inside] = found[regions[inside]]
        if seeds is not None:
            labels = np.where(seeds >= 0, seeds.astype(np.int32), labels)
        return weight, labels

    def _cut_graph(
        self,
        scene: Scene,
        costs: NDArray[Any],
        regions: NDArray[np.int64],
        seeds: NDArray[np.int64] | None,
    ) -> tuple[float, NDArray[np.int32]]:
        given = None if isinstance(self.weight, str) else self.weight
        i, j, weights = region_weights(
            region_graph(regions),
            region_means(scene.colors, regions),
            weight=1.0 if given is None else given,
            contrast=self.contrast,
        )
        n_regions = int(regions.max()) + 1
        rows = costs.reshape(-1, costs.shape[-1])
        sums, sizes = sums_and_counts(rows, regions.ravel().astype(np.int32), n_regions)
        fixed = None if seeds is None else region_labels(regions, seeds, n_regions)[0]
        if given is not None:
            return given, self._cut(sums, (i, j, weights), fixed)

        def solve(box: Box, strength: float) -> tuple[NDArray[Any], Any]:  # noqa: ARG001
            labels = self._cut(sums, (i, j, strength * weights), fixed)
            return labels, labels

        counted = None if fixed is None else fixed < 0
        restraint = Restraint.of_regions(sums, sizes, counted)
        return strongest(restraint, solve, whole=True)

    def _cut(
        self, unary: NDArray[Any], weights: EdgeWeights, seeds: NDArray[np.int64] | None
    ) -> NDArray[np.int32]:
        found = graph_cut(
            unary,
            weights,
            moves=self.moves,
            solver=self.solver,
            seeds=seeds,
            max_iter=self.max_iter,
        )
        return found.labels
