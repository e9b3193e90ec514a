"""LiteSeg of Emara, Abd El Munim and Abbas (2019)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hybridseg.networks.blocks import (
    ImagePooling,
    check_counts,
    resize,
    separable_bn_relu,
)
from hybridseg.networks.encoded import EncodedNetwork
from hybridseg.networks.encoders import encoder as build_encoder

__all__ = ["LiteSeg"]


class LiteSeg(EncodedNetwork):
    """LiteSeg: a deeper pyramid of separable convolutions on a light encoder.

    At stride 32, branches with dilated convolutions, each followed by one more convolution (deeper
    ASPP), and the image's mean stand beside the features themselves (short residual); mixed, they
    are upsampled to stride 4, joined with the encoder's features there (long residual), and two
    more convolutions give the scores (section 3 of [1]_).

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    n_classes : int
        Channels of the logits.
    encoder : str
        "mobilenet_v2" in the paper (and others that torchvision lacks); any of
        :data:`hybridseg.networks.ENCODERS`.
    weights : str or path, optional
        The encoder's weights; see :func:`hybridseg.networks.encoder`. None: drawn anew.
    rates : sequence of int
        Dilations of the branches; one of rate 1 has a 1x1 convolution alone.
    head_channels : int
        Channels of each branch and of the decoder; 96 in the paper.

    Notes
    -----
    As in the authors' code, all convolutions of pyramid and decoder are depthwise separable, the
    dilated ones are followed by batch normalization only, and upsampling aligns the corners.
    3 101 707 parameters for 19 classes; the authors' model has 4 382 707, of which 1 281 000 are
    MobileNetV2's classifier, which segmentation does not use.

    References
    ----------
    .. [1] T. Emara, H. E. Abd El Munim, H. M. Abbas: LiteSeg: A Novel Lightweight ConvNet for
       Semantic Segmentation. DICTA 2019, arXiv:1912.06683.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import LiteSeg
    >>> network = LiteSeg(n_classes=4, head_channels=8).eval()
    >>> tuple(network(torch.zeros(1, 3, 37, 50)).shape)
    (1, 4, 37, 50)
    """

    _align_corners = True

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 2,
        *,
        encoder: str = "mobilenet_v2",
        weights: str | os.PathLike[str] | None = None,
        rates: Sequence[int] = (1, 3, 6, 9),
        head_channels: int = 96,
    ) -> None:
        super().__init__()
        check_counts(n_classes=n_classes, head_channels=head_channels)
        self.encoder = build_encoder(encoder, in_channels, weights=weights)
        channels, strides = self.encoder.channels, self.encoder.strides
        deepest = channels[-1]
        self.branches = nn.ModuleList(
            [
                *(_branch(deepest, head_channels, rate) for rate in rates),
                ImagePooling(deepest, head_channels),
            ]
        )
        pyramid = deepest + len(self.branches) * head_channels
        self.mix = nn.Sequential(*_separable(pyramid, head_channels, 1), nn.ReLU(inplace=True))
        self.fine = strides.index(4)
        self.decode = nn.Sequential(
            separable_bn_relu(head_channels + channels[self.fine], head_channels),
            separable_bn_relu(head_channels, head_channels),
            nn.Conv2d(head_channels, n_classes, 1),
        )

    def _logits(self, features: list[Tensor]) -> Tensor:
        deep, fine = features[-1], features[self.fine]
        mixed = self.mix(torch.cat([deep, *(branch(deep) for branch in self.branches)], dim=1))
        coarse = resize(mixed, fine.shape[-2:], align_corners=True)
        return self.decode(torch.cat([coarse, fine], dim=1))


def _branch(in_channels: int, channels: int, rate: int) -> nn.Sequential:
    if rate == 1:
        return nn.Sequential(*_separable(in_channels, channels, 1))
    return nn.Sequential(
        *_separable(in_channels, channels, 3, dilation=rate),
        separable_bn_relu(channels, channels),
    )


def _separable(in_channels: int, channels: int, size: int, *, dilation: int = 1) -> list[nn.Module]:
    """A convolution of each channel alone, one that mixes them, batch normalization."""
    padding = dilation * (size // 2)
    return [
        nn.Conv2d(
            in_channels,
            in_channels,
            size,
            padding=padding,
            dilation=dilation,
            groups=in_channels,
            bias=False,
        ),
        nn.Conv2d(in_channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels),
    ]
