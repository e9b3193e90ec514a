"""SLIC superpixels: the assignment of pixels to centres, and the sums for the new centres.

A picture is a volume of depth 1 here. The image is cut into a grid of cells, each of which owns
one centre; a pixel tests the centres of its own cell and of the cells around it (9 in a picture,
27 in a volume). Threads share the *bands*, the rows of cells along the last axis.

The colours are 16-bit whole numbers: a picture then takes half the memory traffic, and the sums of
the centres are exact, so that they are kept by what the few pixels that changed take along. No
result depends on how many threads there are, or on the order of any sum.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from hybridseg.kernels import _simd as simd
from hybridseg.kernels._compile import kernel, parallel_kernel

#: Pixels in one vector; the rows of `planes` are padded to this and one vector more.
LANES = 16
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
    """Colours of a row as float32, (channels, padded length); channels beyond stay zero."""
    for c in range(planes.shape[0]):
        source = planes[c, z, y]
        target = row[c]
        for x in range(source.size):
            target[x] = np.float32(source[x])


@kernel
def _nearest_vectors(row, offset, x_bounds, n_channels, coefs, names, bases, nearest):
    """Nearest candidate of each pixel of a row; the first of equal ones wins.

    What a vector holds beyond its cell is wrong until the next cell, or nobody, overwrites it.
    """
    pitch = np.uint64(row.shape[1])
    n_cells = x_bounds.size - 1
    n_near = bases.size // n_cells
    for cx in range(n_cells):
        for x in range(x_bounds[cx], x_bounds[cx + 1], LANES):
            at = np.uint64(x)
            across = simd.load(offset, at, LANES)
            first = simd.load(row, at, LANES)
            second = simd.load(row, at + pitch, LANES)
            third = simd.load(row, at + pitch + pitch, LANES)
            best = simd.fill(np.float32(np.inf), LANES)
            name = simd.fill(np.int32(-1), LANES)
            for e in range(np.uint64(cx * n_near), np.uint64((cx + 1) * n_near)):
                coef = coefs[e]
                distance = simd.fill(bases[e], LANES)
                distance = simd.fma(simd.fill(coef[np.uint64(0)], LANES), across, distance)
                distance = simd.fma(simd.fill(coef[np.uint64(1)], LANES), first, distance)
                distance = simd.fma(simd.fill(coef[np.uint64(2)], LANES), second, distance)
                distance = simd.fma(simd.fill(coef[np.uint64(3)], LANES), third, distance)
                for c in range(np.uint64(_FIRST), np.uint64(n_channels)):
                    more = simd.load(row, at + c * pitch, LANES)
                    weight = simd.fill(coef[c + np.uint64(1)], LANES)
                    distance = simd.fma(weight, more, distance)
                nearer = simd.less(distance, best)
                best = simd.select(nearer, distance, best)
                name = simd.select(nearer, simd.fill(names[e], LANES), name)
            simd.store(nearest, at, name)


@kernel
def _nearest_numbers(row, offset, x_bounds, n_channels, coefs, names, bases, nearest):
    """The plain twin of ``_nearest_vectors``."""
    n_cells = x_bounds.size - 1
    n_near = bases.size // n_cells
    for cx in range(n_cells):
        for x in range(x_bounds[cx], x_bounds[cx + 1]):
            best = np.float32(np.inf)
            name = np.int32(-1)
            for e in range(cx * n_near, (cx + 1) * n_near):
                distance = bases[e] + coefs[e, 0] * offset[x]
                for c in range(n_channels):
                    distance += coefs[e, 1 + c] * row[c, x]
                if distance < best:
                    best = distance
                    name = names[e]
            nearest[x] = name


@kernel
def _local(label, cz, cy, grid):
    """Row of a centre in the part of a band, which holds the 3 x 3 rows of cells around it."""
    slab = grid[1] * grid[2]
    layer = int(label >= cz * slab) + int(label >= (cz + 1) * slab)
    return layer * 3 * grid[2] + label - (cz - 1 + layer) * slab - (cy - 1) * grid[2]


@kernel
def _find_changed(labels, nearest, changed):
    """Write the places of the pixels that get another label; no branch to be guessed wrong."""
    n_changed = np.uint64(0)
    for x in range(np.uint64(labels.size)):
        changed[n_changed] = x
        n_changed += np.uint64((labels[x] != nearest[x]) & (labels[x] >= 0))
    return n_changed


@kernel
def _move_changed(row, z, y, nearest, changed, labels, cz, cy, grid, part):
    """Take over a row's new labels; the pixels that change take their colours and places along."""
    n_changed = _find_changed(labels, nearest, changed)
    n_channels = np.uint64(part.shape[1] - 4)
    for i in range(n_changed):
        x = np.uint64(changed[i])
        source = np.uint64(_local(labels[x], cz, cy, grid))
        target = np.uint64(_local(nearest[x], cz, cy, grid))
        labels[x] = nearest[x]
        for c in range(n_channels):
            value = np.int64(row[c, x])
            part[source, c] -= value
            part[target, c] += value
        part[source, n_channels] -= z
        part[target, n_channels] += z
        part[source, n_channels + np.uint64(1)] -= y
        part[target, n_channels + np.uint64(1)] += y
        part[source, n_channels + np.uint64(2)] -= np.int64(x)
        part[target, n_channels + np.uint64(2)] += np.int64(x)
        part[source, n_channels + np.uint64(3)] -= 1
        part[target, n_channels + np.uint64(3)] += 1
    return np.int64(n_changed)


