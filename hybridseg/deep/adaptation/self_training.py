"""Self-training: a network trained further on its own surest labels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.base import ImageList
from hybridseg.validation import as_mask

#: Thresholds are read off about so many pixels of each class.
_SAMPLE = 1_000_000


def pseudo_labels(
    scenes: ImageList, refiner: Any, classes: NDArray[Any], portion: float
) -> list[NDArray[Any]]:
    """Each class's surest pixels as label maps, -1 elsewhere.

    A pixel's label is the refiner's (the network's own where there is none); how sure it is, is
    the network's cost of that label. Of the pixels of each class, counted over all pictures, the
    surest ``portion`` stay: the thresholds of class-balanced self-training [1]_, under which rare
    classes, of which networks are less sure, are not lost. (The paper's softmax by thresholds also
    gives other labels to pixels; here labels stay.)

    Parameters
    ----------
    scenes : ImageList of Scene
        With costs.
    refiner : refiner or None
    classes : ndarray of int, (L,)
    portion : float
        In (0, 1].

    Returns
    -------
    list of ndarray of int, (*spatial,)
        In the values of ``classes``.

    References
    ----------
    .. [1] Y. Zou, Z. Yu, B. V. K. Vijaya Kumar, J. Wang: Unsupervised Domain Adaptation for
       Semantic Segmentation via Class-Balanced Self-Training. ECCV 2018, section 4.1, algorithm 2.
    """
    small = np.min_scalar_type(-max(len(classes), 2))
    labels, costs = [], []
    for scene in scenes:
        found, cost = _labelled(scene, refiner, classes)
        labels.append(found.astype(small))
        costs.append(cost.astype(np.float16))  # finest near 0, where it matters
    limits = _thresholds(labels, costs, len(classes), portion)
    values = np.append(classes, -1).astype(np.min_scalar_type(-int(max(classes.max(), 2)) - 1))
    return [
        values[np.where(cost <= limits[found], found, -1)]
        for found, cost in zip(labels, costs, strict=True)
    ]


def _labelled(
    scene: Any, refiner: Any, classes: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Class indices, -1 where not valid, and what the network would have them cost."""
    unary = scene.unary
    final = scene if refiner is None else refiner.transform([scene])[0]
    prediction = final.prediction
    found = np.searchsorted(classes, prediction)
    found[prediction < 0] = -1
    if scene.valid is not None:
        found[~as_mask(scene.valid, found.shape)] = -1
    cost = np.take_along_axis(unary, np.maximum(found, 0)[..., np.newaxis], axis=-1)[..., 0]
    return found, cost


def _thresholds(
    labels: list[NDArray[Any]], costs: list[NDArray[np.float16]], n_classes: int, portion: float
) -> NDArray[np.float16]:
    """The cost (L,) up to which the surest ``portion`` of each class's pixels lie."""
    counts = np.zeros(n_classes, dtype=np.int64)
    for found in labels:
        counts += np.bincount(found[found >= 0], minlength=n_classes)
    limits = np.full(n_classes, -np.inf, dtype=np.float16)
    for index in np.flatnonzero(counts):
        every = -(-int(counts[index]) // _SAMPLE)
        known = [cost[found == index][::every] for found, cost in zip(labels, costs, strict=True)]
        limits[index] = np.quantile(np.concatenate(known), portion, method="inverted_cdf")
    return limits


def share_labelled(labels: list[NDArray[Any]]) -> float:
    """The share of all pixels that have a label."""
    return sum(int((found >= 0).sum()) for found in labels) / sum(found.size for found in labels)


def n_labelled_classes(labels: list[NDArray[Any]]) -> int:
    """How many classes some pixel has as its label."""
    present = set().union(*(np.unique(found).tolist() for found in labels))
    return len(present - {-1})
