"""Scores of superpixels equal their slow definitions, keep their bounds, and ignore void."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hybridseg.metrics import (
    achievable_accuracy,
    boundary_recall,
    pixel_accuracy,
    undersegmentation_error,
)
from tests.oracles import region_scores as oracles

SHAPES = [(1,), (17,), (9, 13), (1, 6), (4, 5, 6), (3, 1, 2)]
SCORES = [boundary_recall, undersegmentation_error, achievable_accuracy]


def blocky(rng, shape, n):
    """A label map of few outlines, with some void."""
    labels = rng.integers(-1, n, tuple((s + 1) // 2 for s in shape))
    for axis, size in enumerate(shape):
        labels = labels.repeat(2, axis=axis).take(np.arange(size), axis=axis)
    return labels


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", range(4))
def test_equal_to_the_definitions(shape, seed):
    rng = np.random.default_rng(seed)
    truth, regions = blocky(rng, shape, 3), blocky(rng, shape, 6)
    for score in (undersegmentation_error, achievable_accuracy):
        expected = getattr(oracles, score.__name__)(truth, regions)
        assert score(truth, regions) == pytest.approx(expected, nan_ok=True)
    for width in (0, 1, 2):
        expected = oracles.boundary_recall(truth, regions, width)
        assert boundary_recall(truth, regions, width=width) == pytest.approx(expected, nan_ok=True)


def test_names_of_the_labels_do_not_matter(rng):
    truth, regions = blocky(rng, (20, 30), 4), blocky(rng, (20, 30), 9)
    wide = np.where(regions < 0, -1, regions * 10**8 + 5)
    far = np.where(truth < 0, -7, truth * 10**9)
    for factor in (1, 10**6):  # the products of the greater labels are beyond 64 bits
        for score in SCORES:
            assert score(far * factor, wide * factor) == pytest.approx(score(truth, regions))


def test_more_pairs_than_fit_a_table(rng):
    """Every pixel is a region and a segment, and then all pixels are one region."""
    truth = rng.permutation(60 * 60).reshape(60, 60)
    assert undersegmentation_error(truth, truth[::-1]) == 0.0
    assert achievable_accuracy(truth, np.zeros_like(truth)) == pytest.approx(1 / 3600)
    assert undersegmentation_error(truth, np.zeros_like(truth)) == pytest.approx(1.0)


def test_finer_regions_are_never_worse(rng):
    truth = blocky(rng, (24, 36), 4)
    coarse = np.abs(blocky(rng, (24, 36), 5))
    fine = coarse * 9 + rng.integers(0, 9, coarse.shape)
    assert undersegmentation_error(truth, fine) <= undersegmentation_error(truth, coarse)
    assert achievable_accuracy(truth, fine) >= achievable_accuracy(truth, coarse)
    assert boundary_recall(truth, fine) >= boundary_recall(truth, coarse)


def test_truth_itself_is_perfect(rng):
    truth = blocky(rng, (24, 36), 4)
    assert boundary_recall(truth, truth, width=0) == 1.0
    assert undersegmentation_error(truth, truth) == 0.0
    assert achievable_accuracy(truth, truth) == 1.0


def test_tolerance_is_a_share_of_the_diagonal():
    truth = np.zeros((321, 481), int)
    truth[:, 200:] = 1
    for shift, expected in [(1, 1.0), (2, 0.5), (3, 0.0)]:  # both sides of an edge are marked
        moved = np.broadcast_to(np.arange(481) >= 200 + shift, truth.shape).astype(int)
        assert boundary_recall(truth, moved) == expected
    assert round(0.0025 * math.hypot(321, 481)) == 1


def test_achievable_accuracy_is_that_of_the_majority(rng):
    truth, regions = rng.integers(0, 3, (12, 15)), rng.integers(0, 20, (12, 15))
    painted = np.zeros_like(truth)
    for region in range(20):
        painted[regions == region] = np.bincount(truth[regions == region], minlength=3).argmax()
    assert achievable_accuracy(truth, regions) == pytest.approx(pixel_accuracy(truth, painted))


def test_void():
    truth, regions = np.array([[0, 0, 255, 1]]), np.array([[0, -1, 3, 3]])
    assert achievable_accuracy(truth, regions, ignore_label=255) == pytest.approx(2 / 3)
    assert undersegmentation_error(truth, regions, ignore_label=255) == pytest.approx(1 / 3)
    assert math.isnan(boundary_recall(truth, regions, ignore_label=255))
    same_name = np.array([[255, 255, 3, 3]])  # a superpixel may have the number of void
    assert achievable_accuracy(np.array([[0, 0, 1, 255]]), same_name, ignore_label=255) == 1.0
    nothing = np.full((2, 3), -1)
    for score in SCORES:
        assert math.isnan(score(nothing, np.zeros((2, 3), int)))


def test_sequences_are_pooled(rng):
    truths = [blocky(rng, shape, 3) for shape in [(8, 9), (20, 7)]]
    maps = [blocky(rng, t.shape, 5) for t in truths]
    n = [np.count_nonzero(t >= 0) for t in truths]
    for score in (undersegmentation_error, achievable_accuracy):
        single = [score(t, m) for t, m in zip(truths, maps, strict=True)]
        assert score(truths, maps) == pytest.approx(np.average(single, weights=n))


@pytest.mark.parametrize("score", SCORES)
def test_bad_maps(score):
    with pytest.raises(ValueError, match="same shape"):
        score(np.zeros((2, 3), int), np.zeros((3, 2), int))
    with pytest.raises(TypeError, match=r"truth.*integers"):
        score(np.zeros((2, 3)), np.zeros((2, 3), int))


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("value", ["255", 255.0, True])
def test_ignored_labels_are_integers(score, value):
    labels = np.zeros((2, 3), int)
    with pytest.raises(TypeError, match="ignore_label=.*expected an integer"):
        score(labels, labels, ignore_label=value)


def test_bad_widths():
    labels = np.zeros((2, 3), int)
    with pytest.raises(ValueError, match="width"):
        boundary_recall(labels, labels, width=-1)
    with pytest.raises(TypeError, match=r"width=1.5 .*expected an integer"):
        boundary_recall(labels, labels, width=1.5)
    with pytest.raises(ValueError, match="tolerance"):
        boundary_recall(labels, labels, tolerance=-0.1)