@kernel
def _gather_bands(parts, grid, sums):
    """Add to the sums what the bands hold for each centre."""
    n_z, n_y, n_x = grid
    for band in range(n_z * n_y):
        z, y = band // n_y, band % n_y
        here = sums[band * n_x : (band + 1) * n_x]
        for cz in range(max(z - 1, 0), min(z + 2, n_z)):
            for cy in range(max(y - 1, 0), min(y + 2, n_y)):
                row = ((z - cz + 1) * 3 + y - cy + 1) * n_x
                part = parts[cz * n_y + cy]
                for i in range(n_x):
                    for c in range(parts.shape[2]):
                        here[i, c] += part[row + i, c]


@kernel
def _add_stretch(planes, z, y, begin, end, sums):
    n_channels, length = planes.shape[0], end - begin
    for c in range(n_channels):
        stretch = planes[c, z, y, begin:end]
        total = 0
        for i in range(length):
            total += stretch[i]
        sums[c] += total
    sums[n_channels] += z * length
    sums[n_channels + 1] += y * length
    sums[n_channels + 2] += (begin + end - 1) * length // 2
    sums[n_channels + 3] += length


@kernel
def _squared_gradient(planes, inside, z, y, x):
    """Sum of squared central differences over channels and axes; one-sided at the ends."""
    depth, height, width = inside.shape
    total = 0
    for c in range(planes.shape[0]):
        plane = planes[c]
        dz = int(plane[min(z + 1, depth - 1), y, x]) - int(plane[max(z - 1, 0), y, x])
        dy = int(plane[z, min(y + 1, height - 1), x]) - int(plane[z, max(y - 1, 0), x])
        dx = int(plane[z, y, min(x + 1, width - 1)]) - int(plane[z, y, max(x - 1, 0)])
        total += dz * dz + dy * dy + dx * dx
    return total


