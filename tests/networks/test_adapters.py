"""A single call adapts networks of other libraries to the conventions of this package."""

import copy
import pickle

import pytest
import torch
from torch.nn import functional
from torchvision import models
from torchvision.models import segmentation

from hybridseg.networks import adapt, encoder, input_statistics
from tests.networks.foreign import Recorder, tiny_segformer

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
        # after a run, modules of transformers hold functions that cannot be pickled
        again = network if build is of_transformers else pickle.loads(pickle.dumps(network))
        assert torch.equal(again(images), expected)


def test_inputs_that_fit_pass_unchanged():
    inner = segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4
    ).eval()
    images = torch.rand(1, 3, 32, 64)
    with torch.inference_mode():
        assert torch.equal(adapt(inner)(images), inner(images)["out"])


def test_images_are_standardized_and_turned_for_weights_from_elsewhere():
    inner = Recorder()
    images = 255 * torch.rand(2, 3, 5, 7)
    adapt(inner, mean=(10, 20, 30), std=(2, 4, 8), reverse_channels=True)(images)
    for channel, (mean, std) in enumerate([(10, 2), (20, 4), (30, 8)]):
        torch.testing.assert_close(inner.seen[:, channel], (images[:, 2 - channel] - mean) / std)
    adapt(inner, std=255.0)(images)
    torch.testing.assert_close(inner.seen, images / 255)
    adapt(inner)(images)
    assert inner.seen is images


def test_what_standardizes_asks_for_colors_as_they_are(tmp_path):
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


def test_volumes_are_standardized_padded_and_interpolated():
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
        (lambda images: {"a": 1, "b": 2}, "returns a dict with 'a', 'b'; expected .* Pass output="),
        (lambda images: None, "Recorder returns a NoneType; expected a tensor"),
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


def test_objects_that_are_no_modules_are_refused():
    with pytest.raises(TypeError, match="network is a function; expected a torch.nn.Module"):
        adapt(lambda images: images)


# Outputs of networks


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
    with pytest.raises(ValueError, match="output='binary', but the network has 4 outputs"):
        adapt(Recorder(), output="binary")(logits)
