"""Scores of superpixels: whether their outlines hold those of the truth, and how much leaks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import maximum_filter1d

from hybridseg.metrics.table import label_map_pairs
from hybridseg.validation import check_number

Maps = ArrayLike | Sequence[ArrayLike]

#: Cells of a table of all pairs of labels that may be empty; beyond, pairs are sorted.
_DENSE = 1 << 22


def boundary_recall(
    truth: Maps,
    prediction: Maps,
    *,
    tolerance: float = 0.0025,
    width: int | None = None,
    ignore_label: int | None = None,
) -> float:
    """Share of the true boundary that has a boundary of the prediction close by.

    A boundary pixel is one with another label across one of its faces. With B_G, B_S the boundary
    pixels of truth and superpixels, and r = round(tolerance * diagonal),

        Rec = |{p in B_G : some q in B_S has |p - q| <= r along every axis}| / |B_G|.

    It rises with ragged outlines and with the number of superpixels: compare at equal numbers, and
    beside :func:`undersegmentation_error`.

    Parameters
    ----------
    truth, prediction : array-like of int, (*spatial,), or a sequence of them
        Label maps of any rank. Where a truth or a prediction is void (negative), there is no
        boundary to its neighbours.
    tolerance : float, default=0.0025
        r as a share of the image's diagonal; the paper's value, 1 pixel in pictures of 481 x 321.
    width : int, optional
        r in pixels, in place of ``tolerance``; 0 asks for boundaries at the very pixel.
    ignore_label : int, optional
        One more value that means void in the truth, such as 255.

    Returns
    -------
    float
        In [0, 1]; NaN where the truth has no boundary.

    Raises
    ------
    TypeError, ValueError
        Maps that do not fit, as in :func:`confusion_table`; a tolerance or width below zero.

    Notes
    -----
    Boundary pixels are counted over the sequence before dividing. With several annotators of one
    picture give one (truth, prediction) pair for each; where each is to weigh the same whatever
    the length of its boundary, take the mean of the single scores.

    References
    ----------
    D. Stutz, A. Hermans, B. Leibe, "Superpixels: an evaluation of the state-of-the-art", CVIU 166,
    2018, section 5.1 (Rec).

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.metrics import boundary_recall
    >>> truth = np.array([[0, 0, 0, 1, 1, 1, 1, 1]])
    >>> regions = np.array([[0, 0, 1, 1, 2, 2, 2, 2]])
    >>> boundary_recall(truth, regions, width=0), boundary_recall(1 - truth, regions, width=1)
    (1.0, 1.0)
    >>> boundary_recall(truth, np.array([[0, 1, 1, 1, 1, 1, 1, 1]]), width=0)
    0.0
    """
    check_number(tolerance, "tolerance", minimum=0.0)
    if width is not None:
        check_number(width, "width", minimum=0, integer=True)
    n_found = n_wanted = 0
    for true_map, regions in _pairs(truth, prediction, ignore_label):
        reach = round(tolerance * math.hypot(*true_map.shape)) if width is None else width
        reach = min(reach, max(true_map.shape))
        near = boundary_pixels(regions).view(np.uint8)
        for axis in range(near.ndim if reach else 0):
            near = maximum_filter1d(near, 2 * reach + 1, axis=axis, mode="constant")
        wanted = boundary_pixels(true_map)
        n_found += int(np.count_nonzero(near[wanted]))
        n_wanted += int(np.count_nonzero(wanted))
    return n_found / n_wanted if n_wanted else float("nan")


def undersegmentation_error(
    truth: Maps, prediction: Maps, *, ignore_label: int | None = None
) -> float:
    """Share of the pixels that leak: each superpixel's smaller part within or outside a segment.

        UE = 1/N sum_G sum_{S & G} min(|S & G|, |S - G|)

    over the segments G of the truth and the superpixels S. A superpixel that is cut by a segment's
    outline is charged with the smaller of its two parts, once for each segment that it meets, so
    that a few stray pixels cost little (unlike in the first definitions of this error).

    Parameters
    ----------
    truth, prediction : array-like of int, (*spatial,), or a sequence of them
        Label maps of any rank. Pixels of void truth (negative) are dropped; a pixel in no
        superpixel (negative) counts as one that leaks.
    ignore_label : int, optional
        One more value that means void in the truth, such as 255.

    Returns
    -------
    float
        0 is best; between two segments at most 1, and below 2 always. NaN where no pixel has a
        known truth.

    Raises
    ------
    TypeError, ValueError
        Maps that do not fit, as in :func:`confusion_table`.

    Notes
    -----
    Pixels are counted over the sequence before dividing.

    References
    ----------
    P. Neubert, P. Protzel, "Superpixel benchmark and comparison", Forum Bildverarbeitung, 2012,
    equation (2); D. Stutz, A. Hermans, B. Leibe, "Superpixels: an evaluation of the
    state-of-the-art", CVIU 166, 2018, section 5.1 (UE_NP).

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.metrics import undersegmentation_error
    >>> truth = np.array([[0, 0, 0, 1, 1, 1, 1, 1]])
    >>> undersegmentation_error(truth, np.array([[0, 0, 0, 0, 2, 2, 2, 2]]))
    0.25
    """
    leaking = n_pixels = 0
    for true_map, regions in _pairs(truth, prediction, ignore_label):
        table = _overlaps(true_map, regions)
        outside = table.region_sizes[table.region] - table.shared
        leaking += int(np.minimum(table.shared, outside).sum()) + table.n_void
        n_pixels += table.n_pixels
    return leaking / n_pixels if n_pixels else float("nan")


def achievable_accuracy(truth: Maps, prediction: Maps, *, ignore_label: int | None = None) -> float:
    """Pixel accuracy when each superpixel gets the label that most of its pixels have (ASA).

        ASA = 1/N sum_S max_G |S & G|

    It is the best that any classifier of whole superpixels can reach.

    Parameters
    ----------
    truth, prediction : array-like of int, (*spatial,), or a sequence of them
        Label maps of any rank. Pixels of void truth (negative) are dropped; a pixel in no
        superpixel (negative) counts as wrong.
    ignore_label : int, optional
        One more value that means void in the truth, such as 255.

    Returns
    -------
    float
        In [0, 1], 1 is best; NaN where no pixel has a known truth.

    Raises
    ------
    TypeError, ValueError
        Maps that do not fit, as in :func:`confusion_table`.

    Notes
    -----
    Pixels are counted over the sequence before dividing.

    References
    ----------
    M.-Y. Liu, O. Tuzel, S. Ramalingam, R. Chellappa, "Entropy rate superpixel segmentation",
    CVPR 2011, section 5.1.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.metrics import achievable_accuracy
    >>> truth = np.array([[0, 0, 0, 1, 1, 1, 1, 1]])
    >>> achievable_accuracy(truth, np.array([[0, 0, 0, 0, 2, 2, 2, 2]]))
    0.875
    """
    right = n_pixels = 0
    for true_map, regions in _pairs(truth, prediction, ignore_label):
        table = _overlaps(true_map, regions)
        most = np.zeros(len(table.region_sizes), np.int64)
        np.maximum.at(most, table.region, table.shared)
        right += int(most.sum())
        n_pixels += table.n_pixels
    return right / n_pixels if n_pixels else float("nan")


def boundary_pixels(labels: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a pixel has another label across a face; next to void (negative) is no boundary."""
    found = np.zeros(labels.shape, dtype=bool)
    for axis in range(labels.ndim):
        along, marks = np.moveaxis(labels, axis, 0), np.moveaxis(found, axis, 0)
        differ = (along[1:] != along[:-1]) & (along[1:] >= 0) & (along[:-1] >= 0)
        marks[1:] |= differ
        marks[:-1] |= differ
    return found


