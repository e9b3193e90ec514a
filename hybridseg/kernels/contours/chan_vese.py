"""One iteration of the Chan-Vese level set [1]_ in the scheme of [2]_: new level set, sums, energy.

Each pixel gets the semi-implicit update of equation 22 of [2]_. The energy (equation 7) is that of
the level set before the iteration, whose differences are computed anyway.

The level set ``phi`` is (H + 2, W + 2), float32 or float64 as the image (H, W). Its border of one
pixel repeats the pixels next to it, so every pixel is treated alike. ``sums`` (H, N_SUMS) float64
has one row for each row of the image; rows are added in order afterwards, so the result does not
depend on the number of threads.

`hybridseg.inference.contours.chan_vese` calls `iterate_level_set`, for images and for costs. Blocks
of rows are shared among numba's threads. The plain loops pass over each row several times, the
vectors once.

References
----------
.. [1] T. F. Chan, L. A. Vese, "Active contours without edges", IEEE Transactions on Image
   Processing 10(2), 2001.
.. [2] P. Getreuer, "Chan-Vese segmentation", Image Processing On Line 2, 2012, equations 7 and 22.
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from hybridseg.kernels._compile import kernel, parallel_kernel
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.vector_functions import arctangent_ratio, inverse_root, square_root

#: Columns of ``sums``. For the new level set: the number of pixels above zero, the sum of their
#: intensities, the squared change. For the old one, if the energy is wanted: the smooth step, the
#: step times the intensity, times its square, and the length of the contour.
N_SUMS = 7
#: Number of blocks of rows for the threads.
_N_BLOCKS = 16
#: Added to squared lengths of gradients, so that their roots are not zero.
_ETA = 1e-16
#: Pixels in a vector.
_LANES = 8


@kernel
def _dot(a, b):
    """Return the sum of products, as eight interleaved sums that are added in pairs."""
    zero = a.dtype.type(0)
    n = len(a)
    s0, s1, s2, s3, s4, s5, s6, s7 = zero, zero, zero, zero, zero, zero, zero, zero
    for j in range(0, n - n % 8, 8):
        s0 += a[j] * b[j]
        s1 += a[j + 1] * b[j + 1]
        s2 += a[j + 2] * b[j + 2]
        s3 += a[j + 3] * b[j + 3]
        s4 += a[j + 4] * b[j + 4]
        s5 += a[j + 5] * b[j + 5]
        s6 += a[j + 6] * b[j + 6]
        s7 += a[j + 7] * b[j + 7]
    for j in range(n - n % 8, n):
        s0 += a[j] * b[j]
    return ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7))


@kernel
def _arctan_ratio(s, number):
    """Return arctan(t) / t for s = t^2 from 0 to 1, with an error of 2e-15.

    It is the polynomial that interpolates at Chebyshev nodes, by Horner's rule.
    """
    high = number(4.226283023231908e-05) * s - number(0.00042814957468133226)
    high = (high * s + number(0.0020490696555689764)) * s - number(0.006207996293118126)
    high = (high * s + number(0.013521291315555573)) * s - number(0.022943023053046904)
    high = (high * s + number(0.03235431588990124)) * s - number(0.04024075890437847)
    high = (high * s + number(0.04659406894107202)) * s - number(0.0524082306573722)
    high = (high * s + number(0.058798113191139575)) * s - number(0.06666856734869055)
    high = (high * s + number(0.0769244729865118)) * s - number(0.09090936926888635)
    high = (high * s + number(0.11111114175207791)) * s - number(0.14285714479457498)
    high = (high * s + number(0.20000000006434926)) * s - number(0.3333333333342116)
    return high * s + number(1.000000000000002)


@kernel
def _move_row(values, above, here, below, new, numbers):
    """Write equation 22 for one row, with numerator and denominator multiplied by 1 + phi^2.

    ``values`` are the row's intensities; ``above``, ``here`` and ``below`` are rows of the level
    set with their borders. The four weights 1 / sqrt(...) share one division: each is the product
    of the other three roots over the product of all four.
    """
    inner, outer, mu, toward_inner, toward_outer, dt = numbers
    number = values.dtype.type
    one, half, eta = number(1), number(0.5), number(_ETA)
    for x in range(len(values)):
        c, west, east = here[x + 1], here[x], here[x + 2]
        north, south = above[x + 1], below[x + 1]
        # lengths of the gradients on the four sides, and their inverses
        mid_x, mid_y = half * (east - west), half * (south - north)
        mid_x, mid_y = eta + mid_x * mid_x, eta + mid_y * mid_y
        e, w, s, n = east - c, c - west, south - c, c - north
        e, w = math.sqrt(mid_y + e * e), math.sqrt(mid_y + w * w)
        s, n = math.sqrt(mid_x + s * s), math.sqrt(mid_x + n * n)
        ew, sn = e * w, s * n
        share = one / (ew * sn)
        c_e, c_w, c_s, c_n = share * sn * w, share * sn * e, share * ew * n, share * ew * s
        # curvature and data force
        bend = east * c_e + west * c_w + south * c_s + north * c_n
        from_inner, from_outer = values[x] - inner, values[x] - outer
        force = toward_outer * from_outer * from_outer - toward_inner * from_inner * from_inner
        wide = one + c * c
        new[x + 1] = (c * wide + dt * (mu * bend + force)) / (
            wide + mu * dt * (c_e + c_w + c_s + c_n)
        )


@kernel
def _step_row(values, above, here, below, step, length):
    """Write the smooth step 1/2 + arctan(phi) / pi of a row, and the length of its contour.

    For |phi| > 1 the arctangent of the inverse is used, pi/2 - arctan(1 / phi).
    """
    number = values.dtype.type
    one, half = number(1), number(0.5)
    quarter, inverse_pi = number(math.pi / 2), number(1 / math.pi)
    for x in range(len(values)):
        c = here[x + 1]
        mid_x, mid_y = half * (here[x + 2] - here[x]), half * (below[x + 1] - above[x + 1])
        size, wide = abs(c), one + c * c
        great = size > one
        larger = size if great else one
        share = one / (wide * larger)
        t = share * wide if great else size
        angle = t * _arctan_ratio(t * t, number)
        angle = quarter - angle if great else angle
        step[x] = half + inverse_pi * (angle if c > 0 else -angle)
        length[x] = share * larger * math.sqrt(mid_x * mid_x + mid_y * mid_y)


@kernel
def _iterate_rows(image, phi, new, first, last, numbers, with_energy, sums):
    """Update the rows ``first`` to ``last - 1`` without vectors, and write their sums."""
    number = image.dtype.type
    width = image.shape[1]
    a, b, ones = (
        np.empty(width, image.dtype),
        np.empty(width, image.dtype),
        np.empty(width, image.dtype),
    )
    ones[:] = number(1)
    for y in range(first, last):
        values, row = image[y], new[y + 1]
        above, here, below = phi[y], phi[y + 1], phi[y + 2]
        _move_row(values, above, here, below, row, numbers)
        row[0], row[width + 1] = row[1], row[width]
        for x in range(width):
            a[x] = number(row[x + 1] > 0)
            b[x] = row[x + 1] - here[x + 1]
        sums[y, 0], sums[y, 1], sums[y, 2] = _dot(a, ones), _dot(a, values), _dot(b, b)
        if with_energy:
            _step_row(values, above, here, below, a, b)
            sums[y, 3], sums[y, 4], sums[y, 6] = _dot(a, ones), _dot(a, values), _dot(b, ones)
            for x in range(width):
                a[x] *= values[x]
            sums[y, 5] = _dot(a, values)


@kernel
def _constants(number):
    """Return 0, 1, 1/2, eta, pi/2 and 1/pi, each as a vector."""
    return (
        simd.fill(number(0), _LANES),
        simd.fill(number(1), _LANES),
        simd.fill(number(0.5), _LANES),
        simd.fill(number(_ETA), _LANES),
        simd.fill(number(math.pi / 2), _LANES),
        simd.fill(number(1 / math.pi), _LANES),
    )


@kernel
def _vectors_of(numbers):
    """Return each of the six numbers of `_move_row` as a vector."""
    inner, outer, mu, toward_inner, toward_outer, dt = numbers
    return (
        simd.fill(inner, _LANES),
        simd.fill(outer, _LANES),
        simd.fill(mu, _LANES),
        simd.fill(toward_inner, _LANES),
        simd.fill(toward_outer, _LANES),
        simd.fill(dt, _LANES),
    )


@kernel
def _neighbors(phi, at, row):
    """Return the pixels from ``at`` on, and those west, east, north and south of them."""
    return (
        simd.load(phi, at, _LANES),
        simd.load(phi, at - 1, _LANES),
        simd.load(phi, at + 1, _LANES),
        simd.load(phi, at - row, _LANES),
        simd.load(phi, at + row, _LANES),
    )


@kernel
def _moved(values, around, squares, numbers, constants):
    """Return what `_move_row` computes; ``squares`` are those of the central differences.

    Two of the roots use the unit that also divides, and two use multiplications, so that both units
    are busy.
    """
    inner, outer, mu, toward_inner, toward_outer, dt = numbers
    _, one, _, eta, _, _ = constants
    c, west, east, north, south = around
    mid_x, mid_y = squares[0] + eta, squares[1] + eta
    e, w, s, n = east - c, c - west, south - c, c - north
    e, w = square_root(simd.fma(e, e, mid_y)), square_root(simd.fma(w, w, mid_y))
    share = one / (e * w)
    c_e, c_w = share * w, share * e
    c_s, c_n = inverse_root(simd.fma(s, s, mid_x)), inverse_root(simd.fma(n, n, mid_x))
    bend = simd.fma(east, c_e, simd.fma(west, c_w, simd.fma(south, c_s, north * c_n)))
    from_inner, from_outer = values - inner, values - outer
    force = toward_outer * (from_outer * from_outer) - toward_inner * (from_inner * from_inner)
    wide = simd.fma(c, c, one)
    above = simd.fma(dt, simd.fma(mu, bend, force), c * wide)
    return above / simd.fma(mu * dt, (c_e + c_w) + (c_s + c_n), wide)


@kernel
def _step_and_length(c, squares, constants):
    """Return what `_step_row` computes; ``squares`` are those of the central differences."""
    zero, one, half, _, quarter, inverse_pi = constants
    size, wide = simd.maximum(c, zero - c), simd.fma(c, c, one)
    larger = simd.maximum(size, one)
    share = one / (wide * larger)
    t = simd.minimum(size, share * wide)
    angle = t * arctangent_ratio(t * t)
    angle = simd.select(simd.less(one, size), quarter - angle, angle)
    angle = simd.select(simd.less(c, zero), zero - angle, angle)
    length = share * larger * square_root(squares[0] + squares[1])
    return simd.fma(inverse_pi, angle, half), length


@kernel
def _iterate_vectors(image, phi, new, first, last, numbers, with_energy, sums):
    """Do what `_iterate_rows` does in one pass; rows have at least ``_LANES`` pixels.

    A row's last vector begins early enough to end with the row. Pixels that it shares with the
    vector before are written twice with the same value, but summed once (``fresh``).
    """
    width = image.shape[1]
    stride = width + 2
    numbers, constants = _vectors_of(numbers), _constants(image.dtype.type)
    zero, one, half = constants[:3]
    places = simd.count_up(np.int32(0), _LANES)
    for y in range(first, last):
        count, total, change = zero, zero, zero
        step, times, squared, length = zero, zero, zero, zero
        for begin in range(0, width, _LANES):
            x = min(begin, width - _LANES)
            at = (y + 1) * stride + x + 1
            fresh = simd.less(simd.fill(np.int32(begin - x - 1), _LANES), places)
            values, around = simd.load(image, y * width + x, _LANES), _neighbors(phi, at, stride)
            mid_x, mid_y = half * (around[2] - around[1]), half * (around[4] - around[3])
            squares = (mid_x * mid_x, mid_y * mid_y)
            moved = _moved(values, around, squares, numbers, constants)
            simd.store(new, at, moved)
            inside = simd.select(fresh, simd.select(simd.less(zero, moved), one, zero), zero)
            count, total = count + inside, simd.fma(inside, values, total)
            moved = simd.select(fresh, moved - around[0], zero)
            change = simd.fma(moved, moved, change)
            if with_energy:
                part, long = _step_and_length(around[0], squares, constants)
                length = length + simd.select(fresh, long, zero)
                part = simd.select(fresh, part, zero)
                step, part = step + part, part * values
                times, squared = times + part, simd.fma(part, values, squared)
        new[y + 1, 0], new[y + 1, width + 1] = new[y + 1, 1], new[y + 1, width]
        sums[y, 0], sums[y, 1], sums[y, 2] = (
            simd.total(count),
            simd.total(total),
            simd.total(change),
        )
        if with_energy:
            sums[y, 3], sums[y, 4] = simd.total(step), simd.total(times)
            sums[y, 5], sums[y, 6] = simd.total(squared), simd.total(length)


def iterate_level_set(image, phi, new, means, mu, weights, dt, with_energy, sums):
    """Make one iteration of Chan-Vese from ``phi`` to ``new``, both (H + 2, W + 2) with border.

    Parameters
    ----------
    image : (H, W), float32 or float64, as ``phi``
    means : float64, (2,)
        Mean intensity of the pixels above zero, and of the others.
    mu, dt : float
        Weight of the length, and time step.
    weights : float64, (2,)
        lambda of the two regions, in the order of ``means``.
    with_energy : bool
        Whether to write the columns of ``sums`` for the old level set.
    sums : float64, (H, 7)
        Written, row by row; see ``N_SUMS``.
    """
    vectors = True if simd.ENABLED and image.shape[1] >= _LANES else None
    _iterate(image, phi, new, means, mu, weights, dt, with_energy, sums, vectors)


@parallel_kernel
def _iterate(image, phi, new, means, mu, weights, dt, with_energy, sums, vectors):
    """Update all rows in blocks, then the rows of the border."""
    number = image.dtype.type
    numbers = (
        number(means[0]),
        number(means[1]),
        number(mu),
        number(weights[0]),
        number(weights[1]),
        number(dt),
    )
    height = image.shape[0]
    for block in prange(_N_BLOCKS):
        first, last = height * block // _N_BLOCKS, height * (block + 1) // _N_BLOCKS
        if vectors is None:
            _iterate_rows(image, phi, new, first, last, numbers, with_energy, sums)
        else:
            _iterate_vectors(image, phi, new, first, last, numbers, with_energy, sums)
    for x in range(new.shape[1]):  # numba is slow to compile the assignment to slices
        new[0, x], new[height + 1, x] = new[1, x], new[height, x]
