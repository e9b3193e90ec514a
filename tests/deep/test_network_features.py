"""Principal components of a network's features, for the kernel of a dense CRF."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import StandardScaler

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from hybridseg import CRF, DeepFeatures, DenseCRF, Scene, load, save  # noqa: E402
from hybridseg.deep import NetworkFeatures, kept_maps, network_features  # noqa: E402
from hybridseg.features import PixelFeatures  # noqa: E402
from hybridseg.learning import Learner  # noqa: E402
from hybridseg.pairwise import FeatureKernel, GaussianKernel  # noqa: E402
from hybridseg.scene.deferred import ValueCache  # noqa: E402
from tests.subjects import halves, pixels  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")

#: Features of a small network with random weights.
SMALL = DeepFeatures("mobilenet_v3_small", weights=None, strides=(2, 4), classical=False)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No map of an earlier test is used."""
    monkeypatch.setattr(kept_maps, "_CACHE", ValueCache(budget=2**20))


@pytest.fixture
def images(rng):
    return [rng.integers(0, 256, shape, dtype=np.uint8) for shape in ((20, 30, 3), (26, 17, 3))]


def layer(channels=3, width=7):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.Tanh())


def rows_of(model, images):
    return np.concatenate([model(image.astype(float)).reshape(-1, 3) for image in images])


def test_components_are_those_of_whitened_pca_on_standardized_features(images):
    model = NetworkFeatures(SMALL, n_components=3, feature_width=0.25).fit(images)
    raw = np.concatenate(
        [SMALL(image.astype(float)).reshape(-1, SMALL(image * 1.0).shape[-1]) for image in images]
    )
    scaler = StandardScaler().fit(raw.astype(np.float64))
    pca = PCA(3, whiten=True).fit(scaler.transform(raw.astype(np.float64)))
    expected = pca.transform(scaler.transform(raw)) / 0.25
    found = rows_of(model, images)
    signs = np.sign((expected * found).sum(axis=0))
    np.testing.assert_allclose(found, expected * signs, atol=0.02)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(found.std(axis=0), 4, rtol=1e-3)
    np.testing.assert_allclose(
        model.explained_variance_ratio_, pca.explained_variance_ratio_, rtol=1e-4
    )


def test_the_scales_and_offsets_of_features_do_not_matter(images):
    def one(colors):
        return PixelFeatures(sigmas=(1.0,))(colors)

    factors = np.random.default_rng(0).uniform(0.1, 100, 17)

    def other(colors):
        return one(colors) * factors + 3 * factors

    found = [
        rows_of(NetworkFeatures(each, n_components=3).fit(images), images) for each in (one, other)
    ]
    np.testing.assert_allclose(found[0], found[1], atol=0.01)


def test_positions_are_those_of_a_gaussian_kernel(images):
    for spacing in ((1.0, 1.0), (2.0, 0.5)):
        model = NetworkFeatures(SMALL, n_components=2, position_width=3.0).fit(images)
        colors = images[0].astype(np.float32)
        found = model(colors, spacing)
        assert found.shape == (20, 30, 4)
        places = GaussianKernel(1.0, 3.0).embed(colors, spacing)
        np.testing.assert_allclose(found[..., 2:].reshape(-1, 2), places, rtol=1e-6)
        np.testing.assert_array_equal(
            found[..., :2], clone(model).set_params(position_width=None).fit(images)(colors)
        )


def test_maps_of_a_module_are_upsampled(images):
    module = layer().train()
    model = NetworkFeatures(module, n_components=7).fit(images)
    found = model(images[0].astype(float))
    with torch.inference_mode():
        maps = module(torch.from_numpy(images[0]).float().movedim(-1, 0)[None])
        whole = nn.functional.interpolate(maps, (20, 30), mode="bilinear")[0].movedim(0, -1)
    expected = (whole.numpy() - model.mean_) @ model.projection_ / 0.5
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert module.training


