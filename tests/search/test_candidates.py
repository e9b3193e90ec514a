"""Default candidates depend on what there is to learn from."""

import numpy as np
import pytest

from hybridseg import DenseCRF, PixelClassifier
from hybridseg.base import TrainingSet
from hybridseg.search import candidates
from hybridseg.search.candidates import (
    checked_names,
    default_refiners,
    default_segmenters,
    has_full_maps,
)
from hybridseg.search.refining import learns
from tests.subjects import halves


def names(images, labels, monkeypatch, *, torch=True, weights=True):
    monkeypatch.setattr(candidates, "_has_torch", lambda: torch)
    monkeypatch.setattr(candidates, "_has_weights", lambda: weights)
    training = TrainingSet.read(images, labels, "dtype", None)
    found = default_segmenters(training, random_state=0, ignore_label=9)
    assert all(model.ignore_label == 9 and model.random_state == 0 for _, model in found)
    return [name for name, _ in found]


def test_without_torch(monkeypatch):
    found = names(*halves(((20, 20),) * 9), monkeypatch, torch=False)
    assert found == ["superpixels", "pixels", "positions", "linear"]


def test_pretrained_features_and_networks(monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("skorch")
    images, labels = halves(((20, 20),) * 9)
    assert "FPN" in names(images, labels, monkeypatch)
    assert "deep linear" in names(images, labels, monkeypatch)
    assert "U-Net" in names(images, labels, monkeypatch, weights=False)
    few = names(images[:3], labels[:3], monkeypatch)
    assert not {"FPN", "U-Net"} & set(few)
    assert "deep superpixels" in few


def test_many_labels_need_no_linear_classifier(monkeypatch):
    images, labels = halves(((200, 300),))
    found = names(images, labels, monkeypatch, torch=False)
    assert found == ["superpixels", "pixels", "positions"]


def test_volumes(monkeypatch):
    images, labels = halves(((8, 10, 12),) * 9, channels=1)
    found = names([image[..., 0] for image in images], labels, monkeypatch)
    assert found == ["superpixels", "pixels", "positions", "linear"]


def test_full_maps():
    images, labels = halves(((20, 20),) * 8)
    for n_images, kept, expected in ((8, 400, True), (8, 100, False), (7, 400, False)):
        drawn = [np.where(np.arange(400).reshape(20, 20) < kept, y, -1) for y in labels[:n_images]]
        training = TrainingSet.read(images[:n_images], drawn, None, None)
        assert has_full_maps(training, kept * n_images) is expected


def test_refiners_that_learn_come_last():
    found = [learns(refiner) for _, refiner in default_refiners(0)]
    assert found == sorted(found)
    assert not found[0]


@pytest.mark.parametrize(
    ("pairs", "error", "message"),
    [
        ([PixelClassifier()], TypeError, "segmenters holds PixelClassifier.*expected pairs"),
        ([("a", PixelClassifier)], TypeError, "'a' is <class .*expected an estimator with fit"),
        ([("a", 3)], TypeError, "'a' is 3; expected an estimator"),
        ([], ValueError, "segmenters is empty"),
        ([("a", PixelClassifier())] * 2, ValueError, "each name once"),
    ],
)
def test_bad_candidates(pairs, error, message):
    with pytest.raises(error, match=message):
        checked_names(pairs, "segmenters", ("fit", "transform"), "[('a', b)]", least=1)


def test_good_candidates():
    given = (["a", PixelClassifier()], ("b", DenseCRF()))
    assert [name for name, _ in checked_names(given, "x", ("fit",), "...")] == ["a", "b"]
