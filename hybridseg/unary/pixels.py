"""A scikit-learn classifier on the features of single pixels."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from joblib import effective_n_jobs
from joblib.parallel import get_active_backend
from numpy.typing import NDArray
from scipy.ndimage import find_objects
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
from hybridseg.features.boxes import boxes
from hybridseg.features.pixels import Box, PixelFeatures
from hybridseg.scene.costs import costs_from_proba
from hybridseg.space import pixel_sides
from hybridseg.unary.classifier_proba import classifier_proba
from hybridseg.validation import IntensityRange, as_spacing

#: Rows that go to the classifier in one call: bounds the memory of a forest's votes.
_BLOCK = 1 << 17
#: Pixels whose features are in memory together, by the number of axes. In a volume more of the
#: work goes to the surroundings of a box, so boxes are larger.
_PART = {2: 1 << 18, 3: 1 << 20}


def check_has_proba(classifier: Any) -> None:
    """Refuse a classifier without ``predict_proba``: costs are logarithms of probabilities."""
    if not hasattr(classifier, "predict_proba"):
        name = type(classifier).__name__
        raise TypeError(
            f"classifier={name}(...) has no predict_proba, from which the costs are made; wrap "
            f"it: CalibratedClassifierCV({name}(...))."
        )


def fit_seeded(classifier: Any, rows: Any, targets: Any, random_state: Any) -> Any:
    """Fit a copy; every ``random_state`` left open in it, however deep, is seeded from ours.

    Targets of one class only, which many classifiers refuse, are learned by a constant.
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
    """What segmenters learn with unless told otherwise.

    Of the classifiers in docs/classifiers.md it has the best mean; half the trees take half the
    time for a tenth of a point less.
    """
    return RandomForestClassifier(n_estimators=100, min_samples_leaf=2)


def fit_classifier(classifier: Any, rows: Any, targets: Any, random_state: Any) -> Any:
    """Fit a copy of a classifier; None is the default one, for which all free cores are used.

    That one is kept with ``n_jobs=1``: :func:`classifier_proba` shares out rows among the cores
    that are free when it predicts.
    """
    if classifier is not None:
        return fit_seeded(classifier, rows, targets, random_state)
    classifier = default_classifier().set_params(n_jobs=free_cores())
    return fit_seeded(classifier, rows, targets, random_state).set_params(n_jobs=1)


def free_cores() -> int:
    """Cores that a fit may use: what joblib's context says, else all; one within its workers."""
    backend, n_jobs = get_active_backend()
    if backend.nesting_level:
        return 1
    return effective_n_jobs(n_jobs if n_jobs not in (None, 1) else -1)


