"""Segmenters of known quality and known cost, and a clock that only they advance."""

from typing import ClassVar

import numpy as np

from hybridseg.base import Segmenter


class Hands:
    """A clock that is moved by hand."""

    def __init__(self):
        self.time = 0.0

    def __call__(self):
        return self.time


#: The clock of all stubs; :func:`tests.search.conftest.hands` sets it back.
HANDS = Hands()


class Known(Segmenter):
    """Reads labels off the image, and errs at a known rate; each image costs known seconds."""

    _parameter_constraints: ClassVar = {}

    def __init__(
        self, errors=0.0, fit_cost=1.0, cost=0.1, fails=False, max_epochs=None, ignore_label=None
    ):
        self.errors = errors
        self.fit_cost = fit_cost
        self.cost = cost
        self.fails = fails
        self.max_epochs = max_epochs
        self.ignore_label = ignore_label
        self.intensity_range = "dtype"

    def _learn(self, training):
        if self.fails:
            raise RuntimeError("this stub fails")
        HANDS.time += self.fit_cost * len(training) * (self.max_epochs or 1)
        self.sums_ = sorted(int(np.asarray(s.image, np.int64).sum()) for s in training.scenes)

    def _costs(self, scene):
        HANDS.time += self.cost
        image = np.asarray(scene.image)
        labels = np.searchsorted(self.classes_, image // 100)
        rng = np.random.default_rng(int(image.astype(np.int64).sum()))
        wrong = rng.random(labels.shape) < self.errors
        labels = np.where(wrong, (labels + 1) % len(self.classes_), labels)
        found = np.where(labels[..., None] == np.arange(len(self.classes_)), 0.0, 2.0)
        return found.astype(np.float32)


def data(n_images, shape=(12, 16), n_labels=2, seed=0):
    """Images that show their labels, and a number of their own in the low digits."""
    rng = np.random.default_rng(seed)
    labels = [rng.integers(n_labels, size=shape) for _ in range(n_images)]
    images = [(100 * found + rng.integers(50, size=shape)).astype(np.uint8) for found in labels]
    return images, labels
