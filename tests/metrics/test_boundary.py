from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import binary_erosion, gaussian_filter

from hybridseg.metrics import boundary_iou, boundary_iou_per_class, iou_per_class, mean_iou
from hybridseg.metrics.boundary import band_width, boundary_band
from tests.oracles import metrics as oracle


def blobs(rng, shape, n_classes=3, void=False):
    """Two smooth label maps that differ along their boundaries."""
    fields = gaussian_filter(rng.standard_normal((n_classes, *shape)), (0, *(3,) * len(shape)))
    shaken = fields + gaussian_filter(
        0.7 * rng.standard_normal((n_classes, *shape)), (0, *(2,) * len(shape))
    )
    truth, prediction = fields.argmax(0), shaken.argmax(0)
    if void:
        truth[gaussian_filter(rng.standard_normal(shape), 2) > 0.15] = -1
        prediction[rng.random(shape) < 0.02] = -1
    return truth, prediction


@pytest.mark.parametrize("void", [False, True])
@pytest.mark.parametrize("ratio", [0.001, 0.05, 0.25])
def test_equals_the_pixel_walk(rng, ratio, void):
    pairs = [blobs(rng, shape, void=void) for shape in ((17, 23), (14, 9))]
    truths, predictions = zip(*pairs, strict=True)
    expected = oracle.boundary_iou_per_class(truths, predictions, ratio)
    scores = boundary_iou_per_class(truths, predictions, dilation_ratio=ratio)
    assert_allclose(scores, [expected[label] for label in sorted(expected)], rtol=1e-12)
    assert_allclose(
        boundary_iou(truths, predictions, dilation_ratio=ratio), np.mean(list(expected.values()))
    )


@pytest.mark.parametrize("shape", [(19,), (6, 8, 7)])
def test_any_rank(rng, shape):
    truth, prediction = blobs(rng, shape)
    expected = oracle.boundary_iou_per_class([truth], [prediction], 0.1)
    scores = boundary_iou_per_class(truth, prediction, dilation_ratio=0.1)
    assert_allclose(scores, [expected[label] for label in sorted(expected)], rtol=1e-12)


@pytest.mark.parametrize("width", [1, 2, 5])
def test_bands_are_what_erosions_take_away(rng, width):
    labels, _ = blobs(rng, (60, 43))
    band = boundary_band(labels, width, np.zeros(labels.shape, bool))
    for label in range(3):
        mask = labels == label
        eroded = binary_erosion(mask, np.ones((3, 3)), iterations=width)
        assert_array_equal(band & mask, mask & ~eroded)


@pytest.mark.parametrize(("width", "inner"), [(1, 121), (5, 9), (6, 1), (7, 0), (100, 0)])
def test_band_of_a_constant_map_is_its_edge(width, inner):
    labels = np.zeros((13, 13), int)
    band = boundary_band(labels, width, labels > 0)
    assert band.size - band.sum() == inner


def test_unknown_pixels_make_no_boundary(rng):
    labels, _ = blobs(rng, (40, 33))
    unknown = rng.random(labels.shape) < 0.3
    band = boundary_band(labels, 2, unknown)
    for label in range(3):
        mask = (labels == label) | unknown
        eroded = binary_erosion(mask, np.ones((3, 3)), iterations=2)
        assert_array_equal(band & (labels == label) & ~unknown, mask & ~eroded & ~unknown)


@pytest.mark.parametrize(
    ("shape", "ratio", "width"),
    [((480, 640), 0.02, 16), ((1024, 2048), 0.005, 11), ((3, 4), 0.02, 1), ((10, 10, 10), 0.1, 2)],
)
def test_width_is_a_share_of_the_diagonal(shape, ratio, width):
    assert band_width(shape, ratio) == width
    assert width == max(1, round(ratio * math.sqrt(np.square(shape).sum())))


@pytest.mark.parametrize("score", [boundary_iou, boundary_iou_per_class])
def test_default_width_is_two_percent_of_the_diagonal(score):
    truth = np.zeros((300, 400), int)  # a diagonal of 500 pixels
    truth[60:240, 80:320] = 1
    moved = np.roll(truth, 7, axis=1)
    assert_array_equal(score(truth, moved), score(truth, moved, width=10))
    for width in (9, 11):
        assert np.all(score(truth, moved) != score(truth, moved, width=width))


def test_labels_that_float64_cannot_tell_apart(rng):
    truth, prediction = blobs(rng, (21, 34), void=True)
    names = np.array([2**60 + 1, 2**60, 2**62, -1])  # the last for void
    expected = boundary_iou_per_class(truth, prediction, width=1, labels=[0, 1, 2])
    found = boundary_iou_per_class(names[truth], names[prediction], width=1, labels=names[:3])
    assert_array_equal(found, expected)


