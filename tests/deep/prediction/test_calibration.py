"""The temperature that calibrates probabilities."""

import numpy as np
import pytest
import torch

from hybridseg.deep.prediction.calibration import fit_temperature
from hybridseg.metrics import expected_calibration_error
from tests.deep.subjects import IMAGES, LABELS, same_as

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_of_known_noise_is_found(temperature):
    generator = torch.Generator().manual_seed(0)
    scores = 2 * torch.randn(20_000, 4, generator=generator)
    labels = torch.multinomial(scores.softmax(dim=1), 1, generator=generator)[:, 0]
    assert fit_temperature(scores * temperature, labels) == pytest.approx(temperature, rel=0.05)


def test_calibration_keeps_the_labels_and_lowers_the_error(model):
    """The labels are drawn from the network's own probabilities, made less certain."""
    sure, rng = same_as(model), np.random.default_rng(1)
    flat = [scene.unary / 4 for scene in sure.transform(IMAGES)]
    noisy = [(each + rng.gumbel(size=each.shape) * -1).argmin(axis=-1) for each in flat]
    before = sure.predict(IMAGES)
    error = expected_calibration_error(noisy, sure.predict_proba(IMAGES))
    sure.calibrate(IMAGES, noisy)
    assert sure.temperature_ == pytest.approx(4, rel=0.15)
    assert sure.calibration_error_[0] == pytest.approx(error, rel=1e-3)
    assert sure.calibration_error_[1] < error / 2
    found = expected_calibration_error(noisy, sure.predict_proba(IMAGES))
    assert found == pytest.approx(sure.calibration_error_[1], rel=1e-3)
    for one, other in zip(sure.predict(IMAGES), before, strict=True):
        np.testing.assert_array_equal(one, other)
    once = sure.temperature_
    assert sure.calibrate(IMAGES, noisy).temperature_ == pytest.approx(once, rel=1e-3)
    assert model.temperature_ == 1


@pytest.mark.parametrize("what", ["wrong", "right"])
def test_a_temperature_at_its_bound_warns(model, what):
    sure = same_as(model)
    costs = [scene.unary for scene in sure.transform(IMAGES)]
    labels = [each.argmin(-1) if what == "wrong" else each.argmax(-1) for each in costs]
    with pytest.warns(UserWarning, match=f"is at its bound: .* almost never {what}"):
        sure.calibrate(IMAGES, labels)


def test_calibration_needs_known_labels(model):
    with pytest.raises(ValueError, match=r"y has no pixel of the classes \[0, 1, 2\]"):
        same_as(model).calibrate(IMAGES, [each + 7 for each in LABELS])
