"""Mean field on a pixel grid or region graph: grid_mean_field and the refiner GridCRF."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.base import INTENSITY_RANGE, HasMethods, Interval, Scene, SoftRefiner, StrOptions
from hybridseg.inference.learned import Examples, LearnedRefiner
from hybridseg.inference.mean_field.dense_model import MeanFieldResult
from hybridseg.inference.mean_field.solve import solve_mean_field
from hybridseg.inference.mean_field.term_learning import TermLearnable, term_learnable
from hybridseg.inference.neighbors import NeighborRefiner
from hybridseg.inference.scene_energy import spread_marginals, without_certainties
from hybridseg.learning.learner import Learner
from hybridseg.pairwise.dense import DenseKernel
from hybridseg.pairwise.edges import EdgeTerm, EdgeWeights
from hybridseg.pairwise.energy import Energy
from hybridseg.pairwise.terms import scaled
from hybridseg.unary.cross_fit import CV
from hybridseg.validation import IntensityRange, check_number

#: The weight at which learning starts if it is "auto".
_START_WEIGHT = 2.0


def grid_mean_field(
    unary: ArrayLike,
    weights: EdgeWeights,
    *,
    compatibility: str | ArrayLike = "potts",
    n_iter: int = 10,
    tol: float = 0.0,
    damping: float = 0.0,
    with_energy: bool = False,
) -> MeanFieldResult:
    r"""Approximate the marginals of a CRF on a grid or a sparse graph.

    Mean field [1]_ [2]_ looks for the distribution with independent nodes that is nearest to the
    CRF. This distribution minimizes the free energy

    .. math:: F(Q) = \sum_{i,l} Q_i(l) (u_i(l) + \log Q_i(l))
              + \sum_{(i, j)} w_{ij} \sum_{l, m} \mu(l, m) Q_i(l) Q_j(m)

    Each update gives a node its best marginals while those of its neighbors are fixed,

    .. math:: Q_i(l) \propto \exp(-u_i(l) - \sum_j w_{ij} \sum_m \mu(l, m) Q_j(m)).

    If all nodes are updated at once, neighbors may swap labels for ever. So the nodes are colored
    such that no edge joins two nodes of one color (a checkerboard for 4 neighbors, four colors for
    8, a greedy coloring for other graphs), and one color is updated at a time. The free energy then
    never rises, for any graph, weights and compatibility.

    Parameters
    ----------
    unary : array-like, (*spatial, L), or (R, L) for a region graph
        The cost of each label, finite, lower is better.
    weights : sequence of arrays, {offset: array}, or (i, j, w)
        The weight of each edge, as :func:`hybridseg.inference.graph_cut` takes them; negative ones
        (neighbors that should differ) are allowed. Edges listed twice count twice.
    compatibility : "potts" or array-like, (L, L)
        The cost of each pair of labels; see :func:`hybridseg.pairwise.as_compatibility`.
    n_iter : int
        The largest number of sweeps over all nodes; 5 to 10 are usual, 0 gives the softmax of the
        negated unary.
    tol : float
        Stop when no marginal changes by ``tol`` or more in a sweep; 0 never stops early.
    damping : float in [0, 1)
        The fraction of the old marginals that each update keeps. It is not needed for convergence,
        and on photographs it changes the mean IoU by less than 0.003.
    with_energy : bool, default=False
        Whether to record the free energy of each iteration; see :func:`solve_mean_field`.

    Returns
    -------
    MeanFieldResult
        With ``marginals`` of float32, of the shape of ``unary``, and ``changes`` for every sweep.

    Raises
    ------
    TypeError, ValueError
        Shapes do not fit, values are not finite, or an option is out of its range.

    Notes
    -----
    Each image row takes the memory of at least 32 pixels, so the last axis should be a long one.

    References
    ----------
    .. [1] L. K. Saul, T. Jaakkola, M. I. Jordan, "Mean field theory for sigmoid belief networks",
       JAIR 4, 1996.
    .. [2] D. Koller, N. Friedman, "Probabilistic Graphical Models", MIT Press, 2009, algorithm
       11.7 and theorem 11.10.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import grid_mean_field
    >>> unary = np.zeros((3, 4, 2))
    >>> unary[..., 1] = 1.0
    >>> unary[1, 1] = [0.5, 0.0]  # prefers label 1
    >>> found = grid_mean_field(unary, [np.ones((2, 4)), np.ones((3, 3))])
    >>> int(found.marginals.argmax(axis=-1).sum())
    0
    """
    energy = Energy(unary, [EdgeTerm(weights)], compatibility=compatibility)
    check_number(damping, "damping", minimum=0)  # None means "automatic" in solve_mean_field only
    return solve_mean_field(
        energy, n_iter=n_iter, tol=tol, damping=damping, with_energy=with_energy
    )


class GridCRF(NeighborRefiner, LearnedRefiner, SoftRefiner):
    """Refine costs with a CRF on neighboring pixels or superpixels; it predicts probabilities.

    The energy [1]_ is that of :class:`hybridseg.GraphCut`, with contrast-sensitive weights (see
    :func:`hybridseg.pairwise.grid_weights`). Mean field [2]_ computes marginals instead of one
    labeling, accepts any compatibility, and its time depends on the number of labels but not on the
    difficulty of the image. It has a short range, because it joins neighbors only;
    :class:`hybridseg.DenseCRF` joins pixels that are far apart.

    Parameters
    ----------
    estimator : segmenter, optional
        Fitted inside; ``GridCRF(segmenter)`` equals ``make_pipeline(segmenter, GridCRF())``.
        Without it, the input is Scenes with costs.
    weight : "auto" or float, default="auto"
        The cost of cutting an edge between pixels of equal color, in the unit of the costs
        (nats, where they are negative log-probabilities). Larger values give smoother results, up
        to about 10; beyond, labels no longer change after the first sweeps, and ``connectivity=2``
        smooths more. "auto" is the largest value from 0 to 16 that the costs of each image allow;
        see the notes of :class:`hybridseg.GraphCut`. ``parameters_for(X)`` returns it.
    contrast : "auto", float or None, default="auto"
        The standard deviation of color differences on the scale 0..255; "auto" takes it from each
        image, None ignores the colors.
    connectivity : int, default=1
        1 gives 4 (or 6) neighbors, 2 gives 8 (or 18), 3 gives 26. ``on="regions"`` ignores it.
    on : {"pixels", "regions"}, default="pixels"
        What gets a label: pixels, or the Scene's superpixels. The weight between two regions grows
        with their common border, and the new costs are constant on each region.
    kernels : tuple or list of kernels, default=()
        With ``on="regions"``, further weights between all pairs of regions, as in
        :func:`hybridseg.pairwise.dense_region_weights`. ``(BilateralKernel(3, 80, 13),)`` makes a
        dense CRF of regions; ``weight=0`` then removes the weights between neighbors.
    compatibility : "potts" or array-like, (L, L)
        The cost of each pair of labels, in the order of ``classes_``.
    n_iter : int, default=10
        The largest number of sweeps.
    tol : float, default=0.0
        Stop when no marginal changes by ``tol`` or more.
    damping : float, default=0.0
        The fraction of the old marginals that each update keeps, in [0, 1).
    intensity_range : {"dtype", "image"} or (low, high), optional
        How pixel values become colors. Default: as the Scene says.
    unary_weight : float, default=1.0
        The factor of the costs.
    label_bias : array-like of float, (L,), optional
        A cost of each label at every pixel, added to the weighted costs, in the order of
        ``classes_``.
    kept_labels : array-like of int, optional
        Classes, by their values, that refinement does not change: a pixel whose cheapest label is
        one of them keeps it, and no other pixel gets it. It suits thin things, such as poles, that
        smoothing can only shorten.
    learn : {"weights", "all"}, sequence of str, Learner or None, default=None
        What ``fit`` learns from Scenes and label maps, by the gradient of the mean IoU through all
        iterations [3]_: ``"weights"``, those of the costs, of the neighbors and of each of
        ``kernels``; ``"all"``, also the compatibility. The given parameters are the start. Held-out
        images decide how much of it is used: nothing, if a class would lose IoU or the mean IoU
        would not surely rise. A :class:`hybridseg.learning.Learner` has all settings.
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
        With ``learn``: the learned parameters. A GridCRF with these parameters refines as the
        fitted model does, if all others are equal.
    learning_ : LearningReport
        With ``learn``: start, trace and judgment. ``print(model.learning_)`` shows a table,
        ``model.learning_.plot()`` the trace.

    See Also
    --------
    hybridseg.inference.grid_mean_field : the same on arrays.

    References
    ----------
    .. [1] J. Shotton, J. Winn, C. Rother, A. Criminisi, "TextonBoost for image understanding", IJCV
       81, 2009.
    .. [2] D. Koller, N. Friedman, "Probabilistic Graphical Models", MIT Press, 2009, section 11.5.
    .. [3] P. Krähenbühl, V. Koltun, "Parameter learning and convergent inference for dense random
       fields", ICML, 2013.

    Notes
    -----
    Learning updates all sites at once, with damping, because such updates can be differentiated.
    They have the fixed points of the sweeps with which held-out images and new images are refined.
    A contrast that is "auto" remains that of each image.

    Seeds of the Scene are not used; :class:`hybridseg.CRF` keeps them.
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
        "unary_weight": [Interval(Real, 0, None, closed="neither")],
        "label_bias": ["array-like", None],
        "kept_labels": ["array-like", None],
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
        kernels: Sequence[DenseKernel] = (),
        compatibility: str | ArrayLike = "potts",
        n_iter: int = 10,
        tol: float = 0.0,
        damping: float = 0.0,
        intensity_range: IntensityRange | None = None,
        unary_weight: float = 1.0,
        label_bias: ArrayLike | None = None,
        kept_labels: ArrayLike | None = None,
        learn: str | Sequence[str] | Learner | None = None,
        cv: Any = 5,
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
        self.unary_weight = unary_weight
        self.label_bias = label_bias
        self.kept_labels = kept_labels
        self.learn = learn
        self.cv = cv

    def _learnable(self, examples: Examples, learner: Learner) -> TermLearnable:
        weight = _START_WEIGHT if isinstance(self.weight, str) else float(self.weight)
        kernels = tuple(self.kernels)

        def named(weights: NDArray[np.float64]) -> dict[str, Any]:
            own: dict[str, Any] = {"weight": float(weights[0])}
            if kernels:
                pairs = zip(kernels, weights[1:], strict=True)
                own["kernels"] = tuple(scaled(kernel, factor) for kernel, factor in pairs)
            return own

        weights, given = [weight, *(1.0 for _ in kernels)], {"weight": 1.0}
        return term_learnable(self, examples, learner, weights, given, self._solve, named)

    def _chosen(self, scene: Scene) -> dict[str, float]:
        known = self._with_learned()
        return super()._chosen(scene) if known is self else known._chosen(scene)

    def _solved(self, scene: Scene) -> tuple[NDArray[np.int64] | None, Any]:
        known = self._with_learned()
        if known is not self:
            return known._solved(scene)
        regions, found = super()._solved(scene)
        if found is not None:
            found = without_certainties(scene, found, self.kept_labels, regions)
        return regions, found

    def _energy(self, scene: Scene, parameters: Mapping[str, float]) -> Energy:
        known = self._with_learned()
        if known is not self:
            return known._energy(scene, parameters)
        if self.on == "pixels" and self.kernels:
            raise ValueError(
                f"kernels={self.kernels!r} join regions, but on='pixels'; use on='regions', "
                f"or DenseCRF for pixels."
            )
        return super()._energy(scene, parameters)

    def _solve(self, energy: Energy) -> NDArray[np.float32]:
        found = solve_mean_field(energy, n_iter=self.n_iter, tol=self.tol, damping=self.damping)
        return found.marginals

    def _labels(self, found: NDArray[np.float32]) -> NDArray[np.intp]:
        return found.argmax(axis=-1)

    def _refined_costs(self, scene: Scene) -> Any:
        if self.on == "pixels":
            return super()._refined_costs(scene)
        return spread_marginals(scene, *self._solved(scene))

    def _marginals(self, scene: Scene) -> NDArray[np.float32]:
        marginals: NDArray[np.float32] = self._solved(scene)[1]
        return marginals
