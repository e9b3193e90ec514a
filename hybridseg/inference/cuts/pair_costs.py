"""What minimum cuts ask of the costs of label pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.pairwise.compatibility import as_compatibility, is_potts


def as_pair_costs(compatibility: str | ArrayLike, n_labels: int, moves: str) -> NDArray[Any] | None:
    """Check what pairs of labels cost: (L, L) int64 or float64, or None for Potts.

    Raises
    ------
    ValueError
        No square symmetric matrix, a diagonal other than zero, a negative entry; for expansion
        moves, three labels that break the triangle inequality.
    """
    matrix = as_compatibility(compatibility, n_labels)
    if isinstance(compatibility, str) or is_potts(matrix):
        return None
    if np.asarray(compatibility).dtype.kind in "bui":
        matrix = matrix.astype(np.int64)
    if bool(matrix.diagonal().any()) or (matrix < 0).any():
        i, j = np.argwhere((matrix < 0) | ((matrix != 0) & np.eye(n_labels, dtype=bool)))[0]
        raise ValueError(
            f"compatibility[{i}, {j}]={matrix[i, j]:g}; minimum cuts need costs >= 0 and a "
            f"diagonal of zeros. Put what labels cost by themselves into unary."
        )
    detour = matrix[:, :, np.newaxis] + matrix[np.newaxis]  # i to j to k
    excess = matrix[:, np.newaxis] - detour
    if moves == "expansion" and excess.max(initial=0) > 1e-12 * float(matrix.max(initial=0)):
        i, j, k = np.unravel_index(int(excess.argmax()), excess.shape)
        raise ValueError(
            f"compatibility breaks the triangle inequality: [{i}, {k}]={matrix[i, k]:g} is more "
            f"than [{i}, {j}] + [{j}, {k}]={matrix[i, j] + matrix[j, k]:g}, and expansion moves "
            f"need it. Use moves='swap'."
        )
    return matrix
