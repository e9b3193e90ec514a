"""The base classes of all estimators, and the only file that uses scikit-learn's private names.

A :class:`Segmenter` turns images into Scenes with costs. A :class:`SoftRefiner` turns the costs of
Scenes into better costs, and a :class:`HardRefiner` turns them into labels. A subclass defines
``__init__``, parameter constraints and hooks. The base classes do everything else.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.utils import Tags, get_tags
from sklearn.utils._param_validation import HasMethods, StrOptions
from sklearn.utils._param_validation import Interval as _Interval
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    _routing_enabled,
    process_routing,
)
from sklearn.utils.metaestimators import _BaseComposition as BaseComposition
from sklearn.utils.validation import check_is_fitted

from hybridseg.arguments import restored_on_error
from hybridseg.metrics.table import ConfusionTable, add_tables, check_weights, confusion_table
from hybridseg.scene.costs import RegionCosts, costs_from_proba
from hybridseg.scene.deferred import Deferred
from hybridseg.scene.scene import Scene
from hybridseg.scene.sequences import ImageList, as_scenes, as_sources, read_truth
from hybridseg.scene.training_set import TrainingSet
from hybridseg.validation import (
    LARGEST,
    IntensityRange,
    as_image,
    as_label_map,
    as_mask,
    said_once,
)

__all__ = ["SKLEARN_TYPES", "BaseComposition", "HardRefiner", "HasMethods", "ImageList"]
__all__ += ["Interval", "ProbabilityMixin", "Refiner", "Scene", "Segmenter", "SegmenterMixin"]
__all__ += ["SoftRefiner", "StrOptions", "TrainingSet", "restored_on_error"]


class Interval(_Interval):
    """An interval of 64-bit integers, or of numbers that fit float32; booleans are refused."""

    def is_satisfied_by(self, val: Any) -> bool:
        """Return whether a parameter may have this value."""
        if not isinstance(val, int | float | np.integer | np.floating) or isinstance(val, bool):
            return False
        plain = val.item() if isinstance(val, np.generic) else val  # limits overflow float16
        most = 2**63 - 1 if self.type is Integral else LARGEST
        return bool(-most <= plain <= most and super().is_satisfied_by(val))

    def __str__(self) -> str:
        return f"{super().__str__()}" + (
            "" if self.type is Integral else f" of a size up to {LARGEST:g}"
        )


#: Types without a public name that fitted estimators of scikit-learn hold: the allow-list of files.
SKLEARN_TYPES = {
    "bagging": "sklearn.ensemble._bagging.BaseBagging",
    "ball tree": "sklearn.neighbors._ball_tree.BallTree",
    "ball tree base": "sklearn.neighbors._ball_tree.BinaryTree64",
    "binary Gaussian process": (
        "sklearn.gaussian_process._gpc._BinaryGaussianProcessClassifierLaplace"
    ),
    "boosting": "sklearn.ensemble._gb.BaseGradientBoosting",
    "bunch": "sklearn.utils._bunch.Bunch",
    "calibrated": "sklearn.calibration._CalibratedClassifier",
    "clusters": "sklearn.cluster._kmeans._BaseKMeans",
    "distance": "sklearn.metrics._dist_metrics.DistanceMetric64",
    "distances": "sklearn.metrics._dist_metrics.",
    "forest": "sklearn.ensemble._forest.BaseForest",
    "histogram boosting": (
        "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.BaseHistGradientBoosting"
    ),
    "histogram predictor": "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "k-d tree": "sklearn.neighbors._kd_tree.KDTree",
    "k-d tree base": "sklearn.neighbors._kd_tree.BinaryTree64",
    "losses": "sklearn._loss.",
    "neighbors": "sklearn.neighbors._base.NeighborsBase",
    "network optimizers": "sklearn.neural_network._stochastic_optimizers.",
    "passthrough scorer": "sklearn.metrics._scorer._PassthroughScorer",
    "scores": "sklearn.feature_selection._univariate_selection.",
    "sgd losses": "sklearn.linear_model._sgd_fast.",
    "sigmoid": "sklearn.calibration._SigmoidCalibration",
    "support vectors": "sklearn.svm._base.BaseLibSVM",
    "temperature": "sklearn.calibration._TemperatureScaling",
    "tree": "sklearn.tree._tree.Tree",
}

#: Constraints of the parameters that several estimators share.
INTENSITY_RANGE = [StrOptions({"dtype", "image"}), tuple, list]
CLASSES = ["array-like", None]
IGNORE_LABEL = [Interval(Integral, None, None, closed="neither"), None]


class SegmenterMixin(TransformerMixin):
    """Mixin with the predictions and the score of all estimators that segment images.

    A subclass defines ``transform(X)``, which returns Scenes. The ``estimator_type`` is
    "segmenter", neither classifier nor regressor, because the scores of scikit-learn's mixins
    would flatten lists of label maps.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        # Scenes are not tables: set_config(transform_output="pandas") must not wrap them.
        super().__init_subclass__(auto_wrap_output_keys=None, **kwargs)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.estimator_type = "segmenter"
        tags.target_tags.required = True
        tags.input_tags.two_d_array = False
        return tags

    def set_output(self, *, transform: str | None = None) -> Self:
        """Do nothing, because Scenes are not tables; pipelines of scikit-learn call this."""
        return self

    @said_once()
    def predict(self, X: Any) -> ImageList:
        """Segment images.

        Parameters
        ----------
        X : sequence of images, paths or Scenes
            One item per image; sizes may differ.

        Returns
        -------
        ImageList of ndarray of int, (*spatial,)
            Label maps in the values of ``classes_``; -1 where a Scene's ``valid`` is False.
        """
        return ImageList(_writeable(scene.prediction) for scene in self.transform(X))

    @said_once()
    def score(self, X: Any, y: Any, sample_weight: ArrayLike | None = None) -> float:
        """Return the mean IoU of ``predict(X)`` with ``y``, from one table of all images.

        Parameters
        ----------
        X : sequence of images, paths or Scenes
        y : sequence of label maps (or paths)
            Negative pixels, pixels equal to ``ignore_label``, and pixels where a Scene's
            ``valid`` is False are left out.
        sample_weight : array-like of float, (n_images,), optional
            The weight of each image's pixels.

        Returns
        -------
        float
            In [0, 1]; see :func:`hybridseg.metrics.mean_iou`.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            The estimator is not fitted, ``X`` or ``y`` is not as above, or a shape differs.
        """
        scenes = self.transform(X)
        sources = as_sources(y, len(scenes))
        weights = np.ones(len(scenes))
        if sample_weight is not None:
            weights = check_weights(sample_weight, len(scenes))
        table = add_tables(
            _scored(scene, source, f"y[{i}]") * float(weight)
            for i, (scene, source, weight) in enumerate(zip(scenes, sources, weights, strict=True))
        )
        return table.mean_iou()


