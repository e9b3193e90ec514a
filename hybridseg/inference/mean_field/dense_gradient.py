"""Mean field with dense kernels that can be differentiated: marginals forward, gradients backward.

An iteration adds to the score of label l the sum over kernels k and labels l' of
``m_k(l') A_k(l', l)``: m_k are the marginals filtered with kernel k, and A_k (L, L) is minus the
weight of the kernel times the compatibility. The multiplication with A_k is made on the vertices of
the lattice. There are fewer vertices than pixels, so a matrix for each kernel costs little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels._compile import threads_for
from hybridseg.kernels.dense.adjoint import (
    coordinate_gradient,
    feature_gradient,
    retreat,
    transposed,
)
from hybridseg.kernels.dense.dense_filter import (
    DenseFilter,
    add_parts,
    blur,
    rows_after_blur,
    rows_before_blur,
    tables_for,
)
from hybridseg.kernels.dense.mean_field import Steps, advance
from hybridseg.kernels.dense.rows import inner_products, multiply_rows

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]

_POTTS = np.zeros((0, 0), np.float32)


@dataclass(frozen=True, eq=False)
class DenseGradient:
    """The gradient of a loss with respect to what mean field received.

    Attributes
    ----------
    costs : ndarray of float32, (n, L)
    responses : list of ndarray of float64, (L, L)
        With respect to the matrix A_k of each kernel.
    corners : ndarray of float32, (n, C) or (0, C)
        With respect to the weights of the filter; empty if it was not asked for.
    """

    costs: Singles
    responses: list[Doubles]
    corners: Singles

    def of_features(self, dense: DenseFilter, kernel: int, features: NDArray[Any]) -> Doubles:
        """Return the gradient (n, d) with respect to the features of one kernel.

        It is exact for the filter on the lattice wherever no point lies on the border of a
        simplex.
        """
        with threads_for(features.size):
            coordinates = coordinate_gradient(dense, kernel, self.corners)
            return feature_gradient(features, coordinates)


@dataclass(frozen=True, eq=False)
class DenseTape:
    """The marginals and the filtered tables of all iterations, from which gradients follow.

    Attributes
    ----------
    dense : DenseFilter
    responses : list of ndarray of float32, (L, L)
        The matrix A_k of each kernel.
    marginals : ndarray of float32, (n_iter + 1, n, L)
        Those at the start, the softmax of the negated costs, and after each iteration.
    filtered : list of ndarray of float32, (rows, width)
        The smoothed table of each iteration, before the multiplication with A_k.
    """

    dense: DenseFilter
    responses: list[Singles]
    marginals: Singles
    filtered: list[Singles]

    @classmethod
    def record(
        cls,
        dense: DenseFilter,
        costs: Singles,
        responses: Sequence[Doubles],
        n_iter: int,
        *,
        keep: bool = True,
    ) -> DenseTape:
        """Run mean field on costs (n, L) and record what the gradient needs.

        Parameters
        ----------
        dense : DenseFilter
            The kernels, normalized.
        costs : (n, L) float32, C-contiguous
        responses : sequence of (L, L)
            For each kernel: what a message of label l' adds to the score of label l. For Potts it
            is the identity times the weight of the kernel.
        n_iter : int
        keep : bool
            If False, ``marginals`` (1, n, L) holds only the last ones, which takes less memory;
            then there is no gradient.
        """
        matrices = [np.asarray(matrix, np.float32) for matrix in responses]
        marginals = np.empty((n_iter + 1 if keep else 1, *costs.shape), np.float32)
        filtered: list[Singles] = []
        skipped = [None] * (n_iter + 1 - len(marginals))
        _iterate(dense, costs, matrices, [*skipped, *marginals], filtered)
        return cls(dense, matrices, marginals, filtered)

    def messages(self, points: NDArray[np.intp]) -> Singles:
        """Return what the last messages add to the scores (k, L) of some points (k,)."""
        found = np.zeros((len(points), self.marginals.shape[-1]), np.float32)
        if not self.filtered:
            return found
        table = np.zeros_like(self.filtered[-1])
        _respond(self.dense, self.filtered[-1], self.responses, table)
        for vertices, weights in zip(self.dense.vertices.T, self.dense.weights.T, strict=True):
            rows = table[vertices[points], : found.shape[1]]
            found += weights[points, np.newaxis] * rows
        return found

    def gradient(self, given: Singles, *, corners: bool = False) -> DenseGradient:
        """Return the gradient of a loss, given its gradient (n, L) with respect to the marginals.

        Parameters
        ----------
        given : (n, L) float32, C-contiguous
            With respect to the marginals after the last iteration.
        corners : bool
            Whether to compute the gradient with respect to the weights of the filter, which that
            of features needs; it takes about a quarter more time.
        """
        n_iter, (n_points, n_labels) = len(self.filtered), given.shape
        costs = np.zeros_like(given)
        n_rows = n_points if corners else 0
        weights = np.zeros((n_rows, self.dense.vertices.shape[1]), np.float32)
        matrices = [np.zeros((n_labels, n_labels)) for _ in self.responses]
        backwards = transposed(self.dense)
        with threads_for(given.size):
            tables = tables_for(self.dense, max(2, n_labels))
            ones = np.ones(len(self.dense.sections), np.float32)
            scores = np.zeros_like(tables.table)
            for t in range(n_iter, -1, -1):
                if t > 0:
                    _respond(self.dense, self.filtered[t - 1], self.responses, scores)
                own = given if t == n_iter else given[:0]
                asked = scores if t > 0 else scores[:0]
                retreat(self.dense, self.marginals[t], own, tables, asked, costs, weights)
                if t > 0:
                    add_parts(backwards, ones, tables)
                    self._through_matrices(tables, t - 1, matrices)
                    blur(backwards, tables)
        return DenseGradient(costs, matrices, weights)

    def _through_matrices(self, tables: Any, iteration: int, matrices: list[Doubles]) -> None:
        """Add to the gradients of the matrices A_k, and multiply the tables with their transposes.

        The scores are linear in A_k: the gradient is the product of what A_k was multiplied with,
        the filtered marginals, and the spread gradient of the scores.
        """
        n_labels = self.marginals.shape[-1]
        before = tables._replace(table=self.filtered[iteration])
        for kernel, matrix in enumerate(self.responses):
            rows = rows_before_blur(self.dense, tables, kernel)
            filtered = rows_after_blur(self.dense, before, kernel)
            matrices[kernel] += inner_products(filtered, rows, n_labels)
            _multiply(rows, np.ascontiguousarray(matrix.T), rows)


def last_marginals(
    dense: DenseFilter, costs: Singles, responses: Sequence[Doubles], n_iter: int
) -> Singles:
    """Return the marginals (n, L) after all iterations, without a record of the others."""
    matrices = [np.asarray(matrix, np.float32) for matrix in responses]
    last = np.empty(costs.shape, np.float32)
    _iterate(dense, costs, matrices, [None] * n_iter + [last], None)
    return last


def _iterate(
    dense: DenseFilter,
    costs: Singles,
    matrices: Sequence[Singles],
    marginals: Sequence[Singles | None],
    filtered: list[Singles] | None,
) -> None:
    """Run mean field; write the marginals of each pass that is asked for, and append the tables."""
    n_iter = len(marginals) - 1
    with threads_for(costs.size):
        tables = tables_for(dense, max(2, costs.shape[1]))
        ones = np.ones(len(dense.sections), np.float32)
        for t, kept in enumerate(marginals):
            steps = Steps(read=t > 0, spread=t < n_iter, keep=kept is not None, compare=False)
            advance(costs, dense, tables, _POTTS, steps, costs if kept is None else kept)
            if t < n_iter:
                add_parts(dense, ones, tables)
                blur(dense, tables)
                if filtered is not None:
                    filtered.append(tables.table.copy())
                _respond(dense, tables.table, matrices, tables.table)


def _respond(
    dense: DenseFilter, filtered: Singles, matrices: Sequence[Singles], out: Singles
) -> None:
    """Write the filtered rows times A_k to ``out``, for each lattice."""
    for (first, size, *_), matrix in zip(dense.sections, matrices, strict=True):
        rows = slice(int(first), int(first + size))
        _multiply(filtered[rows], matrix, out[rows])


def _multiply(rows: Singles, matrix: Singles, out: Singles) -> None:
    """Write the product of rows (M, width) and a matrix (L, L); the padding remains 0."""
    if is_scale(matrix):
        np.multiply(rows, matrix[0, 0], out=out)
        return
    multiply_rows(rows, matrix, out)


def is_scale(matrix: Singles) -> bool:
    """Return whether a matrix is a multiple of the identity, as that of Potts is."""
    return np.array_equal(matrix, matrix[0, 0] * np.eye(len(matrix), dtype=np.float32))
