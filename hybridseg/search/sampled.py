"""The pixels of an image that a search scores, and the predictions of a segmenter for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.base import Scene
from hybridseg.unary.pixels import PixelClassifier, feature_parts, free_cores, row_costs

#: The most pixels of an image that are scored.
MAX_PIXELS = 1 << 15


def sampled_places(labels: NDArray[Any], seed: int) -> tuple[NDArray[np.intp], float]:
    """Return the flat positions of labeled pixels to score, and how many each stands for.

    All of them are scored if there are at most 32768, else as many are drawn.
    """
    places = np.flatnonzero(labels.ravel() >= 0)
    if len(places) <= MAX_PIXELS:
        return places, 1.0
    generator = np.random.default_rng(seed)
    drawn = generator.choice(len(places), MAX_PIXELS, replace=False, shuffle=False)
    return places[np.sort(drawn)], len(places) / MAX_PIXELS


def predicted_at(model: Any, scene: Scene, places: NDArray[np.intp]) -> NDArray[Any]:
    """Return the label values of pixels by their flat positions.

    A classifier of pixels is asked for these pixels only, which is much quicker than a prediction
    of the whole image. ``scene`` is what ``model`` made of an image.
    """
    if type(model) is not PixelClassifier:
        return np.asarray(scene.prediction.ravel()[places])
    row_of = np.full(scene.shape, -1)
    row_of.flat[places] = np.arange(len(places))
    found = np.zeros(len(places), np.intp)
    n_jobs = free_cores() if model.classifier is None else None
    for box, features in feature_parts(model.features_, scene, row_of >= 0):
        inside = row_of[box] >= 0
        rows = np.ascontiguousarray(features[inside])
        costs = row_costs(model.classifier_, rows, len(model.classes_), n_jobs)
        found[row_of[box][inside]] = costs.argmin(axis=1)
    return model.classes_[found]
