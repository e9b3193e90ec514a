"""Scores of overlap, such as IoU and Dice, from one confusion table of the whole sequence."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.metrics.table import (
    ABSENT,
    ConfusionTable,
    check_labels,
    check_weights,
    confusion_table,
    image_tables,
)
from hybridseg.validation import check_option

Maps = ArrayLike | Sequence[ArrayLike]


def pixel_accuracy(
    truth: Maps,
    prediction: Maps,
    *,
    ignore_label: int | None = None,
    sample_weight: ArrayLike | None = None,
) -> float:
    """Fraction of the pixels of known truth that have the correct label.

    A class that covers most of an image dominates this score; use :func:`mean_iou` as well.

    Parameters
    ----------
    truth, prediction : array-like of int, (*spatial,), or a sequence of them
        As in :func:`confusion_table`: void truth is dropped, void predictions are wrong.
    ignore_label : int, optional
        One more value that means void, such as 255.
    sample_weight : array-like, (n_maps,), optional
        The weight of each map's pixels.

    Returns
    -------
    float
        In [0, 1]; NaN if no pixel has a known truth.

    Raises
    ------
    TypeError, ValueError
        As in :func:`confusion_table`.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.metrics import pixel_accuracy
    >>> pixel_accuracy(np.array([[0, 1, 1, 2, -1]]), np.array([[0, 0, 1, 2, 1]]))
    0.75
    """
    table = confusion_table(
        truth, prediction, ignore_label=ignore_label, sample_weight=sample_weight
    )
    return table.pixel_accuracy


def iou_per_class(
    truth: Maps,
    prediction: Maps,
    *,
    labels: Sequence[int] | None = None,
    ignore_label: int | None = None,
) -> NDArray[np.float64]:
    """Intersection over union (Jaccard index) of each class [1]_: TP / (TP + FP + FN).

    Parameters
    ----------
    truth, prediction : array-like of int, (*spatial,), or a sequence of them
        As in :func:`confusion_table`; the areas are summed over the sequence before dividing.
    labels : sequence of int, optional
        The classes to score, in this order. None: all classes in truth or prediction, in
        ascending order (``confusion_table(...).labels`` lists them).
    ignore_label : int, optional
        One more value that means void, such as 255.

    Returns
    -------
    ndarray of float64, (L,)
        NaN for a listed class that is in neither truth nor prediction.

    Raises
    ------
    TypeError, ValueError
        As in :func:`confusion_table`.

    References
    ----------
    .. [1] M. Everingham et al., "The Pascal Visual Object Classes challenge: a retrospective",
       IJCV 111, 2015, section 4.1.3.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.metrics import iou_per_class
    >>> truth, prediction = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]])
    >>> iou_per_class(truth, prediction, labels=[0, 1, 2]).round(3).tolist()
    [0.5, 0.667, nan]
    """
    return confusion_table(truth, prediction, labels=labels, ignore_label=ignore_label).iou


def mean_iou(
    truth: Maps,
    prediction: Maps,
    *,
    labels: Sequence[int] | None = None,
    ignore_label: int | None = None,
    absent: str = "exclude",
    average: str = "global",
    sample_weight: ArrayLike | None = None,
) -> float:
    """Mean over the classes of intersection over union.

    The default is the convention of PASCAL VOC and Cityscapes [1]_: areas are summed over all
    images, void truth is dropped, and a class that does not occur is left out. Scores by other
    conventions can differ by tenths on the same maps, so report the convention with the score. The
    parameters ``absent`` and ``average`` select the other usual conventions.

    Parameters
    ----------
    truth, prediction : array-like of int, (*spatial,), or a sequence of them
        As in :func:`confusion_table`.
    labels : sequence of int, optional
        All the classes. ``absent="zero"`` and ``"one"`` need this list to find classes that do not
        occur. None: all classes in truth or prediction.
    ignore_label : int, optional
        One more value that means void, such as 255.
    absent : {"exclude", "zero", "one"}, default="exclude"
        A class that is in neither truth nor prediction is left out of the mean, or scores 0 or 1.
        Use the last two only to compare with published numbers of that convention.
    average : {"global", "image"}, default="global"
        ``"global"``: the mean over classes of one table of all images. ``"image"``: the mean over
        images of each image's mean over classes; images without a score are left out. With
        ``"image"``, objects of different size in different images have the same weight.
    sample_weight : array-like, (n_maps,), optional
        The weight of each map's pixels (``"global"``) or score (``"image"``).

    Returns
    -------
    float
        In [0, 1]; NaN if no class can be scored.

    Raises
    ------
    TypeError, ValueError
        As in :func:`confusion_table`; or an unknown ``absent`` or ``average``.

    References
    ----------
    .. [1] M. Cordts et al., "The Cityscapes dataset for semantic urban scene understanding", CVPR,
       2016, section 4.1.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.metrics import mean_iou
    >>> truth, prediction = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]])
    >>> round(mean_iou(truth, prediction), 3)
    0.583
    >>> round(mean_iou(truth, prediction, labels=[0, 1, 2], absent="zero"), 3)
    0.389
    """
    check_option(absent, "absent", ABSENT)
    tables, weights = _scored_tables(
        truth, prediction, labels, ignore_label, average, sample_weight
    )
    return _weighted_mean([table.mean_iou(absent) for table in tables], weights)


def mean_dice(
    truth: Maps,
    prediction: Maps,
    *,
    labels: Sequence[int] | None = None,
    ignore_label: int | None = None,
    absent: str = "exclude",
    average: str = "global",
    sample_weight: ArrayLike | None = None,
) -> float:
    """Mean over the classes of the Dice coefficient (F1) [1]_: 2 TP / (2 TP + FP + FN).

    For one class, Dice = 2 IoU / (1 + IoU). This does not hold for means over classes.

    Parameters
    ----------
    truth, prediction, labels, ignore_label, absent, average, sample_weight
        As in :func:`mean_iou`.

    Returns
    -------
    float
        In [0, 1]; NaN if no class can be scored.

    Raises
    ------
    TypeError, ValueError
        As in :func:`mean_iou`.

    References
    ----------
    .. [1] L. R. Dice, "Measures of the amount of ecologic association between species", Ecology
       26, 1945.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.metrics import mean_dice
    >>> round(mean_dice(np.array([[0, 0, 1, 1]]), np.array([[0, 1, 1, 1]])), 3)
    0.733
    """
    check_option(absent, "absent", ABSENT)
    tables, weights = _scored_tables(
        truth, prediction, labels, ignore_label, average, sample_weight
    )
    return _weighted_mean([table.mean_dice(absent) for table in tables], weights)


def _scored_tables(
    truth: Maps,
    prediction: Maps,
    labels: Sequence[int] | None,
    ignore_label: int | None,
    average: str,
    sample_weight: ArrayLike | None,
) -> tuple[list[ConfusionTable], NDArray[np.float64]]:
    """Return the tables that get one score each (all images, or each image) and their weights."""
    check_option(average, "average", ("global", "image"))
    if average == "global":
        table = confusion_table(
            truth,
            prediction,
            labels=labels,
            ignore_label=ignore_label,
            sample_weight=sample_weight,
        )
        return [table], np.ones(1)
    tables = list(image_tables(truth, prediction, labels=labels, ignore_label=ignore_label))
    weights = np.ones(len(tables))
    if sample_weight is not None:
        weights = check_weights(sample_weight, len(tables))
    listed = check_labels(labels, ignore_label)
    if listed is None:
        listed = reduce(np.union1d, [table.labels for table in tables])
    return [table.over(listed) for table in tables], weights


def _weighted_mean(scores: list[float], weights: NDArray[np.float64]) -> float:
    """Return the weighted mean of the scores that are not NaN; NaN if there are none."""
    weights = np.where(np.isnan(scores), 0.0, weights)
    if weights.sum() == 0:
        return float("nan")
    return float(np.average(np.nan_to_num(scores), weights=weights))
