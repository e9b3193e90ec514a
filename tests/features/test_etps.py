"""Refined superpixels are connected, exact in number, and independent of scale and layout."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import ndimage
from sklearn.base import clone

from hybridseg import SuperpixelClassifier
from hybridseg.features import ETPS, etps, slic
from hybridseg.metrics import boundary_recall, mean_iou, undersegmentation_error
from tests.subjects import forest, halves


def make_image(shape=(60, 90), n_parts=12, n_channels=3, noise=12.0, seed=0):
    """A noisy image of cells around random points, uint8, and its truth."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, shape, (n_parts, len(shape)))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    truth = np.linalg.norm(grid[..., None, :] - points, axis=-1).argmin(axis=-1)
    colors = rng.uniform(30, 225, (n_parts, n_channels))[truth]
    return np.clip(colors + rng.normal(0, noise, colors.shape), 0, 255).astype(np.uint8), truth


def assert_consecutive_and_connected(regions):
    """The numbers are 0..R-1 in raster order of the first pixels, and each region is one piece."""
    numbers, first = np.unique(regions[regions >= 0], return_index=True)
    np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
    assert (np.diff(first) > 0).all()
    pieces = [ndimage.label(regions == number)[1] for number in numbers]
    np.testing.assert_array_equal(pieces, np.ones(len(numbers)))


@pytest.mark.parametrize("compactness", [0.1, 5.0, 100.0])
@pytest.mark.parametrize("smoothness", [0.0, 100.0])
@pytest.mark.parametrize("noise", [0.0, 60.0])
def test_regions_are_connected(compactness, smoothness, noise):
    image, _ = make_image(noise=noise)
    regions = etps(image, 40, compactness, smoothness=smoothness)
    assert regions.dtype == np.int32
    assert regions.shape == image.shape[:2]
    assert regions.max() + 1 == 40
    assert_consecutive_and_connected(regions)


@pytest.mark.parametrize("n_segments", [1, 2, 7, 24, 150, 600, 5000])
def test_the_number_of_regions_is_the_requested_one(n_segments):
    regions = etps(make_image()[0], n_segments)
    assert regions.max() + 1 == n_segments
    assert_consecutive_and_connected(regions)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 2), (5, 7)])
@pytest.mark.parametrize("n_segments", [1, 3, 1000])
def test_small_images(shape, n_segments):
    regions = etps(make_image(shape, 2)[0], n_segments)
    assert regions.max() + 1 == min(n_segments, math.prod(shape))
    assert_consecutive_and_connected(regions)


@pytest.mark.parametrize("shape", [(12, 20, 16), (1, 20, 30), (6, 1, 9), (30, 4, 4)])
@pytest.mark.parametrize("spacing", [(1, 1, 1), (3, 1, 0.5)])
def test_volumes(shape, spacing):
    image, _ = make_image(shape, 4, 1)
    regions = etps(image[..., 0], 12, spacing=spacing)
    assert regions.shape == shape
    assert regions.max() + 1 == 12
    assert_consecutive_and_connected(regions)


def test_plane_of_a_volume_is_an_image():
    image, _ = make_image((30, 40))
    np.testing.assert_array_equal(etps(image[None], 20, spatial_ndim=3)[0], etps(image, 20))


def test_edges_of_a_volume_are_found():
    image, truth = make_image((16, 24, 20), 4, 1, noise=3.0)
    regions = etps(image[..., 0], 30, spatial_ndim=3)
    assert undersegmentation_error(truth, regions) < 0.02


def test_better_than_slic_on_both_scores():
    """The scores are means over five noisy images, at the same number of regions."""
    scores = []
    for seed in range(5):
        image, truth = make_image((90, 120), 14, noise=25.0, seed=seed)
        other = slic(image, 60)
        ours = etps(image, int(other.max()) + 1)
        scores.append(
            [(boundary_recall(truth, r), undersegmentation_error(truth, r)) for r in (ours, other)]
        )
    (recall, error), (slic_recall, slic_error) = np.mean(scores, axis=0)
    assert recall > slic_recall
    assert error < slic_error


