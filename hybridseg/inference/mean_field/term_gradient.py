"""Mean field for terms of all kinds that can be differentiated: marginals, then gradients.

All sites are updated at once, and each update keeps a fraction of the old marginals:

    q' = (1 - damping) softmax(-u - sum over terms k of  w_k M_k(q) mu  -  sum over terms k of
                               N_k(q, w_k)) + damping q.

The messages ``M_k(q)`` of edges and dense kernels are linear in the marginals, and the
compatibility mu applies to them. Other messages ``N_k(q, w_k)`` are expected costs.

The fixed points are those of the sweeps that :func:`hybridseg.inference.solve_mean_field` makes,
because both solve the same equations; sweeps converge in fewer iterations, but their gradient would
need the order of the nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import coo_array

from hybridseg.arguments import as_numbers, as_singles, read_only
from hybridseg.inference.mean_field.dense_gradient import is_scale, last_marginals
from hybridseg.inference.mean_field.dense_model import DenseModel
from hybridseg.inference.mean_field.mixed import CliqueMessages
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
class CliqueCosts:
    """The expected costs that cliques tell; their factor is that of slopes and caps."""

    messages: CliqueMessages

    def expected(self, marginals: Singles, factor: float) -> Singles:
        """Return the messages of the cliques, (n, L)."""
        return self.messages.send(marginals, factor)

    def expected_back(
        self, marginals: Singles, given: Singles, factor: float
    ) -> tuple[Singles, float]:
        """Return the gradients by the marginals and by the factor."""
        return self.messages.send_back(marginals, given, factor)


@dataclass(frozen=True, eq=False)
class OwnCosts:
    """The messages of a user's term times the factor."""

    term: Any
    sites: Sites
    n_labels: int

    def expected(self, marginals: Singles, factor: float) -> Singles:
        """Return the messages of the term times the factor, (n, L)."""
        return np.float32(factor) * self._own(marginals)

    def expected_back(
        self, marginals: Singles, given: Singles, factor: float
    ) -> tuple[Singles, float]:
        """Return the gradients by the marginals and by the factor."""
        placed = (read_only(self._placed(each)) for each in (marginals, given))
        back = self.term.messages_gradient(self.sites, *placed)
        returned = self._rows(back, "messages_gradient(sites, marginals, slopes)")
        by_factor = float(np.vdot(self._own(marginals), given))
        return np.float32(factor) * returned, by_factor

    def _own(self, marginals: Singles) -> Singles:
        told = self.term.messages(self.sites, read_only(self._placed(marginals)))
        return self._rows(told, "messages(sites, marginals)")

    def _placed(self, rows: Singles) -> Singles:
        return rows.reshape(*self.sites.shape, self.n_labels)

    def _rows(self, values: ArrayLike, method: str) -> Singles:
        """Return the checked result (n, L) of a method; 0 where sites are not valid."""
        name = f"{type(self.term).__name__}.{method}"
        array = as_numbers(values, name)
        expected = (*self.sites.shape, self.n_labels)
        if array.shape != expected:
            raise ValueError(
                f"{name} has shape {array.shape}; expected that of the marginals, {expected}."
            )
        rows = as_singles(array, name).reshape(-1, self.n_labels)
        counted = self.sites.counted
        return rows if counted is None else rows * counted.reshape(-1, 1)


#: Expected costs of one term, which need not be linear in the marginals or in its factor.
CostMessages = CliqueCosts | OwnCosts


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
    terms : sequence of Messages or CostMessages
    weights : ndarray of float64, (m,)
        The factors of the terms.
    rewards : ndarray of float32, (L, L)
        The compatibility subtracted from the largest of each row.
    certain : ndarray of bool, (n,), or None
        The sites with a seed, whose marginals are constant.
    marginals : ndarray of float32, (n_updates + 1, n, L)
    sums : list of ndarray of float32, (n, L)
        The weighted messages of all terms with the compatibility in each update; empty if the
        gradient by the compatibility is not asked for.
    """

    terms: Sequence[Messages | CostMessages]
    weights: Doubles
    rewards: Singles
    certain: NDArray[np.bool_] | None
    marginals: Singles
    sums: list[Singles]

    @classmethod
    def record(
        cls,
        terms: Sequence[Messages | CostMessages],
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
        terms : sequence of m Messages or CostMessages
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
            received = tape._received(now, keep_sums)
            if received is None:
                following[:] = marginals[0]
            else:
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
            back *= old
            spread = times(own, np.ascontiguousarray(self.rewards.T))
            for k, weight, term in self._active():
                if isinstance(term, CostMessages):
                    returned, by_factor = term.expected_back(self.marginals[t], own, weight)
                    weights[k] += by_factor
                    back += returned
                else:
                    returned = term.send_back(spread)
                    weights[k] -= float(np.vdot(self.marginals[t], returned))
                    back -= np.multiply(returned, np.float32(weight))
        costs += self._through_softmax(self.marginals[0], back)
        return TermGradient(costs, weights, matrix)

    def _active(self) -> Iterator[tuple[int, float, Messages | CostMessages]]:
        """Yield the terms whose factor is not 0, with their positions and factors."""
        for k, (weight, term) in enumerate(zip(self.weights.tolist(), self.terms, strict=True)):
            if weight:
                yield k, weight, term

    def _received(self, marginals: Singles, keep_sums: bool) -> Singles | None:
        """Return what is subtracted from the costs, (n, L); None if all factors are 0."""
        total: Singles | None = None
        expected: Singles | None = None
        for _, weight, term in self._active():
            if isinstance(term, CostMessages):
                part = term.expected(marginals, weight)
                expected = part if expected is None else expected + part
            else:
                part = np.multiply(term.send(marginals), np.float32(weight))
                total = part if total is None else np.add(total, part, out=total)
        if keep_sums and (total is not None or expected is not None):
            self.sums.append(np.zeros_like(marginals) if total is None else total)
        received = None if total is None else times(total, self.rewards)
        if expected is None:
            return received
        return -expected if received is None else received - expected

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
