"""Mean field between two labels by the general step."""

from __future__ import annotations

import numpy as np


def advance_two(fixed, slope, dense, table, steps):
    """The marginals of label 1; ``table`` is (rows,)."""
    scores = np.asarray(fixed, dtype=np.float64)
    if steps.read:
        scores = scores + slope * (dense.weights * table[dense.vertices]).sum(axis=1)
    return 1 / (1 + np.exp(-scores))
