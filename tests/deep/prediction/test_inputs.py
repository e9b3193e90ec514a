"""Colors are standardized, turned, resized and continued; what fits is left as it is."""

import numpy as np
import pytest
import torch

from hybridseg.deep.prediction import inputs
from hybridseg.deep.prediction.inputs import as_input, at_least, resized

SIZES = [(5, 7), (3, 4, 6)]


@pytest.mark.parametrize("size", SIZES)
def test_channels_come_first_and_have_the_moments_taken_out(rng, size):
    colors = rng.uniform(0, 255, (*size, 3)).astype(np.float32)
    axes = tuple(range(len(size)))
    found = as_input(colors, (colors.mean(axis=axes), colors.std(axis=axes)))
    assert found.dtype == torch.float32
    assert tuple(found.shape) == (3, *size)
    torch.testing.assert_close(found.flatten(1).mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(
        found.flatten(1).std(1, correction=0), torch.ones(3), atol=1e-4, rtol=0
    )
    neutral = np.zeros(3, np.float32), np.ones(3, np.float32)
    np.testing.assert_array_equal(np.moveaxis(as_input(colors, neutral).numpy(), 0, -1), colors)


@pytest.mark.parametrize("size", SIZES)
def test_constants_stay_at_any_size_and_flips_commute(size):
    values = torch.rand(2, *size)
    assert resized(values, size) is values
    for factor in (2, 0.5):
        other = tuple(max(1, int(factor * n)) for n in size)
        constant = resized(torch.full((2, *size), 3.0), other)
        torch.testing.assert_close(constant, torch.full((2, *other), 3.0))
        flipped = resized(values.flip(-1), other).flip(-1)
        torch.testing.assert_close(flipped, resized(values, other))


def test_smaller_images_are_means_and_not_samples():
    """Without the low-pass filter every second pixel of the stripes would be lost."""
    stripes = (torch.arange(64) % 2).float().expand(1, 64, 64)
    found = resized(stripes, (64, 16))
    assert (found[..., 2:-2] - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("size", SIZES)
def test_images_are_continued_at_their_ends_by_their_last_values(size):
    values = torch.rand(2, *size)
    assert at_least(values, size) is values
    assert at_least(values, (1,) * len(size)) is values
    sides = tuple(n + k for k, n in enumerate(size))
    found = at_least(values, sides)
    assert tuple(found.shape) == (2, *sides)
    for axis, (side, n) in enumerate(zip(sides, size, strict=True), start=1):
        values = values.index_select(axis, torch.arange(side).clamp(max=n - 1))
    assert torch.equal(found, values)


def test_a_tile_that_would_fill_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(inputs, "_MAX_PADDED_VALUES", 2 * 8 * 9)
    assert at_least(torch.rand(2, 5, 9), (8, 3)).shape == (2, 8, 9)
    with pytest.raises(ValueError, match=r"tile=\(9, 3\) is far larger than the image, \(5, 9\)"):
        at_least(torch.rand(2, 5, 9), (9, 3))
