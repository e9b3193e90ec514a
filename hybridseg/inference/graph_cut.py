"""Minimum cuts of Potts energies, as a function and as an estimator."""

from __future__ import annotations

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
from hybridseg.inference.moves import (
    CUTS,
    Descent,
    EnergyGraph,
    binary_cut,
    expansion_moves,
    lower_bound,
)
from hybridseg.kernels.regions import region_sums
from hybridseg.pairwise.edges import EdgeWeights, edge_groups, edge_list
from hybridseg.pairwise.energy import as_label_indices
from hybridseg.pairwise.grid import grid_weights
from hybridseg.pairwise.regions import region_weights
from hybridseg.validation import (
    IntensityRange,
    as_costs,
    as_label_map,
    as_mask,
    check_number,
    check_option,
)

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
        Whether no expansion move lowers the energy any more.
    n_iter : int
        Sweeps over the labels.
    energies : tuple of float
        The energy at the start and after every move; it never rises. A single entry for one or
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
    solver: str = "numba",
    init: ArrayLike | None = None,
    seeds: ArrayLike | None = None,
    max_iter: int = 20,
    bound_iter: int = 10,
) -> GraphCutResult:
    r"""Minimise a Potts energy by minimum cuts: exactly for two labels, by moves for more.

    .. math:: E(y) = \sum_i u_i(y_i) + \sum_{(i, j)} w_{ij} [y_i \ne y_j]

    Two labels take one minimum cut; where several labellings are optimal, the one with the fewest
    pixels of label 1 is returned. More labels take expansion moves, each of which is the best
    among all labellings in which every pixel keeps its label or takes label alpha; at the end the
    energy is within a factor of two of the optimum, and in practice within about 1%.

    Parameters
    ----------
    unary : array-like, (*spatial, L), or (R, L) for a region graph
        The cost of each label, finite, lower is better. If it and ``weights`` hold integers, all
        is computed exactly in int64; otherwise in float64.
    weights : sequence of arrays, {offset: array}, or (i, j, w)
        The cost >= 0 of cutting each edge, as from :func:`hybridseg.pairwise.grid_weights` or
        :func:`hybridseg.pairwise.region_weights`: one array per axis, shaped like the image less
        one along that axis; a mapping for diagonal neighbourhoods; an edge list for a region graph.
    solver : {"numba", "pymaxflow"}, default="numba"
        What computes the cuts: our own incremental breadth-first search, or the package
        PyMaxflow, which is GPL and has to be installed (``pip install hybridseg[pymaxflow]``).
    init : array-like of int, optional
        Where expansion moves start, but for the seeds. Default: the cheapest label of each pixel.
        One cut finds the optimum of two labels from anywhere.
    seeds : array-like of int, optional
        Labels that are certain, as indices 0..L-1; negative where unknown.
    max_iter : int, default=20
        Sweeps of expansion moves at most; 3 to 6 are usual.
    bound_iter : int, default=10
        Sweeps of message passing (TRW-S) behind ``lower_bound`` for three or more labels, at 8
        bytes for each edge and label. 0 leaves the sum of the least costs as the bound, at once.

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
    cuts?", PAMI 26(2), 2004, theorem 4.1. Goldberg et al., "Maximum flows by incremental
    breadth-first search", ESA 2011.

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
    check_option(solver, "solver", tuple(CUTS))
    check_number(max_iter, "max_iter", minimum=1, integer=True)
    check_number(bound_iter, "bound_iter", minimum=0, integer=True)
    graph = _graph(costs, weights)
    start = None if init is None else as_label_indices(init, shape, n_labels, name="init").ravel()
    fixed = None if seeds is None else _as_seeds(seeds, shape, n_labels)
    seeded = graph if fixed is None else _with_seeds(graph, fixed)
    if start is not None and fixed is not None:
        start = np.where(fixed >= 0, fixed, start)
    found = _descend(seeded, solver, start, max_iter)
    constant = graph.energy(found.labels) - found.energies[-1]
    energies = tuple(float(value + constant) for value in found.energies)
    bound = found.energies[-1]
    if n_labels > 2:
        bound = lower_bound(seeded, bound_iter, found.energies[-1])
    return GraphCutResult(
        labels=found.labels.reshape(shape),
        energy=energies[-1],
        lower_bound=float(bound + constant),
        converged=found.converged,
        n_iter=found.n_iter,
        energies=energies,
    )


def _graph(costs: NDArray[Any], weights: EdgeWeights) -> EnergyGraph:
    shape = costs.shape[:-1]
    groups = edge_groups(weights, shape)
    n_edges = sum(group.weight.size for group in groups)
    if max(2 * n_edges, int(np.prod(shape))) >= MAX_ARCS:
        raise ValueError(
            f"unary and weights make a graph of {int(np.prod(shape))} nodes and {n_edges} edges; "
            f"the solver counts arcs in 32 bits, so at most {MAX_ARCS // 2 - 1} edges. Cut the "
            f"image into parts, or solve on superpixels (a region graph)."
        )
    i, j, strengths = edge_list(groups, shape)
    if strengths.size and strengths.min() < 0:
        raise ValueError(
            f"weights holds {strengths.min():g}; expected costs >= 0: with a negative one the "
            f"energy is not submodular, and no cut minimises it. Clip the weights at 0."
        )
    flat = costs.reshape(-1, costs.shape[-1])
    if strengths.dtype.kind == flat.dtype.kind == "i":
        _check_range(flat, strengths)
    return EnergyGraph.build(i, j, strengths, flat)


def _check_range(costs: NDArray[np.int64], strengths: NDArray[np.int64]) -> None:
    """Refuse integers whose sums would wrap around."""
    greatest = np.abs(costs.astype(np.float64)).max(axis=1).sum()
    total = 2.0 * float(greatest) + 2.1 * float(strengths.sum(dtype=np.float64))
    if total >= 2.0**63:
        raise ValueError(
            f"unary and weights hold integers whose sum may reach {total:.3g}, beyond int64; pass "
            f"floats, or divide by a common factor."
        )


def _as_seeds(seeds: ArrayLike, shape: tuple[int, ...], n_labels: int) -> NDArray[np.int64]:
    fixed = as_label_map(seeds, shape=shape, name="seeds").ravel()
    if fixed.size and fixed.max() >= n_labels:
        raise ValueError(
            f"seeds holds {fixed.max()}; expected label indices 0..{n_labels - 1}, negative where "
            f"unknown."
        )
    return fixed


def _with_seeds(graph: EnergyGraph, seeds: NDArray[np.int64]) -> EnergyGraph:
    """Let every other label of a seeded node cost more than all its edges, and its own nothing."""
    nodes = np.flatnonzero(seeds >= 0)
    n_nodes = len(seeds)
    # node by node: a difference of running sums would lose the small weights next to great ones
    tail = np.repeat(np.arange(n_nodes), np.diff(graph.first))
    sums = np.bincount(tail, graph.weight, n_nodes)
    unary = graph.unary.astype(graph.weight.dtype)  # int64 or float64
    forbidding = np.ceil(1.001 * sums[nodes]) + 1
    unary[nodes] = forbidding[:, np.newaxis].astype(unary.dtype)
    unary[nodes, seeds[nodes]] = 0
    return graph._replace(unary=unary)


def _descend(graph: EnergyGraph, solver: str, start: NDArray[Any] | None, max_iter: int) -> Descent:
    n_nodes, n_labels = graph.unary.shape
    if n_labels == 1:
        labels = np.zeros(n_nodes, np.int32)
        return Descent(labels, (graph.energy(labels),), 0, True)
    if n_labels == 2:
        return binary_cut(graph, CUTS[solver])
    first = graph.unary.argmin(axis=1) if start is None else start
    return expansion_moves(graph, first.astype(np.int32), max_iter, CUTS[solver])


class GraphCut(HardRefiner):
    """Refine costs with a minimum cut: boundaries become short and follow the image's contrast.

    The neighbours' costs are contrast-sensitive Potts weights; see
    :func:`hybridseg.pairwise.grid_weights`. Seeds of the Scene are hard constraints; pixels that
    are not valid influence no others.

    Parameters
    ----------
    estimator : segmenter, optional
        Fitted inside; ``GraphCut(segmenter)`` equals ``make_pipeline(segmenter, GraphCut())``.
        Without it, the input is Scenes with costs.
    weight : float, default=20.0
        The cost of cutting an edge between pixels of equal colour, in the unit of the costs
        (nats, where they are negative log-probabilities). Greater is smoother; 2 keeps thin
        parts, 50 leaves few large segments.
    contrast : "auto", float or None, default="auto"
        The standard deviation of colour differences on the scale 0..255; "auto" takes it from each
        image, None ignores the colours.
    connectivity : int, default=1
        1 gives 4 (or 6) neighbours, 2 gives 8 (or 18), 3 gives 26. Plays no part with
        ``on="regions"``.
    on : {"pixels", "regions"}, default="pixels"
        What gets a label: pixels, or the Scene's superpixels, which is much faster and keeps their
        boundaries. Regions pay for the pixel faces between them.
    solver : {"numba", "pymaxflow"}, default="numba"
        What computes the cuts; PyMaxflow is GPL and has to be installed.
    max_iter : int, default=20
        Sweeps of expansion moves at most, for three or more labels.
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
        "weight": [Interval(Real, 0, None, closed="left")],
        "contrast": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither"), None],
        "connectivity": [Interval(Integral, 1, 3, closed="both")],
        "on": [StrOptions({"pixels", "regions"})],
        "solver": [StrOptions(set(CUTS))],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "intensity_range": [*INTENSITY_RANGE, None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        weight: float = 20.0,
        contrast: str | float | None = "auto",
        connectivity: int = 1,
        on: str = "pixels",
        solver: str = "numba",
        max_iter: int = 20,
        intensity_range: IntensityRange | None = None,
    ) -> None:
        self.estimator = estimator
        self.weight = weight
        self.contrast = contrast
        self.connectivity = connectivity
        self.on = on
        self.solver = solver
        self.max_iter = max_iter
        self.intensity_range = intensity_range

    def _label_indices(self, scene: Scene) -> NDArray[np.integer[Any]]:
        valid = None if scene.valid is None else as_mask(scene.valid, scene.shape)
        seeds = _seed_indices(scene, valid)
        return (self._cut_regions if self.on == "regions" else self._cut_pixels)(
            scene, valid, seeds
        )

    def _cut_pixels(
        self, scene: Scene, valid: NDArray[np.bool_] | None, seeds: NDArray[np.int64] | None
    ) -> NDArray[np.int32]:
        weights = grid_weights(
            scene.colors,
            weight=self.weight,
            contrast=self.contrast,
            connectivity=self.connectivity,
            spacing=scene.spacing,
            intensity_range=(0, 255),
            spatial_ndim=scene.rank,
            valid=valid,
        )
        return self._cut(_valid_costs(scene, valid), weights, seeds)

    def _cut_regions(
        self, scene: Scene, valid: NDArray[np.bool_] | None, seeds: NDArray[np.int64] | None
    ) -> NDArray[np.int32]:
        costs = _valid_costs(scene, valid)
        regions = _regions_of(scene, valid)
        labels = costs.argmin(axis=-1).astype(np.int32)
        inside = regions >= 0
        if not inside.any():
            return labels if seeds is None else np.where(seeds >= 0, seeds.astype(np.int32), labels)
        weights = region_weights(
            region_graph(regions),
            region_means(scene.colors, regions),
            weight=self.weight,
            contrast=self.contrast,
        )
        n_regions = int(regions.max()) + 1
        rows = costs.reshape(-1, costs.shape[-1])
        sums, _ = region_sums(rows, regions.ravel().astype(np.int32), n_regions)
        fixed = None if seeds is None else region_labels(regions, seeds, n_regions)[0]
        labels[inside] = self._cut(sums, weights, fixed)[regions[inside]]
        return labels if seeds is None else np.where(seeds >= 0, seeds.astype(np.int32), labels)

    def _cut(
        self, unary: NDArray[Any], weights: EdgeWeights, seeds: NDArray[np.int64] | None
    ) -> NDArray[np.int32]:
        found = graph_cut(
            unary, weights, solver=self.solver, seeds=seeds, max_iter=self.max_iter, bound_iter=0
        )
        return found.labels


