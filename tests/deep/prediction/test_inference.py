"""Scores of images of any size: in tiles, in views, at the size that a network needs."""

import numpy as np
import pytest
import torch
from torch import nn

from hybridseg import PretrainedSegmenter
from hybridseg.deep.prediction.inference import Inference
from hybridseg.networks import UNet
from hybridseg.unary import Views
from tests.deep.subjects import IMAGES, LABELS, quick, same_as

CLASSES = np.arange(3)


pytestmark = pytest.mark.usefixtures("one_torch_thread")


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
    """Takes images of one size only, as transformers with a position embedding do."""

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


def test_images_smaller_than_the_tile_are_continued_by_their_last_values():
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
        (8, 8, "overlap=8, but tile=8; expected an overlap"),
        (None, 8, "overlap=8, but tile=None; .* pass the size of the tiles"),
        (None, 0, "overlap=0, but tile=None"),
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
