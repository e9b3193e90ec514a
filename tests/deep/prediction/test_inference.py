"""Inference: tiles, views, calibration, uncertainty."""

import numpy as np
import pytest
import torch
from torch import nn

from hybridseg import DeepSegmenter, PretrainedSegmenter
from hybridseg.deep.prediction.calibration import fit_temperature
from hybridseg.deep.prediction.inference import Inference
from hybridseg.deep.prediction.tiles import blend_weights, tile_shape, tile_windows
from hybridseg.deep.prediction.uncertainty import with_dropout
from hybridseg.metrics import expected_calibration_error
from hybridseg.networks import UNet
from hybridseg.unary import Uncertainty, Views
from tests.deep.subjects import IMAGES, LABELS, quick

CLASSES = np.arange(3)


pytestmark = pytest.mark.usefixtures("one_torch_thread")


def fitted(network_options=None, **changes):
    settings = {
        "network_options": network_options or {"width": 4, "depth": 1},
        "max_epochs": 6,
        "crops_per_image": 4,
        "batch_size": 2,
        "crop_size": 16,
        "lr": 1e-2,
        "random_state": 0,
    }
    return DeepSegmenter(**(settings | changes)).fit(IMAGES, LABELS)


@pytest.fixture(scope="module")
def model(one_torch_thread):
    return fitted()


def same_as(model, **changes):
    twin = DeepSegmenter(**model.get_params())
    twin.__dict__.update(vars(model))
    return twin.set_params(**changes)


# Tiles


def convolutions(radius, ndim=2):
    """A network whose receptive field reaches ``radius`` pixels in each direction."""
    kind = {2: nn.Conv2d, 3: nn.Conv3d}[ndim]
    torch.manual_seed(0)
    return nn.Sequential(
        *(layer for _ in range(radius) for layer in (kind(3, 3, 3, padding=1), nn.Tanh()))
    ).eval()


