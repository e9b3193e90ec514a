"""SLIC superpixels: the assignment of pixels to centres, and the sums for the new centres.

A picture is a volume of depth 1 here. The image is cut into a grid of cells, each of which owns
one centre; a pixel tests the centres of its own cell and of the cells around it (9 in a picture,
27 in a volume). Threads share the *bands*, the rows of cells along the last axis; within one, two
rows of pixels are assigned at once, so that what a candidate brings is read once for both.

The colours are 16-bit whole numbers: a picture then takes half the memory traffic, and the sums of
the centres are exact, so that they are kept by what the few pixels that changed take along. No
result depends on how many threads there are, or on the order of any sum.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import get_num_threads, prange

from hybridseg.kernels import _simd as simd
from hybridseg.kernels._compile import kernel, parallel_kernel
from hybridseg.kernels.slic_centres import centre_sums

#: Pixels in one vector; the rows of `planes` are padded to this and one vector more. A cell's last
#: vector is partly wasted, which costs more with longer ones.
LANES = 8
#: The distance needs at least so many channels; missing ones are zero.
_FIRST = 3


@kernel
def _band_table(cz, cy, bounds, grid, centres, alive, weights, offset, coefs, names, places):
    """What the distance to each candidate of each cell of a band needs, written in place.

    With ``e`` the candidate, ``coefs[e]`` is (w_x^2 times -2 (x_k - x_0), -2 c_k, the part that
    does not depend on the pixel), ``names[e]`` its number and ``places[e]`` its (z, y); x_0 is
    the middle of the cell, ``offset[x]`` the pixel's distance from it. A dead candidate is
    infinitely far.
    """
    n_channels = centres.shape[1] - 3
    last = coefs.shape[1] - 1
    e = 0
    for cx in range(grid[2]):
        left, right = bounds[2][cx], bounds[2][cx + 1]
        middle = np.float32(left + right) * np.float32(0.5)
        for x in range(left, right):
            offset[x] = np.float32(x) - middle
        for z in range(cz - 1, cz + 2):
            if grid[0] == 1 and z != cz:
                continue
            for y in range(cy - 1, cy + 2):
                for x in range(cx - 1, cx + 2):
                    inside = 0 <= z < grid[0] and 0 <= y < grid[1] and 0 <= x < grid[2]
                    k = (z * grid[1] + y) * grid[2] + x if inside else 0
                    names[e] = k
                    if not inside or not alive[k]:
                        for c in range(last):
                            coefs[e, c] = np.float32(0)
                        coefs[e, last] = np.float32(np.inf)
                        places[0, e] = np.float32(0)
                        places[1, e] = np.float32(0)
                        e += 1
                        continue
                    dx = centres[k, n_channels + 2] - middle
                    square = weights[2] * weights[2]
                    constant = square * dx * dx
                    coefs[e, 0] = np.float32(-2) * square * dx
                    for c in range(n_channels):
                        constant += centres[k, c] * centres[k, c]
                        coefs[e, 1 + c] = np.float32(-2) * centres[k, c]
                    coefs[e, last] = constant
                    places[0, e] = centres[k, n_channels]
                    places[1, e] = centres[k, n_channels + 1]
                    e += 1


@kernel
def _row_bases(z, y, weights, coefs, places, bases):
    """Add to each candidate's constant its distance across the row."""
    last = coefs.shape[1] - 1
    z, y = np.float32(z), np.float32(y)
    for e in range(bases.size):
        dz = (z - places[0, e]) * weights[0]
        dy = (y - places[1, e]) * weights[1]
        bases[e] = coefs[e, last] + (dz * dz + dy * dy)


@kernel
def _read_row(planes, z, y, row):
    """Colours of a row as float32: the channels from ``_FIRST`` on."""
    for c in range(row.shape[0]):
        source = planes[_FIRST + c, z, y]
        target = row[c]
        for x in range(source.size):
            target[x] = np.float32(source[x])


@kernel
def _load_floats(planes, at):
    return simd.convert(simd.convert(simd.load(planes, at, LANES), np.int32), np.float32)