class PixelClassifier(Segmenter):
    """Segment by classifying each pixel's features with any scikit-learn classifier.

    Learns from full label maps and from a few sparse scribbles alike, since only labelled pixels
    are looked at.

    Parameters
    ----------
    classifier : classifier with predict_proba, optional
        Default: ``RandomForestClassifier(n_estimators=100, min_samples_leaf=2)``, on all cores, or
        on one within a worker such as those of ``GridSearchCV(n_jobs=...)``. Your own has its
        ``n_jobs``.
    features : callable, optional
        ``features(colors, spacing=...)`` from float32 colours ``(*spatial, C)`` on the scale
        0..255 to features ``(*spatial, F)``. Default: :class:`hybridseg.features.PixelFeatures`.
        An instance makes its parameters tunable, as ``features__sigmas``. One that has a method
        ``part(colors, box, spacing=...)``, as PixelFeatures has, is asked for one part of a large
        image after the other, which bounds the memory; others are handed whole images.
    max_samples : int or None
        At most this many labelled pixels are learned from, of all images together; None takes
        all. The largest classes give way: every class gives all its pixels or one common number
        of them, and so does every image within a class, so the draw is as even as the labels
        allow (each class gives one pixel at least). The costs are those of the classes' shares in
        the draw, not in the images: your labels' own while they are fewer than ``max_samples``,
        nearly even for dense maps, which finds more of the rare classes and loses some accuracy
        on the common ones. ``class_weight="balanced"`` in the classifier makes them even at any
        size. Raise ``max_samples`` when images are many and varied: time grows with it.
    classes : array-like of int, optional
        The label values to tell apart, where some of them may be missing in ``y``, such as in a
        fold of a cross-validation; the classifier is given their positions in ``classes_``. None:
        those of ``y``, at least two.
    intensity_range : {"dtype", "image"} or (low, high)
        How values become colours: by the dtype, by each image's own range (MRI, float rasters),
        or by a window.
    ignore_label : int, optional
        A label value, beside the negative ones, that means "ignore", such as 255.
    random_state : int, RandomState or None
        Seeds the drawing of pixels, and every ``random_state`` of the classifier, or of parts
        of it, that is None.

    Attributes
    ----------
    classifier_ : classifier
        Fitted on class indices 0..L-1.
    features_ : callable
        A copy of what was used.
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
        for i in np.flatnonzero(quotas.any(axis=1)).tolist():  # other images need not be read
            scene, labels = training[i]
            chosen = np.zeros(labels.shape, bool)
            chosen.flat[draw(labels.ravel(), quotas[i], rng)] = True
            if chosen.any():
                for box, features in self._parts(scene, scene.filled_colors, chosen):
                    rows.append(features[chosen[box]])
                    targets.append(labels[box][chosen[box]])
        self.classifier_ = fit_classifier(
            self.classifier, np.concatenate(rows), np.concatenate(targets), self.random_state
        )

    def _parts(
        self, scene: Scene, colors: NDArray[np.float32], wanted: NDArray[np.bool_] | None = None
    ) -> Iterator[tuple[Box, NDArray[Any]]]:
        """Boxes that cover the image, or its wanted pixels, each with its features."""
        shape = colors.shape[:-1]
        spacing = as_spacing(scene.spacing, len(shape))
        part = getattr(self.features_, "part", None)
        if part is None:
            whole = tuple(slice(0, size) for size in shape)
            yield whole, np.asarray(self.features_(colors, spacing=spacing))
            return
        sides = pixel_sides(spacing, len(shape))
        for box in boxes(shape, sides, _PART[len(shape)]):
            tight = box if wanted is None else _bounds(wanted, box)
            if tight is not None:
                yield tight, np.asarray(part(colors, tight, spacing=spacing))

    def _costs(self, scene: Scene) -> NDArray[np.float32]:
        colors = scene.filled_colors
        costs = np.empty((*colors.shape[:-1], len(self.classes_)), np.float32)
        for box, features in self._parts(scene, colors):
            rows = features.reshape(-1, features.shape[-1])
            costs[box] = self._row_costs(rows).reshape(costs[box].shape)
        return costs

    def _row_costs(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        costs = np.empty((len(rows), len(self.classes_)), np.float32)
        for start in range(0, len(rows), _BLOCK):
            block = slice(start, start + _BLOCK)
            costs[block] = costs_from_proba(self._proba(rows[block]))
        return costs

    def _proba(self, rows: NDArray[Any]) -> NDArray[np.float32]:
        proba = np.zeros((len(rows), len(self.classes_)), np.float32)
        n_jobs = free_cores() if self.classifier is None else None
        proba[:, self.classifier_.classes_] = classifier_proba(self.classifier_, rows, n_jobs)
        return proba


def _bounds(wanted: NDArray[np.bool_], box: Box) -> Box | None:
    """The least box about the wanted pixels of a box; None if it has none."""
    found = find_objects(wanted[box].view(np.int8))
    if not found:
        return None
    return tuple(
        slice(outer.start + inner.start, outer.start + inner.stop)
        for outer, inner in zip(box, found[0], strict=True)
    )


def draw_evenly(
    labels: NDArray[np.int64], max_samples: int | None, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Positions of ``max_samples`` labelled pixels at most, as even over the classes as they allow.

    Every class gives all its pixels or one common number of them; one at least.
    """
    sizes = np.bincount(labels[labels >= 0], minlength=1)
    if max_samples is not None:
        sizes = even_quotas(sizes[None], max_samples, rng)[0]
    return draw(labels, sizes, rng)


def draw(
    labels: NDArray[np.int64], quotas: NDArray[np.int64], rng: np.random.Generator
) -> NDArray[np.intp]:
    """Positions of so many pixels of each class."""
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
    """How many pixels of each class each image is to give ``(N, L)``, as even as can be.

    Every class gives all its pixels or one common number of them, one at least; and within a
    class every image gives all its pixels or one common number of them, where chance decides
    which images give one more.
    """
    sizes = counts.sum(axis=0)
    quotas = np.zeros_like(counts)
    if sizes.any():
        share = _common_share(sizes[sizes > 0], max_samples)
        for label in np.flatnonzero(sizes):
            total = min(share, int(sizes[label]))
            quotas[:, label] = _spread(counts[:, label], total, rng)
    return quotas


def _spread(counts: NDArray[np.int64], total: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Split a total over images as evenly as their counts allow."""
    if counts.sum() <= total:
        return counts
    share, left = 0, total
    for i, size in enumerate(np.sort(counts)):
        share = left // (len(counts) - i)
        if size > share:
            break
        left -= int(size)
    quotas = np.minimum(counts, share)
    left = total - int(quotas.sum())
    if left:
        quotas[rng.permutation(np.flatnonzero(counts > quotas))[:left]] += 1
    return quotas


def _common_share(sizes: NDArray[np.intp], total: int) -> int:
    """The greatest number whose minima with the sizes sum to the total at most; one at least."""
    left = total
    for i, size in enumerate(np.sort(sizes)):
        share = left // (len(sizes) - i)
        if size > share:
            return max(1, share)
        left -= int(size)
    return int(sizes.max(initial=1))
