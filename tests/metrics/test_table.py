from __future__ import annotations

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import confusion_matrix

from hybridseg.metrics import ConfusionTable, confusion_table, mean_iou, pixel_accuracy
from tests.oracles import metrics as oracle


def scenes(rng, n_images=4, *, values=(0, 1, 2, 5), void=0.1):
    """Ragged pairs of maps that mostly agree; truth and prediction both have void pixels."""
    truths, predictions = [], []
    for index in range(n_images):
        shape = (5 + index, 9 - index)
        truth = rng.choice(values, shape)
        prediction = np.where(rng.random(shape) < 0.6, truth, rng.choice(values, shape))
        truth[rng.random(shape) < void] = -1
        prediction[rng.random(shape) < void] = -3
        truths.append(truth)
        predictions.append(prediction)
    return truths, predictions


def as_pairs(table):
    columns = [*table.labels.tolist(), None]
    return {
        (true, predicted): int(table.counts[i, j])
        for i, true in enumerate(table.labels.tolist())
        for j, predicted in enumerate(columns)
        if table.counts[i, j]
    }


@pytest.mark.parametrize("values", [(0, 1, 2), (3, 7, 200), (4, 600, 10**12), (5,)])
def test_counts_equal_the_pixel_walk(rng, values):
    truths, predictions = scenes(rng, values=values)
    table = confusion_table(truths, predictions)
    assert as_pairs(table) == oracle.confusion_table(truths, predictions)
    assert table.counts.dtype == np.int64
    assert table.labels.tolist() == sorted(table.labels.tolist())


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64])
def test_ignore_label_is_void_in_truth_and_no_label_in_prediction(rng, dtype):
    truths = [rng.choice([0, 1, 200], (6, 7)).astype(dtype) for _ in range(3)]
    predictions = [rng.choice([0, 1, 200], (6, 7)).astype(dtype) for _ in range(3)]
    table = confusion_table(truths, predictions, ignore_label=200)
    assert as_pairs(table) == oracle.confusion_table(truths, predictions, ignore_label=200)
    assert table.labels.tolist() == [0, 1]
    assert table.counts[:, -1].sum() > 0


def test_equals_scikit_learn_where_nothing_is_void(rng):
    truth, prediction = rng.integers(0, 5, (2, 30, 20))
    table = confusion_table(truth, prediction)
    assert_array_equal(table.counts[:, :-1], confusion_matrix(truth.ravel(), prediction.ravel()))
    assert not table.counts[:, -1].any()


def test_tables_of_parts_add_up_to_the_table_of_the_whole(rng):
    truths, predictions = scenes(rng, 5)
    truths[0][truths[0] == 5] = 0  # the parts have different classes
    predictions[0][predictions[0] == 5] = 0
    whole = confusion_table(truths, predictions)
    parts = [confusion_table([t], [p]) for t, p in zip(truths, predictions, strict=True)]
    for merged in (sum(parts), parts[0] + sum(parts[1:]), sum(reversed(parts))):
        assert_array_equal(merged.labels, whole.labels)
        assert_array_equal(merged.counts, whole.counts)
        assert merged.counts.dtype == np.int64


def test_adding_something_else_is_an_error(rng):
    table = confusion_table(*scenes(rng))
    with pytest.raises(TypeError, match="unsupported operand"):
        table + 1
    with pytest.raises(TypeError, match="unsupported operand"):
        2 + table


def test_sequence_equals_one_long_map(rng):
    truths, predictions = scenes(rng)
    long = [np.concatenate([m.ravel() for m in maps]) for maps in (truths, predictions)]
    assert_array_equal(confusion_table(*long).counts, confusion_table(truths, predictions).counts)


def test_predictions_on_void_change_nothing(rng):
    truths, predictions = scenes(rng)
    other = [np.where(t < 0, 77, p) for t, p in zip(truths, predictions, strict=True)]
    assert_array_equal(
        confusion_table(truths, other).counts, confusion_table(truths, predictions).counts
    )


def test_listed_labels_set_rows_and_order(rng):
    truths, predictions = scenes(rng)
    plain = confusion_table(truths, predictions)
    table = confusion_table(truths, predictions, labels=[5, 9, 0, 2, 1])
    assert table.labels.tolist() == [5, 9, 0, 2, 1]
    assert np.isnan([table.iou[1], table.dice[1]]).all()
    assert_allclose(table.iou[[2, 4, 3, 0]], plain.iou)
    assert (table.n_defined, plain.n_defined) == (4, 4)
    assert table.n_pixels == plain.n_pixels


def test_predicted_label_that_is_not_listed_is_no_label():
    table = confusion_table(np.array([0, 0, 1]), np.array([0, 7, 1]), labels=[0, 1])
    assert table.counts.tolist() == [[1, 0, 1], [0, 1, 0]]


def test_weights_multiply_counts(rng):
    truths, predictions = scenes(rng, 3)
    weighted = confusion_table(truths, predictions, sample_weight=[2, 0, 1])
    repeated = confusion_table(
        [truths[i] for i in (0, 0, 2)], [predictions[i] for i in (0, 0, 2)], labels=[0, 1, 2, 5]
    )
    assert_array_equal(weighted.over(repeated.labels).counts, repeated.counts)
    assert weighted.counts.dtype == np.float64


