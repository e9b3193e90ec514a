"""Spacing: networks resample to one, or warn."""

import warnings

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom

from hybridseg import DeepSegmenter, PretrainedSegmenter, Scene
from hybridseg.deep.prediction.inference import Inference
from hybridseg.metrics import mean_iou
from hybridseg.unary import Views
from tests.deep.subjects import IMAGES, LABELS, quick
from tests.subjects import halves

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def scenes(*spacings):
    return [Scene(image, spacing=s) for image, s in zip(IMAGES, spacings, strict=False)]


@pytest.mark.parametrize("spacings", [(1, 2, 1), ((1, 1), (1, 1.2), None), (None, 3e-3, 1e-3)])
def test_training_images_of_several_spacings_warn(spacings):
    with pytest.warns(UserWarning, match=r"X\[.\] has spacing=.* Pass spacing=\(.* to the segm"):
        quick(max_epochs=1).fit(scenes(*spacings), LABELS)


@pytest.mark.parametrize("spacings", [(1, 1.03, 1), (None, 2, 2), (None,) * 3, ((3, 1),) * 3])
def test_one_spacing_does_not_warn(spacings):
    model = quick(max_epochs=1).fit(scenes(*spacings), LABELS)
    model.predict(IMAGES)
    for scene in model.transform(scenes(*spacings)):
        assert scene.unary.shape[-1] == 3
    quick(max_epochs=1, spacing=1.0).fit(scenes(*spacings), LABELS)


def test_predictions_at_another_spacing_warn():
    model = quick(max_epochs=1).fit(scenes(1, 1, 1), LABELS)
    assert model.spacing_ == (1, 1)
    with pytest.warns(UserWarning, match=r"has spacing=\(1, 2\), .* trained on \(1, 1\)"):
        model.predict(scenes((1, 2)))
    with pytest.warns(UserWarning, match=r"X\[0\] has spacing=\(3, 3\)"):
        model.partial_fit(scenes(3, 3, 3), LABELS)
    plain = quick(max_epochs=1).fit(IMAGES, LABELS)
    assert plain.spacing_ is None
    plain.predict(scenes((1, 2)))


def test_volumes_of_another_spacing_warn():
    X, y = halves(((10, 12, 14), (8, 10, 12)), channels=1)
    volumes = [Scene(image[..., 0], spacing=(3, 1, 1), spatial_ndim=3) for image in X]
    options = {"width": 4, "depth": 1}
    model = quick(network="unet3d", network_options=options, max_epochs=1).fit(volumes, y)
    with pytest.warns(UserWarning, match=r"has spacing=\(1, 1, 1\)"):
        model.predict([volumes[0].replace(spacing=1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resampling = quick(
            network="unet3d", network_options=options, max_epochs=1, spacing=(1, 1, 1)
        ).fit([volumes[0], volumes[1].replace(spacing=(2, 1, 1))], y)
        assert resampling.predict(volumes)[0].shape == y[0].shape


def test_pretrained_networks_resample_or_warn():
    seen = []

    class Spy(torch.nn.Module):
        def forward(self, images):
            seen.append(tuple(images.shape[2:]))
            return images

    plain = PretrainedSegmenter(Spy(), range(3))
    with pytest.warns(UserWarning, match=r"X\[1\] has spacing=\(2, 2\), but others have \(1, 1\)"):
        plain.transform(scenes(1, 2))
    assert len(plain.transform(scenes((1, 3), (1, 3), None))) == 3
    model = PretrainedSegmenter(Spy(), range(3), spacing=2.0)
    found = model.predict(scenes((1, 4), 2, None))
    assert [each.shape for each in found] == [labels.shape for labels in LABELS]
    assert seen == [(12, 64), (30, 22), (20, 26)]
    with pytest.raises(ValueError, match=r"spacing=\(1, 1, 1\); expected 2 positive numbers"):
        PretrainedSegmenter(Spy(), range(3), spacing=(1, 1, 1)).predict(IMAGES)


@pytest.mark.parametrize("unit", [1e-3, 1e6])
def test_a_network_at_a_spacing_does_not_depend_on_the_unit(unit):
    spacings = (1, (0.5, 1), (2, 1.5))
    expected, found = (
        quick(max_epochs=1, spacing=1.25 * by)
        .fit(
            [Scene(x, spacing=np.multiply(s, by)) for x, s in zip(IMAGES, spacings, strict=True)],
            LABELS,
        )
        .predict_proba([Scene(IMAGES[0], spacing=2 * by)])[0]
        for by in (1.0, unit)
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_network_sees_images_at_the_spacing_asked_for():
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self, in_channels, n_classes):
            super().__init__()
            self.last = torch.nn.Conv2d(in_channels, n_classes, 1)

        def forward(self, images):
            seen.append(tuple(images.shape[2:]))
            return self.last(images)

    model = quick(network=Spy, network_options=None, spacing=(2, 1), max_epochs=1)
    model.fit(scenes((1, 1), (1, 1), (4, 1)), LABELS)
    assert set(seen) == {(16, 16)}
    seen.clear()
    model.predict(scenes((1, 1), (2, 1), (1, 3)))
    assert seen == [(12, 32), (30, 22), (10, 78)]
    seen.clear()
    model.predict(IMAGES[:1])  # states no spacing
    assert seen == [(24, 32)]


def test_resampled_images_are_segmented_as_those_of_the_spacing_are():
    """Images with twice the spacing along the rows, and the same images at half the extent."""
    settings = {"max_epochs": 12, "crops_per_image": 8, "lr": 1e-2, "spacing": 1.0}
    coarse = [zoom(image, (0.5, 1, 1), order=1) for image in IMAGES]
    maps = [labels[::2] for labels in LABELS]
    model = quick(**settings, validation=0.3).fit([Scene(x, spacing=(2, 1)) for x in coarse], maps)
    assert model.score([Scene(x, spacing=1) for x in IMAGES], LABELS) > 0.7
    found = model.predict([Scene(x, spacing=(2, 1)) for x in coarse])
    assert mean_iou(maps, found) > 0.7


def test_scores_are_resampled_with_views_and_tiles():
    module, image = torch.nn.Conv2d(3, 2, 1).eval(), torch.randn(3, 12, 17)
    for views in (None, Views(scales=(0.5, 1.0))):
        for tile in (None, 8):
            inference = Inference(tile=tile, tta=views)
            found = inference.scores(module, image, np.arange(2), size=(30, 9))
            assert tuple(found.shape) == (2, 12, 17)


@pytest.mark.parametrize(
    ("spacing", "error", "match"),
    [
        ((1, 1, 1), ValueError, r"spacing=\(1, 1, 1\); expected 2 positive numbers"),
        (-1.0, ValueError, "spacing=-1.0; expected 2 positive numbers"),
        ("mm", ValueError, "'spacing' parameter"),
        (1e-5, ValueError, "in the same unit as the spacing of the Scenes"),
    ],
)
def test_spacings_mistakes_are_named(spacing, error, match):
    with pytest.raises(error, match=match):
        DeepSegmenter(spacing=spacing, crop_size=16).fit(scenes(1, 1, 1), LABELS)


def test_checkpoints_tell_spacings_apart(tmp_path):
    settings = {"checkpoint": tmp_path, "max_epochs": 1}
    quick(**settings, spacing=1.0).fit(scenes(1, 1, 1), LABELS)
    with pytest.raises(ValueError, match="holds another training: .*spacing"):
        quick(**settings, spacing=2.0).fit(scenes(1, 1, 1), LABELS)
