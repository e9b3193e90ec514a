"""Color conversion and the 16-bit planes equal their twins."""

from __future__ import annotations

import numpy as np
import pytest

from hybridseg.kernels.superpixels import color as kernels
from hybridseg.kernels.vectors import simd as simd
from tests.oracles.superpixels import color as oracles


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


SCENES = [
    ((1, 1, 1), 1, 1),
    ((1, 9, 13), 3, 1),
    ((1, 9, 13), 3, 0.5),
    ((4, 5, 6), 2, 0),
    ((3, 1, 37), 5, 1),
    ((1, 3, 64), 4, 0.9),
]


@pytest.fixture(params=[True, False], ids=["vectors", "numbers"])
def vectors(request, monkeypatch):
    if request.param and not simd.ENABLED:
        pytest.skip("vectors are switched off")
    monkeypatch.setattr(simd, "ENABLED", request.param)


def make_scene(shape, n_channels, part):
    rng = np.random.default_rng(1)
    colors = rng.normal(90, 20, (n_channels, *shape)).astype(np.float32)
    return colors, rng.random(shape) < part


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize(("shape", "n_channels", "part"), SCENES)
def test_spread_equals_twin(shape, n_channels, part):
    colors, inside = make_scene(shape, n_channels, part)
    found = kernels.color_spread(colors, inside)
    for value, expected in zip(found, oracles.color_spread(colors, inside), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize(("shape", "n_channels", "part"), SCENES)
def test_quads_equal_twin(shape, n_channels, part):
    colors, inside = make_scene(shape, n_channels, part)
    means = colors.mean(axis=(1, 2, 3))
    quads = np.full(((n_channels + 3) // 4, *shape[:2], shape[2] + 3, 4), -7, np.int16)
    expected = oracles.write_quads(colors, inside, means, 40.3, 1000.0, quads)
    kernels.write_quads(colors, inside, means, 40.3, 1000.0, quads)
    quads[expected == -7] = -7  # what lies beyond the channels may be 0
    difference = quads[..., :-3, :].astype(int) - expected[..., :-3, :]
    assert np.abs(difference).max() <= 1  # rounding of the float32 value
    assert np.mean(difference != 0) < 0.01
    assert (quads[..., -3:, :] == -7).all()


@pytest.mark.compiled
@pytest.mark.usefixtures("vectors")
def test_large_constant_image_has_no_spread():
    colors = np.full((3, 1, 700, 900), np.float32(55.123457))
    means, variance, reaches = kernels.color_spread(colors, np.ones((1, 700, 900), bool))
    assert variance <= 1e-8
    np.testing.assert_array_equal(means, colors[:, 0, 0, 0])
    np.testing.assert_array_equal(reaches, 0)
