"""ENet of Paszke, Chaurasia, Kim and Culurciello (2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridseg.networks.blocks import check_counts, pad_to_multiple
from hybridseg.validation import check_number

__all__ = ["ENet"]

#: Stages 2 and 3 of Table 1: the dilation of each bottleneck, or its asymmetric kernel length.
_STAGE = (
    ("", 1),
    ("dilated", 2),
    ("asymmetric", 5),
    ("dilated", 4),
    ("", 1),
    ("dilated", 8),
    ("asymmetric", 5),
    ("dilated", 16),
)


class ENet(nn.Module):
    """ENet: residual bottlenecks with a third of a million parameters, most of them in the encoder.

    The image is reduced to half its size at once, and soon to an eighth. 21 residual bottlenecks
    (regular, dilated and asymmetric ones in turn) follow, and a small decoder upsamples their
    output (Table 1 of [1]_). The network has few parameters and operations. On a CPU, its many thin
    layers make it no faster than networks of several times its size.

    Parameters
    ----------
    in_channels : int, default=3
        Channels of the image.
    n_classes : int, default=2
        Number of classes; the logits have one channel for each.
    width : int, default=16
        Channels of the first and last level, a multiple of 4; 16 in the paper. The middle levels
        have 4 and 8 times as many.
    dropout : float in [0, 1), default=0.1
        Fraction of whole feature maps that is dropped at the end of each bottleneck in training;
        0.1 in the paper. The first five bottlenecks drop a tenth of it, and the decoder nothing.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Notes
    -----
    Details follow the authors' code. The encoder has PReLU and the decoder ReLU. The inner channels
    of a bottleneck are a quarter of its output channels. The projections have no bias. Where the
    number of channels grows, the shortcut is padded with zeros. The decoder unpools to the
    positions of the encoder's maxima. The last layer is a transposed convolution of size 2x2 with
    stride 2.

    The first block of the paper concatenates the 3 pooled channels of the image and 13 convolved
    ones. Images with other numbers of channels get ``width - in_channels`` convolved channels. If
    ``in_channels`` is more than half of ``width``, all channels are convolved and none is pooled.

    There are 364 376 parameters for 20 classes (0.37 million in the paper, Table 3).

    References
    ----------
    .. [1] A. Paszke, A. Chaurasia, S. Kim, E. Culurciello, "ENet: A Deep Neural Network
       Architecture for Real-Time Semantic Segmentation", arXiv:1606.02147, 2016.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import ENet
    >>> network = ENet(n_classes=4, width=8).eval()
    >>> tuple(network(torch.zeros(1, 3, 37, 50)).shape)
    (1, 4, 37, 50)
    """

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 2,
        *,
        width: int = 16,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, n_classes=n_classes)
        check_number(width, "width", minimum=4, integer=True)
        if width % 4:
            raise ValueError(f"width={width}; expected a multiple of 4.")
        middle, deep = 4 * width, 8 * width
        self.first = _Initial(in_channels, width)
        self.down1 = _Down(width, middle, dropout / 10)
        self.stage1 = nn.Sequential(*(_Bottleneck(middle, dropout / 10) for _ in range(4)))
        self.down2 = _Down(middle, deep, dropout)
        self.stages2and3 = nn.Sequential(
            *(_Bottleneck(deep, dropout, kind, reach) for _ in range(2) for kind, reach in _STAGE)
        )
        self.up4 = _Up(deep, middle)
        self.stage4 = nn.Sequential(*(_Bottleneck(middle, relu=nn.ReLU) for _ in range(2)))
        self.up5 = _Up(middle, width)
        self.stage5 = _Bottleneck(width, relu=nn.ReLU)
        self.last = nn.ConvTranspose2d(width, n_classes, 2, stride=2)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, L, H, W)`` of images ``(B, C, H, W)``."""
        height, width = images.shape[-2:]
        features = self.first(pad_to_multiple(images, 8, training=self.training))
        features, maxima1 = self.down1(features)
        features, maxima2 = self.down2(self.stage1(features))
        features = self.stage4(self.up4(self.stages2and3(features), maxima2))
        features = self.stage5(self.up5(features, maxima1))
        return self.last(features)[..., :height, :width]