@pytest.mark.parametrize("n_channels", [1, 2, 3, 5])
def test_scale_of_the_values_does_not_matter(n_channels):
    image, _ = make_image(n_channels=n_channels)
    fine = (image.astype(np.uint16) * 257,)
    for other in (*fine, image / 255.0, (image / 255.0).astype(np.float32)):
        same = np.mean(etps(image, 30) == etps(other, 30))
        assert same > 0.98  # rounding decides between nearly equal merges


def test_range_of_the_values_does_not_matter():
    image = make_image(n_channels=2)[0].astype(float)
    first = etps(image, 30, intensity_range=(0, 255))
    second = etps(image * 4 - 100, 30, intensity_range=(-100, 920))
    assert np.mean(first == second) > 0.98


def test_compactness_evens_out_and_smoothness_shortens():
    image, _ = make_image(noise=40.0)
    sizes = [np.bincount(etps(image, 40, c).ravel()).std() for c in (1.0, 10.0, 100.0)]
    assert sizes[0] > sizes[1] > sizes[2]
    lengths = [
        sum(np.count_nonzero(np.diff(etps(image, 40, smoothness=s), axis=a)) for a in (0, 1))
        for s in (0.0, 30.0, 300.0)
    ]
    assert lengths[0] > lengths[1] > lengths[2]


def test_mask():
    image, _ = make_image()
    valid = np.ones(image.shape[:2], bool)
    valid[20:24] = False  # two parts
    valid[40, 50] = False
    image[~valid] = 255
    regions = etps(image, 40, valid=valid)
    assert (regions[~valid] == -1).all()
    assert (regions[valid] >= 0).all()
    assert regions.max() + 1 == 40
    assert_consecutive_and_connected(regions)
    image[~valid] = 0
    np.testing.assert_array_equal(etps(image, 40, valid=valid), regions)
    assert etps(image, 1, valid=valid).max() == 1  # each part has a region
    np.testing.assert_array_equal(
        etps(image, 5, valid=np.zeros_like(valid)), np.where(valid, -1, -1)
    )


def test_layout_and_writing():
    image, _ = make_image()
    image.setflags(write=False)
    expected = etps(image, 40)
    np.testing.assert_array_equal(etps(np.asfortranarray(image), 40), expected)
    np.testing.assert_array_equal(etps(image.tolist(), 40, intensity_range=(0, 255)), expected)


def test_constant_image_gives_even_regions():
    regions = etps(np.full((40, 60), 7, np.uint8), 24, compactness=20.0)
    sizes = np.bincount(regions.ravel())
    assert sizes.size == 24
    assert sizes.max() < 3 * sizes.min()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"n_segments": 0}, "n_segments"),
        ({"n_segments": 2.5}, "n_segments"),
        ({"compactness": 0}, "compactness"),
        ({"smoothness": -1}, "smoothness"),
        ({"n_iter": 0}, "n_iter"),
        ({"spacing": (1, -1)}, "spacing"),
        ({"valid": np.ones((3, 3), bool)}, "valid|mask"),
    ],
)
def test_bad_parameters(options, match):
    with pytest.raises((TypeError, ValueError), match=match):
        etps(make_image((10, 12))[0], **options)


def test_parameter_object():
    image, _ = make_image()
    maker = ETPS(n_segments=30, compactness=8.0, smoothness=2.0, n_iter=3)
    assert clone(maker).get_params() == maker.get_params()
    expected = etps(image, 30, 8.0, smoothness=2.0, n_iter=3)
    np.testing.assert_array_equal(maker(image), expected)


def test_superpixel_classifier_takes_it():
    images, labels = halves()
    model = SuperpixelClassifier(forest(), superpixels=ETPS(n_segments=60))
    model.fit(images[:2], labels[:2])
    assert mean_iou(labels[2:], model.predict(images[2:])) > 0.8
    scene = model.transform(images[2:])[0]
    assert scene.regions.max() + 1 == 60
    assert model.set_params(superpixels__n_segments=20).superpixels.n_segments == 20
