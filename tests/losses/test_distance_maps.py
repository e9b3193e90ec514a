"""Distance maps, which losses compute from label maps."""

import numpy as np
import pytest

from hybridseg.losses import (
    gap_weights,
    signed_distances,
)
from tests.oracles import losses as oracle


@pytest.mark.parametrize("spacing", [None, (1.0, 2.5), 0.5])
def test_signed_distances_equal_brute_force(rng, spacing):
    for labels in (rng.integers(-1, 3, (6, 7)), np.ones((3, 4), int), np.full((2, 2), -1)):
        found = signed_distances(labels, 4, spacing=spacing)
        expected = oracle.signed_distances(labels, 4, np.broadcast_to(spacing or 1.0, 2))
        np.testing.assert_allclose(found, expected, atol=1e-12)
    volume = rng.integers(0, 2, (3, 4, 3))
    np.testing.assert_allclose(signed_distances(volume, 2), oracle.signed_distances(volume, 2))


@pytest.mark.parametrize("spacing", [None, (1.0, 2.5)])
def test_gap_weights_equal_brute_force(rng, spacing):
    """The windows around cells leave out only negligible weights."""
    for density in (0.05, 0.3):
        labels = (rng.random((24, 33)) < density) * rng.integers(1, 3, (24, 33))
        labels[rng.random(labels.shape) < 0.05] = -1
        for sigma in (0.5, 1.5, 5.0):
            found = gap_weights(labels, sigma=sigma, spacing=spacing)
            expected = oracle.gap_weights(labels, 10.0, sigma, spacing=spacing or np.ones(2))
            np.testing.assert_allclose(found, expected, atol=2e-7)


def test_gap_weights_of_instances_that_touch():
    """Instances with different numbers stay separate if they touch; the gap has the most weight."""
    labels = np.zeros((7, 9), int)
    labels[2:5, 1:4], labels[2:5, 5:8] = 1, 2
    weights = gap_weights(labels, gap_weight=10.0, sigma=2.0)
    assert weights[3, 4] == pytest.approx(10 * np.exp(-(2**2) / 8))
    assert weights.max() == weights[3, 4]
    assert (weights[labels > 0] == 0).all()
    labels[2:5, 4] = 2
    assert (gap_weights(labels)[1, 3:5] > 0).all()
    assert (gap_weights(np.where(labels > 0, 1, 0)) == 0).all()
    volume = np.zeros((3, 3, 5), int)
    volume[1, 1, 1] = volume[1, 1, 3] = 1
    assert gap_weights(volume, sigma=1.0)[1, 1, 2] == pytest.approx(10 * np.exp(-2))


def test_bad_map_options():
    with pytest.raises(ValueError, match="spacing=.*expected 2 positive numbers"):
        signed_distances(np.zeros((2, 2), int), 2, spacing=(1, -1))
    with pytest.raises(ValueError, match="sigma=0; expected a number > 0"):
        gap_weights(np.zeros((2, 2), int), sigma=0)
    with pytest.raises(TypeError, match="has dtype float64"):
        gap_weights(np.zeros((2, 2)))
