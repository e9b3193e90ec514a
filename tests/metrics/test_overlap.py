from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from sklearn.metrics import accuracy_score, f1_score, jaccard_score

from hybridseg.metrics import iou_per_class, mean_dice, mean_iou, pixel_accuracy
from tests.metrics.test_table import scenes
from tests.oracles import metrics as oracle


def test_iou_equals_the_pixel_walk(rng):
    truths, predictions = scenes(rng)
    expected = oracle.iou_per_class(truths, predictions)
    assert_allclose(iou_per_class(truths, predictions), [expected[k] for k in sorted(expected)])
    assert_allclose(mean_iou(truths, predictions), np.mean(list(expected.values())))


def test_equals_scikit_learn_where_nothing_is_void(rng):
    truth, prediction = rng.integers(0, 5, (2, 30, 20))
    flat = truth.ravel(), prediction.ravel()
    assert_allclose(iou_per_class(truth, prediction), jaccard_score(*flat, average=None))
    assert_allclose(mean_iou(truth, prediction), jaccard_score(*flat, average="macro"))
    assert_allclose(mean_dice(truth, prediction), f1_score(*flat, average="macro"))
    assert_allclose(pixel_accuracy(truth, prediction), accuracy_score(*flat))


def test_perfect_and_disjoint(rng):
    truth = rng.integers(0, 4, (6, 5))
    assert pixel_accuracy(truth, truth) == mean_iou(truth, truth) == mean_dice(truth, truth) == 1.0
    assert mean_iou(truth, truth + 10) == mean_dice(truth, truth + 10) == 0.0


def test_dice_follows_from_iou_class_by_class(rng):
    for label in (0, 1, 2, 5):
        truths, predictions = scenes(rng)
        masks = [[m == label for m in maps] for maps in (truths, predictions)]
        iou = iou_per_class(*masks)
        assert_allclose(mean_dice(*masks), np.mean(2 * iou / (1 + iou)))


def test_renumbering_permutes_scores(rng):
    truths, predictions = scenes(rng)
    names = np.array([40, 3, 11, -1, -1, 0, -1])  # the last stands for -1; 0, 1, 2, 5 are classes
    renamed = [[names[np.maximum(m, -1)] for m in maps] for maps in (truths, predictions)]
    assert_allclose(
        iou_per_class(*renamed, labels=[40, 3, 11, 0]), iou_per_class(truths, predictions)
    )
    assert_allclose(mean_iou(*renamed), mean_iou(truths, predictions))


def test_swapping_truth_and_prediction_keeps_overlap_without_void(rng):
    truth, prediction = rng.integers(0, 4, (2, 9, 7))
    assert_allclose(iou_per_class(truth, prediction), iou_per_class(prediction, truth))


def test_no_label_on_a_known_pixel_is_a_miss():
    truth = np.array([[0, 0, 1, 1]])
    assert pixel_accuracy(truth, np.array([[0, -1, 1, 1]])) == 0.75
    assert_allclose(iou_per_class(truth, np.array([[0, -1, 1, 1]])), [0.5, 1.0])
    assert_allclose(iou_per_class(truth, np.array([[0, 255, 1, 1]]), ignore_label=255), [0.5, 1.0])


def test_class_that_is_predicted_but_never_true_scores_zero_and_counts():
    truth, prediction = np.array([[0, 0, 0, 0]]), np.array([[0, 0, 0, 3]])
    assert_allclose(iou_per_class(truth, prediction), [0.75, 0.0])
    assert mean_iou(truth, prediction) == 0.375


def test_absent_class_in_global_mean(rng):
    truths, predictions = scenes(rng, values=(0, 1, 2, 3))
    labels = [0, 1, 2, 3, 4]
    excluded = mean_iou(truths, predictions, labels=labels)
    assert_allclose(excluded, mean_iou(truths, predictions))
    # one of five classes is absent: 0.6259 becomes 0.5007 and 0.7007 in the published comparison
    zero, one = (mean_iou(truths, predictions, labels=labels, absent=a) for a in ("zero", "one"))
    assert_allclose(zero, excluded * 4 / 5)
    assert_allclose(one, (excluded * 4 + 1) / 5)


