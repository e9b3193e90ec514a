"""The centres of SLIC: where they begin, and the sums of the pixels that belong to them."""

from __future__ import annotations

from itertools import product

import numpy as np

from hybridseg.kernels._compile import kernel

#: Steps (z, y, x) to the pixels about one, near ones first.
_NEAR = np.array(sorted(product((-1, 0, 1), repeat=3), key=np.count_nonzero))


@kernel
def _add_runs(ends, n_runs, row, running, z, y, sums):
    """Add the runs of equal labels of a row, of which the ends and the running sums are given."""
    n_channels = running.shape[0]
    begin = 0
    for run in range(n_runs):
        end, label = ends[run], row[begin]
        if label >= 0:
            length = end - begin
            for c in range(n_channels):
                sums[label, c] += running[c, end] - running[c, begin]
            sums[label, n_channels] += z * length
            sums[label, n_channels + 1] += y * length
            sums[label, n_channels + 2] += (begin + end - 1) * length // 2
            sums[label, n_channels + 3] += length
        begin = end


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
    for i in range(_NEAR.shape[0]):
        dz, dy, dx = _NEAR[i, 0], _NEAR[i, 1], _NEAR[i, 2]
        if dz != 0 and low[0] == high[0]:  # in a picture, the same pixel again
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
def centre_sums(planes, labels, sums):
    """Add up the colours, the positions and the number of the pixels of each centre.

    Parameters
    ----------
    planes : int16 array (C, D, H, >= W), C-contiguous
        What lies beyond the row of the labels is not looked at.
    labels : int32 array (D, H, W), C-contiguous
        Below R; negative is left out.
    sums : int64 array (R, C + 4), written
        Sums of the channels and of the position (z, y, x) in pixels; the number of pixels.
    """
    sums[:] = 0
    n_channels, (depth, height, width) = planes.shape[0], labels.shape
    ends = np.empty(width + 1, np.int64)
    running = np.zeros((n_channels, width + 1), np.int64)
    for z in range(depth):
        for y in range(height):
            row = labels[z, y]
            n_runs = np.uint64(0)
            for x in range(np.uint64(1), np.uint64(width)):
                ends[n_runs] = x  # kept if it is one: no branch to be guessed wrong
                n_runs += np.uint64(row[x] != row[x - np.uint64(1)])
            ends[n_runs] = width
            for c in range(n_channels):
                total = 0
                for x in range(width):
                    total += planes[c, z, y, x]
                    running[c, x + 1] = total
            _add_runs(ends, np.int64(n_runs) + 1, row, running, z, y, sums)


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
