"""What a pair of labels costs when two neighbouring pixels carry them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.validation import check_option


def as_compatibility(
    compatibility: str | ArrayLike, n_labels: int, *, name: str = "compatibility"
) -> NDArray[np.float64]:
    """Check a label compatibility and give it as a matrix of costs.

    Parameters
    ----------
    compatibility : "potts" or array-like, (L, L)
        ``"potts"``: 1 for two different labels, 0 for equal ones. A matrix gives the cost of each
        pair of labels, lower is better, so a discouraged pair has a *large* entry. It must be
        symmetric, because a pair of pixels has no order. A diagonal other than zero is allowed
        (a cost, or with a negative entry a reward, for agreeing on that label).
    n_labels : int
        The number of labels L.
    name : str
        What error messages call the argument.

    Returns
    -------
    ndarray of float64, (L, L)

    Raises
    ------
    ValueError
        An unknown name, a wrong shape, or a matrix that is not symmetric or not finite.

    Examples
    --------
    >>> from hybridseg.pairwise import as_compatibility
    >>> as_compatibility("potts", 2)
    array([[0., 1.],
           [1., 0.]])
    """
    if isinstance(compatibility, str):
        check_option(compatibility, name, ("potts",))
        return 1.0 - np.eye(n_labels)
    array = np.asarray(compatibility)
    if array.dtype.kind not in "buif" or array.shape != (n_labels, n_labels):
        raise ValueError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; expected 'potts' or real "
            f"costs ({n_labels}, {n_labels}), one for each pair of the {n_labels} labels."
        )
    matrix = array.astype(np.float64)
    if not bool(np.isfinite(matrix).all()):
        raise ValueError(f"{name} holds NaN or infinite costs; use a large finite cost instead.")
    if not np.allclose(matrix, matrix.T, rtol=1e-6, atol=0.0):
        i, j = np.argwhere(~np.isclose(matrix, matrix.T, rtol=1e-6, atol=0.0))[0]
        raise ValueError(
            f"{name}[{i}, {j}]={matrix[i, j]:g} but {name}[{j}, {i}]={matrix[j, i]:g}; expected a "
            f"symmetric matrix, for example ({name} + {name}.T) / 2."
        )
    return matrix


def is_potts(compatibility: NDArray[np.float64]) -> bool:
    """Whether a matrix is exactly Potts, for which solvers have a faster way."""
    return bool(np.array_equal(compatibility, 1.0 - np.eye(len(compatibility))))
