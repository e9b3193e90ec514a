"""The pixel-wise half of a mean-field iteration."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from hybridseg.kernels._compile import parallel_kernel

Real = NDArray[np.floating[Any]]


@parallel_kernel
def update_marginals(scores: Real, marginals: Real) -> float:
    """Overwrite ``marginals`` with the softmax of ``scores`` and say by how much they changed.

    Parameters
    ----------
    scores : (n, L) float, C-contiguous, finite
        Negated costs: minus the unary cost and minus what the neighbours ask.
    marginals : (n, L) of the same dtype
        The marginals before; afterwards each row holds numbers from 0 to 1 that sum to one (what
        is far from the best score underflows to 0).

    Returns
    -------
    float
        The largest absolute difference of any marginal to what it was.
    """
    n_points, n_labels = scores.shape
    n_blocks = (n_points + 1023) // 1024
    changes = np.zeros(n_blocks, scores.dtype)
    for block in prange(n_blocks):
        row = np.empty(n_labels, scores.dtype)
        largest = changes[block]
        for i in range(block * 1024, min(n_points, (block + 1) * 1024)):
            best = scores[i, 0]
            for label in range(1, n_labels):
                best = max(best, scores[i, label])
            total = scores.dtype.type(0)
            for label in range(n_labels):
                row[label] = np.exp(scores[i, label] - best)
                total += row[label]
            for label in range(n_labels):
                value = row[label] / total
                largest = max(largest, abs(value - marginals[i, label]))
                marginals[i, label] = value
        changes[block] = largest
    return float(changes.max())