def test_planes_of_volumes_pass_one_by_one(rng):
    volume = rng.integers(0, 256, (3, 12, 14), dtype=np.uint8)
    scene = Scene(volume, spatial_ndim=3)
    model = NetworkFeatures(layer(1), n_components=2, position_width=2.0).fit([scene])
    found = model(volume[..., np.newaxis] * 1.0, (4.0, 1.0, 1.0))
    assert found.shape == (3, 12, 14, 5)
    flat = NetworkFeatures(layer(1), n_components=2).fit([scene])
    for plane, expected in zip(volume, found, strict=True):
        np.testing.assert_allclose(flat(plane[..., np.newaxis] * 1.0), expected[..., :2], rtol=1e-5)
    np.testing.assert_allclose(found[:, 0, 0, 4], [0, 2, 4])


def test_images_are_divided_if_the_features_can_be(images, monkeypatch):
    model = NetworkFeatures(SMALL, n_components=3).fit(images)
    whole = model(images[0].astype(float))
    monkeypatch.setattr(network_features, "_MAX_PART_PIXELS", 100)
    monkeypatch.setattr(kept_maps, "_CACHE", ValueCache(budget=0))
    np.testing.assert_allclose(model(images[0].astype(float)), whole, rtol=1e-3, atol=1e-3)
    again = clone(model).fit(images)
    np.testing.assert_allclose(again.projection_, model.projection_, rtol=1e-2, atol=1e-3)


def test_invalid_pixels_are_not_sampled(images):
    valid = np.ones((20, 30), bool)
    valid[:, 15:] = False
    spoilt = images[0].copy()
    spoilt[:, 15:] = 255

    def colors_as_features(colors):
        return colors

    scene = Scene(spoilt, valid=valid)
    one = NetworkFeatures(colors_as_features, n_components=2).fit([scene])
    other = NetworkFeatures(colors_as_features, n_components=2).fit([images[0][:, :15]])
    np.testing.assert_allclose(one.projection_, other.projection_, rtol=1e-5)


def test_samples_come_from_all_images_and_repeat(images, rng):
    model = NetworkFeatures(SMALL, n_components=2, max_samples=50)
    one, other = clone(model).fit(images), clone(model).fit(images)
    np.testing.assert_array_equal(one.projection_, other.projection_)
    different = clone(model).set_params(random_state=1).fit(images)
    assert not np.array_equal(one.projection_, different.projection_)
    small, large = np.zeros((2, 3, 3), np.uint8), np.full((50, 60, 3), 200, np.uint8)
    large[:25] = rng.integers(0, 256, (25, 60, 3))
    small[0] = 90
    both = NetworkFeatures(lambda colors: colors, n_components=2, max_samples=12)
    means = both.fit([small, large]).mean_
    assert (means < 150).all()  # half of the samples are pixels of the small image


def test_components_are_kept_unless_the_network_or_the_image_changes(images):
    network, calls = layer().eval(), []
    network.register_forward_hook(lambda *_: calls.append(1))
    model = NetworkFeatures(network, n_components=2).fit(images)
    calls.clear()
    colors = images[0].astype(np.float32)
    first = model(colors)
    np.testing.assert_array_equal(model(colors), first)
    np.testing.assert_array_equal(model.set_params(feature_width=0.25)(colors), 2 * first)
    assert len(calls) == 1
    model(255 - colors)
    assert len(calls) == 2
    with torch.no_grad():
        network[0].weight.mul_(2)
    assert np.abs(model(colors) - 2 * first).max() > 1e-3
    assert len(calls) == 3


