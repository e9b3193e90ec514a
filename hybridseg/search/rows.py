"""The rows of a leaderboard, from the trials of a search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hybridseg.search.halving import Trial
from hybridseg.search.held_out import HeldScenes, Labeled
from hybridseg.search.leaderboard import Leaderboard, LeaderboardRow
from hybridseg.search.refining import RefinerTrial
from hybridseg.search.scores import Counts, gain_of, interval_of, score_of


@dataclass(frozen=True, eq=False)
class Pair:
    """A segmenter, a refiner, and the held-out costs on which they were compared."""

    trial: Trial
    refined: RefinerTrial
    held: HeldScenes | None

    @property
    def counts(self) -> Counts:
        """The confusion tables of the pair, which was scored."""
        assert self.refined.counts is not None
        return self.refined.counts


def without(trial: Trial) -> RefinerTrial:
    """Return the trial of no refiner."""
    assert trial.held is not None
    return RefinerTrial("none", None, trial.held.counts, status=trial.status)


def leaderboard(
    trials: Sequence[Trial], pairs: Sequence[Pair], best: Pair, labeled: Labeled, metric: str
) -> Leaderboard:
    """Return the record of all candidates: the best, then by rung and score, then the others.

    Parameters
    ----------
    trials : sequence of Trial
    pairs : sequence of Pair
        The segmenters whose refiners were compared, each with all of them.
    best : Pair
    labeled : Labeled
    metric : str
    """
    compared = {id(pair.trial) for pair in pairs}
    rows = [_row(pair, best, metric) for pair in pairs if not _same(pair, best)]
    rows += [
        _plain(trial, best, metric)
        for trial in trials
        if id(trial) not in compared and trial is not best.trial
    ]
    rows.sort(key=lambda row: (row.score is None, -row.rung, -(row.score or 0.0)))
    first = _row(best, best, metric, "best")
    unit = "blocks" if labeled.by_block else "images"
    return Leaderboard((first, *rows), metric, unit)


def _same(one: Pair, other: Pair) -> bool:
    return one.trial is other.trial and one.refined.name == other.refined.name


def _plain(trial: Trial, best: Pair, metric: str) -> LeaderboardRow:
    """Return the row of a segmenter whose refiners were not compared."""
    counts = None if trial.held is None else trial.held.counts
    alone = RefinerTrial("none", None, counts, status=trial.status)
    return _row(Pair(trial, alone, trial.held), best, metric)


def _row(pair: Pair, best: Pair, metric: str, status: str | None = None) -> LeaderboardRow:
    trial, refined = pair.trial, pair.refined
    seconds = refined.seconds if refined.refiner is not None else trial.seconds
    if status is None:
        status = trial.status if refined.refiner is None else refined.status
    if refined.counts is None:
        facts = (refined.name, 0, 0, None, None, None, None)
        return LeaderboardRow(trial.name, *facts, seconds, status)
    score = float(score_of(refined.counts.sum(axis=0), metric))
    gain = None if status == "best" else gain_of(refined.counts, best.counts, metric)
    return LeaderboardRow(
        trial.name,
        refined.name,
        trial.rung,
        0 if pair.held is None else len(pair.held.positions),
        score,
        interval_of(refined.counts, metric),
        None if gain is None else gain.mean,
        None if gain is None else gain.interval,
        seconds,
        status,
    )