def naive_image_mean(truths, predictions, labels, absent):
    means = []
    for truth, prediction in zip(truths, predictions, strict=True):
        scores = oracle.iou_per_class([truth], [prediction])
        if absent == "exclude":
            values = list(scores.values())
        else:
            values = [scores.get(label, float(absent == "one")) for label in labels]
        means.append(np.mean(values))
    return means


@pytest.mark.parametrize("absent", ["exclude", "zero", "one"])
def test_mean_over_images(rng, absent):
    truths, predictions = scenes(rng, values=(0, 1, 2, 3))
    truths[1][truths[1] == 3] = predictions[1][predictions[1] == 3] = 0
    means = naive_image_mean(truths, predictions, range(5), absent)
    options = {"labels": range(5), "absent": absent, "average": "image"}
    assert_allclose(mean_iou(truths, predictions, **options), np.mean(means))
    weights = [0.5, 2.0, 0.0, 1.0]
    assert_allclose(
        mean_iou(truths, predictions, **options, sample_weight=weights),
        np.average(means, weights=weights),
    )


def test_without_labels_the_classes_of_all_images_count_in_each(rng):
    truths = [np.array([[0, 0]]), np.array([[0, 1]])]
    assert mean_iou(truths, truths, average="image", absent="zero") == 0.75
    assert mean_iou(truths, truths, average="image") == 1.0


def test_image_without_a_score_is_left_out_of_the_mean_over_images():
    truths = [np.array([[0, 0]]), np.array([[-1, -1]])]
    predictions = [np.array([[0, 1]]), np.array([[0, 1]])]
    assert mean_iou(truths, predictions, average="image") == 0.25
    assert mean_dice(truths, predictions, average="image", sample_weight=[3, 1]) == 1 / 3
    assert np.isnan(mean_iou(truths, predictions, average="image", sample_weight=[0, 1]))


def test_global_and_image_means_agree_on_one_image(rng):
    truths, predictions = scenes(rng, 1)
    for score in (mean_iou, mean_dice):
        assert_allclose(
            score(truths, predictions, average="image"), score(truths[0], predictions[0])
        )


def test_weights_count_images_several_times(rng):
    truths, predictions = scenes(rng, 3)
    for score in (pixel_accuracy, mean_iou, mean_dice):
        repeated = [[maps[i] for i in (0, 0, 0, 1)] for maps in (truths, predictions)]
        assert_allclose(
            score(truths, predictions, sample_weight=[3, 1, 0]), score(*repeated), rtol=1e-12
        )


def test_correcting_a_pixel_never_lowers_a_score(rng):
    truths, predictions = scenes(rng, 1)
    truth, prediction = truths[0], predictions[0].copy()
    labels = [0, 1, 2, 5]
    for pixel in np.argwhere((truth != prediction) & (truth >= 0)):
        before = iou_per_class(truth, prediction, labels=labels)
        prediction[tuple(pixel)] = truth[tuple(pixel)]
        after = iou_per_class(truth, prediction, labels=labels)
        assert (after >= before - 1e-12).all()
    assert pixel_accuracy(truth, prediction) == 1.0


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"absent": "nan"}, "absent='nan'; expected one of 'exclude', 'zero', 'one'"),
        ({"average": "micro"}, "average='micro'; expected one of 'global', 'image'"),
        ({"average": "image", "sample_weight": [1, 2]}, "one weight for each of the 1"),
    ],
)
def test_bad_options(options, match):
    for score in (mean_iou, mean_dice):
        with pytest.raises(ValueError, match=match):
            score([np.zeros((2, 2), int)], [np.zeros((2, 2), int)], **options)
