"""The fully convolutional DenseNet ("Tiramisu") of Jégou et al. (2017)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hybridseg.networks.blocks import check_counts, init_he, pad_to_multiple

__all__ = ["DenseUNet"]


class DenseUNet(nn.Module):
    """Dense U-Net (FC-DenseNet): a U-Net whose levels are dense blocks [1]_.

    In a dense block, each layer (batch normalization, ReLU, 3x3 convolution, dropout) takes the
    outputs of all layers before it and adds ``growth`` channels. In the encoder, a 1x1 convolution
    and max pooling halve the size. In the decoder, a 3x3 transposed convolution upsamples only the
    channels that the previous block has added, so that the number of channels stays bounded
    (section 3 of [1]_).

    Parameters
    ----------
    in_channels : int, default=3
        Channels of the image.
    n_classes : int, default=2
        Number of classes; the logits have one channel for each.
    growth : int, default=16
        Channels that each layer adds; 16 in FC-DenseNet67 and 103, 12 in 56.
    layers : int or sequence of int, default=5
        Layers of each dense block, in the order encoder, bottom, decoder. A single number is used
        for all blocks. FC-DenseNet103 has (4, 5, 7, 10, 12, 15, 12, 10, 7, 5, 4), FC-DenseNet67 has
        5 (the default) and FC-DenseNet56 has 4.
    depth : int, default=5
        Number of times the size is halved; 5 in the paper. It is ignored if ``layers`` is a
        sequence.
    width : int, default=48
        Channels of the first convolution; 48 in the paper.
    dropout : float in [0, 1), default=0.2
        Fraction of the features of each layer that is dropped in training; 0.2 in the paper.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Notes
    -----
    FC-DenseNet56, 67 and 103 have 1 376 795, 3 463 243 and 9 322 091 parameters for 11 classes, as
    in the authors' code (1.5, 3.5 and 9.4 million in the paper).

    The published scores were computed with the statistics of the batch in batch normalization; here
    ``eval()`` uses the running statistics.

    References
    ----------
    .. [1] S. Jégou, M. Drozdzal, D. Vazquez, A. Romero, Y. Bengio, "The One Hundred Layers
       Tiramisu: Fully Convolutional DenseNets for Semantic Segmentation", CVPR Workshops, 2017,
       arXiv:1611.09326.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import DenseUNet
    >>> network = DenseUNet(n_classes=4, growth=4, layers=2, depth=2, width=8).eval()
    >>> tuple(network(torch.zeros(1, 3, 37, 50)).shape)
    (1, 4, 37, 50)
    """

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 2,
        *,
        growth: int = 16,
        layers: int | Sequence[int] = 5,
        depth: int = 5,
        width: int = 48,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, n_classes=n_classes, growth=growth, width=width)
        blocks = _blocks(layers, depth)
        depth = len(blocks) // 2
        self.stride = 2**depth
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        channels, skips = width, []
        for count in blocks[:depth]:
            self.down.append(_DenseBlock(channels, growth, count, dropout))
            channels += growth * count
            skips.append(channels)
            self.shrink.append(
                nn.Sequential(_layer(channels, channels, 1, dropout), nn.MaxPool2d(2))
            )
        self.bottom = _DenseBlock(channels, growth, blocks[depth], dropout)
        self.enlarge, self.up = nn.ModuleList(), nn.ModuleList()
        for before, count in zip(blocks[depth:], blocks[depth + 1 :], strict=False):
            added = growth * before
            self.enlarge.append(nn.ConvTranspose2d(added, added, 3, stride=2))
            channels = added + skips.pop()
            self.up.append(_DenseBlock(channels, growth, count, dropout))
        self.head = nn.Conv2d(channels + growth * blocks[-1], n_classes, 1)
        self.apply(init_he)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, L, H, W)`` of images ``(B, C, H, W)``."""
        height, width = images.shape[-2:]
        features = self.first(pad_to_multiple(images, self.stride, training=self.training))
        skips = []
        for block, shrink in zip(self.down, self.shrink, strict=True):
            features = torch.cat([features, block(features)], dim=1)
            skips.append(features)
            features = shrink(features)
        added = self.bottom(features)
        for enlarge, block in zip(self.enlarge, self.up, strict=True):
            skip = skips.pop()
            # A transposed convolution with stride 2 and three taps adds one row and one column.
            larger = enlarge(added)[..., : skip.shape[-2], : skip.shape[-1]]
            features = torch.cat([larger, skip], dim=1)
            added = block(features)
        return self.head(torch.cat([features, added], dim=1))[..., :height, :width]


def _blocks(layers: int | Sequence[int], depth: int) -> list[int]:
    """Return the number of layers of each dense block: encoder, bottom, decoder."""
    check_counts(depth=depth)
    counts = [layers] * (2 * depth + 1) if isinstance(layers, int) else list(layers)
    if len(counts) % 2 == 0 or len(counts) < 3:
        raise ValueError(
            f"layers={layers!r}; expected a number, or a sequence of odd length >= 3: give equal "
            f"numbers of blocks to encoder and decoder, and one to the bottom."
        )
    for count in counts:
        check_counts(layers=count)
    return counts


class _DenseBlock(nn.Module):
    """Layers that each take all features before them; the result is the features that they add."""

    def __init__(self, in_channels: int, growth: int, count: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            _layer(in_channels + k * growth, growth, 3, dropout) for k in range(count)
        )

    def forward(self, features: Tensor) -> Tensor:
        added: list[Tensor] = []
        for layer in self.layers:
            added.append(layer(torch.cat([features, *added], dim=1)))
        return torch.cat(added, dim=1)


def _layer(in_channels: int, channels: int, size: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(in_channels),
        nn.ReLU(inplace=True),
        nn.Conv2d(in_channels, channels, size, padding=size // 2),
        nn.Dropout(dropout),
    )
