"""Conversion of sRGB to CIELAB, and of colors to 16-bit integers about their mean.

`srgb_to_lab` linearizes sRGB (IEC 61966-2-1) and converts it to L*a*b* (CIE 15) with the white
point D65 (2 degrees). Powers and roots are arithmetic that runs in vectors: the bits of a float
give a first guess, and a few terms of a power series correct it. A table would need one lookup
for each value. The error of L* is below 1e-3, of a* and b* below 3e-3, a hundredth of what an
8-bit image resolves.

`color_spread` and `write_quads` prepare colors for SLIC: they measure the colors, and write them
as int16 distances from the mean color. A *quad* is four channels of one pixel side by side.

Colors are float32. They enter `srgb_to_lab` with channels last, (N, C), and leave it as planes,
(C, N). Volumes are (D, H, W), with D = 1 for an image.

`hybridseg.features.pixels` calls `srgb_to_lab`, whose blocks of pixels are shared among numba's
threads. `hybridseg.features.slic` calls the other two, which run on one thread.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, prange

from hybridseg.kernels._compile import inner_kernel, kernel, parallel_kernel
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.padding import whole
from hybridseg.kernels.vectors.way import way

#: Rows that convert linear sRGB to Y, X and Z, each divided by its value for the white point.
_WEIGHTS = np.array(
    [
        [0.212671, 0.715160, 0.072169],
        [0.412453 / 0.95047, 0.357580 / 0.95047, 0.180423 / 0.95047],
        [0.019334 / 1.08883, 0.119193 / 1.08883, 0.950227 / 1.08883],
    ],
    np.float32,
)
#: This number less a third (a fifth) of a float's bits gives the bits of a guess of its inverse
#: cube (fifth) root. These two numbers minimize the largest error: 4 % and 3 %.
_CUBE, _FIFTH = np.int32(1419907116), np.int32(1277923859)
#: Numbers in a vector.
LANES = 8
#: Pixels that are converted together: their working rows fit in the first-level cache.
_PIXELS_PER_BLOCK = 512


@inner_kernel
def _lights(n, guess_bits, guess, light):
    """Convert sRGB values to linear light, in place: ``((v + 0.055) / 1.055) ** 2.4``.

    Values near black follow a straight line. ``light`` holds v on the scale 0..255. With x = (v +
    0.055) / 1.055 and y its inverse fifth root, the power is (x y)^3. ``guess`` (float32) and
    ``guess_bits`` (int32) are two views of the same memory.
    """
    one, fifth = np.float32(1), np.float32(0.2)
    second, cubic = np.float32(0.12), np.float32(0.088)
    slope, start = np.float32(1 / (255 * 1.055)), np.float32(0.055 / 1.055)
    least, low = np.float32(0.09), np.float32(0.04045 * 255)
    straight = np.float32(1 / (255 * 12.92))
    for i in range(n):
        # x, kept away from zero
        guess[i] = max(light[i] * slope + start, least)
    for i in range(n):
        # the first guess of y
        guess_bits[i] = _FIFTH - np.int32(np.float32(guess_bits[i]) * fifth)
    for i in range(n):
        # two corrections by the series of (1 - rest)^(-1/5): three terms, then one
        value = light[i]
        x, y = max(value * slope + start, least), guess[i]
        rest = one - x * y * (y * y) * (y * y)
        y += y * rest * (fifth + rest * (second + rest * cubic))
        rest = one - x * y * (y * y) * (y * y)
        y = x * (y + y * rest * fifth)
        light[i] = y * y * y if value > low else straight * value


@inner_kernel
def _weigh(axis, light, n_lights, n, out):
    """Write X, Y or Z from linear sRGB. The channel of a gray image counts as all three."""
    r, g, b = light[0], light[1 % n_lights], light[2 % n_lights]
    of_r, of_g, of_b = _WEIGHTS[axis, 0], _WEIGHTS[axis, 1], _WEIGHTS[axis, 2]
    for i in range(n):
        out[i] = of_r * r[i] + of_g * g[i] + of_b * b[i]


@inner_kernel
def _roots(values, n, guess_bits, guess, out):
    """Write f of CIE 15 for each value: its cube root, or a straight line near zero.

    The inverse cube root is guessed from the bits, and the guess is corrected by the series of
    (1 - rest)^(-1/3), with three terms and then with one, so no division is needed. ``guess``
    (float32) and ``guess_bits`` (int32) are two views of the same memory.
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


@inner_kernel
def _read_block(flat, begin, n, n_channels, channels):
    """Copy the channels of a block of pixels to one row each."""
    r, g, b = channels[0], channels[1], channels[2]
    if n_channels == 1:
        for i in range(n):
            r[i] = flat[begin + i]
        return
    for i in range(n):
        at = np.uint64(3 * (begin + i))
        r[i], g[i], b[i] = flat[at], flat[at + np.uint64(1)], flat[at + np.uint64(2)]


