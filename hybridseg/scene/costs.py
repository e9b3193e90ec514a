"""Costs (lower is better) from probabilities and logits, and back; by pixel or by region."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.validation import LARGEST, as_numbers, as_singles

#: Smaller probabilities are set to this before the logarithm is taken. A forest with 0 of 100 votes
#: for a class does not exclude it, and no later stage could overrule an infinite cost.
MIN_PROBABILITY = 1e-4

#: About this many pixels are examined to find out whether scores are logits.
_N_EXAMINED = 1 << 14


def costs_from_proba(proba: ArrayLike, *, minimum: float = MIN_PROBABILITY) -> NDArray[np.float32]:
    """Turn probabilities ``(..., L)`` into costs, ``-log(max(p, minimum))``, as float32.

    Raises
    ------
    TypeError, ValueError
        The probabilities are not real numbers, or not finite.

    Examples
    --------
    >>> from hybridseg.scene.costs import costs_from_proba
    >>> costs_from_proba([[1.0, 0.0]]).round(2)
    array([[-0.  ,  9.21]], dtype=float32)
    """
    given = as_singles(as_numbers(proba, "proba"), "proba", cure="the model has diverged")
    return -np.log(np.maximum(given, np.float32(minimum)))


def proba_from_costs(costs: NDArray[Any]) -> NDArray[np.float32]:
    """Turn costs ``(..., L)`` into probabilities, the softmax of the negated costs."""
    with np.errstate(over="ignore"):  # the probability is then 0
        scores = np.asarray(costs.min(axis=-1, keepdims=True) - costs, dtype=np.float32)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def costs_from_logits(logits: ArrayLike) -> NDArray[np.float32]:
    """Turn a network's raw outputs ``(..., L)`` into costs, ``-log_softmax``, as float32.

    Raises
    ------
    TypeError, ValueError
        The logits are not real numbers, or not finite in float32.
    """
    most = float(np.finfo(np.float32).max)
    scores = as_singles(
        as_numbers(logits, "logits"), "logits", largest=most, cure="the network has diverged"
    )
    with np.errstate(over="ignore"):  # an infinite difference gets the largest cost
        scores = scores - scores.max(axis=-1, keepdims=True)
    costs: NDArray[np.float32] = np.log(np.exp(scores).sum(axis=-1, keepdims=True)) - scores
    return np.minimum(costs, np.float32(LARGEST), out=costs)


def ends_in(scores: NDArray[Any]) -> str | None:
    """Return which activation seems to be applied to scores ``(..., L)``, or None for logits.

    "proba" is a softmax: no score is negative, and the scores of each pixel sum to one. "sigmoid":
    all scores lie between 0 and 1, and most are nearly 0 or nearly 1. (Logarithms of probabilities
    count as logits, because a softmax turns them back into the probabilities.)
    """
    n_labels = scores.shape[-1]
    rows = scores.reshape(-1, n_labels)
    rows = rows[:: max(1, len(rows) // _N_EXAMINED)].astype(np.float32)
    if not len(rows) or rows.min() < -1e-6 or rows.max() > 1 + 1e-2:
        return None
    if (
        n_labels > 1 and np.abs(rows.sum(axis=-1) - 1).max() < 1e-2
    ):  # the precision of 16-bit floats
        return "proba"
    inside = (rows > 0) & (rows < 1)
    nearly = np.minimum(rows, 1 - rows) < 0.05
    both_ends = rows.min() < 0.05 and rows.max() > 0.95
    return "sigmoid" if both_ends and inside.any() and nearly.mean() > 0.5 else None


@dataclass(frozen=True, eq=False)
class RegionCosts:
    """Costs that are constant within each region, stored once per region.

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
        """The size of both arrays in bytes."""
        return int(self.regions.nbytes + self.costs.nbytes)

    def pixels(self) -> NDArray[np.float32]:
        """Return the costs of each pixel, ``(*spatial, L)``: those of its region."""
        return self.costs[self.regions]
