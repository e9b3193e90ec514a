"""A segmenter that classifies the features of single pixels, by any scikit-learn classifier."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from joblib import effective_n_jobs
from joblib.parallel import get_active_backend
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.utils import check_random_state

from hybridseg.arguments import random_generator
from hybridseg.base import (
    CLASSES,
    IGNORE_LABEL,
    INTENSITY_RANGE,
    HasMethods,
    Interval,
    Scene,
    Segmenter,
    TrainingSet,
)
from hybridseg.features.boxes import Box, bounding_box, boxes
from hybridseg.features.pixels import PixelFeatures
from hybridseg.scene.costs import costs_from_proba
from hybridseg.space import pixel_sides
from hybridseg.unary.classifier_proba import classifier_proba
from hybridseg.validation import IntensityRange, as_spacing

#: The maximum number of rows in one call of the classifier, which bounds a forest's memory.
_MAX_ROWS_PER_CALL = 1 << 17
#: The maximum number of pixels of a box, by the number of axes. It bounds the memory of features.
#: Boxes of a volume are larger, because more of their work is on the surrounding pixels.
_MAX_PIXELS_PER_BOX = {2: 1 << 18, 3: 1 << 20}


def check_has_proba(classifier: Any, parameter: str = "classifier") -> None:
    """Raise an error for a classifier without ``predict_proba``, which the costs need."""
    if not hasattr(classifier, "predict_proba"):
        name = type(classifier).__name__
        raise TypeError(
            f"{parameter}={name}(...) has no predict_proba, which gives the costs; pass "
            f"{parameter}=CalibratedClassifierCV({name}(...))."
        )


def fit_seeded(classifier: Any, rows: Any, targets: Any, random_state: Any) -> Any:
    """Fit a copy of a classifier, with a seed for each ``random_state`` that is None.

    This includes the parameters of estimators inside it. Many classifiers raise an error for
    targets of one class; a constant prediction is fitted instead.
    """
    fitted = clone(classifier) if len(np.unique(targets)) > 1 else DummyClassifier()
    unset = sorted(
        name
        for name, value in fitted.get_params().items()
        if value is None and name.rpartition("__")[2] == "random_state"
    )
    if unset and random_state is not None:
        rng = check_random_state(random_state)
        fitted.set_params(**{name: rng.randint(2**31 - 1) for name in unset})
    return fitted.fit(rows, targets)


def default_classifier() -> RandomForestClassifier:
    """Return the classifier of segmenters whose parameter ``classifier`` is None.

    It has the best mean score of the classifiers in docs/classifiers.md. With half the trees it
    takes half the time and scores a tenth of a point less.
    """
    return RandomForestClassifier(n_estimators=100, min_samples_leaf=2)


def fit_classifier(classifier: Any, rows: Any, targets: Any, random_state: Any) -> Any:
    """Fit a copy of a classifier; None fits the default classifier on all free cores.

    The fitted default classifier has ``n_jobs=1``: :func:`classifier_proba` divides the rows among
    the cores that are free during prediction.
    """
    if classifier is not None:
        return fit_seeded(classifier, rows, targets, random_state)
    classifier = default_classifier().set_params(n_jobs=free_cores())
    return fit_seeded(classifier, rows, targets, random_state).set_params(n_jobs=1)


def free_cores() -> int:
    """Return the number of cores for a fit: that of joblib's context, or all; one in a worker."""
    backend, n_jobs = get_active_backend()
    if backend.nesting_level:
        return 1
    return effective_n_jobs(n_jobs if n_jobs not in (None, 1) else -1)


