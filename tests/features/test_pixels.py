"""Pixel features are finite, have known widths, and move with the image."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from skimage.color import rgb2lab
from sklearn.base import clone

from hybridseg.features import PixelFeatures
from hybridseg.features.pixels import gaussian_response, perceptual_colors, symmetric_eigenvalues


def random_colors(shape, n_channels=3, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (*shape, n_channels)).astype(np.float32)


def width_of(n_channels, n_axes, n_sigmas):
    return n_channels + n_sigmas * (n_channels * (2 + n_axes) + n_axes)


@pytest.mark.parametrize("n_channels", [1, 2, 3, 7])
@pytest.mark.parametrize("shape", [(12, 17), (5, 7, 6), (1, 1), (1, 9), (2, 1, 3)])
def test_finite_and_of_known_width(shape, n_channels):
    features = PixelFeatures(position=True)(random_colors(shape, n_channels))
    assert features.dtype == np.float32
    assert features.shape == (*shape, width_of(n_channels, len(shape), 4) + len(shape))
    assert np.isfinite(features).all()


@pytest.mark.parametrize("value", [0, 255])
def test_constant_image_has_no_derivatives(value):
    colors = np.full((9, 11, 2), value, np.float32)
    features = PixelFeatures(intensity=False, sigmas=(1.0, 3.0))(colors)
    np.testing.assert_allclose(features, 0, atol=1e-2)


def test_all_channels_are_kept():
    """A change in one channel changes the features, even if the mean over channels is the same."""
    colors = np.full((11, 11, 5), 100, np.float32)
    colors[5, 5] += [30, -30, 0, 0, 0]
    features = PixelFeatures(sigmas=(1.0,))(colors)[5, 5]
    plain = PixelFeatures(sigmas=(1.0,))(np.full_like(colors, 100))[5, 5]
    per_channel = np.abs(features - plain)[: 5 * 5].reshape(5, 5).max(axis=1)
    np.testing.assert_allclose(per_channel[:2], 30, rtol=1e-5)
    np.testing.assert_allclose(per_channel[2:], 0, atol=1e-4)


def test_first_features_are_lab():
    colors = random_colors((6, 8))
    features = PixelFeatures(sigmas=())(colors)
    np.testing.assert_allclose(features, rgb2lab(colors.astype(float) / 255), atol=1e-2)


def test_gray_is_the_lightness_of_gray():
    gray = random_colors((6, 8), 1)
    lab = perceptual_colors(np.repeat(gray, 3, axis=-1))
    np.testing.assert_array_equal(perceptual_colors(gray)[..., 0], lab[..., 0])
    np.testing.assert_allclose(lab[..., 1:], 0, atol=0.02)


def test_smoothing_equals_the_gaussian():
    """The response to one point is the Gaussian itself."""
    point = np.zeros((41, 41), np.float32)
    point[20, 20] = 1000.0
    smooth = gaussian_response(point, 3.0, (1.0, 0.5)).smooth
    rows, columns = np.mgrid[-20:21, -20:21] * np.array([1.0, 0.5]).reshape(2, 1, 1)
    expected = 1000 * 0.5 / (2 * np.pi * 9) * np.exp(-(rows**2 + columns**2) / 18)
    np.testing.assert_allclose(smooth, expected, atol=0.01 * expected.max())


def test_gradient_of_a_ramp():
    """A ramp of 4 per unit of space at width 2 has the normalized gradient 8 in any spacing."""
    for spacing in ((1.0, 1.0), (0.5, 0.25)):
        ramp = np.broadcast_to(4 * spacing[1] * np.arange(60, dtype=np.float32), (50, 60))
        response = gaussian_response(ramp, 2.0, spacing)
        inner = np.s_[25, 28:32]
        np.testing.assert_allclose(response.gradient_magnitude()[inner], 8, rtol=1e-3)
        np.testing.assert_allclose(response.laplacian()[inner], 0, atol=1e-2)


@pytest.mark.parametrize("n", [2, 3])
def test_eigenvalues_equal_lapack(n):
    rng = np.random.default_rng(1)
    matrices = rng.normal(0, 50, (200, n, n))
    matrices += matrices.swapaxes(1, 2)
    matrices[0] = 0
    matrices[1] = 7 * np.eye(n)
    matrices[2] = np.diag([3.0, 3.0, -5.0][:n])
    entries = [matrices[:, i, j].astype(np.float32) for i in range(n) for j in range(i, n)]
    expected = np.linalg.eigvalsh(matrices)[:, ::-1]
    np.testing.assert_allclose(np.stack(symmetric_eigenvalues(entries), -1), expected, atol=0.05)


def test_structure_tensor_sees_one_direction_in_stripes():
    colors = np.zeros((40, 40, 1), np.float32)
    colors[:, ::4] = 200
    colors[:, 1::4] = 200
    across, along = PixelFeatures(sigmas=(1.0,))(colors)[20, 20, -2:]
    assert across > 5
    assert along == pytest.approx(0, abs=1e-3)


def test_structure_tensor_of_a_ramp():
    """The gradient has the smallest width, whatever the width of the average."""
    ramp = np.broadcast_to(2 * np.arange(60, dtype=np.float32)[:, None, None], (60, 50, 2))
    features = PixelFeatures(sigmas=(3.0, 1.5))(ramp)[30, 25, -4:]
    np.testing.assert_allclose(features, [2 * 1.5 * np.sqrt(2), 0] * 2, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("shape", [(60, 70), (26, 28, 30)])
def test_translation_moves_the_features(shape):
    colors = random_colors(shape)
    extract = PixelFeatures(sigmas=(1.0, 2.0))
    cut = (slice(1, None),) * len(shape)
    inner = (slice(10, -10),) * len(shape)  # far enough from the borders
    whole, cropped = extract(colors)[cut], extract(colors[cut])
    np.testing.assert_allclose(cropped[inner], whole[inner], rtol=1e-3, atol=1e-2)


def test_mirroring_and_transposing_commute():
    colors = random_colors((20, 31))
    extract = PixelFeatures(sigmas=(1.0, 2.0))
    features = extract(colors)
    for turn in (np.flipud, np.fliplr, lambda a: a.swapaxes(0, 1)):
        np.testing.assert_allclose(extract(turn(colors)), turn(features), rtol=1e-3, atol=1e-2)


def test_channels_are_permuted_with_the_image():
    colors = random_colors((14, 15), 4)
    extract = PixelFeatures(sigmas=(1.0, 2.0))
    n = width_of(4, 2, 2) - 4  # the last four features use all channels together
    features = extract(colors)[..., :n].reshape(14, 15, 4, -1)
    turned = extract(colors[..., ::-1])
    np.testing.assert_array_equal(turned[..., :n].reshape(features.shape), features[:, :, ::-1])
    np.testing.assert_allclose(turned[..., n:], extract(colors)[..., n:], rtol=1e-4, atol=1e-3)


def test_spacing_scales_the_widths():
    colors = random_colors((14, 15))
    features = PixelFeatures(sigmas=(2.0,))(colors, spacing=2.0)
    np.testing.assert_allclose(features, PixelFeatures(sigmas=(1.0,))(colors), rtol=1e-5, atol=1e-4)


def test_spacing_differs_by_axis():
    """Stretching the image and the spacing alike changes only the sampling."""
    fine = np.sin(np.linspace(0, 6, 120))[:, None] * np.cos(np.linspace(0, 5, 80))
    fine = (127 + 100 * fine).astype(np.float32)[..., None]
    extract = PixelFeatures(sigmas=(4.0,))
    coarse = extract(fine[::2], spacing=(2.0, 1.0))
    np.testing.assert_allclose(coarse[10:-10], extract(fine)[::2][10:-10], atol=0.3)


def test_position():
    features = PixelFeatures(sigmas=(), intensity=False, position=True)(random_colors((4, 5)))
    np.testing.assert_allclose(features[:, 2, 0], [0.125, 0.375, 0.625, 0.875])
    np.testing.assert_allclose(features[1, :, 1], [0.1, 0.3, 0.5, 0.7, 0.9])


@pytest.mark.parametrize(
    ("shape", "n_channels", "spacing", "sigmas"),
    [
        ((70, 95), 3, None, (1.0, 2.0, 4.0)),
        ((70, 95), 1, (0.5, 2.0), (3.0, 1.5)),
        ((24, 30, 40), 1, (2.0, 1.0, 0.7), (1.0, 2.0)),
        ((9, 11), 2, None, (8.0,)),  # the filters reach beyond the image
        ((1, 40), 2, None, (0.1, 1.0)),
        ((20, 30), 3, None, ()),
    ],
)
def test_parts_equal_the_whole(shape, n_channels, spacing, sigmas):
    """A part equals the crop of the whole, also for positions and for filters of short reach."""
    colors = random_colors(shape, n_channels)
    extract = PixelFeatures(sigmas=sigmas, position=True)
    whole = extract(colors, spacing)
    cuts = [[slice(0, n // 3), slice(n // 3, n // 3 + 2), slice(n // 3 + 2, n)] for n in shape]
    for box in product(*cuts):
        part = extract.part(colors, box, spacing)
        np.testing.assert_allclose(part, whole[box], rtol=1e-5, atol=1e-4)


def test_part_looks_no_further_than_its_filters_reach():
    """Pixels far away do not matter, even NaN."""
    colors = random_colors((60, 70))
    extract = PixelFeatures(sigmas=(1.0, 2.0))
    box = np.s_[10:20, 30:35]
    expected = extract(colors)[box]
    colors[31:], colors[:, :19], colors[:, 46:] = np.nan, np.nan, np.nan
    np.testing.assert_allclose(extract.part(colors, box), expected, rtol=1e-5, atol=1e-4)


def test_part_reads_slices_as_numpy_does():
    colors = random_colors((12, 13))
    extract = PixelFeatures(sigmas=(1.0,))
    for box in ((), np.s_[-4:,], np.s_[3:99, :-2], np.s_[5:5, 2:4]):
        part = extract.part(colors, box)
        np.testing.assert_allclose(part, extract(colors)[box], rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("box", [np.s_[::2, :], (slice(None),) * 3])
def test_bad_box(box):
    with pytest.raises(ValueError, match="box=.*expected at most 2 slices without steps"):
        PixelFeatures().part(np.zeros((4, 5, 1)), box)


def test_layout_does_not_matter_and_nothing_is_written():
    colors = random_colors((12, 13))
    extract = PixelFeatures(sigmas=(1.0,), position=True)
    features = extract(colors)
    before = colors.copy()
    colors.flags.writeable = False
    np.testing.assert_array_equal(clone(extract)(np.asfortranarray(colors)), features)
    np.testing.assert_array_equal(extract(colors.astype(np.float64)), features)
    np.testing.assert_array_equal(colors, before)


@pytest.mark.parametrize(
    ("colors", "options", "message"),
    [
        (np.zeros((4, 5)), {}, "colors has shape"),
        (np.full((4, 5, 1), np.inf), {}, "colors holds NaN or infinite"),
        (np.zeros((4, 5, 1)), {"sigmas": (1.0, -2.0)}, "sigmas=-2.0"),
        (np.zeros((4, 5, 1)), {"intensity": False, "sigmas": ()}, "nothing to compute"),
    ],
)
def test_bad_input(colors, options, message):
    with pytest.raises(ValueError, match=message):
        PixelFeatures(**options)(colors)


def test_bad_spacing():
    with pytest.raises(ValueError, match="spacing="):
        PixelFeatures()(np.zeros((4, 5, 1)), spacing=(1.0, 0.0))
