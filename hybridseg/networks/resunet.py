"""The deep residual U-Net of Zhang, Liu and Wang (2018)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from hybridseg.networks.blocks import check_counts, pad_to_multiple, resize

__all__ = ["ResUNet"]


class ResUNet(nn.Module):
    """ResUNet: a U-Net of residual units, three levels deep [1]_.

    Each unit has two 3x3 convolutions, with batch normalization and ReLU *before* them (full
    pre-activation), and adds its input to their result. In the encoder, the first convolution of a
    unit has stride 2 instead of pooling. In the decoder, features are upsampled and concatenated
    with the encoder's features of the same level (section II of [1]_).

    Parameters
    ----------
    in_channels : int, default=3
        Channels of the image.
    n_classes : int, default=2
        Number of classes; the logits have one channel for each. The paper segments roads with one
        channel and a sigmoid.
    width : int, default=64
        Channels of the first level; 64 in the paper.
    depth : int, default=3
        Number of times the size is halved; 3 in the paper.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Notes
    -----
    The shortcut of each unit is a 1x1 convolution with batch normalization, because the channels or
    the size may change (the paper does not specify it). Upsampling is bilinear. Convolutions before
    batch normalization have no bias. There are 8 220 993 parameters for three channels and one
    class; the paper reports 7.8 million.

    References
    ----------
    .. [1] Z. Zhang, Q. Liu, Y. Wang, "Road Extraction by Deep Residual U-Net", IEEE Geoscience and
       Remote Sensing Letters 15(5), 2018, arXiv:1711.10684.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import ResUNet
    >>> network = ResUNet(n_classes=4, width=8).eval()
    >>> tuple(network(torch.zeros(1, 3, 37, 50)).shape)
    (1, 4, 37, 50)
    """

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 2,
        *,
        width: int = 64,
        depth: int = 3,
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, n_classes=n_classes, width=width, depth=depth)
        widths = [width * 2**level for level in range(depth + 1)]
        self.stride = 2**depth
        self.first = _Unit(in_channels, width, first=True)
        self.down = nn.ModuleList(
            _Unit(before, after, stride=2) for before, after in pairwise(widths)
        )
        self.up = nn.ModuleList(_Unit(3 * channels, channels) for channels in widths[-2::-1])
        self.head = nn.Conv2d(width, n_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, L, H, W)`` of images ``(B, C, H, W)``."""
        height, width = images.shape[-2:]
        features = [self.first(pad_to_multiple(images, self.stride, training=self.training))]
        for unit in self.down:
            features.append(unit(features[-1]))
        found = features.pop()
        for unit in self.up:
            skip = features.pop()
            found = unit(torch.cat([resize(found, skip.shape[-2:]), skip], dim=1))
        return self.head(found)[..., :height, :width]


class _Unit(nn.Module):
    """A residual unit (Figure 1b); the input of the first unit is not normalized (Table I)."""

    def __init__(
        self, in_channels: int, channels: int, *, stride: int = 1, first: bool = False
    ) -> None:
        super().__init__()
        before = [] if first else [nn.BatchNorm2d(in_channels), nn.ReLU(inplace=True)]
        self.branch = nn.Sequential(
            *before,
            nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.shortcut = nn.Sequential(
            nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.branch(features) + self.shortcut(features)
