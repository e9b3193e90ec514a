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
    """LiteSeg: a deeper pyramid of separable convolutions on a light encoder [1]_.

    At stride 32, each branch has a dilated convolution and one more convolution (deeper ASPP). The
    outputs of the branches, the global mean and the input features (short residual) are
    concatenated and mixed. They are upsampled to stride 4 and concatenated with the encoder's
    features of that stride (long residual). Two more convolutions and a classifier compute the
    scores (section 3 of [1]_).

    Parameters
    ----------
    in_channels : int, default=3
        Channels of the image.
    n_classes : int, default=2
        Number of classes; the logits have one channel for each.
    encoder : str, default="mobilenet_v2"
        A name in :data:`hybridseg.networks.ENCODERS`; "mobilenet_v2" in the paper, which also has
        encoders that torchvision lacks.
    weights : str or path, optional
        Pretrained weights of the encoder; see :func:`hybridseg.networks.encoder`. Default: random.
    rates : sequence of int, default=(1, 3, 6, 9)
        Atrous rates of the branches; a branch of rate 1 is a 1x1 convolution only.
    head_channels : int, default=96
        Channels of each branch and of the decoder; 96 in the paper.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described, or the weights do not fit.

    Notes
    -----
    As in the authors' code, all convolutions of pyramid and decoder are depthwise separable, only
    batch normalization follows the dilated ones, and upsampling aligns the corners. There are
    3 101 707 parameters for 19 classes. The authors' model has 4 382 707, including 1 281 000 of
    MobileNetV2's classifier, which is not used in segmentation.

    References
    ----------
    .. [1] T. Emara, H. E. Abd El Munim, H. M. Abbas, "LiteSeg: A Novel Lightweight ConvNet for
       Semantic Segmentation", DICTA, 2019, arXiv:1912.06683.

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
    """Return the layers of a depthwise separable convolution and its batch normalization."""
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
