import traceback

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from hybridseg.networks.encoders import ENCODERS, encoder, spread_weights
from hybridseg.networks.published import read_state

TINY = "mobilenet_v3_small"


@pytest.mark.parametrize("name", sorted(ENCODERS))
@pytest.mark.parametrize("output_stride", [8, 32])
def test_features_have_the_strides_and_channels_that_are_stated(name, output_stride):
    if name.startswith("resnet") and name not in ("resnet18", "resnet50"):
        pytest.skip("the same code as resnet18 and resnet50, only deeper")
    network = encoder(name, output_stride=output_stride).eval()
    with torch.inference_mode():
        features = network(torch.rand(1, 3, 64, 96))
    assert network.strides == tuple(min(s, output_stride) for s in (2, 4, 8, 16, 32))
    for feature, channels, stride in zip(features, network.channels, network.strides, strict=True):
        assert feature.shape == (1, channels, 64 // stride, 96 // stride)


@pytest.mark.parametrize(("output_stride", "dilate"), [(8, [0, 1, 1]), (16, [0, 0, 1])])
def test_holes_are_those_of_torchvision(tmp_path, output_stride, dilate):
    dilate = [bool(flag) for flag in dilate]
    theirs = models.resnet50(weights=None, replace_stride_with_dilation=dilate).eval()
    torch.save(theirs.state_dict(), tmp_path / "resnet50.pth")
    ours = encoder("resnet50", weights=tmp_path / "resnet50.pth", output_stride=output_stride)
    images = torch.rand(1, 3, 64, 64)
    with torch.inference_mode():
        found = ours.eval()(images)[-1]
        expected = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
        for layer in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
            expected = layer(expected)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("in_channels", [1, 3, 5])
def test_weights_are_read_from_a_file(tmp_path, suffix, in_channels):
    state = models.mobilenet_v3_small(weights=None).state_dict()
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    network = encoder(TINY, in_channels, weights=path)
    first, *_, last = (m for m in network.modules() if isinstance(m, torch.nn.Conv2d))
    expected = state["features.0.0.weight"]
    if in_channels != 3:
        expected = spread_weights(expected, in_channels)
    torch.testing.assert_close(first.weight, expected)
    torch.testing.assert_close(last.weight, state["features.12.0.weight"])


def test_gray_images_see_the_sum_and_more_channels_take_turns():
    weight = torch.rand(4, 3, 2, 2)
    gray = torch.rand(1, 1, 8, 8)
    conv = torch.nn.functional.conv2d
    colored = conv(gray.expand(1, 3, 8, 8), weight)
    torch.testing.assert_close(conv(gray, spread_weights(weight, 1)), colored)
    five = spread_weights(weight, 5)
    torch.testing.assert_close(five, weight[:, [0, 1, 2, 0, 1]] * 0.6)
    six = spread_weights(weight, 6)
    torch.testing.assert_close(conv(gray.expand(1, 6, 8, 8), six), colored)


def test_weights_that_do_not_fit_are_refused(tmp_path):
    path = tmp_path / "other.pth"
    torch.save(models.mobilenet_v3_small(weights=None).state_dict(), path)
    with pytest.raises(ValueError, match="does not fit resnet18: .* tensors are missing"):
        encoder("resnet18", weights=path)
    with pytest.raises(
        ValueError, match="is neither a file nor a name of torchvision's weights for resnet18"
    ):
        encoder("resnet18", weights="IMAGENET21K")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"name": "resnet19"}, "encoder='resnet19'"),
        ({"output_stride": 4}, "output_stride=4; expected 8, 16 or 32"),
        ({"in_channels": 0}, "in_channels=0; expected"),
    ],
)
def test_impossible_encoders_are_refused(options, match):
    with pytest.raises(ValueError, match=match):
        encoder(**({"name": TINY} | options))


class Whole(torch.nn.Module):
    """An object that torch can read only by running code."""


@pytest.mark.parametrize(
    ("name", "write", "match"),
    [
        ("text.pth", lambda path: path.write_text("# weights"), "cannot be read as a state dict"),
        ("empty.pth", lambda path: path.write_bytes(b""), "cannot be read as a state dict"),
        (
            "cut.pth",
            lambda path: path.write_bytes(b"PK\x03\x04 cut"),
            "cannot be read as a state dict",
        ),
        ("module.pth", lambda path: torch.save(Whole(), path), "not a whole module"),
        ("list.pth", lambda path: torch.save([1], path), "holds a list; expected a state dict"),
        ("a.safetensors", lambda path: path.write_text("no"), "cannot be read as safetensors"),
    ],
)
def test_files_that_hold_no_weights(tmp_path, name, write, match):
    write(tmp_path / name)
    with pytest.raises(ValueError, match=match) as raised:
        read_state(tmp_path / name)
    assert "weights_only" not in "".join(traceback.format_exception(raised.value))
