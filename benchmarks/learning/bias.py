"""The control without neighbors: one number per label is added to the log-probabilities.

The numbers are chosen by coordinate search for the highest mean IoU on the validation images. One
pass over the pixels gives the score for all values of one number: the histogram of the margins at
which pixels change to the label.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning.choice import Choice, Setting
from benchmarks.learning.costs import Part
from benchmarks.learning.scores import mean_iou, tables_of
from hybridseg import Scene

#: The values of a number that are tried, in nats.
GRID = np.round(np.arange(-6.0, 6.0 + 1e-9, 0.05), 2)
#: Every second row and column is enough to choose eleven numbers.
STRIDE = 2
MAX_ROUNDS = 20


def biased(bias: NDArray[Any], scene: Scene) -> NDArray[np.int8]:
    """Return the label of the highest log-probability plus bias at each pixel."""
    costs: NDArray[Any] = np.asarray(scene.unary, np.float32)
    return (costs - bias).argmin(axis=-1).astype(np.int8)


def learned_bias(val: Part, setting: Setting) -> Choice:  # noqa: ARG001
    """Choose one number per label on the validation images."""
    scores, truth = _pixels(val)
    bias = best_bias(scores, truth)
    predict = partial(biased, bias)
    facts = {
        "parameters": dict(zip(val.classes, np.round(bias.astype(float), 2).tolist(), strict=True)),
        "val_mean_iou": round(100 * mean_iou(tables_of(val, predict)), 2),
    }
    return Choice(predict, facts)


def best_bias(scores: NDArray[np.float32], truth: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the numbers, (L,), that give log-probabilities (N, L) the highest mean IoU.

    Each round searches all labels in turn, until a round changes nothing.
    """
    n_labels = scores.shape[1]
    bias = np.zeros(n_labels, np.float32)
    for _ in range(MAX_ROUNDS):
        before = bias.copy()
        for label in range(n_labels):
            found = scores_of_grid(scores + bias, truth, label, float(bias[label]))
            # of equally good values, the one nearest to 0
            best = np.flatnonzero(found >= found.max() - 1e-6)
            bias[label] = GRID[best[np.abs(GRID[best]).argmin()]]
        bias -= np.median(bias)  # a common number changes no label
        if np.abs(bias - before).max() < 1e-3:
            break
    return bias


def scores_of_grid(
    scores: NDArray[np.float32], truth: NDArray[np.int64], label: int, now: float
) -> NDArray[np.float64]:
    """Return the mean IoU if the label's number, which is ``now``, takes each value of the grid."""
    n_labels = scores.shape[1]
    others = scores.copy()
    others[:, label] = -np.inf
    rival = others.argmax(axis=1)
    margin = np.take_along_axis(others, rival[:, np.newaxis], 1)[:, 0] - (scores[:, label] - now)
    place = np.searchsorted(GRID, margin)  # the label wins from GRID[place] on
    shape = len(GRID) + 1, n_labels
    cells = place * n_labels + rival
    count = [
        np.bincount(cells[kept], minlength=shape[0] * n_labels).reshape(shape).cumsum(0)[:-1]
        for kept in (slice(None), truth == rival, truth == label)
    ]
    moved, lost, won = count
    predicted = np.bincount(rival, minlength=n_labels) - moved
    predicted[:, label] = moved.sum(axis=1)
    hits = np.bincount(rival[truth == rival], minlength=n_labels) - lost
    hits[:, label] = won.sum(axis=1)
    union = np.bincount(truth, minlength=n_labels) + predicted - hits
    ratio = np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0)
    return np.nanmean(ratio, axis=1)


def _pixels(val: Part) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the log-probabilities, (N, L), and the truth, (N,), of pixels of known truth."""
    scores, truths = [], []
    for i, scene in enumerate(val.scenes):
        truth = val.truth(i)[::STRIDE, ::STRIDE]
        costs = np.asarray(scene.unary)[::STRIDE, ::STRIDE]
        scores.append(-costs[truth >= 0].astype(np.float32))
        truths.append(truth[truth >= 0].astype(np.int64))
    return np.concatenate(scores), np.concatenate(truths)
