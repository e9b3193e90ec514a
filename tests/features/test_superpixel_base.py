"""Parameter objects of superpixels pass every argument to their functions."""

import numpy as np
import pytest

from hybridseg.features import ETPS, SLIC, Felzenszwalb, etps, felzenszwalb, slic
from hybridseg.features.superpixel_base import Superpixels, cut_image
from hybridseg.validation import Colors

PAIRS = {
    "SLIC": (SLIC(9, compactness=4.0, n_iter=3), slic, (9, 4.0), {"n_iter": 3}),
    "ETPS": (
        ETPS(9, compactness=4.0, smoothness=1.0, n_iter=3),
        etps,
        (9, 4.0),
        {"smoothness": 1.0, "n_iter": 3},
    ),
    "Felzenszwalb": (Felzenszwalb(40.0, sigma=1.2, min_size=7), felzenszwalb, (40.0, 1.2, 7), {}),
}


@pytest.mark.parametrize("name", PAIRS)
def test_the_call_is_that_of_the_function(rng, name):
    settings, function, arguments, options = PAIRS[name]
    image = (50 * rng.random((18, 20, 3))).astype(np.float32)
    valid = np.ones((18, 20), bool)
    valid[:3] = False
    seen = {"spacing": (2.0, 1.0), "intensity_range": (0, 50), "spatial_ndim": 2, "valid": valid}
    expected = function(image, *arguments, **options, **seen)
    np.testing.assert_array_equal(settings(image, **seen), expected)
    spacing, intensity_range = seen.pop("spacing"), seen.pop("intensity_range")
    np.testing.assert_array_equal(settings(image, spacing, intensity_range, **seen), expected)
    colors = Colors(image)
    np.testing.assert_array_equal(
        settings(colors), function(image, *arguments, **options, intensity_range=(0, 255))
    )


def test_a_subclass_without_its_hook_is_named():
    class Bare(Superpixels):
        pass

    with pytest.raises(TypeError, match="Bare lacks the hook _cut"):
        Bare()(np.zeros((4, 5)))


def test_any_method_is_called_with_what_it_takes(rng):
    colors = (50 * rng.random((12, 14, 3))).astype(np.float32)
    valid = np.ones((12, 14), bool)
    valid[:3] = False
    calls = []

    def plain(image, spacing, intensity_range):
        calls.append((spacing, intensity_range))
        return np.zeros(image.shape[:-1], int)

    def careful(image, **options):
        calls.append(options)
        return np.zeros(image.shape[:-1], int)

    for mask in (None, valid):
        expected = slic(Colors(colors), 9, spacing=(2.0, 1.0), valid=mask)
        np.testing.assert_array_equal(cut_image(SLIC(9), colors, (2.0, 1.0), mask), expected)
        assert cut_image(plain, colors, (2.0, 1.0), mask).shape == (12, 14)
        assert cut_image(careful, colors, (2.0, 1.0), mask).shape == (12, 14)
    options = {"spacing": (2.0, 1.0), "intensity_range": (0.0, 255.0)}
    assert calls[:2] == [tuple(options.values()), options]
    assert calls[2] == calls[0]
    assert calls[3].pop("valid") is valid
    assert calls[3] == options
