"""The folds of the gate: of images, of groups of images, or of blocks of a single image."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import check_random_state

from hybridseg.unary.cross_fit import image_splits

#: The position of an image, and the blocks of it that count; None if all do.
Fraction = tuple[int, tuple[int, ...] | None]


def folds_of(
    cv: Any, n_images: int, groups: ArrayLike | None, random_state: Any
) -> Iterator[tuple[list[Fraction], list[Fraction]]]:
    """Return what to learn from and what to judge by, for each fold; nothing if ``cv`` is None.

    Raises
    ------
    ValueError
        There are fewer than two groups.
    """
    if cv is None:
        return
    if n_images == 1 and isinstance(cv, Integral):
        for fold in range(int(cv)):
            others = tuple(other for other in range(int(cv)) if other != fold)
            yield [(0, others)], [(0, (fold,))]
        return
    if isinstance(cv, Integral):
        n_units = n_images if groups is None else len(np.unique(np.asarray(groups)))
        cv = min(int(cv), n_units)
        if cv < 2:
            raise ValueError(
                f"groups has {n_units} group for {n_images} images; expected at least two "
                f"groups, one to learn from and one to judge by: pass cv=None to learn without "
                f"a gate."
            )
    seed = check_random_state(random_state).randint(2**31 - 1)
    for train, test in image_splits(range(n_images), cv, groups, seed):
        yield [(int(i), None) for i in train], [(int(i), None) for i in test]
