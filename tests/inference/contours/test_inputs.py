"""The inputs that all contours of images accept and refuse."""

import numpy as np
import pytest

from hybridseg.inference import (
    chan_vese,
    morphological_chan_vese,
    morphological_geodesic_active_contour,
)


@pytest.mark.parametrize("value", [0, 7])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 6)])
def test_constant_and_thin_images(shape, value):
    image = np.full(shape, value, np.uint8)
    before = image.copy()
    assert np.isfinite(chan_vese(image).level_set).all()
    for init in ("checkerboard", "disk", "small disk"):
        assert np.isfinite(chan_vese(image, init=init, max_iter=3).energies).all()
    assert morphological_chan_vese(image, 5).labels.shape == shape
    assert morphological_geodesic_active_contour(image, 5, balloon=1).labels.shape == shape
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("function", "arguments", "options", "match"),
    [
        (morphological_chan_vese, (np.zeros((5, 6, 3)), 1), {}, "image has shape .*rgb2gray"),
        (morphological_chan_vese, (np.zeros(5), 1), {}, "expected gray values"),
        (morphological_chan_vese, (np.full((5, 6), np.nan), 1), {}, "image holds NaN"),
        (morphological_chan_vese, (np.zeros((5, 6), complex), 1), {}, "image has dtype complex"),
        (morphological_chan_vese, (np.zeros((5, 6)), 1.5), {}, "n_iter=1.5"),
        (morphological_chan_vese, (np.zeros((5, 6)), -1), {}, "n_iter=-1"),
        (morphological_chan_vese, (np.zeros((5, 6)), 1), {"smoothing": -1}, "smoothing=-1"),
        (morphological_chan_vese, (np.zeros((5, 6)), 1), {"lambda1": -1}, "lambda1=-1"),
        (morphological_chan_vese, (np.zeros((5, 6)), 1, "ring"), {}, "init='ring'"),
        (morphological_chan_vese, (np.zeros((5, 6)), 1, np.ones((6, 5))), {}, "init has shape"),
        (
            morphological_geodesic_active_contour,
            (np.zeros((5, 6)), 1),
            {"threshold": "low"},
            "threshold='low'",
        ),
        (chan_vese, (np.zeros((5, 6, 7)),), {}, r"expected gray values \(H, W\)"),
        (chan_vese, (np.zeros((5, 6)),), {"dtype": int}, "dtype=.*float32"),
        (chan_vese, (np.zeros((5, 6)),), {"dt": 0}, "dt=0"),
        (chan_vese, (np.zeros((5, 6)),), {"mu": -0.1}, "mu=-0.1"),
        (chan_vese, (np.zeros((5, 6)),), {"init": np.full((5, 6), np.inf)}, "init holds NaN"),
    ],
)
def test_bad_input_is_named(function, arguments, options, match):
    with pytest.raises((TypeError, ValueError), match=match):
        function(*arguments, **options)
