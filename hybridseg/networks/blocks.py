"""Parts that several networks share."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridseg.validation import check_number

#: The greatest depth: sizes and widths double with each level, and no image is larger than 2**24.
MAX_DEPTH = 24


def check_counts(**counts: int) -> None:
    """Refuse numbers of channels, classes or layers that are no integers >= 1, by their names."""
    for name, value in counts.items():
        maximum = MAX_DEPTH if name == "depth" else None
        check_number(value, name, minimum=1, maximum=maximum, integer=True)


def check_volumes(images: Tensor, network: str) -> None:
    """Refuse anything but a batch of volumes."""
    if images.ndim != 5:
        raise ValueError(
            f"{network} takes volumes (B, C, D, H, W), got shape {tuple(images.shape)}; for 2-D "
            f"images take a 2-D network, such as UNet."
        )


def pad_to_multiple(images: Tensor, stride: int, *, training: bool) -> Tensor:
    """Continue images ``(B, C, ...)`` at their ends by their last values, to multiples of a stride.

    Batch normalization cannot train on one value a channel: while training, there are at least two
    strides along the last axis.
    """
    sides = [-size % stride for size in images.shape[2:]]
    if training:
        sides[-1] = max(sides[-1], 2 * stride - images.shape[-1])
    if not any(sides):
        return images
    ends = [amount for side in reversed(sides) for amount in (0, side)]
    return functional.pad(images, ends, mode="replicate")


def resize(features: Tensor, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
    """Bring ``(B, C, H, W)`` or ``(B, C, D, H, W)`` to another spatial size, linearly."""
    if tuple(features.shape[2:]) == tuple(size):
        return features
    mode = {4: "bilinear", 5: "trilinear"}[features.ndim]
    return functional.interpolate(
        features, size=tuple(size), mode=mode, align_corners=align_corners
    )


def conv_bn_relu(
    in_channels: int,
    out_channels: int,
    size: int = 3,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    """A convolution that keeps the size (or divides it by the stride), batch norm., ReLU."""
    padding = dilation * (size - 1) // 2
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            out_channels,
            size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
            bias=False,
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def separable_bn_relu(in_channels: int, out_channels: int, *, dilation: int = 1) -> nn.Sequential:
    """A 3x3 convolution of each channel alone, one that mixes them, batch normalization, ReLU."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            in_channels,
            3,
            padding=dilation,
            dilation=dilation,
            groups=in_channels,
            bias=False,
        ),
        nn.Conv2d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


class PooledNorm(nn.BatchNorm2d):
    """Batch normalization of pooled features, which may be a single value a channel.

    A batch of one then has no variance, and the running statistics serve in its place.
    """

    def forward(self, features: Tensor) -> Tensor:
        if self.training and features[:, 0].numel() > 1:
            return super().forward(features)
        return functional.batch_norm(
            features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class ImagePooling(nn.Module):
    """The mean over the whole image, seen by every pixel."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            PooledNorm(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.project(features).expand(-1, -1, *features.shape[-2:])


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling of DeepLab v3 (section 3.3).

    One 1x1 convolution, 3x3 convolutions at several rates and the image's mean, side by side,
    each with batch normalization; then all are mixed.

    Parameters
    ----------
    in_channels, out_channels : int
    rates : sequence of int
        Dilations of the 3x3 convolutions.
    separable : bool
        Depthwise separable 3x3 convolutions (DeepLab v3+, section 3.1).
    dropout : float
        Share dropped after the mixing.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        rates: Sequence[int] = (6, 12, 18),
        *,
        separable: bool = False,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        atrous = separable_bn_relu if separable else conv_bn_relu
        self.branches = nn.ModuleList(
            [
                conv_bn_relu(in_channels, out_channels, 1),
                *(atrous(in_channels, out_channels, dilation=rate) for rate in rates),
                ImagePooling(in_channels, out_channels),
            ]
        )
        self.mix = nn.Sequential(
            conv_bn_relu(len(self.branches) * out_channels, out_channels, 1),
            nn.Dropout(dropout),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.mix(torch.cat([branch(features) for branch in self.branches], dim=1))


def bilinear_upsampling(channels: int, factor: int, *, learn: bool = True) -> nn.ConvTranspose2d:
    """A transposed convolution of each channel alone that begins as bilinear interpolation."""
    size = 2 * factor
    layer = nn.ConvTranspose2d(
        channels,
        channels,
        size,
        stride=factor,
        padding=factor // 2,
        groups=channels,
        bias=False,
    )
    taps = 1 - (torch.arange(size) - (size - 1) / 2).abs() / factor
    with torch.no_grad():
        layer.weight.copy_(taps[:, None] * taps)
    layer.weight.requires_grad_(learn)
    return layer


def init_he(module: nn.Module) -> None:
    """Gaussian weights of variance 2/N, N the inputs of one output; no bias.

    For ``network.apply(init_he)``. With it, ReLU networks without normalization keep the scale of
    their input (He et al., ICCV 2015).
    """
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        n_inputs = float(module.weight[0].numel())
    elif isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
        # one output sees each input channel through one tap in stride**ndim
        taps = math.prod(module.kernel_size) / math.prod(module.stride)
        n_inputs = module.in_channels // module.groups * max(1.0, taps)
    else:
        return
    nn.init.normal_(module.weight, std=math.sqrt(2.0 / n_inputs))
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def double_conv(in_channels: int, out_channels: int, batch_norm: bool = True) -> nn.Sequential:
    """Two 3x3 convolutions that keep the size, each with (batch normalization and) ReLU."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers.append(nn.Conv2d(channels, out_channels, kernel_size=3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(out_channels))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def bn_prelu(channels: int, *, eps: float = 1e-5) -> nn.Sequential:
    """Batch normalization, and a ReLU whose slope below zero is learned for each channel."""
    return nn.Sequential(OrderedDict(bn=nn.BatchNorm2d(channels, eps=eps), act=nn.PReLU(channels)))


def conv_bn_prelu(
    in_channels: int,
    out_channels: int,
    size: int = 3,
    *,
    stride: int = 1,
    groups: int = 1,
    act: bool = True,
    eps: float = 1e-5,
) -> nn.Sequential:
    """A convolution that keeps the size (or divides it by the stride), batch norm., PReLU."""
    convolution = nn.Conv2d(
        in_channels,
        out_channels,
        size,
        stride=stride,
        padding=size // 2,
        groups=groups,
        bias=False,
    )
    layers = OrderedDict(conv=convolution, bn=nn.BatchNorm2d(out_channels, eps=eps))
    if act:
        layers["act"] = nn.PReLU(out_channels)
    return nn.Sequential(layers)
