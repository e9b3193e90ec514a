"""A segmenter that classifies the features of superpixels, by any scikit-learn classifier."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from hybridseg.base import (
    CLASSES,
    IGNORE_LABEL,
    INTENSITY_RANGE,
    HasMethods,
    Scene,
    Segmenter,
    TrainingSet,
)
from hybridseg.features.regions import RegionFeatures, region_labels
from hybridseg.features.slic import SLIC
from hybridseg.features.superpixel_base import cut_image
from hybridseg.scene.costs import RegionCosts, costs_from_proba
from hybridseg.scene.deferred import Deferred
from hybridseg.space import nearest_valid
from hybridseg.unary.classifier_proba import classifier_proba
from hybridseg.unary.pixels import check_has_proba, fit_classifier
from hybridseg.validation import (
    IntensityRange,
    as_label_map,
    as_mask,
    as_spacing,
    warn_caller,
)


class SuperpixelClassifier(Segmenter):
    """Segment by classifying superpixels with any scikit-learn classifier.

    Each region is one row: its label in ``fit`` is the majority of its labeled pixels, and its
    costs stay one row per region until they are read per pixel. There are about a hundred times
    fewer rows than pixels, so it is quick, and the statistics of a region are more informative
    than those of a pixel. A class that has the majority in no region cannot be learned; ``fit``
    then warns.

    The resulting Scenes also hold the region map, for ``GraphCut(on="regions")``. If an input
    Scene has ``regions``, they are used instead of superpixels. Only a Scene's valid pixels are
    cut into regions and described. In the region map of the resulting Scene, each other pixel
    belongs to the region of its nearest valid pixel.

    Parameters
    ----------
    classifier : classifier with predict_proba, optional
        Default: the default classifier of :class:`PixelClassifier`.
    superpixels : callable, optional
        ``superpixels(image_colors, spacing=..., intensity_range=(0, 255))`` returns a map of
        regions 0..R-1. Default: :class:`hybridseg.features.SLIC`. Its most important parameter is
        ``n_segments``: choose it so large that no region crosses the outline of an object. The
        parameters of an instance can be tuned, as ``superpixels__n_segments``. A callable with a
        parameter ``valid`` gets the mask of a Scene that has one.
    features : callable, optional
        ``features(colors, regions, spacing=...)`` returns rows ``(R, F)``; ``regions`` is -1 where
        a Scene is not valid. Default: :class:`hybridseg.features.RegionFeatures`.
    classes : array-like of int, optional
        The label values of the classes. Pass them if ``y`` may lack some of them, such as in a
        fold of a cross-validation. The classifier is fitted on their positions in ``classes_``.
        None: the label values in ``y``, at least two.
    intensity_range : {"dtype", "image"} or (low, high), default="dtype"
        The range of values that becomes the color scale 0..255; see :class:`PixelClassifier`.
    ignore_label : int, optional
        One more value that means "ignore", such as 255.
    random_state : int, RandomState or None
        The seed for every ``random_state`` that is None in the classifier or in estimators inside
        it.

    Attributes
    ----------
    classifier_ : classifier
        Fitted on class indices 0..L-1.
    superpixels_, features_ : callable
        The superpixels and features that were used: copies of the parameters, or the defaults.
    classes_ : ndarray of int, (L,)
    spatial_ndim_, n_channels_in_ : int

    Examples
    --------
    >>> from hybridseg import SuperpixelClassifier
    >>> from hybridseg.datasets import make_scenes
    >>> scenes = make_scenes(3, shape=(48, 64), random_state=0)
    >>> model = SuperpixelClassifier(random_state=0).fit(scenes.images[:2], scenes.labels[:2])
    >>> model.predict(scenes.images[2:])[0].shape
    (48, 64)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "classifier": [HasMethods(["fit"]), None],
        "superpixels": [callable, None],
        "features": [callable, None],
        "classes": CLASSES,
        "intensity_range": INTENSITY_RANGE,
        "ignore_label": IGNORE_LABEL,
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        classifier: Any = None,
        *,
        superpixels: Any = None,
        features: Any = None,
        classes: Any = None,
        intensity_range: IntensityRange = "dtype",
        ignore_label: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.classifier = classifier
        self.superpixels = superpixels
        self.features = features
        self.classes = classes
        self.intensity_range = intensity_range
        self.ignore_label = ignore_label
        self.random_state = random_state

    def _learn(self, training: TrainingSet) -> None:
        if self.classifier is not None:
            check_has_proba(self.classifier)
        self.superpixels_ = (
            SLIC() if self.superpixels is None else clone(self.superpixels, safe=False)
        )
        self.features_ = (
            RegionFeatures() if self.features is None else clone(self.features, safe=False)
        )
        rows, targets = [], []
        for scene, labels in training:
            if (labels >= 0).any():
                colors = scene.filled_colors
                regions = self._cut(scene, colors)
                features = self._describe(scene, colors, regions)
                majority, _ = region_labels(regions, labels, len(features))
                rows.append(features[majority >= 0])
                targets.append(majority[majority >= 0])
        _check_winners(targets, training)
        self.classifier_ = fit_classifier(
            self.classifier, np.concatenate(rows), np.concatenate(targets), self.random_state
        )

    def _extra_fields(self, fitted: SuperpixelClassifier, scene: Scene) -> dict[str, Any]:
        return {"regions": Deferred(fitted._regions, scene)}

    def _regions(self, scene: Scene) -> NDArray[np.int32]:
        return self._cut(scene, scene.filled_colors)

    def _cut(self, scene: Scene, colors: NDArray[np.float32]) -> NDArray[np.int32]:
        """Return the checked regions of the Scene, or superpixels if it has none."""
        if scene.valid is not None and not np.any(scene.valid):
            return np.zeros(colors.shape[:-1], np.int32)
        valid = _partly_valid(scene, colors.shape[:-1])
        if scene.regions is not None:
            regions = _given_regions(scene.regions, colors.shape[:-1], valid)
        else:
            spacing = as_spacing(scene.spacing, colors.ndim - 1)
            regions = cut_image(self.superpixels_, colors, spacing, valid)
        return regions if valid is None else _filled_regions(regions, valid, scene.spacing)

    def _describe(
        self, scene: Scene, colors: NDArray[np.float32], regions: NDArray[np.int32]
    ) -> NDArray[Any]:
        spacing = as_spacing(scene.spacing, regions.ndim)
        valid = _partly_valid(scene, regions.shape)
        if valid is not None:
            regions = np.where(valid, regions, np.int32(-1))
        return np.asarray(self.features_(colors, regions, spacing=spacing))

    def _costs(self, scene: Scene) -> RegionCosts:
        regions = scene.regions  # from _extra_fields: computed or checked
        features = self._describe(scene, scene.filled_colors, regions)
        proba = np.zeros((len(features), len(self.classes_)), dtype=np.float32)
        proba[:, self.classifier_.classes_] = classifier_proba(self.classifier_, features)
        return RegionCosts(regions, costs_from_proba(proba))