def _scored(scene: Scene, source: Any, name: str) -> ConfusionTable:
    """Return the confusion table of one Scene without its invalid pixels."""
    found = scene.prediction
    truth = read_truth(scene, source, found.shape, name)
    if scene.valid is not None:
        valid = as_mask(scene.valid, truth.shape, name=f"the valid mask of {name}")
        truth = np.where(valid, as_label_map(truth, name=name), np.int64(-1))
    return confusion_table(truth, found, ignore_label=scene.ignore_label)


def _writeable(found: NDArray[Any]) -> NDArray[Any]:
    """Return a copy of a read-only array, so that users may write to results."""
    return found if found.flags.writeable else found.copy()


class ProbabilityMixin(SegmenterMixin):
    """Probabilities of estimators whose Scenes have costs."""

    @said_once()
    def predict_proba(self, X: Any) -> ImageList:
        """Predict the probabilities of the labels.

        Parameters
        ----------
        X : sequence of images, paths or Scenes

        Returns
        -------
        ImageList of ndarray of float32, (*spatial, L)
            In the order of ``classes_``; the probabilities of a pixel sum to one.
        """
        return ImageList(scene.proba for scene in self.transform(X))


class Segmenter(ProbabilityMixin, BaseEstimator):
    """Base class of segmenters, which turn images into Scenes with costs.

    A subclass has the parameters ``intensity_range`` and ``ignore_label``, and defines two hooks:

    ``_learn(training)``
        Learn from a :class:`TrainingSet`; set attributes that end in ``_``.
    ``_costs(scene)``
        Return the costs of one Scene: an array ``(*spatial, L)`` or :class:`RegionCosts`.

    Attributes
    ----------
    classes_ : ndarray of int, (L,)
        The sorted label values of the parameter ``classes``, or else those in ``y``.
    spatial_ndim_ : int
        The number of spatial axes: the rank of the label maps.
    n_channels_in_ : int
        The number of channels of the images.
    """

    intensity_range: IntensityRange
    ignore_label: int | None
    classes: Any = None  # for segmenters without this parameter
    classes_: NDArray[Any]
    spatial_ndim_: int
    n_channels_in_: int
    _parameter_constraints: ClassVar[dict[str, Any]]

    @said_once()
    def fit(self, X: Any, y: Any) -> Self:
        """Learn from images and label maps.

        Parameters
        ----------
        X : sequence of images, paths or Scenes
            Images ``(H, W[, C])`` or ``(D, H, W[, C])`` of any real dtype; sizes may differ.
        y : sequence of label maps (or paths)
            Integers of each image's spatial shape. Pixels with negative values or
            ``ignore_label`` are left out, so a few scribbles are enough.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            The input is not as above, ``y`` holds fewer than two classes, or it holds a label
            value that is not in the parameter ``classes``. The estimator then remains unchanged.
        """
        with restored_on_error(self):
            self._validate_params()
            training = TrainingSet.read(
                X, y, self.intensity_range, self.ignore_label, classes=self.classes
            )
            self.classes_ = training.classes
            self.spatial_ndim_ = training.spatial_ndim
            self.n_channels_in_ = training.n_channels
            self._learn(training)
        return self

    def fit_transform(self, X: Any, y: Any, **params: Any) -> ImageList:
        """Fit, and return Scenes whose costs are marked as in-sample in ``meta["out_of_fold"]``."""
        scenes = self.fit(X, y, **params).transform(X)
        return ImageList(s.replace(meta={**s.meta, "out_of_fold": False}) for s in scenes)

    def transform(self, X: Any) -> ImageList:
        """Convert images to Scenes whose costs are computed when they are first read.

        Parameters
        ----------
        X : sequence of images, paths or Scenes

        Returns
        -------
        ImageList of Scene
        """
        check_is_fitted(self)
        scenes = as_scenes(
            X,
            n_channels=self.n_channels_in_,
            spatial_ndim=self.spatial_ndim_,
            intensity_range=self.intensity_range,
            ignore_label=self.ignore_label,
        )
        fitted = copy.copy(self)  # a later fit of this object must not change these Scenes
        for position, scene in enumerate(scenes):
            if isinstance(scene.source("image"), np.ndarray):
                self._check_channels(scene, f"X[{position}]")
        return ImageList(self._with_costs(fitted, scene) for scene in scenes)

    def _with_costs(self, fitted: Self, scene: Scene) -> Scene:
        known = scene.replace(unary=None, labels=None, classes=self.classes_)
        known = known.replace(**self._extra_fields(fitted, known))
        return known.replace(unary=Deferred(fitted._checked_costs, known))

    def _extra_fields(self, fitted: Self, scene: Scene) -> dict[str, Any]:
        """Return further fields of transformed Scenes; deferred values refer to ``fitted``."""
        return {}

    def _checked_costs(self, scene: Scene) -> NDArray[np.float32] | RegionCosts:
        self._check_channels(scene, "image")
        return self._costs(scene)

    def _check_channels(self, scene: Scene, name: str) -> None:
        found = as_image(scene.image, spatial_ndim=self.spatial_ndim_, name=name).shape[-1]
        if found != self.n_channels_in_:
            raise ValueError(
                f"{name} has {found} channels, but {type(self).__name__} was fitted on images "
                f"with {self.n_channels_in_}; convert the image or fit again."
            )

    def _learn(self, training: TrainingSet) -> None:
        raise TypeError(f"{type(self).__name__} lacks the hook _learn(training).")

    def _costs(self, scene: Scene) -> NDArray[np.float32] | RegionCosts:
        raise TypeError(f"{type(self).__name__} lacks the hook _costs(scene).")


