"""Conjugate gradients for Laplacians whose parts hang together by a thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu

from hybridseg.inference.multigrid import Multigrid, Operator
from hybridseg.kernels.random_walker import (
    add_parts,
    add_scaled,
    inner_products,
    largest_entries,
    strong_parts,
    sum_parts,
)

#: Nothing is linked more weakly than this.
_WEAKEST = 1e-12


@dataclass(frozen=True, eq=False)
class Islands:
    """Parts of the grid that only weak links join, and the exact solution among their constants.

    A coarse grid cannot see a part that is one or two pixels wide, and a walker may need billions
    of steps to leave it. Constants on such parts are what slows conjugate gradients down, so they
    are solved for apart (deflation).

    Attributes
    ----------
    part : ndarray of int32, (n,)
        The part of each unknown, -1 elsewhere.
    n_parts : int
    factors : object with ``solve``, or None without parts
        The sparse factors of the system contracted to one unknown for each part.
    """

    part: NDArray[np.int32]
    n_parts: int
    factors: Any

    @classmethod
    def build(cls, operator: Operator, weak: float, most: int) -> Islands:
        """Cut the links below ``weak``, or weaker ones where that would leave too many parts."""
        steps = operator.grid.distances(operator.offsets)
        part = np.empty(operator.grid.size, np.int32)
        n_parts = strong_parts(operator.links, operator.ground, steps, weak, part)
        while n_parts > most and weak > _WEAKEST:
            weak /= 10
            n_parts = strong_parts(operator.links, operator.ground, steps, weak, part)
        if n_parts == 0:
            return cls(part, 0, None)
        inside = part >= 0
        diagonal = np.bincount(part[inside], operator.ground[inside], n_parts)
        every: NDArray[Any] = np.arange(n_parts)
        rows, columns, values = [every], [every], [diagonal]
        for links, step in zip(operator.links, steps, strict=True):
            i = np.flatnonzero((part[:-step] != part[step:]) & (links[:-step] > 0))
            here, there, strength = part[i], part[i + step], links[i]
            rows += [here, there, here, there]
            columns += [there, here, here, there]
            values += [-strength, -strength, strength, strength]
        entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
        matrix = coo_array(entries, shape=(n_parts, n_parts)).tocsc()
        symmetric = {"SymmetricMode": True}
        factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=symmetric)
        return cls(part, n_parts, factors)

    def add_solution(
        self, rest: NDArray[np.float64], sign: float, out: NDArray[np.float64]
    ) -> None:
        """Add ``sign`` times the solution of the contracted system for ``rest`` to ``out``."""
        if self.n_parts == 0:
            return
        sums = np.empty((len(rest), self.n_parts))
        sum_parts(self.part, rest, sums)
        add_parts(self.part, np.ascontiguousarray(self.factors.solve(sums.T).T), sign, out)


def conjugate_gradients(
    operator: Operator,
    inverse: Multigrid,
    islands: Islands,
    right: NDArray[np.float64],
    tol: float,
    max_iter: int,
) -> tuple[NDArray[np.float64], int, NDArray[np.float64]]:
    """Solve ``A x = right`` for each row of ``right`` (K, n), in 64 bits, all rows in step.

    Returns
    -------
    x : (K, n)
    n_iter : int
    error : (K,)
        The largest entry of the preconditioned residual, which stands for the error of ``x``: all
        rows go on until each one's is at most ``tol``.

    References
    ----------
    Tang, Nabben, Vuik and Erlangga, Journal of Scientific Computing 39, 2009, A-DEF2.
    """
    n_rows = len(right)
    one, error, energy = np.ones(n_rows), np.empty(n_rows), np.zeros(n_rows)
    x, along, work = np.zeros_like(right), np.zeros_like(right), np.zeros_like(right)
    islands.add_solution(right, 1.0, x)
    rest = operator.add_product(x, right, -1.0, np.zeros_like(right))
    step, zero = np.zeros_like(right), np.zeros_like(right)
    n_iter = 0
    while True:
        _precondition(inverse, rest, step)
        islands.add_solution(operator.add_product(step, rest, -1.0, work), 1.0, step)
        largest_entries(step, error)
        if n_iter == max_iter or bool((error <= tol).all()):
            return x, n_iter, error
        before, energy = energy, _dots(rest, step)
        add_scaled(one, step, _ratio(energy, before), along, along)
        product = operator.add_product(along, zero, 1.0, work)
        length = _ratio(energy, _dots(along, product))
        add_scaled(one, x, length, along, x)
        add_scaled(one, rest, -length, product, rest)
        n_iter += 1


def _precondition(inverse: Multigrid, rest: NDArray[Any], out: NDArray[Any]) -> None:
    """One V-cycle in 32 bits, scaled so that small residuals do not underflow."""
    size = np.empty(len(rest))
    largest_entries(rest, size)
    size[size == 0] = 1
    single = np.empty(rest.shape, np.float32)
    add_scaled(1 / size, rest, np.zeros(len(rest)), rest, single)
    found = inverse(single)
    add_scaled(size, found, np.zeros(len(rest)), found, out)


def _ratio(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def _dots(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    out = np.empty(len(a))
    inner_products(a, b, out)
    return out
