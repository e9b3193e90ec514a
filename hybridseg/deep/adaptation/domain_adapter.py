"""A trained network, adapted to pictures of another kind that nobody has labelled."""

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
    SegmenterMixin,
    restored_on_error,
)
from hybridseg.deep.adaptation.adapted import copied, network_of, survey
from hybridseg.deep.adaptation.batch_statistics import batch_norms
from hybridseg.deep.adaptation.entropy import scales_and_shifts
from hybridseg.deep.adaptation.steps import STEPS, helps, row_of, varied, warn_of_collapse
from hybridseg.deep.pretrained import PretrainedSegmenter
from hybridseg.deep.segmenter import DeepSegmenter
from hybridseg.validation import said_once


class DomainAdapter(SegmenterMixin, BaseEstimator):
    """Adapt a trained network to images of another kind, without labels for them.

    A network that was trained by day fails by night, in fog, or behind another camera. From some
    unlabelled images of the new kind a *copy* of it is adapted, which then segments in its place;
    the segmenter that is given stays as it is.

    Parameters
    ----------
    segmenter : DeepSegmenter, PretrainedSegmenter, or FrozenEstimator of one
        Trained. It is neither fitted again nor changed, and a clone of the adapter keeps it. What
        it does with mirror images (``tta``, ``augment``, ``mirror_pairs``) the copy does, too.
    method : str or sequence of str
        What is done, one after the other:

        "batch_statistics"
            Batch normalisation's means and variances are estimated anew, over all pixels of all
            images (AdaBN [1]_). It costs as much as predicting them; a dozen images are enough, and
            a single one may be.
        "entropy"
            The scales and shifts of normalisation layers are trained until predictions are surer
            (TENT [3]_).
        "self_training"
            The whole network is trained further, at a low rate, on its own surest pixels as if
            they had been labelled; the surest of each class, so that rare classes are not lost
            [4]_. As a DeepSegmenter trains, with its crops, augmentation and loss.

        The last two only help a network that is right more often than not: "batch_statistics"
        belongs before them where there is batch normalisation.
    guard : bool
        Undo steps that look harmful. "batch_statistics" and "entropy" are undone where they leave
        the network less sure than it was (its mean entropy is higher), as it is where the images
        are like those that it was trained on; unless it tells apart half as much again, as after
        it took nearly all for one class. What it tells apart is "information" of ``history_``;
        where that falls to less than half, (nearly) all pixels became one class: any method is
        then undone, with a warning, and nothing follows it.
    prior : float
        How many images the old statistics count as much as, when statistics are mixed [2]_. Under
        a strong shift 0 is best; a few smooth what small images of few classes would tell.
    entropy_epochs : int
        How often "entropy" sees each image.
    entropy_lr : float
        The learning rate of "entropy".
    rounds : int
        How often "self_training" labels the images.
    epochs : int
        The ``max_epochs`` that the network is trained in each round.
    lr : float
        The highest learning rate of a round; a tenth of what the network was trained with, or less.
    portion : float
        The share of each class's pixels, the surest, that self-training takes for true.
    refiner : refiner, optional
        Labels for self-training are refined by it, such as ``DenseCRF()`` or ``GraphCut()``: they
        follow the edges of the image, and the network learns that.
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
        of that is confident; NaN where there is none), "labelled" (the share of pixels that were
        trained on; NaN where none were), and "kept", whether the step was.
    classes_ : ndarray of int, (L,)

    Warns
    -----
    UserWarning
        A step was undone as a collapse; see ``guard``.

    Notes
    -----
    Nothing tells without labels whether adapting has helped; label a few images to see. "entropy"
    and "self_training" make any network surer, right or wrong: its probabilities must not be
    trusted as before.

    References
    ----------
    .. [1] Y. Li, N. Wang, J. Shi, X. Hou, J. Liu: Adaptive Batch Normalization for Practical Domain
       Adaptation. Pattern Recognition 80, 2018 (arXiv:1603.04779, 2016).
    .. [2] S. Schneider et al.: Improving robustness against common corruptions by covariate shift
       adaptation. NeurIPS 2020.
    .. [3] D. Wang, E. Shelhamer, S. Liu, B. Olshausen, T. Darrell: Tent: Fully Test-Time Adaptation
       by Entropy Minimization. ICLR 2021.
    .. [4] Y. Zou, Z. Yu, B. V. K. Vijaya Kumar, J. Wang: Unsupervised Domain Adaptation for
       Semantic Segmentation via Class-Balanced Self-Training. ECCV 2018.

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
        "method": [str, tuple, list],
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

    def transform(self, X: Any) -> ImageList:
        """Turn images into Scenes whose costs, of the adapted network, are computed when read.

        Parameters
        ----------
        X : sequence of images, paths or Scenes

        Returns
        -------
        ImageList of Scene
            Input for a refiner such as :class:`hybridseg.DenseCRF`.
        """
        check_is_fitted(self)
        return self.segmenter_.transform(X)

    def predict_proba(self, X: Any) -> ImageList:
        """Probabilities of the labels by the adapted network.

        Parameters
        ----------
        X : sequence of images, paths or Scenes

        Returns
        -------
        ImageList of ndarray of float32, (*spatial, L)
            In the order of ``classes_``; each pixel's sum to one.
        """
        check_is_fitted(self)
        return self.segmenter_.predict_proba(X)

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
                f"trained network. Fit it on labelled images of the old kind first. A "
                f"clone forgets what it has learnt: wrap it in FrozenEstimator where it is cloned."
            ) from error
        return inner

    def _methods(self, source: DeepSegmenter | PretrainedSegmenter) -> list[str]:
        """The methods to apply, each known and fit for the network."""
        methods = [self.method] if isinstance(self.method, str) else list(self.method)
        if not methods or not set(methods) <= set(STEPS):
            raise ValueError(
                f"method={self.method!r}; expected one of {sorted(STEPS)}, or some of these in a "
                f"tuple."
            )
        network = network_of(source)
        name = type(network).__name__
        if "batch_statistics" in methods and not batch_norms(network):
            raise ValueError(
                f"method='batch_statistics', but {name} has no batch normalisation that keeps "
                f"statistics; pass method='self_training'."
            )
        if "entropy" in methods and not scales_and_shifts(network):
            raise ValueError(
                f"method='entropy', but {name} has no normalisation with scales and shifts to "
                f"train; pass method='self_training'."
            )
        if "self_training" in methods and not isinstance(source, DeepSegmenter):
            raise ValueError(
                "method='self_training' needs a DeepSegmenter, which knows how to train its "
                "network; a PretrainedSegmenter takes 'batch_statistics' and 'entropy'."
            )
        if getattr(self.refiner, "estimator", None) is not None:
            raise ValueError(
                f"refiner={self.refiner!r} has an estimator of its own; expected one that refines "
                f"the segmenter's costs, such as {type(self.refiner).__name__}()."
            )
        return methods

    def _adapt(self, source: Any, methods: list[str], scenes: ImageList) -> None:
        """Take one step after the other, until one collapses."""
        rng = random_generator(self.random_state)
        best, self.segmenter_ = survey(source, scenes), copied(source)
        self.history_ = [row_of("source", 0, best, math.nan)]
        for method in methods:
            before = best
            steps = STEPS[method](self, self.segmenter_, scenes, rng)
            for number, (adapted, labelled) in enumerate(steps, start=1):
                found = survey(adapted, scenes)
                row = row_of(method, number, found, labelled)
                self.history_.append(row)
                row["kept"] = not self.guard or helps(method, before, found)
                if row["kept"]:
                    best, self.segmenter_ = found, adapted
                elif not varied(before, found):
                    warn_of_collapse(row)
                    return
