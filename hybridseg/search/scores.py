"""Scores of held-out predictions, and their uncertainty by a bootstrap over images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
#: Confusion tables ``(U, L, L + 1)`` of images or blocks; weighted pixels are counted.
Counts = NDArray[np.float64]

METRICS = ("mean_iou", "mean_dice", "pixel_accuracy")

#: The number of resamples, and the seed: the same data give the same decision.
_N_RESAMPLES, _SEED = 1000, 0
#: The quantile of the gain that has to be positive, and those of the intervals.
_SURE, _INTERVAL = 0.1, (0.025, 0.975)
#: The least number of units for a bootstrap.
MIN_UNITS = 3


@dataclass(frozen=True)
class Gain:
    """The change of a score between two sets of predictions for the same pixels.

    Attributes
    ----------
    mean : float
    sure : float or None
        The 10% quantile over resamples; None if there are too few units.
    interval : (float, float) or None
        The 95% interval.
    """

    mean: float
    sure: float | None
    interval: tuple[float, float] | None


def is_better(gain: Gain, *, surely: bool) -> bool:
    """Return whether a gain is positive; ``surely``, whether nine of ten resamples say so."""
    if surely:
        return gain.sure is not None and gain.sure > 0
    return gain.mean > 0


def score_of(counts: NDArray[Any], metric: str) -> Doubles:
    """Return the scores ``(...)`` of confusion tables ``(..., L, L + 1)``.

    Means are over the classes that occur in the truth, so that all predictions for the same pixels
    are judged by the same classes.
    """
    hits = np.diagonal(counts, axis1=-2, axis2=-1).astype(np.float64)
    true = counts.sum(axis=-1)
    if metric == "pixel_accuracy":
        totals = true.sum(axis=-1)
        return np.asarray(hits.sum(axis=-1) / np.maximum(totals, 1))
    both = true + counts[..., :-1].sum(axis=-2)
    ratio = 2 * hits / np.maximum(both, 1)
    if metric == "mean_iou":
        ratio = hits / np.maximum(both - hits, 1)
    present = true > 0
    n_present = np.maximum(present.sum(axis=-1), 1)
    return np.asarray(np.where(present, ratio, 0.0).sum(axis=-1) / n_present)


def interval_of(counts: Counts, metric: str) -> tuple[float, float] | None:
    """Return the 95% interval of the score of unit tables ``(U, L, L + 1)``; None if too few."""
    drawn = _resampled(counts)
    if drawn is None:
        return None
    low, high = np.quantile(score_of(drawn, metric), _INTERVAL)
    return float(low), float(high)


def gain_of(new: Counts, old: Counts, metric: str) -> Gain:
    """Return the gain of ``new`` over ``old``; both ``(U, L, L + 1)`` of the same units.

    If one has more units, the first ones of both are compared.
    """
    shared = min(len(new), len(old))
    new, old = new[:shared], old[:shared]
    mean = float(score_of(new.sum(axis=0), metric) - score_of(old.sum(axis=0), metric))
    drawn = _resampled(np.stack([new, old], axis=1))
    if drawn is None:
        return Gain(mean, None, None)
    scores = score_of(drawn, metric)
    changes = scores[:, 0] - scores[:, 1]
    sure, low, high = np.quantile(changes, (_SURE, *_INTERVAL))
    return Gain(mean, float(sure), (float(low), float(high)))


def _resampled(counts: NDArray[Any]) -> NDArray[Any] | None:
    """Return the sums ``(R, ...)`` over resamples of the units with known pixels."""
    known = counts[counts.reshape(len(counts), -1).any(axis=1)]
    n_units = len(known)
    if n_units < MIN_UNITS:
        return None
    generator = np.random.default_rng(_SEED)
    draws = generator.multinomial(n_units, np.full(n_units, 1 / n_units), _N_RESAMPLES)
    return np.tensordot(draws.astype(np.float64), known.astype(np.float64), axes=1)
