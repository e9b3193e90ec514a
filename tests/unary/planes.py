"""A segmenter that reads costs from the channels of the image, so that tests know its costs."""

from numbers import Integral

import numpy as np

from hybridseg.base import Interval, Segmenter
from hybridseg.scene.costs import RegionCosts


class Planes(Segmenter):
    """Costs of the classes in ``y``: ``scale`` times the channels from ``first`` on, over 255."""

    _parameter_constraints = {"first": [Interval(Integral, 0, None, closed="left")]}  # noqa: RUF012

    def __init__(self, first=0, *, scale=8.0, classes=None, ignore_label=None, by_rows=False):
        self.first = first
        self.scale = scale
        self.classes = classes
        self.ignore_label = ignore_label
        self.by_rows = by_rows

    intensity_range = "dtype"

    def _learn(self, training):
        self.n_images_ = len(training)

    def _costs(self, scene):
        n_labels = len(self.classes_)
        costs = self.scale / 255 * scene.colors[..., self.first : self.first + n_labels]
        if not self.by_rows:
            return costs
        height, width = costs.shape[:2]
        rows = np.repeat(np.arange(height, dtype=np.int32)[:, np.newaxis], width, axis=1)
        return RegionCosts(rows, costs[:, 0])


def planes_problem(rng, n_images=4, shape=(12, 14), n_labels=3, strengths=(3.0, 1.0), values=None):
    """Images of cost planes, one set for each strength, and label maps that fit them.

    The costs of the true label are lower by the strength than costs of pure noise.
    """
    images, labels = [], []
    for _ in range(n_images):
        truth = rng.integers(0, n_labels, shape)
        planes = []
        for strength in strengths:
            costs = rng.normal(4, 1, (*shape, n_labels))
            np.put_along_axis(
                costs,
                truth[..., None],
                np.take_along_axis(costs, truth[..., None], -1) - strength,
                -1,
            )
            planes.append(costs)
        images.append(np.clip(np.concatenate(planes, axis=-1) / 8, 0, 1).astype(np.float32))
        labels.append(truth if values is None else np.asarray(values)[truth])
    return images, labels