def _check_winners(majorities: list[NDArray[np.int64]], training: TrainingSet) -> None:
    """Warn of classes that have the majority in no region; raise an error if one class is left."""
    winners = training.classes[np.unique(np.concatenate(majorities))]
    lost = np.setdiff1d(training.present, winners)
    if not len(lost):
        return
    message = (
        f"the classes {lost.tolist()} have the majority of the labeled pixels in no "
        f"superpixel, so they cannot be learned; raise n_segments of the superpixels, or label "
        f"more pixels."
    )
    if len(winners) < 2:
        raise ValueError(
            f"{message} Only {winners.tolist()} is left; expected at least two classes."
        )
    warn_caller(message)  # at the caller of fit


def _partly_valid(scene: Scene, shape: tuple[int, ...]) -> NDArray[np.bool_] | None:
    """Return the mask of a Scene with valid and invalid pixels; None if all pixels are alike."""
    if scene.valid is None:
        return None
    valid = as_mask(scene.valid, shape)
    return None if valid.all() or not valid.any() else valid


def _given_regions(
    regions: Any, shape: tuple[int, ...], valid: NDArray[np.bool_] | None
) -> NDArray[np.int32]:
    """Return a copy of a Scene's own region map."""
    array = as_label_map(regions, shape=shape, name="scene.regions").astype(np.int32)
    if (array if valid is None else array[valid]).min() < 0:
        raise ValueError(
            "scene.regions holds negative numbers; expected a region 0..R-1 at every pixel that "
            "is valid. Pass the mask of the region map as Scene(valid=...), or pass no regions."
        )
    return array


def _filled_regions(
    regions: NDArray[Any], valid: NDArray[np.bool_], spacing: Any
) -> NDArray[np.int32]:
    """Renumber the regions of valid pixels without gaps; the others get the nearest region."""
    numbers = np.full(valid.shape, -1, np.int32)
    numbers[valid] = np.unique(regions[valid], return_inverse=True)[1].ravel()
    nearest = nearest_valid(valid, spacing)
    return numbers if nearest is None else numbers[nearest]
