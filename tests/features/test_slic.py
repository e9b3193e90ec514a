"""Superpixels are connected, near the requested number, and independent of scale and layout."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from scipy import ndimage
from skimage.segmentation import find_boundaries
from skimage.segmentation import slic as skimage_slic
from sklearn.base import clone

from hybridseg.features import SLIC, region_graph, slic


def make_image(shape=(60, 90), n_parts=12, n_channels=3, noise=12.0, seed=0):
    """A noisy image of cells around random points, uint8, and its truth."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, shape, (n_parts, len(shape)))
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm(grid[..., None, :] - points, axis=-1)
    truth = distance.argmin(axis=-1)
    colors = rng.uniform(30, 225, (n_parts, n_channels))[truth]
    return np.clip(colors + rng.normal(0, noise, colors.shape), 0, 255).astype(np.uint8), truth


def agreement(first, second):
    """The fraction of pixels whose region in ``first`` is mostly one region of ``second``."""
    table = np.zeros((first.max() + 1, second.max() + 1), int)
    np.add.at(table, (first, second), 1)
    return min(table.max(axis=1).sum(), table.max(axis=0).sum()) / first.size


def boundary_recall(truth, regions):
    found = ndimage.binary_dilation(find_boundaries(regions, mode="inner"))
    wanted = find_boundaries(truth, mode="inner")
    return found[wanted].mean()


def undersegmentation_error(truth, regions):
    table = np.zeros((regions.max() + 1, truth.max() + 1), int)
    np.add.at(table, (regions, truth), 1)
    return np.minimum(table, table.sum(axis=1, keepdims=True) - table).sum() / truth.size


def assert_consecutive_and_connected(regions):
    """The numbers are 0..R-1 in raster order of the first pixels, and each region is one piece."""
    numbers, first = np.unique(regions[regions >= 0], return_index=True)
    np.testing.assert_array_equal(numbers, np.arange(len(numbers)))
    assert (np.diff(first) > 0).all()
    pieces = [ndimage.label(regions == number)[1] for number in numbers]
    np.testing.assert_array_equal(pieces, np.ones(len(numbers)))


@pytest.mark.parametrize("compactness", [0.1, 1.0, 10.0, 100.0])
@pytest.mark.parametrize("noise", [0.0, 60.0])
def test_regions_are_connected(compactness, noise):
    image, _ = make_image(noise=noise)
    regions = slic(image, 40, compactness)
    assert regions.dtype == np.int32
    assert regions.shape == image.shape[:2]
    assert_consecutive_and_connected(regions)


@pytest.mark.parametrize("n_segments", [5, 24, 150, 600])
def test_the_number_of_regions_is_near_the_requested_one(n_segments):
    image, _ = make_image()
    n_regions = slic(image, n_segments).max() + 1
    assert 0.75 * n_segments <= n_regions <= 1.25 * n_segments


def test_one_segment():
    image, _ = make_image()
    assert not slic(image, 1).any()


def test_more_segments_than_pixels_gives_each_pixel_its_own():
    image, _ = make_image((5, 7))
    np.testing.assert_array_equal(slic(image, 1000), np.arange(35).reshape(5, 7))


@pytest.mark.parametrize("shape", [(1, 1), (1, 1, 3), (1, 9), (9, 1), (1, 1, 5)])
def test_tiny_images(shape):
    spatial = 3 if shape == (1, 1, 5) else 2
    regions = slic(np.full(shape, 7, np.uint8), 3, spatial_ndim=spatial)
    assert regions.shape == shape[:spatial]
    assert_consecutive_and_connected(regions)


@pytest.mark.parametrize("n_channels", [1, 3, 5])
def test_constant_image_gives_the_grid(n_channels):
    regions = slic(np.full((40, 60, n_channels), 131, np.uint8), 24)
    expected = np.arange(40)[:, None] // 10 * 6 + np.arange(60) // 10
    assert agreement(regions, expected) > 0.9
    assert regions.max() + 1 == 24


def test_step_edge_is_followed_exactly():
    image = np.zeros((40, 60), np.uint8)
    image[:, 33:] = 60
    regions = slic(image, 24)
    assert not np.intersect1d(regions[:, :33], regions[:, 33:]).size
    assert regions.max() + 1 == 24  # no center on the edge lost all its pixels


