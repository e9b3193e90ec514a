"""A training tells when the network gives probabilities in place of logits."""

import warnings

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("skorch")

from torch import nn  # noqa: E402

from hybridseg import DeepSegmenter  # noqa: E402
from hybridseg.networks import adapt  # noqa: E402
from tests.subjects import halves  # noqa: E402

IMAGES, LABELS = halves(((16, 20), (18, 12)))


def ending_in(layer):
    """A factory of networks whose outputs saturate, with a layer after them."""

    def make(in_channels, n_classes):
        convolve = nn.Conv2d(in_channels, n_classes, 1)
        nn.init.normal_(convolve.weight, std=20)
        return nn.Sequential(convolve, layer)

    return make


def fit(network):
    quick = {"max_epochs": 1, "crops_per_image": 2, "crop_size": 8, "random_state": 0}
    return DeepSegmenter(network, **quick).fit(IMAGES, LABELS)


@pytest.mark.parametrize(
    ("layer", "output"), [(nn.Softmax(dim=1), "proba"), (nn.Sigmoid(), "sigmoid")]
)
def test_a_training_tells_once(layer, output):
    network = ending_in(layer)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(network)
    told = [each for each in caught if f"adapt(network, output='{output}')" in str(each.message)]
    assert len(told) == 1

    def cured(**options):
        return adapt(network(**options), output=output)

    assert fit(cured).predict(IMAGES)[0].shape == LABELS[0].shape


@pytest.mark.parametrize("layer", [nn.LogSoftmax(dim=1), nn.ReLU(), nn.Identity()])
def test_other_ends_are_trained_silently(layer):
    assert fit(ending_in(layer)).predict(IMAGES)[0].shape == LABELS[0].shape
