"""Sums in 64 bits; sums of integers are exact, even where they exceed int64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def exact_sum(values: NDArray[Any], where: Any = True) -> int | float:
    """Sum floats in float64 and integers exactly (upper and lower 32 bits separately)."""
    if values.dtype.kind == "f":
        return float(values.sum(dtype=np.float64, where=where))
    whole = values.astype(np.int64, copy=False)
    upper = int((whole >> 32).sum(where=where))
    return (upper << 32) + int((whole & 0xFFFFFFFF).sum(where=where))


def exact_sum_of_products(weight: NDArray[Any], factor: NDArray[Any]) -> int | float:
    """Return the sum of ``weight * factor``; exact for integers."""
    if weight.dtype.kind == "f" or factor.dtype.kind == "f":
        return exact_sum(np.multiply(weight, factor, dtype=np.float64))
    sizes = (max(-int(x.min(initial=0)), int(x.max(initial=0))) for x in (weight, factor))
    if math.prod(sizes) < 2**63:
        return exact_sum(weight * factor)
    # add up the weights of each distinct factor first
    kinds, which = np.unique(factor, return_inverse=True)
    which = which.reshape(weight.shape)
    return sum(int(kind) * int(exact_sum(weight, where=which == k)) for k, kind in enumerate(kinds))