def _pairs(
    truth: Maps, prediction: Maps, ignore_label: int | None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pairs of maps. Only the truth has an ignored value: superpixel 255 is one like any other."""
    if ignore_label is not None:
        check_number(ignore_label, "ignore_label", integer=True)
    for _, true_map, regions in label_map_pairs(truth, prediction, None):
        if ignore_label is not None:
            true_map = np.where(true_map == ignore_label, -1, true_map)
        yield true_map, regions


class _Overlaps(NamedTuple):
    """Pixels of known truth, by pairs of superpixel and segment that share any."""

    shared: NDArray[np.int64]  # (n,), of each pair
    region: NDArray[np.int64]  # (n,), superpixel of each pair, 0..R-1
    region_sizes: NDArray[np.int64]  # (R,)
    n_void: int  # pixels in no superpixel
    n_pixels: int


def _overlaps(truth: NDArray[np.int64], regions: NDArray[np.int64]) -> _Overlaps:
    known = truth >= 0
    segments, numbers = truth[known], regions[known]
    inside = numbers >= 0
    n_pixels, n_void = len(numbers), int(np.count_nonzero(~inside))
    if n_void:
        segments, numbers = segments[inside], numbers[inside]
    n_segments = int(segments.max(initial=-1)) + 1
    n_numbers = int(numbers.max(initial=-1)) + 1
    if n_segments * n_numbers > _DENSE:  # labels such as 10**9: count from 0 first
        segments = np.unique(segments, return_inverse=True)[1]
        numbers = np.unique(numbers, return_inverse=True)[1]
        n_segments, n_numbers = int(segments.max()) + 1, int(numbers.max()) + 1
    keys = numbers * n_segments + segments
    if n_segments * n_numbers > _DENSE:
        pairs, count = np.unique(keys, return_counts=True)
    else:
        table = np.bincount(keys)
        pairs = np.flatnonzero(table)
        count = table[pairs]
    region = pairs // max(n_segments, 1)
    sizes = np.bincount(numbers, minlength=n_numbers)
    return _Overlaps(count, region, sizes, n_void, n_pixels)