def _valid_costs(scene: Scene, valid: NDArray[np.bool_] | None) -> NDArray[Any]:
    """The costs ``(*spatial, L)``; pixels that are not valid have none."""
    costs = scene.unary if valid is None else np.where(valid[..., np.newaxis], scene.unary, 0)
    return as_costs(costs, spatial_shape=scene.shape)


def _seed_indices(scene: Scene, valid: NDArray[np.bool_] | None) -> NDArray[np.int64] | None:
    """The Scene's seeds as indices into its classes, -1 where there is none."""
    if scene.seeds is None:
        return None
    values = as_label_map(
        scene.seeds, shape=scene.shape, ignore_label=scene.ignore_label, name="seeds"
    )
    classes = np.asarray(scene.classes)
    matches = values[..., np.newaxis] == classes
    unknown = (values >= 0) & ~matches.any(axis=-1)
    if bool(unknown.any()):
        raise ValueError(
            f"seeds holds the label {values[unknown][0]}; expected one of the classes "
            f"{classes.tolist()}, or a negative number where nothing is known."
        )
    present = values >= 0 if valid is None else (values >= 0) & valid
    return np.where(present, matches.argmax(axis=-1), -1)


def _regions_of(scene: Scene, valid: NDArray[np.bool_] | None) -> NDArray[np.int64]:
    """The Scene's region map, numbered without gaps; -1 outside of all regions."""
    if scene.regions is None:
        raise ValueError(
            "on='regions' needs superpixels, but this Scene has none: let a SuperpixelClassifier "
            "make the costs, pass Scene(..., regions=map), or use on='pixels'."
        )
    regions = as_label_map(scene.regions, shape=scene.shape, name="regions")
    if valid is not None:
        regions[~valid] = -1
    inside = regions >= 0
    regions[inside] = np.unique(regions[inside], return_inverse=True)[1]
    return regions
