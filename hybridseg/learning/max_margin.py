"""Structured support vector machines, trained by block-coordinate Frank-Wolfe steps.

Each image is a block. Its loss is the largest of many planes, one for each labeling:

    H_i(theta) = max over y of  loss_i(y) - theta . (phi_i(y) - phi_i(truth))

An oracle finds the largest plane at a given theta. The objective is

    P(theta) = alpha / 2 |theta - center|^2 + mean of H_i(theta),   theta >= lower.

For weights of the planes, the best theta of the dual problem is
``max(lower, center - slope / alpha)``: the maximum is the exact optimum over the multipliers of the
bounds. So the dual objective is a smooth, piecewise quadratic function of the weights, and steps
along a line have an exact length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

#: ``oracle(theta)`` returns the largest plane (1 + P,) at theta: its value at 0, and its slope.
Oracle = Callable[[Doubles], Doubles]

#: The largest number of sweeps over the planes that are known, after each sweep of the oracles.
_MAX_KNOWN_SWEEPS = 200

#: Sweeps over known planes end if the largest gap is below this fraction of the last full gap.
_KNOWN_FRACTION = 0.01


@dataclass(frozen=True, eq=False)
class MarginResult:
    """The result of :func:`max_margin`.

    Attributes
    ----------
    point : ndarray of float, (P,)
        The point of the last dual solution if it converged; otherwise the weighted mean of the
        points after each step, whose objective varies less.
    primals : tuple of float
        An estimate of the objective after each sweep: every block is seen at the point of its turn.
        Oracles that do not find the largest plane make it too low.
    duals : tuple of float
        The dual objective after each sweep, which never falls. No theta has a lower objective.
    converged : bool
        Whether the last estimated gap is small.
    """

    point: Doubles
    primals: tuple[float, ...]
    duals: tuple[float, ...]
    converged: bool


@dataclass(eq=False)
class Dual:
    """Weighted planes, their dual objective, and steps that raise it.

    Parameters
    ----------
    n_blocks : int
    center, lower : ndarray of float, (P,)
        The point to which the penalty pulls, and the smallest values, at most ``center``.
    alpha : float
        The penalty, above 0.
    """

    n_blocks: int
    center: Doubles
    lower: Doubles
    alpha: float
    planes: list[Doubles] = field(init=False)
    weights: list[Doubles] = field(init=False)
    total: Doubles = field(init=False)

    def __post_init__(self) -> None:
        # The first plane of each block is that of the truth: 0 everywhere.
        size = 1 + len(self.center)
        self.planes = [np.zeros((1, size)) for _ in range(self.n_blocks)]
        self.weights = [np.ones(1) for _ in range(self.n_blocks)]
        self.total = np.zeros(size)

    def point(self) -> Doubles:
        """The theta of the weighted planes."""
        return np.maximum(self.lower, self.center - self.total[1:] / self.alpha)

    def value(self) -> float:
        """The dual objective: a lower bound on the primal objective."""
        point = self.point()
        apart = point - self.center
        return float(self.alpha / 2 * apart @ apart + self.total[0] + self.total[1:] @ point)

    def penalty(self, point: Doubles) -> float:
        """Return the penalty of a point."""
        apart = point - self.center
        return float(self.alpha / 2 * apart @ apart)

    def mean_plane(self, block: int) -> Doubles:
        """The weighted plane of a block."""
        mean: Doubles = self.weights[block] @ self.planes[block]
        return mean

    def add(self, block: int, plane: Doubles) -> int:
        """Add a plane with weight 0, unless it is known; return its position."""
        known = np.flatnonzero((self.planes[block] == plane).all(axis=1))
        if len(known):
            return int(known[0])
        self.planes[block] = np.vstack([self.planes[block], plane])
        self.weights[block] = np.append(self.weights[block], 0.0)
        return len(self.weights[block]) - 1

    def towards(self, block: int, position: int) -> None:
        """Move weight from all planes of a block to one of them (a Frank-Wolfe step)."""
        direction = (self.planes[block][position] - self.mean_plane(block)) / self.n_blocks
        step = self._step(direction, 1.0)
        weights = (1 - step) * self.weights[block]
        weights[position] += step
        self.weights[block] = weights
        self.total = self.total + step * direction

    def exchange(self, block: int, point: Doubles) -> float:
        """Move weight from the lowest plane in use to the highest one; return their difference."""
        planes, weights = self.planes[block], self.weights[block]
        values = planes[:, 0] + planes[:, 1:] @ point
        best = int(values.argmax())
        worst = int(np.where(weights > 0, values, np.inf).argmin())
        difference = float(values[best] - values[worst])
        if difference <= 0:
            return 0.0
        direction = (planes[best] - planes[worst]) / self.n_blocks
        step = self._step(direction, float(weights[worst]))
        weights[best] += step
        weights[worst] = 0.0 if step == weights[worst] else weights[worst] - step
        self.total = self.total + step * direction
        return difference

    def _step(self, direction: Doubles, longest: float) -> float:
        """Return the step along a direction of ``total``, 0 to ``longest``, of the highest dual.

        The slope of the dual along the direction never rises. It is linear between the steps at
        which a component of theta leaves or reaches its bound.
        """
        offset, slope = direction[0], direction[1:]
        start = self.alpha * (self.center - self.lower) - self.total[1:]
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            kinks = start / slope
        kinks = np.sort(kinks[(kinks > 0) & (kinks < longest)])
        left, before = 0.0, self._slope(offset, slope, 0.0)
        if before <= 0:
            return 0.0
        for right in [*kinks.tolist(), longest]:
            after = self._slope(offset, slope, right)
            if after <= 0:
                return left + (right - left) * before / (before - after)
            left, before = right, after
        return longest

    def _slope(self, offset: float, slope: Doubles, step: float) -> float:
        moved = self.center - (self.total[1:] + step * slope) / self.alpha
        return float(offset + slope @ np.maximum(self.lower, moved))


def max_margin(
    oracles: Sequence[Oracle],
    center: Doubles,
    lower: Doubles,
    *,
    alpha: float,
    max_iter: int,
    tol: float = 1e-3,
    random: np.random.RandomState,
    note: Callable[[int, float], None] | None = None,
) -> MarginResult:
    """Minimize the objective of a structured support vector machine.

    In each sweep, every block in random order calls its oracle once and takes a Frank-Wolfe step
    of the best length [1]_. The planes that were found are kept: between two sweeps, weights of
    the known planes are exchanged in pairs until the dual objective hardly rises [2]_ [3]_. This
    costs almost nothing where theta has few components, and saves most calls of the oracles.

    Parameters
    ----------
    oracles : sequence of n callables
        ``oracle(theta)`` returns the plane (1 + P,) of the labeling with the highest value at
        theta: its loss, and minus the difference of its features from those of the truth. A plane
        of another labeling is allowed: the dual objective then remains a lower bound, but the gap
        is underestimated.
    center : ndarray of float, (P,)
        The point to which the penalty pulls.
    lower : ndarray of float, (P,)
        The smallest value of each component, at most that of ``center``; -inf without a bound.
    alpha : float
        The strength of the penalty, above 0.
    max_iter : int
        The largest number of sweeps.
    tol : float
        Stop when the estimated gap between the primal and the dual objective is below this fraction
        of the primal objective.
    random : RandomState
    note : callable, optional
        ``note(number, primal)`` is called after each sweep.

    Returns
    -------
    MarginResult

    References
    ----------
    .. [1] S. Lacoste-Julien, M. Jaggi, M. Schmidt, P. Pletscher, "Block-coordinate Frank-Wolfe
       optimization for structural SVMs", ICML, 2013, algorithm 4.
    .. [2] N. Shah, V. Kolmogorov, C. H. Lampert, "A multi-plane block-coordinate Frank-Wolfe
       algorithm for training structural SVMs with a costly max-oracle", CVPR, 2015.
    .. [3] A. Osokin, J.-B. Alayrac, I. Lukasewitz, P. Dokania, S. Lacoste-Julien, "Minding the gaps
       for block Frank-Wolfe optimization of structured SVMs", ICML, 2016, section 3.
    """
    dual = Dual(len(oracles), center, lower, alpha)
    mean, n_calls = dual.point(), 0
    primals: list[float] = []
    duals: list[float] = []
    converged = False
    for number in range(max_iter):
        primal, gap = 0.0, 0.0
        for block in random.permutation(len(oracles)).tolist():
            point = dual.point()
            position = dual.add(block, oracles[block](point))
            values = dual.planes[block][:, 0] + dual.planes[block][:, 1:] @ point
            best = position if values[position] >= values.max() else int(values.argmax())
            primal += float(values[best]) + dual.penalty(point)
            gap += float(values[best] - dual.weights[block] @ values)
            dual.towards(block, best)
            n_calls += 1
            mean = mean + 2 / (n_calls + 1) * (dual.point() - mean)
        primal, gap = primal / len(oracles), gap / len(oracles)
        _exchange_known(dual, gap)
        primals.append(primal)
        duals.append(dual.value())
        if note is not None:
            note(number, primal)
        converged = gap <= tol * max(abs(primal), 1e-12)
        if converged:
            break
    point = dual.point() if converged else mean
    return MarginResult(point, tuple(primals), tuple(duals), converged)


def _exchange_known(dual: Dual, gap: float) -> None:
    """Raise the dual objective by the planes that are known."""
    for _ in range(_MAX_KNOWN_SWEEPS):
        largest = max(dual.exchange(block, dual.point()) for block in range(dual.n_blocks))
        if largest <= _KNOWN_FRACTION * gap:
            return