def test_transposing_commutes():
    image, _ = make_image((50, 83))
    swapped = slic(image.transpose(1, 0, 2), 40)
    assert agreement(slic(image, 40), swapped.T) > 0.99


def test_permuting_the_axes_of_a_volume_commutes():
    image, _ = make_image((12, 21, 33), 8, 2)
    spacing = (2.0, 1.0, 0.5)
    regions = slic(image, 30, spacing=spacing)
    permuted = slic(image.transpose(2, 0, 1, 3), 30, spacing=(0.5, 2.0, 1.0))
    assert agreement(regions, permuted.transpose(1, 2, 0)) > 0.99
    assert_consecutive_and_connected(regions)


def test_flat_volume_equals_image():
    image, _ = make_image()
    regions = slic(image, 40)
    np.testing.assert_array_equal(slic(image[None], 40)[0], regions)
    np.testing.assert_array_equal(slic(image[:, None], 40)[:, 0], regions)


def test_spacing_is_honored():
    """Cells are cubes in space: flat in pixels along an axis of wide spacing."""
    image = np.full((10, 40, 40), 3, np.uint8)
    regions = slic(image, 64, spacing=(4.0, 1.0, 1.0))
    assert regions.max() + 1 == 64
    boxes = ndimage.find_objects(regions + 1)
    extents = np.array([[side.stop - side.start for side in box] for box in boxes])
    np.testing.assert_allclose(np.median(extents, axis=0), [2.5, 10, 10], atol=1.5)


def test_only_relative_spacing_matters():
    image, _ = make_image((9, 20, 30), 6, 1)
    regions = slic(image, 30, spacing=(2, 1, 1))
    np.testing.assert_array_equal(slic(image, 30, spacing=(8, 4, 4)), regions)


def test_gray_equals_gray_in_three_channels():
    image, _ = make_image(n_channels=1)
    colors = slic(np.repeat(image, 3, axis=-1), 40)
    assert agreement(slic(image[..., 0], 40), colors) > 0.995
    np.testing.assert_array_equal(slic(image, 40), slic(image[..., 0], 40))


@pytest.mark.parametrize("n_channels", [1, 3, 4])
def test_same_image_in_other_dtypes(n_channels):
    image, _ = make_image(n_channels=n_channels)
    regions = slic(image, 40)
    for other in (image / 255, (image / 255).astype(np.float32), image.astype(np.uint16) * 257):
        assert agreement(slic(other, 40), regions) > 0.995
    half = (image / 255).astype(np.float16)
    np.testing.assert_array_equal(slic(half, 40), slic(half.astype(np.float64), 40))


def test_compactness_is_free_of_contrast():
    image, _ = make_image(n_channels=2)
    faint = 100 + image / 50.0
    regions = slic(image, 40)
    assert agreement(slic(faint, 40, intensity_range=(0, 255)), regions) > 0.99


def test_doubled_channels_change_nothing():
    image, _ = make_image(n_channels=2, noise=4.0)
    assert agreement(slic(np.tile(image, 2), 40), slic(image, 40)) > 0.995


def test_order_of_channels_does_not_matter():
    image, _ = make_image(n_channels=7)
    assert agreement(slic(image[..., ::-1], 40), slic(image, 40)) > 0.995


def test_layout_does_not_matter_and_nothing_is_written():
    image, _ = make_image()
    regions = slic(image, 40)
    before = image.copy()
    image.flags.writeable = False
    np.testing.assert_array_equal(slic(image, 40), regions)
    np.testing.assert_array_equal(slic(np.asfortranarray(image), 40), regions)
    np.testing.assert_array_equal(slic(np.repeat(image, 2, axis=1)[:, ::2], 40), regions)
    np.testing.assert_array_equal(image, before)


