"""Mean field where terms of several kinds act together."""

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
) -> tuple[Singles, list[float]]:
    """Sweep over the edges while what the other terms are expected to cost is held.

    Each iteration computes ``expected`` (n, L) of the marginals (n, L) that are there, adds it to
    the costs ``rows`` (n, L), and makes one coloured sweep over the edges. So a fixed point obeys
    the mean-field equations of all terms together. Returns the marginals and all changes.
    """
    sweeps = sweeps_over(rows, groups, shape, pairs, damping)
    if start is not None:
        sweeps.start_from(start)
    marginals = sweeps.marginals()
    changes: list[float] = []
    while len(changes) < n_iter and not (changes and changes[-1] < tol):
        sweeps.charge(rows + expected(marginals))
        changes += sweeps.run(1)
        marginals = sweeps.marginals()
    return marginals, changes


def label_cost_messages(marginals: Singles, label_costs: NDArray[np.float64]) -> Singles:
    r"""What each label is expected to cost a site because it then occurs.

    .. math:: m_i(l) = c_l \prod_{j \ne i} (1 - Q_j(l))

    is the derivative of the expected cost :math:`c_l (1 - \prod_j (1 - Q_j(l)))`. Products are sums
    of logarithms; sites that are certain of a label are counted apart, as their logarithm is
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
    others = certain.sum(axis=0) - certain  # how many others are certain of the label
    products = np.where(others > 0, 0.0, np.exp(logs.sum(axis=0) - logs))
    return np.asarray(label_costs * products, dtype=np.float32)
