"""Level sets equal scikit-image's after every iteration; LevelSet keeps what Scenes promise."""

from itertools import cycle

import numpy as np
import pytest
from skimage import data, segmentation
from skimage.segmentation import morphsnakes

from hybridseg import LevelSet, PixelClassifier, Scene
from hybridseg.datasets import load_photos
from hybridseg.inference import (
    chan_vese,
    morphological_chan_vese,
    morphological_geodesic_active_contour,
)
from hybridseg.inference.contours.active_contours import _percentile
from hybridseg.metrics import mean_iou


@pytest.fixture(autouse=True)
def first_call(monkeypatch):
    """scikit-image's operators take turns across calls; ours begin as its first call does."""

    def begin():
        turns = (
            lambda u: morphsnakes.sup_inf(morphsnakes.inf_sup(u)),
            lambda u: morphsnakes.inf_sup(morphsnakes.sup_inf(u)),
        )
        monkeypatch.setattr(morphsnakes._curvop, "funcs", cycle(turns))

    begin()
    return begin


def pictures():
    rng = np.random.default_rng(0)
    yield data.camera()[100:300:2, 50:400]
    yield (data.coins()[:150, :129] / 255.0).astype(np.float32)
    yield rng.normal(5, 2, (33, 64))
    yield rng.integers(0, 1 << 16, (41, 200)).astype(np.uint16)
    yield rng.random((9, 31, 66)).astype(np.float32)
    yield rng.random((2, 2))


PICTURES = list(pictures())
NAMES = ["uint8", "float32", "float64", "uint16", "volume", "tiny"]


@pytest.mark.parametrize("smoothing", [0, 1, 2, 3])
@pytest.mark.parametrize("image", PICTURES, ids=NAMES)
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
@pytest.mark.parametrize("image", PICTURES, ids=NAMES)
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


@pytest.mark.parametrize("init", ["checkerboard", "disk", "small disk", "array"])
def test_chan_vese_equals_scikit_image(init):
    image = data.camera()[::4, ::3]
    if init == "array":
        init = np.random.default_rng(0).normal(0, 2, image.shape)
    for n_iter in (1, 2, 25):
        labels, level_set, energies = segmentation.chan_vese(
            image, mu=0.2, lambda1=1.2, max_num_iter=n_iter, init_level_set=init,
            extended_output=True,
        )  # fmt: skip
        found = chan_vese(image, mu=0.2, lambda1=1.2, n_iter=n_iter, init=init)
        np.testing.assert_allclose(found.level_set, level_set, rtol=1e-10, atol=1e-10)
        np.testing.assert_array_equal(found.labels, labels)
        np.testing.assert_allclose(found.energies[:-1], energies, rtol=1e-11)
        assert found.n_iter == len(energies)


def test_chan_vese_stops_where_scikit_image_stops():
    image = data.coins()[:100, :120]
    expected = segmentation.chan_vese(image, tol=5e-3, extended_output=True)
    found = chan_vese(image, tol=5e-3)
    assert found.converged
    assert found.n_iter == len(expected[2]) < 500
    assert found.energies[-1] < found.energies[0]
    inside = image[found.labels == 1].mean() - image.min()
    assert found.means[1] == pytest.approx(inside / np.ptp(image))


def test_chan_vese_in_float32_is_close():
    image = data.coins()
    double, single = (chan_vese(image, n_iter=20, dtype=t) for t in (np.float64, np.float32))
    assert single.level_set.dtype == np.float32
    np.testing.assert_allclose(single.level_set, double.level_set, atol=1e-3)
    assert np.count_nonzero(single.labels != double.labels) <= 1e-4 * image.size
    np.testing.assert_allclose(single.energies, double.energies, rtol=1e-5)
    assert chan_vese(image.astype(np.float32), n_iter=1).level_set.dtype == np.float32


def test_chan_vese_without_energy_finds_the_same():
    image = data.coins()[:60, :70]
    with_it, without = (chan_vese(image, n_iter=5, with_energy=e) for e in (True, False))
    np.testing.assert_array_equal(with_it.level_set, without.level_set)
    assert (len(with_it.energies), without.energies) == (6, ())


