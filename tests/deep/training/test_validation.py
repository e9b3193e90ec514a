"""Held-out images: scores, the best weights, an early end."""

import numpy as np
import pytest

from tests.deep.subjects import IMAGES, LABELS, quick

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_validation_is_recorded_and_the_best_weights_come_back():
    model = quick(validation=(IMAGES[:1], LABELS[:1]), max_epochs=6, lr=0.03, schedule="constant")
    model.fit(IMAGES[1:], LABELS[1:])
    scores = model.net_.history[:, "valid_mean_iou"]
    assert model.score(IMAGES[:1], LABELS[:1]) == pytest.approx(max(scores))
    best = [score == max(scores[: i + 1]) for i, score in enumerate(scores)]
    assert [bool(row) for row in model.net_.history[:, "valid_mean_iou_best"]] <= best
    assert np.isfinite(model.net_.history[:, "valid_loss"]).all()


def test_a_share_of_the_images_is_held_out():
    model = quick(validation=0.3, crops_per_image=1, batch_size=1).fit(IMAGES, LABELS)
    assert len(model.net_.history[0, "batches"]) == 2
    with pytest.raises(ValueError, match="expected at least two images"):
        quick(validation=0.3).fit(IMAGES[:1], LABELS[:1])


@pytest.mark.parametrize("seed", range(4))
def test_only_images_with_labels_are_held_out(seed):
    labels = [LABELS[0], np.full_like(LABELS[1], -1), LABELS[2]]
    model = quick(validation=0.3, max_epochs=1, random_state=seed).fit(IMAGES, labels)
    assert np.isfinite(model.net_.history[:, "valid_loss"]).all()
    with pytest.raises(ValueError, match="0.3 of one image with labels; expected at least two"):
        quick(validation=0.3).fit(IMAGES, [labels[0], labels[1], np.full_like(LABELS[2], -1)])


def test_patience_ends_the_training():
    model = quick(validation=(IMAGES, LABELS), patience=2, max_epochs=30, lr=1e-9)
    model.fit(IMAGES, LABELS)
    flags = [bool(flag) for flag in model.net_.history[:, "valid_mean_iou_best"]]
    assert len(flags) < 30
    assert flags[-2:] == [False, False]


def test_a_class_that_only_validation_has_counts_as_missed():
    held = [np.where(LABELS[0] == 2, 5, LABELS[0])]
    model = quick(validation=(IMAGES[:1], held), max_epochs=12, lr=1e-2).fit(IMAGES, LABELS)
    assert max(model.net_.history[:, "valid_mean_iou"]) <= 0.5 + 1e-9


def test_validation_images_are_not_kept():
    model = quick(validation=(IMAGES, LABELS)).fit(IMAGES, LABELS)
    assert dict(model.net_.callbacks_)["validation"].dataset is None


@pytest.mark.parametrize("value", [2, 5, 77])
def test_held_out_images_may_hold_one_class(value):
    maps = [np.array([2, 5, 9])[labels] for labels in LABELS]
    held = [np.full_like(LABELS[0], value)]
    model = quick(validation=(IMAGES[:1], held), max_epochs=2).fit(IMAGES, maps)
    assert np.isfinite(model.net_.history[:, "valid_mean_iou"]).all()
    assert np.isfinite(model.net_.history[:, "valid_loss"]).all()
