"""Gaussian filters of any width: what is wider than the picture costs no more than a Fourier pass.

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

#: Up to this many pixels on each side a filter sums its neighbours; wider ones go by Fourier.
MOST_NEIGHBOURS = 64

#: A Gaussian wider than this many times an axis leaves the mean along that axis.
_ONLY_MEAN = 2.0

#: Numbers that are transformed together, which bounds the memory.
_BLOCK = 1 << 20


def radius_of(width: float, truncate: float) -> int:
    """Where a Gaussian of a width in pixels ends, in pixels; at most 2^40."""
    return int(min(truncate * width + 0.5, 2.0**40))


def smooth(
    values: NDArray[np.float32],
    widths: Sequence[float],
    *,
    truncate: float,
) -> NDArray[np.float32]:
    """Filter by a Gaussian along the first axes.

    Parameters
    ----------
    values : ndarray of float32, (*spatial[, ...])
    widths : sequence of float
        Standard deviations in pixels, one for each of the first axes. Any number at least 0.
    truncate : float
        Gaussians end at this many standard deviations.

    Returns
    -------
    ndarray of float32, of the same shape
    """
    near, far = [0.0] * values.ndim, []
    for axis, width in enumerate(widths):
        if radius_of(width, truncate) > MOST_NEIGHBOURS:
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
    """The same sums along one axis of the picture and its mirror image, which repeat for ever."""
    length = values.shape[axis]
    if width > _ONLY_MEAN * length:
        mean = values.mean(axis=axis, dtype=np.float64, keepdims=True).astype(np.float32)
        return np.ascontiguousarray(np.broadcast_to(mean, values.shape))
    gains = fft.rfft(_folded(length, width, truncate))
    lines = np.moveaxis(values, axis, -1)
    found = np.empty(lines.shape, np.float32)
    flat, out = lines.reshape(-1, length), found.reshape(-1, length)
    n_lines = max(1, _BLOCK // (2 * length))
    for start in range(0, len(flat), n_lines):
        block = flat[start : start + n_lines].astype(np.float64)
        twice = np.concatenate([block, block[:, ::-1]], axis=1)
        filtered = fft.irfft(fft.rfft(twice, axis=1) * gains, n=2 * length, axis=1)
        out[start : start + n_lines] = filtered[:, :length]
    return np.ascontiguousarray(np.moveaxis(found, -1, axis))


def _folded(length: int, width: float, truncate: float) -> NDArray[Any]:
    """The weights of a filter, summed over the places that show the same pixel."""
    radius = radius_of(width, truncate)
    places = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (places / width) ** 2)
    weights /= weights.sum()
    return np.bincount(places % (2 * length), weights, minlength=2 * length)
