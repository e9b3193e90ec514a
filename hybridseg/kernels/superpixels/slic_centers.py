"""The centers of SLIC: their initial positions, and the sums of the pixels that belong to them.

`leave_edges` is the step of [1]_ that moves each initial center to the pixel of lowest gradient in
a 3 x 3 (x 3) neighborhood. `center_sums` adds up the pixels of each center.

Colors are *quads*, int16 (G, D, H, pitch, 4): channel c of a pixel is element c % 4 of quad c // 4,
and rows are padded to ``pitch`` >= W pixels. D = 1 for an image. ``centers`` (R, 4 G + 3) float32
holds the colors and the position (z, y, x) of each center, in raster order of the cells. ``sums``
(R, 4 G + 4) int64 holds the sums of both and the number of pixels.

`hybridseg.features.slic` calls these kernels before the iterations. They run on one thread.

References
----------
.. [1] R. Achanta, A. Shaji, K. Smith, A. Lucchi, P. Fua, S. Suesstrunk, "SLIC superpixels compared
   to state-of-the-art superpixel methods", IEEE TPAMI 34(11), 2012, algorithm 1.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from hybridseg.kernels._compile import inner_kernel, kernel
from hybridseg.kernels.superpixels.slic_rows import QUAD, add_place

#: Steps (z, y, x) to the 27 pixels around one and including it, near ones first.
_NEAR = np.array(sorted(product((-1, 0, 1), repeat=3), key=np.count_nonzero))


@kernel
def center_sums(quads, labels, sums):
    """Add up the colors, the positions and the number of the pixels of each center.

    Parameters
    ----------
    quads : int16 array (G, D, H, >= W, 4), C-contiguous
        Pixels beyond the width of the labels are not read.
    labels : int32 array (D, H, W), C-contiguous
        Values below R. Pixels with a negative value do not count.
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
    """Return the sum of squared central differences (one-sided at ends) over channels and axes."""
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
    """Return the pixel of lowest gradient among those around the middle of a cell.

    ``low`` and ``high`` are the first and the last pixel (z, y, x) of the cell. The result is
    whether any of the pixels is inside, and its z, y and x. Of equal gradients the nearest to the
    middle wins.
    """
    least, found = np.int64(2) ** 62, False
    best_z, best_y, best_x = 0, 0, 0
    for i in range(_NEAR.shape[0]):
        dz, dy, dx = _NEAR[i, 0], _NEAR[i, 1], _NEAR[i, 2]
        if dz != 0 and low[0] == high[0]:  # in an image, this would be the same pixel again
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
    """Move each center to the pixel of lowest gradient around the middle of its cell, in place.

    A center on an edge would have a color of neither side and lose all its pixels. Of the 9 or 27
    pixels with equal gradients, the nearest to the middle wins. A cell without a pixel inside there
    keeps its center.

    Parameters
    ----------
    quads : int16 array (G, D, H, >= W, 4), C-contiguous
    inside : bool array (D, H, W)
    bounds : three int64 arrays (grid_a + 1,)
        First pixel of each cell along each axis, and the length of the axis.
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
