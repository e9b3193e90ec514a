"""Passes of deflated conjugate gradients over one system: parts, and what an iteration changes.

Arrays are laid out as in :mod:`hybridseg.kernels.random_walker`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels import _simd as simd
from hybridseg.kernels._compile import kernel
from hybridseg.kernels.random_walker import Real, Whole

_LANES = 8


@kernel
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@kernel
def strong_parts(
    links: Real, ground: Real, offsets: Whole, weak: float, part: NDArray[np.int32]
) -> int:
    """Number the parts that links of at least ``weak`` hold together, in order of first pixels.

    ``part`` (n,) becomes the number of each pixel's part, -1 where a pixel has no links and its
    ``ground`` is one: no unknown, or one that a smoother solves for. Returns how many parts there
    are.
    """
    n = len(part)
    for i in range(n):
        part[i] = i
    for o in range(len(offsets)):
        for i in range(n - offsets[o]):
            if links[o, i] >= weak:
                one, other = _root(part, i), _root(part, i + offsets[o])
                part[max(one, other)] = min(one, other)
    n_parts = 0
    for i in range(n):
        if part[i] < i:
            part[i] = part[part[i]]  # its root came before, and has its number
            continue
        linked = ground[i] != 1
        for o in range(len(offsets)):
            step = offsets[o]
            if links[o, i] > 0 or (i >= step and links[o, i - step] > 0):
                linked = True
        part[i] = n_parts if linked else -1
        n_parts += linked
    return n_parts


@kernel
def _differ(part, i, number):
    """Whether a pixel from i on is of another part than ``number``."""
    apart = simd.load(part, i, _LANES) ^ simd.fill(number, _LANES)
    none = simd.fill(np.uint32(0), _LANES)
    return simd.any_true(simd.less(none, simd.reinterpret(apart, np.uint32)))


def sum_parts(part: NDArray[np.int32], x: Real, out: Real) -> None:
    """Add up ``x`` (n,) over the parts, into ``out`` (n_parts,)."""
    _sum_parts(part, x, out, True if simd.ENABLED else None)


@kernel
def _sum_parts(part, x, out, vectors):
    for number in range(len(out)):
        out[number] = 0
    i = 0
    while i < len(part):
        number = part[i]
        total = 0.0
        if vectors is not None:
            wide = simd.fill(0.0, _LANES)
            while i + _LANES <= len(part) and not _differ(part, i, number):
                wide = wide + simd.load(x, i, _LANES)
                i += _LANES
            total = simd.total(wide)
        while i < len(part) and part[i] == number:
            total += x[i]
            i += 1
        if number >= 0:
            out[number] += total


@kernel
def add_parts(part: NDArray[np.int32], values: Real, out: Real) -> None:
    """Add the value (n_parts,) of each pixel's part to ``out`` (n,)."""
    for i in range(len(part)):
        if part[i] >= 0:
            out[i] += values[part[i]]


def preconditioned(part, values, found, size: float, rest: Real, step: Real) -> tuple[float, float]:
    """Write ``size found``, and the value of each pixel's part added, to ``step``.

    Returns the largest absolute entry of ``step``, and its inner product with ``rest``. ``part``
    and ``values`` are those of :func:`add_parts`; ``found`` is float32, all others (n,) float64.
    """
    vectors = True if simd.ENABLED else None
    return _preconditioned(part, values, found, size, rest, step, vectors)


@kernel
def _preconditioned(part, values, found, size, rest, step, vectors):
    n, i = len(step), 0
    largest, product = 0.0, 0.0
    if vectors is not None:
        scale, zero = simd.fill(size, _LANES), simd.fill(0.0, _LANES)
        most, sums = zero, zero
        number, value = part[0], values[part[0]] if part[0] >= 0 else 0.0
        while i + _LANES <= n:
            moved = scale * simd.convert(simd.load(found, i, _LANES), np.float64)
            simd.store(step, i, moved)
            if _differ(part, i, number):
                for j in range(i, i + _LANES):
                    step[j] += values[part[j]] if part[j] >= 0 else 0.0
                number = part[i + _LANES - 1]
                value = values[number] if number >= 0 else 0.0
                moved = simd.load(step, i, _LANES)
            else:
                moved = moved + simd.fill(value, _LANES)
                simd.store(step, i, moved)
            most = simd.maximum(most, simd.maximum(moved, zero - moved))
            sums = simd.fma(moved, simd.load(rest, i, _LANES), sums)
            i += _LANES
        largest, product = simd.greatest(most), simd.total(sums)
    while i < n:
        step[i] = size * found[i] + (values[part[i]] if part[i] >= 0 else 0.0)
        largest = max(largest, abs(step[i]))
        product += step[i] * rest[i]
        i += 1
    return largest, product


def advance(length: float, along, product, x, rest, scale: float, single) -> float:
    """Go ``length`` along a direction: change ``x`` and ``rest``, whose product with it is given.

    Writes ``scale rest`` to ``single``, in float32; returns the largest absolute entry of ``rest``.
    """
    vectors = True if simd.ENABLED else None
    return _advance(length, along, product, x, rest, scale, single, vectors)


@kernel
def _advance(length, along, product, x, rest, scale, single, vectors):
    n, i = len(x), 0
    largest = 0.0
    if vectors is not None:
        zero, go = simd.fill(0.0, _LANES), simd.fill(length, _LANES)
        back, wide = simd.fill(-length, _LANES), simd.fill(scale, _LANES)
        most = zero
        while i + _LANES <= n:
            place = simd.load(x, i, _LANES)
            simd.store(x, i, simd.fma(go, simd.load(along, i, _LANES), place))
            left = simd.load(rest, i, _LANES)
            left = simd.fma(back, simd.load(product, i, _LANES), left)
            simd.store(rest, i, left)
            simd.store(single, i, simd.convert(wide * left, np.float32))
            most = simd.maximum(most, simd.maximum(left, zero - left))
            i += _LANES
        largest = simd.greatest(most)
    while i < n:
        x[i] += length * along[i]
        rest[i] -= length * product[i]
        single[i] = scale * rest[i]
        largest = max(largest, abs(rest[i]))
        i += 1
    return largest


@kernel
def turn(ratio: float, step: Real, along: Real) -> None:
    """Make ``along`` the direction ``step + ratio along``."""
    for i in range(len(step)):
        along[i] = step[i] + ratio * along[i]
