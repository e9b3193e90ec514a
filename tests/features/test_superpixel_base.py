"""Parameter objects of superpixels pass every argument to their functions."""

import numpy as np
import pytest

from hybridseg.features import ETPS, SLIC, Felzenszwalb, etps, felzenszwalb, slic
from hybridseg.features.superpixel_base import Superpixels
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
