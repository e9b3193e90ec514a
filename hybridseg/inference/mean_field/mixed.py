"""Mean field for energies with terms of several kinds: sweeps, label costs and cliques."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.special import logsumexp, softmax

from hybridseg.inference.mean_field.sweeps import sweeps_over
from hybridseg.pairwise.edges import EdgeGroup
from hybridseg.pairwise.higher_order.cliques import Cliques

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]


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


@dataclass(frozen=True, eq=False)
class CliqueMessages:
    r"""The messages of cliques, whose costs have an auxiliary variable each.

    The cost of clique c is the minimum over a variable :math:`y_c`, a label or "free":

    .. math:: \min_{y_c} \begin{cases} s_c \sum_{i \in c} w_{ci} [x_i \ne l] & y_c = l \\
              \text{cap}_c & y_c\ \text{free} \end{cases}

    Mean field has a distribution of each variable besides those of the sites. Given the sites, the
    best one is

    .. math:: q_c(l) \propto \exp\Big(-s_c \sum_{i \in c} w_{ci} (1 - q_i(l))\Big), \qquad
              q_c(\text{free}) \propto \exp(-\text{cap}_c)

    and a site receives :math:`-\sum_c s_c w_{ci} q_c(l)`, up to a constant. Such messages for the
    P^n model without auxiliary variables are those of [1]_, for superpixels in a network of [2]_.

    Attributes
    ----------
    members : csr_array of float64, (C, n)
        The weight of each member.
    places : csr_array of float32, (n, C)
        Its transpose.
    slope, cap, sizes : ndarray of float64, (C, 1)

    References
    ----------
    .. [1] V. Vineet, J. Warrell, P. H. S. Torr, "Filter-based mean-field inference for random
       fields with higher-order terms and product label-spaces", IJCV 110, 2014.
    .. [2] A. Arnab, S. Jayasumana, S. Zheng, P. H. S. Torr, "Higher order conditional random fields
       in deep neural networks", ECCV, 2016.
    """

    members: Any
    places: Any
    slope: Doubles
    cap: Doubles
    sizes: Doubles

    @classmethod
    def of(cls, cliques: Cliques, n_sites: int) -> Self:
        """Make the messages of checked cliques between sites 0..n_sites-1."""
        table = csr_array(
            (cliques.weight.astype(np.float64), cliques.site, cliques.first),
            shape=(len(cliques), n_sites),
        )
        columns = (
            np.asarray(each, np.float64)[:, np.newaxis]
            for each in (cliques.slope, cliques.cap, cliques.sizes)
        )
        return cls(table, table.T.tocsr().astype(np.float32), *columns)

    def send(self, marginals: Singles, factor: float = 1.0) -> Singles:
        """Return the messages (n, L) of the cliques with all costs times a factor."""
        return self._told(factor * self.slope * self._beliefs(marginals, factor)[:, :-1])

    def send_back(
        self, marginals: Singles, given: Singles, factor: float = 1.0
    ) -> tuple[Singles, float]:
        """Return the gradients by the marginals (n, L) and the factor, given that by messages."""
        disagreement = self._disagreement(marginals)
        beliefs = softmax(-factor * self._costs(disagreement), axis=1)
        # The messages are - factor * slope * weight * belief.
        received = -self.slope * (self.members @ given)
        by_beliefs = np.zeros_like(beliefs)
        by_beliefs[:, :-1] = factor * received
        inner = (by_beliefs * beliefs).sum(axis=1, keepdims=True)
        by_costs = -beliefs * (by_beliefs - inner)  # by factor times the costs
        by_factor = (received * beliefs[:, :-1]).sum()
        by_factor += (by_costs * self._costs(disagreement)).sum()
        return self._told(factor * self.slope * by_costs[:, :-1]), float(by_factor)

    def free_energy(self, marginals: NDArray[Any]) -> float:
        """Return the least expected cost less the entropy of the auxiliary variables."""
        return -float(logsumexp(-self._costs(self._disagreement(marginals)), axis=1).sum())

    @property
    def largest(self) -> float:
        """The largest sum of messages at a site, at factor 1."""
        sums = self.places @ self.slope
        return float(sums.max(initial=0))

    def _disagreement(self, marginals: NDArray[Any]) -> Doubles:
        """Return the expected weight of members without each label, (C, L)."""
        found: Doubles = np.maximum(self.sizes - self.members @ marginals, 0)
        return found

    def _costs(self, disagreement: Doubles) -> Doubles:
        """Return the expected cost of each value of the auxiliary variables, (C, L + 1)."""
        return np.concatenate([self.slope * disagreement, self.cap], axis=1)

    def _beliefs(self, marginals: Singles, factor: float) -> Doubles:
        found: Doubles = softmax(-factor * self._costs(self._disagreement(marginals)), axis=1)
        return found

    def _told(self, values: Doubles) -> Singles:
        """Return minus the weighted sum over the cliques of each site, (n, L)."""
        found: Singles = self.places @ (-values).astype(np.float32)
        return found
