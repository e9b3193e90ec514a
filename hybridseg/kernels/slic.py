"""SLIC superpixels: the assignment of pixels to centres, the new centres, the merging of scraps.

A picture is a volume of depth 1 here. The image is cut into a grid of cells, each of which owns
one centre; a pixel tests the centres of its own cell and of the cells around it (9 in a picture,
27 in a volume). Threads share the *bands*, the rows of cells along the last axis; no result
depends on how many threads there are.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from hybridseg.kernels._compile import kernel, parallel_kernel
from hybridseg.kernels.regions import find_root


@kernel
def _candidates(cz, cy, cx, grid, alive, found):
    """Write the living centres of the cells around a cell into ``found``, in ascending order."""
    n_found = 0
    for z in range(max(cz - 1, 0), min(cz + 2, grid[0])):
        for y in range(max(cy - 1, 0), min(cy + 2, grid[1])):
            for x in range(max(cx - 1, 0), min(cx + 2, grid[2])):
                centre = (z * grid[1] + y) * grid[2] + x
                if alive[centre]:
                    found[n_found] = centre
                    n_found += 1
    return n_found


@kernel
def _row_distances(planes, z, y, left, right, centre, weights, out):
    """Squared distances to one centre of the pixels left..right-1 of one row."""
    n_channels = planes.shape[0]
    dz = (np.float32(z) - centre[n_channels]) * weights[0]
    dy = (np.float32(y) - centre[n_channels + 1]) * weights[1]
    across = dz * dz + dy * dy
    for x in range(left, right):
        dx = (np.float32(x) - centre[n_channels + 2]) * weights[2]
        out[x - left] = across + dx * dx
    for c in range(n_channels):
        row = planes[c, z, y]
        color = centre[c]
        for x in range(left, right):
            difference = row[x] - color
            out[x - left] += difference * difference


@kernel
def _row_nearest(planes, z, y, left, right, found, centres, weights, distance, best, nearest):
    """Nearest of the centres ``found`` for each pixel of a row; the first of equal ones wins."""
    for k in range(found.size):
        _row_distances(planes, z, y, left, right, centres[found[k]], weights, distance)
        if k == 0:
            best[: right - left] = distance[: right - left]
            nearest[: right - left] = found[0]
            continue
        candidate = found[k]
        for i in range(right - left):
            nearer = distance[i] < best[i]
            best[i] = distance[i] if nearer else best[i]
            nearest[i] = candidate if nearer else nearest[i]


@kernel
def _assign_band(planes, cz, cy, bounds, grid, centres, alive, weights, labels):
    """Assign the pixels of one row of cells; the number of pixels that changed."""
    z_bounds, y_bounds, x_bounds = bounds
    n_columns = labels.shape[2]
    found = np.empty(27, np.int32)
    distance = np.empty(n_columns, np.float32)
    best = np.empty(n_columns, np.float32)
    nearest = np.empty(n_columns, np.int32)
    n_changed = 0
    for cx in range(grid[2]):
        n_found = _candidates(cz, cy, cx, grid, alive, found)
        left, right = x_bounds[cx], x_bounds[cx + 1]
        for z in range(z_bounds[cz], z_bounds[cz + 1]):
            for y in range(y_bounds[cy], y_bounds[cy + 1]):
                _row_nearest(
                    planes, z, y, left, right, found[:n_found], centres, weights,
                    distance, best, nearest,
                )  # fmt: skip
                row = labels[z, y]
                for x in range(left, right):
                    if row[x] >= 0 and row[x] != nearest[x - left]:
                        row[x] = nearest[x - left]
                        n_changed += 1
    return n_changed


@kernel
def _band_sums(planes, labels, cz, cy, bounds, grid, sums):
    """Add one band to the sums of the 3 x 3 rows of centres around it: (9 * grid_x, C + 4)."""
    z_bounds, y_bounds, _ = bounds
    n_channels = planes.shape[0]
    slab = grid[1] * grid[2]
    for z in range(z_bounds[cz], z_bounds[cz + 1]):
        for y in range(y_bounds[cy], y_bounds[cy + 1]):
            for x in range(labels.shape[2]):
                label = labels[z, y, x]
                if label < 0:
                    continue
                layer = int(label >= cz * slab) + int(label >= (cz + 1) * slab)
                row = layer * 3 * grid[2] + label - (cz - 1 + layer) * slab - (cy - 1) * grid[2]
                for c in range(n_channels):
                    sums[row, c] += planes[c, z, y, x]
                sums[row, n_channels] += z
                sums[row, n_channels + 1] += y
                sums[row, n_channels + 2] += x
                sums[row, n_channels + 3] += 1.0


@kernel
def _gather_bands(parts, grid):
    """Add up what the bands hold for each centre, in the order of the bands: (R, C + 4)."""
    n_z, n_y, n_x = grid
    sums = np.zeros((n_z * n_y * n_x, parts.shape[2]))
    for z in range(n_z):
        for y in range(n_y):
            here = sums[(z * n_y + y) * n_x : (z * n_y + y + 1) * n_x]
            for cz in range(max(z - 1, 0), min(z + 2, n_z)):
                for cy in range(max(y - 1, 0), min(y + 2, n_y)):
                    row = ((z - cz + 1) * 3 + y - cy + 1) * n_x
                    here += parts[cz * n_y + cy, row : row + n_x]
    return sums


@kernel
def centre_sums(planes, labels, bounds):
    """Add up the colours, the positions and the number of the pixels of each centre.

    Each band adds up its own pixels, then the bands are added up in their order.

    Parameters
    ----------
    planes : float32 array (C, D, H, W), C-contiguous
    labels : int32 array (D, H, W), C-contiguous
        Each pixel's centre is one of its own or the neighbouring cells; negative is left out.
    bounds : three int64 arrays (grid_a + 1,)
        First pixel of each cell along each axis, and the length of the axis.

    Returns
    -------
    float64 array (R, C + 4)
        Sums of the channels and of the position (z, y, x) in pixels; the number of pixels.
    """
    grid = (bounds[0].size - 1, bounds[1].size - 1, bounds[2].size - 1)
    parts = np.zeros((grid[0] * grid[1], 9 * grid[2], planes.shape[0] + 4))
    for band in range(grid[0] * grid[1]):
        cz, cy = band // grid[1], band % grid[1]
        _band_sums(planes, labels, cz, cy, bounds, grid, parts[band])
    return _gather_bands(parts, grid)


@parallel_kernel
def assign_pixels(planes, bounds, centres, alive, weights, labels):
    """Give each pixel the nearest centre of its own and the neighbouring cells, in place.

    The squared distance is ``sum_c (color_c - centre_c)^2 + sum_a (weight_a (p_a - centre_a))^2``,
    Achanta et al. (2012), equation (3), with compactness, grid step and spacing in the weights.
    The sums for the next centres come from the same launch of the threads; they are the same,
    bit for bit, for any number of threads.

    Parameters
    ----------
    planes : float32 array (C, D, H, W), C-contiguous
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

    Returns
    -------
    n_changed : int
        The number of pixels that changed.
    sums : float64 array (R, C + 4)
        As from ``centre_sums`` for the new labels.
    """
    grid = (bounds[0].size - 1, bounds[1].size - 1, bounds[2].size - 1)
    parts = np.zeros((grid[0] * grid[1], 9 * grid[2], planes.shape[0] + 4))
    n_changed = 0
    for band in prange(grid[0] * grid[1]):
        cz, cy = band // grid[1], band % grid[1]
        n_changed += _assign_band(planes, cz, cy, bounds, grid, centres, alive, weights, labels)
        _band_sums(planes, labels, cz, cy, bounds, grid, parts[band])
    return n_changed, _gather_bands(parts, grid)


@kernel
def _squared_difference(sums, sizes, a, b):
    total = 0.0
    for c in range(sums.shape[1]):
        total += (sums[a, c] / sizes[a] - sums[b, c] / sizes[b]) ** 2
    return total


@kernel
def _most_similar(edges, parent, sums, sizes, min_size):
    """For each root that is too small, the neighbouring root of the nearest mean colour."""
    partner = np.full(sizes.size, -1, np.int32)
    least = np.full(sizes.size, np.inf)
    for e in range(edges.shape[0]):
        a, b = find_root(parent, edges[e, 0]), find_root(parent, edges[e, 1])
        if a == b or (sizes[a] >= min_size and sizes[b] >= min_size):
            continue
        difference = _squared_difference(sums, sizes, a, b)
        if sizes[a] < min_size and difference < least[a]:
            partner[a], least[a] = b, difference
        if sizes[b] < min_size and difference < least[b]:
            partner[b], least[b] = a, difference
    return partner


@kernel
def merge_small(edges, sums, sizes, min_size):
    """Merge every component below ``min_size`` into its neighbour of the nearest mean colour.

    In rounds: each small component chooses by the mean colours at the beginning of the round;
    the choices are carried out in ascending order, unless the chooser has grown enough by then.
    What has no neighbour stays.

    Parameters
    ----------
    edges : int32 array (E, 2)
        Neighbouring components.
    sums : float64 array (n, C)
        Sums of the colours of each component.
    sizes : int64 array (n,), positive
    min_size : float

    Returns
    -------
    int32 array (n,) : for each component, the component that stands for its group
    """
    sums, sizes = sums.copy(), sizes.copy()
    parent = np.arange(sizes.size).astype(np.int32)
    merging = True
    while merging:
        merging = False
        partner = _most_similar(edges, parent, sums, sizes, min_size)
        for a in range(sizes.size):
            if partner[a] < 0:
                continue
            small, other = find_root(parent, a), find_root(parent, partner[a])
            if small != other and sizes[small] < min_size:
                parent[small] = other
                sizes[other] += sizes[small]
                sums[other] += sums[small]
                merging = True
    for a in range(sizes.size):
        parent[a] = find_root(parent, a)
    return parent
