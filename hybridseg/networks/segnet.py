"""SegNet of Badrinarayanan, Kendall and Cipolla (2017)."""

from __future__ import annotations

import os

from torch import Tensor, nn
from torch.nn import functional

from hybridseg.networks.blocks import check_counts, pad_to_multiple
from hybridseg.networks.encoders import load_convolutions

__all__ = ["SegNet"]

#: Number of convolutions of VGG16's five levels, and their channels divided by 64.
_LEVELS = ((2, 1), (2, 2), (3, 4), (3, 8), (3, 8))


class SegNet(nn.Module):
    """SegNet: a decoder that unpools to the positions of the encoder's maxima [1]_.

    The encoder has the thirteen convolutions of VGG16, and each pooling layer stores the positions
    of its maxima. The decoder mirrors the encoder: it puts each value back at its position with
    zeros elsewhere, and convolutions make the sparse map dense (section 3 of [1]_). No features are
    copied to the decoder, so a skip connection needs two bits for each pooled value.

    Parameters
    ----------
    in_channels : int, default=3
        Channels of the image.
    n_classes : int, default=2
        Number of classes; the logits have one channel for each.
    width : int, default=64
        Channels of the first level; 64 in the paper.
    weights : str or path, optional
        Weights of torchvision's "vgg16_bn" for the encoder; see
        :func:`hybridseg.networks.encoder`. They need ``width=64``. Default: random.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described, or the weights do not fit.

    Notes
    -----
    Convolutions have a bias although batch normalization follows, as in the published model. There
    are 29 449 355 parameters for 11 classes.

    References
    ----------
    .. [1] V. Badrinarayanan, A. Kendall, R. Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder
       Architecture for Image Segmentation", IEEE TPAMI 39(12), 2017, arXiv:1511.00561.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import SegNet
    >>> network = SegNet(n_classes=4, width=8).eval()
    >>> tuple(network(torch.zeros(1, 3, 37, 50)).shape)
    (1, 4, 37, 50)
    """

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 2,
        *,
        width: int = 64,
        weights: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, n_classes=n_classes, width=width)
        widths = [width * factor for _, factor in _LEVELS]
        ins = [in_channels, *widths[:-1]]
        outs = [width, *widths[:-1]]
        self.down = nn.ModuleList(
            _level(before, channels, [channels] * count)
            for before, channels, (count, _) in zip(ins, widths, _LEVELS, strict=True)
        )
        self.up = nn.ModuleList(
            _level(channels, channels, [channels] * (count - 1) + [after])
            for after, channels, (count, _) in zip(outs, widths, _LEVELS, strict=True)
        )
        # The last convolution returns the logits, without normalization and ReLU.
        self.up[0][-1] = nn.Conv2d(width, n_classes, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                nn.init.zeros_(module.bias)
        if weights is not None:
            load_convolutions(self.down, "vgg16_bn", weights)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, L, H, W)`` of images ``(B, C, H, W)``."""
        height, width = images.shape[-2:]
        features = pad_to_multiple(images, 32, training=self.training)
        places = []
        for level in self.down:
            features, maxima = functional.max_pool2d(level(features), 2, return_indices=True)
            places.append(maxima)
        for level in reversed(self.up):
            features = level(functional.max_unpool2d(features, places.pop(), 2))
        return features[..., :height, :width]


def _level(in_channels: int, channels: int, outs: list[int]) -> nn.Sequential:
    """Return a chain of 3x3 convolutions, each followed by batch normalization and ReLU."""
    layers = []
    for before, after in zip([in_channels, *[channels] * (len(outs) - 1)], outs, strict=True):
        layers.append(
            nn.Sequential(
                nn.Conv2d(before, after, 3, padding=1),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            )
        )
    return nn.Sequential(*layers)
