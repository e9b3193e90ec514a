"""A trained network, adapted to pictures of another kind that nobody has labeled."""

from __future__ import annotations

import copy
import math
from numbers import Integral, Real
from typing import Any, ClassVar, Self

from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

from hybridseg.arguments import random_generator
from hybridseg.base import (
    HasMethods,
    ImageList,
    Interval,
    restored_on_error,
)
from hybridseg.deep.adaptation.adapted import copied
from hybridseg.deep.adaptation.batch_statistics import BatchStatistics
from hybridseg.deep.adaptation.entropy import Entropy
from hybridseg.deep.adaptation.self_training import SelfTraining
from hybridseg.deep.adaptation.survey import has_collapsed, is_surer, survey
from hybridseg.deep.pretrained import PretrainedSegmenter
from hybridseg.deep.segmenter import DeepSegmenter
from hybridseg.unary.wrapper import WrapperMixin
from hybridseg.validation import said_once, warn_caller

Method = BatchStatistics | Entropy | SelfTraining
METHODS = (BatchStatistics, Entropy, SelfTraining)


class DomainAdapter(WrapperMixin, BaseEstimator):
    """Adapt a trained network to images of another kind, without labels for them.

    A network that was trained by day fails by night, in fog, or behind another camera. From some
    unlabeled images of the new kind a *copy* of it is adapted, which then segments in its place;
    the segmenter that is given stays as it is.

    Parameters
    ----------
    segmenter : DeepSegmenter, PretrainedSegmenter, or FrozenEstimator of one
        Trained. It is neither fitted again nor changed, and a clone of the adapter keeps it. What
        it does with mirror images (``tta``, ``augment``, ``mirror_pairs``) the copy does, too.
    method : str, method object, or a sequence of these
        What is done, one after the other:

        "batch_statistics", or :class:`hybridseg.deep.BatchStatistics`
            The means and variances of batch normalization are estimated anew, which costs as much
            as predicting the images.
        "entropy", or :class:`hybridseg.deep.Entropy`
            The scales and shifts of normalization layers are trained until predictions are surer.
        "self_training", or :class:`hybridseg.deep.SelfTraining`
            The whole network is trained further on its own surest labels.

        The last two only help a network that is right more often than not: "batch_statistics"
        belongs before them where there is batch normalization. A method that is given by its name
        takes its settings from the parameters below; an object has its own.
    guard : bool
        Undo rounds that look harmful. Those of "batch_statistics" and "entropy" are undone where
        they leave the network less sure (its mean entropy is higher), as they do where the images
        are like those of the training; but not where its "information", see ``history_``, becomes
        1.5 times as high, as after it took nearly all pixels for one class. Where "information"
        falls to less than half, (nearly) all pixels became one class: rounds of any method are then
        undone, with a warning, and nothing follows.
    prior : float
        The ``prior`` of "batch_statistics" and "entropy".
    entropy_epochs, entropy_lr : int, float
        The ``epochs`` and ``lr`` of "entropy".
    rounds, epochs : int
    lr, portion : float
    refiner : refiner, optional
        The parameters of "self_training"; see :class:`hybridseg.deep.SelfTraining`.
    random_state : int, RandomState or None
        Seeds the order of images, windows and crops.

    Attributes
    ----------
    segmenter_ : DeepSegmenter or PretrainedSegmenter
        The adapted copy.
    history_ : list of dict
        A row for the network as it came ("method" is "source"), and one after each epoch of
        "entropy", each round of "self_training", and "batch_statistics": "method", "round",
        "mean_entropy" (of pixels' probabilities, in nats), "information" (the entropy of the
        classes' mean probabilities less that: high where classes are told apart), "confident" (the
        share of pixels whose label has a probability of at least 0.9), "class_share" and
        "class_confident" (of each class that is predicted: its share of all pixels, and how much
        of that is confident; NaN where there is none), "labeled" (the share of pixels that were
        trained on; NaN where none were), and "kept" (whether the round was kept).
    classes_ : ndarray of int, (L,)

    Warns
    -----
    UserWarning
        A round was undone as a collapse; see ``guard``.

    Notes
    -----
    Nothing tells without labels whether adapting has helped; label a few images to see. "entropy"
    and "self_training" make any network surer, right or wrong: its probabilities must not be
    trusted as before.

    Examples
    --------
    >>> from hybridseg import DeepSegmenter, DomainAdapter
    >>> from hybridseg.datasets import make_scenes
    >>> day = make_scenes(3, shape=(48, 64), random_state=0)
    >>> night = [image // 3 for image in make_scenes(3, shape=(48, 64), random_state=1).images]
    >>> model = DeepSegmenter(
    ...     "unet", network_options={"width": 8, "depth": 2}, max_epochs=2, random_state=0
    ... ).fit(day.images, day.labels)
    >>> DomainAdapter(model).fit(night).predict(night)[0].shape
    (48, 64)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "segmenter": [HasMethods(["transform"])],
        "method": [str, tuple, list, *METHODS],
        "guard": ["boolean"],
        "prior": [Interval(Real, 0, None, closed="left")],
        "entropy_epochs": [Interval(Integral, 1, None, closed="left")],
        "entropy_lr": [Interval(Real, 0, None, closed="neither")],
        "rounds": [Interval(Integral, 1, None, closed="left")],
        "epochs": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "portion": [Interval(Real, 0, 1, closed="right")],
        "refiner": [HasMethods(["transform"]), None],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        segmenter: Any,
        method: Any = ("batch_statistics",),
        *,
        guard: bool = True,
        prior: float = 0.0,
        entropy_epochs: int = 1,
        entropy_lr: float = 2e-4,
        rounds: int = 2,
        epochs: int = 5,
        lr: float = 3e-4,
        portion: float = 0.5,
        refiner: Any = None,
        random_state: Any = None,
    ) -> None:
        self.segmenter = segmenter
        self.method = method
        self.guard = guard
        self.prior = prior
        self.entropy_epochs = entropy_epochs
        self.entropy_lr = entropy_lr
        self.rounds = rounds
        self.epochs = epochs
        self.lr = lr
        self.portion = portion
        self.refiner = refiner
        self.random_state = random_state

    segmenter_: Any
    history_: list[dict[str, Any]]
    classes_: NDArray[Any]
    spatial_ndim_: int
    n_channels_in_: int

    @said_once()
    def fit(self, X: Any, y: Any = None) -> Self:
        """Adapt a copy of the segmenter's network to images.

        Parameters
        ----------
        X : sequence of images, paths or Scenes
            Of the new kind, of as many axes and channels as the segmenter knows; sizes may differ.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            The images do not suit the segmenter; or the network has none of the layers that the
            method adapts; or self-training diverged. An adapter that was fitted before stays as it
            was.
        NotFittedError
            The segmenter is not trained.
        """
        with restored_on_error(self):
            self._validate_params()
            source = self._source()
            methods = self._methods(source)
            scenes = source.transform(X)
            self.classes_ = source.classes_
            self.spatial_ndim_ = source.spatial_ndim_
            self.n_channels_in_ = source.n_channels_in_
            self._adapt(source, methods, scenes)
        return self

    def __sklearn_clone__(self) -> Self:
        """Forget what was adapted, but not what the segmenter was trained for."""
        held = copy.copy(self)
        if not isinstance(self.segmenter, FrozenEstimator):
            held.segmenter = FrozenEstimator(self.segmenter)  # which a clone keeps
        cloned = super(DomainAdapter, held).__sklearn_clone__()
        cloned.segmenter = self.segmenter
        return cloned

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        return tags

    def _source(self) -> DeepSegmenter | PretrainedSegmenter:
        """The trained segmenter, checked."""
        given = self.segmenter
        inner = given.estimator if isinstance(given, FrozenEstimator) else given
        if not isinstance(inner, DeepSegmenter | PretrainedSegmenter):
            raise TypeError(
                f"segmenter is a {type(inner).__name__}; expected a trained DeepSegmenter or a "
                f"PretrainedSegmenter. Of a pipeline, adapt the first step: "
                f"make_pipeline(DomainAdapter(pipeline[0]), *pipeline[1:])."
            )
        try:
            check_is_fitted(inner)
        except NotFittedError as error:
            raise NotFittedError(
                f"segmenter is a {type(inner).__name__} that is not fitted; DomainAdapter adapts a "
                f"trained network. Fit it on labeled images of the old kind first. A "
                f"clone forgets what it has learned: wrap it in FrozenEstimator where it is cloned."
            ) from error
        return inner

    def _methods(self, source: DeepSegmenter | PretrainedSegmenter) -> list[Method]:
        """The methods to apply, each fit for the network."""
        given = self.method if isinstance(self.method, tuple | list) else [self.method]
        by_name: dict[str, Any] = {
            "batch_statistics": BatchStatistics(self.prior),
            "entropy": Entropy(self.entropy_epochs, self.entropy_lr, self.prior),
            "self_training": SelfTraining(
                self.rounds, self.epochs, self.lr, self.portion, self.refiner
            ),
        }
        methods: list[Any] = [
            by_name.get(each, each) if isinstance(each, str) else each for each in given
        ]
        if not methods or not all(isinstance(method, METHODS) for method in methods):
            raise ValueError(
                f"method={self.method!r}; expected one of {sorted(by_name)}, an object of "
                f"{', '.join(kind.__name__ for kind in METHODS)}, or some of these in a tuple."
            )
        for method in methods:
            method.check(source)
        return methods

    def _adapt(self, source: Any, methods: list[Method], scenes: ImageList) -> None:
        """Apply one method after the other, until one collapses."""
        rng = random_generator(self.random_state)
        best, self.segmenter_ = survey(source, scenes), copied(source)
        self.history_ = [_row("source", 0, best, math.nan)]
        for method in methods:
            before = best
            rounds = method.rounds_of(self.segmenter_, scenes, rng)
            for number, (adapted, labeled) in enumerate(rounds, start=1):
                found = survey(adapted, scenes)
                row = _row(method.name, number, found, labeled)
                self.history_.append(row)
                collapsed = has_collapsed(before, found)
                helps = is_surer(before, found) or not method.must_be_surer
                row["kept"] = not self.guard or (helps and not collapsed)
                if row["kept"]:
                    best, self.segmenter_ = found, adapted
                elif collapsed:
                    _warn_of_collapse(row)
                    return


def _row(method: str, number: int, found: dict[str, Any], labeled: float) -> dict[str, Any]:
    """A row of ``history_``."""
    return {"method": method, "round": number, **found, "labeled": labeled, "kept": True}


def _warn_of_collapse(row: dict[str, Any]) -> None:
    """Say that a round was undone, and what may help."""
    warn_caller(
        f"{row['method']!r} collapsed in round {row['round']}: {max(row['class_share']):.0%} of "
        f"the pixels became one class. It was undone; pass a lower lr, entropy_lr or portion, or "
        f"more images.",
    )
