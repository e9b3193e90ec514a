"""The free energy: the objective that mean field lowers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy

from hybridseg.inference.mean_field.dense_model import DenseModel, as_marginals, embedded
from hybridseg.inference.mean_field.mixed import CliqueMessages
from hybridseg.pairwise.edges import EdgeGroup
from hybridseg.pairwise.energy import Energy
from hybridseg.pairwise.higher_order.presence import expected_presence_cost
from hybridseg.pairwise.terms import (
    has_cliques,
    has_edges,
    is_dense,
    refuse_terms,
    term_edges,
)
from hybridseg.validation import only_valid

Singles = NDArray[np.float32]


def free_energy(energy: Energy, marginals: ArrayLike, *, model: DenseModel | None = None) -> float:
    r"""Return the variational free energy of independent marginals.

    .. math:: F(Q) = \mathbb{E}_Q E - H(Q) = \mathbb{E}_Q E + \sum_{i, l} Q_i(l) \log Q_i(l)

    It is at least :math:`-\log Z` of the CRF, and their difference is the Kullback-Leibler
    divergence from the CRF to the marginals [1]_. Mean field looks for its minimum.

    Parameters
    ----------
    energy : Energy
        Each term is a dense kernel, has edges or cliques, or charges for the set of labels that
        occur.
    marginals : array-like, (*shape, L)
        Probabilities; they are scaled to sum to one at each site. Those of sites that are not
        valid are ignored.
    model : DenseModel, optional
        The result of :meth:`DenseModel.of_energy` for this energy. It saves the time of embedding.

    Returns
    -------
    float

    Raises
    ------
    TypeError
        A term is not a dense kernel and has neither edges nor cliques: its messages do not
        determine its expected cost.
    ValueError
        The marginals or the model do not fit the energy.

    Notes
    -----
    Dense kernels are filtered on permutohedral lattices. As in :func:`solve_mean_field`, a pixel
    counts as its own neighbor there, so that this is the objective of the equations that are
    solved. The occurrences of two labels count as independent events; see
    :class:`hybridseg.pairwise.CoOccurrence`. The kernels are approximate, and all pixels are
    updated at once, so that the free energy of dense kernels may rise from one iteration to the
    next.

    The cost of a clique is a minimum over a variable, a label or "free" (see
    :class:`hybridseg.pairwise.Cliques`). The free energy is that of the sites and of these
    variables, each with its best distribution, and :math:`Z` sums over their values as well.

    References
    ----------
    .. [1] D. Koller, N. Friedman, "Probabilistic Graphical Models", MIT Press, 2009, section 11.5.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import free_energy, solve_mean_field
    >>> from hybridseg.pairwise import Energy, GridTerm
    >>> unary = np.random.default_rng(0).normal(0, 1, (4, 5, 2))
    >>> energy = Energy(unary, [GridTerm(0.5, contrast=None)])
    >>> uniform = np.full((4, 5, 2), 0.5)
    >>> free_energy(energy, solve_mean_field(energy).marginals) < free_energy(energy, uniform)
    True
    """
    objective = FreeEnergy.of(energy, model)
    given = only_valid(marginals, energy.sites.counted, instead=1.0, name="marginals")
    return objective(as_marginals(given, energy.unary.shape, "marginals"))


@dataclass(frozen=True, eq=False)
class FreeEnergy:
    """The free energy of one energy as a function of checked marginals."""

    energy: Energy
    groups: Sequence[EdgeGroup]
    model: DenseModel | None
    weights: Singles
    cliques: CliqueMessages | None

    @classmethod
    def of(cls, energy: Energy, model: DenseModel | None) -> Self:
        """Prepare the terms; refuse those whose expected cost is not known."""
        sites = energy.sites
        kernels = [term for term in energy.local_terms if is_dense(term, sites)]
        rest = [term for term in energy.local_terms if not is_dense(term, sites)]
        edged = [term for term in rest if has_edges(term, sites)]
        refuse_terms(
            [t for t in rest if not (has_edges(t, sites) or has_cliques(t, sites))],
            *("the free energy", "edges(sites), cliques(sites), or a dense kernel,"),
            "Messages alone do not determine the expected cost: add a method edges to its class.",
        )
        if kernels:
            model = embedded(energy, model)
        groups = term_edges(edged, sites) if kernels else energy.edges
        weights = np.array([kernel.weight for kernel in kernels], np.float32)
        n_sites, cliques = math.prod(energy.shape), None
        if len(energy.cliques):
            cliques = CliqueMessages.of(energy.cliques, n_sites)
        return cls(energy, groups, model if kernels else None, weights, cliques)

    def __call__(self, marginals: Singles) -> float:
        """Return the free energy of marginals (*shape, L)."""
        energy = self.energy
        counted = energy.sites.counted
        seen: Any = slice(None) if counted is None else counted
        proba, matrix = marginals.astype(np.float64), np.asarray(energy.matrix, np.float64)
        rows = proba[seen].reshape(-1, energy.n_labels)
        costs = np.asarray(energy.total_unary[seen], np.float64).reshape(rows.shape)
        total = float((rows * costs).sum() + xlogy(rows, rows).sum())
        for group in self.groups:
            pairs = np.einsum("...l,...l->...", proba[group.p] @ matrix, proba[group.q])
            total += float((group.weight * pairs).sum())
        if self.model is not None:
            messages = self.model.messages(marginals, self.weights) @ matrix
            total += float((rows * messages[seen].reshape(rows.shape)).sum()) / 2
        if self.cliques is not None:
            total += self.cliques.free_energy(proba.reshape(-1, energy.n_labels))
        if energy.presence_costs is not None:
            total += expected_presence_cost(rows, energy.presence_costs)
        return total
