"""Images and volumes divided into cells, as at the start of SLIC."""

from __future__ import annotations

import numpy as np

from hybridseg.kernels.superpixels import slic as kernels
from tests.oracles.superpixels import slic as oracles
from tests.oracles.superpixels.slic_centers import center_sums

# (shape, cells along each axis, channels)
CASES = [
    ((1, 1, 1), (1, 1, 1), 1),
    ((1, 11, 57), (1, 3, 3), 3),
    ((1, 17, 5), (1, 5, 1), 1),
    ((6, 7, 9), (2, 3, 4), 2),
    ((5, 1, 8), (4, 1, 3), 7),
    ((1, 9, 40), (1, 1, 1), 4),
]
WEIGHTS = np.array([90.0, 70.0, 120.0], np.float32)


def padded(values):
    """Quads with the padding that the kernel needs at the end of rows, filled with nonsense."""
    n_channels, depth, height, length = values.shape
    width = (length // kernels.LANES + 2) * kernels.LANES
    quads = np.zeros(((n_channels + 3) // 4, depth, height, width, 4), np.int16)
    for c, channel in enumerate(values):
        quads[c // 4, ..., c % 4] = 31000
        quads[c // 4, :, :, :length, c % 4] = channel
    return quads


def make_case(shape, grid, n_channels, seed=0):
    """Quads, bounds, cell numbers, and the first centers and sums of the cells."""
    rng = np.random.default_rng(seed)
    quads = padded(rng.normal(0, 200, (n_channels, *shape)).round())
    bounds = tuple(np.arange(n + 1) * size // n for n, size in zip(grid, shape, strict=True))
    labels = np.empty(shape, np.int32)
    for pixel in np.ndindex(shape):
        labels[pixel] = np.ravel_multi_index(oracles.cell_of(pixel, bounds), grid)
    sums = center_sums(quads, labels, np.prod(grid))
    centers = (sums[:, :-1] / sums[:, -1:]).astype(np.float32)
    return quads, bounds, labels, centers, sums
