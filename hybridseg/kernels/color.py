"""sRGB to CIELAB, and the colours of a picture as 16-bit planes about their mean.

The powers are by arithmetic that runs in vectors: a guess from the bits of the float, and what is
missing from its series. Tables would be looked up one value at a time. The error of L* is below
1e-3, of a* and b* below 3e-3, a hundredth of what an 8-bit picture resolves.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, prange

from hybridseg.kernels._compile import kernel, parallel_kernel

#: Rows from linear sRGB to Y, X and Z, divided by the white of D65 (2 degrees) (IEC 61966-2-1).
_WEIGHTS = np.array(
    [
        [0.212671, 0.715160, 0.072169],
        [0.412453 / 0.95047, 0.357580 / 0.95047, 0.180423 / 0.95047],
        [0.019334 / 1.08883, 0.119193 / 1.08883, 0.950227 / 1.08883],
    ],
    np.float32,
)
#: From which a third, or a fifth, of a float's bits is taken to guess its inverse root (Kahan): the
#: numbers with the least greatest error, 4 % and 3 %.
_CUBE, _FIFTH = np.int32(1419907116), np.int32(1277923859)
#: Pixels that are converted at once, in the first-level cache.
_BLOCK = 512


@kernel
def _lights(n, guess_bits, guess, light):
    """Values to linear light, in place: ``((v + 0.055) / 1.055) ** 2.4``, straight near black.

    The power is (x y)^3 with y the inverse fifth root of x. ``guess`` and ``guess_bits`` are the
    same memory.
    """
    one, fifth = np.float32(1), np.float32(0.2)
    second, cubic = np.float32(0.12), np.float32(0.088)
    slope, start = np.float32(1 / (255 * 1.055)), np.float32(0.055 / 1.055)
    least, low = np.float32(0.09), np.float32(0.04045 * 255)
    straight = np.float32(1 / (255 * 12.92))
    for i in range(n):
        guess[i] = max(light[i] * slope + start, least)
    for i in range(n):
        guess_bits[i] = _FIFTH - np.int32(np.float32(guess_bits[i]) * fifth)
    for i in range(n):
        value = light[i]
        x, y = max(value * slope + start, least), guess[i]
        rest = one - x * y * (y * y) * (y * y)
        y += y * rest * (fifth + rest * (second + rest * cubic))
        rest = one - x * y * (y * y) * (y * y)
        y = x * (y + y * rest * fifth)
        light[i] = y * y * y if value > low else straight * value


@kernel
def _weigh(axis, light, n_lights, n, out):
    """One of X, Y, Z from linear sRGB; a grey's one value stands for all three."""
    r, g, b = light[0], light[1 % n_lights], light[2 % n_lights]
    of_r, of_g, of_b = _WEIGHTS[axis, 0], _WEIGHTS[axis, 1], _WEIGHTS[axis, 2]
    for i in range(n):
        out[i] = of_r * r[i] + of_g * g[i] + of_b * b[i]


@kernel
def _roots(values, n, guess_bits, guess, out):
    """CIE 15's f of values: their cube roots, with a straight line near zero.

    What a guess of the inverse root lacks follows from the series of (1 - rest)^(-1/3), of three
    terms and then of one, without a division. ``guess`` and ``guess_bits`` are the same memory.
    """
    third = np.float32(1 / 3)
    one, low = np.float32(1), np.float32(0.008856)
    second, cubic = np.float32(2 / 9), np.float32(14 / 81)
    slope, start = np.float32(7.787), np.float32(16 / 116)
    for i in range(n):
        guess[i] = max(values[i], low)
    for i in range(n):
        guess_bits[i] = _CUBE - np.int32(np.float32(guess_bits[i]) * third)
    for i in range(n):
        value, y = max(values[i], low), guess[i]
        rest = one - value * y * y * y
        y += y * rest * (third + rest * (second + rest * cubic))
        rest = one - value * y * y * y
        y += y * rest * third
        out[i] = value * y * y if values[i] > low else slope * values[i] + start


@kernel
def _read_block(flat, begin, n, n_channels, channels):
    """Bring the channels of a block apart."""
    r, g, b = channels[0], channels[1], channels[2]
    if n_channels == 1:
        for i in range(n):
            r[i] = flat[begin + i]
        return
    for i in range(n):
        at = np.uint64(3 * (begin + i))
        r[i], g[i], b[i] = flat[at], flat[at + np.uint64(1)], flat[at + np.uint64(2)]


@kernel
def _block_to_lab(flat, begin, end, room, bits, lab):
    """Convert a block; ``room`` is 3 rows of light, 3 of roots, the sums and the guess."""
    n, n_channels = end - begin, lab.shape[0]
    _read_block(flat, begin, n, n_channels, room)
    for c in range(n_channels):
        _lights(n, bits, room[7], room[c])
    for axis in range(n_channels):
        _weigh(axis, room, n_channels, n, room[6])
        _roots(room[6], n, bits, room[7], room[3 + axis])
    y, x, z = room[3], room[4], room[5]
    for i in range(n):
        lab[0, begin + i] = np.float32(116) * y[i] - np.float32(16)
    if n_channels == 3:
        for i in range(n):
            lab[1, begin + i] = np.float32(500) * (x[i] - y[i])
            lab[2, begin + i] = np.float32(200) * (y[i] - z[i])


@parallel_kernel
def _to_lab(flat, room, bits, lab):
    n_pixels, n_shares = lab.shape[1], room.shape[0]
    n_blocks = (n_pixels + _BLOCK - 1) // _BLOCK
    for i in prange(n_shares):
        share = np.int64(i)  # signed, so that what is called is compiled once
        for block in range(share * n_blocks // n_shares, (share + 1) * n_blocks // n_shares):
            begin = block * _BLOCK
            end = min(begin + _BLOCK, n_pixels)
            _block_to_lab(flat, begin, end, room[share], bits[share, 7], lab)


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
    room = np.empty((get_num_threads(), 8, _BLOCK), np.float32)
    _to_lab(colors.ravel(), room, room.view(np.int32), lab)
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
    n_channels, depth, height, width = colors.shape
    rows = planes.reshape(n_channels, depth * height, -1)
    _spread(colors.reshape(n_channels, -1), inside.ravel(), width, spread, limit, rows)


@kernel
def _spread(colors, seen, width, spread, limit, rows):
    n_channels = colors.shape[0]
    count, first = 0, -1
    for i in range(seen.size):
        if seen[i]:
            first = i if first < 0 else first
            count += 1
    variance = 0.0
    means = np.zeros(n_channels, np.float32)
    for c in range(n_channels):
        origin = colors[c, max(first, 0)]
        total, squares = _moments(colors[c], seen, origin)
        mean = total / max(count, 1)
        variance += max(squares / max(count, 1) - mean * mean, 0.0)
        means[c] = origin + mean
    scale = np.float32(spread / np.sqrt(variance)) if variance > 1e-8 else np.float32(0)
    for c in range(n_channels):
        for y in range(rows.shape[1]):
            row = slice(y * width, (y + 1) * width)
            cut = np.float32(limit)
            _write_steps(colors[c, row], seen[row], means[c], scale, cut, rows[c, y])
