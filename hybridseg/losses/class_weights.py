"""Class weights for losses, computed from the number of pixels of each class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.scene.sequences import read_label_source
from hybridseg.validation import as_label_map, as_numbers, check_number


@dataclass(frozen=True, eq=False)
class ClassCounts:
    """The number of pixels of each class in a set of label maps.

    The counts of two sets add up to those of their union: ``a + b``.

    Attributes
    ----------
    classes : ndarray of int64, (L,)
        The label values, sorted.
    pixels : ndarray of int64, (L,)
        The number of pixels of each class.
    pixels_around : ndarray of int64, (L,)
        The number of labeled pixels in the images that contain the class.
    images : ndarray of int64, (L,)
        The number of images that contain the class.

    Examples
    --------
    >>> from hybridseg.losses import count_classes
    >>> counts = count_classes([[[0, 0, 0, 1]]]) + count_classes([[[0, 0, 2, -1]]])
    >>> counts.classes, counts.pixels
    (array([0, 1, 2]), array([5, 1, 1]))
    >>> counts.pixels_around, counts.images
    (array([7, 4, 3]), array([2, 1, 1]))
    """

    classes: NDArray[np.int64]
    pixels: NDArray[np.int64]
    pixels_around: NDArray[np.int64]
    images: NDArray[np.int64]

    def __add__(self, other: Any) -> ClassCounts:
        if not isinstance(other, ClassCounts):
            return NotImplemented
        classes = np.union1d(self.classes, other.classes)
        sums = [np.zeros(len(classes), dtype=np.int64) for _ in range(3)]
        for part in (self, other):
            place = np.searchsorted(classes, part.classes)
            for total, found in zip(
                sums, (part.pixels, part.pixels_around, part.images), strict=True
            ):
                total[place] += found
        return ClassCounts(classes, *sums)


def count_classes(
    y: Iterable[Any], classes: ArrayLike | None = None, *, ignore_label: int | None = None
) -> ClassCounts:
    """Count the pixels of each class.

    Parameters
    ----------
    y : iterable of label maps (or paths)
        Integers ``(H, W)`` or ``(D, H, W)``; negative is void. One map is read at a time.
    classes : array-like of int, (L,), optional
        The label values to count, in the order of their class indices: ``classes_`` of an
        estimator, or ``range(L)`` if label values are class indices. Default: the values that
        occur.
    ignore_label : int, optional
        One more value that means void, such as 255.

    Returns
    -------
    ClassCounts

    Raises
    ------
    TypeError
        ``y`` is not a sequence of integer label maps.
    ValueError
        ``y`` is a single label map; ``classes`` are not increasing label values; a map contains a
        value that is not in ``classes``; or no pixel is labeled.

    Examples
    --------
    >>> from hybridseg.losses import count_classes, median_frequency
    >>> counts = count_classes([[[0, 0, 0, 1]], [[0, 0, 0, -1]]])
    >>> counts.pixels, counts.pixels_around
    (array([6, 1]), array([7, 4]))
    >>> median_frequency(counts).round(3)
    array([0.646, 2.214], dtype=float32)
    """
    if isinstance(y, type) or not isinstance(y, Iterable):
        raise TypeError(f"y is a {type(y).__name__}; expected a sequence of label maps.")
    known = None if classes is None else _as_rising(classes)
    pixels: Counter[int] = Counter()
    around: Counter[int] = Counter()
    images: Counter[int] = Counter()
    for position, source in enumerate(y):
        labels = as_label_map(
            read_label_source(source), ignore_label=ignore_label, name=f"y[{position}]"
        )
        if labels.ndim < 2:
            raise ValueError(
                f"y[{position}] has shape {labels.shape}; expected label maps (H, W) or (D, H, W): "
                f"wrap a single map in a list."
            )
        values, counts = np.unique(labels[labels >= 0], return_counts=True)
        if known is not None and not np.isin(values, known).all():
            raise ValueError(
                f"y[{position}] holds {np.setdiff1d(values, known).tolist()}; expected only "
                f"classes={known.tolist()}: pass ignore_label= if the value means void."
            )
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            pixels[value] += count
            around[value] += int(counts.sum())
            images[value] += 1
    if not pixels:
        raise ValueError("y holds no labeled pixel; expected label maps with values >= 0.")
    order = np.array(sorted(pixels), dtype=np.int64) if known is None else known
    columns = [np.array([c[v] for v in order.tolist()]) for c in (pixels, around, images)]
    return ClassCounts(order, *columns)


def _as_rising(classes: ArrayLike) -> NDArray[np.int64]:
    values = as_numbers(classes, "classes", expected="increasing label values")
    good = values.ndim == 1 and values.size > 0 and values.dtype.kind in "ui"
    if not good or values.min() < 0 or not bool((np.diff(values.astype(np.int64)) > 0).all()):
        raise ValueError(
            f"classes={classes!r}; expected increasing label values: integers >= 0, sorted."
        )
    return values.astype(np.int64)


def inverse_frequency(counts: ClassCounts) -> NDArray[np.float32]:
    """Return weights ``n / (L n_l)``, which give every class the same total weight.

    ``n`` is the number of labeled pixels, ``n_l`` that of class l, and ``L`` the number of classes.

    Parameters
    ----------
    counts : ClassCounts

    Returns
    -------
    ndarray of float32, (L,)
        0 for a class without a pixel. If every class has pixels, the mean over pixels is 1.

    Raises
    ------
    TypeError
        ``counts`` is not a ClassCounts.

    Examples
    --------
    >>> from hybridseg.losses import count_classes, inverse_frequency
    >>> inverse_frequency(count_classes([[[0, 0, 0, 1]]])).round(3)
    array([0.667, 2.   ], dtype=float32)
    """
    _check_counts(counts)
    return _inverse(counts.pixels, counts.pixels.sum() / len(counts.pixels))


def median_frequency(counts: ClassCounts) -> NDArray[np.float32]:
    """Return the weights of median frequency balancing [1]_, which SegNet uses.

    Parameters
    ----------
    counts : ClassCounts

    Returns
    -------
    ndarray of float32, (L,)
        ``median(f) / f_l``. The frequency ``f_l`` is the number of pixels of the class divided by
        the number of labeled pixels in the images that contain it. The median is over the classes
        that occur; the weight of the others is 0.

    Raises
    ------
    TypeError
        ``counts`` is not a ClassCounts.

    References
    ----------
    .. [1] D. Eigen, R. Fergus, "Predicting Depth, Surface Normals and Semantic Labels with a
       Common Multi-Scale Convolutional Architecture", ICCV, 2015, section 6.3.2.

    Examples
    --------
    >>> from hybridseg.losses import count_classes, median_frequency
    >>> median_frequency(count_classes([[[0, 0, 0, 1]], [[0, 0, 0, 0]]])).round(3)
    array([0.643, 2.25 ], dtype=float32)
    """
    _check_counts(counts)
    frequency = counts.pixels / np.maximum(counts.pixels_around, 1)
    return _inverse(frequency, float(np.median(frequency[counts.pixels > 0])))


def log_frequency(counts: ClassCounts, c: float = 1.02) -> NDArray[np.float32]:
    """Return ENet's weights ``1 / ln(c + p_l)`` [1]_, which are bounded.

    Parameters
    ----------
    counts : ClassCounts
    c : float, default=1.02
        Above 1. The paper's 1.02 gives weights from 1.4 to 50. A larger value, such as 1.1 (weights
        from 1.3 to 10), is safer in short trainings.

    Returns
    -------
    ndarray of float32, (L,)
        The weights; ``p_l`` is the fraction of the labeled pixels that belong to the class.

    Raises
    ------
    TypeError, ValueError
        ``counts`` is not a ClassCounts, or ``c`` is not above 1.

    References
    ----------
    .. [1] A. Paszke et al., "ENet: A Deep Neural Network Architecture for Real-Time Semantic
       Segmentation", arXiv:1606.02147, 2016, section 5.2.

    Examples
    --------
    >>> from hybridseg.losses import count_classes, log_frequency
    >>> log_frequency(count_classes([[[0, 0, 0, 1]]])).round(3)
    array([1.751, 4.184], dtype=float32)
    """
    _check_counts(counts)
    check_number(c, "c", minimum=1, strict=True)
    share = counts.pixels / counts.pixels.sum()
    return np.asarray(1 / np.log(c + share), dtype=np.float32)


def effective_number(counts: ClassCounts, beta: float = 0.9999) -> NDArray[np.float32]:
    """Return class-balanced weights ``(1 - beta) / (1 - beta^n_l)`` [1]_.

    ``n_l`` is the number of pixels of class l.

    Parameters
    ----------
    counts : ClassCounts
    beta : float, default=0.9999
        In [0, 1). At 0 all classes have the same weight; towards 1 the weights approach the inverse
        frequency. Classes with many more than ``1 / (1 - beta)`` pixels have almost equal weights.

    Returns
    -------
    ndarray of float32, (L,)
        Scaled to a mean of 1 over the classes that occur; the weight of the others is 0.

    Raises
    ------
    TypeError, ValueError
        ``counts`` is not a ClassCounts, or ``beta`` is not in [0, 1).

    References
    ----------
    .. [1] Y. Cui, M. Jia, T.-Y. Lin, Y. Song, S. Belongie, "Class-Balanced Loss Based on Effective
       Number of Samples", CVPR, 2019, equation 3.

    Examples
    --------
    >>> from hybridseg.losses import count_classes, effective_number
    >>> counts = count_classes([[[0, 0, 0, 1]]])
    >>> effective_number(counts, beta=0.9).round(3)
    array([0.539, 1.461], dtype=float32)
    >>> effective_number(counts, beta=0.9999).round(3)
    array([0.5, 1.5], dtype=float32)
    """
    _check_counts(counts)
    check_number(beta, "beta", minimum=0)
    check_number(1 - beta, "1 - beta", minimum=0, strict=True)
    effective = (1 - np.float_power(beta, counts.pixels)) / (1 - beta)
    weights = _inverse(effective, 1.0)
    return np.asarray(weights / weights[weights > 0].mean(), dtype=np.float32)


def _check_counts(counts: Any) -> None:
    if not isinstance(counts, ClassCounts):
        raise TypeError(
            f"counts is a {type(counts).__name__}; expected ClassCounts: pass count_classes(y), "
            f"where y are label maps."
        )


def _inverse(values: NDArray[Any], numerator: float) -> NDArray[np.float32]:
    out = np.zeros(len(values), dtype=np.float32)
    np.divide(numerator, values, out=out, where=values > 0, casting="same_kind")
    return out
