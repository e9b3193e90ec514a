"""Passes of deflated conjugate gradients over one system: parts, and what an iteration changes.

Arrays are laid out as in :mod:`hybridseg.kernels.laplacian.random_walker`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels._compile import inner_kernel, kernel
from hybridseg.kernels.laplacian.random_walker import Real, Whole, _product
from hybridseg.kernels.laplacian.stencils import LANES, laplacian
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.padding import whole
from hybridseg.kernels.vectors.way import way

#: Pixels that one pass takes before the next one follows it, from the cache.
_CHUNK = 2048


@inner_kernel
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
    row = len(offsets) - 1  # the links along rows, which make runs
    for i in range(n):
        before = i - offsets[row]
        part[i] = part[before] if before >= 0 and links[row, before] >= weak else i
    for o in range(row):
        one, other = -1, -1
        for i in range(n - offsets[o]):
            j = i + offsets[o]
            if links[o, i] >= weak and (part[i] != one or part[j] != other):
                one, other = part[i], part[j]  # which the next pixels of both runs share
                a, b = _root(part, one), _root(part, other)
                part[max(a, b)] = min(a, b)
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
def find_pulls(
    links: Real, steps: Whole, ground: Real, part: NDArray[np.int32]
) -> tuple[NDArray[np.int32], NDArray[np.int32], Real]:
    """Find what pulls at a part as a whole: the ground, and links to other parts.

    Returns the two pixels of each, int32, the second -1 for the ground, and the strengths.
    """
    n, n_found = len(part), 0
    for i in range(n):
        n_found += part[i] >= 0 and ground[i] != 0
    for o in range(len(steps)):
        for i in range(n - steps[o]):
            n_found += links[o, i] > 0 and part[i] != part[i + steps[o]]
    here, there = np.empty(n_found, np.int32), np.empty(n_found, np.int32)
    strength = np.empty(n_found, links.dtype)
    found = 0
    for i in range(n):
        if part[i] >= 0 and ground[i] != 0:
            here[found], there[found], strength[found] = i, -1, ground[i]
            found += 1
        for o in range(len(steps)):
            j = i + steps[o]
            if j < n and links[o, i] > 0 and part[i] != part[j]:
                here[found], there[found], strength[found] = i, j, links[o, i]
                found += 1
    return here, there, strength


@kernel
def take_pulls(
    here: NDArray[np.int32],
    there: NDArray[np.int32],
    strength: Real,
    part: NDArray[np.int32],
    size: float,
    x: Real,
    out: Real,
) -> None:
    """Take ``A (size x)``, added up over each part, from ``out`` (n_parts,).

    Links within a part cancel, so those of :func:`find_pulls` are all there are.
    """
    for k in range(len(here)):
        i, j = here[k], there[k]
        if j < 0:
            out[part[i]] -= strength[k] * (size * np.float64(x[i]))
        else:
            flow = strength[k] * (size * (np.float64(x[i]) - x[j]))
            out[part[i]] -= flow
            out[part[j]] += flow


@inner_kernel
def _differ(part, i, number):
    """Whether a pixel from i on is of another part than ``number``."""
    apart = simd.load(part, i, LANES) ^ simd.fill(number, LANES)
    none = simd.fill(np.uint32(0), LANES)
    return simd.any_true(simd.less(none, simd.reinterpret(apart, np.uint32)))


def sum_parts(part: NDArray[np.int32], x: Real, out: Real) -> None:
    """Add up ``x`` (n,) over the parts, into ``out`` (n_parts,)."""
    out[:] = 0
    _sum_parts(part, x, out, 0, len(part), way())


@kernel
def _sum_parts(part, x, out, first, last, vectors):
    i = first
    while i < last:
        number = part[i]
        total = 0.0
        if vectors is not None:
            wide = simd.fill(0.0, LANES)
            while i + LANES <= last and not _differ(part, i, number):
                wide = wide + simd.load(x, i, LANES)
                i += LANES
            total = simd.total(wide)
        while i < last and part[i] == number:
            total += x[i]
            i += 1
        if number >= 0:
            out[number] += total


@kernel
def add_parts(part: NDArray[np.int32], values: Real, out: Real) -> None:
    """Add the value of each pixel's part to ``out`` (n,); ``values`` is (n_parts,)."""
    for i in range(len(part)):
        if part[i] >= 0:
            out[i] += values[part[i]]


@inner_kernel
def _steps_to(part, padded, found, scale, i):
    """``scale found`` and the value of each pixel's part, of pixel i and the following ones.

    ``padded`` holds 0 for no part, and then the parts' values.
    """
    step = scale * simd.convert(simd.load(found, i, LANES), np.float64)
    number = part[i]
    if _differ(part, i, number):
        return step + simd.gather(padded, simd.load(part, i, LANES) + simd.fill(np.int32(1), LANES))
    return step + simd.fill(padded[number + 1], LANES)


def measure(part, padded, found, size: float, rest: Real) -> tuple[float, float]:
    """Of the preconditioned residual, the largest absolute entry and the product with ``rest``.

    Its entry is ``size found`` and the value of the pixel's part. ``padded`` (1 + n_parts,) holds
    these values after a zero; ``found`` is float32 (n,), ``rest`` float64 (n,).
    """
    return _measure(part, padded, found, size, rest, way())


