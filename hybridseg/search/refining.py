"""The comparison of refiners on held-out costs: one is used if it surely does no harm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.base import clone

from hybridseg.search.clock import Clock, OutOfTimeError
from hybridseg.search.held_out import Fold, HeldScenes, Labeled
from hybridseg.search.scores import Counts, Gain, gain_of

#: How many times the time of refining one image a refiner needs to learn, roughly: 40 steps of
#: three images, forwards and backwards, in four folds of its own.
_LEARNING = 300.0
#: A refiner may take this many times its fair part of the time.
_PATIENCE = 2.0
#: The most folds in which learning refiners are judged.
_MAX_FOLDS = 3


@dataclass(eq=False)
class RefinerTrial:
    """A refiner that was tried on the held-out costs of a segmenter.

    Attributes
    ----------
    name : str
    refiner : refiner or None
        None: the costs alone.
    counts : ndarray of int, (U, L, L + 1), or None
        The confusion tables; None if it was not completed.
    gain : Gain or None
        Over the costs alone.
    seconds : float
        The time spent on it.
    refit : float
        The predicted seconds of its fit to all held-out costs.
    status : str
    """

    name: str
    refiner: Any
    counts: Counts | None = None
    gain: Gain | None = None
    seconds: float = 0.0
    refit: float = 0.0
    status: str = "not started"

    @property
    def is_sure(self) -> bool:
        """Whether the gain is positive in nine of ten resamples."""
        return self.gain is not None and self.gain.sure is not None and self.gain.sure > 0


def learns(refiner: Any) -> bool:
    """Return whether ``fit`` of a refiner learns from labels."""
    return getattr(refiner, "learn", None) is not None


def compare(
    refiners: Sequence[tuple[str, Any]],
    held: HeldScenes,
    labeled: Labeled,
    clock: Clock,
    metric: str,
    deadline: float,
) -> list[RefinerTrial]:
    """Score refiners on held-out costs; those that learn last.

    A refiner that learns is fitted to some of the images, and scored on others.

    Parameters
    ----------
    refiners : sequence of (str, refiner)
    held : HeldScenes
    labeled : Labeled
    clock : Clock
    metric : str
    deadline : float
        The seconds on the clock at which the comparison has to end.

    Returns
    -------
    list of RefinerTrial
        The first is that of the costs alone.
    """
    alone = RefinerTrial("none", None, held.counts, Gain(0.0, None, None), status="scored")
    trials = [RefinerTrial(name, refiner) for name, refiner in refiners]
    slowest = 0.0
    ordered = sorted(trials, key=lambda trial: learns(trial.refiner))
    for place, trial in enumerate(ordered):
        began = clock.passed
        left = deadline - began
        n_folds = len(_folds(held, labeled))
        expected = (n_folds + 1) * _LEARNING * slowest if learns(trial.refiner) else 0.0
        if left <= 0 or expected > left:
            trial.status = "not started: no time was left"
            continue
        if n_folds < 2 and learns(trial.refiner):
            trial.status = "not started: it needs two images, one to learn from, one to judge by"
            continue
        limit = deadline
        if not learns(trial.refiner):
            limit = min(deadline, began + _PATIENCE * left / (len(ordered) - place + 1))
        try:
            _score(trial, held, labeled, clock, limit)
        except OutOfTimeError:
            trial.status = f"stopped after {clock.passed - began:.1f} s"
        except Exception as error:  # a failing candidate must not stop the search
            trial.status = f"failed: {type(error).__name__}: {error}"
        else:
            assert trial.counts is not None
            trial.gain = gain_of(trial.counts, held.counts, metric)
            trial.status = "scored"
        trial.seconds = clock.passed - began
        if not learns(trial.refiner):
            slowest = max(slowest, trial.seconds / len(held.scenes))
    return [alone, *trials]


def best_of(trials: Sequence[RefinerTrial], *, few: bool = False) -> RefinerTrial:
    """Return the refiner with the largest mean gain among those with a sure one, else none.

    With few images, hardly any gain is sure. Refiners that do not learn restrain themselves (see
    :class:`hybridseg.DenseCRF`), so one of them then passes if its mean gain is not negative.
    """
    passing = [
        trial
        for trial in trials
        if trial.is_sure or (few and not learns(trial.refiner) and _mean_gain(trial) >= 0)
    ]
    return max(passing, key=_mean_gain, default=trials[0])


def _mean_gain(trial: RefinerTrial) -> float:
    return -math.inf if trial.gain is None else trial.gain.mean


def _score(
    trial: RefinerTrial, held: HeldScenes, labeled: Labeled, clock: Clock, deadline: float
) -> None:
    """Put the confusion tables into a trial."""
    if not learns(trial.refiner):
        model = clone(trial.refiner).fit(list(held.scenes[:1]))
        counts = []
        for scene, position in zip(held.scenes, held.positions, strict=True):
            counts.append(labeled.counts(model.transform([scene])[0], position))
            clock.check(deadline)
        trial.counts = np.concatenate(counts)
        return
    scenes = dict(zip(held.positions, held.scenes, strict=True))
    tables: dict[int, Any] = {}
    folds = _folds(held, labeled)
    for done, fold in enumerate(folds, 1):
        began = clock.passed
        model = fitted_to(trial.refiner, [scenes[i] for i in fold.train], labeled, fold)
        for i in fold.test:
            refined = model.transform([scenes[i]])[0]
            tables[i] = tables.get(i, 0) + labeled.counts(refined, i, fold.block)
        trial.refit = max(trial.refit, clock.passed - began)
        clock.check(deadline - (len(folds) - done + 1) * trial.refit)
    trial.counts = np.concatenate([tables[i] for i in held.positions])


def fitted_to(refiner: Any, scenes: list[Any], labeled: Labeled, fold: Fold) -> Any:
    """Return a refiner that learned from held-out costs and label maps."""
    model = clone(refiner)
    if not learns(refiner):
        return model.fit(scenes)
    groups = None if labeled.groups is None else labeled.groups[list(fold.train)]
    if groups is not None and len(np.unique(groups)) < 2:
        groups = None  # a single group cannot be split by groups
    return model.fit(scenes, labeled.labels(fold, scenes[0].ignore_label), groups)


def _folds(held: HeldScenes, labeled: Labeled) -> list[Fold]:
    """Return at most three folds of the held-out images, or all folds of blocks of one image."""
    folds = labeled.folds(len(held.positions))
    if len(folds) <= _MAX_FOLDS or folds[0].block is not None:
        return folds
    merged = [folds[place::_MAX_FOLDS] for place in range(_MAX_FOLDS)]
    tests = [tuple(i for fold in part for i in fold.test) for part in merged]
    return [Fold(tuple(i for i in held.positions if i not in test), test) for test in tests]
