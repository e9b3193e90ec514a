"""The smallest distance of each label's cost from the cheapest label, over all pixels.

`hybridseg.inference.mean_field.pruning` uses it to prove that a label can be left out. The pixels
are cut into runs, which are shared by numba's threads.
"""

from __future__ import annotations

import numpy as np
from numba import prange
from numpy.typing import NDArray

from hybridseg.kernels._compile import parallel_kernel

Singles = NDArray[np.float32]

#: The number of runs of points, which threads share.
_N_RUNS = 8


def label_gaps(unary: Singles) -> Singles:
    """Return the minimum over all points of each label's cost minus the smallest cost of the point.

    Parameters
    ----------
    unary : (n, L) float32, C-contiguous, n >= 1

    Returns
    -------
    (L,) float32
        At least 0, and 0 for a label that is the cheapest at some point.
    """
    gaps = np.empty((_N_RUNS, unary.shape[1]), np.float32)
    _gaps_of_runs(unary, gaps)
    least: Singles = gaps.min(axis=0)
    return least


@parallel_kernel
def _gaps_of_runs(unary: Singles, gaps: Singles) -> None:
    """Write the gaps of each run of points to its row of ``gaps`` (runs, L)."""
    n_points, n_labels = unary.shape
    n_runs = len(gaps)
    for run in prange(n_runs):
        least = gaps[run]
        least[:] = np.inf
        for i in range(run * n_points // n_runs, (run + 1) * n_points // n_runs):
            best = unary[i, 0]
            for label in range(1, n_labels):
                best = min(best, unary[i, label])
            for label in range(n_labels):
                least[label] = min(least[label], unary[i, label] - best)
