"""The general refiner: a CRF of any terms, solved by mean field or by cuts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.metaestimators import available_if

from hybridseg.base import (
    INTENSITY_RANGE,
    HardRefiner,
    HasMethods,
    ImageList,
    Interval,
    Scene,
    SoftRefiner,
    StrOptions,
)
from hybridseg.inference.cuts.solve import MOVES, solve_cuts
from hybridseg.inference.learned import Examples, LearnedRefiner
from hybridseg.inference.mean_field.solve import solve_mean_field
from hybridseg.inference.mean_field.term_learning import (
    TermLearnable,
    refuse_to_learn,
    term_learnable,
)
from hybridseg.inference.minimizer import Minimizer
from hybridseg.inference.scene_energy import (
    has_region,
    scene_energy,
    seeded_costs,
    spread_labels,
    spread_marginals,
    without_certainties,
)
from hybridseg.learning.learner import Learner
from hybridseg.pairwise.energy import Energy
from hybridseg.pairwise.terms import as_terms, scaled
from hybridseg.unary.cross_fit import CV
from hybridseg.validation import IntensityRange


def _gives_marginals(model: CRF) -> bool:
    return model.solver == "mean_field"


class CRF(Minimizer, LearnedRefiner, SoftRefiner, HardRefiner):
    """Refine costs with a conditional random field (CRF) of any terms.

    The energy of a labeling is the sum of the incoming costs, the costs of the terms and the label
    costs [1]_ [2]_. Mean field computes marginals: the refined Scenes have new costs, and
    ``predict_proba`` is available. Cuts compute one labeling: the refined Scenes have labels and
    keep the incoming costs. Both treat the seeds of a Scene as hard constraints.

    Parameters
    ----------
    terms : sequence of terms
        The costs of disagreement: :class:`hybridseg.pairwise.GridTerm`,
        :class:`hybridseg.pairwise.RegionTerm`, :class:`hybridseg.pairwise.EdgeTerm`, the kernels
        :class:`hybridseg.pairwise.GaussianKernel`, :class:`hybridseg.pairwise.BilateralKernel` and
        :class:`hybridseg.pairwise.FeatureKernel`, the other terms of :mod:`hybridseg.pairwise`,
        such as :class:`hybridseg.pairwise.ContourTerm`, or terms of your own. With an empty
        sequence every pixel keeps its cheapest label.
    estimator : segmenter, optional
        Fitted inside; ``CRF(terms, estimator=segmenter)`` equals
        ``make_pipeline(segmenter, CRF(terms))``. Without it, the input is Scenes with costs.
    solver : {"mean_field", "cuts"}, default="mean_field"
        Mean field accepts every term. Cuts accept terms with edges or cliques; they find lower
        energies and a lower bound. Dense kernels have edges with ``on="regions"``.
    on : {"pixels", "regions"}, default="pixels"
        What gets a label: pixels, or the Scene's superpixels, whose costs are sums over their
        pixels.
    compatibility : "potts" or array-like, (L, L), default="potts"
        The cost of each pair of labels, in the order of ``classes_``.
    label_costs : array-like, (L,), optional
        The cost of each label, paid once for each image in which it occurs, in the order of
        ``classes_`` and in the unit of the costs summed over pixels. They make the result use fewer
        labels. Cuts need them >= 0.
    n_iter, tol, damping
        For mean field: the largest number of iterations, the change below which they stop, and the
        fraction of the old marginals that each update keeps; see
        :func:`hybridseg.inference.solve_mean_field`.
    moves, max_iter
        For cuts: "expansion" or "swap", and the largest number of sweeps; see
        :func:`hybridseg.inference.graph_cut`.
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
        iterations [3]_: ``"weights"``, the weight of the costs and a factor of each term;
        ``"all"``, also the compatibility. The given parameters are the start. Held-out images
        decide how much of it is used: nothing, if a class would lose IoU or the mean IoU would not
        surely rise. A :class:`hybridseg.learning.Learner` has all settings. Learning needs mean
        field and no label costs. Terms need edges, a dense kernel, cliques, or messages with a
        method ``messages_gradient``.
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
        With ``learn``: the learned parameters, with ``terms`` times their factors.
        ``CRF(**model.params_)`` refines as the fitted model does, if all other parameters are
        equal.
    learning_ : LearningReport
        With ``learn``: start, trace and judgment. ``print(model.learning_)`` shows a table,
        ``model.learning_.plot()`` the trace.

    See Also
    --------
    hybridseg.DenseCRF, hybridseg.GridCRF, hybridseg.GraphCut : CRFs with common terms, whose
        weights follow from the costs of each image.

    References
    ----------
    .. [1] J. Lafferty, A. McCallum, F. Pereira, "Conditional random fields: probabilistic models
       for segmenting and labeling sequence data", ICML, 2001.
    .. [2] A. Delong, A. Osokin, H. N. Isack, Y. Boykov, "Fast approximate energy minimization with
       label costs", International Journal of Computer Vision 96, 2012.
    .. [3] P. Krähenbühl, V. Koltun, "Parameter learning and convergent inference for dense random
       fields", ICML, 2013.

    Notes
    -----
    Learning updates all sites at once, with damping, because such updates can be differentiated.
    They have the fixed points of the iterations with which held-out images and new images are
    refined. Pixels whose labels are decided by seeds do not count.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg import CRF, Scene
    >>> from hybridseg.pairwise import BilateralKernel, GridTerm
    >>> image = np.zeros((12, 16), np.uint8)
    >>> image[:, 8:] = 200
    >>> logits = np.where(image[..., np.newaxis] > 0, [0.0, 0.4], [0.4, 0.0])
    >>> logits[5, 3] = [0.0, 0.4]  # a wrong pixel
    >>> scene = Scene.from_logits(image, logits)
    >>> crf = CRF([GridTerm(1.0), BilateralKernel(3.0, 40.0, 13.0)])
    >>> labels = crf.predict([scene])[0]
    >>> bool((labels == (image > 0)).all())
    True
    >>> crf.energy(scene).energy(labels) < crf.energy(scene).energy(scene.prediction)
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "terms": [tuple, list],
        "estimator": [HasMethods(["fit", "transform"]), None],
        "solver": [StrOptions({"mean_field", "cuts"})],
        "on": [StrOptions({"pixels", "regions"})],
        "compatibility": [StrOptions({"potts"}), "array-like"],
        "label_costs": ["array-like", None],
        "n_iter": [Interval(Integral, 0, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "damping": [Interval(Real, 0, 1, closed="left"), None],
        "moves": [StrOptions(set(MOVES))],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "intensity_range": [*INTENSITY_RANGE, None],
        "unary_weight": [Interval(Real, 0, None, closed="neither")],
        "label_bias": ["array-like", None],
        "kept_labels": ["array-like", None],
        "learn": [StrOptions({"weights", "all"}), tuple, list, Learner, None],
        "cv": [*CV, None],
    }

    def __init__(
        self,
        terms: Sequence[Any],
        *,
        estimator: Any = None,
        solver: str = "mean_field",
        on: str = "pixels",
        compatibility: str | ArrayLike = "potts",
        label_costs: ArrayLike | None = None,
        n_iter: int = 10,
        tol: float = 0.0,
        damping: float | None = None,
        moves: str = "expansion",
        max_iter: int = 20,
        intensity_range: IntensityRange | None = None,
        unary_weight: float = 1.0,
        label_bias: ArrayLike | None = None,
        kept_labels: ArrayLike | None = None,
        learn: str | Sequence[str] | Learner | None = None,
        cv: Any = 5,
    ) -> None:
        self.terms = terms
        self.estimator = estimator
        self.solver = solver
        self.on = on
        self.compatibility = compatibility
        self.label_costs = label_costs
        self.n_iter = n_iter
        self.tol = tol
        self.damping = damping
        self.moves = moves
        self.max_iter = max_iter
        self.intensity_range = intensity_range
        self.unary_weight = unary_weight
        self.label_bias = label_bias
        self.kept_labels = kept_labels
        self.learn = learn
        self.cv = cv

    @available_if(_gives_marginals)
    def predict_proba(self, X: Any) -> ImageList:
        """Return the marginals of the labels; only with ``solver="mean_field"``.

        Parameters
        ----------
        X : sequence of Scenes with costs, or of images with ``estimator``

        Returns
        -------
        ImageList of ndarray of float32, (*spatial, L)
            In the order of ``classes_``; they sum to one at each pixel.
        """
        return super().predict_proba(X)

    def _costed(self, X: Any, y: Any, groups: ArrayLike | None) -> Sequence[Scene]:
        # Refuse before an inner segmenter is fitted, which may take hours.
        if self.solver != "mean_field":
            raise ValueError(
                f"learn={self.learn!r} with solver={self.solver!r}; expected "
                f"solver='mean_field', whose marginals have gradients. For cuts, use "
                f"GraphCut(learn=...), or learn with mean field and pass params_ to a CRF with "
                f"solver='cuts'."
            )
        if self.label_costs is not None:
            raise ValueError(
                f"label_costs={self.label_costs!r} with learn={self.learn!r}; expected None, "
                f"because label costs join all pixels and are not learned: pass the term "
                f"hybridseg.pairwise.LabelCosts(costs), whose weight can be learned, or pass them "
                f"with params_ to a new CRF."
            )
        refuse_to_learn(as_terms(self.terms), "CRF")
        return super()._costed(X, y, groups)

    def _learnable(self, examples: Examples, learner: Learner) -> TermLearnable:
        terms = as_terms(self.terms)

        def named(factors: NDArray[np.float64]) -> dict[str, Any]:
            return {"terms": tuple(scaled(t, f) for t, f in zip(terms, factors, strict=True))}

        weights = [1.0] * len(terms)
        return term_learnable(self, examples, learner, weights, {}, self._marginals_of, named)

    def _energy(self, scene: Scene, parameters: Mapping[str, float]) -> Energy:
        known = self._with_learned()
        return scene_energy(
            scene,
            known.terms,
            on=self.on,
            compatibility=known.compatibility,
            label_costs=self.label_costs,
            seeded=True,
            unary_weight=known.unary_weight,
            label_bias=known.label_bias,
            kept_labels=known.kept_labels,
        )

    def _refined(self, scene: Scene) -> Scene:
        kind = SoftRefiner if self.solver == "mean_field" else HardRefiner
        return kind._refined(self, scene)

    def _refined_costs(self, scene: Scene) -> Any:
        if self.on == "pixels":
            return super()._refined_costs(scene)
        if not has_region(scene):
            return seeded_costs(scene, spread_marginals(scene, None, None))
        energy = self._energy(scene, {})
        found = self._without_certainties(scene, energy)
        spread = spread_marginals(scene, energy.regions, found)
        return seeded_costs(scene, spread)

    def _marginals(self, scene: Scene) -> NDArray[np.float32]:
        return self._without_certainties(scene, self._energy(scene, {}))

    def _without_certainties(self, scene: Scene, energy: Energy) -> NDArray[np.float32]:
        found, kept_labels = self._marginals_of(energy), self._with_learned().kept_labels
        return without_certainties(scene, found, kept_labels, energy.regions, energy.seeds)

    def _marginals_of(self, energy: Energy) -> NDArray[np.float32]:
        found = solve_mean_field(energy, n_iter=self.n_iter, tol=self.tol, damping=self.damping)
        return found.marginals

    def _label_indices(self, scene: Scene) -> NDArray[np.int32]:
        if self.on == "regions" and not has_region(scene):
            return spread_labels(scene, None, None)
        energy = self._energy(scene, {})
        labels = solve_cuts(energy, moves=self.moves, max_iter=self.max_iter).labels
        return labels if self.on == "pixels" else spread_labels(scene, energy.regions, labels)
