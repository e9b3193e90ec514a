"""Minimum cuts of pairwise energies: the function graph_cut and the refiner GraphCut."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone

from hybridseg.base import INTENSITY_RANGE, HardRefiner, HasMethods, Interval, Scene, StrOptions
from hybridseg.inference.cuts.cut_learning import CutModel, cut_example, what_of
from hybridseg.inference.cuts.moves import CUTS
from hybridseg.inference.cuts.solve import MOVES, GraphCutResult, solve_cuts
from hybridseg.inference.learned import Examples, LearnedRefiner
from hybridseg.inference.neighbors import NeighborRefiner
from hybridseg.inference.scene_energy import as_label_bias, spread_labels
from hybridseg.learning.examples import Example
from hybridseg.learning.learner import Learner
from hybridseg.pairwise.edges import EdgeTerm, EdgeWeights
from hybridseg.pairwise.energy import Energy
from hybridseg.pairwise.grid import GridTerm
from hybridseg.pairwise.regions import RegionTerm
from hybridseg.unary.cross_fit import CV
from hybridseg.validation import IntensityRange


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
    r"""Minimize an energy by minimum cuts: exactly for two labels, by moves for more.

    .. math:: E(y) = \sum_i u_i(y_i) + \sum_{(i, j)} w_{ij}\, \mu(y_i, y_j)

    For two labels, one minimum cut [3]_ [5]_ finds the optimum. If several labelings are optimal,
    the one with the fewest pixels of label 1 is returned. For more labels, moves [1]_ [2]_ lower
    the energy step by step. An expansion finds the best labeling in which every pixel keeps its
    label or takes label alpha. A swap finds the best labeling in which the pixels of two labels
    are divided between these two again. After expansions with Potts costs the energy is at most
    twice the optimum; in practice it is within a few percent, which ``lower_bound`` shows.

    With Potts costs, message passing (TRW-S) [4]_ runs first. It yields an initial labeling, a
    lower bound, and initial flows for the expansions. The time grows with the strength of the
    weights.

    Parameters
    ----------
    unary : array-like, (*spatial, L), or (R, L) for a region graph
        The cost of each label, finite, lower is better. If ``unary`` and ``weights`` hold
        integers, the computation is exact, in int64; otherwise it is in float64.
    weights : sequence of arrays, {offset: array}, or (i, j, w)
        The cost >= 0 of cutting each edge, as from :func:`hybridseg.pairwise.grid_weights` or
        :func:`hybridseg.pairwise.region_weights`: one array per axis, shaped like the image less
        one along that axis; a mapping for diagonal neighborhoods; an edge list for a region graph.
    compatibility : "potts" or array-like, (L, L), default="potts"
        The cost of each pair of labels, multiplied by the weight: symmetric, with a diagonal of
        zeros and no negative entry. Integers keep integer input exact. Costs other than Potts take
        several times longer, and their lower bound is only the sum of the smallest unary costs.
    moves : {"expansion", "swap"}, default="expansion"
        Expansions need a compatibility that obeys the triangle inequality; they are faster and find
        lower energies. Swaps accept any, such as truncated squares of label differences.
    solver : {"numba", "pymaxflow"}, default="numba"
        The max-flow solver: the built-in one, or the package PyMaxflow, which is under the GPL and
        must be installed (``pip install hybridseg[pymaxflow]``).
    init : array-like of int, optional
        The initial labels of the moves; seeds replace them. Default: the labels from message
        passing, or from moves on cells of several pixels where weights are strong; for a
        ``compatibility`` other than Potts, the cheapest label of each pixel. It has no effect for
        two labels.
    seeds : array-like of int, optional
        Labels that are certain, as indices 0..L-1; negative where unknown.
    max_iter : int, default=20
        The largest number of sweeps of moves; 3 to 6 are usual.
    bound_iter : int, optional
        Sweeps of message passing (TRW-S) before the moves, for three or more labels and Potts
        costs; memory is 12 to 24 bytes for each edge and label. More sweeps tighten
        ``lower_bound`` and mostly lower the energy; with 0 the bound is weak. Default: stop when
        sweeps take more time than they save in the moves, usually after 15 to 60, at most 100.

    Returns
    -------
    GraphCutResult

    Raises
    ------
    TypeError, ValueError
        Shapes do not fit, values are not finite, weights are negative, or a label is unknown.
    ImportError
        ``solver="pymaxflow"`` without the package.

    References
    ----------
    .. [1] Y. Boykov, O. Veksler, R. Zabih, "Fast approximate energy minimization via graph cuts",
       PAMI 23(11), 2001, sections 5 and 6.
    .. [2] V. Kolmogorov, R. Zabih, "What energy functions can be minimized via graph cuts?", PAMI
       26(2), 2004, theorem 4.1.
    .. [3] Y. Boykov, V. Kolmogorov, "An experimental comparison of min-cut/max-flow algorithms for
       energy minimization in vision", PAMI 26(9), 2004.
    .. [4] V. Kolmogorov, "Convergent tree-reweighted message passing for energy minimization", PAMI
       28(10), 2006.
    .. [5] D. S. Hochbaum, "The pseudoflow algorithm: a new algorithm for the maximum-flow problem",
       Operations Research 56(4), 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import graph_cut
    >>> unary = np.array([[[0, 9], [5, 4], [0, 9]]])  # one row of three pixels
    >>> result = graph_cut(unary, [np.zeros((0, 3), int), np.array([[2, 2]])])
    >>> result.labels.tolist(), result.energy, result.lower_bound
    ([[0, 0, 0]], 5.0, 5.0)
    """
    energy = Energy(unary, [EdgeTerm(weights)], compatibility=compatibility, seeds=seeds)
    return solve_cuts(
        energy,
        moves=moves,
        solver=solver,
        max_iter=max_iter,
        bound_iter=bound_iter,
        init=init,
    )


class GraphCut(NeighborRefiner, LearnedRefiner, HardRefiner):
    """Refine costs with a minimum cut: boundaries become short and follow the image's contrast.

    The pairwise costs are contrast-sensitive Potts weights [1]_, see
    :func:`hybridseg.pairwise.grid_weights`; three or more labels take moves [2]_. Seeds of the
    Scene are hard constraints. Pixels that are not valid do not influence others.

    Parameters
    ----------
    estimator : segmenter, optional
        Fitted inside; ``GraphCut(segmenter)`` equals ``make_pipeline(segmenter, GraphCut())``.
        Without it, the input is Scenes with costs.
    weight : "auto" or float, default="auto"
        The cost of cutting an edge between pixels of equal color, in the unit of the costs
        (nats, where they are negative log-probabilities). Larger values give smoother results: 2
        keeps thin parts, 50 leaves a few large segments. "auto" is the largest value from 0 to 16
        that the costs of each image allow; see the notes.
    contrast : "auto", float or None, default="auto"
        The standard deviation of color differences on the scale 0..255; "auto" takes it from each
        image, None ignores the colors.
    connectivity : int, default=1
        1 gives 4 (or 6) neighbors, 2 gives 8 (or 18), 3 gives 26. ``on="regions"`` ignores it.
    on : {"pixels", "regions"}, default="pixels"
        What gets a label: pixels, or the Scene's superpixels, which is much faster and keeps their
        boundaries. The weight between two regions grows with their common border.
    moves : {"expansion", "swap"}, default="expansion"
        The moves for three or more labels; expansions are faster and mostly find lower energies.
    solver : {"numba", "pymaxflow"}, default="numba"
        The max-flow solver; PyMaxflow is under the GPL and must be installed.
    max_iter : int, default=20
        The largest number of sweeps of moves, for three or more labels.
    intensity_range : {"dtype", "image"} or (low, high), optional
        How pixel values become colors. Default: as the Scene says.
    unary_weight : float, default=1.0
        The factor of the costs.
    label_bias : array-like of float, (L,), optional
        A cost of each label at every pixel, added to the weighted costs, in the order of
        ``classes_``.
    learn : {"weights", "all"}, sequence of str, Learner or None, default=None
        What ``fit`` learns from Scenes and label maps by a maximum margin [3]_ [4]_: ``"weights"``
        or ``"all"``, the weight of the neighbors relative to that of the costs;
        ``("weights", "bias")``, also the bias of the labels. See the notes. A
        :class:`hybridseg.learning.Learner` has all settings.
    cv : int, "holdout", splitter or None, default=5
        With ``learn`` and ``estimator``: the folds in which the inner segmenter is fitted, so that
        learning sees the costs of images that it was not trained on; see
        :class:`hybridseg.CrossFit`. None fits it once and warns.

    Attributes
    ----------
    classes_ : ndarray of int, (L,)
        The label values, once fitted.
    estimator_ : segmenter
        The fitted inner segmenter, where ``estimator`` was given.
    params_ : dict
        With ``learn``: the learned parameters. ``GraphCut(**model.params_)`` refines as the fitted
        model does, if the other parameters are the same.
    learning_ : LearningReport
        With ``learn``: start, trace and judgment. ``print(model.learning_)`` shows a table,
        ``model.learning_.plot()`` the trace.

    See Also
    --------
    graph_cut : the same on arrays, with the energy and a bound on it.

    Notes
    -----
    "auto" is chosen to do no harm. Probabilities say how uncertain they are. Even if they are
    right, the true labels are expected to cost more than the cheapest labels by a certain amount,
    the doubt. The weight is the largest one for which the result exceeds the cheapest cost by no
    more than a fraction of the doubt, in the whole image and in every class. The fraction is small
    if whole regions share their errors, as with superpixels and networks, and large if errors are
    independent from pixel to pixel. If you have labeled images, a search over weights mostly finds
    a better one, often 5 to 20 for large objects. ``parameters_for(X)`` returns the weight of each
    image.

    With ``learn``, a structured support vector machine is trained: the true labeling of each image
    should have a lower energy than any other, by a margin that is the fraction of wrong pixels. A
    cut of the energy minus this loss finds the labeling that violates it most: exactly for two
    labels, approximately by moves for more. Block-coordinate Frank-Wolfe steps [5]_ then improve
    the parameters, and the weight of the neighbors stays >= 0. The given ``weight`` (0 for "auto")
    and ``label_bias`` are the start, to which ``Learner(alpha=...)`` pulls. Pixels without a known
    label are left out with their edges. Held-out images decide how much of the weight is used:
    nothing, if a class would lose IoU or the mean IoU would not surely rise.

    References
    ----------
    .. [1] Y. Boykov, M.-P. Jolly, "Interactive graph cuts for optimal boundary and region
       segmentation of objects in N-D images", ICCV, 2001.
    .. [2] Y. Boykov, O. Veksler, R. Zabih, "Fast approximate energy minimization via graph cuts",
       PAMI 23(11), 2001.

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
        "unary_weight": [Interval(Real, 0, None, closed="neither")],
        "label_bias": ["array-like", None],
        "learn": [StrOptions({"weights", "all"}), tuple, list, Learner, None],
        "cv": [*CV, None],
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
        unary_weight: float = 1.0,
        label_bias: ArrayLike | None = None,
        learn: str | Sequence[str] | Learner | None = None,
        cv: Any = 5,
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
        self.unary_weight = unary_weight
        self.label_bias = label_bias
        self.learn = learn
        self.cv = cv

    _seeded = True

    def _learnable(self, examples: Examples, learner: Learner) -> CutModel:
        return cut_model(self, examples, learner)

    def _chosen(self, scene: Scene) -> dict[str, float]:
        return super(GraphCut, self._with_learned())._chosen(scene)

    def _energy(self, scene: Scene, parameters: Mapping[str, float]) -> Energy:
        return super(GraphCut, self._with_learned())._energy(scene, parameters)

    def _solve(self, energy: Energy) -> NDArray[np.int32]:
        found = solve_cuts(energy, moves=self.moves, solver=self.solver, max_iter=self.max_iter)
        return found.labels

    def _label_indices(self, scene: Scene) -> NDArray[np.integer[Any]]:
        regions, labels = self._with_learned()._solved(scene)
        return labels if self.on == "pixels" else spread_labels(scene, regions, labels)