def test_dense_crfs_take_it_for_images_of_all_sizes(rng):
    """Halves of one color but another texture: only the features tell them apart."""

    def stripes(height, width):
        image = np.full((height, width), 128.0)
        half = width // 2
        image[:, half:] += 80 * (np.indices((height, width))[0][:, half:] % 2 * 2 - 1)
        return image.astype(np.uint8)

    images = [stripes(20, 30), stripes(26, 24)]
    truth = [(np.indices(image.shape)[1] >= image.shape[1] // 2).astype(int) for image in images]
    scenes = [
        Scene.from_logits(image, rng.normal(0, 1.5, (*image.shape, 2)) + np.eye(2)[labels])
        for image, labels in zip(images, truth, strict=True)
    ]
    features = NetworkFeatures(PixelFeatures(), n_components=2, feature_width=0.3).fit(images)
    plain = {"spatial_weight": 0.0, "bilateral_weight": 0.0}
    model = DenseCRF(kernels=[FeatureKernel(5.0, features)], **plain)
    wrong = [np.mean(a != b) for a, b in zip(model.predict(scenes), truth, strict=True)]
    before = [np.mean(s.prediction != b) for s, b in zip(scenes, truth, strict=True)]
    assert max(wrong) < 0.1 < min(before)


LEARNER = Learner("all", max_iter=4, cv=2, random_state=0, max_pixels=300)


@pytest.mark.parametrize("kind", ["DenseCRF", "CRF"])
def test_learning_changes_the_weight_and_keeps_the_features(kind, monkeypatch):
    images, labels = halves()
    features = NetworkFeatures(SMALL, n_components=2, position_width=8.0).fit(images)
    n_calls, components = [], NetworkFeatures._components

    def counted(self, colors, spacing):
        n_calls.append(colors.shape)
        return components(self, colors, spacing)

    monkeypatch.setattr(NetworkFeatures, "_components", counted)
    kernel = FeatureKernel(1.0, features)
    if kind == "DenseCRF":
        model = DenseCRF(pixels(), kernels=[kernel], learn=LEARNER, cv=2)
        name = "kernels"
    else:
        learner = clone(LEARNER).set_params(what="weights")
        model = CRF([kernel], estimator=pixels(), learn=learner, cv=2)
        name = "terms"
    model.fit(images, labels)
    (found,) = model.params_[name]
    assert isinstance(found, FeatureKernel)
    assert found.weight >= 0
    assert isinstance(found.features, NetworkFeatures)
    np.testing.assert_array_equal(found.features.projection_, features.projection_)
    # Each image is seen as a window to learn from, and as a whole to judge by.
    assert len(n_calls) <= 2 * len(images)
    predicted = model.predict(images)
    assert len(n_calls) <= 3 * len(images)
    assert all(one.shape == image.shape[:2] for one, image in zip(predicted, images, strict=True))


def test_a_model_is_saved_with_its_features(tmp_path):
    images, labels = halves()
    features = NetworkFeatures(SMALL, n_components=2).fit(images)
    model = DenseCRF(pixels(), kernels=[FeatureKernel(3.0, features)]).fit(images, labels)
    save(model, tmp_path / "model.hybridseg")
    again = load(tmp_path / "model.hybridseg")
    for one, other in zip(model.predict(images), again.predict(images), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_components": 0}, ValueError, "n_components=0; expected a number >= 1"),
        ({"n_components": 9}, ValueError, "n_components=9.*3 independent directions"),
        ({"feature_width": 0}, ValueError, "feature_width=0; expected a number > 0"),
        ({"position_width": -1}, ValueError, "position_width=-1; expected a number > 0"),
        ({"max_samples": 1}, ValueError, "max_samples=1; expected a number >= 2"),
        ({"features": "resnet"}, TypeError, "features='resnet'; expected a torch.nn.Module"),
        ({"features": nn.Flatten()}, ValueError, r"features\(images\) returns \(1, 1800\)"),
        ({"features": lambda c: c[..., 0]}, ValueError, r"features\(colors\) has shape \(20, 30\)"),
        ({"features": lambda c: c * np.nan}, ValueError, r"features\(colors\) holds NaN"),
    ],
)
def test_bad_parameters_are_named(images, options, error, message):
    model = NetworkFeatures(**({"features": lambda c: c, "n_components": 2} | options))
    with pytest.raises(error, match=message):
        model.fit(images)
    assert not hasattr(model, "projection_")


def test_bad_calls_are_named(images):
    model = NetworkFeatures(lambda colors: colors, n_components=2)
    with pytest.raises(NotFittedError, match="not fitted"):
        model(images[0])
    model.fit(images)
    with pytest.raises(ValueError, match="features has 1 columns for this image; expected 3"):
        model(images[0][..., :1])