class PixelClassifier(Segmenter):
    """Segment by classifying each pixel's features with any scikit-learn classifier.

    It learns from the labeled pixels only, so full label maps and a few scribbles can be used.

    Parameters
    ----------
    classifier : classifier with predict_proba, optional
        Default: ``RandomForestClassifier(n_estimators=100, min_samples_leaf=2)``, on all cores, or
        on one core in a worker process such as those of ``GridSearchCV(n_jobs=...)``. Another
        classifier uses its own ``n_jobs``.
    features : callable, optional
        ``features(colors, spacing=...)`` returns features ``(*spatial, F)`` of float32 colors
        ``(*spatial, C)`` on the scale 0..255. Default: :class:`hybridseg.features.PixelFeatures`.
        The parameters of an instance can be tuned, as ``features__sigmas``. If it has a method
        ``part(colors, box, spacing=...)``, as PixelFeatures has, large images are processed in
        boxes, which bounds the memory; otherwise each call gets a whole image.
    max_samples : int or None, default=20000
        The maximum number of labeled pixels to learn from, in all images together; None takes
        all. If there are more, the sample is as balanced as the labels allow: each class gives the
        same number of pixels, or all its pixels if it has fewer, and at least one. Within a
        class, the same rule holds for images. The costs follow the class frequencies of the
        sample, not of the images. With fewer labels than ``max_samples`` these are the
        frequencies of your labels. For dense label maps they are nearly equal, which finds more
        pixels of the rare classes and loses some accuracy on the common ones.
        ``class_weight="balanced"`` in the classifier balances them for any number of labels.
        Raise ``max_samples`` for many, varied images; the time grows with it.
    classes : array-like of int, optional
        The label values of the classes. Pass them if ``y`` may lack some of them, such as in a
        fold of a cross-validation. The classifier is fitted on their positions in ``classes_``.
        None: the label values in ``y``, at least two.
    intensity_range : {"dtype", "image"} or (low, high), default="dtype"
        The range of values that becomes the color scale 0..255: that of the dtype, of each image
        (MRI, float rasters), or a window.
    ignore_label : int, optional
        One more value that means "ignore", such as 255.
    random_state : int, RandomState or None
        The seed for drawing pixels, and for every ``random_state`` that is None in the classifier
        or in estimators inside it.

    Attributes
    ----------
    classifier_ : classifier
        Fitted on class indices 0..L-1.
    features_ : callable
        The features that were used: a copy of ``features``, or the default.
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
        "classes": CLASSES,
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
        classes: Any = None,
        intensity_range: IntensityRange = "dtype",
        ignore_label: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.classifier = classifier
        self.features = features
        self.max_samples = max_samples
        self.classes = classes
        self.intensity_range = intensity_range
        self.ignore_label = ignore_label
        self.random_state = random_state

    def _learn(self, training: TrainingSet) -> None:
        if self.classifier is not None:
            check_has_proba(self.classifier)
        rng = random_generator(self.random_state)
        self.features_ = (
            PixelFeatures() if self.features is None else clone(self.features, safe=False)
        )
        counts = training.counts()
        quotas = counts if self.max_samples is None else even_quotas(counts, self.max_samples, rng)
        rows, targets = [], []
        for i in np.flatnonzero(quotas.any(axis=1)).tolist():  # other images are not read
            scene, labels = training[i]
            chosen = np.zeros(labels.shape, bool)
            chosen.flat[draw(labels.ravel(), quotas[i], rng)] = True
            if chosen.any():
                for box, features in feature_parts(self.features_, scene, chosen):
                    rows.append(features[chosen[box]])
                    targets.append(labels[box][chosen[box]])
        self.classifier_ = fit_classifier(
            self.classifier, np.concatenate(rows), np.concatenate(targets), self.random_state
        )

    def _costs(self, scene: Scene) -> NDArray[np.float32]:
        n_jobs = free_cores() if self.classifier is None else None
        n_labels = len(self.classes_)
        costs = np.empty((*scene.shape, n_labels), np.float32)
        for box, features in feature_parts(self.features_, scene):
            rows = features.reshape(-1, features.shape[-1])
            found = row_costs(self.classifier_, rows, n_labels, n_jobs)
            costs[box] = found.reshape(costs[box].shape)
        return costs


def feature_parts(
    features: Any, scene: Scene, wanted: NDArray[np.bool_] | None = None
) -> Iterator[tuple[Box, NDArray[Any]]]:
    """Yield boxes that cover the image of a Scene, and the features of the pixels in each.

    Parameters
    ----------
    features : callable
        The parameter ``features`` of :class:`PixelClassifier`.
    scene : Scene
    wanted : ndarray of bool, (*spatial,), optional
        The boxes cover these pixels only.

    Yields
    ------
    box : tuple of slice
    features : ndarray, (*sides of the box, F)
    """
    colors = scene.filled_colors
    shape = colors.shape[:-1]
    spacing = as_spacing(scene.spacing, len(shape))
    part = getattr(features, "part", None)
    if part is None:
        whole = tuple(slice(0, size) for size in shape)
        yield whole, np.asarray(features(colors, spacing=spacing))
        return
    sides = pixel_sides(spacing, len(shape))
    for box in boxes(shape, sides, _MAX_PIXELS_PER_BOX[len(shape)]):
        tight = box if wanted is None else _tightened(box, wanted)
        if tight[0].start < tight[0].stop:
            yield tight, np.asarray(part(colors, tight, spacing=spacing))


def row_costs(
    classifier: Any, rows: NDArray[Any], n_labels: int, n_jobs: int | None = None
) -> NDArray[np.float32]:
    """Return the costs ``(n, L)`` of rows ``(n, F)`` by a classifier of class indices.

    A class that the classifier was not trained on has the probability 0 before the logarithm.
    """
    costs = np.empty((len(rows), n_labels), np.float32)
    for start in range(0, len(rows), _MAX_ROWS_PER_CALL):
        block = slice(start, start + _MAX_ROWS_PER_CALL)
        proba = np.zeros(costs[block].shape, np.float32)
        proba[:, classifier.classes_] = classifier_proba(classifier, rows[block], n_jobs)
        costs[block] = costs_from_proba(proba)
    return costs


def _tightened(box: Box, wanted: NDArray[np.bool_]) -> Box:
    """Return the smallest box with all wanted pixels of a box."""
    inner = bounding_box(wanted[box])
    starts = [side.start for side in box]
    return tuple(slice(i + s.start, i + s.stop) for i, s in zip(starts, inner, strict=True))


def draw_evenly(
    labels: NDArray[np.int64], max_samples: int | None, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Return the positions of at most ``max_samples`` labeled pixels, balanced over the classes.

    Each class gives the same number of pixels, or all its pixels if it has fewer; at least one.
    """
    sizes = np.bincount(labels[labels >= 0], minlength=1)
    if max_samples is not None:
        sizes = even_quotas(sizes[None], max_samples, rng)[0]
    return draw(labels, sizes, rng)


