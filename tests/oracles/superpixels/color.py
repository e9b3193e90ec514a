"""Slow twins of ``kernels.superpixels.color``, in float64."""

from __future__ import annotations

import numpy as np
from skimage.color import rgb2lab


def srgb_to_lab(colors):
    lab = rgb2lab(np.repeat(colors.astype(float), 3 // colors.shape[1], axis=1) / 255)
    return lab[:, : colors.shape[1]].T


def color_spread(colors, inside):
    seen = colors[:, inside].astype(float)
    if seen.size == 0:
        return np.zeros(len(colors)), 0.0, np.zeros(len(colors))
    means = seen.mean(axis=1)
    away = seen - means[:, None]
    return means, (away**2).sum(axis=0).mean(), np.abs(away).max(axis=1)


def write_quads(colors, inside, means, scale, limit, quads):
    """The quads; the kernel writes them in place."""
    quads = quads.copy()
    away = (colors.astype(float) - means[:, None, None, None]) * scale
    steps = np.where(inside, np.clip(np.rint(away), -limit, limit), 0)
    for c, channel in enumerate(steps):
        quads[c // 4, :, :, : inside.shape[2], c % 4] = channel
    return quads
