"""A segmenter and refiners of a few lines each, for the tests of base classes."""

from numbers import Real
from typing import ClassVar

import numpy as np

from hybridseg.base import HardRefiner, HasMethods, Interval, Segmenter, SoftRefiner
from hybridseg.scene.costs import proba_from_costs


class NearestGray(Segmenter):
    """The costs are the distances to the mean gray of each class."""

    _parameter_constraints: ClassVar = {
        "scale": [Interval(Real, 0, None, closed="neither")],
        "intensity_range": "no_validation",
        "ignore_label": "no_validation",
    }

    def __init__(self, scale=20.0, intensity_range="dtype", ignore_label=None):
        self.scale = scale
        self.intensity_range = intensity_range
        self.ignore_label = ignore_label

    def _learn(self, training):
        grays, labels = [], []
        for scene, truth in training:
            grays.append(scene.colors.mean(axis=-1)[truth >= 0])
            labels.append(truth[truth >= 0])
        sums = np.bincount(np.concatenate(labels), np.concatenate(grays))
        self.means_ = sums / np.bincount(np.concatenate(labels))

    def _costs(self, scene):
        gray = scene.colors.mean(axis=-1, keepdims=True)
        return (np.abs(gray - self.means_) / self.scale).astype(np.float32)


CONSTRAINTS = {
    "estimator": [HasMethods(["fit", "transform"]), None],
    "intensity_range": "no_validation",
}


class Unchanged(SoftRefiner):
    """The marginals are those of the costs."""

    _parameter_constraints: ClassVar = CONSTRAINTS

    def __init__(self, estimator=None, *, intensity_range=None):
        self.estimator = estimator
        self.intensity_range = intensity_range

    def _marginals(self, scene):
        return proba_from_costs(scene.unary)


class Dearest(HardRefiner):
    """The label of each pixel is the one with the highest cost."""

    _parameter_constraints: ClassVar = CONSTRAINTS

    def __init__(self, estimator=None, *, intensity_range=None):
        self.estimator = estimator
        self.intensity_range = intensity_range

    def _label_indices(self, scene):
        return scene.unary.argmax(axis=-1)