@kernel
def _measure(part, padded, found, size, rest, vectors):
    n, i = len(part), 0
    largest, product = 0.0, 0.0
    if vectors is not None:
        scale, zero = simd.fill(size, LANES), simd.fill(0.0, LANES)
        most, sums = zero, zero
        while i + LANES <= n:
            step = _steps_to(part, padded, found, scale, i)
            most = simd.maximum(most, simd.maximum(step, zero - step))
            sums = simd.fma(step, simd.load(rest, i, LANES), sums)
            i += LANES
        largest, product = simd.greatest(most), simd.total(sums)
    while i < n:
        step = size * np.float64(found[i]) + padded[part[i] + 1]
        largest = max(largest, abs(step))
        product += step * rest[i]
        i += 1
    return largest, product


def turn(part, padded, found, size: float, ratio: float, system, along, product) -> float:
    """Add the preconditioned residual to ``ratio along``: the new direction, and its product.

    ``system`` are the links, steps (a tuple) and ground; ``product`` becomes ``A along``. Returns
    the inner product of the two. The other arguments are those of :func:`measure`.
    """
    return _turn(part, padded, found, size, ratio, system, along, product, way())


@kernel
def _turn(part, padded, found, size, ratio, system, along, product, vectors):
    n, margin = len(along), max(system[1])
    bend, at = 0.0, margin
    for begin in range(0, n, _CHUNK):
        stop = min(begin + _CHUNK, n)
        _move(part, padded, found, size, ratio, along, begin, stop, vectors)
        # the product needs the direction ahead; it comes behind by whole vectors
        last = n - margin if stop == n else max(whole(stop - margin, LANES), at)
        bend += _bend(system, along, product, at, last, vectors)
        at = last
    return bend


@inner_kernel
def _move(part, padded, found, size, ratio, along, first, last, vectors):
    i = first
    if vectors is not None:
        scale, wide = simd.fill(size, LANES), simd.fill(ratio, LANES)
        while i + LANES <= last:
            step = _steps_to(part, padded, found, scale, i)
            simd.store(along, i, simd.fma(wide, simd.load(along, i, LANES), step))
            i += LANES
    while i < last:
        along[i] = size * np.float64(found[i]) + padded[part[i] + 1] + ratio * along[i]
        i += 1


@inner_kernel
def _bend(system, along, product, first, last, vectors):
    """Write ``A along`` to ``product``, and give the inner product of the two."""
    links, steps, ground = system
    i, bend = first, 0.0
    if vectors is not None:
        sums = simd.fill(0.0, LANES)
        while i < last and i % LANES != 0:
            product[i] = _product(links, steps, ground, along, i)
            bend += product[i] * along[i]
            i += 1
        while i + LANES <= last:
            there = laplacian(links, steps, ground, along, i)
            simd.store(product, i, there)
            sums = simd.fma(there, simd.load(along, i, LANES), sums)
            i += LANES
        bend += simd.total(sums)
    while i < last:
        product[i] = _product(links, steps, ground, along, i)
        bend += product[i] * along[i]
        i += 1
    return bend


def advance(length: float, along, product, x, rest, scale: float, single, part, sums) -> float:
    """Go ``length`` along a direction: change ``x`` and ``rest``, whose product with it is given.

    Writes ``scale rest`` to ``single``, in float32, and the sums of ``rest`` over the parts to
    ``sums``; returns the largest absolute entry of ``rest``.
    """
    return _advance(length, along, product, x, rest, scale, single, part, sums, way())


@kernel
def _advance(length, along, product, x, rest, scale, single, part, sums, vectors):
    n, largest = len(x), 0.0
    for number in range(len(sums)):
        sums[number] = 0
    for begin in range(0, n, _CHUNK):
        stop = min(begin + _CHUNK, n)
        some = _go(length, along, product, x, rest, scale, single, begin, stop, vectors)
        largest = max(largest, some)
        _sum_parts(part, rest, sums, begin, stop, vectors)
    return largest


@inner_kernel
def _go(length, along, product, x, rest, scale, single, first, last, vectors):
    i, largest = first, 0.0
    if vectors is not None:
        zero, go = simd.fill(0.0, LANES), simd.fill(length, LANES)
        back, wide = simd.fill(-length, LANES), simd.fill(scale, LANES)
        most = zero
        while i + LANES <= last:
            place = simd.load(x, i, LANES)
            simd.store(x, i, simd.fma(go, simd.load(along, i, LANES), place))
            left = simd.load(rest, i, LANES)
            left = simd.fma(back, simd.load(product, i, LANES), left)
            simd.store(rest, i, left)
            simd.store(single, i, simd.convert(wide * left, np.float32))
            most = simd.maximum(most, simd.maximum(left, zero - left))
            i += LANES
        largest = simd.greatest(most)
    while i < last:
        x[i] += length * along[i]
        rest[i] -= length * product[i]
        single[i] = scale * rest[i]
        largest = max(largest, abs(rest[i]))
        i += 1
    return largest