class Refiner(SegmenterMixin, BaseEstimator):
    """Base class of soft and hard refiners, which refine Scenes with costs.

    The first parameter of a subclass is ``estimator=None``. If it is a segmenter, the refiner
    fits it and is equivalent to a pipeline of both. Without one, a refiner learns nothing and
    counts as fitted. With ``intensity_range=None``, each Scene keeps its own range.

    Attributes
    ----------
    estimator_ : segmenter
        The fitted inner segmenter, if ``estimator`` is not None.
    classes_ : ndarray of int, (L,)
        The label values, once fitted.
    """

    estimator: Any
    intensity_range: IntensityRange | None
    classes_: NDArray[Any]
    _parameter_constraints: ClassVar[dict[str, Any]]

    @said_once()
    def fit(self, X: Any, y: Any = None, **params: Any) -> Self:
        """Fit the inner segmenter; without one, check that ``X`` holds Scenes with costs.

        Parameters
        ----------
        X : sequence of images (with ``estimator``) or of Scenes with costs
        y : sequence of label maps, optional
            Needed by the inner segmenter.
        **params
            Metadata for the inner segmenter's ``fit``.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            An argument is not as above, or there are ``params`` but no inner segmenter.
        """
        with restored_on_error(self):
            self._validate_params()
            if self.estimator is None:
                if params:
                    raise TypeError(
                        f"fit got the metadata {sorted(params)}, but estimator=None; expected none "
                        f"without an inner segmenter: pass a segmenter as estimator=."
                    )
                self.classes_ = self._incoming(X)[0].classes
            else:
                given = self._routed(params)
                self.estimator_ = clone(self.estimator).fit(X, y, **given)
                self.classes_ = self.estimator_.classes_
        return self

    def _routed(self, params: dict[str, Any]) -> Mapping[str, Any]:
        if not _routing_enabled():
            return params
        return process_routing(self, "fit", **params).estimator.fit

    def get_metadata_routing(self) -> MetadataRouter:
        """Route metadata: the refiner's own to ``score``, others to ``fit`` of ``estimator``."""
        router = MetadataRouter(owner=self).add_self_request(self)
        if self.estimator is not None:
            mapping = MethodMapping().add(caller="fit", callee="fit")
            router.add(estimator=self.estimator, method_mapping=mapping)
        return router

    def __sklearn_is_fitted__(self) -> bool:
        return self.estimator is None or hasattr(self, "estimator_")

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        inner = self.estimator
        tags.target_tags.required = inner is not None and get_tags(inner).target_tags.required
        return tags

    def transform(self, X: Any) -> ImageList:
        """Refine Scenes, or images with an inner segmenter; a result is computed when it is read.

        Parameters
        ----------
        X : sequence of Scenes with costs, or of images with ``estimator``

        Returns
        -------
        ImageList of Scene

        Raises
        ------
        NotFittedError, TypeError, ValueError
            The refiner is not fitted, or an item of ``X`` has no costs.
        """
        check_is_fitted(self)
        self._validate_params()
        fitted = copy.copy(self)
        return ImageList(fitted._refined(scene) for scene in self._incoming(X))

    def _incoming(self, X: Any) -> ImageList:
        """Return the Scenes to refine: ``X``, or what the inner segmenter makes of images."""
        scenes = as_scenes(X if self.estimator is None else self.estimator_.transform(X))
        for position, scene in enumerate(scenes):
            if not scene.has_costs or scene.classes is None:
                self._refuse_plain(position)
        own = self.intensity_range
        if own is None:
            return scenes
        return ImageList(scene.replace(intensity_range=own) for scene in scenes)

    def _refuse_plain(self, position: int) -> None:
        name = type(self).__name__
        raise ValueError(
            f"X[{position}] is a plain image, or a Scene without costs; {name} refines costs. Put "
            f"a segmenter before it, as in make_pipeline(PixelClassifier(), {name}()), pass one "
            f"as estimator=, or make a Scene with costs by Scene.from_logits(image, logits)."
        )

    def _refined(self, scene: Scene) -> Scene:
        raise TypeError(f"{type(self).__name__} lacks the hook _refined(scene).")