@pytest.mark.parametrize(
    ("shape", "tile", "overlap"),
    [
        *[((50, 70), 32, 16), ((33, 32), 32, 16), ((24, 90), (24, 32), 16), ((64, 70), 64, None)],
        *[((20, 25, 18), (16, 20, 17), 12), ((64, 30), (64, 17), 16)],
    ],
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_tiles_give_what_the_whole_image_gives(shape, tile, overlap, batch_size):
    """The receptive field reaches no further than the outer quarter of the overlap."""
    radius = (16 if overlap is None else overlap) // 4
    module = convolutions(radius, len(shape))
    image = torch.randn(3, *shape)
    whole = Inference().scores(module, image, CLASSES)
    tiled = Inference(tile=tile, overlap=overlap, batch_size=batch_size)
    torch.testing.assert_close(tiled.scores(module, image, CLASSES), whole, rtol=1e-5, atol=1e-6)


def test_tiles_of_a_network_with_strides():
    """The last tile begins 72 and 44 pixels from the start: multiples of the network's stride."""
    torch.manual_seed(0)
    module, image = UNet(3, 3, width=4, depth=2).eval(), torch.randn(3, 200, 172)
    whole = Inference().scores(module, image, CLASSES)
    tiled = Inference(tile=128, overlap=96).scores(module, image, CLASSES)
    torch.testing.assert_close(tiled, whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tile", [(7, 9), (1, 1), (40, 5), (64, 64)])
@pytest.mark.parametrize("overlap", [None, 0])
def test_windows_cover_every_pixel_and_weights_are_positive(tile, overlap):
    shape = (40, 23)
    sizes, margins = tile_shape(tile, overlap, shape)
    total = torch.zeros(shape)
    for window in tile_windows(shape, sizes, margins):
        found = blend_weights(window, shape, margins)
        assert tuple(found.shape) == tuple(part.stop - part.start for part in window)
        assert found.min() >= 0
        total[window] += found
    assert total.min() > 0


def test_tiles_bound_what_the_network_sees():
    seen = []

    class Spy(nn.Module):
        def forward(self, images):
            seen.append(tuple(images.shape))
            return images

    Inference(tile=32, overlap=8, batch_size=2).scores(Spy(), torch.zeros(3, 100, 90), CLASSES)
    assert max(np.prod(shape[2:]) for shape in seen) <= 32 * 32
    assert max(shape[0] for shape in seen) == 2


class OneSize(nn.Module):
    """Takes pictures of one size only, as transformers with a position embedding do."""

    def __init__(self, size, n_outputs=3):
        super().__init__()
        self.embedding = nn.Parameter(torch.randn(3, *size, generator=torch.manual_seed(0)))
        kind = {2: nn.Conv2d, 3: nn.Conv3d}[len(size)]
        self.last = kind(3, n_outputs, 1)

    def forward(self, images):
        return self.last(images + self.embedding)


@pytest.mark.parametrize(
    ("tile", "shapes"),
    [
        ((16, 16), [(16, 16), (17, 31), (5, 40), (40, 5), (3, 3), (100, 33)]),
        ((8, 6, 7), [(8, 6, 7), (9, 13, 20), (2, 30, 5), (1, 1, 1)]),
    ],
)
@pytest.mark.parametrize("overlap", [None, 0, 5])
@pytest.mark.parametrize("views", [None, Views(scales=(0.7, 1.0), mirror=(-2, -1))])
def test_networks_of_one_input_size_work_with_tiles(tile, shapes, overlap, views):
    torch.manual_seed(0)
    module = OneSize(tile).eval()
    inference = Inference(tile=tile, overlap=overlap, batch_size=3, tta=views)
    for shape in shapes:
        found = inference.scores(module, torch.randn(3, *shape), CLASSES)
        assert tuple(found.shape) == (3, *shape)
        assert torch.isfinite(found).all()


@pytest.mark.parametrize("shape", [(37, 50), (9, 50), (37, 4), (9, 4), (16, 16)])
@pytest.mark.parametrize("overlap", [None, 0, 3])
def test_every_window_has_the_tiles_size_and_lies_inside(shape, overlap):
    sizes, margins = tile_shape((16, 12), overlap, shape)
    inside = tuple(map(max, shape, sizes))
    for window in tile_windows(inside, sizes, margins):
        for part, size, extent in zip(window, sizes, inside, strict=True):
            assert (part.stop - part.start, part.stop <= extent) == (size, True)


def test_pictures_smaller_than_the_tile_are_continued_by_their_last_values():
    module, image = convolutions(2), torch.randn(3, 9, 30)
    padded = nn.functional.pad(image[None], (0, 0, 0, 7), mode="replicate")[0]
    whole = Inference().scores(module, padded, CLASSES)[:, :9]
    tiled = Inference(tile=(16, 20), overlap=8).scores(module, image, CLASSES)
    torch.testing.assert_close(tiled, whole, rtol=1e-5, atol=1e-6)


def test_a_segmenter_trains_and_predicts_with_a_network_of_one_input_size():
    network = OneSize((16, 16))
    small = [image[::3, ::3] for image in IMAGES], [labels[::3, ::3] for labels in LABELS]
    for X, y in ((IMAGES, LABELS), small):
        model = quick(
            network=network, network_options=None, tile=16, tta="mirror", validation=0.3
        ).fit(X, y)
        for found, labels in zip(model.predict(X), y, strict=True):
            assert found.shape == labels.shape
    pretrained = PretrainedSegmenter(network, range(3), tile=16)
    assert pretrained.predict([IMAGES[0][:5]])[0].shape == (5, 32)


def test_predictions_in_tiles(model):
    whole = model.predict_proba(IMAGES)
    tiled = same_as(model, tile=16, overlap=8).predict_proba(IMAGES)
    for one, other in zip(whole, tiled, strict=True):
        assert np.abs(one - other).mean() < 0.05
        np.testing.assert_allclose(other.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("tile", "overlap", "match"),
    [
        ((8, 8, 8), None, r"tile=\(8, 8, 8\); .* 2 axes"),
        ((8, 0), None, r"tile=\(8, 0\)"),
        (8, 8, "overlap=8 is not smaller than tile=8"),
        (None, 8, "overlap=8 without tile; pass the size of the tiles"),
        (None, 0, "overlap=0 without tile"),
    ],
)
def test_tiles_mistakes_are_named(model, tile, overlap, match):
    with pytest.raises(ValueError, match=match):
        same_as(model, tile=tile, overlap=overlap).predict(IMAGES)


# Test-time augmentation


@pytest.mark.parametrize("average", ["proba", "log_proba"])
@pytest.mark.parametrize("mirror", [(), (-1,), (-2, -1)])
def test_views_of_a_network_that_sees_single_pixels_change_nothing(mirror, average):
    module, image = nn.Conv2d(3, 3, 1).eval(), torch.randn(3, 12, 17)
    plain = torch.log_softmax(Inference().scores(module, image, CLASSES), dim=0)
    views = Views(mirror=mirror, average=average)
    found = Inference(tta=views).scores(module, image, CLASSES)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)


def test_views_average_what_they_say():
    torch.manual_seed(0)
    module, image = convolutions(2), torch.randn(3, 12, 17)

    def log_proba(view):
        with torch.inference_mode():
            return torch.log_softmax(module(view[None])[0], dim=0)

    logs = [log_proba(image), log_proba(image.flip(-1)).flip(-1)]
    expected = torch.stack([each.exp() for each in logs]).mean(dim=0).log()
    found = Inference(tta=Views()).scores(module, image, CLASSES)
    torch.testing.assert_close(found, expected)
    found = Inference(tta=Views(average="log_proba")).scores(module, image, CLASSES)
    torch.testing.assert_close(found, torch.stack(logs).mean(dim=0))


def test_scales_and_volumes():
    image = torch.randn(3, 9, 10, 11)
    views = Views(scales=(0.5, 1.0, 1.5), mirror=(-3, -1))
    assert len(views) == 12
    found = Inference(tta=views).scores(convolutions(1, 3), image, CLASSES)
    assert tuple(found.shape) == (3, 9, 10, 11)
    torch.testing.assert_close(found.exp().sum(dim=0), torch.ones(9, 10, 11))


def test_predictions_with_views(model):
    expected = model.predict(IMAGES)
    for tta in ("mirror", Views(scales=(0.75, 1.0, 1.25), mirror=(-2, -1))):
        for one, other in zip(same_as(model, tta=tta).predict(IMAGES), expected, strict=True):
            assert np.mean(one == other) > 0.8


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"scales": ()}, "scales is empty"),
        ({"scales": (0.0,)}, "a scale of scales=0.0"),
        ({"mirror": (0,)}, r"mirror=\(0,\); expected different axes counted from the last"),
        ({"mirror": (-1, -1)}, r"mirror=\(-1, -1\)"),
        ({"average": "max"}, "average='max'"),
    ],
)
def test_views_mistakes_are_named(wrong, match):
    with pytest.raises(ValueError, match=match):
        Views(**wrong)


