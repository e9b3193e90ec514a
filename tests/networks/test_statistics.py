"""Means and standard deviations of the inputs that networks expect."""

import types

import numpy as np
import pytest
import torch
from torchvision import models
from torchvision.models import segmentation

from hybridseg.networks import ENCODERS, ESPNet, ESPNetv2, adapt, input_statistics
from hybridseg.networks.statistics import READY
from tests.networks.foreign import Recorder

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


IMAGENET_255 = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}


def seen_by(**options):
    """The input of a network for white, gray and black pixels with colors in 0..255."""
    inner = Recorder()
    images = torch.tensor([255.0, 128.0, 0.0]).expand(1, 3, 1, 3)
    adapt(inner, **options)(images)
    return inner.seen


@pytest.mark.parametrize(
    "options",
    [
        IMAGENET,
        {"mean": 0.5, "std": 0.5},
        {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "reverse_channels": True},
        {"std": 0.25},
        {"mean": IMAGENET["mean"]},
        {"mean": np.float32(0.1307), "std": torch.tensor(0.3081)},
    ],
)
def test_statistics_of_colors_up_to_one_warn(options):
    """Users of torchvision write these options, which are right for inputs in 0..1."""
    with pytest.warns(UserWarning, match=r"0\.\.255, but .* Pass input_range=\(0, 1\) with them"):
        adapt(Recorder(), **options)
    assert seen_by(**options, input_range=(0, 1)).abs().max() < 5


def test_the_warning_names_the_numbers_to_pass():
    with pytest.warns(UserWarning, match=r"mean=\(123.675, 116.28, 103.53\), std=\(58.395, 57.12"):
        adapt(Recorder(), **IMAGENET)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (IMAGENET_255 | {"input_range": (0, 1)}, "0..1, but a mean lies outside"),
        ({"mean": 30000.0, "std": 8000.0}, "0..255, but a mean lies outside"),
        ({"mean": -300.0, "std": 500.0}, "0..255, but a mean lies outside"),
        ({"mean": IMAGENET_255["mean"], "std": IMAGENET["std"]}, "would reach 6"),
    ],
)
def test_statistics_of_other_scales_warn(options, match):
    with pytest.warns(UserWarning, match=match):
        adapt(Recorder(), **options)


@pytest.mark.parametrize(
    "options",
    [
        IMAGENET_255,
        IMAGENET | {"input_range": (0, 1)},
        {"mean": 0.5, "std": 0.5, "input_range": [0, 1]},
        {"input_range": (-1, 1)},
        {"std": 255.0},
        {"mean": 0.0, "std": 1.0},
        {"mean": (103.939, 116.779, 123.68)},
        {"mean": (0.48235, 0.45882, 0.40784), "std": 1 / 255, "input_range": (0, 1)},
        *ESPNet.inputs.values(),
        *ESPNetv2.inputs.values(),
        *({"statistics": name} for name in (*READY, *ENCODERS)),
    ],
)
def test_statistics_of_the_scale_that_comes_are_taken_silently(options):
    adapt(Recorder(), **options)


def test_statistics_that_are_ready():
    """The expected inputs come from torchvision's own transform."""
    expected = functional_of_torchvision()
    weights = segmentation.FCN_ResNet50_Weights.DEFAULT
    smp = {**IMAGENET, "input_range": [0, 1], "input_space": "RGB"}
    processor = types.SimpleNamespace(image_mean=list(IMAGENET["mean"]), image_std=IMAGENET["std"])
    timm = {"input_size": (3, 224, 224), **IMAGENET}
    sources = ["imagenet", "resnet18", weights, str(weights), smp, timm, processor, IMAGENET_255]
    for source in sources:
        torch.testing.assert_close(seen_by(statistics=source), expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(input_statistics(source)[0], IMAGENET_255["mean"])
        torch.testing.assert_close(input_statistics(source)[1], IMAGENET_255["std"])
    torch.testing.assert_close(seen_by(**IMAGENET, input_range=(0, 1)), expected)
    vgg = models.VGG16_Weights.IMAGENET1K_FEATURES
    torch.testing.assert_close(input_statistics(vgg)[1], (1.0, 1.0, 1.0))
    assert adapt(Recorder(), statistics="caffe").reverse_channels
    assert adapt(Recorder(), statistics=smp | {"input_space": "BGR"}).reverse_channels
    assert seen_by(input_range=(-1, 1))[0, 0, 0].tolist() == pytest.approx([1, 1 / 255, -1])


def functional_of_torchvision():
    preset = segmentation.FCN_ResNet50_Weights.DEFAULT.transforms(resize_size=None)
    return preset(torch.tensor([255, 128, 0], dtype=torch.uint8).expand(1, 3, 1, 3))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"statistics": "imagnet"}, ValueError, "statistics='imagnet'; expected one of 'imagenet'"),
        ({"statistics": 3}, TypeError, "statistics is a int; expected a name"),
        ({"statistics": {"mean": 1}}, ValueError, "a mapping with 'mean' and 'std'"),
        ({"statistics": "imagenet", "std": 2.0}, ValueError, "expected one or the other"),
        ({"input_range": 1}, ValueError, r"input_range=1; expected the two numbers \(black, white"),
        ({"input_range": (1, 0)}, ValueError, "input_range=.*; expected the two numbers"),
        ({"output": "softmax"}, ValueError, "output='softmax'; expected one of 'binary', 'proba'"),
        (
            {"statistics": models.detection.RetinaNet_ResNet50_FPN_Weights.DEFAULT},
            ValueError,
            "has no mean and standard deviation",
        ),
    ],
)
def test_statistics_that_are_none_are_refused(options, error, match):
    with pytest.raises(error, match=match):
        adapt(Recorder(), **options)


def test_modules_that_ask_for_statistics_of_another_scale_are_told():
    module = Recorder()
    module.input_mean, module.input_std = (0.5,), (0.25,)
    with pytest.warns(UserWarning, match=r"mean=127.5, std=63.75"):
        input_statistics(module)
