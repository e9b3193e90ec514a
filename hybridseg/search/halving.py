"""Successive halving of segmenters over images and epochs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sklearn.base import clone

from hybridseg.scene.scene import Scene
from hybridseg.search.clock import Clock, OutOfTimeError, Pace
from hybridseg.search.held_out import HeldScenes, Labeled, hold_out
from hybridseg.search.scores import gain_of, is_better, score_of
from hybridseg.unary.blend import Blend
from hybridseg.unary.opinion_pool import normalized_costs

#: The number of candidates that are kept until the end: two can be blended.
_N_KEPT = 2
#: The shares of the budget for the comparison of refiners, and the most for the last fit.
REFINING, MOST_REFIT = 0.35, 0.35
#: Epochs are divided by ``eta`` at most this many times, because networks learn little at first.
_MOST_HALVINGS = 2
#: A rung has at least this many times the images of the one before.
_LEAST_GROWTH = 1.5
#: A candidate of the first rung may take this many times its fair part of the time.
_PATIENCE = 2.0


@dataclass(eq=False)
class Trial:
    """A segmenter in the search.

    Attributes
    ----------
    name : str
    segmenter : segmenter
    pace : Pace
    held : HeldScenes or None
        Of the last rung that it completed.
    rung : int
        From 1; 0 if it completed none.
    share : float
        The share of its epochs in this rung.
    seconds : float
        The time spent on it.
    status : str
    error : Exception or None
        Why it failed.
    """

    name: str
    segmenter: Any
    pace: Pace = field(default_factory=Pace)
    held: HeldScenes | None = None
    rung: int = 0
    share: float = 1.0
    seconds: float = 0.0
    status: str = "not started"
    error: Exception | None = None

    @property
    def n_images(self) -> int:
        """The number of images of its last rung."""
        return 0 if self.held is None else len(self.held.positions)


def rung_sizes(n_images: int, n_candidates: int, eta: int, n_folds: int) -> list[int]:
    """Return the numbers of images of all rungs; they grow by ``eta`` up to all images.

    The first has at least two images for each fold. A single candidate has one rung.
    """
    sizes = [n_images]
    while n_candidates > 1 and sizes[0] // eta >= 2 * n_folds:
        sizes.insert(0, sizes[0] // eta)
    return sizes


def with_epochs(segmenter: Any, share: float) -> Any:
    """Return a copy that is trained for a share of its epochs; itself if all of them are asked."""
    found = _epochs(segmenter)
    if share >= 1 or not found:
        return segmenter
    fewer = {name: max(1, math.ceil(epochs * share)) for name, epochs in found.items()}
    return clone(segmenter).set_params(**fewer)


def has_epochs(segmenter: Any) -> bool:
    """Return whether a segmenter, or one inside it, is trained by epochs."""
    return bool(_epochs(segmenter))


def _epochs(segmenter: Any) -> dict[str, int]:
    """Return the parameters ``max_epochs`` of a segmenter and of those inside it."""
    params = segmenter.get_params().items()
    named = {name: value for name, value in params if name.rpartition("__")[2] == "max_epochs"}
    return {name: value for name, value in named.items() if isinstance(value, int)}


class Halving:
    """The rungs of a search; each keeps the best of the candidates, and has more images.

    Parameters
    ----------
    trials : sequence of Trial
        From cheap to costly.
    labeled : Labeled
    clock : Clock
    eta : int
        The growth of the number of images, and the number of candidates of which one goes on.
    metric : str
    refining : float
        The share of the budget to leave for refiners.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        labeled: Labeled,
        clock: Clock,
        *,
        eta: int,
        metric: str,
        refining: float = REFINING,
    ) -> None:
        self.trials, self.labeled, self.clock = list(trials), labeled, clock
        self.eta, self.metric, self.refining = eta, metric, refining

    def run(self) -> list[Trial]:
        """Return the trials with scores, the best first: those of later rungs before others.

        Raises
        ------
        Exception
            An image cannot be used; or the first error of a candidate, if all of them failed.
        """
        sizes = rung_sizes(
            len(self.labeled), len(self.trials), self.eta, self.labeled.n_folds(len(self.labeled))
        )
        self.labeled.check(0, sizes[0])
        going = self._first_rung(sizes[0], self._share(1, len(sizes)))
        for rung, size in enumerate(sizes[1:], 2):
            keep = max(_N_KEPT, math.ceil(len(going) / self.eta))
            for trial in going[keep:]:
                trial.status = "eliminated"
            going, n_images = self._affordable(going[:keep], size, rung, len(sizes))
            if n_images == 0:
                break
            share = self._share(rung, len(sizes))
            self.labeled.check(going[0].n_images, n_images)
            for trial in going:
                self._try(trial, n_images, share, rung, self._deadline(trial))
            going = self._ranked([trial for trial in going if trial.rung == rung])
            if not going:
                break
        return self._ranked(self.trials)

    def _first_rung(self, n_images: int, share: float) -> list[Trial]:
        for place, trial in enumerate(self.trials):
            deadline = math.inf
            if any(other.held is not None for other in self.trials):
                end = min(self._deadline(other) for other in self.trials if other.held is not None)
                left = end - self.clock.passed
                if left <= 0:
                    trial.status = "not started: no time was left"
                    continue
                deadline = self.clock.passed + min(
                    left, _PATIENCE * left / (len(self.trials) - place + 1)
                )
            self._try(trial, n_images, share, 1, deadline)
        if all(trial.held is None for trial in self.trials):
            errors = [trial.error for trial in self.trials if trial.error is not None]
            errors[0].add_note(
                f"AutoHybrid tried {len(self.trials)} segmenters, and all of them failed; this is "
                f"the error of the first, {self.trials[0].name!r}."
            )
            raise errors[0]
        return self._ranked(self.trials)

    def _share(self, rung: int, n_rungs: int) -> float:
        """Return the share of the epochs of networks on a rung."""
        return max(1 / self.eta ** (n_rungs - rung), 1 / self.eta**_MOST_HALVINGS)

    def _deadline(self, trial: Trial) -> float:
        """Return when the rungs have to end, so that the trial can be fitted to all images."""
        refit = min(trial.pace.fit_seconds(len(self.labeled)), MOST_REFIT * self.clock.budget)
        return self.clock.budget * (1 - self.refining) - refit

    def _affordable(
        self, going: list[Trial], size: int, rung: int, n_rungs: int
    ) -> tuple[list[Trial], int]:
        """Return the trials of a rung and its number of images; 0 if the time is too short."""
        share = self._share(rung, n_rungs)
        before = going[0].n_images
        while going:
            left = min(self._deadline(trial) for trial in going) - self.clock.passed
            for n_images in (size, *(round(size * part) for part in (0.75, 0.5))):
                n_folds = self.labeled.n_folds(n_images)
                cost = sum(t.pace.rung_seconds(n_images, share, n_folds) for t in going)
                if cost <= left and n_images >= _LEAST_GROWTH * before:
                    return going, n_images
            if len(going) <= _N_KEPT:
                break
            going[-1].status = "eliminated: no time was left"
            going = going[:-1]
        return going, 0

    def _try(self, trial: Trial, n_images: int, share: float, rung: int, deadline: float) -> None:
        """Score a trial on a rung; keep what it had before if it fails."""
        began = self.clock.passed
        trial.pace.by_epochs = has_epochs(trial.segmenter)
        segmenter = with_epochs(trial.segmenter, share)
        try:
            held = hold_out(
                segmenter,
                self.labeled,
                n_images,
                trial.pace,
                self.clock,
                share=share,
                deadline=deadline,
            )
        except OutOfTimeError:
            trial.status = f"stopped after {self.clock.passed - began:.1f} s"
        except Exception as error:  # a failing candidate must not stop the search
            trial.error = error
            trial.status = f"failed: {type(error).__name__}: {error}"
        else:
            trial.held, trial.rung, trial.share, trial.status = held, rung, share, "scored"
        trial.seconds += self.clock.passed - began

    def _ranked(self, trials: Sequence[Trial]) -> list[Trial]:
        """Return the trials with scores: those of later rungs first, then by score, then time.

        With few images, the first is one that no other surely beats; see `_surely_best`.
        """
        scored = [trial for trial in trials if trial.held is not None]
        if not self.labeled.by_block:
            return sorted(scored, key=lambda t: (-t.rung, -self.score(t), t.seconds))
        found = sorted(scored, key=lambda t: -self.score(t))
        if scored:
            found.remove(best := self._surely_best(scored))
            found.insert(0, best)
        return found

    def _surely_best(self, scored: Sequence[Trial]) -> Trial:
        """Return the first trial, unless later ones are surely better.

        Blocks of few images lie close to each other, so they favor what fits the neighborhood of
        a stroke. Small gains on them mean little.
        """
        best = scored[0]
        for trial in scored[1:]:
            assert trial.held is not None
            assert best.held is not None
            if is_better(gain_of(trial.held.counts, best.held.counts, self.metric), surely=True):
                best = trial
        return best

    def score(self, trial: Trial) -> float:
        """Return the score of a trial on its last rung."""
        assert trial.held is not None
        return float(score_of(trial.held.counts.sum(axis=0), self.metric))


