"""DeepLab v3 and v3+ of Chen, Papandreou, Schroff, Adam (2017) and with Zhu (2018)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hybridseg.networks.blocks import (
    ASPP,
    check_counts,
    conv_bn_relu,
    resize,
    separable_bn_relu,
)
from hybridseg.networks.encoded import EncodedNetwork
from hybridseg.networks.encoders import encoder as build_encoder

__all__ = ["DeepLabV3", "DeepLabV3Plus"]


class DeepLabV3(EncodedNetwork):
    """DeepLab v3: atrous spatial pyramid pooling with the global mean, concatenated [1]_.

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
    output_stride : {8, 16, 32}, default=16
        Stride of the logits in pixels before upsampling. The paper trains at 16, and predicts a
        little better at 8 at four times the cost (section 4.1 of [1]_).
    rates : sequence of int, optional
        Atrous rates of the 3x3 convolutions. Default: (6, 12, 18) at output stride 16, twice that
        at 8, half of it at 32.
    head_channels : int, default=256
        Channels of each branch; 256 in the paper.
    dropout : float, default=0.5
        Fraction of the mixed features that is dropped in training.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described, or the weights do not fit.

    Notes
    -----
    The paper's multi-grid is left out. One 3x3 convolution follows the pyramid, as in torchvision's
    model. Both have 39 638 869 parameters with ResNet-50 and 21 classes, and their state dicts
    differ in names only.

    References
    ----------
    .. [1] L.-C. Chen, G. Papandreou, F. Schroff, H. Adam, "Rethinking Atrous Convolution for
       Semantic Image Segmentation", arXiv:1706.05587, 2017.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import DeepLabV3
    >>> network = DeepLabV3(n_classes=4, encoder="resnet18", head_channels=16).eval()
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
        output_stride: int = 16,
        rates: Sequence[int] | None = None,
        head_channels: int = 256,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_counts(n_classes=n_classes, head_channels=head_channels)
        self.encoder = build_encoder(
            encoder, in_channels, weights=weights, output_stride=output_stride
        )
        rates = _rates(output_stride) if rates is None else rates
        self.pyramid = ASPP(self.encoder.channels[-1], head_channels, rates, dropout=dropout)
        self.head = nn.Sequential(
            conv_bn_relu(head_channels, head_channels), nn.Conv2d(head_channels, n_classes, 1)
        )

    def _logits(self, features: list[Tensor]) -> Tensor:
        return self.head(self.pyramid(features[-1]))


class DeepLabV3Plus(EncodedNetwork):
    """DeepLab v3+: the pyramid of DeepLab v3 with a decoder on features of stride 4 [1]_.

    The features of the pyramid are upsampled to stride 4 and concatenated with the encoder's
    features of that stride, which are first reduced to 48 channels, so that they do not dominate.
    Two 3x3 convolutions mix them (section 3.1 of [1]_).

    Parameters
    ----------
    in_channels : int, default=3
        Channels of the image.
    n_classes : int, default=2
        Number of classes; the logits have one channel for each.
    encoder : str, default="resnet50"
        A name in :data:`hybridseg.networks.ENCODERS`; Xception or a ResNet in the paper.
    weights : str or path, optional
        Pretrained weights of the encoder; see :func:`hybridseg.networks.encoder`. Default: random.
    output_stride : {8, 16, 32}, default=16
        Stride of the pyramid's input.
    rates : sequence of int, optional
        See :class:`DeepLabV3`.
    head_channels : int, default=256
        Channels of each branch and of the decoder; 256 in the paper.
    skip_channels : int, default=48
        Channels to which the features of stride 4 are reduced; 48 in the paper.
    dropout : float, default=0.5
        Fraction of the features of the pyramid that is dropped in training.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described, or the weights do not fit.

    Notes
    -----
    All 3x3 convolutions of pyramid and decoder are depthwise separable. This is the fastest form in
    the paper, and the best one with Xception.

    References
    ----------
    .. [1] L.-C. Chen, Y. Zhu, G. Papandreou, F. Schroff, H. Adam, "Encoder-Decoder with Atrous
       Separable Convolution for Semantic Image Segmentation", ECCV, 2018, arXiv:1802.02611.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import DeepLabV3Plus
    >>> network = DeepLabV3Plus(n_classes=4, encoder="mobilenet_v2", head_channels=16).eval()
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
        output_stride: int = 16,
        rates: Sequence[int] | None = None,
        head_channels: int = 256,
        skip_channels: int = 48,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_counts(n_classes=n_classes, head_channels=head_channels, skip_channels=skip_channels)
        self.encoder = build_encoder(
            encoder, in_channels, weights=weights, output_stride=output_stride
        )
        rates = _rates(output_stride) if rates is None else rates
        channels, strides = self.encoder.channels, self.encoder.strides
        self.pyramid = ASPP(channels[-1], head_channels, rates, separable=True, dropout=dropout)
        self.fine = strides.index(4)
        self.reduce = conv_bn_relu(channels[self.fine], skip_channels, 1)
        self.decode = nn.Sequential(
            separable_bn_relu(head_channels + skip_channels, head_channels),
            separable_bn_relu(head_channels, head_channels),
            nn.Conv2d(head_channels, n_classes, 1),
        )

    def _logits(self, features: list[Tensor]) -> Tensor:
        skip = self.reduce(features[self.fine])
        coarse = resize(self.pyramid(features[-1]), skip.shape[-2:])
        return self.decode(torch.cat([coarse, skip], dim=1))


def _rates(output_stride: int) -> tuple[int, ...]:
    return tuple(rate * 16 // output_stride for rate in (6, 12, 18))
