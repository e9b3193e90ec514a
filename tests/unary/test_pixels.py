"""Drawing the pixels to learn from."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from hybridseg import PixelClassifier
from hybridseg.metrics import mean_iou
from hybridseg.unary.pixels import draw_evenly
from tests.subjects import forest, halves


def test_all_labelled_pixels_when_few(rng):
    labels = np.array([-1, 0, 2, -1, 1])
    assert np.array_equal(draw_evenly(labels, 10, rng), [1, 2, 4])
    assert np.array_equal(draw_evenly(labels, None, rng), [1, 2, 4])


def test_drawn_evenly_over_the_classes(rng):
    labels = np.repeat([0, 1, 5, -1], [10_000, 500, 20, 3_000])
    chosen = draw_evenly(labels, 300, rng)
    assert len(np.unique(chosen)) == len(chosen)
    assert np.bincount(labels[chosen], minlength=6)[[0, 1, 5]].tolist() == [100, 100, 20]
    # from all over the image, not from its beginning
    assert chosen[labels[chosen] == 0].max() > 8_000


def test_fewer_samples_than_classes(rng):
    chosen = draw_evenly(np.arange(10), 3, rng)
    assert len(chosen) == 10  # one each: no class may vanish


def test_random_state_reaches_the_classifier():
    images, labels = halves()
    a, b = (PixelClassifier(max_samples=50, random_state=3).fit(images, labels) for _ in range(2))
    assert np.array_equal(a.predict_proba(images)[0], b.predict_proba(images)[0])
    assert a.classifier_.random_state == 3
    kept = PixelClassifier(forest().set_params(random_state=7), random_state=3).fit(images, labels)
    assert kept.classifier_.random_state == 7


def test_own_features():
    """Any function from colours to features will do."""
    images, labels = halves()
    model = PixelClassifier(
        LogisticRegression(max_iter=500), features=lambda colors, spacing: colors / 255
    ).fit(images, labels)
    assert mean_iou(labels, model.predict(images)) > 0.5


def test_blocks_do_not_show(monkeypatch):
    images, labels = halves()
    model = PixelClassifier(forest()).fit(images, labels)
    expected = model.predict_proba(images)[0]
    monkeypatch.setattr("hybridseg.unary.pixels._BLOCK", 100)
    assert np.array_equal(model.predict_proba([images[0].copy()])[0], expected)
    assert expected.sum(-1) == pytest.approx(np.ones(expected.shape[:2]), abs=1e-5)