@kernel
def _nearest_vectors(planes, z, y, below, rows, offset, x_bounds, coefs, names, bases, nearest):
    """Nearest candidate of each pixel of two rows; the first of equal ones wins.

    What a vector holds beyond its cell is wrong until the next cell, or nobody, overwrites it.
    """
    n_channels, _, height, pitch = planes.shape
    start = np.uint64((z * height + y) * pitch)
    down = np.uint64((below - y) * pitch)
    # a channel that is missing is read from another, and weighs nothing
    plane = planes.shape[1] * height * pitch
    green = np.uint64(min(1, n_channels - 1) * plane)
    blue = np.uint64(min(2, n_channels - 1) * plane)
    n_more, width = np.uint64(rows.shape[1]), np.uint64(pitch)
    n_cells, one = x_bounds.size - 1, np.uint64(1)
    n_near, n_coefs = np.uint64(names.size // n_cells), np.uint64(coefs.shape[1])
    weights, bases, far = coefs.ravel(), bases.ravel(), np.uint64(names.size)
    for cx in range(n_cells):
        first = np.uint64(cx) * n_near
        for x in range(x_bounds[cx], x_bounds[cx + 1], LANES):
            at = np.uint64(x)
            here, there = start + at, start + at + down
            across = simd.load(offset, at, LANES)
            r, r2 = _load_floats(planes, here), _load_floats(planes, there)
            g, g2 = _load_floats(planes, here + green), _load_floats(planes, there + green)
            b, b2 = _load_floats(planes, here + blue), _load_floats(planes, there + blue)
            best = simd.fill(np.float32(np.inf), LANES)
            best2 = best
            name = simd.fill(np.int32(-1), LANES)
            name2 = name
            w = first * n_coefs
            for e in range(first, first + n_near):
                weight = simd.fill(weights[w], LANES)
                distance = simd.fma(weight, across, simd.fill(bases[e], LANES))
                distance2 = simd.fma(weight, across, simd.fill(bases[far + e], LANES))
                weight = simd.fill(weights[w + one], LANES)
                distance, distance2 = simd.fma(weight, r, distance), simd.fma(weight, r2, distance2)
                weight = simd.fill(weights[w + np.uint64(2)], LANES)
                distance, distance2 = simd.fma(weight, g, distance), simd.fma(weight, g2, distance2)
                weight = simd.fill(weights[w + np.uint64(3)], LANES)
                distance, distance2 = simd.fma(weight, b, distance), simd.fma(weight, b2, distance2)
                for c in range(n_more):
                    weight = simd.fill(weights[w + c + np.uint64(4)], LANES)
                    more = simd.load(rows, at + c * width, LANES)
                    more2 = simd.load(rows, at + (c + n_more) * width, LANES)
                    distance = simd.fma(weight, more, distance)
                    distance2 = simd.fma(weight, more2, distance2)
                w += n_coefs
                number = simd.fill(names[e], LANES)
                name = simd.select(simd.less(distance, best), number, name)
                best = simd.minimum(distance, best)
                name2 = simd.select(simd.less(distance2, best2), number, name2)
                best2 = simd.minimum(distance2, best2)
            simd.store(nearest, at, name)
            simd.store(nearest, at + width, name2)


@kernel
def _nearest_numbers(planes, z, y, offset, x_bounds, coefs, names, bases, nearest):
    """The plain twin of ``_nearest_vectors``, of one row."""
    n_channels = planes.shape[0]
    n_cells = x_bounds.size - 1
    n_near = names.size // n_cells
    for cx in range(n_cells):
        for x in range(x_bounds[cx], x_bounds[cx + 1]):
            best = np.float32(np.inf)
            name = np.int32(-1)
            for e in range(cx * n_near, (cx + 1) * n_near):
                distance = bases[e] + coefs[e, 0] * offset[x]
                for c in range(n_channels):
                    distance += coefs[e, 1 + c] * np.float32(planes[c, z, y, x])
                if distance < best:
                    best = distance
                    name = names[e]
            nearest[x] = name


@kernel
def _find_changed(labels, nearest, begin, changed, n_changed):
    """Write the places of the pixels that get another label; no branch to be guessed wrong."""
    for x in range(np.uint64(begin), np.uint64(labels.size)):
        changed[n_changed] = x
        n_changed += np.uint64((labels[x] != nearest[x]) & (labels[x] >= 0))
    return n_changed


@kernel
def _find_changed_vectors(labels, nearest, changed):
    """The same as ``_find_changed``, quick where few pixels change."""
    whole = labels.size - labels.size % LANES
    zero = simd.fill(np.int32(0), LANES)
    n_changed = np.uint64(0)
    for begin in range(0, whole, LANES):
        x = np.uint64(begin)
        old = simd.load(labels, x, LANES)
        same = simd.bits(simd.equal(old, simd.load(nearest, x, LANES)))
        left = np.uint64((1 << LANES) - 1) & ~(same | simd.bits(simd.less(old, zero)))
        while left:
            changed[n_changed] = x + simd.lowest(left)
            left &= left - np.uint64(1)
            n_changed += np.uint64(1)
    return _find_changed(labels, nearest, whole, changed, n_changed)


@kernel
def _take_over(labels, nearest):
    """Take over a row's new labels; the number of pixels that change."""
    n_changed = 0
    for x in range(np.uint64(labels.size)):
        old, new = labels[x], nearest[x]
        n_changed += (old != new) & (old >= 0)
        labels[x] = new if old >= 0 else old
    return n_changed


@kernel
def _move_changed(planes, z, y, nearest, changed, n_changed, labels, changes):
    """Take over a row's new labels; the pixels that change take their colours and places along."""
    n_channels = np.uint64(planes.shape[0])
    for i in range(n_changed):
        x = np.uint64(changed[i])
        source, target = np.uint64(labels[x]), np.uint64(nearest[x])
        labels[x] = nearest[x]
        for c in range(n_channels):
            value = np.int64(planes[c, z, y, x])
            changes[source, c] -= value
            changes[target, c] += value
        changes[source, n_channels] -= z
        changes[target, n_channels] += z
        changes[source, n_channels + np.uint64(1)] -= y
        changes[target, n_channels + np.uint64(1)] += y
        changes[source, n_channels + np.uint64(2)] -= np.int64(x)
        changes[target, n_channels + np.uint64(2)] += np.int64(x)
        changes[source, n_channels + np.uint64(3)] -= 1
        changes[target, n_channels + np.uint64(3)] += 1
    return np.int64(n_changed)


@kernel
def _renew(changes, sums, centres):
    """Add to the sums what each share of the bands holds; centres that have pixels follow them."""
    n_chunks, n_centres, n_sums = changes.shape
    for k in range(n_centres):
        for chunk in range(n_chunks):
            for c in range(n_sums):
                sums[k, c] += changes[chunk, k, c]
                changes[chunk, k, c] = 0
        count = sums[k, n_sums - 1]
        if count > 0:
            for c in range(n_sums - 1):
                centres[k, c] = np.float32(sums[k, c] / count)


def assign_pixels(planes, bounds, centres, alive, weights, labels, sums, n_iter=1):
    """Give each pixel the nearest centre of its own and the neighbouring cells, again and again.

    The squared distance is ``sum_c (color_c - centre_c)^2 + sum_a (weight_a (p_a - centre_a))^2``,
    Achanta et al. (2012), equation (3), with compactness, grid step and spacing in the weights.
    The squares are multiplied out, and what all centres share is left out: a candidate costs one
    multiplication for each channel and one for the column. From the second pass on, the sums are
    kept by the pixels that change. After each pass a centre that has pixels moves to their mean;
    passes end early when no pixel changes. Results are the same, bit for bit, for any number of
    threads.

    Parameters
    ----------
    planes : int16 array (C, D, H, P), C-contiguous, P a multiple of LANES and >= W + LANES
    bounds : three int64 arrays (grid_a + 1,)
        First pixel of each cell along each axis, and the length of the axis.
    centres : float32 array (R, C + 3), R = number of cells in raster order, written
        Colours, then the position (z, y, x) in pixels.
    alive : bool array (R,)
        Where False, no pixel may go there. The centre of a labelled pixel's own cell is alive.
    weights : float32 array (3,)
        What one pixel of distance along each axis weighs against a unit of colour.
    labels : int32 array (D, H, W), C-contiguous, written
        A negative value stays as it is.
    sums : int64 array (R, C + 4), written
        As from ``centre_sums`` for the labels after the last pass.
    n_iter : int
        Passes at most.

    Returns
    -------
    n_changed : int
        The number of pixels that changed in the last pass.
    """
    changes = np.zeros((get_num_threads(), *sums.shape), np.int64)
    n_changed = np.zeros(len(changes), np.int64)
    room = _room(planes, bounds, len(changes))
    run: Any = _pass_vectors
    if not simd.ENABLED:
        run, room = _pass_numbers, room[:-1]  # which reads the planes anew, and needs no rows
    total = 0
    for i in range(n_iter):
        run(planes, bounds, centres, alive, weights, labels, changes, i == 0, n_changed, *room)
        if i == 0:
            centre_sums(planes, labels, sums)
        _renew(changes, sums, centres)
        total = int(n_changed.sum())
        if total == 0:
            break
    return total


def _room(planes, bounds, n_shares):
    """Where each share keeps its candidates and its rows."""
    n_x = len(bounds[2]) - 1
    n_near = n_x * (9 if len(bounds[0]) == 2 else 27)
    n_more, pitch = max(planes.shape[0] - _FIRST, 0), planes.shape[3]
    coefs = np.zeros((n_shares, n_near, n_more + _FIRST + 2), np.float32)
    places, bases = np.zeros((2, n_shares, 2, n_near), np.float32)
    rows = np.zeros((n_shares, 2, n_more, pitch), np.float32)
    offset = np.zeros((n_shares, pitch), np.float32)
    names = np.zeros((n_shares, n_near), np.int32)
    found = np.zeros((n_shares, 3, pitch), np.int32)  # nearest ones of two rows; what changed
    return coefs, places, bases, offset, names, found, rows


@kernel
def _share_vectors(
    planes, bounds, centres, alive, weights, labels, changes, first, share, n_shares,
    coefs, places, bases, offset, names, found, rows,
):  # fmt: skip
    """Assign the pixels of one share of the bands; the number of pixels that changed."""
    grid = (bounds[0].size - 1, bounds[1].size - 1, bounds[2].size - 1)
    n_bands, total = grid[0] * grid[1], 0
    for band in range(share * n_bands // n_shares, (share + 1) * n_bands // n_shares):
        cz, cy = band // grid[1], band % grid[1]
        _band_table(cz, cy, bounds, grid, centres, alive, weights, offset, coefs, names, places)
        for z in range(bounds[0][cz], bounds[0][cz + 1]):
            for y in range(bounds[1][cy], bounds[1][cy + 1], 2):
                below = min(y + 1, bounds[1][cy + 1] - 1)
                for row in range(2):
                    _row_bases(z, y if row == 0 else below, weights, coefs, places, bases[row])
                    _read_row(planes, z, y if row == 0 else below, rows[row])
                _nearest_vectors(
                    planes, z, y, below, rows, offset, bounds[2], coefs, names, bases, found
                )
                for row in range(1 + below - y):
                    target = labels[z, y + row]
                    if first:
                        total += _take_over(target, found[row])
                        continue
                    n_changed = _find_changed_vectors(target, found[row], found[2])
                    total += _move_changed(
                        planes, z, y + row, found[row], found[2], n_changed, target, changes
                    )
    return total


@parallel_kernel
def _pass_vectors(
    planes, bounds, centres, alive, weights, labels, changes, first, n_changed,
    coefs, places, bases, offset, names, found, rows,
):  # fmt: skip
    n_shares = changes.shape[0]
    for i in prange(n_shares):
        share = np.int64(i)  # signed, so that what is called is compiled once
        n_changed[share] = _share_vectors(
            planes, bounds, centres, alive, weights, labels, changes[share], first, share, n_shares,
            coefs[share], places[share], bases[share], offset[share], names[share],
            found[share], rows[share],
        )  # fmt: skip


@kernel
def _share_numbers(
    planes, bounds, centres, alive, weights, labels, changes, first, share, n_shares,
    coefs, places, bases, offset, names, found,
):  # fmt: skip
    """The plain twin of ``_share_vectors``."""
    grid = (bounds[0].size - 1, bounds[1].size - 1, bounds[2].size - 1)
    nearest, n_bands, total = found[0], grid[0] * grid[1], 0
    for band in range(share * n_bands // n_shares, (share + 1) * n_bands // n_shares):
        cz, cy = band // grid[1], band % grid[1]
        _band_table(cz, cy, bounds, grid, centres, alive, weights, offset, coefs, names, places)
        for z in range(bounds[0][cz], bounds[0][cz + 1]):
            for y in range(bounds[1][cy], bounds[1][cy + 1]):
                _row_bases(z, y, weights, coefs, places, bases[0])
                _nearest_numbers(planes, z, y, offset, bounds[2], coefs, names, bases[0], nearest)
                target = labels[z, y]
                if first:
                    total += _take_over(target, nearest)
                    continue
                n_changed = _find_changed(target, nearest, 0, found[2], np.uint64(0))
                total += _move_changed(planes, z, y, nearest, found[2], n_changed, target, changes)
    return total


@parallel_kernel
def _pass_numbers(
    planes, bounds, centres, alive, weights, labels, changes, first, n_changed,
    coefs, places, bases, offset, names, found,
):  # fmt: skip
    """The plain twin of ``_pass_vectors``."""
    n_shares = changes.shape[0]
    for i in prange(n_shares):
        share = np.int64(i)
        n_changed[share] = _share_numbers(
            planes, bounds, centres, alive, weights, labels, changes[share], first, share, n_shares,
            coefs[share], places[share], bases[share], offset[share], names[share], found[share],
        )  # fmt: skip