@pytest.mark.parametrize("value", [0, 7])
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 6)])
def test_constant_and_thin_pictures(shape, value):
    image = np.full(shape, value, np.uint8)
    before = image.copy()
    assert np.isfinite(chan_vese(image).level_set).all()
    for init in ("checkerboard", "disk", "small disk"):
        assert np.isfinite(chan_vese(image, init=init, n_iter=3).energies).all()
    assert morphological_chan_vese(image, 5).labels.shape == shape
    assert morphological_geodesic_active_contour(image, 5, balloon=1).labels.shape == shape
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("function", "arguments", "options", "match"),
    [
        (morphological_chan_vese, (np.zeros((5, 6, 3)), 1), {}, "image has shape .*rgb2gray"),
        (morphological_chan_vese, (np.zeros(5), 1), {}, "expected grey values"),
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
        (chan_vese, (np.zeros((5, 6, 7)),), {}, r"expected grey values \(H, W\)"),
        (chan_vese, (np.zeros((5, 6)),), {"dtype": int}, "dtype=.*float32"),
        (chan_vese, (np.zeros((5, 6)),), {"dt": 0}, "dt=0"),
        (chan_vese, (np.zeros((5, 6)),), {"mu": -0.1}, "mu=-0.1"),
        (chan_vese, (np.zeros((5, 6)),), {"init": np.full((5, 6), np.inf)}, "init holds NaN"),
    ],
)
def test_bad_input_is_named(function, arguments, options, match):
    with pytest.raises((TypeError, ValueError), match=match):
        function(*arguments, **options)


def test_thin_volume_needs_to_be_said():
    volume = np.random.default_rng(0).random((6, 7, 3))
    result = morphological_chan_vese(volume, 3, spatial_ndim=3)
    assert result.labels.shape == volume.shape


def noisy_scene(shape=(40, 50), n_labels=2, seed=0, **known):
    """Two or three bands, costs that are wrong at single pixels, and the truth."""
    rng = np.random.default_rng(seed)
    truth = np.broadcast_to(np.arange(shape[-1]) * n_labels // shape[-1], shape)
    logits = 2.0 * np.eye(n_labels)[truth] + rng.gumbel(size=(*shape, n_labels))
    image = (truth * 90 + rng.integers(0, 20, shape)).astype(np.uint8)
    return Scene.from_logits(image, logits, spatial_ndim=len(shape), **known), truth


@pytest.mark.parametrize("edge_weight", [0.0, 50.0])
@pytest.mark.parametrize(("shape", "n_labels"), [((40, 50), 2), ((48, 60), 3), ((9, 24, 30), 2)])
def test_costs_with_noise_become_regions(shape, n_labels, edge_weight):
    scene, truth = noisy_scene(shape, n_labels)
    before = (scene.unary.argmin(axis=-1) == truth).mean()
    labels = LevelSet(smoothing=2, sigma=2.0, edge_weight=edge_weight).predict([scene])[0]
    assert before < 0.95
    assert (labels == truth).mean() > 0.98


def test_seeds_are_held():
    seeds = np.full((40, 50), -1)
    seeds[10, 5], seeds[20, 45] = 1, 0
    scene, _ = noisy_scene(seeds=seeds)
    labels = LevelSet().predict([scene])[0]
    assert (labels[10, 5], labels[20, 45]) == (1, 0)


def test_more_seeds_of_three_labels_are_held_and_unknown_ones_refused():
    seeds = np.full((40, 51), -1)
    seeds[10, 5], seeds[20, 45], seeds[0, 0] = 2, 0, 1
    scene, _ = noisy_scene((40, 51), 3, seeds=seeds)
    labels = LevelSet().predict([scene])[0]
    assert (labels[seeds >= 0] == seeds[seeds >= 0]).all()
    with pytest.raises(ValueError, match="seeds holds the label 9"):
        LevelSet().predict([scene.replace(seeds=np.full((40, 51), 9))])[0].sum()


def test_what_lies_under_invalid_pixels_does_not_matter():
    valid = np.ones((40, 50), bool)
    valid[5:20, 15:35] = False
    scene, _ = noisy_scene(valid=valid)
    unary, image = scene.unary.copy(), scene.image.copy()
    unary[~valid] = np.random.default_rng(1).normal(0, 100, unary[~valid].shape)
    image[~valid] = 255
    other = scene.replace(unary=unary, image=image)
    labels, others = (LevelSet().predict([s])[0] for s in (scene, other))
    np.testing.assert_array_equal(labels, others)


def test_spacing_says_how_wide_the_average_is():
    scene, _ = noisy_scene((30, 40))
    plain = LevelSet(sigma=2.0, edge_sigma=1.0).predict([scene])[0]
    wide = LevelSet(sigma=6.0, edge_sigma=3.0).predict([scene.replace(spacing=3.0)])[0]
    np.testing.assert_array_equal(plain, wide)


def test_a_pixel_forest_on_a_photograph_of_two_classes_gains():
    photo = load_photos("coins")
    segmenter = PixelClassifier().fit(photo.images, photo.scribbles)
    scenes = segmenter.transform(photo.images)
    before = mean_iou(photo.truth, segmenter.predict(photo.images))
    after = mean_iou(
        photo.truth, LevelSet(smoothing=2, sigma=2.0, edge_weight=50.0).predict(scenes)
    )
    assert after > before + 0.03


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
