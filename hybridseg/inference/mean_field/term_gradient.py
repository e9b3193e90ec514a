"""Mean field for terms of all kinds that can be differentiated: marginals, then gradients.

All sites are updated at once, and each update keeps a fraction of the old marginals:

    q' = (1 - damping) softmax(-u - sum over terms k of  w_k M_k(q) mu) + damping q.

A term's messages ``M_k(q)`` are linear in the marginals. The fixed points are those of the sweeps
that :func:`hybridseg.inference.solve_mean_field` makes, because both solve the same equations;
sweeps converge in fewer iterations, but their gradient would need the order of the nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

from hybridseg.inference.mean_field.dense_gradient import is_scale, last_marginals
from hybridseg.inference.mean_field.dense_model import DenseModel
from hybridseg.kernels._compile import threads_for
from hybridseg.kernels.dense.adjoint import retreat, transposed
from hybridseg.kernels.dense.dense_filter import DenseFilter, tables_for
from hybridseg.pairwise.dense import DenseKernel
from hybridseg.pairwise.edges import EdgeGroup, edge_list
from hybridseg.pairwise.sites import Sites

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]

#: The fraction of the old marginals that an update keeps; it prevents oscillation.
DAMPING = 0.5


class Messages(Protocol):
    """The linear map from marginals to the messages of one term."""

    def send(self, marginals: Singles) -> Singles:
        """Return the messages (n, L), before they are multiplied with the compatibility."""

    def send_back(self, given: Singles) -> Singles:
        """Apply the transpose of the map to a gradient (n, L)."""


@dataclass(frozen=True, eq=False)
class EdgeMessages:
    """The messages of edges: a site receives the weighted marginals of its neighbors.

    Attributes
    ----------
    matrix : csr_array of float32, (n, n)
        Symmetric.
    """

    matrix: Any

    @classmethod
    def of(cls, groups: Sequence[EdgeGroup], shape: tuple[int, ...]) -> Self:
        """Make the messages of checked edges between sites of this shape."""
        n_sites = int(np.prod(shape))
        i, j, weight = edge_list(groups, shape)
        kept = np.flatnonzero(weight)
        i, j, weight = i[kept], j[kept], weight[kept].astype(np.float32)
        ends = np.concatenate([i, j]), np.concatenate([j, i])
        both = coo_array((np.concatenate([weight, weight]), ends), shape=(n_sites, n_sites))
        return cls(both.tocsr())

    def send(self, marginals: Singles) -> Singles:
        """Return the messages (n, L)."""
        found: Singles = self.matrix @ marginals
        return found

    def send_back(self, given: Singles) -> Singles:
        """Apply the transpose, which is the same map."""
        return self.send(given)


@dataclass(frozen=True, eq=False)
class DenseMessages:
    """The messages of a dense kernel between pixels: marginals filtered on its lattice.

    Attributes
    ----------
    model, backwards : DenseModel
        The filter and its transpose.
    weight : ndarray of float32, (1,)
        That of the kernel.
    """

    model: DenseModel
    backwards: DenseModel
    weight: Singles

    @classmethod
    def of(cls, kernel: DenseKernel, sites: Sites) -> Self:
        """Embed the pixels in the lattice of a kernel."""
        model = DenseModel.build([kernel], sites.colors, sites.spacing, sites.valid)
        turned = None if model.filter is None else transposed(model.filter)
        return cls(model, replace(model, filter=turned), np.array([kernel.weight], np.float32))

    def send(self, marginals: Singles) -> Singles:
        """Return the messages (n, L); 0 where pixels are not valid."""
        return self._filtered(self.model, marginals)

    def send_back(self, given: Singles) -> Singles:
        """Apply the transpose: the lattice is smoothed in the reverse order."""
        return self._filtered(self.backwards, given)

    def _filtered(self, model: DenseModel, rows: Singles) -> Singles:
        placed = rows.reshape(*model.shape, rows.shape[1])
        return model.messages(placed, self.weight).reshape(rows.shape)


@dataclass(frozen=True, eq=False)
class TermGradient:
    """The gradient of a loss with respect to what mean field received.

    Attributes
    ----------
    costs : ndarray of float32, (n, L)
    weights : ndarray of float64, (m,)
        By the weight of each term.
    matrix : ndarray of float64, (L, L)
        By the compatibility, up to a constant in each row; 0 if it was not asked for.
    """

    costs: Singles
    weights: Doubles
    matrix: Doubles


@dataclass(frozen=True, eq=False)
class TermTape:
    """The marginals of all updates, from which gradients follow.

    Attributes
    ----------
    terms : sequence of Messages
    weights : ndarray of float64, (m,)
    rewards : ndarray of float32, (L, L)
        The compatibility subtracted from the largest of each row.
    certain : ndarray of bool, (n,), or None
        The sites with a seed, whose marginals are constant.
    marginals : ndarray of float32, (n_updates + 1, n, L)
    sums : list of ndarray of float32, (n, L)
        The weighted messages of all terms in each update; empty if the gradient by the
        compatibility is not asked for.
    """

    terms: Sequence[Messages]
    weights: Doubles
    rewards: Singles
    certain: NDArray[np.bool_] | None
    marginals: Singles
    sums: list[Singles]

    @classmethod
    def record(
        cls,
        terms: Sequence[Messages],
        weights: Doubles,
        rewards: Doubles,
        costs: Singles,
        n_updates: int,
        *,
        seeds: NDArray[np.integer[Any]] | None = None,
        keep_sums: bool = False,
    ) -> Self:
        """Make the updates and record what the gradient needs.

        Parameters
        ----------
        terms : sequence of m Messages
        weights : (m,)
        rewards : (L, L)
        costs : (n, L) float32
        n_updates : int
        seeds : (n,) int, optional
            Label indices that are certain, negative where unknown.
        keep_sums : bool
            Whether the gradient by the compatibility will be asked for.
        """
        marginals = np.empty((n_updates + 1, *costs.shape), np.float32)
        certain = None if seeds is None else seeds >= 0
        tape = cls(terms, weights, rewards.astype(np.float32), certain, marginals, [])
        marginals[0] = softmax_of(costs)
        if certain is not None and seeds is not None:
            marginals[0, certain] = np.eye(costs.shape[1], dtype=np.float32)[seeds[certain]]
        for t in range(n_updates):
            now, following = marginals[t], marginals[t + 1]
            total = tape._sum([term.send(now) if w else None for w, term in tape._weighted()])
            if total is None:
                following[:] = marginals[0]
            else:
                if keep_sums:
                    tape.sums.append(total)
                received = times(total, tape.rewards)
                following[:] = softmax_of(np.subtract(costs, received))
                if certain is not None:
                    following[certain] = now[certain]
            following *= np.float32(1 - DAMPING)
            following += np.float32(DAMPING) * now
        return tape

    @property
    def nbytes(self) -> int:
        """The size in bytes."""
        return int(self.marginals.nbytes + sum(each.nbytes for each in self.sums))

    def gradient(self, given: Singles) -> TermGradient:
        """Return the gradient of a loss, given that by the last marginals (n, L)."""
        n_labels = given.shape[1]
        weights, matrix = np.zeros(len(self.terms)), np.zeros((n_labels, n_labels))
        costs, back = np.zeros_like(given), given.astype(np.float32)
        new, old = np.float32(1 - DAMPING), np.float32(DAMPING)
        for t in range(len(self.marginals) - 2, -1, -1):
            # The softmax of this update follows from the marginals before and after it.
            soft = self.marginals[t + 1] - old * self.marginals[t]
            soft /= new
            own = self._through_softmax(soft, back)  # by the costs with all messages
            own *= new
            costs += own
            if self.sums:
                matrix += self.sums[t].T @ own
            spread = times(own, np.ascontiguousarray(self.rewards.T))
            returned = [term.send_back(spread) if w else None for w, term in self._weighted()]
            for k, each in enumerate(returned):
                if each is not None:
                    weights[k] -= float(np.vdot(self.marginals[t], each))
            back *= old
            total = self._sum(returned)
            if total is not None:
                back -= total
        costs += self._through_softmax(self.marginals[0], back)
        return TermGradient(costs, weights, matrix)

    def _weighted(self) -> list[tuple[float, Messages]]:
        return list(zip(self.weights.tolist(), self.terms, strict=True))

    def _sum(self, each: Sequence[Singles | None]) -> Singles | None:
        """Return the weighted sum over the terms; None if all weights are 0."""
        total: Singles | None = None
        for weight, own in zip(self.weights, each, strict=True):
            if own is not None:
                part = np.multiply(own, np.float32(weight))
                total = part if total is None else np.add(total, part, out=total)
        return total

    def _through_softmax(self, soft: Singles, given: Singles) -> Singles:
        """Return the gradient by the costs of a softmax; 0 at certain sites."""
        lone, found = _without_lattices(len(soft)), np.zeros_like(soft)
        with threads_for(soft.size):
            tables = tables_for(lone, max(2, soft.shape[1]))
            none = np.zeros((0, tables.table.shape[1]), np.float32)
            retreat(lone, soft, given, tables, none, found, np.zeros((0, 0), np.float32))
        if self.certain is not None:
            found[self.certain] = 0
        return found


def softmax_of(costs: Singles) -> Singles:
    """Return the softmax (n, L) of the negated costs."""
    return last_marginals(_without_lattices(len(costs)), costs, (), 0)


def _without_lattices(n_points: int) -> DenseFilter:
    """Return a filter without kernels: what mean field does besides messages."""
    none = np.empty((n_points, 0))
    links, sections = np.empty((0, 2), np.int32), np.empty((0, 4), np.int64)
    return DenseFilter(none.astype(np.int32), none.astype(np.float32), links, sections)


def times(rows: Singles, matrix: Singles) -> Singles:
    """Return the product of rows (n, L) and a matrix (L, L), fast for Potts."""
    if is_scale(matrix):
        return rows if matrix[0, 0] == 1 else rows * matrix[0, 0]
    return rows @ matrix
