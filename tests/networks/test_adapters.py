"""Networks of other libraries, wrapped in a line, do as ours do."""

import copy
import pickle
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision import models
from torchvision.models import segmentation

from hybridseg.networks import ENCODERS, ESPNet, ESPNetv2, adapt, encoder, input_statistics
from hybridseg.networks.statistics import READY
from tests.networks.foreign import tiny_segformer

SIZES = [(1, 1), (37, 50), (64, 96)]


def of_torchvision():
    build = segmentation.lraspp_mobilenet_v3_large
    return adapt(build(weights=None, weights_backbone=None, num_classes=4))


def of_torchvision_with_auxiliary_scores():
    build = segmentation.deeplabv3_mobilenet_v3_large
    return adapt(build(weights=None, weights_backbone=None, num_classes=4, aux_loss=True))


def of_smp():
    smp = pytest.importorskip("segmentation_models_pytorch")
    theirs = smp.Unet(
        "mobilenet_v2", encoder_weights=None, decoder_channels=(16, 8, 8, 8, 8), classes=4
    )
    return adapt(theirs, multiple_of=32)


def of_transformers():
    return adapt(tiny_segformer(4), multiple_of=32)


LIBRARIES = [of_torchvision, of_torchvision_with_auxiliary_scores, of_smp, of_transformers]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("build", LIBRARIES)
def test_models_of_other_libraries_give_logits_of_any_size(build, size):
    network = build().eval()
    with torch.inference_mode():
        logits = network(torch.rand(1, 3, *size))
    assert logits.shape == (1, 4, *size)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("build", LIBRARIES)
def test_models_of_other_libraries_are_trained_and_copied(build):
    network = build().train()
    logits = network(torch.rand(2, 3, 64, 64))
    functional.cross_entropy(logits, torch.zeros(2, 64, 64, dtype=torch.long)).backward()
    assert any(p.grad is not None and p.grad.any() for p in network.network.parameters())
    network.eval()
    images = torch.rand(1, 3, 33, 40)
    with torch.inference_mode():
        expected = network(images)
        assert torch.equal(copy.deepcopy(network)(images), expected)
        # transformers hangs functions on its modules that cannot be pickled, once they have run
        again = network if build is of_transformers else pickle.loads(pickle.dumps(network))
        assert torch.equal(again(images), expected)


def test_what_fits_is_passed_through_unchanged():
    inner = segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4
    ).eval()
    images = torch.rand(1, 3, 32, 64)
    with torch.inference_mode():
        assert torch.equal(adapt(inner)(images), inner(images)["out"])


class Recorder(nn.Module):
    """Gives the image itself back, in a wrapping, and keeps it."""

    def __init__(self, wrap=lambda images: images):
        super().__init__()
        self.wrap = wrap

    def forward(self, images):
        self.seen = images
        return self.wrap(images)


def test_images_are_standardised_and_turned_for_weights_from_elsewhere():
    inner = Recorder()
    images = 255 * torch.rand(2, 3, 5, 7)
    adapt(inner, mean=(10, 20, 30), std=(2, 4, 8), reverse_channels=True)(images)
    for channel, (mean, std) in enumerate([(10, 2), (20, 4), (30, 8)]):
        torch.testing.assert_close(inner.seen[:, channel], (images[:, 2 - channel] - mean) / std)
    adapt(inner, std=255.0)(images)
    torch.testing.assert_close(inner.seen, images / 255)
    adapt(inner)(images)
    assert inner.seen is images


def test_what_standardises_asks_for_colors_as_they_are(tmp_path):
    torch.save(models.mobilenet_v3_small(weights=None).state_dict(), tmp_path / "small.pth")
    pretrained = encoder("mobilenet_v3_small", weights=tmp_path / "small.pth")
    assert input_statistics(adapt(pretrained, mean=1.0)) == ((0.0,), (1.0,))
    assert input_statistics(adapt(pretrained)) == input_statistics(pretrained)
    assert input_statistics(adapt(Recorder())) is None


@pytest.mark.parametrize("multiple", [1, 4, 32])
def test_sides_become_multiples_and_the_rest_is_cut_off(multiple):
    inner = Recorder()
    images = torch.rand(1, 2, 5, 33)
    logits = adapt(inner, multiple_of=multiple).eval()(images)
    assert all(side % multiple == 0 for side in inner.seen.shape[2:])
    assert torch.equal(logits, images)
    rest = inner.seen[:, :, 5:, 33:]
    assert torch.equal(rest, images[:, :, -1:, -1:].expand_as(rest))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda images: {"out": images, "aux": images[:, :1]},
        lambda images: {"logits": images},
        lambda images: (images, images[:, :1]),
        lambda images: [images],
    ],
)
def test_logits_are_found_in_what_libraries_wrap_them_in(wrap):
    images = torch.rand(1, 2, 5, 7)
    assert torch.equal(adapt(Recorder(wrap))(images), images)


