"""Mean field in the fully connected CRF: the function mean_field and the refiner DenseCRF."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.base import (
    INTENSITY_RANGE,
    HasMethods,
    Interval,
    Scene,
    SoftRefiner,
    StrOptions,
)
from hybridseg.features.boxes import Box
from hybridseg.inference.kept import kept_indices
from hybridseg.inference.learned import Examples, LearnedRefiner, median_of
from hybridseg.inference.mean_field.dense_learning import (
    WIDTHS,
    DenseLearnable,
    Pixels,
    start_of,
)
from hybridseg.inference.mean_field.dense_model import DenseModel, MeanFieldResult
from hybridseg.inference.mean_field.parameters import what_of
from hybridseg.inference.mean_field.solve import solve_mean_field
from hybridseg.inference.minimizer import Minimizer
from hybridseg.inference.restraint import Restrained, strongest
from hybridseg.inference.scene_energy import (
    part_of,
    restraint_of,
    scene_energy,
    without_certainties,
)
from hybridseg.learning.examples import Example
from hybridseg.learning.learner import Learner
from hybridseg.pairwise.dense import DenseKernel, Spacing, dense_kernels, dense_widths
from hybridseg.pairwise.energy import Energy
from hybridseg.scene.costs import proba_from_costs
from hybridseg.space import Width
from hybridseg.unary.cross_fit import CV
from hybridseg.validation import IntensityRange, as_mask, as_spacing

#: The number of images from which the start of "auto" is chosen, and the start of its weight.
_N_STARTS, _START_STRENGTH = 5, 2.0

#: The smallest standard deviation of colors (0..255) that is more than float32 rounding.
_MIN_COLOR_SPREAD = 1e-4


def mean_field(
    unary: ArrayLike,
    image: ArrayLike,
    *,
    spatial_weight: float = 3.0,
    spatial_width: Width = "auto",
    bilateral_weight: float = 10.0,
    bilateral_width: Width = "auto",
    bilateral_color: float = 13.0,
    compatibility: str | ArrayLike = "potts",
    kernels: Iterable[DenseKernel] = (),
    n_iter: int = 10,
    tol: float = 0.0,
    init: ArrayLike | None = None,
    prune: float | None = None,
    intensity_range: IntensityRange = "dtype",
    spacing: Spacing = None,
    valid: ArrayLike | None = None,
    with_energy: bool = False,
) -> MeanFieldResult:
    """Approximate the marginals of a fully connected CRF with Gaussian pairwise terms.

    Every iteration [1]_ filters the marginals with each kernel on a permutohedral lattice [2]_ and
    sets

        Q_i(l)  proportional to  exp(-unary_i(l) - sum_l' mu(l, l') sum_m w_m (K_m Q(l'))_i),

    for all pixels at once, starting from the softmax of the negated unary costs. ``K_m`` is the
    Gaussian kernel matrix divided by ``sqrt(n_i n_j)``, with n its row sums. As in the published
    implementation, a pixel counts as its own neighbor in ``K_m``; its part of the sum is small
    where many pixels are alike. All pixels are updated at once, so the free energy may rise.

    Parameters
    ----------
    unary : array-like, (H, W, L) or (D, H, W, L)
        The cost of each label at each pixel, lower is better: ``-log`` of a probability, or minus
        a logit. Its number of axes decides whether the image is two- or
        three-dimensional.
    image : array-like, (H, W[, C]) or (D, H, W[, C])
        Any real dtype and any number of channels.
    spatial_weight, spatial_width : float
        Weight and standard deviation (in the unit of ``spacing``; pixels without one) of the
        kernel of positions. It removes specks: raise the width to remove larger ones. A width of
        "auto" is 3 pixels of the finest axis, for any unit of ``spacing``.
    bilateral_weight, bilateral_width, bilateral_color : float
        Weight, standard deviation of the distance, and standard deviation of each color on the
        scale 0..255, of the kernel that joins pixels of similar color. Set the width to a tenth
        to a quarter of the image, the color to the contrast of the faintest edge to be kept
        (3 to 20), and the weight in proportion to the spread of the unary costs. A width of "auto"
        is 80 pixels of the finest axis.
    compatibility : "potts" or array-like, (L, L)
        The cost of each pair of labels; see :func:`hybridseg.pairwise.as_compatibility`.
    kernels : iterable of kernels
        Further kernels, such as :class:`hybridseg.pairwise.FeatureKernel`.
    n_iter : int
        The largest number of iterations; 5 is often enough, 0 gives the softmax of the negated
        unary.
    tol : float
        Stop when no marginal changes by ``tol`` or more. 0 never stops early; each iteration then
        takes a fifth less time, because marginals are not compared.
    init : array-like, (*spatial, L), optional
        Marginals to start from instead of the softmax: those of the previous frame of a video, or
        of a run with other parameters. With them, fewer iterations are enough.
    prune : float, optional
        Leave out every label whose marginal provably stays at or below this bound at every pixel,
        such as 1e-4; its marginals become 0. Time and memory fall with the number of labels. It
        helps if an image shows few of many labels and the costs are confident; see the notes.
    intensity_range : {"dtype", "image"} or (low, high)
        How pixel values become colors on the scale 0..255.
    spacing : float or sequence of float, optional
        The distance between neighboring pixels along each axis. Default: 1.
    valid : array-like of bool, (*spatial,), optional
        Where False, a pixel does not influence others and its marginals are uniform.
    with_energy : bool, default=False
        Whether to record the free energy of each iteration; see :func:`solve_mean_field`.

    Returns
    -------
    MeanFieldResult

    Raises
    ------
    TypeError, ValueError
        An argument does not fit its description, or image and unary differ in shape.

    Notes
    -----
    The lattice approximates the Gaussian. Measured on forty problems (four photographs at 24 x 32
    pixels, costs with as much noise as signal, default parameters): rows of the normalized kernels
    differ from the exact ones by 9% (positions) and 14 to 16% (colors) of their sum, the
    marginals by 0.004 to 0.043 in the mean (median 0.02), and 92 to 99.6% of the pixels (median
    96%) get the same label. Results do not depend on the number of threads.

    ``prune`` uses that the messages m_i(l) = sum_m w_m (K_m Q(l))_i are not negative and sum to at
    most W, the largest row sum of the weighted kernels (a little above the sum of their weights).
    Let the compatibility be Potts, and let a label cost at least ``log(1 / eps) + W eps`` more than
    the best label at every pixel. Then its marginal is at most eps at the start, its messages are
    at most W eps, and so its marginal is at most eps after every iteration. This holds up to
    rounding and for any costs of the other labels. For other compatibilities the condition adds W
    times the largest advantage that a pair of labels can give to this label. The marginals of the
    other labels change by at most ``result.prune_bound``: with delta the sum of the bounds of the
    labels left out, b_0 = delta and b_(t+1) = delta + tanh(W b_t / 2). The bound is small for weak
    kernels or few iterations. For large W it can reach 1, because a small change may decide between
    labels that are in balance everywhere; on photographs the change stays near delta.

    References
    ----------
    .. [1] P. Krähenbühl, V. Koltun, "Efficient inference in fully connected CRFs with Gaussian
       edge potentials", NIPS, 2011, algorithm 1.
    .. [2] A. Adams, J. Baek, M. A. Davis, "Fast high-dimensional filtering using the permutohedral
       lattice", Eurographics, 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import mean_field
    >>> image = np.zeros((12, 16), np.uint8)
    >>> image[:, 8:] = 200
    >>> wanted = (image > 0).astype(int)
    >>> unary = np.where(np.eye(2, dtype=bool)[wanted], 0.3, 0.7)
    >>> unary[5, 3] = [0.7, 0.3]  # a wrong pixel
    >>> result = mean_field(unary, image)
    >>> bool((result.marginals.argmax(axis=-1) == wanted).all())
    True

    A third label that is far too expensive everywhere is left out:

    >>> costs = np.concatenate([unary, np.full((12, 16, 1), 30.0)], axis=-1)
    >>> mean_field(costs, image, prune=1e-6).pruned
    (2,)
    """
    energy = Energy(
        unary,
        image=image,
        compatibility=compatibility,
        valid=valid,
        spacing=spacing,
        intensity_range=intensity_range,
    )
    widths = dense_widths(spatial_width, bilateral_width, spacing, len(energy.shape))
    terms = dense_kernels(
        spatial_weight, widths[0], bilateral_weight, widths[1], bilateral_color, kernels
    )
    energy = energy.with_terms(terms)
    return solve_mean_field(
        energy, n_iter=n_iter, tol=tol, init=init, prune=prune, with_energy=with_energy
    )


class DenseCRF(Minimizer, Restrained, LearnedRefiner, SoftRefiner):
    """Refine costs with a fully connected CRF [1]_: boundaries move to where the colors change.

    Parameters
    ----------
    estimator : segmenter, optional
        Fitted inside; ``DenseCRF(segmenter)`` equals ``make_pipeline(segmenter, DenseCRF())``.
        Without it, the input is Scenes with costs.
    spatial_weight, spatial_width : "auto" or float, default="auto"
        Weight and standard deviation, in the unit of the Scene's ``spacing`` (pixels without
        one), of the kernel of positions. See the notes for "auto".
    bilateral_weight, bilateral_width, bilateral_color : "auto" or float, default="auto"
        Weight, standard deviation of the distance and of each color (on the scale 0..255) of the
        kernel that joins pixels of similar color.
    compatibility : "potts" or array-like, (L, L)
        The cost of each pair of labels, in the order of ``classes_``.
    kernels : tuple or list of kernels
        Further kernels; a :class:`hybridseg.pairwise.FeatureKernel` with a callable serves
        images of any size.
    n_iter : int
        The largest number of mean-field iterations.
    tol : float
        Stop when no marginal changes by ``tol`` or more.
    prune : float, optional
        Leave out, for each image, every label whose marginal provably stays at or below this bound
        everywhere; its probabilities become 0.
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
        iterations [2]_: ``"weights"``, the weights of costs and kernels; ``"all"``, also the widths
        and the compatibility. The given parameters are the start. Held-out images decide how much
        of it is used: nothing, if a class would lose IoU or the mean IoU would not surely rise. A
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
        With ``learn``: the learned parameters. ``DenseCRF(**model.params_)`` refines as the
        fitted model does.
    learning_ : LearningReport
        With ``learn``: start, trace and judgment. ``print(model.learning_)`` shows a table,
        ``model.learning_.plot()`` the trace.

    See Also
    --------
    hybridseg.inference.mean_field : the same on arrays, with advice on the parameters.
    hybridseg.inference.DenseModel : the kernels of one image, for many inferences.

    References
    ----------
    .. [1] P. Krähenbühl, V. Koltun, "Efficient inference in fully connected CRFs with Gaussian
       edge potentials", NIPS, 2011.
    .. [2] P. Krähenbühl, V. Koltun, "Parameter learning and convergent inference for dense random
       fields", ICML, 2013.

    Notes
    -----
    "auto" depends on the image and its costs. ``spatial_width`` is one pixel of the finest axis;
    ``bilateral_width`` a twentieth of the image's diagonal, two pixels at least;
    ``bilateral_color`` an eighth of the standard deviation of the colors. The bilateral weight is
    the largest value from 0 to 16 that the costs of each image allow, as described in the notes of
    :class:`hybridseg.GraphCut`, and the spatial weight is half of it. These values are chosen to do
    no harm; if you have labeled images, a search mostly finds better ones. ``parameters_for(X)``
    returns the values for each image. The function on arrays,
    :func:`hybridseg.inference.mean_field`, has the defaults of the paper's code instead: 3, 3, 10,
    80 and 13, which suit photographs of large objects.

    Seeds of the Scene are not used; :class:`hybridseg.CRF` keeps them.
    :class:`hybridseg.GraphCut` enforces them.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg import DenseCRF, Scene
    >>> image = np.zeros((12, 16), np.uint8)
    >>> image[:, 8:] = 200
    >>> logits = np.where(image[..., np.newaxis] > 0, [0.0, 0.4], [0.4, 0.0])
    >>> logits[5, 3] = [0.0, 0.4]  # a wrong pixel
    >>> labels = DenseCRF().predict([Scene.from_logits(image, logits)])[0]
    >>> bool((labels == (image > 0)).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": [HasMethods(["fit", "transform"]), None],
        "spatial_weight": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "spatial_width": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "bilateral_weight": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "bilateral_width": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "bilateral_color": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "compatibility": [StrOptions({"potts"}), "array-like"],
        "kernels": [tuple, list],
        "unary_weight": [Interval(Real, 0, None, closed="neither")],
        "label_bias": ["array-like", None],
        "kept_labels": ["array-like", None],
        "learn": [StrOptions({"weights", "all"}), tuple, list, Learner, None],
        "cv": [*CV, None],
        "n_iter": [Interval(Integral, 0, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "prune": [Interval(Real, 0, 1, closed="neither"), None],
        "intensity_range": [*INTENSITY_RANGE, None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        spatial_weight: str | float = "auto",
        spatial_width: str | float = "auto",
        bilateral_weight: str | float = "auto",
        bilateral_width: str | float = "auto",
        bilateral_color: str | float = "auto",
        compatibility: str | ArrayLike = "potts",
        kernels: Iterable[DenseKernel] = (),
        n_iter: int = 10,
        tol: float = 0.0,
        prune: float | None = None,
        intensity_range: IntensityRange | None = None,
        unary_weight: float = 1.0,
        label_bias: ArrayLike | None = None,
        kept_labels: ArrayLike | None = None,
        learn: str | Sequence[str] | Learner | None = None,
        cv: Any = 5,
    ) -> None:
        self.estimator = estimator
        self.spatial_weight = spatial_weight
        self.spatial_width = spatial_width
        self.bilateral_weight = bilateral_weight
        self.bilateral_width = bilateral_width
        self.bilateral_color = bilateral_color
        self.compatibility = compatibility
        self.kernels = kernels
        self.n_iter = n_iter
        self.tol = tol
        self.prune = prune
        self.intensity_range = intensity_range
        self.unary_weight = unary_weight
        self.label_bias = label_bias
        self.kept_labels = kept_labels
        self.learn = learn
        self.cv = cv

    def _learnable(self, examples: Examples, learner: Learner) -> DenseLearnable:
        return dense_learnable(self, examples, learner)

    def _chosen(self, scene: Scene) -> dict[str, float]:
        known = self._with_learned()
        if known is not self:
            return known._chosen(scene)
        widths = self._widths(scene)
        if self._is_auto():
            return {**self._weights(self._searched(scene, widths)[0]), **widths}
        return {**self._weights(0.0), **widths}

    def _energy(self, scene: Scene, parameters: Mapping[str, float]) -> Energy:
        known = self._with_learned()
        return scene_energy(
            scene,
            dense_kernels(**parameters, kernels=known.kernels),
            compatibility=known.compatibility,
            unary_weight=known.unary_weight,
            label_bias=known.label_bias,
            kept_labels=known.kept_labels,
        )

    def _marginals(self, scene: Scene) -> NDArray[np.float32]:
        known = self._with_learned()
        if known is not self:
            return known._marginals(scene)
        widths = self._widths(scene)
        if self._is_auto():
            found = self._searched(scene, widths)[1]
        else:
            found = self._solve(self._energy(scene, {**self._weights(0.0), **widths}))
        return without_certainties(scene, found, self.kept_labels)

    def _is_auto(self) -> bool:
        return self._weights(0.0) != self._weights(1.0)

    def _searched(
        self, scene: Scene, widths: Mapping[str, float]
    ) -> tuple[float, NDArray[np.float32]]:
        """Return the largest strength that the costs allow, and its marginals."""
        whole = self._energy(scene, {**self._weights(1.0), **widths})
        models: dict[str, DenseModel] = {}  # lattices do not depend on the strength

        def solve(box: Box, strength: float) -> tuple[NDArray[Any], Any]:
            part = part_of(whole, box, self._rescaled(whole.terms, strength))
            if strength > 0 and str(box) not in models:
                models[str(box)] = DenseModel.of_energy(part)
            marginals = self._solve(part, models.get(str(box)))
            return marginals.argmax(axis=-1), marginals

        # further kernels may have features for the whole image only
        return strongest(restraint_of(whole), solve, whole=len(tuple(self.kernels)) > 0)

    def _solve(self, energy: Energy, model: DenseModel | None = None) -> NDArray[np.float32]:
        if self.prune is None and not any(kernel.weight for kernel in energy.terms):
            return proba_from_costs(energy.unary)
        return solve_mean_field(
            energy, n_iter=self.n_iter, tol=self.tol, prune=self.prune, model=model
        ).marginals

    def _weights(self, strength: float) -> dict[str, float]:
        given = self.spatial_weight, self.bilateral_weight
        spatial, bilateral = (
            auto if isinstance(weight, str) else float(weight)
            for weight, auto in zip(given, (strength / 2, strength), strict=True)
        )
        return {"spatial_weight": spatial, "bilateral_weight": bilateral}

    def _rescaled(self, terms: Sequence[Any], strength: float) -> list[DenseKernel]:
        """Return the kernels at another strength, including kernels of weight 0."""
        every, now = self._weights(1.0), self._weights(strength)
        own = [now[name] for name in ("spatial_weight", "bilateral_weight") if every[name] > 0]
        changed = [replace(term, weight=w) for term, w in zip(terms, own, strict=False)]
        return [*changed, *terms[len(own) :]]

    def _widths(self, scene: Scene) -> dict[str, float]:
        sides = as_spacing(scene.spacing, len(scene.shape))
        finest = min(sides)
        diagonal = math.hypot(*np.multiply(scene.shape, sides))
        auto = {
            "spatial_width": finest,
            "bilateral_width": max(2 * finest, diagonal / 20),
        }
        given = {name: getattr(self, name) for name in (*auto, "bilateral_color")}
        if isinstance(self.bilateral_color, str):
            valid = None if scene.valid is None else as_mask(scene.valid, scene.shape)
            auto["bilateral_color"] = _spread(scene.colors, valid) / 8
        return {
            name: auto[name] if isinstance(value, str) else float(value)
            for name, value in given.items()
        }


def dense_learnable(crf: DenseCRF, examples: Examples, learner: Learner) -> DenseLearnable:
    """Return what learning needs of a dense CRF, for these examples.

    The start of a parameter that is "auto" is the median of its values for a few images; a weight
    that is "auto" starts at 2 for colors and at half of it for positions.
    """
    what = what_of(learner.what)
    positions = np.unique(np.linspace(0, len(examples.scenes) - 1, _N_STARTS).astype(int))
    chosen = [crf._widths(examples.scenes[int(i)]) for i in positions]
    given: dict[str, Any] = {name: median_of(chosen, name) for name in WIDTHS}
    given.update(crf._weights(_START_STRENGTH))
    for name in ("unary_weight", "label_bias", "compatibility"):
        given[name] = getattr(crf, name)
    kernels = tuple(kernel for kernel in crf.kernels if kernel.weight > 0)
    start = start_of(given, len(examples.classes), kernels)
    automatic = [name for name in WIDTHS if isinstance(getattr(crf, name), str)]

    def read(position: int, whole: bool) -> Example:
        scene, box, valid, example = examples.read(position, whole)
        colors = np.ascontiguousarray(scene.colors[box])
        widths = None
        if "widths" not in what and automatic:
            own = crf._widths(scene)
            widths = np.array([own[name] for name in WIDTHS])
        return replace(example, given=Pixels(colors, scene.spacing, valid, widths))

    n_iter = min(int(learner.n_iter), int(crf.n_iter)) if crf.n_iter else 0
    kept = kept_indices(crf.kept_labels, examples.classes)
    return DenseLearnable(read, start, kernels, what, n_iter, int(crf.n_iter), kept)


def _spread(colors: NDArray[np.float32], valid: NDArray[np.bool_] | None) -> float:
    """Return the standard deviation of colors over all channels; 1 for an image of one color."""
    rows = colors.reshape(-1, colors.shape[-1]) if valid is None else colors[valid]
    if not len(rows):
        return 1.0
    spread = math.sqrt(float(rows.var(axis=0, dtype=np.float64).mean()))
    return spread if spread > _MIN_COLOR_SPREAD else 1.0
