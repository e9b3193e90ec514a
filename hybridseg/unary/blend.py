"""A segmenter whose costs are a weighted mix of the costs of several segmenters."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hybridseg.base import Interval, Scene, StrOptions
from hybridseg.metrics.table import ConfusionTable
from hybridseg.scene.costs import RegionCosts
from hybridseg.unary.cross_fit import block_folds
from hybridseg.unary.members import HeldOut, MemberSegmenter
from hybridseg.unary.opinion_pool import fit_pool
from hybridseg.unary.pixels import split_evenly
from hybridseg.validation import as_numbers

#: The maximum number of folds in which learned weights are compared with others.
_MAX_FOLDS = 5
#: The names of the mixes in ``scores_``, which no segmenter may have.
_EQUAL, _LEARNED = "equal weights", "learned weights"


class Blend(MemberSegmenter):
    """Mix the costs of several segmenters by weights that are given, equal or learned.

    The cost of label l is ``sum_m weights_[m, l] * u[m, l] + bias_[l]``, where ``u[m]`` is ``-log``
    of the probabilities of segmenter m, at most ``-log(1e-4)``. This is a logarithmic opinion pool
    [1]_. Segmenters of pixels and of superpixels, networks, and pipelines of them can be mixed.

    The weights are learned by maximum likelihood, from *out-of-fold* costs: each segmenter is
    fitted once for each fold, as in :class:`CrossFit`. On its own training images, an overfitted
    segmenter would get all the weight. Learned weights need not be better than others. So ``fit``
    compares the learned weights with equal weights and with each single segmenter on images that
    they were not learned from, and keeps the best.

    Parameters
    ----------
    segmenters : list of (str, segmenter)
        The names and the segmenters to mix. A segmenter "drop" is left out. Each keeps its own
        ``intensity_range``; the values of ``ignore_label`` must be the same.
    weights : None, "equal", or array-like of float, (M,) or (M, L), default=None
        None: learned. Otherwise nothing is learned except the segmenters: ``"equal"`` is 1/M for
        each; an array holds one weight for each of ``segmenters``, or one for each of its classes
        as well, in the order of ``classes_``. Each class needs a positive weight.
    per_class : bool, default=False
        False: learn one weight for each segmenter, and no bias. True: a weight for each segmenter
        and class, and a bias for each class, which needs many labeled images.
    class_weight : {"balanced"} or None, default="balanced"
        ``"balanced"``: all classes have the same weight in the likelihood, as in a mean IoU. None:
        all pixels have the same weight, as in a pixel accuracy.
    alpha : float, default=1e-2
        The strength of the L2 regularization of the weights toward 1/M, and of the bias toward 0.
    max_samples : int or None, default=50000
        The maximum number of labeled pixels to learn weights from, in all images together; None
        takes all. Each image gives the same number of pixels, or all its pixels if it has fewer.
    cv : int, "holdout", "prefit" or a scikit-learn splitter, default=5
        The folds of images; see :class:`CrossFit`. ``"prefit"``: the segmenters are fitted
        already, on other images than those that are passed to ``fit``, and are not fitted again.
        Wrap them in FrozenEstimator if the Blend is to be cloned, such as by GridSearchCV.
    random_state : int, RandomState or None
        The seed for drawing pixels. If it is not None, the images are shuffled before they are
        split.

    Attributes
    ----------
    weights_ : ndarray of float, (M, L)
        The weights of the segmenters that are not "drop".
    bias_ : ndarray of float, (L,)
    selected_ : str
        The weights that were kept: "equal weights", "learned weights", "given weights", or the
        name of a segmenter, which then has the weight 1.
    scores_ : dict from str to float
        The mean IoU of the learned weights, the equal weights and each segmenter, on out-of-fold
        costs of the drawn pixels. NaN for learned weights if there is no second fold of labeled
        pixels to judge them by. Empty if the weights are given.
    segmenters_ : list of segmenter
        Fitted on all images.
    named_segmenters_ : Bunch
        The same by name.
    names_ : list of str
    classes_ : ndarray of int, (L,)
    spatial_ndim_, n_channels_in_ : int

    References
    ----------
    .. [1] T. Heskes, "Selecting weighting factors in logarithmic opinion pools", NIPS, 1998.

    Examples
    --------
    >>> from hybridseg import Blend, PixelClassifier, SuperpixelClassifier
    >>> from hybridseg.datasets import make_scenes
    >>> scenes = make_scenes(4, shape=(32, 48), random_state=0)
    >>> members = [
    ...     ("pixels", PixelClassifier(random_state=0)),
    ...     ("regions", SuperpixelClassifier(random_state=0)),
    ... ]
    >>> model = Blend(members, cv=2, random_state=0).fit(scenes.images[:3], scenes.labels[:3])
    >>> model.predict(scenes.images[3:])[0].shape
    (32, 48)
    >>> sorted(model.scores_)
    ['equal weights', 'learned weights', 'pixels', 'regions']
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **MemberSegmenter._parameter_constraints,
        "weights": [StrOptions({"equal"}), "array-like", None],
        "per_class": ["boolean"],
        "class_weight": [StrOptions({"balanced"}), None],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "max_samples": [Interval(Integral, 1, None, closed="left"), None],
    }

    weights_: NDArray[np.float64]
    bias_: NDArray[np.float64]
    scores_: dict[str, float]
    selected_: str

    def __init__(
        self,
        segmenters: list[tuple[str, Any]],
        weights: Any = None,
        *,
        per_class: bool = False,
        class_weight: str | None = "balanced",
        alpha: float = 1e-2,
        max_samples: int | None = 50_000,
        cv: Any = 5,
        random_state: Any = None,
    ) -> None:
        self.segmenters = segmenters
        self.weights = weights
        self.per_class = per_class
        self.class_weight = class_weight
        self.alpha = alpha
        self.max_samples = max_samples
        self.cv = cv
        self.random_state = random_state

    @property
    def _needs_held_out(self) -> bool:  # type: ignore[override]
        return self.weights is None

    def _kept(self) -> list[tuple[str, Any]]:
        kept = super()._kept()
        taken = {_EQUAL, _LEARNED} & {name for name, _ in kept}
        if taken:
            raise ValueError(
                f"segmenters holds the names {sorted(taken)}, which scores_ uses for mixes; "
                f"expected other names."
            )
        if not isinstance(self.weights, str | None):
            self._given_weights(np.size(self.weights, 1) if np.ndim(self.weights) == 2 else 1)
        return kept

    def _given_weights(self, n_labels: int) -> NDArray[np.float64]:
        """Return the parameter ``weights`` as ``(M, L)``, without segmenters that are "drop"."""
        n_members = len(self.segmenters)
        given = as_numbers(self.weights, "weights").astype(np.float64)
        if given.shape not in ((n_members,), (n_members, n_labels)):
            raise ValueError(
                f"weights has shape {given.shape}; expected ({n_members},), one weight for each "
                f"segmenter, or ({n_members}, {n_labels}), one for each segmenter and class."
            )
        rows = [not isinstance(member, str) for _, member in self.segmenters]
        given = given[rows].reshape(sum(rows), -1)
        if not (np.isfinite(given).all() and (given >= 0).all() and given.any(axis=0).all()):
            raise ValueError(
                f"weights={self.weights!r}; expected finite weights that are at least 0, and a "
                f"positive one for each class."
            )
        return np.broadcast_to(given, (len(given), n_labels)).copy()

    def _learn(self, held_out: HeldOut) -> None:
        n_members, n_labels = len(self.segmenters_), len(self.classes_)
        self.scores_, self.bias_ = {}, np.zeros(n_labels)
        self.weights_ = np.full((n_members, n_labels), 1 / n_members)
        if not self._needs_held_out:
            self.selected_ = _EQUAL if isinstance(self.weights, str) else "given weights"
            if not isinstance(self.weights, str):
                self.weights_ = self._given_weights(n_labels)
            return
        sample = self._drawn(held_out)
        self.scores_ = self._judged(sample)
        # The first of equally good ones is kept.
        judged = {name: value for name, value in self.scores_.items() if not np.isnan(value)}
        self.selected_ = max(judged, key=lambda name: judged[name])
        if self.selected_ == _LEARNED:
            self.weights_, self.bias_ = self._fit_pool(sample, np.ones(len(sample.targets), bool))
        elif self.selected_ != _EQUAL:
            rows = np.arange(n_members) == self.names_.index(self.selected_)
            self.weights_ = np.repeat(rows.astype(float)[:, np.newaxis], n_labels, axis=1)

    def _drawn(self, held_out: HeldOut) -> _Sample:
        """Draw labeled pixels of the images held out, with the costs of all members."""
        rng, training = self._generator(), held_out.training
        counts = held_out.counts().sum(axis=1)
        quotas = counts
        if self.max_samples is not None:
            n_least = int(np.count_nonzero(counts))  # one pixel of each image
            quotas = split_evenly(counts, max(self.max_samples, n_least), rng)
        by_block = len(np.unique(held_out.groups[counts > 0])) < 2
        costs, targets, folds, pixels = [], [], [], []
        for i in np.flatnonzero(quotas).tolist():
            _, labels = training[i]
            places = np.flatnonzero(labels >= 0)
            places = np.sort(rng.choice(places, quotas[i], replace=False, shuffle=False))
            costs.append(self.cost_rows(held_out.scenes[i], places))
            targets.append(labels.ravel()[places])
            blocks = block_folds(labels.shape, _MAX_FOLDS).ravel()[places]
            folds.append(blocks if by_block else np.full(len(places), held_out.groups[i]))
            pixels.append(np.full(len(places), counts[i] / len(places)))
        units, numbers = np.unique(np.concatenate(folds), return_inverse=True)
        fold_of = np.arange(len(units)) * min(len(units), _MAX_FOLDS) // len(units)
        return _Sample(
            np.concatenate(costs, axis=1),
            np.concatenate(targets),
            fold_of[numbers],
            np.concatenate(pixels),
        )

    def _judged(self, sample: _Sample) -> dict[str, float]:
        """Return the mean IoU of all weights; learned ones are judged on the other folds."""
        found = {_LEARNED: np.nan, _EQUAL: self._score(sample, sample.costs.sum(axis=0))}
        if sample.folds.max() > 0:
            mixed = np.empty(sample.costs.shape[1:])
            for fold in range(sample.folds.max() + 1):
                held = sample.folds == fold
                weights, bias = self._fit_pool(sample, ~held)
                mixed[held] = np.einsum("mnl,ml->nl", sample.costs[:, held], weights) + bias
            found[_LEARNED] = self._score(sample, mixed)
        for name, costs in zip(self.names_, sample.costs, strict=True):
            found[name] = self._score(sample, costs)
        return found

    def _fit_pool(
        self, sample: _Sample, kept: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        targets, weight = sample.targets[kept], sample.pixels[kept]
        if self.class_weight is not None:
            totals = np.bincount(targets, weight, minlength=len(self.classes_))
            weight = weight / totals[targets]
        return fit_pool(
            sample.costs[:, kept],
            targets,
            sample_weight=weight,
            alpha=self.alpha,
            per_class=self.per_class,
        )

    def _score(self, sample: _Sample, costs: NDArray[Any]) -> float:
        n_labels = len(self.classes_)
        pairs = sample.targets * n_labels + costs.argmin(axis=1)
        counts = np.bincount(pairs, sample.pixels, minlength=n_labels**2)
        counts = np.pad(counts.reshape(n_labels, n_labels), ((0, 0), (0, 1)))
        return ConfusionTable(counts, self.classes_).mean_iou()

    def _costs(self, scene: Scene, members: tuple[Scene, ...]) -> NDArray[np.float32] | RegionCosts:
        used = [m for m in range(len(members)) if self.weights_[m].any()]
        found = [self.member_costs(m, members[m]) for m in used]
        weights = self.weights_[used].astype(np.float32)
        total = self.bias_.astype(np.float32)
        first = found[0] if found else None
        if isinstance(first, RegionCosts) and all(_same_regions(first, each) for each in found):
            by_region = [each.costs for each in found if isinstance(each, RegionCosts)]
            return RegionCosts(first.regions, _weighted_sum(weights, by_region) + total)
        by_pixel = [each.pixels() if isinstance(each, RegionCosts) else each for each in found]
        if not by_pixel:
            return np.broadcast_to(total, (*scene.shape, len(total))).copy()
        return _weighted_sum(weights, by_pixel) + total


@dataclass(frozen=True, eq=False)
class _Sample:
    """Drawn pixels: costs ``(M, n, L)``, true class, fold, and the pixels each stands for."""

    costs: NDArray[np.float32]
    targets: NDArray[np.int64]
    folds: NDArray[np.intp]
    pixels: NDArray[np.float64]


def _weighted_sum(
    weights: NDArray[np.float32], costs: list[NDArray[np.float32]]
) -> NDArray[np.float32]:
    total = weights[0] * costs[0]
    for weight, cost in zip(weights[1:], costs[1:], strict=True):
        total += weight * cost
    return total


def _same_regions(one: RegionCosts, other: Any) -> bool:
    return isinstance(other, RegionCosts) and np.array_equal(one.regions, other.regions)
