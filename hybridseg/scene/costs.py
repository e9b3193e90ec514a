"""Costs, lower is better: from probabilities and logits, and back; by pixel or by region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.validation import LARGEST, as_numbers, as_singles

#: Probabilities are raised to this before their logarithm is taken: a forest's 0 of 100 votes is
#: not a proof, and no later stage could overrule an infinite cost.
MIN_PROBABILITY = 1e-4


def costs_from_proba(proba: ArrayLike, *, minimum: float = MIN_PROBABILITY) -> NDArray[np.float32]:
    """Turn probabilities ``(..., L)`` into costs, ``-log(max(p, minimum))``, as float32.

    Raises
    ------
    TypeError, ValueError
        Not real numbers, or not finite.
    """
    given = as_singles(as_numbers(proba, "proba"), "proba", cure="the model has diverged")
    return -np.log(np.maximum(given, np.float32(minimum)))


def proba_from_costs(costs: NDArray[Any]) -> NDArray[np.float32]:
    """Softmax of the negated costs over the last axis: probabilities that sum to one."""
    with np.errstate(over="ignore"):  # a probability of nothing
        scores = np.asarray(costs.min(axis=-1, keepdims=True) - costs, dtype=np.float32)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def costs_from_logits(logits: ArrayLike) -> NDArray[np.float32]:
    """Turn a network's raw outputs ``(..., L)`` into costs, ``-log_softmax``, as float32.

    Raises
    ------
    TypeError, ValueError
        Not real numbers, or not finite in float32.
    """
    most = float(np.finfo(np.float32).max)
    scores = as_singles(
        as_numbers(logits, "logits"), "logits", largest=most, cure="the network has diverged"
    )
    with np.errstate(over="ignore"):  # a difference that is infinite costs as much as can be
        scores = scores - scores.max(axis=-1, keepdims=True)
    costs: NDArray[np.float32] = np.log(np.exp(scores).sum(axis=-1, keepdims=True)) - scores
    return np.minimum(costs, np.float32(LARGEST), out=costs)


def ends_in(scores: NDArray[Any]) -> str | None:
    """What scores ``(..., L)`` that should be logits are instead, as far as they tell.

    "proba": outputs of a softmax; none is negative, and each pixel's sum to one. "sigmoid": all
    lie between 0 and 1, and most nearly at one of them. None: logits. (Logarithms of probabilities
    are logits, too: a softmax of them changes nothing.)
    """
    n_labels = scores.shape[-1]
    rows = scores.reshape(-1, n_labels)
    rows = rows[:: max(1, len(rows) // _LOOKED_AT)].astype(np.float32)
    if not len(rows) or rows.min() < -1e-6 or rows.max() > 1 + 1e-2:
        return None
    if n_labels > 1 and np.abs(rows.sum(axis=-1) - 1).max() < 1e-2:  # as close as 16 bits come
        return "proba"
    inside = (rows > 0) & (rows < 1)
    nearly = np.minimum(rows, 1 - rows) < 0.05
    both_ends = rows.min() < 0.05 and rows.max() > 0.95
    return "sigmoid" if both_ends and inside.any() and nearly.mean() > 0.5 else None


#: So many pixels tell what scores are.
_LOOKED_AT = 1 << 14


@dataclass(frozen=True, eq=False)
class RegionCosts:
    """Costs that are constant within each region, kept small until somebody asks for pixels.

    Attributes
    ----------
    regions : ndarray of int32, (*spatial,)
        The region of each pixel, 0..R-1.
    costs : ndarray of float32, (R, L)
        The cost of each label in each region, lower is better.
    """

    regions: NDArray[np.int32]
    costs: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        return int(self.regions.nbytes + self.costs.nbytes)

    def pixels(self) -> NDArray[np.float32]:
        """Spread the regions' costs over their pixels: ``(*spatial, L)``."""
        return self.costs[self.regions]
