"""Scores of superpixels: boundary recall, undersegmentation error and achievable accuracy."""

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

#: The maximum number of cells of a dense table of pairs of labels; more pairs are sorted instead.
_MAX_DENSE_CELLS = 1 << 22


def boundary_recall(
    truth: Maps,
    prediction: Maps,
    *,
    tolerance: float = 0.0025,
    width: int | None = None,
    ignore_label: int | None = None,
) -> float:
    """Fraction of the true boundary that is close to a boundary of the prediction.

    A boundary pixel is one with another label across one of its faces. With B_G, B_S the boundary
    pixels of truth and superpixels, and r = round(tolerance * diagonal) [1]_,

        Rec = |{p in B_G : some q in B_S has |p - q| <= r along every axis}| / |B_G|.

    Ragged outlines and more superpixels raise this score. So compare methods at equal numbers of
    superpixels, and use :func:`undersegmentation_error` as well.

    Parameters
    ----------
    truth, prediction : array-like of int, (*spatial,), or a sequence of them
        Label maps of any rank. A void (negative) pixel forms no boundary with its neighbors.
    tolerance : float, default=0.0025
        r as a fraction of the image's diagonal. The default is the paper's value, which is 1 pixel
        in images of 481 x 321.
    width : int, optional
        r in pixels, in place of ``tolerance``; 0 requires a boundary at the same pixel.
    ignore_label : int, optional
        One more value that means void in the truth, such as 255.

    Returns
    -------
    float
        In [0, 1]; NaN if the truth has no boundary.

    Raises
    ------
    TypeError, ValueError
        The maps do not fit, as in :func:`confusion_table`; or a tolerance or width is negative.

    Notes
    -----
    Boundary pixels are counted over the sequence before dividing. If an image has several
    annotations, pass one (truth, prediction) pair for each. Annotations with longer boundaries
    then have more weight; for equal weights, take the mean of the scores of single pairs.

    References
    ----------
    .. [1] D. Stutz, A. Hermans, B. Leibe, "Superpixels: an evaluation of the state-of-the-art",
       CVIU 166, 2018, section 5.1 (Rec).

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
    """Fraction of the pixels by which superpixels cross the outlines of the truth.

        UE = 1/N sum_G sum_{S & G} min(|S & G|, |S - G|)

    over the segments G of the truth and the superpixels S that intersect them [1]_, [2]_. For each
    segment that a superpixel intersects, the smaller of its parts inside and outside the segment
    counts. So a few pixels across an outline cost little, unlike in earlier definitions.

    Parameters
    ----------
    truth, prediction : array-like of int, (*spatial,), or a sequence of them
        Label maps of any rank. Pixels of void truth (negative) are dropped; a pixel in no
        superpixel (negative) counts as an error.
    ignore_label : int, optional
        One more value that means void in the truth, such as 255.

    Returns
    -------
    float
        0 is best. At most 1 for a truth of two segments, and always below 2. NaN if no pixel has
        a known truth.

    Raises
    ------
    TypeError, ValueError
        The maps do not fit, as in :func:`confusion_table`.

    Notes
    -----
    Pixels are counted over the sequence before dividing.

    References
    ----------
    .. [1] P. Neubert, P. Protzel, "Superpixel benchmark and comparison", Forum Bildverarbeitung,
       2012, equation (2).
    .. [2] D. Stutz, A. Hermans, B. Leibe, "Superpixels: an evaluation of the state-of-the-art",
       CVIU 166, 2018, section 5.1 (UE_NP).

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
    """Pixel accuracy if each superpixel gets its majority label: achievable accuracy (ASA) [1]_.

        ASA = 1/N sum_S max_G |S & G|

    It is the maximum accuracy of a classifier of whole superpixels.

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
        In [0, 1], 1 is best; NaN if no pixel has a known truth.

    Raises
    ------
    TypeError, ValueError
        The maps do not fit, as in :func:`confusion_table`.

    Notes
    -----
    Pixels are counted over the sequence before dividing.

    References
    ----------
    .. [1] M.-Y. Liu, O. Tuzel, S. Ramalingam, R. Chellappa, "Entropy rate superpixel
       segmentation", CVPR, 2011, section 5.1.

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
    """Return the pixels with another label across a face; void (negative) neighbors are ignored."""
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
    """Yield pairs of maps. ``ignore_label`` applies to the truth only: 255 can be a superpixel."""
    if ignore_label is not None:
        check_number(ignore_label, "ignore_label", integer=True)
    for _, true_map, regions in label_map_pairs(truth, prediction, None):
        if ignore_label is not None:
            true_map = np.where(true_map == ignore_label, -1, true_map)
        yield true_map, regions


class _Overlaps(NamedTuple):
    """Counts of pixels of known truth, for each pair of a superpixel and a segment."""

    shared: NDArray[np.int64]  # (n,), number of pixels of each pair, at least 1
    region: NDArray[np.int64]  # (n,), superpixel 0..R-1 of each pair
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
    if n_segments * n_numbers > _MAX_DENSE_CELLS:  # labels such as 10**9: renumber first
        segments = np.unique(segments, return_inverse=True)[1]
        numbers = np.unique(numbers, return_inverse=True)[1]
        n_segments, n_numbers = int(segments.max()) + 1, int(numbers.max()) + 1
    keys = numbers * n_segments + segments
    if n_segments * n_numbers > _MAX_DENSE_CELLS:
        pairs, count = np.unique(keys, return_counts=True)
    else:
        table = np.bincount(keys)
        pairs = np.flatnonzero(table)
        count = table[pairs]
    region = pairs // max(n_segments, 1)
    sizes = np.bincount(numbers, minlength=n_numbers)
    return _Overlaps(count, region, sizes, n_void, n_pixels)
