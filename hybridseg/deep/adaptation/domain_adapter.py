"""The estimator that adapts a trained network to unlabeled images of another domain."""

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
    """Adapt a trained network to images of another domain, without labels for them.

    A network that was trained on images by day may fail at night, in fog, or with another camera.
    From some unlabeled images of the new domain the adapter makes an adapted *copy* of the network,
    and segments with this copy. The given segmenter does not change.

    Parameters
    ----------
    segmenter : DeepSegmenter, PretrainedSegmenter, or FrozenEstimator of one
        A trained segmenter. It is neither fitted again nor changed, and a clone of the adapter
        keeps it. The copy has all its parameters, such as ``tta``, ``augment`` and
        ``mirror_pairs``.
    method : str, method object, or a sequence of these
        The methods of adaptation, which are applied one after the other:

        "batch_statistics", or :class:`hybridseg.deep.BatchStatistics`
            The means and variances of batch normalization are estimated again, which takes as long
            as predicting the images.
        "entropy", or :class:`hybridseg.deep.Entropy`
            The scales and shifts of normalization layers are trained to lower the entropy of the
            predictions.
        "self_training", or :class:`hybridseg.deep.SelfTraining`
            The whole network is trained further on its most confident predictions.

        The last two methods help only if most predictions are correct before. If the network has
        batch normalization, put "batch_statistics" before them. A method given by its name takes
        its settings from the parameters below; an object has its own.
    guard : bool
        Whether to undo rounds that seem harmful, by the values in ``history_``. A round of
        "batch_statistics" or "entropy" is undone if it raises "mean_entropy", as is likely if the
        images are like those of the training. It is kept nevertheless if "information" becomes 1.5
        times as high, such as when the network predicted one class nearly everywhere before. A
        round of any method is undone, with a warning, if "information" falls to less than half: the
        predictions have collapsed to nearly one class. The adaptation then ends.
    prior : float
        The ``prior`` of "batch_statistics" and "entropy".
    entropy_epochs, entropy_lr : int, float
        The ``epochs`` and ``lr`` of "entropy".
    rounds, epochs : int
    lr, portion : float
    refiner : refiner, optional
        The parameters of "self_training"; see :class:`hybridseg.deep.SelfTraining`.
    random_state : int, RandomState or None
        Seeds the order of the images, the windows and the crops.

    Attributes
    ----------
    segmenter_ : DeepSegmenter or PretrainedSegmenter
        The adapted copy.
    history_ : list of dict
        One row for the given network, with "method" equal to "source", and one row after each
        round: each epoch of "entropy", each round of "self_training", and "batch_statistics". A row
        has these entries:

        "method", "round"
            The name of the method, and the number of its round, from 1.
        "mean_entropy"
            The mean entropy of the pixels' probabilities, in nats.
        "information"
            The mutual information of pixel and class, in nats: the entropy of the mean
            probabilities minus "mean_entropy". It is high if the predictions are confident and
            vary over the pixels.
        "confident"
            The fraction of pixels whose label has a probability of at least 0.9.
        "class_share"
            For each class, the fraction of all pixels that have its label.
        "class_confident"
            For each class, the fraction of its pixels that are confident; NaN if it has none.
        "labeled"
            The fraction of pixels that had a pseudo-label; NaN for methods without these.
        "kept"
            Whether the round was kept.
    classes_ : ndarray of int, (L,)
        The label values of the classes, sorted.

    Warns
    -----
    UserWarning
        A round was undone because the predictions collapsed; see ``guard``.

    Notes
    -----
    Without labels nothing shows whether an adaptation has helped: label a few images to find out.
    "entropy" and "self_training" make predictions more confident whether they are correct or not,
    so the network is not calibrated any more.

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
            Images of the new domain, with the numbers of axes and channels on which the segmenter
            was trained; their sizes may differ.
        y : ignored

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            A parameter is not as described, the images do not fit the segmenter, the network has
            none of the layers that the method adapts, or self-training diverged. An adapter that
            was fitted before does not change then.
        NotFittedError
            The segmenter is not trained.

        Warns
        -----
        UserWarning
            A round was undone because the predictions collapsed, or self-training ended because
            the network predicts a single class.
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
        """Clone the adapter without its fitted attributes, but with the trained segmenter."""
        held = copy.copy(self)
        if not isinstance(self.segmenter, FrozenEstimator):
            held.segmenter = FrozenEstimator(self.segmenter)  # a clone keeps its estimator
        cloned = super(DomainAdapter, held).__sklearn_clone__()
        cloned.segmenter = self.segmenter
        return cloned

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        return tags

    def _source(self) -> DeepSegmenter | PretrainedSegmenter:
        """The trained segmenter, without a FrozenEstimator around it.

        Raises
        ------
        TypeError
            It is not a DeepSegmenter or PretrainedSegmenter.
        NotFittedError
            It is not fitted.
        """
        given = self.segmenter
        inner = given.estimator if isinstance(given, FrozenEstimator) else given
        if not isinstance(inner, DeepSegmenter | PretrainedSegmenter):
            raise TypeError(
                f"segmenter is a {type(inner).__name__}; expected a trained DeepSegmenter or a "
                f"PretrainedSegmenter. If it is a pipeline, adapt the first step: "
                f"make_pipeline(DomainAdapter(pipeline[0]), *pipeline[1:])."
            )
        try:
            check_is_fitted(inner)
        except NotFittedError as error:
            raise NotFittedError(
                f"segmenter is a {type(inner).__name__} that is not fitted; expected a trained "
                f"one. Fit it on labeled images first. If it was fitted and then cloned, as in a "
                f"search, wrap it in FrozenEstimator, because a clone is not fitted."
            ) from error
        return inner

    def _methods(self, source: DeepSegmenter | PretrainedSegmenter) -> list[Method]:
        """The methods to apply, after a check that each of them can adapt the network."""
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
                f"{', '.join(kind.__name__ for kind in METHODS)}, or a tuple of these: pass "
                f"('batch_statistics',), say."
            )
        for method in methods:
            method.check(source)
        return methods

    def _adapt(self, source: Any, methods: list[Method], scenes: ImageList) -> None:
        """Apply the methods one after the other, and stop if the predictions collapse."""
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
    """Warn that a round was undone because the predictions collapsed."""
    warn_caller(
        f"{row['method']!r} collapsed in round {row['round']}: {max(row['class_share']):.0%} of "
        f"the pixels became one class. The round was undone; pass a lower lr, entropy_lr or "
        f"portion, or more images.",
    )
