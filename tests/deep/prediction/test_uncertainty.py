"""Uncertainty under dropout, and of ensembles."""

import numpy as np
import pytest
import torch
from torch import nn

from hybridseg.deep.prediction.uncertainty import with_dropout
from hybridseg.unary import Uncertainty
from tests.deep.subjects import IMAGES, fitted

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_dropout_is_sampled():
    model = fitted({"width": 8, "depth": 1, "dropout": 0.5})
    first, second = (model.predict_uncertainty(IMAGES[:2], n_samples=8) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.entropy, other.entropy)
        assert one.proba.shape == (*one.entropy.shape, 3)
        assert (one.mutual_information >= 0).all()
        assert one.mutual_information.max() > 1e-4
        assert (one.mutual_information <= one.entropy + 1e-6).all()
    plain = model.predict_proba(IMAGES[:1])[0]
    np.testing.assert_array_equal(model.predict_proba(IMAGES[:1])[0], plain)


@pytest.mark.parametrize(
    "layer", [nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout]
)
def test_every_layer_that_drops_is_sampled_as_torch_does(layer):
    """Dropped features get one value, single or by channels, and the moments equal torch's."""
    module = nn.Sequential(nn.BatchNorm2d(256), layer(0.25)).eval()
    generator = torch.Generator().manual_seed(0)
    noisy = with_dropout(module, generator)
    assert not any(part.training for part in (*noisy.modules(), *module.modules()))
    assert type(module[1]) is layer
    features = torch.randn(4, 256, 8, 8, generator=torch.Generator().manual_seed(1))
    before, found = torch.get_rng_state(), noisy(features)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expected = layer(0.25)(module[0](features))
    dropped, theirs = (each.flatten().mode().values for each in (found, expected))
    torch.testing.assert_close(dropped, theirs)
    for each in (found, expected):
        gone = torch.isclose(each, dropped)
        assert gone.float().mean().item() == pytest.approx(0.25, abs=0.05)
        whole = gone.flatten(2).all(2) | (~gone).flatten(2).all(2)
        assert whole.float().mean() > 0.99 or layer in (nn.Dropout, nn.AlphaDropout)
    torch.testing.assert_close(found.std(), expected.std(), rtol=0.05, atol=0.02)
    assert not torch.equal(noisy(features), found)
    generator.manual_seed(0)
    assert torch.equal(noisy(features), found)


def test_dropout_must_be_there(model):
    with pytest.raises(ValueError, match="UNet has no dropout to sample from"):
        model.predict_uncertainty(IMAGES)


def test_uncertainty_of_an_ensemble():
    certain, split = np.eye(2)[[0, 1]], np.array([[1.0, 0.0], [0.5, 0.5]])
    found = Uncertainty.of([certain, np.array([[0.0, 1.0], [0.0, 1.0]])])
    np.testing.assert_allclose(found.proba, [[0.5, 0.5], [0, 1]])
    np.testing.assert_allclose(found.entropy, [np.log(2), 0], atol=1e-6)
    np.testing.assert_allclose(found.mutual_information, [np.log(2), 0], atol=1e-6)
    alike = Uncertainty.of([split, split])
    np.testing.assert_allclose(alike.entropy, [0, np.log(2)], atol=1e-6)
    np.testing.assert_allclose(alike.mutual_information, [0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("predictions", "match"),
    [
        ([], "predictions is empty"),
        ([np.eye(2), np.eye(3)], r"predictions\[1\] has shape \(3, 3\), but .* \(2, 2\)"),
        ([np.eye(2), np.eye(2)[:1]], r"predictions\[1\] has shape \(1, 2\)"),
        ([np.ones((4, 2))], r"predictions\[0\] does not hold probabilities"),
        ([np.array([[1.5, -0.5]])], r"predictions\[0\] does not hold probabilities"),
        ([np.full((4, 2), np.nan)], r"predictions\[0\] does not hold probabilities"),
        ([np.float64(1)], r"predictions\[0\] does not hold probabilities"),
    ],
)
def test_ensembles_mistakes_are_named(predictions, match):
    with pytest.raises(ValueError, match=match):
        Uncertainty.of(predictions)
