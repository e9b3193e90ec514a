"""The general refiner: any terms, and the solver that can take them."""

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
from hybridseg.inference.mean_field.solve import solve_mean_field
from hybridseg.inference.minimiser import Minimiser
from hybridseg.inference.scene_parts import (
    has_region,
    scene_energy,
    spread_labels,
    spread_marginals,
)
from hybridseg.pairwise.energy import Energy
from hybridseg.validation import IntensityRange


def _gives_marginals(model: CRF) -> bool:
    return model.solver == "mean_field"


class CRF(Minimiser, SoftRefiner, HardRefiner):
    """Refine costs with a conditional random field of any terms.

    The energy of a labelling is the sum of the costs that came, of what the terms ask for, and of
    the label costs. Mean field answers with marginals: the refined Scenes have new costs, and there
    is ``predict_proba``. Cuts answer with one labelling: the refined Scenes have labels and keep
    the costs that came. Seeds of the Scene are hard constraints of both.

    Parameters
    ----------
    terms : sequence of terms
        What neighbours pay for disagreeing: :class:`hybridseg.pairwise.GridTerm`,
        :class:`hybridseg.pairwise.RegionTerm`, :class:`hybridseg.pairwise.EdgeTerm`, the kernels
        :class:`hybridseg.pairwise.GaussianKernel`, :class:`hybridseg.pairwise.BilateralKernel` and
        :class:`hybridseg.pairwise.FeatureKernel`, or terms of your own. An empty sequence leaves
        every site to its own costs.
    estimator : segmenter, optional
        Fitted inside; ``CRF(terms, estimator=segmenter)`` equals
        ``make_pipeline(segmenter, CRF(terms))``. Without it, the input is Scenes with costs.
    solver : {"mean_field", "cuts"}, default="mean_field"
        Mean field takes every term. Cuts take terms with edges, find less energy, and know how far
        from the optimum they may be; dense kernels have edges with ``on="regions"``.
    on : {"pixels", "regions"}, default="pixels"
        What gets a label: pixels, or the Scene's superpixels, whose costs are sums over their
        pixels.
    compatibility : "potts" or array-like, (L, L)
        The cost of each pair of labels, in the order of ``classes_``.
    label_costs : array-like, (L,), optional
        Paid once for each label that occurs in an image, in the order of ``classes_``, in the unit
        of the costs summed over pixels: an image then shows fewer labels. Cuts need them >= 0.
    n_iter, tol, damping
        Of mean field: iterations at most, the change at which they end, and the share of the old
        marginals that each update keeps; see :func:`hybridseg.inference.solve_mean_field`.
    moves, max_iter
        Of cuts: "expansion" or "swap", and sweeps at most; see
        :func:`hybridseg.inference.graph_cut`.
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
    hybridseg.DenseCRF, hybridseg.GridCRF, hybridseg.GraphCut : usual terms, with weights that
        follow from the costs of each picture.

    References
    ----------
    Lafferty, McCallum and Pereira, "Conditional random fields", ICML 2001. Delong, Osokin, Isack
    and Boykov, "Fast approximate energy minimization with label costs", IJCV 96, 2012.

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

    @available_if(_gives_marginals)
    def predict_proba(self, X: Any) -> ImageList:
        """Marginals of the labels, with ``solver="mean_field"``.

        Parameters
        ----------
        X : sequence of Scenes with costs, or of images with ``estimator``

        Returns
        -------
        ImageList of ndarray of float32, (*spatial, L)
            In the order of ``classes_``; each pixel's sum to one.
        """
        return super().predict_proba(X)

    def _energy(self, scene: Scene, parameters: Mapping[str, float]) -> Energy:
        return scene_energy(
            scene,
            self.terms,
            on=self.on,
            compatibility=self.compatibility,
            label_costs=self.label_costs,
            seeded=True,
        )

    def _refined(self, scene: Scene) -> Scene:
        kind = SoftRefiner if self.solver == "mean_field" else HardRefiner
        return kind._refined(self, scene)

    def _refined_costs(self, scene: Scene) -> Any:
        if self.on == "pixels":
            return super()._refined_costs(scene)
        if not has_region(scene):
            return spread_marginals(scene, None, None)
        energy = self._energy(scene, {})
        return spread_marginals(scene, energy.regions, self._marginals_of(energy))

    def _marginals(self, scene: Scene) -> NDArray[np.float32]:
        return self._marginals_of(self._energy(scene, {}))

    def _marginals_of(self, energy: Energy) -> NDArray[np.float32]:
        found = solve_mean_field(energy, n_iter=self.n_iter, tol=self.tol, damping=self.damping)
        return found.marginals

    def _label_indices(self, scene: Scene) -> NDArray[np.int32]:
        if self.on == "regions" and not has_region(scene):
            return spread_labels(scene, None, None)
        energy = self._energy(scene, {})
        labels = solve_cuts(energy, moves=self.moves, max_iter=self.max_iter).labels
        return labels if self.on == "pixels" else spread_labels(scene, energy.regions, labels)