def cut_model(cut: GraphCut, examples: Examples, learner: Learner) -> CutModel:
    """Return what learning needs of a graph cut, for these examples.

    Images with regions are read whole, because they are small problems.
    """
    with_bias = "bias" in what_of(learner.what)
    by_region = cut.on == "regions"
    if by_region:
        whole = clone(learner).set_params(max_pixels=sys.maxsize // 2**8)
        examples = replace(examples, learner=whole)
    near: Any = (
        RegionTerm(1.0, cut.contrast)
        if by_region
        else GridTerm(1.0, cut.contrast, cut.connectivity)
    )
    fixed = None if with_bias else cut.label_bias

    def read(position: int, whole: bool) -> Example:
        scene, box, inside, example = examples.read(position, whole)
        return cut_example(
            *(example, scene, near, cut.on, box, inside),
            unary_weight=cut.unary_weight,
            label_bias=fixed,
        )

    start: NDArray[np.float64] | None = None
    if with_bias:
        n_labels = len(examples.classes)
        given = np.zeros(n_labels) if cut.label_bias is None else cut.label_bias
        start = as_label_bias(given, n_labels).astype(np.float64)
    weight = 0.0 if isinstance(cut.weight, str) else float(cut.weight)
    return CutModel(read, cut._solve, float(cut.unary_weight), weight, start)
