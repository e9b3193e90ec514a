"""What a pair of labels costs when two neighbouring pixels carry them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.validation import as_numbers, check_number, check_option

#: Costs of this size, times weights and neighbours, still fit a float32.
_LARGEST = 1e20

#: Integers above this are not all float64; below, their products with weights are exact.
_LARGEST_INTEGER = 2**53

#: A matrix of more labels than this takes gigabytes.
_MOST_LABELS = 2**14


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
    TypeError, ValueError
        An unknown name, a wrong shape, or a matrix that is not symmetric (to a millionth of its
        greatest entry), not finite, or with entries beyond 1e20 (integers: 2**53); no number of
        labels, or more than 16384.

    Examples
    --------
    >>> from hybridseg.pairwise import as_compatibility
    >>> as_compatibility("potts", 2)
    array([[0., 1.],
           [1., 0.]])
    """
    check_number(n_labels, "n_labels", minimum=1, maximum=_MOST_LABELS, integer=True)
    if isinstance(compatibility, str):
        check_option(compatibility, name, ("potts",))
        return 1.0 - np.eye(n_labels)
    try:
        array = as_numbers(compatibility, name, expected="'potts' or real costs (L, L)")
    except TypeError as error:  # a wrong name is a ValueError as well
        raise ValueError(str(error)) from error
    if array.shape != (n_labels, n_labels):
        raise ValueError(
            f"{name} has shape {array.shape} and dtype {array.dtype}; expected 'potts' or real "
            f"costs ({n_labels}, {n_labels}), one for each pair of the {n_labels} labels."
        )
    with np.errstate(over="ignore"):  # refused below
        matrix = array.astype(np.float64)
    if not bool(np.isfinite(array).all()):
        raise ValueError(f"{name} holds NaN or infinite costs; use a large finite cost instead.")
    largest = float(np.abs(matrix).max(initial=0))
    if largest > _LARGEST:
        raise ValueError(
            f"{name} holds a cost of size {largest:g}; expected at most {_LARGEST:g}, because "
            f"greater ones overflow in float32."
        )
    if array.dtype.kind != "f" and largest > _LARGEST_INTEGER:
        raise ValueError(
            f"{name} holds the integer {largest:.0f}; expected at most 2**53, so that energies "
            f"stay exact: pass floats, or divide by a common factor."
        )
    uneven = np.abs(matrix - matrix.T) > 1e-6 * largest
    if bool(uneven.any()):
        i, j = np.argwhere(uneven)[0]
        raise ValueError(
            f"{name}[{i}, {j}]={matrix[i, j]:g} but {name}[{j}, {i}]={matrix[j, i]:g}; expected a "
            f"symmetric matrix, for example ({name} + {name}.T) / 2."
        )
    return (matrix + matrix.T) / 2


def is_potts(compatibility: NDArray[np.float64]) -> bool:
    """Whether a matrix is exactly Potts, for which solvers have a faster way."""
    return bool(np.array_equal(compatibility, 1.0 - np.eye(len(compatibility))))