@kernel
def _quietest(planes, inside, low, high):
    """Pixel of lowest gradient among those within one pixel of the middle, near ones first."""
    least, found = np.int64(2) ** 62, False
    best_z, best_y, best_x = 0, 0, 0
    for n_steps in range(4):
        for dz in range(-1, 2):
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    if abs(dz) + abs(dy) + abs(dx) != n_steps:
                        continue
                    z = min(max((low[0] + high[0]) // 2 + dz, low[0]), high[0])
                    y = min(max((low[1] + high[1]) // 2 + dy, low[1]), high[1])
                    x = min(max((low[2] + high[2]) // 2 + dx, low[2]), high[2])
                    if inside[z, y, x]:
                        slope = _squared_gradient(planes, inside, z, y, x)
                        if slope < least:
                            least, found = slope, True
                            best_z, best_y, best_x = z, y, x
    return found, best_z, best_y, best_x


@kernel
def centre_sums(planes, labels, n_centres):
    """Add up the colours, the positions and the number of the pixels of each centre.

    Parameters
    ----------
    planes : int16 array (C, D, H, >= W), C-contiguous
        What lies beyond the row of the labels is not looked at.
    labels : int32 array (D, H, W), C-contiguous
        Below ``n_centres``; negative is left out.
    n_centres : int

    Returns
    -------
    int64 array (R, C + 4)
        Sums of the channels and of the position (z, y, x) in pixels; the number of pixels.
    """
    sums = np.zeros((n_centres, planes.shape[0] + 4), np.int64)
    depth, height, width = labels.shape
    for z in range(depth):
        for y in range(height):
            row = labels[z, y]
            begin = 0
            while begin < width:
                end = begin + 1
                while end < width and row[end] == row[begin]:
                    end += 1
                if row[begin] >= 0:
                    _add_stretch(planes, z, y, begin, end, sums[row[begin]])
                begin = end
    return sums


@kernel
def leave_edges(planes, inside, bounds, centres):
    """Move each centre to the pixel of lowest gradient about the middle of its cell, in place.

    A centre on an edge would have a colour of neither side and lose all its pixels. Of the 9 or
    27 pixels, those nearer to the middle win where gradients are equal; a cell without a pixel
    inside there keeps its centre.

    Parameters
    ----------
    planes : int16 array (C, D, H, >= W), C-contiguous
    inside : bool array (D, H, W)
    bounds : three int64 arrays (grid_a + 1,)
    centres : float32 array (R, C + 3), written
    """
    n_channels = planes.shape[0]
    centre = 0
    for cz in range(bounds[0].size - 1):
        for cy in range(bounds[1].size - 1):
            for cx in range(bounds[2].size - 1):
                low = (bounds[0][cz], bounds[1][cy], bounds[2][cx])
                high = (bounds[0][cz + 1] - 1, bounds[1][cy + 1] - 1, bounds[2][cx + 1] - 1)
                found, z, y, x = _quietest(planes, inside, low, high)
                if found:
                    for c in range(n_channels):
                        centres[centre, c] = planes[c, z, y, x]
                    centres[centre, n_channels] = z
                    centres[centre, n_channels + 1] = y
                    centres[centre, n_channels + 2] = x
                centre += 1


def assign_pixels(planes, bounds, centres, alive, weights, labels, sums):
    """Give each pixel the nearest centre of its own and the neighbouring cells, in place.

    The squared distance is ``sum_c (color_c - centre_c)^2 + sum_a (weight_a (p_a - centre_a))^2``,
    Achanta et al. (2012), equation (3), with compactness, grid step and spacing in the weights.
    The squares are multiplied out, and what all centres share is left out: a candidate costs one
    multiplication for each channel and one for the row. The sums are kept by the pixels that
    change. Whole results are the same, bit for bit, for any number of threads.

    Parameters
    ----------
    planes : int16 array (C, D, H, P), C-contiguous, P a multiple of LANES and >= W + LANES
    bounds : three int64 arrays (grid_a + 1,)
        First pixel of each cell along each axis, and the length of the axis.
    centres : float32 array (R, C + 3), R = number of cells in raster order
        Colours, then the position (z, y, x) in pixels.
    alive : bool array (R,)
        Where False, no pixel may go there. The centre of a labelled pixel's own cell is alive.
    weights : float32 array (3,)
        What one pixel of distance along each axis weighs against a unit of colour.
    labels : int32 array (D, H, W), C-contiguous, written
        A negative value stays as it is.
    sums : int64 array (R, C + 4), written
        As from ``centre_sums`` for the labels, before and after.

    Returns
    -------
    n_changed : int
        The number of pixels that changed.
    """
    grid = tuple(len(b) - 1 for b in bounds)
    parts = np.zeros((grid[0] * grid[1], 9 * grid[2], len(planes) + 4), np.int64)
    run = _assign_vectors if simd.ENABLED else _assign_numbers
    n_changed = run(planes, bounds, grid, centres, alive, weights, labels, parts)
    _gather_bands(parts, grid, sums)
    return n_changed


@kernel
def _room(planes, grid):
    """Where a band keeps its candidates and its row."""
    n_near = 9 if grid[0] == 1 else 27
    n_coefs = max(planes.shape[0], _FIRST) + 2
    coefs = np.zeros((grid[2] * n_near, n_coefs), np.float32)
    names = np.zeros(grid[2] * n_near, np.int32)
    places = np.zeros((2, grid[2] * n_near), np.float32)
    bases = np.zeros(grid[2] * n_near, np.float32)
    row = np.zeros((max(planes.shape[0], _FIRST), planes.shape[3]), np.float32)
    offset = np.zeros(planes.shape[3], np.float32)
    nearest = np.zeros(planes.shape[3], np.int32)
    changed = np.zeros(planes.shape[3], np.int32)
    return coefs, names, places, bases, row, offset, nearest, changed


@kernel
def _band_vectors(planes, bounds, grid, centres, alive, weights, labels, part, cz, cy):
    """Assign the pixels of one row of cells; the number of pixels that changed."""
    coefs, names, places, bases, row, offset, nearest, changed = _room(planes, grid)
    _band_table(cz, cy, bounds, grid, centres, alive, weights, offset, coefs, names, places)
    n_changed = 0
    for z in range(bounds[0][cz], bounds[0][cz + 1]):
        for y in range(bounds[1][cy], bounds[1][cy + 1]):
            _row_bases(z, y, weights, coefs, places, bases)
            _read_row(planes, z, y, row)
            _nearest_vectors(row, offset, bounds[2], planes.shape[0], coefs, names, bases, nearest)
            n_changed += _move_changed(
                row, z, y, nearest, changed, labels[z, y], cz, cy, grid, part
            )
    return n_changed


@parallel_kernel
def _assign_vectors(planes, bounds, grid, centres, alive, weights, labels, parts):
    n_changed = 0
    for band in prange(grid[0] * grid[1]):
        cz, cy = band // grid[1], band % grid[1]
        n_changed += _band_vectors(
            planes, bounds, grid, centres, alive, weights, labels, parts[band], cz, cy
        )
    return n_changed


@kernel
def _band_numbers(planes, bounds, grid, centres, alive, weights, labels, part, cz, cy):
    """Assign the pixels of one row of cells; the number of pixels that changed."""
    coefs, names, places, bases, row, offset, nearest, changed = _room(planes, grid)
    _band_table(cz, cy, bounds, grid, centres, alive, weights, offset, coefs, names, places)
    n_changed = 0
    for z in range(bounds[0][cz], bounds[0][cz + 1]):
        for y in range(bounds[1][cy], bounds[1][cy + 1]):
            _row_bases(z, y, weights, coefs, places, bases)
            _read_row(planes, z, y, row)
            _nearest_numbers(row, offset, bounds[2], planes.shape[0], coefs, names, bases, nearest)
            n_changed += _move_changed(
                row, z, y, nearest, changed, labels[z, y], cz, cy, grid, part
            )
    return n_changed


@parallel_kernel
def _assign_numbers(planes, bounds, grid, centres, alive, weights, labels, parts):
    n_changed = 0
    for band in prange(grid[0] * grid[1]):
        cz, cy = band // grid[1], band % grid[1]
        n_changed += _band_numbers(
            planes, bounds, grid, centres, alive, weights, labels, parts[band], cz, cy
        )
    return n_changed
