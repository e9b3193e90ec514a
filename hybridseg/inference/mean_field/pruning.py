"""Labels whose mean-field marginals are provably small, so that they can be left out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels.dense.label_gaps import label_gaps


@dataclass(frozen=True, eq=False)
class Pruning:
    """The labels that are kept and left out, and a bound on the change of marginals.

    Attributes
    ----------
    kept : ndarray of int, (L',)
    pruned : ndarray of int, (L - L',)
    bound : float
        The bound for any marginal after all iterations; at most 1.
    """

    kept: NDArray[np.int64]
    pruned: NDArray[np.int64]
    bound: float


def certify(
    unary: NDArray[np.float32],
    compatibility: NDArray[np.float64],
    reach: float,
    eps: float,
    n_iter: int,
    init: NDArray[np.float32] | None = None,
) -> Pruning:
    """Find the labels whose marginals stay below ``eps`` at every pixel and iteration.

    Parameters
    ----------
    unary : (n, L)
    compatibility : (L, L)
    reach : float
        The largest row sum W of the weighted, normalized kernels: a pixel's messages are not
        negative and sum to at most W.
    eps : float
        Above 0 and below 1.
    n_iter : int
    init : (n, L), optional
        The initial marginals; otherwise the softmax of the negated unary.

    Returns
    -------
    Pruning

    Notes
    -----
    Let k be the label of least cost at a pixel, ``g_l`` the least over all pixels of
    ``u(l) - u(k)``, and suppose ``Q(l) <= eps`` everywhere. Then ``m_l <= W eps``, and with

        r_l = max over k, l' other than l of  mu(k, l') - mu(l, l'),
        s_l = max over k other than l     of  mu(k, l) - mu(l, l)      (both at least 0),

    the score of l stays below that of k by ``g_l - W r_l - W eps s_l`` or more. A probability is
    at most the exponential of its score less any other, so that if

        exp(-g_l + W (r_l + eps s_l)) <= eps,

    then ``Q(l) <= eps`` holds after the iteration as well, and so after every later one. For Potts
    r = 0 and s = 1.

    The probabilities of these labels sum to at most delta at any pixel, the sum of the left sides
    above. If the labels are left out, let b_t bound the difference of any marginal after t
    iterations. The messages then differ by at most W b_t, the scores by c W b_t with c the largest
    sum of a row of |mu| (1 for Potts), and a softmax whose scores move by at most a moves by at
    most tanh(a / 2). Leaving labels out of a softmax moves it by at most their probability. Hence
    b_0 = delta and

        b_(t+1) = delta + tanh(c W b_t / 2).

    The bound holds for every problem and is often much larger than the real change. It is sharp
    only if two labels are in balance at all pixels.
    """
    gaps = label_gaps(unary)
    pulls = np.array([_pull(compatibility, label, eps) for label in range(len(gaps))])
    decay = reach * pulls - gaps
    hopeless = decay <= math.log(eps)
    if init is not None:
        hopeless &= init.max(axis=0) <= eps
    kept, pruned = np.flatnonzero(~hopeless), np.flatnonzero(hopeless)
    delta = float(np.exp(decay[pruned]).sum())
    if init is not None and len(pruned):
        delta = max(delta, float(init[:, pruned].sum(axis=1).max()))
    bound = delta
    for _ in range(n_iter):
        bound = delta + math.tanh(_sensitivity(compatibility) * reach * bound / 2)
    return Pruning(kept, pruned, min(bound, 1.0))


def _pull(compatibility: NDArray[np.float64], label: int, eps: float) -> float:
    """Return ``r + eps s``, the largest advantage that a unit message can give to ``label``."""
    others = np.delete(np.arange(len(compatibility)), label)
    if len(others) == 0:
        return math.inf
    ahead = compatibility[others] - compatibility[label]
    by_others = max(0.0, float(ahead[:, others].max()))
    return by_others + eps * max(0.0, float(ahead[:, label].max()))


def _sensitivity(compatibility: NDArray[np.float64]) -> float:
    """Return the largest change of scores per change of messages, up to a common constant."""
    least = np.abs(compatibility).sum(axis=1).max()
    without_constant = np.abs(compatibility - 1.0).sum(axis=1).max()
    return float(min(least, without_constant))
