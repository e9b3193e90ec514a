"""Scores of tables, and their bootstrap."""

import numpy as np
import pytest

from hybridseg.metrics import confusion_table
from hybridseg.search.scores import METRICS, Gain, gain_of, interval_of, is_better, score_of


def tables(n_units, right=8, seed=0):
    counts = np.random.default_rng(seed).integers(1, 4, (n_units, 3, 4)).astype(float)
    counts[..., 3] = 0
    counts[:, range(3), range(3)] += right
    return counts


@pytest.mark.parametrize("metric", METRICS)
def test_scores_agree_with_the_metrics(metric):
    rng = np.random.default_rng(0)
    truth, found = rng.integers(3, size=(2, 9, 9))
    table = confusion_table(truth, found)
    given = getattr(table, metric)
    expected = given() if callable(given) else given
    assert score_of(table.counts, metric) == pytest.approx(expected)


def test_classes_without_truth_do_not_count():
    counts = np.zeros((3, 4))
    counts[0, 0], counts[1, 1], counts[1, 2] = 5, 5, 5  # class 2 is predicted only
    assert score_of(counts, "mean_iou") == pytest.approx((1 + 0.5) / 2)


def test_interval_holds_the_score_and_shrinks():
    counts = tables(200)
    score = float(score_of(counts.sum(axis=0), "mean_iou"))
    wide, narrow = interval_of(counts[:5], "mean_iou"), interval_of(counts, "mean_iou")
    assert narrow[0] < score < narrow[1]
    assert narrow[1] - narrow[0] < wide[1] - wide[0]


def test_units_without_pixels_do_not_count():
    counts = tables(6)
    padded = np.concatenate([np.zeros((50, 3, 4)), counts])
    assert interval_of(padded, "mean_iou") == interval_of(counts, "mean_iou")


def test_too_few_units():
    assert interval_of(tables(2), "mean_iou") is None
    gain = gain_of(tables(2, right=20), tables(2), "mean_iou")
    assert gain.mean > 0
    assert gain.sure is None
    assert gain.interval is None


def test_gain_is_paired():
    """A small gain on every unit is sure, although the units differ more than that."""
    old = tables(20) * np.linspace(1, 9, 20)[:, None, None]
    new = old.copy()
    new[:, 0, 0] += 0.1
    gain = gain_of(new, old, "mean_iou")
    low, high = interval_of(old, "mean_iou")
    assert 0 < gain.sure <= gain.mean < high - low
    assert gain.interval[0] > 0
    back = gain_of(old, new, "mean_iou")
    assert back.mean == pytest.approx(-gain.mean)
    assert back.interval == pytest.approx(tuple(-x for x in gain.interval[::-1]))


def test_gain_over_itself_is_not_sure():
    gain = gain_of(tables(9), tables(9), "mean_iou")
    assert (gain.mean, gain.sure, gain.interval) == (0.0, 0.0, (0.0, 0.0))


def test_the_first_units_of_both_are_compared():
    long, short = tables(20), tables(20, right=9)[:7]
    assert gain_of(short, long, "mean_iou") == gain_of(short, long[:7], "mean_iou")


def test_better():
    assert is_better(Gain(0.1, -0.1, None), surely=False)
    assert not is_better(Gain(0.1, -0.1, None), surely=True)
    assert not is_better(Gain(0.1, None, None), surely=True)
    assert is_better(Gain(0.1, 0.01, None), surely=True)
    assert not is_better(Gain(0.0, 0.0, None), surely=False)
