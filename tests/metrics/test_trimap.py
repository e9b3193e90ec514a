"""Trimap curves equal plain loops, and reach the mean IoU of all pixels."""

import numpy as np
import pytest

from hybridseg.metrics import mean_iou, trimap_iou
from hybridseg.metrics.trimap import near_boundary


def loops(labels, width):
    """The band by its definition."""
    band = np.zeros(labels.shape, bool)
    for place in np.ndindex(labels.shape):
        box = tuple(slice(max(0, i - width), i + width + 1) for i in place)
        others = labels[box][labels[box] >= 0]
        band[place] = labels[place] >= 0 and (others != labels[place]).any()
    return band


@pytest.mark.parametrize("shape", [(9, 13), (1, 7), (5, 6, 7)])
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_bands_equal_plain_loops(shape, width, rng):
    labels = rng.integers(-1, 3, shape) * (rng.random(shape) < 0.1)
    labels[rng.random(shape) < 0.1] = -1
    np.testing.assert_array_equal(near_boundary(labels, width), loops(labels, width))


@pytest.mark.parametrize("ignore_label", [None, 2])
def test_scores_equal_those_of_the_band_alone(ignore_label, rng):
    truths = [rng.integers(-1, 4, (12, 15)).repeat(3, 0).repeat(3, 1) for _ in range(2)]
    found = [np.where(rng.random(t.shape) < 0.2, rng.integers(0, 4, t.shape), t) for t in truths]
    scores = trimap_iou(truths, found, (1, 3), ignore_label=ignore_label)
    for score, width in zip(scores, (1, 3), strict=True):
        known = [np.where(t == ignore_label, -1, t) for t in truths]
        inside = [np.where(loops(t, width), t, -1) for t in known]
        assert score == pytest.approx(mean_iou(inside, found, ignore_label=ignore_label))


def test_a_wide_band_holds_all_pixels_and_a_perfect_map_scores_one(rng):
    truth = np.zeros((10, 12), int)
    truth[:, 6:] = 1
    found = rng.integers(0, 2, truth.shape)
    assert trimap_iou(truth, found, [12])[0] == pytest.approx(mean_iou(truth, found))
    np.testing.assert_array_equal(trimap_iou(truth, truth), np.ones(4))


def test_errors_at_the_boundary_weigh_most_in_narrow_bands():
    truth = np.zeros((40, 60), int)
    truth[:, 30:] = 1
    scores = trimap_iou(truth, np.roll(truth, 2, axis=1), (1, 2, 4, 8, 16), labels=[0, 1])
    assert (np.diff(scores) >= 0).all()
    assert scores[0] < 0.5 < scores[-1]


def test_without_boundaries_there_is_no_score():
    assert np.isnan(trimap_iou(np.zeros((4, 5), int), np.zeros((4, 5), int))).all()
    assert np.isnan(trimap_iou(np.full((4, 5), -1), np.zeros((4, 5), int))).all()


@pytest.mark.parametrize("width", [0, -1, 1.5, "wide"])
def test_widths_are_positive_integers(width):
    with pytest.raises((TypeError, ValueError), match=r"widths\[1\]"):
        trimap_iou(np.zeros((4, 5), int), np.zeros((4, 5), int), (1, width))
