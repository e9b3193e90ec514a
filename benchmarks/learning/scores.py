"""Scores of predictions, and intervals of their differences by a paired bootstrap over images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.learning.costs import Part
from hybridseg import Scene
from hybridseg.metrics import ConfusionTable, boundary_iou_per_class, confusion_table, trimap_iou

#: The band of boundary IoU, as a fraction of the diagonal: 3 pixels of 480 x 360.
BAND = 0.005
#: The widths of the bands of the trimap curve, in pixels.
WIDTHS = (1, 2, 4, 8)
N_RESAMPLES = 1000
CONFIDENCE = 0.95
#: Consecutive test images in one block: neighbors in a video resemble each other.
BLOCK = 10


def image_tables(
    pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]], n_labels: int
) -> NDArray[np.int64]:
    """Return the confusion table of each image, (n, L, L + 1), from pairs (truth, prediction).

    The columns are those of :class:`hybridseg.metrics.ConfusionTable`.
    """
    labels = range(n_labels)
    counts = [confusion_table(truth, found, labels=labels).counts for truth, found in pairs]
    return np.stack(counts)


def tables_of(part: Part, predict: Callable[[Scene], NDArray[Any]]) -> NDArray[np.int64]:
    """Return the confusion table of each image of a part; keep no label map."""
    pairs = ((part.truth(i), predict(scene)) for i, scene in enumerate(part.scenes))
    return image_tables(pairs, len(part.classes))


def iou(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the IoU of each class, (..., L), from tables (..., L, L + 1); NaN if it is absent."""
    hits = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    union = counts.sum(axis=-1) + counts[..., :-1].sum(axis=-2) - hits
    return np.divide(hits, union, out=np.full(hits.shape, np.nan), where=union > 0)


def mean_iou(counts: NDArray[Any]) -> float:
    """Return the mean IoU of all images together, over the classes that occur."""
    return float(np.nanmean(iou(counts.sum(axis=0))))


def summary(counts: NDArray[Any]) -> dict[str, Any]:
    """Return mean IoU, accuracy, mean accuracy of the classes, and IoU per class, in points."""
    total = counts.sum(axis=0)
    table = ConfusionTable(total, np.arange(len(total)))
    truth = total.sum(axis=1)
    recalls = np.diagonal(total)[truth > 0] / truth[truth > 0]
    return {
        "mean_iou": _points(table.mean_iou()),
        "pixel_accuracy": _points(table.pixel_accuracy),
        "class_accuracy": _points(recalls.mean()),
        "iou": [_points(value) for value in table.iou],
    }


def boundary_summary(
    truths: Sequence[Any], predictions: Sequence[NDArray[Any]], n_labels: int
) -> dict[str, Any]:
    """Return boundary IoU, its mean and that of each class, in points."""
    found = boundary_iou_per_class(
        list(truths), list(predictions), dilation_ratio=BAND, labels=range(n_labels)
    )
    return {
        "boundary_iou": _points(np.nanmean(found)),
        "boundary_iou_per_class": [_points(value) for value in found],
    }


def trimap_summary(
    truths: Sequence[Any], predictions: Sequence[NDArray[Any]], n_labels: int
) -> list[float]:
    """Return the mean IoU within 1, 2, 4 and 8 pixels of the true boundaries, in points."""
    found = trimap_iou(list(truths), list(predictions), WIDTHS, labels=range(n_labels))
    return [_points(value) for value in found]


def paired_bootstrap(
    first: NDArray[Any],
    second: NDArray[Any],
    *,
    n_resamples: int = N_RESAMPLES,
    block: int = 1,
    seed: int = 0,
) -> dict[str, Any]:
    """Return by how much ``second`` scores higher, with percentile intervals, in points.

    Parameters
    ----------
    first, second : ndarray, (n, L, L + 1)
        The confusion tables of two methods on the same images, in the same order.
    n_resamples : int
        Images are drawn with replacement; both methods get the same draw.
    block : int
        This many consecutive images are drawn together. The last block may have fewer.
    seed : int

    Returns
    -------
    dict
        "mean_iou" and, per class, "iou": [difference, lower end, upper end]. A resample without a
        class does not count for this class.
    """
    if first.shape != second.shape:
        raise ValueError(f"first has shape {first.shape}, second {second.shape}; expected equals.")
    weights = resample_weights(len(first), n_resamples, block, seed)
    differences = []
    for sums in (np.ones((1, len(first))), weights):
        one, other = (iou(_weighted(sums, counts)) for counts in (first, second))
        mean = np.nanmean(other, axis=-1) - np.nanmean(one, axis=-1)
        differences.append(np.column_stack([mean, other - one]))
    (exact,), drawn = differences
    tail = 50 * (1 - CONFIDENCE)
    with np.errstate(invalid="ignore"):
        ends = np.nanpercentile(drawn, [tail, 100 - tail], axis=0)
    rows = [[_points(v) for v in row] for row in np.column_stack([exact, *ends])]
    return {"mean_iou": rows[0], "iou": rows[1:]}


def resample_weights(n_images: int, n_resamples: int, block: int, seed: int) -> NDArray[np.float64]:
    """Return how often each image occurs in each resample, (n_resamples, n_images)."""
    rng = np.random.default_rng(seed)
    blocks = np.arange(n_images) // block
    n_blocks = int(blocks[-1]) + 1
    drawn = rng.integers(n_blocks, size=(n_resamples, n_blocks))
    times = np.stack([np.bincount(row, minlength=n_blocks) for row in drawn])
    return times[:, blocks].astype(np.float64)


def _weighted(weights: NDArray[np.float64], counts: NDArray[Any]) -> NDArray[np.float64]:
    """Add the tables of the images of each resample, (n_resamples, L, L + 1)."""
    flat = weights @ counts.reshape(len(counts), -1).astype(np.float64)
    return flat.reshape(len(weights), *counts.shape[1:])


def _points(value: Any) -> float:
    return round(100 * float(value), 2)
