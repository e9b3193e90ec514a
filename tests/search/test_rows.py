"""The rows of a leaderboard."""

import numpy as np
import pytest

from hybridseg.search.halving import Trial
from hybridseg.search.refining import RefinerTrial
from hybridseg.search.rows import Pair, leaderboard, without
from hybridseg.search.scores import gain_of, interval_of
from tests.search.stubs import Known, data
from tests.search.test_held_out import held, labeled


def test_rows():
    given = labeled(*data(6), cv=2)
    trials = [Trial(f"{i}", Known(errors)) for i, errors in enumerate((0.2, 0.1, 0.3, 0.4))]
    for trial in trials[:3]:
        trial.held, trial.rung, trial.status = held(trial.segmenter, given), 1, "scored"
    trials[3].status = "failed: ValueError: bad"
    good = held(Known(0.05), given).counts
    refined = [without(trials[1]), RefinerTrial("CRF", object(), good, status="scored")]
    refined.append(RefinerTrial("late", object(), status="not started: no time was left"))
    pairs = [Pair(trials[1], each, trials[1].held) for each in refined]
    board = leaderboard(trials, pairs, pairs[1], given, "mean_iou")
    assert [(row.segmenter, row.refiner, row.status) for row in board] == [
        ("1", "CRF", "best"),
        ("1", "none", "scored"),
        ("0", "none", "scored"),
        ("2", "none", "scored"),
        ("1", "late", "not started: no time was left"),
        ("3", "none", "failed: ValueError: bad"),
    ]
    assert board.unit == "images"
    row = board.rows[2]
    counts = trials[0].held.counts
    gain = gain_of(counts, good, "mean_iou")
    assert (row.difference, row.difference_interval) == (gain.mean, gain.interval)
    assert row.interval == interval_of(counts, "mean_iou")
    assert row.score - board.rows[0].score == pytest.approx(row.difference)
    assert board.rows[0].difference is None
    assert np.isclose(sum(row.n_images for row in board), 4 * 6)