def test_all_void_scores_are_nan():
    void = np.full((3, 4), -1)
    table = confusion_table(void, np.zeros((3, 4), int))
    assert table.labels.size == 0
    assert table.n_pixels == 0
    assert np.isnan([table.pixel_accuracy, table.mean_iou(), table.mean_dice("zero")]).all()
    listed = confusion_table(void, np.zeros((3, 4), int), labels=[0, 1])
    assert np.isnan(listed.iou).all()
    assert (listed.mean_iou("zero"), listed.mean_iou("one")) == (0.0, 1.0)


class Lazy:
    def __init__(self, labels):
        self.labels = labels

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.labels[index]

    def __array__(self, dtype=None, copy=None):
        return self.labels


def test_maps_of_any_kind_are_read_alike(rng):
    truths, predictions = scenes(rng, 3)
    expected = confusion_table(truths, predictions).counts
    as_objects = np.empty(3, dtype=object)
    as_objects[:] = truths
    frozen = [t.copy() for t in truths]
    for labels in frozen:
        labels.flags.writeable = False
    sequence = type("Maps", (), {"__len__": lambda _: 3, "__getitem__": lambda _, i: truths[i]})()
    transposed = [np.asfortranarray(t) for t in truths]
    for maps in (
        tuple(truths),
        as_objects,
        frozen,
        sequence,
        transposed,
        [Lazy(t) for t in truths],
    ):
        assert_array_equal(confusion_table(maps, predictions).counts, expected)


def test_one_lazy_map_is_a_map(rng):
    assert confusion_table(Lazy(np.arange(4)), np.arange(4)).pixel_accuracy == 1.0


def test_booleans_and_volumes(rng):
    truth, prediction = rng.random((2, 3, 4, 5)) < 0.5
    table = confusion_table(truth, prediction)
    assert table.labels.tolist() == [0, 1]
    assert table.pixel_accuracy == np.mean(truth == prediction)


def test_inputs_are_left_alone_and_records_are_frozen(rng):
    truths, predictions = scenes(rng)
    before = [m.copy() for m in truths + predictions]
    table = confusion_table(truths, predictions)
    for now, then in zip(truths + predictions, before, strict=True):
        assert_array_equal(now, then)
    with pytest.raises(AttributeError, match="cannot assign"):
        table.counts = None
    again = pickle.loads(pickle.dumps(table))
    assert isinstance(again, ConfusionTable)
    assert_array_equal(again.counts, table.counts)


A = np.zeros((2, 3), int)


@pytest.mark.parametrize(
    ("truth", "prediction", "options", "error", "match"),
    [
        ([A, A], [A], {}, ValueError, "truth has 2 label maps and prediction has 1"),
        ([], [], {}, ValueError, "at least one"),
        (A, [A], {}, TypeError, "is a single label map"),
        (
            [A, A],
            [A, A.T],
            {},
            ValueError,
            r"truth\[1\] has shape \(2, 3\) and prediction\[1\] has",
        ),
        (A, A.T, {}, ValueError, r"truth has shape \(2, 3\) and prediction has shape \(3, 2\)"),
        ([0, 1], [0, 1], {}, ValueError, "at least one axis"),
        ([A], [A * 0.5], {}, TypeError, r"prediction\[0\] has dtype float64"),
        ("maps", [A], {}, TypeError, "truth is of type str"),
        (iter([A]), [A], {}, TypeError, "sequence of label maps such as a list"),
        ([A, A + 7], [A, A], {"labels": [0, 1]}, ValueError, r"truth\[1\] holds the labels \[7\]"),
        (A, A, {"labels": []}, ValueError, "expected a list of class labels"),
        (A, A, {"labels": [0.5]}, ValueError, "expected a list of class labels"),
        (A, A, {"labels": [0, 0]}, ValueError, "lists a class twice"),
        (A, A, {"labels": [-1, 0]}, ValueError, "means void"),
        (A, A, {"labels": [0, 9], "ignore_label": 9}, ValueError, "means void"),
        ([A, A], [A, A], {"sample_weight": [1]}, ValueError, r"one weight for each of the 2"),
        ([A], [A], {"sample_weight": [-1]}, ValueError, "negative, NaN or infinite"),
        ([A], [A], {"sample_weight": [np.nan]}, ValueError, "negative, NaN or infinite"),
    ],
)
def test_bad_input(truth, prediction, options, error, match):
    with pytest.raises(error, match=match):
        confusion_table(truth, prediction, **options)


def test_every_score_refuses_the_same_bad_input():
    for score in (pixel_accuracy, mean_iou):
        with pytest.raises(ValueError, match="has shape"):
            score([A], [A.T])


def test_a_class_that_is_predicted_and_nowhere_true_is_defined():
    table = confusion_table([[0, 0, 1]], [[0, 2, 1]], labels=[0, 1, 2, 3])
    assert table.n_defined == 3
    assert table.iou[2] == 0
    assert np.isnan(table.iou[3])
