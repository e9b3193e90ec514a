"""A segmenter that classifies pixels by what several segmenters say about them."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from hybridseg.base import HasMethods, Interval, Scene
from hybridseg.features.boxes import Box
from hybridseg.features.pixels import PixelFeatures
from hybridseg.scene.costs import RegionCosts
from hybridseg.unary.members import HeldOut, MemberSegmenter
from hybridseg.unary.pixels import (
    check_has_proba,
    draw,
    even_quotas,
    feature_parts,
    fit_classifier,
    free_cores,
    row_costs,
)


class StackedSegmenter(MemberSegmenter):
    """Segment by a classifier of the probabilities of several segmenters, and of pixel features.

    This is stacked generalization [1]_. As in scikit-learn's ``StackingClassifier``, the final
    classifier learns from *out-of-fold* probabilities: each segmenter is fitted once for each fold
    of images, as in :class:`CrossFit`. Unlike the few weights of a :class:`Blend`, it can learn
    which segmenter is right for which pixels, but it needs more labels, and its result need not be
    better than each segmenter's.

    Parameters
    ----------
    segmenters : list of (str, segmenter)
        The names and the segmenters. A segmenter "drop" is left out. Each keeps its own
        ``intensity_range``; the values of ``ignore_label`` must be the same.
    final_classifier : classifier with predict_proba, optional
        Its rows are the log-probabilities of all classes by the first segmenter, then by the
        others, and then the features. Default: the default classifier of :class:`PixelClassifier`,
        a forest, which scored better than boosting and logistic regression.
    features : callable, optional
        The features of the pixels, as in :class:`PixelClassifier`; unused without ``passthrough``.
        They see the colors in the intensity range of the first segmenter. Default:
        :class:`hybridseg.features.PixelFeatures`.
    cv : int, "holdout", "prefit" or a scikit-learn splitter, default=5
        The folds of images; see :class:`CrossFit`. ``"prefit"``: the segmenters are fitted
        already, on other images than those that are passed to ``fit``, and are not fitted again.
        Wrap them in FrozenEstimator if the StackedSegmenter is to be cloned, such as by
        GridSearchCV.
    passthrough : bool, default=True
        False: the final classifier gets the log-probabilities only.
    max_samples : int or None, default=20000
        The maximum number of labeled pixels that the final classifier learns from, drawn evenly
        over classes and images, as in :class:`PixelClassifier`; None takes all.
    random_state : int, RandomState or None
        The seed for drawing pixels, and for every ``random_state`` that is None in the final
        classifier. If it is not None, the images are shuffled before they are split.

    Attributes
    ----------
    final_classifier_ : classifier
        Fitted on class indices 0..L-1.
    features_ : callable or None
        The features that were used: a copy of ``features``, or the default.
    segmenters_ : list of segmenter
        Fitted on all images.
    named_segmenters_ : Bunch
        The same by name.
    names_ : list of str
    classes_ : ndarray of int, (L,)
    spatial_ndim_, n_channels_in_ : int

    References
    ----------
    .. [1] D. Wolpert, "Stacked generalization", Neural Networks, 1992.

    Examples
    --------
    >>> from hybridseg import PixelClassifier, StackedSegmenter, SuperpixelClassifier
    >>> from hybridseg.datasets import make_scenes
    >>> scenes = make_scenes(4, shape=(32, 48), random_state=0)
    >>> members = [
    ...     ("pixels", PixelClassifier(random_state=0)),
    ...     ("regions", SuperpixelClassifier(random_state=0)),
    ... ]
    >>> model = StackedSegmenter(members, cv=2, random_state=0)
    >>> model.fit(scenes.images[:3], scenes.labels[:3]).predict(scenes.images[3:])[0].shape
    (32, 48)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **MemberSegmenter._parameter_constraints,
        "final_classifier": [HasMethods(["fit"]), None],
        "features": [callable, None],
        "passthrough": ["boolean"],
        "max_samples": [Interval(Integral, 1, None, closed="left"), None],
    }

    final_classifier_: Any
    features_: Any

    def __init__(
        self,
        segmenters: list[tuple[str, Any]],
        final_classifier: Any = None,
        *,
        features: Any = None,
        cv: Any = 5,
        passthrough: bool = True,
        max_samples: int | None = 20_000,
        random_state: Any = None,
    ) -> None:
        self.segmenters = segmenters
        self.final_classifier = final_classifier
        self.features = features
        self.cv = cv
        self.passthrough = passthrough
        self.max_samples = max_samples
        self.random_state = random_state

    def _kept(self) -> list[tuple[str, Any]]:
        if self.final_classifier is not None:
            check_has_proba(self.final_classifier, "final_classifier")
        return super()._kept()

    def _learn(self, held_out: HeldOut) -> None:
        self.features_ = None
        if self.passthrough:
            given = self.features
            self.features_ = PixelFeatures() if given is None else clone(given, safe=False)
        rng, training = self._generator(), held_out.training
        counts = held_out.counts()
        quotas = counts if self.max_samples is None else even_quotas(counts, self.max_samples, rng)
        rows, targets = [], []
        for i in np.flatnonzero(quotas.any(axis=1)).tolist():
            scene, labels = training[i]
            places = draw(labels.ravel(), quotas[i], rng)
            rows.append(self._rows(scene, held_out.scenes[i], places))
            targets.append(labels.ravel()[places])
        self.final_classifier_ = fit_classifier(
            self.final_classifier, np.concatenate(rows), np.concatenate(targets), self.random_state
        )

    def _rows(
        self, scene: Scene, members: tuple[Scene, ...], places: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Return the rows of the final classifier for the pixels at ``places``."""
        scores = -self.cost_rows(members, places)
        rows = np.concatenate(list(scores), axis=1)
        if self.features_ is None:
            return rows
        row_of = np.full(scene.shape, -1)
        row_of.flat[places] = np.arange(len(places))
        columns: NDArray[np.float32] | None = None
        for box, features in feature_parts(self.features_, scene, row_of >= 0):
            if columns is None:
                columns = np.empty((len(places), features.shape[-1]), np.float32)
            inside = row_of[box] >= 0
            columns[row_of[box][inside]] = features[inside]
        return rows if columns is None else np.concatenate([rows, columns], axis=1)

    def _costs(self, scene: Scene, members: tuple[Scene, ...]) -> NDArray[np.float32]:
        scores = []
        for index, member in enumerate(members):
            costs = self.member_costs(index, member)
            scores.append(-(costs.pixels() if isinstance(costs, RegionCosts) else costs))
        stacked = np.concatenate(scores, axis=-1)
        found = np.empty((*scene.shape, len(self.classes_)), np.float32)
        n_jobs = free_cores() if self.final_classifier is None else None
        for box, rows in self._row_parts(scene, stacked):
            flat = rows.reshape(-1, rows.shape[-1])
            costs = row_costs(self.final_classifier_, flat, len(self.classes_), n_jobs)
            found[box] = costs.reshape(found[box].shape)
        return found

    def _row_parts(
        self, scene: Scene, scores: NDArray[np.float32]
    ) -> Iterator[tuple[Box, NDArray[np.float32]]]:
        """Yield boxes that cover the image, and the rows of the pixels in each."""
        if self.features_ is None:
            yield tuple(slice(0, size) for size in scene.shape), scores
            return
        for box, features in feature_parts(self.features_, scene):
            yield box, np.concatenate([scores[box], features], axis=-1, dtype=np.float32)
