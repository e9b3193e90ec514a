"""Conjugate gradients with deflation, for Laplacians whose parts are joined by weak links."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu

from hybridseg.inference.random_walk.multigrid import Multigrid, Operator
from hybridseg.kernels.laplacian.deflated_cg import (
    add_parts,
    advance,
    find_pulls,
    measure,
    strong_parts,
    sum_parts,
    take_pulls,
    turn,
)
from hybridseg.kernels.vectors.simd import aligned

#: The smallest threshold for weak links: no link of the random walker is below it.
_MIN_THRESHOLD = 1e-12


@dataclass(frozen=True, eq=False)
class Islands:
    """Parts of the grid that only weak links join, with the system of one unknown for each.

    Coarse grids do not resolve a part that is one or two pixels wide, and a walker may need
    billions of steps to leave it. Functions that are constant on such parts slow conjugate
    gradients down, so they are solved for exactly (deflation).

    Attributes
    ----------
    part : ndarray of int32, (n,)
        The part of each unknown, -1 elsewhere.
    n_parts : int
    pulls : tuple of arrays, (n_pulls,) each
        The links that leave a part; see :func:`hybridseg.kernels.laplacian.deflated_cg.find_pulls`.
    factors : object with ``solve``, or None without parts
        The sparse factors of the system contracted to one unknown for each part.
    """

    part: NDArray[np.int32]
    n_parts: int
    pulls: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[Any]]
    factors: Any

    @classmethod
    def build(cls, operator: Operator, weak: float, most: int) -> Islands:
        """Find the parts that links below ``weak`` separate; lower it if there are too many."""
        steps = operator.grid.distances(operator.offsets)
        part = np.empty(operator.grid.size, np.int32)
        n_parts = strong_parts(operator.links, operator.ground, steps, weak, part)
        while n_parts > most and weak > _MIN_THRESHOLD:
            weak /= 10
            n_parts = strong_parts(operator.links, operator.ground, steps, weak, part)
        pulls = find_pulls(operator.links, steps, operator.ground, part)
        if n_parts == 0:
            return cls(part, 0, pulls, None)
        here, there, strength = pulls
        one, other = part[here], part[there]
        linked = there >= 0
        one_linked, other_linked, pull = one[linked], other[linked], strength[linked]
        every: NDArray[Any] = np.arange(n_parts)
        diagonal = np.bincount(one, strength, n_parts)
        diagonal += np.bincount(other_linked, pull, n_parts)
        rows = np.concatenate([every, one_linked, other_linked])
        columns = np.concatenate([every, other_linked, one_linked])
        values = np.concatenate([diagonal, -pull, -pull])
        matrix = coo_array((values, (rows, columns)), shape=(n_parts, n_parts)).tocsc()
        symmetric = {"SymmetricMode": True}
        factors = splu(matrix, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=symmetric)
        return cls(part, n_parts, pulls, factors)

    def sums(self, rest: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the sums (n_parts,) of ``rest`` (n,) over each part."""
        out = np.empty(self.n_parts)
        sum_parts(self.part, rest, out)
        return out

    def solve(self, sums: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a zero, then the solution of the contracted system for ``sums`` (n_parts,)."""
        padded = np.zeros(1 + self.n_parts)
        if self.n_parts:
            padded[1:] = self.factors.solve(sums)
        return padded


def conjugate_gradients(
    operator: Operator,
    inverse: Multigrid,
    islands: Islands,
    right: NDArray[np.float64],
    tol: float,
    max_iter: int,
) -> tuple[NDArray[np.float64], int, float]:
    """Solve ``A x = right`` (n,) in float64, by the method A-DEF2 of [1]_.

    Returns
    -------
    x : (n,)
    n_iter : int
    error : float
        The largest entry of the preconditioned residual, an estimate of the error of ``x``. The
        iterations stop when it is at most ``tol``.

    References
    ----------
    .. [1] J. M. Tang, R. Nabben, C. Vuik, Y. A. Erlangga, "Comparison of two-level preconditioners
       derived from deflation, domain decomposition and multigrid methods", Journal of Scientific
       Computing 39, 2009.
    """
    part, system = islands.part, (operator.links, operator.strides, operator.ground)
    x, along, rest, work = aligned((4, len(right)), np.float64)
    workspace = inverse.workspace()
    single = workspace[0, : len(x)]
    add_parts(part, islands.solve(islands.sums(right))[1:], x)
    operator.add_product(x, right, -1.0, rest)
    sums = islands.sums(rest)
    size = float(np.abs(rest).max()) or 1.0
    np.divide(rest, size, out=single, casting="same_kind")
    energy, n_iter = 0.0, 0
    while True:
        # One V-cycle in float32 on the residual, which is scaled so that it does not underflow.
        found = inverse.apply(workspace)
        take_pulls(*islands.pulls, part, size, found, sums)
        padded = islands.solve(sums)
        before = energy
        error, energy = measure(part, padded, found, size, rest)
        if n_iter == max_iter or error <= tol:
            return x, n_iter, error
        ratio = energy / before if before > 0 else 0.0
        bend = turn(part, padded, found, size, ratio, system, along, work)
        length = energy / bend if bend > 0 else 0.0
        largest = advance(length, along, work, x, rest, 1 / size, single, part, sums)
        if largest > 0 and not 1e-3 < largest / size < 1e3:
            size = largest
            np.divide(rest, size, out=single, casting="same_kind")
        n_iter += 1
