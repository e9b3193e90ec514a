"""Scores of what happens near the outlines."""

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

#: The filters compute in float64, which tells greater integers apart no more.
_EXACT = 2**52


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

    The band of a class is the part of it that lies within d pixels of another label or of the
    image's edge, that is, what d erosions with a 3 x 3 square take away. With G, P the masks of a
    class and G_d, P_d their bands,

        Boundary IoU = |(G_d & G) & (P_d & P)| / |(G_d & G) | (P_d & P)|.

    Areas are summed over the sequence before dividing. Where :func:`mean_iou` hardly sees a blurred
    outline of a large object, this score does; with a large ``width`` it becomes mean IoU.

    Parameters
    ----------
    truth, prediction : array-like of int, (*spatial,), or a sequence of them
        Label maps of any rank, as in :func:`confusion_table`.
    dilation_ratio : float
        Band width d as a share of the image's diagonal, ``d = max(1, round(ratio * diagonal))``.
        0.02 is the paper's value for photographs; Cityscapes uses 0.005, for large images with
        fine labels. Take the width that your annotators can be trusted to.
    width : int, optional
        The band width d in pixels (along every axis), in place of ``dilation_ratio``.
    labels : sequence of int, optional
        The classes to score. None: every one that truth or prediction hold.
    ignore_label : int, optional
        One more value that means void, such as 255.

    Returns
    -------
    float
        In [0, 1]; classes without any band are left out; NaN where none has one.

    Raises
    ------
    TypeError, ValueError
        As in :func:`confusion_table`; or a width that is not positive.

    Notes
    -----
    The paper has no void pixels. Here a void truth pixel is unknown in both maps: it is in no
    band, it counts nowhere, and being next to it makes no boundary, so that what is predicted
    there changes nothing. A void prediction where the truth is known is a region of no class.

    References
    ----------
    B. Cheng, R. Girshick, P. Dollar, A. C. Berg, A. Kirillov, "Boundary IoU: improving
    object-centric image segmentation evaluation", CVPR 2021, equation 2 and section 4.

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
        In the order of ``labels``, or rising where it is None; NaN for a class without any band.

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
    """Take a share of the diagonal for the band's width in pixels, at least 1."""
    return max(1, round(dilation_ratio * math.sqrt(sum(side * side for side in shape))))


def boundary_band(
    labels: NDArray[np.int64], width: int, unknown: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Where another label, or the outside of the image, is within ``width`` along every axis.

    One pass does all the classes: a pixel outlives ``width`` erosions of its own class's mask iff
    the window of ``2 * width + 1`` pixels a side lies in the image and holds no other label.
    ``labels`` are at least -1; ``unknown`` pixels agree with every label.
    """
    if 2 * width >= min(labels.shape, default=0):
        return np.ones(labels.shape, dtype=bool)
    if labels.max(initial=0) > _EXACT:
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
    """Add each class's areas: in both bands, in the truth's, in the prediction's."""
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
