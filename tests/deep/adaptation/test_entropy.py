"""Scales and shifts of normalizations, trained until predictions are surer."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("skorch")
from torch import nn  # noqa: E402

from hybridseg import DomainAdapter, PretrainedSegmenter  # noqa: E402
from hybridseg.deep import Entropy  # noqa: E402
from tests.deep.subjects import changed, darkened, group_norms, ragged, state  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_entropy_changes_normalizations_only(trained, scenes):
    images = [darkened(image) for image in scenes.images[:4]]
    model = DomainAdapter(trained, "entropy", entropy_epochs=2, entropy_lr=1e-2, random_state=0)
    adapted = model.fit(images)
    norms = {
        f"{name}.{own}"
        for name, part in trained.net_.module_.named_modules()
        if isinstance(part, nn.BatchNorm2d)
        for own in ("weight", "bias", "running_mean", "running_var")
    }
    found = changed(state(trained), state(adapted.segmenter_))
    assert found == norms
    source, first, second = (row["mean_entropy"] for row in adapted.history_)
    assert second < first < source
    assert [row["round"] for row in adapted.history_] == [0, 1, 2]
    restored = adapted.segmenter_.net_.module_
    assert all(p.requires_grad and p.grad is None for p in restored.parameters())


def test_entropy_by_group_normalization(rng):
    model = PretrainedSegmenter(group_norms().train(), range(3), n_channels=2)
    images = ragged(rng, ((9, 12), (7, 8)))
    adapted = DomainAdapter(model, "entropy", entropy_lr=1e-2, random_state=0).fit(images)
    assert changed(state(model), state(adapted.segmenter_)) == {"1.weight", "1.bias"}
    assert adapted.history_[1]["mean_entropy"] < adapted.history_[0]["mean_entropy"]
    assert adapted.segmenter_.network.training  # as it came


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"epochs": 0}, ValueError, "epochs=0"),
        ({"epochs": 1.5}, TypeError, "epochs=1.5 .* expected an integer"),
        ({"lr": 0.0}, ValueError, "lr=0.0"),
        ({"prior": -1}, ValueError, "prior=-1"),
    ],
)
def test_mistakes_are_named(wrong, error, match):
    with pytest.raises(error, match=match):
        Entropy(**wrong)
