"""The folds of the gate: of images, of groups of images, or of blocks of a single image."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.model_selection import GroupKFold, KFold, check_cv
from sklearn.utils import check_random_state

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
    splitter = cv if not isinstance(cv, Integral) else None
    if splitter is None:
        n_units = n_images if groups is None else len(np.unique(np.asarray(groups)))
        n_folds = min(int(cv), n_units)
        if n_folds < 2:
            raise ValueError(
                f"groups has {n_units} group for {n_images} images; expected at least two "
                f"groups, one to learn from and one to judge by: pass cv=None to learn without "
                f"a gate."
            )
        seed = check_random_state(random_state).randint(2**31 - 1)
        splitter = (
            KFold(n_folds, shuffle=True, random_state=seed)
            if groups is None
            else GroupKFold(n_folds)
        )
    images = np.arange(n_images)
    for train, test in check_cv(splitter).split(images, groups=groups):
        yield [(int(i), None) for i in train], [(int(i), None) for i in test]
