"""The centers of SLIC: where they begin, and the sums of the pixels that belong to them."""

from __future__ import annotations

from itertools import product

import numpy as np

from hybridseg.kernels._compile import inner_kernel, kernel
from hybridseg.kernels.superpixels.slic_rows import QUAD, add_place

#: Steps (z, y, x) to the pixels about one, near ones first.
_NEAR = np.array(sorted(product((-1, 0, 1), repeat=3), key=np.count_nonzero))


@kernel
def center_sums(quads, labels, sums):
    """Add up the colors, the positions and the number of the pixels of each center.

    Parameters
    ----------
    quads : int16 array (G, D, H, >= W, 4), C-contiguous
        What lies beyond the row of the labels is not looked at.
    labels : int32 array (D, H, W), C-contiguous
        Below R; negative is left out.
    sums : int64 array (R, 4 G + 4), written
        Sums of the channels and of the position (z, y, x) in pixels; the number of pixels.
    """
    sums[:] = 0
    for z in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                if labels[z, y, x] >= 0:
                    center = sums[labels[z, y, x]]
                    for c in range(quads.shape[0] * QUAD):
                        center[c] += quads[c // QUAD, z, y, x, c % QUAD]
                    add_place(z, y, x, x + 1, center.size - QUAD, center)


@inner_kernel
def _squared_gradient(quads, inside, z, y, x):
    """Sum of squared central differences over channels and axes; one-sided at the ends."""
    depth, height, width = inside.shape
    total = 0
    for c in range(quads.shape[0] * QUAD):
        plane = quads[c // QUAD, ..., c % QUAD]
        dz = int(plane[min(z + 1, depth - 1), y, x]) - int(plane[max(z - 1, 0), y, x])
        dy = int(plane[z, min(y + 1, height - 1), x]) - int(plane[z, max(y - 1, 0), x])
        dx = int(plane[z, y, min(x + 1, width - 1)]) - int(plane[z, y, max(x - 1, 0)])
        total += dz * dz + dy * dy + dx * dx
    return total


@inner_kernel
def _quietest(quads, inside, low, high):
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
            slope = _squared_gradient(quads, inside, z, y, x)
            if slope < least:
                least, found = slope, True
                best_z, best_y, best_x = z, y, x
    return found, best_z, best_y, best_x


@kernel
def leave_edges(quads, inside, bounds, centers):
    """Move each center to the pixel of lowest gradient about the middle of its cell, in place.

    A center on an edge would have a color of neither side and lose all its pixels. Of the 9 or
    27 pixels, those nearer to the middle win where gradients are equal; a cell without a pixel
    inside there keeps its center.

    Parameters
    ----------
    quads : int16 array (G, D, H, >= W, 4), C-contiguous
    inside : bool array (D, H, W)
    bounds : three int64 arrays (grid_a + 1,)
    centers : float32 array (R, 4 G + 3), written
    """
    n_channels = quads.shape[0] * QUAD
    center = 0
    for cz in range(bounds[0].size - 1):
        for cy in range(bounds[1].size - 1):
            for cx in range(bounds[2].size - 1):
                low = (bounds[0][cz], bounds[1][cy], bounds[2][cx])
                high = (bounds[0][cz + 1] - 1, bounds[1][cy + 1] - 1, bounds[2][cx + 1] - 1)
                found, z, y, x = _quietest(quads, inside, low, high)
                if found:
                    for c in range(n_channels):
                        centers[center, c] = quads[c // QUAD, z, y, x, c % QUAD]
                    centers[center, n_channels] = z
                    centers[center, n_channels + 1] = y
                    centers[center, n_channels + 2] = x
                center += 1
