"""Passes of deflated conjugate gradients: parts of the grid, and the updates of an iteration.

The method is A-DEF2 of [1]_, with one deflation vector for each *part*: a set of unknowns that
strong links join, while only weak links leave it. `strong_parts` finds the parts by union-find,
`find_pulls` the links between them. `take_pulls`, `measure`, `turn` and `advance` are one
iteration; each fuses what it can into one pass over memory.

Arrays are laid out as in `random_walker`. ``part`` (n,) int32 is the part of each pixel, -1 for
none. ``padded`` (1 + n_parts,) holds 0 and then a value for each part, so that ``part + 1`` is a
valid index everywhere. The preconditioned residual is not stored: its entry at pixel i is
``size * found[i] + padded[part[i] + 1]``, where ``found`` (float32) comes from a multigrid cycle
applied to the residual divided by ``size``. All other vectors are float64.

`hybridseg.inference.random_walk.deflated_cg` calls these kernels. Each runs on one thread; labels
are solved for in several Python threads.

References
----------
.. [1] J. M. Tang, R. Nabben, C. Vuik, Y. A. Erlangga, "Comparison of two-level preconditioners
   derived from deflation, domain decomposition and multigrid methods", Journal of Scientific
   Computing 39, 2009.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels._compile import inner_kernel, kernel
from hybridseg.kernels.laplacian.random_walker import Real, Whole, _product
from hybridseg.kernels.laplacian.stencils import LANES, laplacian
from hybridseg.kernels.sparse.union_find import find_root
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.padding import whole
from hybridseg.kernels.vectors.way import way

#: Pixels that one loop handles before the next loop follows it, while they are in the cache.
_CHUNK = 2048


@kernel
def strong_parts(
    links: Real, ground: Real, offsets: Whole, weak: float, part: NDArray[np.int32]
) -> int:
    """Number the parts that links of at least ``weak`` join, in the order of their first pixels.

    ``part`` (n,) becomes the part of each pixel, -1 where a pixel has no links and its ``ground``
    is 1: it is not an unknown, or the smoother solves for it. Returns the number of parts.
    """
    n = len(part)
    row = len(offsets) - 1  # the last offset leads along rows
    for i in range(n):
        # runs: a pixel has the parent of the pixel before it in the row
        before = i - offsets[row]
        part[i] = part[before] if before >= 0 and links[row, before] >= weak else i
    # union along the other axes; the lower number becomes the root
    for o in range(row):
        one, other = -1, -1
        for i in range(n - offsets[o]):
            j = i + offsets[o]
            if links[o, i] >= weak and (part[i] != one or part[j] != other):
                one, other = part[i], part[j]  # the next pixels of both runs have the same
                a, b = find_root(part, one), find_root(part, other)
                part[max(a, b)] = min(a, b)
    # numbers; ``part`` holds parents after pixel i and numbers before it
    n_parts = 0
    for i in range(n):
        if part[i] < i:
            part[i] = part[part[i]]  # the parent came before, and holds its number
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
    """Find the links that leave a part: to the ground, and to other parts.

    Returns the two pixels of each link, int32, the second -1 for the ground, and the weights.
    """
    # count first, then write in the order of the pixels
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
    """Subtract ``A (size * x)``, summed over each part, from ``out`` (n_parts,).

    Links within a part cancel in the sum, so only the links of :func:`find_pulls` count.
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
    """Return whether any pixel of a vector, from i on, has another part than ``number``."""
    apart = simd.load(part, i, LANES) ^ simd.fill(number, LANES)
    none = simd.fill(np.uint32(0), LANES)
    return simd.any_true(simd.less(none, simd.reinterpret(apart, np.uint32)))


def sum_parts(part: NDArray[np.int32], x: Real, out: Real) -> None:
    """Write the sums of ``x`` (n,) over the parts to ``out`` (n_parts,)."""
    out[:] = 0
    _sum_parts(part, x, out, 0, len(part), way())


@kernel
def _sum_parts(part, x, out, first, last, vectors):
    """Add the sums over the pixels ``first`` to ``last - 1`` to ``out``.

    Parts come in long runs. A run is summed in registers, by vectors while all pixels have its
    part.
    """
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
    """Add the value of each pixel's part, of ``values`` (n_parts,), to ``out`` (n,)."""
    for i in range(len(part)):
        if part[i] >= 0:
            out[i] += values[part[i]]


@inner_kernel
def _steps_to(part, padded, found, scale, i):
    """Return the preconditioned residual for a vector of pixels from i on."""
    step = scale * simd.convert(simd.load(found, i, LANES), np.float64)
    number = part[i]
    if _differ(part, i, number):
        return step + simd.gather(padded, simd.load(part, i, LANES) + simd.fill(np.int32(1), LANES))
    return step + simd.fill(padded[number + 1], LANES)


def measure(part, padded, found, size: float, rest: Real) -> tuple[float, float]:
    """Return the preconditioned residual's largest absolute entry and product with ``rest``.

    ``found`` (n,) is float32 and ``rest`` (n,), the residual, float64; see the head of the module.
    """
    return _measure(part, padded, found, size, rest, way())


@kernel
def _measure(part, padded, found, size, rest, vectors):
    """Do what `measure` does: whole vectors, then the last pixels one by one."""
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
    """Compute the new direction, its product with A, and the inner product of the two.

    ``along`` becomes the preconditioned residual plus ``ratio * along``, ``product`` becomes ``A
    along``. ``system`` is the links, the steps (a tuple) and the ground; the other arguments are
    those of :func:`measure`. Returns the inner product.
    """
    return _turn(part, padded, found, size, ratio, system, along, product, way())


@kernel
def _turn(part, padded, found, size, ratio, system, along, product, vectors):
    """Do what `turn` does, chunk by chunk: the product follows the direction in the cache."""
    n, margin = len(along), max(system[1])
    bend, at = 0.0, margin
    for begin in range(0, n, _CHUNK):
        stop = min(begin + _CHUNK, n)
        _move(part, padded, found, size, ratio, along, begin, stop, vectors)
        # the product reads ``margin`` pixels ahead, so it stays behind, by whole vectors
        last = n - margin if stop == n else max(whole(stop - margin, LANES), at)
        bend += _bend(system, along, product, at, last, vectors)
        at = last
    return bend


@inner_kernel
def _move(part, padded, found, size, ratio, along, first, last, vectors):
    """Update the direction from pixel ``first`` to ``last - 1``."""
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
    """Write ``A along`` to ``product`` and return their inner product, in a range of pixels."""
    links, steps, ground = system
    i, bend = first, 0.0
    if vectors is not None:
        sums = simd.fill(0.0, LANES)
        # vectors begin at multiples of their length
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
    """Move ``x`` by ``length * along``, and ``rest`` by ``-length * product``.

    Also writes ``scale * rest`` to ``single`` (float32), and the sums of ``rest`` over the parts to
    ``sums`` (n_parts,). Returns the largest absolute entry of ``rest``.
    """
    return _advance(length, along, product, x, rest, scale, single, part, sums, way())


@kernel
def _advance(length, along, product, x, rest, scale, single, part, sums, vectors):
    """Do what `advance` does, chunk by chunk: the sums follow in the cache."""
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
    """Update ``x``, ``rest`` and ``single`` in a range of pixels; return the largest entry."""
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