class SoftRefiner(ProbabilityMixin, Refiner):
    """Base class of refiners with marginals: ``_marginals(scene)`` returns ``(*spatial, L)``."""

    def _refined(self, scene: Scene) -> Scene:
        return scene.replace(unary=Deferred(self._refined_costs, scene), labels=None)

    def _refined_costs(self, scene: Scene) -> NDArray[np.float32]:
        return costs_from_proba(self._marginals(scene), minimum=1e-12)

    def _marginals(self, scene: Scene) -> NDArray[np.float32]:
        raise TypeError(f"{type(self).__name__} lacks the hook _marginals(scene).")


class HardRefiner(Refiner):
    """Base class of refiners with labels: ``_label_indices(scene)`` returns 0..L-1.

    The Scene keeps its costs; there is no ``predict_proba``.
    """

    def _refined(self, scene: Scene) -> Scene:
        return scene.replace(labels=Deferred(self._label_values, scene))

    def _label_values(self, scene: Scene) -> NDArray[Any]:
        assert scene.classes is not None  # checked by _incoming
        return scene.classes[self._label_indices(scene)]

    def _label_indices(self, scene: Scene) -> NDArray[np.integer[Any]]:
        raise TypeError(f"{type(self).__name__} lacks the hook _label_indices(scene).")
