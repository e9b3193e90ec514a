"""A segmenter that searches for the best pipeline of a segmenter and a refiner, in a given time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.pipeline import Pipeline
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from hybridseg.arguments import random_generator
from hybridseg.base import (
    CLASSES,
    IGNORE_LABEL,
    INTENSITY_RANGE,
    ImageList,
    Interval,
    SegmenterMixin,
    StrOptions,
    TrainingSet,
    restored_on_error,
)
from hybridseg.search.candidates import Named, checked_names, default_refiners, default_segmenters
from hybridseg.search.clock import Clock
from hybridseg.search.final import refit, refit_seconds
from hybridseg.search.halving import REFINING, Halving, Trial, blended
from hybridseg.search.held_out import HeldScenes, Labeled, computed, ignored_labels
from hybridseg.search.leaderboard import Leaderboard
from hybridseg.search.refining import best_of, compare
from hybridseg.search.rows import Pair, leaderboard, without
from hybridseg.search.scores import METRICS, gain_of, is_better
from hybridseg.validation import IntensityRange, said_once, warn_caller

#: The number of segmenters on whose costs refiners are compared.
_N_REFINED = 2
#: The part of the time left that may be used to compute the costs of each of them.
_COMPUTING = 0.3


def _holds_proba(model: AutoHybrid) -> bool:
    best = getattr(model, "best_estimator_", None)
    return best is None or hasattr(best, "predict_proba")


class AutoHybrid(SegmenterMixin, BaseEstimator):
    """Find the best pipeline of a segmenter and a refiner in a given time, and fit it.

    The segmenters are compared by successive halving [1]_ [2]_: all of them are scored on a few
    images, the best third of them on three times as many, and so on. Networks are trained for more
    epochs from rung to rung. The mean of the costs of the best two segmenters is a further
    candidate. Then refiners are compared on the costs of the best. All scores are from images (or
    blocks of a single image) that a model was not trained on. A refiner is used only if it *surely*
    helps: its gain is positive in nine of ten bootstrap resamples of the images. At last the best
    segmenter is fitted to all images.

    Use it to get a good pipeline without knowledge of the methods, from a few scribbles on one
    image to hundreds of label maps, and to see in ``leaderboard_`` what helps on your images.

    Parameters
    ----------
    budget : float, default=300.0
        The time for ``fit``, in seconds. The seconds of each rung predict those of the next. What
        would not fit is not started, or uses fewer images, and the time of the last fit is set
        aside. At least one segmenter is always fitted, even if it takes longer. Five minutes are
        enough for scribbles and a few images; give networks an hour.
    segmenters : "auto" or list of (str, segmenter), default="auto"
        The candidates by name. If the time is short, the last are left out, so put cheap ones and
        those that you expect to be good first.
        "auto" chooses them by what is there: classifiers of superpixels and pixels; linear
        classifiers if few pixels are labeled; with torch and installed weights, classifiers of
        pretrained features; and with at least eight images whose pixels are mostly labeled, a
        network. "auto" downloads nothing.
    refiners : "auto" or list of (str, refiner), default="auto"
        The candidates by name, besides no refiner at all. "auto": :class:`hybridseg.DenseCRF`,
        :class:`hybridseg.GraphCut` and :class:`hybridseg.GridCRF`, and those that learn if the time
        suffices. A refiner that learns is judged on images that it did not learn from.
    cv : int, default=3
        The number of folds; fewer if there are fewer images or groups. More folds train each model
        on more images, and take longer.
    metric : {"mean_iou", "mean_dice", "pixel_accuracy"}, default="mean_iou"
        What is maximized, from one confusion table of all held-out pixels. Means are over the
        classes that occur in ``y``.
    eta : int, default=3
        Each rung keeps one of ``eta`` candidates (at least two), and has ``eta`` times the images.
    classes : array-like of int, optional
        The label values of the classes, if ``y`` may lack some. None: those in ``y``.
    intensity_range : {"dtype", "image"} or (low, high), default="dtype"
        How values become colors, for the segmenters of "auto"; see
        :class:`hybridseg.PixelClassifier`.
    ignore_label : int, optional
        One more value that means "ignore", such as 255. Segmenters that you pass have their own
        parameter, which needs the same value.
    random_state : int, RandomState or None
        The seed for the order of the images, and for the candidates of "auto".

    Attributes
    ----------
    best_estimator_ : sklearn.pipeline.Pipeline
        The fitted pipeline, with the steps "segmenter" and, if one is used, "refiner". It works
        without this object.
    best_score_ : float
        Its held-out score. It is a little too high, because the best of many scores was chosen.
    leaderboard_ : Leaderboard
        All candidates with scores, intervals, seconds, and why they were left out. Print it.
    classes_ : ndarray of int, (L,)
    spatial_ndim_, n_channels_in_ : int
    seconds_ : float
        The time that ``fit`` took.

    Notes
    -----
    Results depend on the speed of the machine if the budget cuts the search. If no status in
    ``leaderboard_`` tells of time, equal seeds give equal results.

    With fewer than five images, the intervals are from blocks of images. Blocks lie close to each
    other, so a small gain on them means little: a segmenter then replaces an earlier one of the
    list only if its gain is sure. So the order of ``segmenters`` matters. Refiners that do not
    learn restrain themselves; of these, the best is used if its mean gain is not negative.

    References
    ----------
    .. [1] Z. Karnin, T. Koren, O. Somekh, "Almost optimal exploration in multi-armed bandits",
       ICML, 2013.
    .. [2] K. Jamieson, A. Talwalkar, "Non-stochastic best arm identification and hyperparameter
       optimization", AISTATS, 2016.

    Examples
    --------
    >>> from hybridseg import AutoHybrid, DenseCRF, PixelClassifier, SuperpixelClassifier
    >>> from hybridseg.datasets import make_scenes
    >>> scenes = make_scenes(5, shape=(32, 48), random_state=0)
    >>> segmenters = [
    ...     ("superpixels", SuperpixelClassifier(random_state=0)),
    ...     ("pixels", PixelClassifier(random_state=0)),
    ... ]
    >>> model = AutoHybrid(60.0, segmenters=segmenters, refiners=[("CRF", DenseCRF())])
    >>> model.fit(scenes.images[:4], scenes.labels[:4]).predict(scenes.images[4:])[0].shape
    (32, 48)
    >>> model.leaderboard_.rows[0].status
    'best'
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "budget": [Interval(Real, 0, None, closed="neither")],
        "segmenters": [StrOptions({"auto"}), list, tuple],
        "refiners": [StrOptions({"auto"}), list, tuple],
        "cv": [Interval(Integral, 2, None, closed="left")],
        "metric": [StrOptions(set(METRICS))],
        "eta": [Interval(Integral, 2, None, closed="left")],
        "classes": CLASSES,
        "intensity_range": INTENSITY_RANGE,
        "ignore_label": IGNORE_LABEL,
        "random_state": ["random_state"],
    }

    #: The clock of searches; tests replace it.
    _now = staticmethod(time.perf_counter)
    best_estimator_: Pipeline
    best_score_: float
    leaderboard_: Leaderboard
    classes_: NDArray[Any]
    spatial_ndim_: int
    n_channels_in_: int
    seconds_: float

    def __init__(
        self,
        budget: float = 300.0,
        *,
        segmenters: str | Sequence[tuple[str, Any]] = "auto",
        refiners: str | Sequence[tuple[str, Any]] = "auto",
        cv: int = 3,
        metric: str = "mean_iou",
        eta: int = 3,
        classes: ArrayLike | None = None,
        intensity_range: IntensityRange = "dtype",
        ignore_label: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.budget = budget
        self.segmenters = segmenters
        self.refiners = refiners
        self.cv = cv
        self.metric = metric
        self.eta = eta
        self.classes = classes
        self.intensity_range = intensity_range
        self.ignore_label = ignore_label
        self.random_state = random_state

    @said_once()
    def fit(self, X: Any, y: Any, groups: ArrayLike | None = None) -> Self:
        """Search, and fit the best pipeline to all images.

        Parameters
        ----------
        X : sequence of images, paths or Scenes
        y : sequence of label maps (or paths)
            Negative pixels and ``ignore_label`` are left out, so a few scribbles are enough.
        groups : array-like, (n_images,), optional
            The images of one group, such as frames of one video, are never on both sides of a
            split.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            A parameter or the input is not as described. If all candidates failed, the error of the
            first is raised. The estimator then remains unchanged.

        Warns
        -----
        UserWarning
            The budget was exceeded, or was too short for a fit to all images.
        """
        with restored_on_error(self):
            self._validate_params()
            clock = Clock(self.budget, self._now)
            training = TrainingSet.read(X, y, None, self.ignore_label, classes=self.classes)
            seed = int(random_generator(self.random_state).integers(2**31))
            segmenters = self._segmenters(training, seed)
            refiners = self._refiners(seed)
            ignored = {label for _, model in segmenters for label in ignored_labels(model)}
            labeled = Labeled.of(
                training, groups, self.cv, sorted(ignored), np.random.default_rng(seed)
            )
            self._search(segmenters, refiners, labeled, clock)
            self.spatial_ndim_ = training.spatial_ndim
            self.n_channels_in_ = training.n_channels
            self.seconds_ = clock.passed
            if clock.left < 0:
                warn_caller(
                    f"the budget of {self.budget:g} s was exceeded: fit took {clock.passed:.1f} s. "
                    f"At least one segmenter is fitted in any time; raise the budget, or pass "
                    f"quicker segmenters."
                )
        return self

    def _search(self, segmenters: Named, refiners: Named, labeled: Labeled, clock: Clock) -> None:
        """Set the best pipeline and the leaderboard."""
        trials = [Trial(name, segmenter) for name, segmenter in segmenters]
        halving = Halving(
            trials,
            labeled,
            clock,
            eta=self.eta,
            metric=self.metric,
            refining=REFINING if refiners else 0.0,
        )
        ranked = halving.run()
        held = self._computed(ranked, labeled, clock)
        if len(held) > 1 and clock.left > 0:
            blend = blended(ranked[0], ranked[1], held[0], held[1], labeled, clock)
            trials.append(blend)
            if blend.held is not None and self._beats(blend.held, held[0], labeled):
                ranked.insert(0, blend)
                held.insert(0, blend.held)
        pairs, best = self._refined(ranked, held, refiners, labeled, clock)
        first: Exception | None = None
        for pair in (best, *(Pair(trial, without(trial), trial.held) for trial in ranked)):
            try:
                self.best_estimator_ = refit(pair.trial, pair.refined, pair.held, labeled, clock)
            except Exception as error:  # the next best may succeed
                pair.trial.status = f"failed: {type(error).__name__}: {error}"
                first = first or error
            else:
                self.leaderboard_ = leaderboard(trials, pairs, pair, labeled, self.metric)
                self.best_score_ = float(self.leaderboard_.rows[0].score or 0.0)
                self.classes_ = self.best_estimator_.classes_
                return
        assert first is not None
        raise first

    def _computed(self, ranked: list[Trial], labeled: Labeled, clock: Clock) -> list[HeldScenes]:
        """Return the costs of the best two trials, or fewer if the time is short."""
        found: list[HeldScenes] = []
        for trial in ranked[:_N_REFINED]:
            assert trial.held is not None
            began = clock.passed
            left = clock.budget - refit_seconds(trial, labeled, clock) - began
            held = computed(trial.held, clock, began + _COMPUTING * left)
            trial.seconds += clock.passed - began
            if held is None:
                break
            found.append(held)
            if clock.passed - began > _COMPUTING * left:
                break  # the next would leave no time for refiners
        return found

    def _refined(
        self,
        ranked: list[Trial],
        held: list[HeldScenes],
        refiners: Named,
        labeled: Labeled,
        clock: Clock,
    ) -> tuple[list[Pair], Pair]:
        """Return the best trials with all refiners, and the best of these pairs."""
        pairs = [Pair(ranked[0], without(ranked[0]), ranked[0].held)]
        best = pairs[0]
        compared = list(zip(ranked, held[:_N_REFINED], strict=False))
        for place, (trial, scenes) in enumerate(compared):
            left = clock.budget - refit_seconds(trial, labeled, clock) - clock.passed
            deadline = clock.passed + left / (len(compared) - place)
            found = compare(refiners, scenes, labeled, clock, self.metric, deadline)
            chosen = Pair(trial, best_of(found, few=labeled.by_block), scenes)
            if place == 0:
                pairs, best = [], chosen
            elif self._beats(chosen, best, labeled):
                best = chosen
            pairs += [Pair(trial, refined, scenes) for refined in found]
        return pairs, best

    def _beats(self, new: HeldScenes | Pair, old: HeldScenes | Pair, labeled: Labeled) -> bool:
        """Return whether one is better; with few images, whether it surely is."""
        return is_better(gain_of(new.counts, old.counts, self.metric), surely=labeled.by_block)

    def _segmenters(self, training: TrainingSet, seed: int) -> Named:
        if isinstance(self.segmenters, str):
            return default_segmenters(
                training,
                classes=self.classes,
                intensity_range=self.intensity_range,
                ignore_label=self.ignore_label,
                random_state=seed,
            )
        example = "[('pixels', PixelClassifier())]"
        methods = ("fit", "transform")
        return checked_names(self.segmenters, "segmenters", methods, example, least=1)

    def _refiners(self, seed: int) -> Named:
        if isinstance(self.refiners, str):
            return default_refiners(seed)
        example = "[('CRF', DenseCRF())]"
        found = checked_names(self.refiners, "refiners", ("fit", "transform"), example)
        for name, refiner in found:
            if getattr(refiner, "estimator", None) is not None:
                raise ValueError(
                    f"refiners: {name!r} has an inner segmenter, estimator="
                    f"{type(refiner.estimator).__name__}(...); expected refiners without one: pass "
                    f"it as one of segmenters."
                )
        return found

    def fit_transform(self, X: Any, y: Any, **params: Any) -> ImageList:
        """Fit, and return Scenes whose costs are marked as in-sample in ``meta["out_of_fold"]``.

        Parameters
        ----------
        X, y, **params
            As in :meth:`fit`.

        Returns
        -------
        ImageList of Scene
        """
        scenes = self.fit(X, y, **params).transform(X)
        return ImageList(s.replace(meta={**s.meta, "out_of_fold": False}) for s in scenes)

    def transform(self, X: Any) -> ImageList:
        """Turn images into Scenes by the best pipeline.

        Parameters
        ----------
        X : sequence of images, paths or Scenes

        Returns
        -------
        ImageList of Scene
        """
        check_is_fitted(self)
        return self.best_estimator_.transform(X)

    @available_if(_holds_proba)
    def predict_proba(self, X: Any) -> ImageList:
        """Return the probabilities of the labels; only if the best pipeline has them.

        Parameters
        ----------
        X : sequence of images, paths or Scenes

        Returns
        -------
        ImageList of ndarray of float32, (*spatial, L)
            In the order of ``classes_``; the probabilities of a pixel sum to one.
        """
        check_is_fitted(self)
        return self.best_estimator_.predict_proba(X)
