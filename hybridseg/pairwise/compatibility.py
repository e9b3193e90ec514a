"""The label compatibility: the cost of each pair of labels at two neighboring pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.validation import as_numbers, check_number, check_option

#: The largest cost: sums of such costs, times weights, still fit a float32.
_MAX_COST = 1e20

#: The largest integer cost: above it, float64 does not hold every integer.
_MAX_INTEGER_COST = 2**53

#: The largest number of labels: a matrix for more of them takes gigabytes.
_MAX_LABELS = 2**14


def as_compatibility(
    compatibility: str | ArrayLike, n_labels: int, *, name: str = "compatibility"
) -> NDArray[np.float64]:
    """Check a label compatibility and return it as a matrix of costs.

    Parameters
    ----------
    compatibility : "potts" or array-like, (L, L)
        ``"potts"``: 1 for two different labels, 0 for equal ones. A matrix holds the cost of each
        pair of labels; lower is better, so a discouraged pair has a *large* entry. It must be
        symmetric, because a pair of pixels has no order. The diagonal may differ from zero: an
        entry is a cost (or a reward, if negative) of two pixels that both have that label.
    n_labels : int
        The number of labels L.
    name : str
        The name of the argument in error messages.

    Returns
    -------
    ndarray of float64, (L, L)

    Raises
    ------
    TypeError, ValueError
        The name is unknown; the matrix has a wrong shape, is not symmetric (floats: by more than a
        millionth of the largest entry), is not finite, or has entries whose absolute value is
        above 1e20 (integers: 2**53); or ``n_labels`` is not an integer from 1 to 16384.

    Examples
    --------
    >>> from hybridseg.pairwise import as_compatibility
    >>> as_compatibility("potts", 2)
    array([[0., 1.],
           [1., 0.]])
    """
    check_number(n_labels, "n_labels", minimum=1, maximum=_MAX_LABELS, integer=True)
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
    if largest > _MAX_COST:
        raise ValueError(
            f"{name} holds a cost of size {largest:g}; expected at most {_MAX_COST:g}, because "
            f"larger ones overflow in float32: divide all costs by a common factor."
        )
    if array.dtype.kind != "f":
        most = max(-int(array.min()), int(array.max()))  # exact, as the float `largest` is not
        if most > _MAX_INTEGER_COST:
            raise ValueError(
                f"{name} holds the integer {most}; expected at most 2**53, so that energies stay "
                f"exact: pass floats, or divide by a common factor."
            )
    rounding = 1e-6 * largest if array.dtype.kind == "f" else 0.0
    uneven = np.abs(matrix - matrix.T) > rounding
    if bool(uneven.any()):
        i, j = np.argwhere(uneven)[0]
        raise ValueError(
            f"{name}[{i}, {j}]={array[i, j]} but {name}[{j}, {i}]={array[j, i]}; expected a "
            f"symmetric matrix, for example ({name} + {name}.T) / 2."
        )
    return (matrix + matrix.T) / 2


def is_potts(compatibility: NDArray[np.float64]) -> bool:
    """Return whether a matrix is exactly Potts; solvers are faster for it."""
    return bool(np.array_equal(compatibility, 1.0 - np.eye(len(compatibility))))