@inner_kernel
def _block_to_lab(flat, begin, end, room, bits, lab):
    """Convert the pixels ``begin`` to ``end - 1``.

    ``room`` (8, _PIXELS_PER_BLOCK) is working memory: three rows of light, three of roots, one of
    sums and one of guesses. ``bits`` is the last row as int32.
    """
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
    """Convert all pixels; each thread has a range of blocks and its own ``room``."""
    n_pixels, n_shares = lab.shape[1], room.shape[0]
    n_blocks = (n_pixels + _PIXELS_PER_BLOCK - 1) // _PIXELS_PER_BLOCK
    for i in prange(n_shares):
        share = np.int64(i)  # prange counts unsigned, which would compile the callees again
        for block in range(share * n_blocks // n_shares, (share + 1) * n_blocks // n_shares):
            begin = block * _PIXELS_PER_BLOCK
            end = min(begin + _PIXELS_PER_BLOCK, n_pixels)
            _block_to_lab(flat, begin, end, room[share], bits[share, 7], lab)


def srgb_to_lab(colors):
    """Convert sRGB colors to CIELAB (D65, 2 degrees), and grays to L*.

    Parameters
    ----------
    colors : float32 array (N, 3) or (N, 1), C-contiguous
        On the scale 0..255. Values outside it follow the same formulas.

    Returns
    -------
    float32 array (3, N) or (1, N)
    """
    lab = np.empty(colors.shape[::-1], np.float32)
    room = np.empty((get_num_threads(), 8, _PIXELS_PER_BLOCK), np.float32)
    _to_lab(colors.ravel(), room, room.view(np.int32), lab)
    return lab


@inner_kernel
def _add_numbers(values, begin, end, inside, origin):
    """Return sums of the distances from ``origin`` and of their squares, and the extremes.

    Only the values whose ``inside`` (uint8) is not zero count. Distances from a value of the data
    keep their precision if the values have a large offset.
    """
    total, squares = 0.0, 0.0
    least, most = origin, origin
    for i in range(begin, end):
        if inside[i]:
            value = values[i]
            distance = np.float64(value - origin)
            total += distance
            squares += distance * distance
            least, most = min(least, value), max(most, value)
    return total, squares, least, most


@inner_kernel
def _add_vectors(values, begin, end, inside, origin):
    """Do what `_add_numbers` does, in vectors.

    ``end - begin`` must be a multiple of ``2 * LANES``. Values outside are replaced by ``origin``,
    which adds nothing to any sum. Two sets of sums keep two chains of additions busy.
    """
    zero, nought = simd.fill(np.uint8(0), LANES), simd.fill(np.float64(0), LANES)
    total, squares, other, other_squares = nought, nought, nought, nought
    start = simd.fill(origin, LANES)
    least, most = start, start
    for i in range(begin, end, 2 * LANES):
        out = simd.equal(simd.load(inside, i, LANES), zero)
        a = simd.select(out, start, simd.load(values, i, LANES))
        out = simd.equal(simd.load(inside, i + LANES, LANES), zero)
        b = simd.select(out, start, simd.load(values, i + LANES, LANES))
        least, most = (
            simd.minimum(least, simd.minimum(a, b)),
            simd.maximum(most, simd.maximum(a, b)),
        )
        a, b = simd.convert(a - start, np.float64), simd.convert(b - start, np.float64)
        total, other = total + a, other + b
        squares, other_squares = simd.fma(a, a, squares), simd.fma(b, b, other_squares)
    nothing = simd.fill(np.float32(0), LANES)
    return (
        simd.total(total + other),
        simd.total(squares + other_squares),
        -simd.greatest(nothing - least),
        simd.greatest(most),
    )


@inner_kernel
def _first_inside(inside):
    """Return the index of the first pixel inside; 0 if there is none."""
    for i in range(inside.size):
        if inside[i]:
            return i
    return 0


@kernel
def _spread(colors, inside, vectors):
    """Return the means, the variance and the reaches of `color_spread`."""
    n_pixels = colors.shape[1]
    first, count, in_vectors = _first_inside(inside), 0, whole(n_pixels, 2 * LANES)
    for i in range(n_pixels):
        count += int(inside[i])
    variance = 0.0
    means, reaches = np.zeros(colors.shape[0], np.float32), np.zeros(colors.shape[0], np.float32)
    flat = colors.ravel()
    for c in range(colors.shape[0] if count > 0 else 0):
        values = flat[c * n_pixels : (c + 1) * n_pixels]
        origin = values[first]
        if vectors is None:
            in_vectors = 0
            total, squares, least, most = 0.0, 0.0, origin, origin
        else:
            total, squares, least, most = _add_vectors(values, 0, in_vectors, inside, origin)
        more = _add_numbers(values, in_vectors, n_pixels, inside, origin)
        mean = (total + more[0]) / count
        variance += max((squares + more[1]) / count - mean * mean, 0.0)
        means[c] = origin + mean
        reaches[c] = max(means[c] - min(least, more[2]), max(most, more[3]) - means[c])
    return means, variance, reaches


def color_spread(colors, inside):
    """Return the mean color, the variance about it, and each channel's largest distance from it.

    Parameters
    ----------
    colors : float32 array (C, D, H, W), C-contiguous
    inside : bool array (D, H, W), C-contiguous
        Where False, the pixel does not count.

    Returns
    -------
    means : float32 array (C,)
    variance : float
        Mean squared distance from the mean color, summed over channels.
    reaches : float32 array (C,)
        Largest absolute difference from the mean in each channel. All results are 0 if no pixel is
        inside.
    """
    seen = inside.ravel().view(np.uint8)
    return _spread(colors.reshape(len(colors), -1), seen, way())


@inner_kernel
def _step(value, mean, scale, limit):
    """Return the distance of a value from the mean as a rounded integer.

    Adding 1.5 * 2**23 to a float32 of less than 2**22 drops its fraction, with rounding.
    """
    magic = np.float32(12582912)
    return np.int32(min(max((value - mean) * scale, -limit), limit) + magic - magic)


@inner_kernel
def _steps(colors, at, mean, scale, limit):
    """Do what `_step` does for a vector; each uint64 holds one result in its low 16 bits.

    After the addition of 1.5 * 2**23, the low bits of the float are the integer itself (two's
    complement).
    """
    value = (simd.load(colors, at, LANES) - mean) * scale
    value = simd.minimum(simd.maximum(value, simd.fill(np.float32(0), LANES) - limit), limit)
    value = simd.reinterpret(value + simd.fill(np.float32(12582912), LANES), np.uint32)
    return simd.convert(value & simd.fill(np.uint32(0xFFFF), LANES), np.uint64)


@inner_kernel
def _write_row(colors, first, n_pixels, n_more, means, scale, limit, inside, quads, to):
    """Write up to four channels of LANES pixels; ``quads`` is flat, with four channels in a uint64.

    ``first`` is the place of the first pixel in ``colors`` (flat planes), ``to`` its place in
    ``quads``.
    """
    scale, limit = simd.fill(scale, LANES), simd.fill(limit, LANES)
    word = _steps(colors, first, simd.fill(means[0], LANES), scale, limit)
    for c in range(1, n_more):
        at = first + c * n_pixels
        more = _steps(colors, at, simd.fill(means[c], LANES), scale, limit)
        word = word | (more << simd.fill(np.uint64(16 * c), LANES))
    out = simd.equal(inside, simd.fill(np.uint8(0), LANES))
    word = simd.select(out, simd.fill(np.uint64(0), LANES), word)
    simd.store(quads, to, word)


@kernel
def _write(colors, inside, means, scale, limit, quads, words, vectors):
    """Write all quads: whole vectors of each row first, then the last pixels one by one.

    ``words`` is a flat view of ``quads`` with one uint64 for each quad.
    """
    n_channels, n_pixels = colors.shape
    n_quads, n_rows, pitch, _ = quads.shape
    width = n_pixels // n_rows
    flat, in_vectors = colors.ravel(), (0 if vectors is None else whole(width, LANES))
    for g in range(n_quads):
        first, n_more = 4 * g, min(4, n_channels - 4 * g)
        for y in range(n_rows):
            if vectors is not None:
                for x in range(0, in_vectors, LANES):
                    at = y * width + x
                    here = simd.load(inside, at, LANES)
                    _write_row(
                        flat, first * n_pixels + at, n_pixels, n_more, means[first:], scale, limit,
                        here, words, (g * n_rows + y) * pitch + x,
                    )  # fmt: skip
            for c in range(first, first + n_more):
                for x in range(in_vectors, width):
                    at = y * width + x
                    step = _step(colors[c, at], means[c], scale, limit) if inside[at] else 0
                    quads[g, y, x, c - first] = step


def write_quads(colors, inside, means, scale, limit, quads):
    """Write colors as rounded integers about their mean, four channels side by side.

    Parameters
    ----------
    colors : float32 array (C, D, H, W), C-contiguous
    inside : bool array (D, H, W), C-contiguous
        Where False, the pixel becomes 0.
    means : float32 array (C,)
    scale : float
        Integers for one unit of color.
    limit : float, at most 32767
        Largest absolute integer; larger ones are clipped.
    quads : int16 array (G, D, H, >= W, 4), 4 G >= C > 4 (G - 1), C-contiguous, written
        Channels from C on are set to 0 or not written, so they must be 0 before.
    """
    rows = quads.reshape(len(quads), -1, *quads.shape[3:])
    _write(
        colors.reshape(len(colors), -1), inside.ravel().view(np.uint8), means, np.float32(scale),
        np.float32(limit), rows, rows.view(np.uint64).ravel(), way(),
    )  # fmt: skip
