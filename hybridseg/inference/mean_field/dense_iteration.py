"""The iteration of mean field with dense kernels, on the lattices of one image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels.dense.dense_filter import DenseFilter, smooth, tables_for, total_weights
from hybridseg.kernels.dense.mean_field import Steps, advance
from hybridseg.kernels.dense.two_labels import advance_two
from hybridseg.pairwise.compatibility import is_potts

Singles = NDArray[np.float32]

#: Called with the marginals (n, L) at the start and after each iteration.
Record = Callable[[Singles], None]


def iterate(
    dense: DenseFilter,
    weights: Singles,
    unary: Singles,
    compatibility: NDArray[np.float64],
    n_iter: int,
    tol: float,
    first: Singles,
    record: Record | None = None,
) -> tuple[Singles, list[float], int]:
    """Run algorithm 1 of Krähenbühl and Koltun (2011) on rows of costs (n, L).

    It starts from the softmax of the negated ``first``. It returns the marginals, the largest
    change in each iteration (only with ``tol`` above 0), and the number of iterations. ``record``
    is called with the marginals (n, L) at the start and after each iteration.
    """
    if unary.shape[1] == 2:
        return _iterate_two(dense, weights, unary, compatibility, n_iter, tol, first, record)
    tables = tables_for(dense, max(2, unary.shape[1]))
    asked = np.zeros((0, 0), np.float32)
    if not is_potts(compatibility):
        asked = np.zeros((len(compatibility), tables.table.shape[1]), np.float32)
        asked[:, : len(compatibility)] = compatibility
    marginals = np.empty_like(unary)

    def step(costs: Singles, steps: Steps) -> float:
        return advance(costs, dense, tables, asked, steps, marginals)

    note = None if record is None else lambda: record(marginals)
    passes = step, lambda: smooth(dense, weights, tables), note
    changes, made = _run(*passes, first, unary, n_iter, tol)
    return marginals, changes, made


def _run(
    step: Callable[[Singles, Steps], float],
    smooth_tables: Callable[[], None],
    note: Callable[[], None] | None,
    first: Singles,
    fixed: Singles,
    n_iter: int,
    tol: float,
) -> tuple[list[float], int]:
    """Run the iterations; each pass reads messages, spreads marginals or stores them as needed."""
    compare = tol > 0
    store = compare or note is not None
    step(first, Steps(False, n_iter > 0, store or n_iter == 0, False))
    if note is not None:
        note()
    changes: list[float] = []
    made = 0
    while made < n_iter and not (changes and changes[-1] < tol):
        smooth_tables()
        made += 1
        last = made == n_iter
        change = step(fixed, Steps(True, not last, store or last, compare))
        if note is not None:
            note()
        if compare:
            changes.append(change)
    return changes, made


def _iterate_two(
    dense: DenseFilter,
    weights: Singles,
    unary: Singles,
    compatibility: NDArray[np.float64],
    n_iter: int,
    tol: float,
    first: Singles,
    record: Record | None,
) -> tuple[Singles, list[float], int]:
    ahead = (compatibility[1] - compatibility[0]).astype(np.float32)
    start = first[:, 0] - first[:, 1]
    fixed = start if first is unary else unary[:, 0] - unary[:, 1]
    if ahead.sum() != 0:  # zero for Potts, which is symmetric in both labels
        fixed = fixed - ahead.sum() / 2 * total_weights(dense, weights)
    tables = tables_for(dense, 1)
    second = np.empty(len(unary), np.float32)

    def step(costs: Singles, steps: Steps) -> float:
        return advance_two(costs, ahead[0] - ahead[1], dense, tables, steps, second)

    note = None if record is None else lambda: record(_both(second))
    passes = step, lambda: smooth(dense, weights, tables), note
    changes, made = _run(*passes, start, fixed, n_iter, tol)
    return _both(second), changes, made


def _both(second: Singles) -> Singles:
    """Return the marginals (n, 2) of both labels, given those of the second (n,)."""
    marginals = np.empty((len(second), 2), np.float32)
    marginals[:, 1] = second
    np.subtract(1, second, out=marginals[:, 0])
    return marginals