def draw(
    labels: NDArray[np.int64], quotas: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.intp]:
    """Return the positions of ``quotas[l]`` random pixels of each class l, or of all it has."""
    drawn = [np.empty(0, np.intp)]
    for label in np.flatnonzero(quotas):
        places = np.flatnonzero(labels == label)
        if len(places) > quotas[label]:
            places = rng.choice(places, quotas[label], replace=False, shuffle=False)
        drawn.append(places)
    return np.sort(np.concatenate(drawn))


def even_quotas(
    counts: NDArray[np.int64], max_samples: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the number of pixels to draw of each class from each image, ``(N, L)``, balanced.

    Each class gives the same number of pixels, or all its pixels if it has fewer; at least one.
    Within a class, the same rule holds for images. A remainder goes to random images, one pixel
    each.
    """
    sizes = counts.sum(axis=0)
    quotas = np.zeros_like(counts)
    if sizes.any():
        quota = _common_quota(sizes[sizes > 0], max_samples)
        for label in np.flatnonzero(sizes):
            total = min(quota, int(sizes[label]))
            quotas[:, label] = split_evenly(counts[:, label], total, rng)
    return quotas


def split_evenly(
    counts: NDArray[np.int64], total: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Split a total over images as evenly as their counts allow."""
    if counts.sum() <= total:
        return counts
    quota, left = 0, total
    for i, size in enumerate(np.sort(counts)):
        quota = left // (len(counts) - i)
        if size > quota:
            break
        left -= int(size)
    quotas = np.minimum(counts, quota)
    left = total - int(quotas.sum())
    if left:
        quotas[rng.permutation(np.flatnonzero(counts > quotas))[:left]] += 1
    return quotas


def _common_quota(sizes: NDArray[np.intp], total: int) -> int:
    """Return the largest quota q with ``sum(min(q, sizes)) <= total``, and at least 1."""
    left = total
    for i, size in enumerate(np.sort(sizes)):
        quota = left // (len(sizes) - i)
        if size > quota:
            return max(1, quota)
        left -= int(size)
    return int(sizes.max(initial=1))
