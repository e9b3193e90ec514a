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
    """DeepLab v3: a pyramid of dilated convolutions and the image's mean, concatenated.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    n_classes : int
        Channels of the logits.
    encoder : str
        A ResNet in the paper; any of :data:`hybridseg.networks.ENCODERS`.
    weights : str or path, optional
        The encoder's weights; see :func:`hybridseg.networks.encoder`. None: drawn anew.
    output_stride : {8, 16, 32}
        The stride of the logits along each side, in pixels, before upsampling: 16 to train, 8 to
        predict a little better at four times the cost (section 4.1 of [1]_).
    rates : sequence of int, optional
        Dilations of the 3x3 convolutions. Default: (6, 12, 18) at stride 16, twice that at
        stride 8, half of it at stride 32.
    head_channels : int
        Channels of each branch; 256 in the paper.
    dropout : float
        Share of the mixed features dropped while training.

    Notes
    -----
    Without the paper's multi-grid. After the pyramid one 3x3 convolution, as in torchvision's
    model, whose 39 638 869 parameters (ResNet-50, 21 classes) these are, too; its state dict
    differs only in names.

    References
    ----------
    .. [1] L.-C. Chen, G. Papandreou, F. Schroff, H. Adam: Rethinking Atrous Convolution for
       Semantic Image Segmentation. 2017, arXiv:1706.05587.

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
    """DeepLab v3+: v3's pyramid, and a decoder that looks again at features of stride 4.

    The pyramid's features are upsampled to stride 4, joined with the encoder's there (reduced to
    48 channels, so that they do not outweigh), and mixed by two 3x3 convolutions (section 3.1).

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    n_classes : int
        Channels of the logits.
    encoder : str
        Xception or a ResNet in the paper; any of :data:`hybridseg.networks.ENCODERS`.
    weights : str or path, optional
        The encoder's weights; see :func:`hybridseg.networks.encoder`. None: drawn anew.
    output_stride : {8, 16, 32}
        Stride of the features that the pyramid sees.
    rates : sequence of int, optional
        As for :class:`DeepLabV3`.
    head_channels : int
        Channels of each branch and of the decoder; 256 in the paper.
    skip_channels : int
        Channels that the features of stride 4 are reduced to; 48 in the paper.
    dropout : float
        Share of the pyramid's features dropped while training.

    Notes
    -----
    All 3x3 convolutions of pyramid and decoder are depthwise separable (the paper's fastest, and
    with Xception its best, form).

    References
    ----------
    .. [1] L.-C. Chen, Y. Zhu, G. Papandreou, F. Schroff, H. Adam: Encoder-Decoder with Atrous
       Separable Convolution for Semantic Image Segmentation. ECCV 2018, arXiv:1802.02611.

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
