"""Mean field for energies with terms of several kinds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from hybridseg.inference.mean_field.sweeps import sweeps_over
from hybridseg.pairwise.edges import EdgeGroup

Singles = NDArray[np.float32]


def mixed_sweeps(
    rows: Singles,
    groups: Sequence[EdgeGroup],
    shape: tuple[int, ...],
    pairs: Singles,
    expected: Callable[[Singles], Singles],
    *,
    n_iter: int,
    tol: float,
    damping: float,
    start: Singles | None,
    record: Callable[[Singles], None] | None = None,
) -> tuple[Singles, list[float]]:
    """Sweep over the edges while the expected costs of the other terms stay fixed.

    Each iteration computes ``expected`` (n, L) from the current marginals (n, L), adds it to the
    costs ``rows`` (n, L), and makes one sweep over the edges. A fixed point therefore solves the
    mean-field equations of all terms. It returns the marginals and all changes. ``record`` is
    called with the marginals at the start and after each iteration, in the shape (*shape, L).
    """
    sweeps = sweeps_over(rows, groups, shape, pairs, damping)
    if start is not None:
        sweeps.start_from(start)
    marginals = sweeps.marginals()
    if record is not None:
        record(marginals.reshape(*shape, -1))
    changes: list[float] = []
    while len(changes) < n_iter and not (changes and changes[-1] < tol):
        sweeps.set_costs(rows + expected(marginals))
        changes += sweeps.run(1)
        marginals = sweeps.marginals()
        if record is not None:
            record(marginals.reshape(*shape, -1))
    return marginals, changes
