"""sRGB to CIELAB, and the colours of a picture as 16-bit planes about their mean.

The curve of sRGB comes from a table with straight lines between its entries, which are at all whole
values, so those of 8-bit pictures are exact. Cube roots are by arithmetic that runs in vectors. The
error of L* is below 1e-3, of a* and b* below 3e-3, a hundredth of what an 8-bit picture resolves.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from hybridseg.kernels._compile import kernel, parallel_kernel

#: Entries of the table of sRGB for each of 255 steps.
_FINE = 4
#: Rows from XYZ, divided by the white of D65 (2 degrees), to linear sRGB (IEC 61966-2-1).
_X = tuple(np.float32(v / 0.95047) for v in (0.412453, 0.357580, 0.180423))
_Y = tuple(np.float32(v) for v in (0.212671, 0.715160, 0.072169))
_Z = tuple(np.float32(v / 1.08883) for v in (0.019334, 0.119193, 0.950227))
#: Pixels that are converted at once, in the first-level cache.
_BLOCK = 512


def _linear(value):
    """Light of an sRGB value on the scale 0..255."""
    value = value / 255
    return np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92)


_LINEAR = _linear(np.arange(255 * _FINE + 2) / _FINE).astype(np.float32)


@kernel
def _light(value, table):
    if not np.float32(0) <= value <= np.float32(255):
        scaled = value / np.float32(255)
        if scaled > np.float32(0.04045):
            return np.float32(((scaled + 0.055) / 1.055) ** 2.4)
        return scaled / np.float32(12.92)
    at = value * np.float32(_FINE)
    low = np.uint32(at)
    first = table[low]
    return first + (at - np.float32(low)) * (table[low + np.uint32(1)] - first)


@kernel
def _weigh(weights, light, n_lights, n, out):
    """One of X, Y, Z from linear sRGB; a grey's one value stands for all three."""
    r, g, b = light[0], light[1 % n_lights], light[2 % n_lights]
    for i in range(n):
        out[i] = weights[0] * r[i] + weights[1] * g[i] + weights[2] * b[i]


@kernel
def _roots(values, n, guess_bits, guess, out):
    """CIE 15's f of values: their cube roots, with a straight line near zero.

    A third of a float's bits is a guess within 4 % (Kahan), which two steps of Halley's method
    make exact. ``guess`` and ``guess_bits`` are the same memory.
    """
    third, magic = np.float32(1 / 3), np.int32(709921077)
    two, low = np.float32(2), np.float32(0.008856)
    slope, start = np.float32(7.787), np.float32(16 / 116)
    for i in range(n):
        guess[i] = max(values[i], low)
    for i in range(n):
        guess_bits[i] = np.int32(np.float32(guess_bits[i]) * third) + magic
    for i in range(n):
        value, y = max(values[i], low), guess[i]
        cube = y * y * y
        y = y * (cube + two * value) / (two * cube + value)
        cube = y * y * y
        y = y * (cube + two * value) / (two * cube + value)
        out[i] = y if values[i] > low else slope * values[i] + start


@kernel
def _block_to_lab(colors, begin, end, table, lab):
    n, n_channels = end - begin, colors.shape[1]
    light = np.empty((3, _BLOCK), np.float32)
    sums, guess = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32)
    bits = guess.view(np.int32)
    roots = np.empty((3, _BLOCK), np.float32)
    for c in range(n_channels):
        channel = light[c]
        for i in range(n):
            channel[i] = _light(colors[begin + i, c], table)
    _weigh(_Y, light, n_channels, n, sums)
    _roots(sums, n, bits, guess, roots[1])
    for i in range(n):
        lab[0, begin + i] = np.float32(116) * roots[1, i] - np.float32(16)
    if n_channels == 3:
        _weigh(_X, light, n_channels, n, sums)
        _roots(sums, n, bits, guess, roots[0])
        _weigh(_Z, light, n_channels, n, sums)
        _roots(sums, n, bits, guess, roots[2])
        for i in range(n):
            lab[1, begin + i] = np.float32(500) * (roots[0, i] - roots[1, i])
            lab[2, begin + i] = np.float32(200) * (roots[1, i] - roots[2, i])


