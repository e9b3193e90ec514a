"""Minimizers of a loss that is known with its gradient: L-BFGS of SciPy, and Adam on batches."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Doubles = NDArray[np.float64]

#: Returns the loss and its gradient at parameters (P,), for the batch of a step.
Evaluate = Callable[[Doubles, int], tuple[float, Doubles]]

#: Called with the number of a step and its loss.
Note = Callable[[int, float], None]

OPTIMIZERS = ("adam", "lbfgs")

#: Decay of the mean gradient and of the mean square of Adam (Kingma and Ba 2015); the second is
#: smaller than usual because learning takes tens of steps, not thousands.
_DECAY, _SQUARE_DECAY = 0.9, 0.98

#: The fraction of the steps, at the end, over which Adam averages the parameters.
_AVERAGED = 0.4


def adam(evaluate: Evaluate, start: Doubles, max_iter: int, rate: float, note: Note) -> Doubles:
    """Minimize by Adam [1]_ with a falling rate, and return the mean of the last iterates [2]_.

    Parameters
    ----------
    evaluate : callable
    start : (P,)
    max_iter : int
        The number of steps.
    rate : float
        The size of the first steps in every parameter. It falls to a tenth along half a cosine.
    note : callable

    References
    ----------
    .. [1] D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR, 2015.
    .. [2] B. T. Polyak, A. B. Juditsky, "Acceleration of stochastic approximation by averaging",
       SIAM Journal on Control and Optimization 30, 1992.
    """
    point, mean, square = start.copy(), np.zeros_like(start), np.zeros_like(start)
    total, n_averaged = np.zeros_like(start), 0
    for step in range(max_iter):
        loss, gradient = evaluate(point, step)
        note(step, loss)
        mean = _DECAY * mean + (1 - _DECAY) * gradient
        square = _SQUARE_DECAY * square + (1 - _SQUARE_DECAY) * gradient**2
        unbiased = mean / (1 - _DECAY ** (step + 1))
        size = np.sqrt(square / (1 - _SQUARE_DECAY ** (step + 1)))
        now = rate * (0.55 + 0.45 * np.cos(np.pi * step / max_iter))
        point = point - now * unbiased / (size + 1e-12)
        if step >= (1 - _AVERAGED) * max_iter - 1:
            total, n_averaged = total + point, n_averaged + 1
    return total / n_averaged if n_averaged else point


def lbfgs(evaluate: Evaluate, start: Doubles, max_iter: int, note: Note) -> Doubles:
    """Minimize by L-BFGS (Liu and Nocedal 1989) on one batch, that of step 0, of all images."""
    best, least, made = start.copy(), np.inf, 0

    def at(point: Doubles) -> tuple[float, Doubles]:
        nonlocal best, least, made
        loss, gradient = evaluate(point, 0)
        note(made, loss)
        made += 1
        if loss < least:
            best, least = point.copy(), loss
        return loss, gradient

    minimize(at, start, jac=True, method="L-BFGS-B", options={"maxiter": max_iter, "maxls": 10})
    return best
