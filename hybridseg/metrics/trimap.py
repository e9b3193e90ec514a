"""Trimap curves: scores of the pixels in narrow bands along the true boundaries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import maximum_filter1d, minimum_filter1d

from hybridseg.metrics.table import confusion_table, label_map_pairs
from hybridseg.validation import check_number

Maps = ArrayLike | Sequence[ArrayLike]


def trimap_iou(
    truth: Maps,
    prediction: Maps,
    widths: Sequence[int] = (1, 2, 4, 8),
    *,
    labels: Sequence[int] | None = None,
    ignore_label: int | None = None,
) -> NDArray[np.float64]:
    """Mean IoU of the pixels near the true boundaries, for bands of several widths.

    The band of width w holds the pixels from which another label of the truth lies at most w pixels
    away along every axis [1]_. A curve of these scores shows whether a method is wrong at the
    boundaries or elsewhere: a refiner should raise its left end [2]_.

    Parameters
    ----------
    truth, prediction : array-like of int, (*spatial,), or a sequence of them
        Label maps of any rank, as in :func:`confusion_table`.
    widths : sequence of int, default=(1, 2, 4, 8)
        In pixels, at least 1.
    labels : sequence of int, optional
        The classes to score. None: all classes in truth or prediction, in each band.
    ignore_label : int, optional
        One more value that means void, such as 255.

    Returns
    -------
    ndarray of float64, (len(widths),)
        In [0, 1]; NaN for a band without pixels.

    Raises
    ------
    TypeError, ValueError
        As in :func:`confusion_table`; or a width is not a positive integer.

    Notes
    -----
    Void pixels belong to no band, and their neighbors are not in a band because of them. The edge
    of the image is no boundary.

    References
    ----------
    .. [1] P. Kohli, L. Ladicky, P. H. S. Torr, "Robust higher order potentials for enforcing label
       consistency", International Journal of Computer Vision 82, 2009, section 6.
    .. [2] P. Krähenbühl, V. Koltun, "Efficient inference in fully connected CRFs with Gaussian
       edge potentials", NIPS, 2011, figure 4.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.metrics import trimap_iou
    >>> truth = np.zeros((40, 60), dtype=int)
    >>> truth[:, 30:] = 1
    >>> trimap_iou(truth, np.roll(truth, 1, axis=1), widths=(1, 4)).round(2)
    array([0.25, 0.78])
    """
    for place, width in enumerate(widths):
        check_number(width, f"widths[{place}]", minimum=1, integer=True)
    truths: list[list[NDArray[np.int64]]] = [[] for _ in widths]
    found = []
    for _, true, predicted in label_map_pairs(truth, prediction, ignore_label):
        found.append(predicted)
        for bands, width in zip(truths, widths, strict=True):
            bands.append(np.where(near_boundary(true, int(width)), true, -1))
    scores = [_mean_iou(bands, found, labels) for bands in truths]
    return np.array(scores, np.float64)


def near_boundary(labels: NDArray[np.int64], width: int) -> NDArray[np.bool_]:
    """Return the known pixels with another known label within ``width`` along every axis."""
    known = labels >= 0
    numbers = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
    least = np.where(known, numbers, numbers.max(initial=0) + 1)
    greatest = np.where(known, numbers, -1)
    for axis in range(labels.ndim):
        least = minimum_filter1d(least, 2 * width + 1, axis=axis, mode="nearest")
        greatest = maximum_filter1d(greatest, 2 * width + 1, axis=axis, mode="nearest")
    return known & ((least < numbers) | (greatest > numbers))


def _mean_iou(
    truths: list[NDArray[np.int64]],
    found: list[NDArray[np.int64]],
    labels: Sequence[int] | None,
) -> float:
    if not any((truth >= 0).any() for truth in truths):
        return float("nan")
    return float(confusion_table(truths, found, labels=labels).mean_iou())
