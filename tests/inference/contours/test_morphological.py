"""Morphological snakes equal scikit-image's after every iteration."""

from itertools import cycle

import numpy as np
import pytest
from skimage import data, segmentation
from skimage.segmentation import morphsnakes

from hybridseg.inference import morphological_chan_vese, morphological_geodesic_active_contour
from hybridseg.inference.contours.morphological import _percentile


@pytest.fixture(autouse=True)
def first_call(monkeypatch):
    """Reset scikit-image's operators, which alternate across calls, to their first state."""

    def begin():
        turns = (
            lambda u: morphsnakes.sup_inf(morphsnakes.inf_sup(u)),
            lambda u: morphsnakes.inf_sup(morphsnakes.sup_inf(u)),
        )
        monkeypatch.setattr(morphsnakes._curvop, "funcs", cycle(turns))

    begin()
    return begin


def images():
    rng = np.random.default_rng(0)
    yield data.camera()[100:300:2, 50:400]
    yield (data.coins()[:150, :129] / 255.0).astype(np.float32)
    yield rng.normal(5, 2, (33, 64))
    yield rng.integers(0, 1 << 16, (41, 200)).astype(np.uint16)
    yield rng.random((9, 31, 66)).astype(np.float32)
    yield rng.random((2, 2))


IMAGES = list(images())
NAMES = ["uint8", "float32", "float64", "uint16", "volume", "tiny"]


@pytest.mark.parametrize("smoothing", [0, 1, 2, 3])
@pytest.mark.parametrize("image", IMAGES, ids=NAMES)
def test_regions_equal_scikit_image_after_every_iteration(image, smoothing):
    history = []
    options = {"smoothing": smoothing, "lambda1": 1.3, "lambda2": 0.9}
    segmentation.morphological_chan_vese(
        image, 10, iter_callback=lambda u: history.append(u.copy()), **options
    )
    for n_iter, expected in enumerate(history):
        found = morphological_chan_vese(image, n_iter, **options)
        np.testing.assert_array_equal(found.labels, expected)
        assert found.n_iter <= n_iter


@pytest.mark.parametrize("init", ["disk", "checkerboard"])
@pytest.mark.parametrize("balloon", [-1, -0.5, 0, 1])
@pytest.mark.parametrize("image", IMAGES, ids=NAMES)
def test_contours_equal_scikit_image_after_every_iteration(image, balloon, init):
    scaled = image / np.asarray(image).max()
    edges = segmentation.inverse_gaussian_gradient(scaled, sigma=1.5).astype(
        image.dtype if image.dtype.kind == "f" else float
    )
    history = []
    segmentation.morphological_geodesic_active_contour(
        edges, 8, init, 1, balloon=balloon, iter_callback=lambda u: history.append(u.copy())
    )
    for n_iter, expected in enumerate(history):
        found = morphological_geodesic_active_contour(edges, n_iter, init, balloon=balloon)
        np.testing.assert_array_equal(found.labels, expected)


def test_stopping_early_changes_nothing(first_call):
    image = data.coins()[:120, :140]
    for n_iter in (60, 61):
        first_call()
        found = morphological_chan_vese(image, n_iter, smoothing=1)
        assert found.converged
        assert found.n_iter < n_iter
        expected = segmentation.morphological_chan_vese(image, n_iter, smoothing=1)
        np.testing.assert_array_equal(found.labels, expected)


def test_thin_volume_needs_to_be_said():
    volume = np.random.default_rng(0).random((6, 7, 3))
    result = morphological_chan_vese(volume, 3, spatial_ndim=3)
    assert result.labels.shape == volume.shape


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_threshold_is_the_percentile_to_the_last_bit(rng, dtype):
    for n in (1, 2, 3, 8, 64, 401, 5000):
        fields = [rng.normal(0, 10.0**power, n) for power in (-8, 0, 8)]
        fields += [rng.integers(0, 4, n), np.zeros(n), 1 - rng.random(n) ** 9]
        if dtype == np.float64:
            fields += [rng.normal(0, 1, n) * 1e-250, rng.normal(0, 1, n) * 1e250]
        for field in fields:
            values = field.astype(dtype)
            assert _percentile(values[np.newaxis], 40) == np.percentile(values, 40)
