"""Checks of labelings, of seeds and of label costs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.validation import as_label_map, as_numbers, check_magnitude


def as_label_indices(
    labels: ArrayLike, shape: tuple[int, ...], n_labels: int, *, name: str = "labels"
) -> NDArray[np.int64]:
    """Check a complete labeling: an index 0..n_labels-1 at each of ``shape``.

    Raises
    ------
    TypeError, ValueError
        The labels are not integers, have another shape, or are outside 0..n_labels-1.
    """
    indices = as_label_map(labels, shape=shape, name=name)
    if indices.size and (indices.min() < 0 or indices.max() >= n_labels):
        raise ValueError(
            f"{name} holds values from {np.asarray(labels).min()} to {indices.max()}; expected an "
            f"index 0..{n_labels - 1} into the last axis of unary for every pixel or region "
            f"(no void)."
        )
    return indices


def as_seeds(seeds: ArrayLike, shape: tuple[int, ...], n_labels: int) -> NDArray[np.int64]:
    """Check seeds: label indices (*shape,), negative where unknown.

    Raises
    ------
    TypeError, ValueError
        The seeds are not integers, have another shape, or are above n_labels-1.
    """
    fixed = as_label_map(seeds, shape=shape, name="seeds")
    if fixed.size and fixed.max() >= n_labels:
        raise ValueError(
            f"seeds holds {fixed.max()}; expected label indices 0..{n_labels - 1}, negative where "
            f"unknown."
        )
    return fixed


def as_label_costs(
    label_costs: ArrayLike, n_labels: int, *, name: str = "label_costs"
) -> NDArray[Any]:
    """Check label costs, paid once for each label that occurs: (L,) int64 or float64.

    Raises
    ------
    TypeError, ValueError
        ``label_costs`` does not hold one finite number for each label.
    """
    array = as_numbers(label_costs, name, expected="real costs, one per label")
    if array.shape != (n_labels,):
        raise ValueError(
            f"{name} has shape {array.shape}; expected {n_labels} finite costs, one per label."
        )
    check_magnitude(array, name, largest=np.finfo(np.float64).max)
    if array.dtype == np.uint64 and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} holds {array.max()}, which overflows int64: pass floats.")
    return array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