def test_result_does_not_depend_on_the_threads(monkeypatch):
    monkeypatch.setattr(
        "hybridseg.kernels._compile.MIN_ELEMENTS_FOR_THREADS", 0
    )  # several threads share the work of any image
    image, _ = make_image((80, 100), noise=40)
    before = numba.get_num_threads()
    if before == 1:
        pytest.skip("numba has one thread only")
    try:
        numba.set_num_threads(1)
        alone = slic(image, 50)
    finally:
        numba.set_num_threads(before)
    np.testing.assert_array_equal(slic(image, 50), alone)


def test_masked_pixels_belong_to_no_region():
    image, _ = make_image(noise=30)
    valid = np.ones((60, 90), bool)
    valid[20:40, 30:70] = False
    valid[50:] = False
    valid[57, 3:6] = True  # an island
    image = np.where(valid[..., None], image / 255, np.nan)
    regions = slic(image, 40, valid=valid)
    np.testing.assert_array_equal(regions >= 0, valid)
    assert_consecutive_and_connected(regions)


def test_no_center_starts_at_a_masked_pixel():
    """Such a center would have a meaningless color, and its neighbors would take its pixels."""
    image = np.full((40, 60), 200, np.uint8)
    image[:, 30:] = 100
    valid = np.ones((40, 60), bool)
    valid[13:17, 13:17] = False
    assert slic(image, 24, valid=valid).max() + 1 == 24


def test_masking_everything_leaves_no_region():
    image, _ = make_image((6, 8))
    assert (slic(image, 4, valid=np.zeros((6, 8), bool)) == -1).all()


@pytest.mark.parametrize("seed", range(3))
def test_quality_is_not_below_scikit_image(seed):
    """The images are noisy, and scikit-image may use more regions."""
    image, truth = make_image((120, 160), 25, noise=8, seed=seed)
    ours = slic(image, 150)
    asked = 150
    while True:
        theirs = skimage_slic(image, asked, compactness=10, start_label=0)
        if theirs.max() >= ours.max():
            break
        asked += 10
    assert boundary_recall(truth, ours) > max(0.97, boundary_recall(truth, theirs) - 0.005)
    assert undersegmentation_error(truth, ours) < undersegmentation_error(truth, theirs) + 0.002


@pytest.mark.parametrize("seed", range(3))
def test_clean_boundaries_are_found(seed):
    image, truth = make_image((120, 160), 25, noise=0, seed=seed)
    regions = slic(image, 150)
    assert boundary_recall(truth, regions) > 0.99
    assert undersegmentation_error(truth, regions) < 0.01


def test_higher_compactness_shortens_the_boundaries():
    image, _ = make_image(noise=40)
    lengths = [region_graph(slic(image, 40, c)).lengths.sum() for c in (1.0, 10.0, 100.0)]
    assert lengths[0] > lengths[1] > lengths[2]


def test_parameter_object_equals_function():
    image, _ = make_image()
    superpixels = SLIC(40, compactness=20.0, n_iter=3)
    expected = slic(image, 40, 20.0, n_iter=3)
    np.testing.assert_array_equal(superpixels(image), expected)
    np.testing.assert_array_equal(clone(superpixels)(image), expected)
    assert superpixels.get_params() == {"n_segments": 40, "compactness": 20.0, "n_iter": 3}
    other = superpixels(image[..., 0] * 3.0, spacing=(1, 2), intensity_range="image")
    expected = slic(
        image[..., 0] * 3.0, 40, 20.0, n_iter=3, spacing=(1, 2), intensity_range="image"
    )
    np.testing.assert_array_equal(other, expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_segments": 0}, ValueError, "n_segments=0"),
        ({"n_segments": 2.5}, TypeError, "n_segments=2.5"),
        ({"compactness": 0.0}, ValueError, "compactness=0.0"),
        ({"n_iter": 0}, ValueError, "n_iter=0"),
        ({"spacing": (1, -1)}, ValueError, "spacing="),
        ({"intensity_range": "none"}, ValueError, "intensity_range"),
        ({"valid": np.ones((3, 4), bool)}, ValueError, "valid has shape"),
    ],
)
def test_bad_parameters(options, error, message):
    with pytest.raises(error, match=message):
        slic(np.zeros((6, 8), np.uint8), **options)


def test_bad_pixels():
    with pytest.raises(ValueError, match="NaN or infinite"):
        slic(np.full((6, 8), np.nan))
