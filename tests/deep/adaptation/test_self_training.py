"""Networks that are trained further on their most confident predictions."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("skorch")

from hybridseg import DenseCRF, DomainAdapter, GraphCut, Scene  # noqa: E402
from hybridseg.deep import SelfTraining  # noqa: E402
from hybridseg.deep.adaptation.self_training import pseudo_labels  # noqa: E402
from tests.deep.subjects import changed, quick, state  # noqa: E402
from tests.subjects import halves  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_pseudo_labels_are_each_class_surest_pixels(rng):
    bias = np.array([2, 1, 0])
    logits = [rng.normal(size=(*shape, 3)) + bias for shape in ((20, 30), (16, 25))]
    scenes = [
        Scene.from_logits(np.zeros((*part.shape[:2], 3), np.uint8), part, classes=[2, 5, 300])
        for part in logits
    ]
    found = pseudo_labels(scenes, None, np.array([2, 5, 300]), 0.25)
    best = np.concatenate([scene.prediction.ravel() for scene in scenes])
    proba = np.concatenate([scene.proba.max(axis=-1).ravel() for scene in scenes])
    kept = np.concatenate([labels.ravel() for labels in found])
    assert np.array_equal(kept[kept >= 0], best[kept >= 0])
    for value in (2, 5, 300):
        mine = best == value
        assert (kept[mine] == value).mean() == pytest.approx(0.25, abs=0.03)
        taken, left = proba[mine & (kept == value)], proba[mine & (kept < 0)]
        assert taken.min() >= left.max() - 1e-3
    everything = pseudo_labels(scenes, None, np.array([2, 5, 300]), 1.0)
    assert all(np.array_equal(a, b.prediction) for a, b in zip(everything, scenes, strict=True))


@pytest.mark.parametrize("refiner", [DenseCRF(n_iter=2), GraphCut(weight=2.0)])
def test_labels_are_the_refiners(rng, refiner):
    logits = rng.normal(size=(20, 30, 3))
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    valid = np.ones((20, 30), bool)
    valid[:4] = False
    scene = Scene.from_logits(image, logits, valid=valid)
    (found,) = pseudo_labels([scene], refiner, np.arange(3), 0.5)
    refined = refiner.transform([scene])[0].prediction
    assert np.array_equal(found[found >= 0], refined[found >= 0])
    assert (found[:4] == -1).all()
    for label in np.unique(found[found >= 0]):
        mine = refined == label
        sure = scene.proba[..., label]
        assert sure[mine & (found == label)].min() >= sure[mine & (found < 0)].max() - 1e-3


def test_the_share_that_was_trained_on_is_told(brief, scenes):
    model = DomainAdapter(brief, "self_training", rounds=1, epochs=1, portion=0.3)
    row = model.fit(scenes.images[:3]).history_[-1]
    assert row["labeled"] == pytest.approx(0.3, abs=0.02)
    assert np.isnan(model.history_[0]["labeled"])
    assert sum(row["class_share"]) == pytest.approx(1)
    assert model.segmenter_.get_params() == brief.get_params()


def test_one_class_cannot_teach(scenes):
    network = quick().fit(*halves())
    last = [p for p in network.net_.module_.parameters() if p.ndim == 1][-1]
    with torch.no_grad():
        last += torch.tensor([0.0, 50.0, 0.0])
    model = DomainAdapter(network, "self_training")
    with pytest.warns(
        UserWarning, match="'self_training' ended, because the network predicts only one class"
    ):
        model.fit(scenes.images[:1])
    assert not changed(state(network), state(model.segmenter_))
    assert len(model.history_) == 1


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"rounds": 0}, ValueError, "rounds=0"),
        ({"epochs": "2"}, TypeError, "epochs='2' .* expected an integer"),
        ({"lr": -1.0}, ValueError, "lr=-1.0"),
        ({"portion": 0.0}, ValueError, "portion=0.0"),
        ({"portion": 1.5}, ValueError, "portion=1.5"),
        ({"refiner": "crf"}, TypeError, "refiner is a str; expected a refiner or None"),
        ({"refiner": DenseCRF(quick())}, ValueError, "has an estimator of its own"),
    ],
)
def test_mistakes_are_named(wrong, error, match):
    with pytest.raises(error, match=match):
        SelfTraining(**wrong)
