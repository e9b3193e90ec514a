"""Conjugate gradients for Laplacians whose parts hang together by a thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu

from hybridseg.inference.multigrid import Multigrid, Operator
from hybridseg.kernels.deflated_cg import (
    add_parts,
    advance,
    preconditioned,
    strong_parts,
    sum_parts,
    turn,
)
from hybridseg.kernels.random_walker import curvature

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

    def solve(self, rest: NDArray[np.float64]) -> NDArray[np.float64]:
        """The solution (n_parts,) of the contracted system for ``rest`` (n,)."""
        sums = np.empty(self.n_parts)
        sum_parts(self.part, rest, sums)
        return self.factors.solve(sums) if self.n_parts else sums


def conjugate_gradients(
    operator: Operator,
    inverse: Multigrid,
    islands: Islands,
    right: NDArray[np.float64],
    tol: float,
    max_iter: int,
) -> tuple[NDArray[np.float64], int, float]:
    """Solve ``A x = right`` (n,) in 64 bits.

    Returns
    -------
    x : (n,)
    n_iter : int
    error : float
        The largest entry of the preconditioned residual, which stands for the error of ``x``: it
        goes on until that is at most ``tol``.

    References
    ----------
    Tang, Nabben, Vuik and Erlangga, Journal of Scientific Computing 39, 2009, A-DEF2.
    """
    system = (operator.links, operator.steps, operator.ground)
    x, along, step, work = (np.zeros_like(right) for _ in range(4))
    rooms = inverse.rooms()
    add_parts(islands.part, islands.solve(right), x)
    rest = operator.add_product(x[np.newaxis], right[np.newaxis], -1.0, work[np.newaxis])[0].copy()
    size = float(np.abs(rest).max()) or 1.0
    rooms[0, : len(x)] = rest / size
    energy, n_iter = 0.0, 0
    while True:
        # one V-cycle in 32 bits, of a residual scaled so that nothing underflows
        found = inverse.apply(rooms)
        np.multiply(found, size, out=step)
        operator.add_product(step[np.newaxis], rest[np.newaxis], -1.0, work[np.newaxis])
        values = islands.solve(work)
        before = energy
        error, energy = preconditioned(islands.part, values, found, size, rest, step)
        if n_iter == max_iter or error <= tol:
            return x, n_iter, error
        turn(energy / before if before > 0 else 0.0, step, along)
        bend = curvature(*system, along, work)
        length = energy / bend if bend > 0 else 0.0
        largest = advance(length, along, work, x, rest, 1 / size, rooms[0, : len(x)])
        if largest > 0 and not 1e-3 < largest / size < 1e3:
            size = largest
            np.divide(rest, size, out=rooms[0, : len(x)], casting="same_kind")
        n_iter += 1