def blended(
    first: Trial,
    second: Trial,
    held: HeldScenes,
    other: HeldScenes,
    labeled: Labeled,
    clock: Clock,
) -> Trial:
    """Return a trial whose costs are the mean of the costs of two, for images that both have."""
    members = [(trial.name, trial.segmenter) for trial in (first, second)]
    blend = Trial(f"{first.name} + {second.name}", Blend(members, weights="equal"))
    began = clock.passed
    try:
        blend.held = _mixed(held, other, labeled)
    except Exception as error:  # such as members with other label values
        blend.error = error
        blend.status = f"failed: {type(error).__name__}: {error}"
    else:
        blend.rung, blend.status = min(first.rung, second.rung), "scored"
        blend.share = min(first.share, second.share)
    blend.seconds = clock.passed - began
    blend.pace.by_epochs = first.pace.by_epochs or second.pace.by_epochs
    for n_images in {blend.n_images, len(labeled)}:
        seconds = first.pace.fit_seconds(n_images) + second.pace.fit_seconds(n_images)
        blend.pace.add(n_images, 1.0, seconds)
    return blend


def _mixed(first: HeldScenes, second: HeldScenes, labeled: Labeled) -> HeldScenes:
    shared = min(len(first.positions), len(second.positions))
    pairs = zip(first.scenes[:shared], second.scenes[:shared], strict=True)
    scenes = [_mean(one, other) for one, other in pairs]
    positions = first.positions[:shared]
    counts = [labeled.counts(scene, i) for scene, i in zip(scenes, positions, strict=True)]
    return HeldScenes(positions, tuple(scenes), np.concatenate(counts))


def _mean(one: Scene, other: Scene) -> Scene:
    """Return the Scene of the first with the mean of both costs."""
    costs = [normalized_costs(np.asarray(scene.unary)) for scene in (one, other)]
    regions = [scene.source("regions") for scene in (one, other)]
    known = next((found for found in regions if found is not None), None)
    return one.replace(unary=(costs[0] + costs[1]) / 2, labels=None, regions=known)
