"""A scikit-learn classifier on the features of single pixels."""

from __future__ import annotations

from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier

from hybridseg.base import (
    IGNORE_LABEL,
    INTENSITY_RANGE,
    HasMethods,
    Interval,
    Scene,
    Segmenter,
    TrainingSet,
)
from hybridseg.costs import costs_from_proba
from hybridseg.features.pixels import PixelFeatures
from hybridseg.validation import IntensityRange, as_spacing

#: Rows that go to the classifier in one call: bounds the memory of a forest's votes.
_BLOCK = 1 << 17


def check_has_proba(classifier: Any) -> None:
    """Refuse a classifier without ``predict_proba``: costs are logarithms of probabilities."""
    if not hasattr(classifier, "predict_proba"):
        name = type(classifier).__name__
        raise TypeError(
            f"classifier={name}(...) has no predict_proba, from which the costs are made; wrap "
            f"it: CalibratedClassifierCV({name}(...))."
        )


def fit_seeded(classifier: Any, rows: Any, targets: Any, random_state: Any) -> Any:
    """Fit a copy; a ``random_state`` that the classifier leaves open is taken from ours."""
    fitted = clone(classifier)
    if random_state is not None and fitted.get_params(deep=False).get("random_state", 0) is None:
        fitted.set_params(random_state=random_state)
    return fitted.fit(rows, targets)


class PixelClassifier(Segmenter):
    """Segment by classifying each pixel's features with any scikit-learn classifier.

    Learns from full label maps and from a few sparse scribbles alike, since only labelled pixels
    are looked at.

    Parameters
    ----------
    classifier : classifier with predict_proba, optional
        Default: ``RandomForestClassifier(n_estimators=100, min_samples_leaf=2)``. Pass one with
        ``n_jobs=-1`` to use all cores; leave it at one inside ``GridSearchCV(n_jobs=...)``.
    features : callable, optional
        ``features(colors, spacing=...)`` from float32 colours ``(*spatial, C)`` on the scale
        0..255 to features ``(*spatial, F)``. Default: :class:`hybridseg.features.PixelFeatures`.
        An instance makes its parameters tunable, as ``features__sigmas``.
    max_samples : int or None
        At most this many labelled pixels per image are learned from, drawn evenly over the
        classes that the image has. None takes all. Raise it when images are few and varied.
    intensity_range : {"dtype", "image"} or (low, high)
        How values become colours: by the dtype, by each image's own range (MRI, float rasters),
        or by a window.
    ignore_label : int, optional
        A label value, beside the negative ones, that means "ignore", such as 255.
    random_state : int, RandomState or None
        Seeds the drawing of pixels, and the classifier where its own ``random_state`` is None.

    Attributes
    ----------
    classifier_ : classifier
        Fitted on class indices 0..L-1.
    features_ : callable
        What was used.
    classes_ : ndarray of int, (L,)
    spatial_ndim_, n_channels_in_ : int

    Examples
    --------
    >>> from hybridseg import PixelClassifier
    >>> from hybridseg.datasets import make_scenes
    >>> scenes = make_scenes(3, shape=(48, 64), random_state=0)
    >>> model = PixelClassifier(random_state=0).fit(scenes.images[:2], scenes.labels[:2])
    >>> model.predict(scenes.images[2:])[0].shape
    (48, 64)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "classifier": [HasMethods(["fit"]), None],
        "features": [callable, None],
        "max_samples": [Interval(Integral, 1, None, closed="left"), None],
        "intensity_range": INTENSITY_RANGE,
        "ignore_label": IGNORE_LABEL,
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        classifier: Any = None,
        *,
        features: Any = None,
        max_samples: int | None = 20_000,
        intensity_range: IntensityRange = "dtype",
        ignore_label: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.classifier = classifier
        self.features = features
        self.max_samples = max_samples
        self.intensity_range = intensity_range
        self.ignore_label = ignore_label
        self.random_state = random_state

    def _learn(self, training: TrainingSet) -> None:
        classifier = self.classifier
        if classifier is None:
            classifier = RandomForestClassifier(n_estimators=100, min_samples_leaf=2)
        check_has_proba(classifier)
        rng = random_generator(self.random_state)
        self.features_ = PixelFeatures() if self.features is None else self.features
        rows, targets = [], []
        for scene, labels in training:
            chosen = draw_evenly(labels.ravel(), self.max_samples, rng)
            if chosen.size:
                features = self._features_of(scene)
                rows.append(features.reshape(-1, features.shape[-1])[chosen])
                targets.append(labels.ravel()[chosen])
        self.classifier_ = fit_seeded(
            classifier, np.concatenate(rows), np.concatenate(targets), self.random_state
        )

    def _features_of(self, scene: Scene) -> NDArray[Any]:
        spacing = as_spacing(scene.spacing, scene.rank)
        features: NDArray[Any] = np.asarray(self.features_(scene.colors, spacing=spacing))
        return features

    def _costs(self, scene: Scene) -> NDArray[np.float32]:
        features = self._features_of(scene)
        rows = features.reshape(-1, features.shape[-1])
        proba = np.zeros((len(rows), len(self.classes_)), dtype=np.float32)
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            proba[block, self.classifier_.classes_] = self.classifier_.predict_proba(rows[block])
        return costs_from_proba(proba).reshape(*features.shape[:-1], -1)


def random_generator(random_state: Any) -> np.random.Generator:
    """A NumPy generator from what scikit-learn accepts as ``random_state``."""
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31 - 1))
    return np.random.default_rng(random_state)


def draw_evenly(
    labels: NDArray[np.int64], max_samples: int | None, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Positions of at most ``max_samples`` labelled pixels, evenly over the classes present."""
    labelled = np.flatnonzero(labels >= 0)
    if max_samples is None or len(labelled) <= max_samples:
        return labelled
    present, inverse = np.unique(labels[labelled], return_inverse=True)
    share = max(1, max_samples // len(present))
    shuffled = rng.permutation(len(labelled))
    by_class = shuffled[np.argsort(inverse[shuffled], kind="stable")]
    sizes = np.bincount(inverse)
    rank = np.arange(len(labelled)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(labelled[by_class[rank < share]])
