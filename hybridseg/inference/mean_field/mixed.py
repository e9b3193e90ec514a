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


def label_cost_messages(marginals: Singles, label_costs: NDArray[np.float64]) -> Singles:
    r"""Return the expected label cost that each site adds by taking a label.

    .. math:: m_i(l) = c_l \prod_{j \ne i} (1 - Q_j(l))

    is the derivative of the expected cost :math:`c_l (1 - \prod_j (1 - Q_j(l)))`. Products are
    sums of logarithms. Sites with marginal 1 are counted separately, because their logarithm is
    infinite.

    Parameters
    ----------
    marginals : (n, L)
    label_costs : (L,)

    Returns
    -------
    (n, L)
    """
    absent = 1.0 - np.minimum(marginals.astype(np.float64), 1.0)
    certain = absent == 0
    logs = np.log(absent, out=np.zeros_like(absent), where=~certain)
    others = certain.sum(axis=0) - certain  # the number of other sites with marginal 1
    products = np.where(others > 0, 0.0, np.exp(logs.sum(axis=0) - logs))
    return np.asarray(label_costs * products, dtype=np.float32)
