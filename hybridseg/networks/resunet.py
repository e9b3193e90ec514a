"""The deep residual U-Net of Zhang, Liu and Wang (2018)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from hybridseg.networks.blocks import check_counts, pad_to_multiple, resize

__all__ = ["ResUNet"]


class ResUNet(nn.Module):
    """ResUNet: a U-Net of residual units, three levels deep.

    Each unit has two 3x3 convolutions, normalized and rectified *before* them (full
    pre-activation), whose result is added to the unit's input. Going down, a unit's first
    convolution has stride 2 in place of pooling; going up, features are upsampled and the
    encoder's of the same level concatenated (section II of [1]_).

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    n_classes : int
        Channels of the logits; 1 with a sigmoid in the paper, which finds roads.
    width : int
        Channels of the first level; 64 in the paper.
    depth : int
        How often the size is halved; 3 in the paper.

    Notes
    -----
    Where a unit changes channels or size, the input is projected by a 1x1 convolution with batch
    normalization (the paper does not say how). Upsampling is bilinear. Convolutions before batch
    normalization have no bias. 8 220 993 parameters for three channels and one class; the paper
    gives 7.8 million.

    References
    ----------
    .. [1] Z. Zhang, Q. Liu, Y. Wang: Road Extraction by Deep Residual U-Net. IEEE Geoscience and
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
        """Images ``(B, C, H, W)`` to logits ``(B, L, H, W)``."""
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
    """A residual unit (Figure 1b); the first one's input is not normalized (Table I)."""

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
