"""Mean-field inference on the pixel grid or on a region graph, as a function and an estimator."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.base import INTENSITY_RANGE, HasMethods, Interval, Scene, SoftRefiner, StrOptions
from hybridseg.features.regions import region_graph, region_means
from hybridseg.inference.mean_field.dense_model import MeanFieldResult
from hybridseg.inference.mean_field.grid_sweeps import sweeps_over
from hybridseg.inference.restraint import Box, Restrained, Restraint, cut_out, strongest
from hybridseg.inference.scene_parts import regions_of, valid_costs
from hybridseg.kernels._compile import threads_for
from hybridseg.kernels.superpixels.regions import sums_and_counts
from hybridseg.pairwise.compatibility import as_compatibility, is_potts
from hybridseg.pairwise.dense import DenseKernel
from hybridseg.pairwise.edges import EdgeGroup, EdgeWeights, edge_groups
from hybridseg.pairwise.grid import grid_weights
from hybridseg.pairwise.regions import dense_region_weights, region_weights
from hybridseg.scene.costs import RegionCosts, costs_from_proba, proba_from_costs
from hybridseg.validation import IntensityRange, as_costs, as_mask, as_soft_costs, check_number

_Edges = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]

#: What messages may add up to at a node, within float32.
_MOST = 1e38


def grid_mean_field(
    unary: ArrayLike,
    weights: EdgeWeights,
    *,
    compatibility: str | ArrayLike = "potts",
    n_iter: int = 10,
    tol: float = 0.0,
    damping: float = 0.0,
) -> MeanFieldResult:
    r"""Approximate the marginals of a CRF on a grid or a sparse graph.

    Among all distributions under which the nodes are independent, the one nearest to the CRF has a
    least free energy

    .. math:: F(Q) = \sum_{i,l} Q_i(l) (u_i(l) + \log Q_i(l))
              + \sum_{(i, j)} w_{ij} \sum_{l, m} \mu(l, m) Q_i(l) Q_j(m)

    Each update gives a node its best marginals while its neighbours' are held,

    .. math:: Q_i(l) \propto \exp(-u_i(l) - \sum_j w_{ij} \sum_m \mu(l, m) Q_j(m)).

    Updating all nodes at once lets neighbours swap labels for ever. Here the nodes are coloured so
    that no edge joins two of one colour (a checkerboard on 4 neighbours, four colours on 8, greedy
    colours on any other graph), and updated colour by colour: the free energy falls at every step,
    for any graph, weights and compatibility.

    Parameters
    ----------
    unary : array-like, (*spatial, L), or (R, L) for a region graph
        The cost of each label, finite, lower is better.
    weights : sequence of arrays, {offset: array}, or (i, j, w)
        The weight of each edge, as :func:`hybridseg.inference.graph_cut` takes them; negative ones
        (neighbours that should differ) are allowed. Edges listed twice count twice.
    compatibility : "potts" or array-like, (L, L)
        The cost of each pair of labels; see :func:`hybridseg.pairwise.as_compatibility`.
    n_iter : int
        Sweeps over all nodes at most; 5 to 10 are usual, 0 gives the softmax of the negated unary.
    tol : float
        Stop when no marginal changes by ``tol`` or more in a sweep; 0 makes every sweep.
    damping : float in [0, 1)
        The share of the old marginals that each update keeps. It is not needed for convergence,
        and on photographs hardly changes the labels (mean IoU by less than 0.003).

    Returns
    -------
    MeanFieldResult
        With ``marginals`` of float32, of the shape of ``unary``, and ``changes`` for every sweep.

    Raises
    ------
    TypeError, ValueError
        Shapes that do not fit, values that are not finite, an option outside its range.

    Notes
    -----
    Of an image, each row takes the memory of 32 pixels at least: put a long axis last.

    References
    ----------
    Saul, Jaakkola and Jordan, "Mean field theory for sigmoid belief networks", JAIR 4, 1996.
    Koller and Friedman, "Probabilistic Graphical Models", 2009, algorithm 11.7 and theorem 11.10.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import grid_mean_field
    >>> unary = np.zeros((3, 4, 2))
    >>> unary[..., 1] = 1.0
    >>> unary[1, 1] = [0.5, 0.0]  # would rather have label 1
    >>> found = grid_mean_field(unary, [np.ones((2, 4)), np.ones((3, 3))])
    >>> int(found.marginals.argmax(axis=-1).sum())
    0
    """
    costs = as_soft_costs(as_costs(unary))
    shape, n_labels = costs.shape[:-1], costs.shape[-1]
    groups = edge_groups(weights, shape)
    matrix = as_compatibility(compatibility, n_labels)
    _check_messages(groups, shape, matrix)
    check_number(n_iter, "n_iter", minimum=0, integer=True)
    check_number(tol, "tol", minimum=0)
    check_number(damping, "damping", minimum=0)
    if damping >= 1:
        raise ValueError(f"damping={damping!r}; expected a number >= 0 and < 1, which would stand.")
    pairs = np.zeros((0, 0), np.float32) if is_potts(matrix) else matrix.astype(np.float32)
    rows = costs.reshape(-1, n_labels)
    changes: list[float] = []
    with threads_for(rows.size):
        sweeps = sweeps_over(rows, groups, shape, pairs, damping)
        together = 1 if tol > 0 else n_iter
        while len(changes) < n_iter and not (changes and changes[-1] < tol):
            changes += sweeps.run(together)
        marginals = sweeps.marginals()
    return MeanFieldResult(
        marginals=marginals.reshape(costs.shape),
        n_iter=len(changes),
        converged=bool(changes) and changes[-1] < tol,
        changes=tuple(changes),
    )


def _check_messages(
    groups: Sequence[EdgeGroup], shape: tuple[int, ...], matrix: NDArray[Any]
) -> None:
    """Refuse weights whose messages, added up at a node, might be beyond float32."""
    largest = max((float(abs(g.weight).max()) for g in groups if g.weight.size), default=0.0)
    n_edges = 2 * len(groups) if len(shape) > 1 else max(group.weight.size for group in groups)
    if largest * n_edges * max(1.0, float(abs(matrix).max())) > _MOST:
        raise ValueError(
            f"weights holds {largest:g}; messages are added up in float32, which ends at 3.4e38. "
            f"Divide unary and weights by a common factor."
        )


class GridCRF(Restrained, SoftRefiner):
    """Refine costs with a CRF on neighbouring pixels or superpixels, and give probabilities.

    The energy is that of :class:`hybridseg.GraphCut`, with contrast-sensitive weights (see
    :func:`hybridseg.pairwise.grid_weights`). Mean field answers with marginals instead of the one
    best labelling, takes any compatibility of labels, and its time grows with the number of labels
    and not with the difficulty of the picture. Its reach is short, because only neighbours speak to
    each other: :class:`hybridseg.DenseCRF` joins pixels that are far apart.

    Parameters
    ----------
    estimator : segmenter, optional
        Fitted inside; ``GridCRF(segmenter)`` equals ``make_pipeline(segmenter, GridCRF())``.
        Without it, the input is Scenes with costs.
    weight : "auto" or float, default="auto"
        The cost of cutting an edge between pixels of equal colour, in the unit of the costs
        (nats, where they are negative log-probabilities). Greater is smoother, up to about 10:
        beyond, the first sweeps settle all, and ``connectivity=2`` smooths more. "auto" is the
        greatest of 0 to 16 that the costs of each picture allow; see the notes of
        :class:`hybridseg.GraphCut`. ``parameters_for(X)`` tells what it took.
    contrast : "auto", float or None, default="auto"
        The standard deviation of colour differences on the scale 0..255; "auto" takes it from each
        image, None ignores the colours.
    connectivity : int, default=1
        1 gives 4 (or 6) neighbours, 2 gives 8 (or 18), 3 gives 26. Plays no part with
        ``on="regions"``.
    on : {"pixels", "regions"}, default="pixels"
        What gets a label: pixels, or the Scene's superpixels, which pay for the pixel faces
        between them and answer with costs region by region.
    kernels : tuple or list of kernels, default=()
        With ``on="regions"``, what any two regions pay besides, however far apart, as
        :func:`hybridseg.pairwise.dense_region_weights` has it: ``(BilateralKernel(3, 80, 13),)``
        makes a dense CRF of regions, and ``weight=0`` leaves their neighbourhood out.
    compatibility : "potts" or array-like, (L, L)
        The cost of each pair of labels, in the order of ``classes_``.
    n_iter : int, default=10
        Sweeps at most.
    tol : float, default=0.0
        Stop when no marginal changes by ``tol`` or more.
    damping : float, default=0.0
        The share of the old marginals that each update keeps, below 1.
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
    hybridseg.inference.grid_mean_field : the same on arrays.

    References
    ----------
    Shotton, Winn, Rother and Criminisi, "TextonBoost for image understanding", IJCV 81, 2009 (the
    grid CRF). Koller and Friedman, "Probabilistic Graphical Models", 2009, section 11.5.

    Notes
    -----
    Seeds of the Scene are not used: mean field has no hard constraints.
    :class:`hybridseg.GraphCut` enforces them.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg import GridCRF, Scene
    >>> image = np.zeros((12, 16), np.uint8)
    >>> image[:, 8:] = 200
    >>> logits = np.where(image[..., np.newaxis] > 0, [0.0, 0.4], [0.4, 0.0])
    >>> logits[5, 3] = [0.0, 0.4]  # a wrong pixel
    >>> labels = GridCRF().predict([Scene.from_logits(image, logits)])[0]
    >>> bool((labels == (image > 0)).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": [HasMethods(["fit", "transform"]), None],
        "weight": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "contrast": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither"), None],
        "connectivity": [Interval(Integral, 1, 3, closed="both")],
        "on": [StrOptions({"pixels", "regions"})],
        "kernels": [tuple, list],
        "compatibility": [StrOptions({"potts"}), "array-like"],
        "n_iter": [Interval(Integral, 0, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "damping": [Interval(Real, 0, 1, closed="left")],
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
        kernels: Sequence[DenseKernel] = (),
        compatibility: str | ArrayLike = "potts",
        n_iter: int = 10,
        tol: float = 0.0,
        damping: float = 0.0,
        intensity_range: IntensityRange | None = None,
    ) -> None:
        self.estimator = estimator
        self.weight = weight
        self.contrast = contrast
        self.connectivity = connectivity
        self.on = on
        self.kernels = kernels
        self.compatibility = compatibility
        self.n_iter = n_iter
        self.tol = tol
        self.damping = damping
        self.intensity_range = intensity_range

    def _chosen(self, scene: Scene) -> dict[str, float]:
        found = self._region_marginals if self.on == "regions" else self._pixel_marginals
        return {"weight": found(scene)[0]}

    def _refined_costs(self, scene: Scene) -> Any:
        if self.on == "pixels":
            if self.kernels:
                raise ValueError(
                    f"kernels={self.kernels!r} join regions, but on='pixels'; use on='regions', "
                    f"or DenseCRF for pixels."
                )
            return super()._refined_costs(scene)
        _, regions, rows = self._region_marginals(scene)
        costs = costs_from_proba(rows, minimum=1e-12)
        outside = regions < 0
        if not outside.any():
            return RegionCosts(regions.astype(np.int32), costs)
        spread = costs_from_proba(proba_from_costs(self._valid(scene)[1]), minimum=1e-12)
        spread[~outside] = costs[regions[~outside]]
        return spread

    def _valid(self, scene: Scene) -> tuple[NDArray[np.bool_] | None, NDArray[Any]]:
        valid = None if scene.valid is None else as_mask(scene.valid, scene.shape)
        return valid, valid_costs(scene, valid)

    def _marginals(self, scene: Scene) -> NDArray[np.float32]:
        return self._pixel_marginals(scene)[1]

    def _pixel_marginals(self, scene: Scene) -> tuple[float, NDArray[np.float32]]:
        """The weight and the marginals."""
        valid, costs = self._valid(scene)
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
            return given, self._solve(costs, weights)

        def solve(box: Box, strength: float) -> tuple[NDArray[Any], Any]:
            marginals = self._solve(costs[box], cut_out(weights, box, strength))
            return marginals.argmax(axis=-1), marginals

        return strongest(Restraint.of(costs, valid), solve)

    def _region_marginals(
        self, scene: Scene
    ) -> tuple[float, NDArray[np.int64], NDArray[np.float32]]:
        """The weight, the region map (-1 outside of all regions), and the marginals (R, L)."""
        valid, costs = self._valid(scene)
        regions = regions_of(scene, valid)
        n_regions, n_labels = int(regions.max()) + 1, costs.shape[-1]
        given = None if isinstance(self.weight, str) else self.weight
        if n_regions == 0:
            weight = 0.0 if given is None else given
            return weight, regions, np.zeros((0, n_labels), np.float32)
        flat = regions.ravel().astype(np.int32)
        sums, sizes = sums_and_counts(costs.reshape(-1, n_labels), flat, n_regions)
        near, far = self._region_edges(scene, regions, 1.0 if given is None else given)
        if given is not None:
            return given, regions, self._solve(sums, _joined(near, far, 1.0))

        def solve(box: Box, strength: float) -> tuple[NDArray[Any], Any]:  # noqa: ARG001
            marginals = self._solve(sums, _joined(near, far, strength))
            return marginals.argmax(axis=-1), marginals

        found = strongest(Restraint.of_regions(sums, sizes), solve, whole=True)
        return found[0], regions, found[1]

    def _region_edges(
        self, scene: Scene, regions: NDArray[np.int64], weight: float
    ) -> tuple[_Edges, _Edges | None]:
        """Between neighbours, and what the kernels add between any two regions."""
        near = region_weights(
            region_graph(regions),
            region_means(scene.colors, regions),
            weight=weight,
            contrast=self.contrast,
        )
        if not self.kernels:
            return near, None
        far = dense_region_weights(
            regions,
            scene.colors,
            bilateral_weight=0.0,
            kernels=self.kernels,
            intensity_range=(0, 255),
            spacing=scene.spacing,
        )
        return near, far

    def _solve(self, unary: NDArray[Any], weights: EdgeWeights) -> NDArray[np.float32]:
        return grid_mean_field(
            unary,
            weights,
            compatibility=self.compatibility,
            n_iter=self.n_iter,
            tol=self.tol,
            damping=self.damping,
        ).marginals


def _joined(near: _Edges, far: _Edges | None, strength: float) -> EdgeWeights:
    """One list of edges; the strength multiplies those between neighbours."""
    i, j, weights = near
    near = i, j, strength * weights
    if far is None:
        return near
    return [np.concatenate(ends) for ends in zip(near, far, strict=True)]
