"""Boundary IoU: intersection over union of bands along the outlines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from hybridseg.metrics.table import check_labels, check_listed, class_mean, label_map_pairs
from hybridseg.validation import check_number

Maps = ArrayLike | Sequence[ArrayLike]

#: Larger labels are renumbered before filtering, because the filters round them to float64.
_MAX_EXACT_INTEGER = 2**52


def boundary_iou(
    truth: Maps,
    prediction: Maps,
    *,
    dilation_ratio: float = 0.02,
    width: int | None = None,
    labels: Sequence[int] | None = None,
    ignore_label: int | None = None,
) -> float:
    """Mean over the classes of the intersection over union of their inner boundary bands.

    The band of a class holds its pixels within d pixels of another label or of the image's edge,
    which are the pixels that d erosions with a 3 x 3 square remove. With G, P the masks of a class
    and G_d, P_d the pixels within d pixels of their contours [1]_,

        Boundary IoU = |(G_d & G) & (P_d & P)| / |(G_d & G) | (P_d & P)|.

    Areas are summed over the sequence before dividing. An imprecise outline of a large object
    hardly lowers :func:`mean_iou`, but it lowers this score. With a large ``width`` the score
    equals mean IoU.

    Parameters
    ----------
    truth, prediction : array-like of int, (*spatial,), or a sequence of them
        Label maps of any rank, as in :func:`confusion_table`.
    dilation_ratio : float, default=0.02
        Band width d as a fraction of the image's diagonal, ``d = max(1, round(ratio * diagonal))``.
        0.02 is the paper's value for photographs; Cityscapes uses 0.005, for large images with
        fine labels. The band should be at least as wide as the errors of the annotators.
    width : int, optional
        The band width d in pixels (along every axis), in place of ``dilation_ratio``.
    labels : sequence of int, optional
        The classes to score. None: all classes in truth or prediction.
    ignore_label : int, optional
        One more value that means void, such as 255.

    Returns
    -------
    float
        In [0, 1]. Classes without a band are left out; NaN if no class has a band.

    Raises
    ------
    TypeError, ValueError
        As in :func:`confusion_table`; or the width is not positive.

    Notes
    -----
    The paper has no void pixels. Here a pixel with void truth is void in both maps: it belongs to
    no band and no area, and its neighbors do not become boundary pixels because of it. So its
    prediction has no effect. A void prediction where the truth is known belongs to no class.

    References
    ----------
    .. [1] B. Cheng, R. Girshick, P. Dollar, A. C. Berg, A. Kirillov, "Boundary IoU: improving
       object-centric image segmentation evaluation", CVPR, 2021, equation 2 and section 4.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.metrics import boundary_iou, mean_iou
    >>> truth = np.zeros((40, 60), dtype=int)
    >>> truth[10:30, 20:50] = 1
    >>> shifted = np.roll(truth, 1, axis=1)
    >>> round(mean_iou(truth, shifted), 3), round(boundary_iou(truth, shifted, width=1), 3)
    (0.957, 0.594)
    """
    scores = boundary_iou_per_class(
        truth,
        prediction,
        dilation_ratio=dilation_ratio,
        width=width,
        labels=labels,
        ignore_label=ignore_label,
    )
    return class_mean(scores)


def boundary_iou_per_class(
    truth: Maps,
    prediction: Maps,
    *,
    dilation_ratio: float = 0.02,
    width: int | None = None,
    labels: Sequence[int] | None = None,
    ignore_label: int | None = None,
) -> NDArray[np.float64]:
    """Boundary IoU of each class; :func:`boundary_iou` is the mean of these.

    Parameters
    ----------
    truth, prediction, dilation_ratio, width, labels, ignore_label
        As in :func:`boundary_iou`.

    Returns
    -------
    ndarray of float64, (L,)
        In the order of ``labels``, or ascending if it is None; NaN for a class without a band.

    Raises
    ------
    TypeError, ValueError
        As in :func:`boundary_iou`.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.metrics import boundary_iou_per_class
    >>> truth, prediction = np.array([0, 0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 1, 1])
    >>> boundary_iou_per_class(truth, prediction, width=1, labels=[0, 1, 2]).round(3).tolist()
    [0.333, 0.333, nan]
    """
    check_number(dilation_ratio, "dilation_ratio", minimum=0.0, strict=True)
    if width is not None:
        check_number(width, "width", minimum=1, integer=True)
    listed = check_labels(labels, ignore_label)
    sums: dict[int, NDArray[np.int64]] = {}
    for name, true_map, predicted_map in label_map_pairs(truth, prediction, ignore_label):
        if listed is not None:
            check_listed(np.unique(true_map[true_map >= 0]), listed, name)
        distance = width or band_width(true_map.shape, dilation_ratio)
        _add_areas(sums, true_map, predicted_map, distance)
    order = sorted(sums) if listed is None else listed.tolist()
    return np.array([_ratio(sums.get(label)) for label in order], dtype=np.float64)


def band_width(shape: tuple[int, ...], dilation_ratio: float) -> int:
    """Return the width of the band in pixels, at least 1, from a fraction of the diagonal."""
    return max(1, round(dilation_ratio * math.sqrt(sum(side * side for side in shape))))


def boundary_band(
    labels: NDArray[np.int64], width: int, unknown: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return the pixels with another label or the image's edge within ``width`` along every axis.

    One pass handles all classes: a pixel remains after ``width`` erosions of its class's mask if
    and only if the window of ``2 * width + 1`` pixels per side lies in the image and holds no
    other label. ``labels`` are at least -1; ``unknown`` pixels equal every label.
    """
    if 2 * width >= min(labels.shape, default=0):
        return np.ones(labels.shape, dtype=bool)
    if labels.max(initial=0) > _MAX_EXACT_INTEGER:
        labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    least = np.where(unknown, labels.max(initial=0) + 1, labels)
    greatest = np.where(unknown, -1, labels)
    for axis in range(labels.ndim):
        least = minimum_filter1d(least, 2 * width + 1, axis=axis)
        greatest = maximum_filter1d(greatest, 2 * width + 1, axis=axis)
    inner = tuple(slice(width, side - width) for side in labels.shape)
    band = np.ones(labels.shape, dtype=bool)
    band[inner] = (least[inner] < labels[inner]) | (greatest[inner] > labels[inner])
    return band


def _add_areas(
    sums: dict[int, NDArray[np.int64]],
    truth: NDArray[np.int64],
    prediction: NDArray[np.int64],
    width: int,
) -> None:
    """Add the areas of each class: in both bands, in the truth's band, in the prediction's band."""
    void = truth < 0
    truth = np.where(void, 0, truth)
    true_band = boundary_band(truth, width, void) & ~void
    predicted_band = boundary_band(np.where(void, 0, prediction), width, void) & ~void
    both = true_band & predicted_band & (truth == prediction)
    predicted_band &= prediction >= 0
    areas = (truth[both], truth[true_band], prediction[predicted_band])
    for place, values in enumerate(areas):
        for label, n_pixels in zip(*np.unique(values, return_counts=True), strict=True):
            sums.setdefault(int(label), np.zeros(3, np.int64))[place] += n_pixels


def _ratio(areas: Any) -> float:
    if areas is None:
        return float("nan")
    both, in_truth, in_prediction = (int(area) for area in areas)
    return both / (in_truth + in_prediction - both)
