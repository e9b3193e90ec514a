"""V-Net of Milletari, Navab and Ahmadi (2016)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hybridseg.networks.blocks import check_counts, check_volumes, init_he, pad_to_multiple

__all__ = ["VNet"]


class VNet(nn.Module):
    """V-Net: residual stages of 5x5x5 convolutions for volumes ``(B, C, D, H, W)`` [1]_.

    Each stage adds its input to the output of its convolutions. Strided 2x2x2 convolutions halve
    the size instead of pooling, and transposed convolutions double it. All activations are PReLU
    (section 2 of [1]_).

    Parameters
    ----------
    in_channels : int, default=1
        Channels of the volume.
    n_classes : int, default=2
        Number of classes; the logits have one channel for each.
    width : int, default=16
        Channels of the first stage; 16 in the paper. Time and parameters grow with its square.
    convs : sequence of int, default=(1, 1, 2, 3, 3)
        Number of convolutions of each stage of the encoder; each stage of the decoder has as many
        as the encoder's stage of the same size. The default is that of the authors' released
        network; Figure 2 of the paper has (1, 2, 3, 3, 3).
    batch_norm : bool, default=False
        Add batch normalization before each PReLU. The authors have none and use small learning
        rates (1e-4). With it, V-Net trains at the learning rates of the other networks.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Notes
    -----
    The residual connection of the first stage repeats the channels of the volume in turn to the
    stage's width. ``VNet(1, 2)`` has 61 982 666 parameters, as many as the authors' network.

    References
    ----------
    .. [1] F. Milletari, N. Navab, S.-A. Ahmadi, "V-Net: Fully Convolutional Neural Networks for
       Volumetric Medical Image Segmentation", 3DV, 2016, arXiv:1606.04797.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import VNet
    >>> network = VNet(in_channels=1, n_classes=2, width=2, convs=(1, 1, 2)).eval()
    >>> tuple(network(torch.zeros(1, 1, 5, 18, 21)).shape)
    (1, 2, 5, 18, 21)
    """

    def __init__(
        self,
        in_channels: int = 1,
        n_classes: int = 2,
        *,
        width: int = 16,
        convs: Sequence[int] = (1, 1, 2, 3, 3),
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, n_classes=n_classes, width=width)
        for count in convs:
            check_counts(convs=count)
        if len(convs) < 2:
            raise ValueError(
                f"convs={convs!r}; expected one number for each of two or more stages."
            )
        self.stride = 2 ** (len(convs) - 1)
        widths = [width * 2**level for level in range(len(convs))]
        self.register_buffer("turn", torch.arange(width) % in_channels, persistent=False)
        self.down = nn.ModuleList(
            _Stage(channels if level else in_channels, channels, count, batch_norm)
            for level, (channels, count) in enumerate(zip(widths, convs, strict=True))
        )
        self.shrink = nn.ModuleList(
            _activated(nn.Conv3d(channels, 2 * channels, 2, stride=2), batch_norm)
            for channels in widths[:-1]
        )
        self.enlarge = nn.ModuleList(
            # A decoder stage has twice the width of the encoder stage of the same size.
            _activated(nn.ConvTranspose3d(before, channels, 2, stride=2), batch_norm)
            for before, channels in zip(_ups(widths), widths[-2::-1], strict=True)
        )
        self.up = nn.ModuleList(
            _Stage(2 * channels, 2 * channels, count, batch_norm)
            for channels, count in zip(widths[-2::-1], list(convs)[-2::-1], strict=True)
        )
        self.score = _activated(nn.Conv3d(2 * width, n_classes, 5, padding=2), batch_norm)
        self.head = nn.Conv3d(n_classes, n_classes, 1)
        self.apply(init_he)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, L, D, H, W)`` of volumes ``(B, C, D, H, W)``."""
        check_volumes(images, "VNet")
        padded = pad_to_multiple(images, self.stride, training=self.training)
        features = self.down[0](padded, padded[:, self.turn])
        skips = [features]
        for shrink, stage in zip(self.shrink, self.down[1:], strict=True):
            smaller = shrink(features)
            features = stage(smaller, smaller)
            skips.append(features)
        features = skips.pop()
        for enlarge, stage in zip(self.enlarge, self.up, strict=True):
            both = torch.cat([enlarge(features), skips.pop()], dim=1)
            features = stage(both, both)
        depth, height, width = images.shape[-3:]
        return self.head(self.score(features))[..., :depth, :height, :width]


class _Stage(nn.Module):
    """Convolutions; a shortcut is added to the last result before the activation."""

    def __init__(self, in_channels: int, channels: int, count: int, batch_norm: bool) -> None:
        super().__init__()
        self.before = nn.Sequential(
            *(
                _activated(_conv(channels if k else in_channels, channels), batch_norm)
                for k in range(count - 1)
            )
        )
        self.last = _conv(channels if count > 1 else in_channels, channels)
        self.normalize = nn.BatchNorm3d(channels) if batch_norm else nn.Identity()
        self.relu = nn.PReLU(channels)

    def forward(self, features: Tensor, shortcut: Tensor) -> Tensor:
        return self.relu(self.normalize(self.last(self.before(features)) + shortcut))


def _conv(in_channels: int, channels: int) -> nn.Conv3d:
    return nn.Conv3d(in_channels, channels, 5, padding=2)


def _activated(layer: nn.Conv3d | nn.ConvTranspose3d, batch_norm: bool) -> nn.Sequential:
    channels = layer.out_channels
    norm = [nn.BatchNorm3d(channels)] if batch_norm else []
    return nn.Sequential(layer, *norm, nn.PReLU(channels))


def _ups(widths: Sequence[int]) -> list[int]:
    """Return the input channels of each upsampling layer: the bottom's, then twice each level's."""
    return [widths[-1], *(2 * channels for channels in widths[-2:0:-1])]
