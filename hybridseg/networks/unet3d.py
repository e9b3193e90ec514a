"""The 3-D U-Net of Çiçek et al. (2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridseg.networks.blocks import check_counts, check_volumes, init_he, pad_to_multiple

__all__ = ["UNet3D"]


class UNet3D(nn.Module):
    """3-D U-Net: a U-Net with 3x3x3 convolutions for volumes ``(B, C, D, H, W)`` [1]_.

    It differs from the 2-D network of the same group in three ways. The channels double *before*
    each pooling, to avoid bottlenecks. The up-convolutions keep the number of channels. Batch
    normalization precedes each ReLU (section 2 of [1]_).

    Parameters
    ----------
    in_channels : int, default=1
        Channels of the volume.
    n_classes : int, default=2
        Number of classes; the logits have one channel for each.
    width : int, default=32
        Channels of the first convolution; 32 in the paper. Memory grows in proportion: training on
        a crop of 64 x 64 x 64 voxels takes about 2 GB with 32, and a quarter of it with 8.
    depth : int, default=3
        Number of times the size is halved; 3 in the paper.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Notes
    -----
    Convolutions keep the size, whereas those of the paper are unpadded. ``UNet3D(3, 3)`` has the
    19 069 955 parameters of the paper, and 4 672 scales and shifts of batch normalization.

    References
    ----------
    .. [1] Ö. Çiçek, A. Abdulkadir, S. S. Lienkamp, T. Brox, O. Ronneberger, "3D U-Net: Learning
       Dense Volumetric Segmentation from Sparse Annotation", MICCAI, 2016, arXiv:1606.06650.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import UNet3D
    >>> network = UNet3D(in_channels=1, n_classes=2, width=4, depth=2).eval()
    >>> tuple(network(torch.zeros(1, 1, 5, 18, 21)).shape)
    (1, 2, 5, 18, 21)
    """

    def __init__(
        self,
        in_channels: int = 1,
        n_classes: int = 2,
        *,
        width: int = 32,
        depth: int = 3,
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, n_classes=n_classes, width=width, depth=depth)
        self.stride = 2**depth
        widths = [width * 2**level for level in range(depth + 2)]
        self.down = nn.ModuleList(
            _two_convs(widths[level] if level else in_channels, widths[level], widths[level + 1])
            for level in range(depth + 1)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose3d(2 * channels, 2 * channels, 2, stride=2, bias=False)
            for channels in widths[-2:0:-1]
        )
        self.merge = nn.ModuleList(
            _two_convs(3 * channels, channels, channels) for channels in widths[-2:0:-1]
        )
        self.head = nn.Conv3d(2 * width, n_classes, 1)
        self.apply(init_he)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, L, D, H, W)`` of volumes ``(B, C, D, H, W)``."""
        check_volumes(images, "UNet3D")
        features = pad_to_multiple(images, self.stride, training=self.training)
        skips = []
        for level, block in enumerate(self.down):
            features = block(functional.max_pool3d(features, 2) if level else features)
            skips.append(features)
        features = skips.pop()
        for up, merge in zip(self.up, self.merge, strict=True):
            features = merge(torch.cat([skips.pop(), up(features)], dim=1))
        depth, height, width = images.shape[-3:]
        return self.head(features)[..., :depth, :height, :width]


def _two_convs(in_channels: int, middle: int, out_channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((in_channels, middle), (middle, out_channels)):
        layers += [
            nn.Conv3d(before, after, 3, padding=1),
            nn.BatchNorm3d(after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers)
