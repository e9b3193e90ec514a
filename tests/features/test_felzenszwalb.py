"""Felzenszwalb's regions equal scikit-image's; volumes, masks and other dtypes obey laws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.segmentation import felzenszwalb as skimage_felzenszwalb
from sklearn.base import clone

from hybridseg.features import Felzenszwalb, felzenszwalb
from tests.features.test_slic import make_image

TOUCHING = {2: np.ones((3, 3)), 3: np.ones((3, 3, 3))}


def assert_consecutive_and_connected(regions):
    numbers, first = np.unique(regions[regions >= 0], return_index=True)
    np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
    assert (np.diff(first) > 0).all()
    touching = TOUCHING[regions.ndim]
    pieces = [ndimage.label(regions == number, touching)[1] for number in numbers]
    np.testing.assert_array_equal(pieces, np.ones(len(numbers)))


@pytest.mark.parametrize(("scale", "min_size"), [(0.0, 0), (30.0, 1), (100.0, 20), (300.0, 5)])
@pytest.mark.parametrize("sigma", [0.0, 0.8, 2.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1, 3), (40, 50), (32, 41, 3), (25, 27, 2)])
def test_equals_scikit_image_without_ties(shape, sigma, scale, min_size):
    image = np.random.default_rng(0).random(shape)
    regions = felzenszwalb(image, scale, sigma, min_size)
    channels = image.reshape(*shape[:2], -1)
    # scikit-image warns about two channels; a third channel of zeros changes nothing
    if channels.shape[-1] == 2:
        channels = np.concatenate([channels, np.zeros((*shape[:2], 1))], axis=-1)
    expected = skimage_felzenszwalb(channels, scale, sigma, min_size)
    np.testing.assert_array_equal(regions, expected)


def test_photograph_like_image_equals_scikit_image():
    image, _ = make_image((120, 160), 25)
    image = image / 255 * np.random.default_rng(1).uniform(0.98, 1, image.shape)
    np.testing.assert_array_equal(
        felzenszwalb(image, 100, 0.8, 20), skimage_felzenszwalb(image, 100, 0.8, 20)
    )


@pytest.mark.parametrize("shape", [(30, 40), (7, 9, 11)])
def test_least_size_is_honored(shape):
    image, _ = make_image(shape, 9, 1, noise=60)
    regions = felzenszwalb(image, 20.0, min_size=15)
    assert regions.dtype == np.int32
    assert np.bincount(regions.ravel()).min() >= 15
    assert_consecutive_and_connected(regions)


def test_scale_makes_fewer_regions():
    image, _ = make_image(noise=30)
    counts = [felzenszwalb(image, scale).max() for scale in (1.0, 100.0, 1000.0)]
    assert counts[0] > counts[1] > counts[2]


def test_clean_parts_are_found_exactly():
    image, truth = make_image(noise=0)
    regions = felzenszwalb(image, 50.0, sigma=0, min_size=1)
    assert len(np.unique(np.stack([regions.ravel(), truth.ravel()]), axis=1).T) <= truth.max() + 1
    assert regions.max() == truth.max()


def test_flat_volume_equals_image():
    image, _ = make_image()
    np.testing.assert_array_equal(felzenszwalb(image[None])[0], felzenszwalb(image))


def test_spacing_widens_the_gaussian():
    """``sigma`` is given in the unit of spacing; if both double, nothing changes."""
    image, _ = make_image((8, 20, 30), 6, 1)
    regions = felzenszwalb(image, sigma=1.0, spacing=(2, 1, 1))
    np.testing.assert_array_equal(felzenszwalb(image, sigma=2.0, spacing=(4, 2, 2)), regions)
    assert (felzenszwalb(image, sigma=1.0, spacing=(1, 2, 2)) != regions).any()


@pytest.mark.parametrize("n_channels", [1, 3, 5])
def test_same_image_in_other_dtypes(n_channels):
    image, _ = make_image(n_channels=n_channels)
    regions = felzenszwalb(image)
    np.testing.assert_array_equal(felzenszwalb(image.astype(np.uint16) * 257), regions)
    np.testing.assert_array_equal(felzenszwalb(np.asfortranarray(image)), regions)


def test_masked_pixels_belong_to_no_region():
    image, _ = make_image(noise=30)
    valid = np.ones((60, 90), bool)
    valid[:, 30:33] = False
    valid[57, 70:73] = False
    image = np.where(valid[..., None], image / 255, np.nan)
    regions = felzenszwalb(image, valid=valid)
    np.testing.assert_array_equal(regions >= 0, valid)
    assert not np.intersect1d(regions[:, :30], regions[:, 33:]).size
    assert_consecutive_and_connected(regions)
    assert (felzenszwalb(image, valid=np.zeros_like(valid)) == -1).all()


def test_color_does_not_leak_out_of_the_mask():
    """A constant image stays constant, whatever lies beside it."""
    valid = np.ones((20, 30), bool)
    valid[:, 15:20] = False
    image = np.where(valid, 0.7, np.nan)
    assert felzenszwalb(image, 0.01, sigma=2.0, min_size=0, valid=valid).max() == 1


def test_parameter_object_equals_function():
    image, _ = make_image()
    method = Felzenszwalb(40.0, sigma=1.5, min_size=3)
    expected = felzenszwalb(image, 40.0, 1.5, 3)
    np.testing.assert_array_equal(clone(method)(image), expected)
    assert method.get_params() == {"scale": 40.0, "sigma": 1.5, "min_size": 3}
    other = method(image[..., 0] * 3.0, spacing=(1, 2), intensity_range="image")
    expected = felzenszwalb(
        image[..., 0] * 3.0, 40.0, 1.5, 3, spacing=(1, 2), intensity_range="image"
    )
    np.testing.assert_array_equal(other, expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"scale": -1.0}, ValueError, "scale=-1.0"),
        ({"sigma": -0.5}, ValueError, "sigma=-0.5"),
        ({"min_size": 2.5}, TypeError, "min_size=2.5"),
        ({"spacing": (1, -1)}, ValueError, "spacing="),
        ({"valid": np.ones((3, 4), bool)}, ValueError, "valid has shape"),
    ],
)
def test_bad_parameters(options, error, message):
    with pytest.raises(error, match=message):
        felzenszwalb(np.zeros((6, 8), np.uint8), **options)


def test_bad_pixels():
    with pytest.raises(ValueError, match="NaN or infinite"):
        felzenszwalb(np.full((6, 8), np.nan))