def test_coarse_logits_are_interpolated():
    images = torch.rand(1, 2, 16, 24)
    found = adapt(Recorder(lambda images: images[..., ::4, ::4]))(images)
    expected = functional.interpolate(images[..., ::4, ::4], size=(16, 24), mode="bilinear")
    assert torch.equal(found, expected)


def test_volumes_are_standardised_padded_and_interpolated():
    inner = Recorder(lambda volumes: {"out": volumes[..., ::2, ::2, ::2]})
    volumes = 255 * torch.rand(1, 3, 6, 5, 9)
    found = adapt(inner, multiple_of=4, mean=(10, 20, 30), std=2.0, reverse_channels=True)(volumes)
    assert inner.seen.shape == (1, 3, 8, 8, 12)
    expected = (volumes.flip(1) - torch.tensor([10, 20, 30]).reshape(1, 3, 1, 1, 1)) / 2
    torch.testing.assert_close(inner.seen[:, :, :6, :5, :9], expected)
    coarse = inner.seen[..., ::2, ::2, ::2]
    expected = functional.interpolate(coarse, size=(8, 8, 12), mode="trilinear")
    assert torch.equal(found, expected[:, :, :6, :5, :9])
    with pytest.raises(ValueError, match=r"shape .* expected logits \(B, L, D, H, W\)"):
        adapt(Recorder(lambda volumes: volumes[:, :, 0]))(volumes)


def test_another_output_is_told():
    network = adapt(Recorder(lambda images: {"a": images, "b": 1}), output=lambda found: found["a"])
    images = torch.rand(1, 2, 5, 7)
    assert torch.equal(network(images), images)


@pytest.mark.parametrize(
    ("wrap", "match"),
    [
        (lambda images: {"a": 1, "b": 2}, "gives a dict with 'a', 'b'; expected .* Pass output="),
        (lambda images: None, "Recorder gives a NoneType; expected a tensor"),
        (lambda images: images.mean((2, 3)), r"shape \(1, 2\); expected logits \(B, L, H, W\)"),
    ],
)
def test_outputs_without_logits_are_refused(wrap, match):
    with pytest.raises(ValueError, match=match):
        adapt(Recorder(wrap))(torch.rand(1, 2, 5, 7))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"multiple_of": 0}, "multiple_of=0; expected"),
        ({"mean": float("nan")}, "mean=nan; expected a number"),
        ({"std": (1.0, 0.0, 1.0)}, r"std=\(1.0, 0.0, 1.0\); expected numbers > 0"),
        ({"mean": [[1.0]]}, "mean=.*; expected a number, or one number for each channel"),
    ],
)
def test_impossible_adaptations_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        adapt(Recorder(), **options)


def test_what_is_no_module_is_refused():
    with pytest.raises(TypeError, match="network is a function; expected a torch.nn.Module"):
        adapt(lambda images: images)


# The scale of mean and deviation

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
IMAGENET_255 = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}


def seen_by(**options):
    """What a network sees of white, grey and black, of which colours are 0..255."""
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
def test_statistics_of_colors_up_to_one_are_told_apart(options):
    """The line that torchvision's users write; with the range that it is meant for, it is taken."""
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
        ({"mean": IMAGENET_255["mean"], "std": IMAGENET["std"]}, "would see numbers up to 6"),
    ],
)
def test_statistics_of_other_scales_are_told(options, match):
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
    """Torchvision's own preparation of images is the judge."""
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
            "say no mean and deviation",
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


# What networks end in


@pytest.mark.parametrize("axes", [2, 3])
def test_a_softmax_or_sigmoid_at_the_end_is_undone(axes):
    logits = 3 * torch.randn(2, 4, *(5, 6, 7)[:axes])
    found = adapt(Recorder(lambda images: {"out": images.softmax(1)}), output="proba")(logits)
    torch.testing.assert_close(found.softmax(1), logits.softmax(1))
    found = adapt(Recorder(torch.sigmoid), output="sigmoid")(logits)
    torch.testing.assert_close(found, logits, atol=1e-2, rtol=1e-3)
    for wrap, output in ((torch.sigmoid, "sigmoid"), (lambda images: images, "binary")):
        found = adapt(Recorder(wrap), output=output)(logits[:, :1])
        torch.testing.assert_close(found.softmax(1)[:, 1:], logits[:, :1].sigmoid())
    certain = torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1).expand(1, 2, 3, 3)
    for output in ("proba", "sigmoid"):
        assert torch.isfinite(adapt(Recorder(), output=output)(certain)).all()
    with pytest.raises(ValueError, match="output='binary', but the network gives 4 outputs"):
        adapt(Recorder(), output="binary")(logits)
