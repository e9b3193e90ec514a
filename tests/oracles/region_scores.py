"""Scores of superpixels by sets of pixels, slow and obvious; negative labels are void."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np


def _parts(truth, regions):
    """The sets {segment: pixels} and {region: pixels}, and the pixels with known truth."""
    segments, parts, known = defaultdict(set), defaultdict(set), set()
    for pixel in np.ndindex(truth.shape):
        if truth[pixel] >= 0:
            known.add(pixel)
            segments[truth[pixel]].add(pixel)
            parts[regions[pixel] if regions[pixel] >= 0 else None].add(pixel)
    return segments, parts, known


def undersegmentation_error(truth, regions):
    segments, parts, known = _parts(truth, regions)
    leaking = len(parts.pop(None, ()))
    for segment in segments.values():
        for part in parts.values():
            if segment & part:
                leaking += min(len(segment & part), len(part - segment))
    return leaking / len(known) if known else math.nan


def achievable_accuracy(truth, regions):
    segments, parts, known = _parts(truth, regions)
    parts.pop(None, ())
    right = sum(
        max(len(part & segment) for segment in segments.values()) for part in parts.values()
    )
    return right / len(known) if known else math.nan


def boundary(labels):
    found = []
    for pixel in np.ndindex(labels.shape):
        for axis in range(labels.ndim):
            for step in (-1, 1):
                other = list(pixel)
                other[axis] += step
                if 0 <= other[axis] < labels.shape[axis]:
                    pair = labels[pixel], labels[tuple(other)]
                    if min(pair) >= 0 and pair[0] != pair[1]:
                        found.append(pixel)
    return np.array(sorted(set(found))).reshape(-1, labels.ndim)


def boundary_recall(truth, regions, width):
    wanted, offered = boundary(truth), boundary(regions)
    near = [bool((np.abs(offered - p).max(axis=1) <= width).any()) for p in wanted]
    return float(np.mean(near)) if near else math.nan
