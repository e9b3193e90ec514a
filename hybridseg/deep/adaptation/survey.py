"""The confidence of a segmenter on unlabeled images, and how an adaptation changes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from hybridseg.base import ImageList
from hybridseg.deep.adaptation.adapted import Trained
from hybridseg.deep.prediction.uncertainty import entropy_of
from hybridseg.validation import as_mask

#: The lowest probability of a label that counts as confident.
_MIN_CONFIDENT = 0.9


def survey(segmenter: Trained, scenes: ImageList) -> dict[str, Any]:
    """Measure the confidence of a segmenter's predictions, and the frequencies of the classes.

    Returns
    -------
    dict
        "mean_entropy" and "information" in nats, "confident", "class_share" and "class_confident"
        as fractions; see :class:`hybridseg.DomainAdapter`.

    Raises
    ------
    ValueError
        No image has a valid pixel.
    """
    n_classes = len(segmenter.classes_)
    total, uncertain = np.zeros(n_classes), 0.0
    counts = np.zeros((2, n_classes), dtype=np.int64)
    for scene in segmenter.transform(scenes):
        proba = scene.proba.reshape(-1, n_classes)
        if scene.valid is not None:
            proba = proba[as_mask(scene.valid, scene.shape).ravel()]
        total += proba.sum(axis=0, dtype=np.float64)
        uncertain += entropy_of(proba).sum(dtype=np.float64)
        found, sure = proba.argmax(axis=-1), proba.max(axis=-1, initial=0.0) >= _MIN_CONFIDENT
        counts += [np.bincount(part, minlength=n_classes) for part in (found, found[sure])]
    n_pixels = int(counts[0].sum())
    if n_pixels == 0:
        raise ValueError(
            "X holds no valid pixel; expected images with valid pixels: check the valid masks of "
            "the Scenes."
        )
    with np.errstate(invalid="ignore"):
        confident = counts[1] / counts[0]
    mean_entropy = float(uncertain / n_pixels)
    return {
        "mean_entropy": mean_entropy,
        "information": float(entropy_of(total / n_pixels)) - mean_entropy,
        "confident": float(counts[1].sum() / n_pixels),
        "class_share": (counts[0] / n_pixels).tolist(),
        "class_confident": confident.tolist(),
    }


def is_surer(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether the predictions are more confident than before, or much more informative."""
    surer = after["mean_entropy"] < before["mean_entropy"]
    # A network that predicts a single class everywhere has a low entropy, but no information.
    return bool(surer or after["information"] > 1.5 * before["information"])


def has_collapsed(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether the information has fallen to less than half, or is NaN."""
    return not after["information"] >= before["information"] / 2