# Calibration


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_of_known_noise_is_found(temperature):
    generator = torch.Generator().manual_seed(0)
    scores = 2 * torch.randn(20_000, 4, generator=generator)
    labels = torch.multinomial(scores.softmax(dim=1), 1, generator=generator)[:, 0]
    assert fit_temperature(scores * temperature, labels) == pytest.approx(temperature, rel=0.05)


def test_calibration_keeps_the_labels_and_lowers_the_error(model):
    """The labels are drawn from the network's own probabilities, made less certain."""
    sure, rng = same_as(model), np.random.default_rng(1)
    flat = [scene.unary / 4 for scene in sure.transform(IMAGES)]
    noisy = [(each + rng.gumbel(size=each.shape) * -1).argmin(axis=-1) for each in flat]
    before = sure.predict(IMAGES)
    error = expected_calibration_error(noisy, sure.predict_proba(IMAGES))
    sure.calibrate(IMAGES, noisy)
    assert sure.temperature_ == pytest.approx(4, rel=0.15)
    assert sure.calibration_error_[0] == pytest.approx(error, rel=1e-3)
    assert sure.calibration_error_[1] < error / 2
    found = expected_calibration_error(noisy, sure.predict_proba(IMAGES))
    assert found == pytest.approx(sure.calibration_error_[1], rel=1e-3)
    for one, other in zip(sure.predict(IMAGES), before, strict=True):
        np.testing.assert_array_equal(one, other)
    once = sure.temperature_
    assert sure.calibrate(IMAGES, noisy).temperature_ == pytest.approx(once, rel=1e-3)
    assert model.temperature_ == 1


@pytest.mark.parametrize("what", ["wrong", "right"])
def test_a_temperature_at_its_bound_warns(model, what):
    sure = same_as(model)
    costs = [scene.unary for scene in sure.transform(IMAGES)]
    labels = [each.argmin(-1) if what == "wrong" else each.argmax(-1) for each in costs]
    with pytest.warns(UserWarning, match=f"is at its bound: .* hardly ever {what}"):
        sure.calibrate(IMAGES, labels)