@parallel_kernel
def _to_lab(colors, table, lab):
    n_pixels = colors.shape[0]
    for block in prange((n_pixels + _BLOCK - 1) // _BLOCK):
        begin = block * _BLOCK
        _block_to_lab(colors, begin, min(begin + _BLOCK, n_pixels), table, lab)


def srgb_to_lab(colors):
    """CIELAB (D65, 2 degrees) of sRGB colours; L* alone of greys.

    Parameters
    ----------
    colors : float32 array (N, 3) or (N, 1), C-contiguous
        On the scale 0..255; what lies beyond follows the same formulas.

    Returns
    -------
    float32 array (3, N) or (1, N)
    """
    lab = np.empty(colors.shape[::-1], np.float32)
    _to_lab(colors, _LINEAR, lab)
    return lab


@kernel
def _moments(values, inside, shift):
    """Sums of the distances from ``shift`` of the values inside, and of their squares.

    Four interleaved sums each: a single one would wait for its own last addition.
    """
    zero = np.float64(0)
    s0, s1, s2, s3, q0, q1, q2, q3 = zero, zero, zero, zero, zero, zero, zero, zero
    n = values.size
    for i in range(0, n - n % 4, 4):
        a = np.float64(values[i] - shift) if inside[i] else zero
        b = np.float64(values[i + 1] - shift) if inside[i + 1] else zero
        c = np.float64(values[i + 2] - shift) if inside[i + 2] else zero
        d = np.float64(values[i + 3] - shift) if inside[i + 3] else zero
        s0, s1, s2, s3 = s0 + a, s1 + b, s2 + c, s3 + d
        q0, q1, q2, q3 = q0 + a * a, q1 + b * b, q2 + c * c, q3 + d * d
    for i in range(n - n % 4, n):
        a = np.float64(values[i] - shift) if inside[i] else zero
        s0, q0 = s0 + a, q0 + a * a
    return (s0 + s1) + (s2 + s3), (q0 + q1) + (q2 + q3)


@kernel
def _write_steps(values, inside, mean, scale, limit, target):
    """Round to whole numbers; the shift makes cutting the fraction off rounding."""
    shift = np.float32(1 << 15)
    for x in range(inside.size):
        value = (values[x] - mean) * scale
        value = min(max(value, -limit), limit) + shift + np.float32(0.5)
        target[x] = np.int16((np.int32(value) - np.int32(1 << 15)) if inside[x] else np.int32(0))


@kernel
def spread_planes(colors, inside, spread, limit, planes):
    """Write the colours about their mean, at a common spread, as rounded whole numbers.

    Parameters
    ----------
    colors : float32 array (C, D, H, W), C-contiguous
    inside : bool array (D, H, W), C-contiguous
        Where False, the pixel does not count for the mean and becomes 0.
    spread : float
        What the root mean square distance from the mean colour becomes; a constant picture
        (variance up to 1e-8) becomes 0.
    limit : float, at most 32767
        Where numbers are cut off on either side.
    planes : int16 array (C, D, H, >= W), written
    """
    n_channels, depth, height, _ = colors.shape
    count, first = 0, -1
    seen = inside.ravel()
    for i in range(seen.size):
        if seen[i]:
            first = i if first < 0 else first
            count += 1
    variance = 0.0
    means = np.zeros(n_channels, np.float32)
    for c in range(n_channels):
        values = colors[c].ravel()
        origin = values[max(first, 0)]
        total, squares = _moments(values, seen, origin)
        mean = total / max(count, 1)
        variance += max(squares / max(count, 1) - mean * mean, 0.0)
        means[c] = origin + mean
    scale = np.float32(spread / np.sqrt(variance)) if variance > 1e-8 else np.float32(0)
    for c in range(n_channels):
        for z in range(depth):
            for y in range(height):
                _write_steps(
                    colors[c, z, y], inside[z, y], means[c], scale, np.float32(limit),
                    planes[c, z, y],
                )  # fmt: skip
