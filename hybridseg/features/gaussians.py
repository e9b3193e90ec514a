"""Gaussian filters of any width: wide ones are computed by a fast Fourier transform.

Borders are mirrored, with the outermost pixels repeated (``mode="reflect"`` of
:mod:`scipy.ndimage`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.ndimage import gaussian_filter

#: Filters of at most this radius in pixels are summed directly; wider ones use a Fourier transform.
MAX_SUMMED_RADIUS = 64

#: A Gaussian wider than this many lengths of the axis is replaced by the mean along the axis.
_MIN_WIDTH_FOR_MEAN = 2.0

#: The maximum count of numbers in one Fourier transform, which bounds the memory.
_MAX_NUMBERS_PER_TRANSFORM = 1 << 20


def radius_of(width: float, truncate: float) -> int:
    """Radius in pixels at which a Gaussian is cut off; at most 2^40."""
    return int(min(truncate * width + 0.5, 2.0**40))


def smooth(
    values: NDArray[np.float32],
    widths: Sequence[float],
    *,
    truncate: float,
) -> NDArray[np.float32]:
    """Smooth by a Gaussian along the first axes.

    Parameters
    ----------
    values : ndarray of float32, (*spatial[, ...])
    widths : sequence of float
        Standard deviations in pixels, at least 0, one for each of the first axes.
    truncate : float
        Gaussians are cut off at this many standard deviations.

    Returns
    -------
    ndarray of float32, of the same shape
    """
    near, far = [0.0] * values.ndim, []
    for axis, width in enumerate(widths):
        if radius_of(width, truncate) > MAX_SUMMED_RADIUS:
            far.append(axis)
        else:
            near[axis] = width
    radii = [radius_of(width, truncate) for width in near]
    found = values
    if any(near):
        found = gaussian_filter(values, near, mode="reflect", radius=radii)
    for axis in far:
        found = _by_fourier(found, axis, widths[axis], truncate)
    return values.copy() if found is values else found


def _by_fourier(
    values: NDArray[np.float32], axis: int, width: float, truncate: float
) -> NDArray[np.float32]:
    """Smooth along one axis: periodic convolution of the image joined to its mirror image."""
    length = values.shape[axis]
    if width > _MIN_WIDTH_FOR_MEAN * length:
        mean = values.mean(axis=axis, dtype=np.float64, keepdims=True).astype(np.float32)
        return np.ascontiguousarray(np.broadcast_to(mean, values.shape))
    gains = fft.rfft(_folded(length, width, truncate))
    lines = np.moveaxis(values, axis, -1)
    found = np.empty(lines.shape, np.float32)
    flat, out = lines.reshape(-1, length), found.reshape(-1, length)
    n_lines = max(1, _MAX_NUMBERS_PER_TRANSFORM // (2 * length))
    for start in range(0, len(flat), n_lines):
        block = flat[start : start + n_lines].astype(np.float64)
        twice = np.concatenate([block, block[:, ::-1]], axis=1)
        filtered = fft.irfft(fft.rfft(twice, axis=1) * gains, n=2 * length, axis=1)
        out[start : start + n_lines] = filtered[:, :length]
    return np.ascontiguousarray(np.moveaxis(found, -1, axis))


def _folded(length: int, width: float, truncate: float) -> NDArray[Any]:
    """The weights of a filter, summed over all positions that repeat the same pixel."""
    radius = radius_of(width, truncate)
    places = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (places / width) ** 2)
    weights /= weights.sum()
    return np.bincount(places % (2 * length), weights, minlength=2 * length)
