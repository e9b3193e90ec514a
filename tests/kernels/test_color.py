"""Colour conversion and the 16-bit planes equal their twins."""

from __future__ import annotations

import numpy as np
import pytest

from hybridseg.kernels import color as kernels
from tests.oracles import color as oracles


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("whole", [True, False])
def test_lab_equals_twin(n_channels, whole):
    rng = np.random.default_rng(0)
    colors = rng.uniform(0, 255, (40000, n_channels)).astype(np.float32)
    colors[:2000] /= 20  # the straight part near black
    colors[0], colors[1] = 0, 255
    colors = np.round(colors) if whole else colors
    errors = np.abs(kernels.srgb_to_lab(colors) - oracles.srgb_to_lab(colors)).max(axis=1)
    assert errors[0] < 1e-3
    assert (errors[1:] < 3e-3).all()


@pytest.mark.parametrize("n_channels", [1, 3])
def test_lab_beyond_the_scale_equals_twin(n_channels):
    colors = np.linspace(-100, 600, 90, dtype=np.float32).reshape(-1, n_channels)
    lab = kernels.srgb_to_lab(colors)
    np.testing.assert_allclose(lab, oracles.srgb_to_lab(colors), rtol=1e-4, atol=3e-3)


def test_nan_stays_and_nothing_gives_nothing():
    assert np.isnan(kernels.srgb_to_lab(np.full((1, 3), np.nan, np.float32))).all()
    assert kernels.srgb_to_lab(np.empty((0, 3), np.float32)).shape == (3, 0)


@pytest.mark.parametrize(
    ("shape", "n_channels", "part"),
    [
        ((1, 1, 1), 1, 1),
        ((1, 9, 13), 3, 1),
        ((1, 9, 13), 3, 0.5),
        ((4, 5, 6), 2, 0),
        ((3, 1, 7), 5, 1),
    ],
)
def test_planes_equal_twin(shape, n_channels, part):
    rng = np.random.default_rng(1)
    colors = rng.normal(90, 20, (n_channels, *shape)).astype(np.float32)
    inside = rng.random(shape) < part
    planes = np.full((n_channels, *shape[:2], shape[2] + 3), -7, np.int16)
    kernels.spread_planes(colors, inside, 800.0, 1000.0, planes)
    expected = oracles.spread_planes(colors, inside, 800.0, 1000.0)
    difference = planes[..., :-3].astype(int) - expected
    assert np.abs(difference).max() <= 1  # rounding of the float32 value
    assert np.mean(difference != 0) < 0.01
    assert (planes[..., -3:] == -7).all()


def test_large_constant_picture_becomes_zero():
    colors = np.full((3, 1, 700, 900), np.float32(55.123457))
    planes = np.ones((3, 1, 700, 900), np.int16)
    kernels.spread_planes(colors, np.ones((1, 700, 900), bool), 800.0, 1000.0, planes)
    assert not planes.any()
