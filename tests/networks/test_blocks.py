"""Blocks of networks equal their formulas."""

import numpy as np
import pytest
import torch
from torch import nn

from hybridseg.networks import UNet
from hybridseg.networks.blocks import (
    ASPP,
    MAX_DEPTH,
    ImagePooling,
    PooledNorm,
    bilinear_upsampling,
    bn_prelu,
    check_counts,
    check_volumes,
    conv_bn_prelu,
    conv_bn_relu,
    double_conv,
    init_he,
    pad_to_multiple,
    resize,
    separable_bn_relu,
)


@pytest.mark.parametrize("kind", [torch.nn.Conv2d, torch.nn.ConvTranspose2d])
def test_weights_have_the_variance_of_he(kind):
    network = UNet(3, 2, width=32, depth=2)
    for module in network.modules():
        if type(module) is kind and module.weight.numel() > 5000:
            taps = 9 if kind is torch.nn.Conv2d else 1
            std = np.sqrt(2 / (module.in_channels * taps))
            assert abs(module.weight.std().item() / std - 1) < 0.05
            assert module.bias.abs().max() == 0


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (7, 9), (8, 16), (3, 5, 6)])
def test_padding_continues_to_the_next_multiple(size, training):
    images = torch.rand(2, 3, *size)
    found = pad_to_multiple(images, 4, training=training)
    sides = [-(-n // 4) * 4 for n in size]
    sides[-1] = max(sides[-1], 8) if training else sides[-1]
    assert tuple(found.shape) == (2, 3, *sides)
    nearest = found
    for axis, (side, n) in enumerate(zip(sides, size, strict=True), start=2):
        nearest = nearest.index_select(axis, torch.arange(side).clamp(max=n - 1))
    assert torch.equal(found, nearest)  # the last values
    inside = found[(..., *(slice(0, n) for n in size))]
    assert torch.equal(inside, images)
    assert pad_to_multiple(found, 4, training=training) is found


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 2, 3, 4, 5)])
def test_resizing_keeps_constants_and_its_own_size(shape, align_corners):
    values = torch.rand(*shape)
    assert resize(values, shape[2:]) is values
    size = tuple(2 * n + 1 for n in shape[2:])
    found = resize(torch.full(shape, 2.0), size, align_corners=align_corners)
    torch.testing.assert_close(found, torch.full((*shape[:2], *size), 2.0))
    if align_corners:
        corners = (..., *(slice(None, None, n - 1) for n in size))
        expected = values[(..., *(slice(None, None, n - 1) for n in shape[2:]))]
        torch.testing.assert_close(resize(values, size, align_corners=True)[corners], expected)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_upsampling_begins_as_bilinear_interpolation(factor):
    """Outside the border the values are zero."""
    layer, values = bilinear_upsampling(3, factor), torch.rand(2, 3, 6, 7)
    found = layer(values)
    expected = resize(values, (6 * factor, 7 * factor))
    inside = (..., slice(factor, -factor), slice(factor, -factor))
    torch.testing.assert_close(found[inside], expected[inside])
    assert found.shape == expected.shape
    assert layer.weight.requires_grad
    assert not bilinear_upsampling(3, factor, learn=False).weight.requires_grad


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("build", [conv_bn_relu, conv_bn_prelu])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_convolutions_keep_the_size_or_divide_it(build, size, stride):
    found = build(4, 6, size, stride=stride, groups=2)(torch.rand(2, 4, 9, 12))
    assert found.shape == (2, 6, -(-9 // stride), 12 // stride)


def test_blocks_keep_the_size_whatever_their_dilation():
    images = torch.rand(2, 4, 9, 12)
    blocks = [
        *(conv_bn_relu(4, 5, dilation=rate) for rate in (1, 6)),
        *(separable_bn_relu(4, 5, dilation=rate) for rate in (1, 6)),
        *(ASPP(4, 5, (2, 12), separable=separable) for separable in (False, True)),
        *(double_conv(4, 5, batch_norm) for batch_norm in (False, True)),
        ImagePooling(4, 5),
    ]
    for block in blocks:
        assert block(images).shape == (2, 5, 9, 12)


def test_every_pixel_sees_the_mean_of_the_image():
    pooling, images = ImagePooling(4, 5).eval(), torch.rand(2, 4, 9, 12)
    found = pooling(images)
    assert torch.equal(found, found[..., :1, :1].expand_as(found))
    shuffled = images.flatten(2)[..., torch.randperm(108)].view_as(images)
    torch.testing.assert_close(pooling(shuffled), found)


def test_a_batch_of_one_is_normalized_by_the_running_statistics():
    norm, one, two = PooledNorm(3), torch.rand(1, 3, 1, 1), torch.rand(2, 3, 1, 1)
    plain = nn.BatchNorm2d(3)
    torch.testing.assert_close(norm(two), plain(two))
    kept = norm.running_mean.clone()
    found = norm(one)
    assert torch.equal(norm.running_mean, kept)
    torch.testing.assert_close(found, norm.eval()(one))


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.Conv3d])
def test_networks_of_he_keep_the_scale(kind):
    """The mean square of a linear layer's output is twice that of its input."""
    layer = kind(64, 64, 3, padding=0)
    init_he(layer)
    assert not layer.bias.any()
    values = torch.randn(1, 64, *([8] * (layer.weight.ndim - 2)))
    assert layer(values).square().mean().item() == pytest.approx(2, rel=0.15)
    init_he(norm := nn.BatchNorm2d(3))
    assert (norm.weight == 1).all()


def test_learned_slopes_begin_as_torchs():
    values = torch.randn(2, 3, 4, 5)
    expected = torch.nn.functional.prelu(nn.BatchNorm2d(3)(values), torch.tensor([0.25]))
    torch.testing.assert_close(bn_prelu(3)(values), expected)
    assert [name for name, _ in conv_bn_prelu(3, 2, act=False).named_children()] == ["conv", "bn"]


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True])
def test_counts_are_named(wrong):
    check_counts(in_channels=1, depth=MAX_DEPTH, n_classes=10**6)
    for name in ("in_channels", "depth"):
        with pytest.raises((TypeError, ValueError), match=f"{name}={wrong}"):
            check_counts(**{name: wrong})
    with pytest.raises(ValueError, match="depth=25"):
        check_counts(depth=MAX_DEPTH + 1)


def test_images_are_no_volumes():
    check_volumes(torch.rand(1, 2, 3, 4, 5), "UNet3D")
    with pytest.raises(
        ValueError, match=r"UNet3D expects volumes \(B, C, D, H, W\), but its input has shape \(1,"
    ):
        check_volumes(torch.rand(1, 2, 3, 4), "UNet3D")
