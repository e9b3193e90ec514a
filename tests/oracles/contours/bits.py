"""Slow twins of ``kernels.contours.bits``, on label maps as arrays and words as integers."""

from __future__ import annotations

import math

import numpy as np

from tests.oracles.contours import snakes


def layout(shape):
    """Words of a row, a plane, the margin and all; each row ends in an empty bit."""
    _, height, width = shape
    row = math.ceil((width + 1) / 64)
    plane = (height + 1) * row
    margin = plane + row + 1
    return row, plane, margin, shape[0] * plane + 2 * margin


def pack(labels):
    row, plane, margin, total = layout(labels.shape)
    words = [0] * total
    for z, y, x in zip(*np.nonzero(labels), strict=True):
        words[margin + z * plane + y * row + x // 64] |= 1 << int(x % 64)
    return np.array(words, np.uint64)


def unpack(words, shape):
    row, plane, margin, _ = layout(shape)
    labels = np.zeros(shape, np.uint8)
    for z, y, x in np.ndindex(*shape):
        labels[z, y, x] = int(words[margin + z * plane + y * row + x // 64]) >> x % 64 & 1
    return labels


def copy(source):
    return source.copy()


def smooth(labels, flat, passes, done):
    """Smooth after ``done`` earlier passes; every other pass begins with SI."""
    return snakes.smooth(labels, flat, passes, done % 2 == 1)[0]


def box(labels, flat, dilate):
    extreme = np.max if dilate else np.min
    reach = [offset for offset in snakes.BOX if not (flat and offset[0])]
    return extreme([snakes.shifted(labels, offset) for offset in reach], axis=0)


def frontier(labels, z, y, w):
    """The word with the pixels where the labels have a slope along an axis."""
    sloped = np.abs(snakes.slopes(labels)).sum(axis=0)[z, y, 64 * w : 64 * w + 64] > 0
    return sum(1 << k for k, found in enumerate(sloped) if found)


def count(word):
    return int(word).bit_count()


def same(a, b):
    return np.array_equal(a, b)