class _Initial(nn.Module):
    """Concatenate convolved and pooled channels at half the size (Figure 2a)."""

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.pooled = 2 * in_channels <= width
        convolved = width - in_channels if self.pooled else width
        self.conv = nn.Conv2d(in_channels, convolved, 3, stride=2, padding=1)
        # Saved weights have this name.
        self.normalise = nn.Sequential(_norm(width), nn.PReLU(width))

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images)
        if self.pooled:
            features = torch.cat([features, functional.max_pool2d(images, 2)], dim=1)
        return self.normalise(features)


class _Bottleneck(nn.Module):
    """Reduce the channels to a quarter, convolve, expand, and add the input (Figure 2b)."""

    def __init__(
        self,
        channels: int,
        dropout: float = 0.0,
        kind: str = "",
        reach: int = 1,
        relu: type[nn.Module] = nn.PReLU,
    ) -> None:
        super().__init__()
        inner = channels // 4
        middle: list[nn.Module]
        if kind == "asymmetric":
            middle = [
                nn.Conv2d(inner, inner, (1, reach), padding=(0, reach // 2), bias=False),
                nn.Conv2d(inner, inner, (reach, 1), padding=(reach // 2, 0)),
            ]
        else:
            middle = [nn.Conv2d(inner, inner, 3, padding=reach, dilation=reach)]
        self.branch = nn.Sequential(
            nn.Conv2d(channels, inner, 1, bias=False),
            *_norm_relu(inner, relu),
            *middle,
            *_norm_relu(inner, relu),
            nn.Conv2d(inner, channels, 1, bias=False),
            _norm(channels),
            nn.Dropout2d(dropout),
        )
        self.relu = _activation(relu, channels)

    def forward(self, features: Tensor) -> Tensor:
        return self.relu(features + self.branch(features))


class _Down(nn.Module):
    """A bottleneck that halves the size; it also returns the positions of the maxima."""

    def __init__(self, in_channels: int, channels: int, dropout: float) -> None:
        super().__init__()
        inner = channels // 4
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, inner, 2, stride=2, bias=False),
            *_norm_relu(inner, nn.PReLU),
            nn.Conv2d(inner, inner, 3, padding=1),
            *_norm_relu(inner, nn.PReLU),
            nn.Conv2d(inner, channels, 1, bias=False),
            _norm(channels),
            nn.Dropout2d(dropout),
        )
        self.more = channels - in_channels
        self.relu = nn.PReLU(channels)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        pooled, maxima = functional.max_pool2d(features, 2, return_indices=True)
        shortcut = functional.pad(pooled, (0, 0, 0, 0, 0, self.more))
        return self.relu(shortcut + self.branch(features)), maxima


class _Up(nn.Module):
    """A bottleneck that doubles the size; its shortcut is unpooled to where the maxima were."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        inner = channels // 4
        self.shortcut = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, bias=False), _norm(channels)
        )
        self.branch = nn.Sequential(
            nn.Conv2d(in_channels, inner, 1, bias=False),
            *_norm_relu(inner, nn.ReLU),
            nn.ConvTranspose2d(inner, inner, 3, stride=2, padding=1, output_padding=1),
            *_norm_relu(inner, nn.ReLU),
            nn.Conv2d(inner, channels, 1, bias=False),
            _norm(channels),
        )

    def forward(self, features: Tensor, maxima: Tensor) -> Tensor:
        shortcut = functional.max_unpool2d(self.shortcut(features), maxima, 2)
        return functional.relu(shortcut + self.branch(features))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def _norm_relu(channels: int, relu: type[nn.Module]) -> list[nn.Module]:
    return [_norm(channels), _activation(relu, channels)]


def _activation(relu: type[nn.Module], channels: int) -> nn.Module:
    return nn.PReLU(channels) if relu is nn.PReLU else relu()
