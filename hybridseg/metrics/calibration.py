"""Calibration: whether a predicted probability equals the frequency of correct predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.metrics.table import is_sequence
from hybridseg.validation import as_label_map, as_numbers, check_number, check_proba


def expected_calibration_error(
    truth: Any,
    proba: Any,
    *,
    classes: ArrayLike | None = None,
    n_bins: int = 15,
    ignore_label: int | None = None,
) -> float:
    """Mean absolute difference between confidence and accuracy, over bins of confidence.

    Parameters
    ----------
    truth : array-like of int (*spatial,), or a sequence of them
        Label maps; negative pixels, and pixels equal to ``ignore_label``, are left out.
    proba : array-like of float (*spatial, L), or a sequence of them
        Each pixel's probabilities, such as the result of ``predict_proba``.
    classes : array-like of int, (L,), optional
        The label value of each entry of the last axis, such as ``model.classes_``. Default:
        0..L-1.
    n_bins : int, default=15
        Number of bins of equal width, at most a million. They divide the confidence, which is the
        highest probability of a pixel. Many bins need many pixels.
    ignore_label : int, optional
        One more value that means "ignore", such as 255.

    Returns
    -------
    float
        In [0, 1]: ``sum_b n_b / n |accuracy_b - confidence_b|`` over bins b [1]_; 0 means
        calibrated. NaN if all pixels are left out.

    Raises
    ------
    TypeError, ValueError
        Shapes or numbers of images differ, or a pixel that is not left out has values that are not
        probabilities: negative or not finite, or with a sum that differs from one by more than 2%.

    References
    ----------
    .. [1] C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks",
       ICML, 2017, equation 3.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.metrics import expected_calibration_error
    >>> truth, proba = np.array([[0, 0, 1, 1]]), np.full((1, 4, 2), [0.75, 0.25])
    >>> expected_calibration_error(truth, proba)
    0.25
    """
    check_number(n_bins, "n_bins", minimum=1, maximum=10**6, integer=True)
    if not is_sequence(truth, "truth"):
        truths, probas = [truth], [proba]
    elif isinstance(proba, str) or not (hasattr(proba, "__len__") and hasattr(proba, "__iter__")):
        raise TypeError(
            f"proba is a {type(proba).__name__}; expected a sequence with one array for each label "
            f"map of truth."
        )
    else:
        truths, probas = list(truth), list(proba)
    if len(truths) != len(probas):
        raise ValueError(
            f"truth holds {len(truths)} label maps but proba holds {len(probas)} arrays; expected "
            f"one array for each label map."
        )
    sums = np.zeros((3, n_bins))
    for position, (labels, values) in enumerate(zip(truths, probas, strict=True)):
        sums += _bins(labels, values, classes, n_bins, ignore_label, position)
    n_pixels, hits, confidence = sums
    if n_pixels.sum() == 0:
        return float("nan")
    return float(np.abs(hits - confidence).sum() / n_pixels.sum())


def _bins(
    truth: Any,
    proba: Any,
    classes: ArrayLike | None,
    n_bins: int,
    ignore_label: int | None,
    position: int,
) -> NDArray[np.float64]:
    """Return the pixels, hits and summed confidence of each bin, ``(3, n_bins)``, of one image."""
    labels = as_label_map(truth, ignore_label=ignore_label, name=f"truth[{position}]")
    values = as_numbers(proba, f"proba[{position}]", expected="probabilities (*spatial, L)")
    if values.shape[:-1] != labels.shape or values.ndim < 2:
        raise ValueError(
            f"proba[{position}] has shape {values.shape} and truth[{position}] has shape "
            f"{labels.shape}; expected (*spatial, L), one probability for each label at each pixel."
        )
    known = np.arange(values.shape[-1])
    if classes is not None:
        known = as_numbers(classes, "classes", expected="a label value for each entry of proba")
    if known.shape != values.shape[-1:] or known.size == 0:
        raise ValueError(
            f"classes={classes!r} for probabilities of {values.shape[-1]} labels; expected one "
            f"label value for each label."
        )
    counted = labels >= 0
    with np.errstate(over="ignore"):
        values, labels = values[counted].astype(np.float64), labels[counted]
    check_proba(values, f"proba[{position}]", where=", where truth is known")
    confidence = values.max(axis=-1, initial=0)
    hits = known[values.argmax(axis=-1)] == labels
    # bin b holds the confidences in (b / n, (b + 1) / n]
    bins = np.clip(np.ceil(confidence * n_bins).astype(np.intp) - 1, 0, n_bins - 1)
    weights = (np.ones(len(bins)), hits.astype(np.float64), confidence)
    return np.array([np.bincount(bins, weights=each, minlength=n_bins) for each in weights])
