"""Scores by walking over pixels one at a time, with dictionaries and sets; slow and obvious."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np


def confusion_table(truths, predictions, ignore_label=None):
    """Pixels {(true label, predicted label or None): number}, without those of void truth."""
    pairs = Counter()
    for truth, prediction in zip(truths, predictions, strict=True):
        for pixel in np.ndindex(truth.shape):
            true, predicted = int(truth[pixel]), int(prediction[pixel])
            if true < 0 or true == ignore_label:
                continue
            if predicted < 0 or predicted == ignore_label:
                predicted = None
            pairs[true, predicted] += 1
    return pairs


def iou_per_class(truths, predictions, ignore_label=None):
    """The scores {label: TP / (TP + FP + FN)} of all labels in truth or prediction."""
    pairs = confusion_table(truths, predictions, ignore_label)
    scores = {}
    for label in {label for pair in pairs for label in pair if label is not None}:
        hits = pairs[label, label]
        union = sum(n for pair, n in pairs.items() if label in pair)
        scores[label] = hits / union
    return scores


def boundary_band(mask, unknown, width):
    """The pixels of a mask within ``width`` of the border or of a known pixel off the mask."""
    band = set()
    reach = range(-width, width + 1)
    for pixel in np.ndindex(mask.shape):
        if not mask[pixel] or unknown[pixel]:
            continue
        for step in itertools.product(reach, repeat=mask.ndim):
            other = tuple(np.add(pixel, step))
            inside = all(0 <= place < side for place, side in zip(other, mask.shape, strict=True))
            if not inside or not (mask[other] or unknown[other]):
                band.add(pixel)
                break
    return band


def boundary_iou_per_class(truths, predictions, ratio, ignore_label=None):
    """The scores {label: |intersection| / |union|} of the bands, each summed over the images."""
    both, either = Counter(), Counter()
    for truth, prediction in zip(truths, predictions, strict=True):
        width = max(1, round(ratio * math.hypot(*truth.shape)))
        unknown = (truth < 0) | (truth == ignore_label)
        known = set(np.unique(truth[~unknown]).tolist()) | set(np.unique(prediction).tolist())
        for label in known:
            if label < 0 or label == ignore_label:
                continue
            true_band = boundary_band(truth == label, unknown, width)
            predicted_band = boundary_band(prediction == label, unknown, width)
            both[label] += len(true_band & predicted_band)
            either[label] += len(true_band | predicted_band)
    return {label: both[label] / n for label, n in either.items() if n}