@pytest.mark.parametrize("void", [False, True])
def test_becomes_iou_as_the_width_grows(rng, void):
    truth, prediction = blobs(rng, (71, 52), void=void)
    areas = iou_per_class(truth, prediction)
    gaps = [
        np.abs(boundary_iou_per_class(truth, prediction, width=w) - areas).max() for w in (1, 2, 26)
    ]
    assert gaps[0] > gaps[1] > gaps[2] == 0.0
    assert_allclose(
        boundary_iou(truth, prediction, width=10**6), mean_iou(truth, prediction), rtol=1e-12
    )


def test_sees_outlines_that_area_hides():
    truth = np.zeros((100, 120), int)
    truth[20:80, 20:100] = 1
    rough = np.roll(truth, 2, axis=1)
    assert mean_iou(truth, rough) > 0.95
    assert boundary_iou(truth, rough) < 0.7


def test_hand_counted_square():
    truth = np.zeros((8, 8), int)
    truth[2:6, 2:6] = 1
    shifted = np.roll(truth, 1, axis=1)
    # two rings of 12 pixels share 3 of the upper and 3 of the lower side: 6 / (12 + 12 - 6)
    assert_allclose(boundary_iou_per_class(truth, shifted, width=1)[1], 1 / 3)


def test_flipping_and_renumbering_commute(rng):
    truth, prediction = blobs(rng, (21, 34))
    scores = boundary_iou_per_class(truth, prediction)
    assert_allclose(boundary_iou_per_class(truth[::-1], prediction[::-1]), scores)
    assert_allclose(boundary_iou_per_class(truth.T, prediction.T), scores)
    names = np.array([90, 4, 17])
    assert_allclose(
        boundary_iou_per_class(names[truth], names[prediction], labels=[90, 4, 17]), scores
    )
    assert_allclose(boundary_iou_per_class(prediction, truth), scores)


def test_predictions_on_void_change_nothing(rng):
    truth, prediction = blobs(rng, (40, 30), void=True)
    expected = boundary_iou(truth, prediction)
    for value in (-1, 0, 2, 99):
        assert boundary_iou(truth, np.where(truth < 0, value, prediction)) == expected
    marked = np.where(truth < 0, 255, truth).astype(np.uint8)
    kept = np.where(prediction < 0, 255, prediction).astype(np.uint8)
    assert boundary_iou(marked, kept, ignore_label=255) == expected


def test_sums_over_the_sequence_before_dividing(rng):
    pairs = [blobs(rng, (20, 20)), blobs(rng, (20, 20))]
    truths, predictions = zip(*pairs, strict=True)
    separate = [boundary_iou(t, p) for t, p in pairs]
    together = boundary_iou(truths, predictions)
    assert min(separate) <= together <= max(separate)
    assert together != np.mean(separate)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (2, 2)])
def test_small_maps_are_all_band(rng, shape):
    truth, prediction = rng.integers(0, 2, (2, *shape))
    assert boundary_iou(truth, prediction) == mean_iou(truth, prediction)


def test_constant_image_is_scored_at_the_edge():
    labels = np.zeros((30, 30), int)
    assert boundary_iou(labels, labels) == 1.0
    assert boundary_iou(labels, labels + 1) == 0.0


def test_nothing_to_score_is_nan():
    void = np.full((4, 5), -1)
    assert np.isnan(boundary_iou(void, np.zeros((4, 5), int)))
    assert np.isnan(boundary_iou_per_class(void, void, labels=[0, 1])).all()


def test_absent_class_is_left_out_of_the_mean(rng):
    truth, prediction = blobs(rng, (20, 20))
    scores = boundary_iou_per_class(truth, prediction, labels=[0, 1, 2, 3])
    assert np.isnan(scores[3])
    assert boundary_iou(truth, prediction, labels=[0, 1, 2, 3]) == np.mean(scores[:3])


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"dilation_ratio": 0.0}, ValueError, "dilation_ratio=0.0"),
        ({"dilation_ratio": "wide"}, TypeError, "dilation_ratio='wide'"),
        ({"width": 0}, ValueError, "width=0"),
        ({"width": 1.5}, TypeError, "width=1.5 is of type float; expected an integer"),
        ({"labels": [1]}, ValueError, r"truth holds the labels \[0\]"),
    ],
)
def test_bad_options(options, error, match):
    with pytest.raises(error, match=match):
        boundary_iou(np.zeros((4, 4), int), np.zeros((4, 4), int), **options)
