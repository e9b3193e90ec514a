"""Slow twins of ``hybridseg.kernels.color``, in float64."""

from __future__ import annotations

import math

import numpy as np
from skimage.color import rgb2lab


def srgb_to_lab(colors):
    lab = rgb2lab(np.repeat(colors.astype(float), 3 // colors.shape[1], axis=1) / 255)
    return lab[:, : colors.shape[1]].T


def spread_planes(colors, inside, spread, limit):
    """The planes, where the kernel writes in place."""
    seen = colors[:, inside].T.astype(float)
    planes = np.zeros((len(colors), *inside.shape), np.int16)
    if len(seen) == 0:
        return planes
    seen = seen - seen.mean(axis=0)
    variance = (seen**2).sum(axis=1).mean()
    if variance > 1e-8:
        seen *= spread / math.sqrt(variance)
        planes[:, inside] = np.clip(np.floor(seen + 0.5), -limit, limit).T
    return planes