def test_calibration_needs_known_labels(model):
    with pytest.raises(ValueError, match=r"no pixel of the classes \[0, 1, 2\]"):
        same_as(model).calibrate(IMAGES, [each + 7 for each in LABELS])


# Uncertainty


def test_dropout_is_sampled():
    model = fitted({"width": 8, "depth": 1, "dropout": 0.5})
    first, second = (model.predict_uncertainty(IMAGES[:2], n_samples=8) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.entropy, other.entropy)
        assert one.proba.shape == (*one.entropy.shape, 3)
        assert (one.mutual_information >= 0).all()
        assert one.mutual_information.max() > 1e-4
        assert (one.mutual_information <= one.entropy + 1e-6).all()
    plain = model.predict_proba(IMAGES[:1])[0]
    np.testing.assert_array_equal(model.predict_proba(IMAGES[:1])[0], plain)


@pytest.mark.parametrize(
    "layer", [nn.Dropout, nn.Dropout2d, nn.AlphaDropout, nn.FeatureAlphaDropout]
)
def test_every_layer_that_drops_is_sampled_as_torch_does(layer):
    """What is dropped becomes one value, in whole channels or not, and moments are as torch's."""
    module = nn.Sequential(nn.BatchNorm2d(256), layer(0.25)).eval()
    generator = torch.Generator().manual_seed(0)
    noisy = with_dropout(module, generator)
    assert not any(part.training for part in (*noisy.modules(), *module.modules()))
    assert type(module[1]) is layer
    features = torch.randn(4, 256, 8, 8, generator=torch.Generator().manual_seed(1))
    before, found = torch.get_rng_state(), noisy(features)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expected = layer(0.25)(module[0](features))
    dropped, theirs = (each.flatten().mode().values for each in (found, expected))
    torch.testing.assert_close(dropped, theirs)
    for each in (found, expected):
        gone = torch.isclose(each, dropped)
        assert gone.float().mean().item() == pytest.approx(0.25, abs=0.05)
        whole = gone.flatten(2).all(2) | (~gone).flatten(2).all(2)
        assert whole.float().mean() > 0.99 or layer in (nn.Dropout, nn.AlphaDropout)
    torch.testing.assert_close(found.std(), expected.std(), rtol=0.05, atol=0.02)
    assert not torch.equal(noisy(features), found)
    generator.manual_seed(0)
    assert torch.equal(noisy(features), found)


def test_dropout_must_be_there(model):
    with pytest.raises(ValueError, match="UNet has no dropout to sample from"):
        model.predict_uncertainty(IMAGES)


def test_uncertainty_of_an_ensemble():
    certain, split = np.eye(2)[[0, 1]], np.array([[1.0, 0.0], [0.5, 0.5]])
    found = Uncertainty.of([certain, np.array([[0.0, 1.0], [0.0, 1.0]])])
    np.testing.assert_allclose(found.proba, [[0.5, 0.5], [0, 1]])
    np.testing.assert_allclose(found.entropy, [np.log(2), 0], atol=1e-6)
    np.testing.assert_allclose(found.mutual_information, [np.log(2), 0], atol=1e-6)
    alike = Uncertainty.of([split, split])
    np.testing.assert_allclose(alike.entropy, [0, np.log(2)], atol=1e-6)
    np.testing.assert_allclose(alike.mutual_information, [0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("predictions", "match"),
    [
        ([], "predictions is empty"),
        ([np.eye(2), np.eye(3)], r"predictions\[1\] has shape \(3, 3\), but .* \(2, 2\)"),
        ([np.eye(2), np.eye(2)[:1]], r"predictions\[1\] has shape \(1, 2\)"),
        ([np.ones((4, 2))], r"predictions\[0\] holds no probabilities"),
        ([np.array([[1.5, -0.5]])], r"predictions\[0\] holds no probabilities"),
        ([np.full((4, 2), np.nan)], r"predictions\[0\] holds no probabilities"),
        ([np.float64(1)], r"predictions\[0\] holds no probabilities"),
    ],
)
def test_ensembles_mistakes_are_named(predictions, match):
    with pytest.raises(ValueError, match=match):
        Uncertainty.of(predictions)
