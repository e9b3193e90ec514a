"""Layers and blocks that several networks share."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridseg.validation import check_number

#: The maximum depth. The stride doubles with each level, and no image has sides above 2**24.
MAX_DEPTH = 24


def check_counts(**counts: int) -> None:
    """Raise an error if a number of channels, classes or layers is not an integer >= 1."""
    for name, value in counts.items():
        maximum = MAX_DEPTH if name == "depth" else None
        check_number(value, name, minimum=1, maximum=maximum, integer=True)


def check_volumes(images: Tensor, network: str) -> None:
    """Raise an error unless the input is a batch of volumes."""
    if images.ndim != 5:
        raise ValueError(
            f"{network} expects volumes (B, C, D, H, W), but its input has shape "
            f"{tuple(images.shape)}: for 2-D images use a 2-D network, such as UNet."
        )


def pad_to_multiple(images: Tensor, stride: int, *, training: bool) -> Tensor:
    """Pad images ``(B, C, ...)`` at the end of each axis to a multiple of a stride.

    The last values are repeated. Batch normalization cannot train on one value for each channel,
    so the last axis has at least two strides in training.
    """
    sides = [-size % stride for size in images.shape[2:]]
    if training:
        sides[-1] = max(sides[-1], 2 * stride - images.shape[-1])
    if not any(sides):
        return images
    ends = [amount for side in reversed(sides) for amount in (0, side)]
    return functional.pad(images, ends, mode="replicate")


def resize(features: Tensor, size: Sequence[int], *, align_corners: bool = False) -> Tensor:
    """Interpolate ``(B, C, H, W)`` or ``(B, C, D, H, W)`` linearly to another spatial size."""
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
    """Return a convolution, batch normalization and ReLU; the size is divided by the stride."""
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
    """Return a depthwise separable 3x3 convolution, batch normalization and ReLU."""
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
    """Batch normalization of pooled features, which may be one value for each channel.

    A batch of one image then has no variance, and the running statistics are used instead.
    """

    def forward(self, features: Tensor) -> Tensor:
        if self.training and features[:, 0].numel() > 1:
            return super().forward(features)
        return functional.batch_norm(
            features, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )


class ImagePooling(nn.Module):
    """The global mean of the features, projected and copied to every pixel."""

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
    """Atrous spatial pyramid pooling of DeepLab v3 (section 3.3 of [1]_).

    Parallel branches are a 1x1 convolution, 3x3 convolutions at several atrous rates and the global
    mean, each with batch normalization. Their concatenation is mixed by a 1x1 convolution.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the input, and of each branch and the result.
    rates : sequence of int, default=(6, 12, 18)
        Atrous rates of the 3x3 convolutions.
    separable : bool, default=False
        Use depthwise separable 3x3 convolutions (section 3.1 of [2]_).
    dropout : float, default=0.5
        Fraction of the mixed features that is dropped in training.

    References
    ----------
    .. [1] L.-C. Chen, G. Papandreou, F. Schroff, H. Adam, "Rethinking Atrous Convolution for
       Semantic Image Segmentation", arXiv:1706.05587, 2017.
    .. [2] L.-C. Chen, Y. Zhu, G. Papandreou, F. Schroff, H. Adam, "Encoder-Decoder with Atrous
       Separable Convolution for Semantic Image Segmentation", ECCV, 2018, arXiv:1802.02611.
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
    """Return a depthwise transposed convolution that is initialized to bilinear interpolation."""
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
    """Draw Gaussian weights of variance 2/N, with N the number of inputs of an output [1]_.

    Biases become 0. Use it as ``network.apply(init_he)``. ReLU networks without normalization then
    keep the scale of their input.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren, J. Sun, "Delving Deep into Rectifiers: Surpassing Human-Level
       Performance on ImageNet Classification", ICCV, 2015.
    """
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        n_inputs = float(module.weight[0].numel())
    elif isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
        # Each output has kernel size / stride taps along each axis for every input channel.
        taps = math.prod(module.kernel_size) / math.prod(module.stride)
        n_inputs = module.in_channels // module.groups * max(1.0, taps)
    else:
        return
    nn.init.normal_(module.weight, std=math.sqrt(2.0 / n_inputs))
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def double_conv(in_channels: int, out_channels: int, batch_norm: bool = True) -> nn.Sequential:
    """Return two 3x3 convolutions that keep the size, each with (batch normalization and) ReLU."""
    layers: list[nn.Module] = []
    for channels in (in_channels, out_channels):
        layers.append(nn.Conv2d(channels, out_channels, kernel_size=3, padding=1))
        if batch_norm:
            layers.append(nn.BatchNorm2d(out_channels))
        layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def bn_prelu(channels: int, *, eps: float = 1e-5) -> nn.Sequential:
    """Return batch normalization and PReLU, whose slope below zero is learned for each channel."""
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
    """Return a convolution, batch normalization and PReLU; the size is divided by the stride."""
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
