"""PSPNet, the pyramid scene parsing network of Zhao, Shi, Qi, Wang and Jia (2017)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hybridseg.networks.blocks import (
    PooledNorm,
    check_counts,
    conv_bn_relu,
    resize,
)
from hybridseg.networks.encoded import EncodedNetwork
from hybridseg.networks.encoders import encoder as build_encoder

__all__ = ["PSPNet", "PyramidPooling"]


class PyramidPooling(nn.Module):
    """Concatenate features with their means over grids of several sizes, reduced and upsampled.

    Parameters
    ----------
    in_channels : int
        Channels of the features. The result has twice as many, or slightly fewer if the number of
        grids does not divide them.
    grids : sequence of int, default=(1, 2, 3, 6)
        Number of grid cells along each side; (1, 2, 3, 6) in the paper.
    """

    def __init__(self, in_channels: int, grids: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        reduced = max(1, in_channels // len(grids))
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(grid),
                nn.Conv2d(in_channels, reduced, 1, bias=False),
                PooledNorm(reduced),
                nn.ReLU(inplace=True),
            )
            for grid in grids
        )
        self.out_channels = in_channels + reduced * len(grids)

    def forward(self, features: Tensor) -> Tensor:
        """Return pooled features ``(B, out_channels, H, W)`` of features ``(B, C, H, W)``."""
        size = features.shape[-2:]
        return torch.cat([features, *(resize(level(features), size) for level in self.levels)], 1)


class PSPNet(EncodedNetwork):
    """PSPNet: dilated features and their means over grids of 1, 2, 3 and 6 cells a side [1]_.

    Parameters
    ----------
    in_channels : int, default=3
        Channels of the image.
    n_classes : int, default=2
        Number of classes; the logits have one channel for each.
    encoder : str, default="resnet50"
        A name in :data:`hybridseg.networks.ENCODERS`; a ResNet in the paper.
    weights : str or path, optional
        Pretrained weights of the encoder; see :func:`hybridseg.networks.encoder`. Default: random.
    output_stride : {8, 16, 32}, default=8
        Stride of the logits in pixels before upsampling; 8 in the paper.
    grids : sequence of int, default=(1, 2, 3, 6)
        Number of grid cells along each side, for each level of the pyramid.
    head_channels : int, optional
        Channels of the 3x3 convolution that mixes the pyramid. Default: a quarter of the deepest
        features of the encoder, which is 512 with ResNet-50, as in the paper.
    dropout : float, default=0.1
        Fraction of the mixed feature maps that is dropped in training; 0.1 in the published model.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described, or the weights do not fit.

    References
    ----------
    .. [1] H. Zhao, J. Shi, X. Qi, X. Wang, J. Jia, "Pyramid Scene Parsing Network", CVPR, 2017,
       arXiv:1612.01105.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import PSPNet
    >>> network = PSPNet(n_classes=4, encoder="resnet18").eval()
    >>> tuple(network(torch.zeros(1, 3, 37, 50)).shape)
    (1, 4, 37, 50)
    """

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 2,
        *,
        encoder: str = "resnet50",
        weights: str | os.PathLike[str] | None = None,
        output_stride: int = 8,
        grids: Sequence[int] = (1, 2, 3, 6),
        head_channels: int | None = None,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        check_counts(n_classes=n_classes)
        self.encoder = build_encoder(
            encoder, in_channels, weights=weights, output_stride=output_stride
        )
        deepest = self.encoder.channels[-1]
        if head_channels is None:
            head_channels = deepest // 4
        check_counts(head_channels=head_channels)
        self.pyramid = PyramidPooling(deepest, grids)
        self.head = nn.Sequential(
            conv_bn_relu(self.pyramid.out_channels, head_channels),
            nn.Dropout2d(dropout),
            nn.Conv2d(head_channels, n_classes, 1),
        )

    def _logits(self, features: list[Tensor]) -> Tensor:
        return self.head(self.pyramid(features[-1]))
