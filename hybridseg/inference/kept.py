"""Labels that a refiner keeps: pixels of these labels stay as the costs alone decide.

Smoothing can only shorten thin things, such as poles. If their label is kept, the refiner changes
none of its pixels, and gives it to no other pixel. Its IoU is exactly that of the costs. All other
labels are refined among each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.arguments import as_numbers
from hybridseg.scene.costs import proba_from_costs

#: What a forbidden label costs, in multiples of one plus the range of the costs.
_PROHIBITIVE = 1e6

#: The probability of a kept label at other pixels, as a fraction of that of the best other label.
_BELOW_BEST = 0.999


def kept_indices(kept_labels: ArrayLike | None, classes: ArrayLike | None) -> tuple[int, ...]:
    """Return the positions in ``classes`` of the labels to keep.

    Raises
    ------
    ValueError
        A label is not one of the classes.
    """
    if kept_labels is None:
        return ()
    values, known = as_numbers(kept_labels, "kept_labels"), np.asarray(classes)
    if values.ndim != 1 or not np.isin(values, known).all():
        raise ValueError(
            f"kept_labels={values.tolist()!r}; expected a list of values from the classes "
            f"{known.tolist()}."
        )
    return tuple(int(i) for i in np.flatnonzero(np.isin(known, values)))


def with_kept(
    costs: NDArray[Any], kept: Sequence[int], cheapest: NDArray[np.integer[Any]]
) -> NDArray[Any]:
    """Return costs (..., L) that keep some labels, in any solver and at any usual weight.

    Where a kept label is ``cheapest`` (...), all other labels get a prohibitive cost. Elsewhere,
    the kept labels get it. Integers remain integers.
    """
    if not kept:
        return costs
    labels = np.array(kept)
    changed = costs.copy()
    if costs.size == 0:
        return changed
    spread = float(costs.max()) - float(costs.min())
    prohibitive = costs.dtype.type(_PROHIBITIVE * (1 + spread))
    inside = np.isin(cheapest, labels)
    forbidden = np.zeros(costs.shape, bool)
    forbidden[..., labels] = True
    forbidden[inside] = True
    np.put_along_axis(forbidden, cheapest[..., np.newaxis], False, axis=-1)
    changed[forbidden] += prohibitive
    return changed


def marginals_with_kept(
    marginals: NDArray[np.float32], costs: NDArray[Any], kept: Sequence[int]
) -> NDArray[np.float32]:
    """Return marginals (..., L) that a solver found for costs ``with_kept``, without certainties.

    Pixels of kept labels get the probabilities of the costs. At other pixels, kept labels get their
    probability by the costs as well, or less where they would otherwise become the most probable.
    """
    if not kept or not marginals.size:
        return marginals
    labels = np.array(kept)
    before = proba_from_costs(np.asarray(costs))
    inside = np.isin(costs.argmin(axis=-1), labels)
    others = marginals.copy()
    others[..., labels] = 0
    own = np.zeros_like(others)
    own[..., labels] = before[..., labels]
    others *= 1 - own.sum(axis=-1, keepdims=True)
    highest = own.max(axis=-1, keepdims=True)
    allowed = _BELOW_BEST * others.max(axis=-1, keepdims=True)
    own *= np.minimum(1, allowed / np.maximum(highest, np.finfo(np.float32).tiny))
    found: NDArray[np.float32] = np.where(inside[..., np.newaxis], before, others + own)
    total = found.sum(axis=-1, keepdims=True)
    found = np.where(total > 0, found / np.where(total > 0, total, 1), marginals)  # 0 at seeds only
    return found.astype(np.float32, copy=False)
