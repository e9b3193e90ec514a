"""Gaussian filters: the two methods agree, and every width preserves what a Gaussian preserves."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from hybridseg.features import gaussians
from hybridseg.features.gaussians import radius_of, smooth


def test_a_filter_ends_where_its_radius_says():
    assert [radius_of(width, 4.0) for width in (0.0, 0.1, 0.125, 1.0, 2.5)] == [0, 0, 1, 4, 10]
    assert radius_of(1e300, 3.0) == 2**40


@pytest.mark.parametrize("truncate", [3.0, 4.0])
@pytest.mark.parametrize("widths", [(1.5, 0.0), (0.0, 2.0), (0.7, 3.1)])
def test_narrow_widths_are_those_of_scipy(rng, widths, truncate):
    values = rng.normal(0, 50, (13, 17, 2)).astype(np.float32)
    expected = gaussian_filter(values, (*widths, 0.0), mode="reflect", truncate=truncate)
    np.testing.assert_allclose(smooth(values, widths, truncate=truncate), expected, atol=1e-4)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("width", [17.0, 22.5, 40.0, 90.0])
def test_wide_ones_go_by_fourier_and_are_the_same_sums(rng, axis, width):
    values = rng.normal(0, 50, (50, 61)).astype(np.float32)
    widths = [0.0, 0.0]
    widths[axis] = width
    assert radius_of(width, 4.0) > gaussians.MAX_SUMMED_RADIUS
    expected = gaussian_filter1d(values.astype(float), width, axis, mode="reflect", truncate=4.0)
    np.testing.assert_allclose(smooth(values, widths, truncate=4.0), expected, atol=2e-4)


def test_blocks_do_not_change_the_sums(rng, monkeypatch):
    values = rng.normal(0, 50, (30, 40)).astype(np.float32)
    whole = smooth(values, (0.0, 30.0), truncate=3.0)
    monkeypatch.setattr(gaussians, "_MAX_NUMBERS_PER_TRANSFORM", 300)
    np.testing.assert_array_equal(smooth(values, (0.0, 30.0), truncate=3.0), whole)


@pytest.mark.parametrize("width", [101.0, 1e9])
def test_the_widest_leave_the_mean_along_their_axis(rng, width):
    values = rng.normal(0, 50, (30, 50)).astype(np.float32)
    found = smooth(values, (0.0, width), truncate=3.0)
    expected = np.broadcast_to(values.mean(axis=1, keepdims=True, dtype=float), values.shape)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    wide = smooth(values, (0.0, 100.0), truncate=3.0)  # not yet
    assert 0 < abs(wide - expected).max() < 0.5


@pytest.mark.parametrize("width", [0.0, 0.9, 16.0, 30.0, 500.0])
def test_sums_constants_flips_and_the_input_stay(rng, width):
    values = rng.normal(0, 50, (23, 31)).astype(np.float32)
    before = values.copy()
    found = smooth(values, (width, width), truncate=4.0)
    assert found.dtype == np.float32
    assert found.sum(dtype=float) == pytest.approx(values.sum(dtype=float), abs=0.05)
    flipped = smooth(np.ascontiguousarray(values[::-1, ::-1]), (width, width), truncate=4.0)
    np.testing.assert_allclose(flipped[::-1, ::-1], found, atol=1e-4)
    constant = np.full((9, 8), 7, np.float32)
    np.testing.assert_allclose(smooth(constant, (width, 1.0), truncate=4.0), 7, rtol=1e-6)
    np.testing.assert_array_equal(values, before)
    assert not np.shares_memory(found, values)
