"""The gate lets pass what surely helps, and nothing that costs a class its IoU."""

import numpy as np
import pytest

from hybridseg.learning.gate import _quantile, choose_strength

STRENGTHS = (1.0, 0.5)


def tables(rng, rates, n_images=12, n_labels=3, n_pixels=4000):
    """Confusion tables (S + 1, N, L, L); ``rates[s][l]``: the fraction of a class that is right."""
    found = np.zeros((len(rates), n_images, n_labels, n_labels), int)
    for s, own in enumerate(rates):
        for image in range(n_images):
            for label in range(n_labels):
                right = rng.binomial(n_pixels, own[label])
                found[s, image, label, label] = right
                found[s, image, label, (label + 1) % n_labels] = n_pixels - right
    return found


def test_it_chooses_the_strength_with_the_largest_gain(rng):
    for better, rates in ((1.0, ([0.9] * 3, [0.85] * 3)), (0.5, ([0.85] * 3, [0.9] * 3))):
        report = choose_strength(STRENGTHS, tables(rng, ([0.8] * 3, *rates)))
        assert report.chosen == better
        assert (report.gains > 0).all()
        assert (report.lowest_gains <= report.gains).all()
        assert report.n_images == 12


def test_of_nearly_equal_gains_it_spares_the_fewest_labels(rng):
    rates = ([0.8] * 3, [0.9] * 3, [0.898] * 3)
    for spared, better in ((((1, 1), ()), 0.5), (((), (1, 1)), 1.0), (((1,), (1, 2)), 1.0)):
        report = choose_strength(STRENGTHS, tables(rng, rates), spared=spared)
        assert report.chosen == better
    much = tables(rng, ([0.8] * 3, [0.9] * 3, [0.85] * 3))
    assert choose_strength(STRENGTHS, much, spared=((1, 1), ())).chosen_spared == (1, 1)


def test_it_refuses_a_gain_that_costs_a_class_its_iou(rng):
    rates = [0.8, 0.8, 0.8], [0.95, 0.95, 0.60], [0.85, 0.85, 0.80]
    report = choose_strength(STRENGTHS, tables(rng, rates))
    assert report.gains[0] > report.gains[1]
    assert report.class_changes[0].min() < -0.005
    assert report.chosen == 0.5
    assert choose_strength(STRENGTHS, tables(rng, rates), tolerance=0.5).chosen == 1.0


def test_it_refuses_what_helps_some_images_only(rng):
    whole = tables(rng, ([0.8] * 3, [0.8] * 3, [0.8] * 3), n_images=10)
    one = tables(rng, ([0.8] * 3, [0.99] * 3, [0.99] * 3), n_images=1)
    harmed = tables(rng, ([0.8] * 3, [0.795] * 3, [0.795] * 3), n_images=9)
    report = choose_strength(STRENGTHS, np.concatenate([one, harmed], axis=1))
    assert report.gains.max() > 0
    assert report.chosen == 0
    assert choose_strength(STRENGTHS, np.repeat(whole[:1], 3, axis=0)).chosen == 0


def test_a_class_without_truth_does_not_count(rng):
    found = tables(rng, ([0.8] * 3, [0.9] * 3, [0.9] * 3))
    found[:, :, 2] = 0
    report = choose_strength(STRENGTHS, found)
    assert np.isnan(report.class_changes[:, 2]).all()
    assert np.isnan(report.lowest_class_changes[:, 2]).all()
    assert report.chosen == 1.0
    changes = np.diff(_iou(found.sum(axis=1))[:, :2].mean(axis=1)[:2])
    assert report.gains[0] == pytest.approx(float(changes[0]))


def _iou(counts):
    hits = np.diagonal(counts, axis1=1, axis2=2)
    return hits / np.maximum(counts.sum(axis=1) + counts.sum(axis=2) - hits, 1)


def test_the_decision_is_the_same_each_time(rng):
    found = tables(rng, ([0.8] * 3, [0.81] * 3, [0.805] * 3), n_pixels=100)
    first, second = (choose_strength(STRENGTHS, found) for _ in range(2))
    np.testing.assert_array_equal(first.lowest_gains, second.lowest_gains)


def test_quantiles_leave_out_what_is_unknown(rng):
    changes = rng.random((101, 2))
    changes[:50, 1] = np.nan
    found = _quantile(changes, 0.1)
    assert found[0] == np.sort(changes[:, 0])[10]
    assert found[1] == np.sort(changes[50:, 1])[5]
    assert np.isnan(_quantile(np.full((4, 1), np.nan), 0.1)).all()
