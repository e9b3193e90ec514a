"""DeepLab v1 and v2 of Chen, Papandreou, Kokkinos, Murphy and Yuille (2015, 2018)."""

from __future__ import annotations

import os
from collections.abc import Sequence

from torch import Tensor, nn

from hybridseg.networks.blocks import check_counts
from hybridseg.networks.encoded import EncodedNetwork
from hybridseg.networks.encoders import encoder as build_encoder

__all__ = ["DeepLabV1", "DeepLabV2"]


class DeepLabV1(EncodedNetwork):
    """DeepLab v1 with a large field of view (LargeFOV): VGG16 at stride 8 with holes.

    The last two poolings keep the size, and the convolutions after them are dilated, so that every
    8th pixel is scored with the field of view of the classifier. The first fully connected layer
    becomes a 3x3 convolution of rate 12 (section 3.1 of [1]_). The scores are upsampled
    bilinearly. The paper refines them with a dense CRF:
    ``make_pipeline(DeepSegmenter("deeplabv1"), DenseCRF())``.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    n_classes : int
        Channels of the logits.
    encoder : str
        VGG16 in the paper; any of :data:`hybridseg.networks.ENCODERS`.
    weights : str or path, optional
        The encoder's weights; see :func:`hybridseg.networks.encoder`. None: drawn anew.
    output_stride : {8, 16, 32}
        The stride of the logits along each side, in pixels, before upsampling.
    head_channels : int
        Channels of the convolutions that were fully connected; 1024 in the paper.
    rate : int
        Dilation of the first of them; 12 in the paper.
    dropout : float
        Share of the head's features dropped while training.

    Notes
    -----
    20 505 429 parameters for 21 classes.

    References
    ----------
    .. [1] L.-C. Chen et al.: Semantic Image Segmentation with Deep Convolutional Nets and Fully
       Connected CRFs. ICLR 2015, arXiv:1412.7062.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import DeepLabV1
    >>> network = DeepLabV1(n_classes=4, encoder="resnet18", head_channels=32).eval()
    >>> tuple(network(torch.zeros(1, 3, 37, 50)).shape)
    (1, 4, 37, 50)
    """

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 2,
        *,
        encoder: str = "vgg16",
        weights: str | os.PathLike[str] | None = None,
        output_stride: int = 8,
        head_channels: int = 1024,
        rate: int = 12,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_counts(n_classes=n_classes, head_channels=head_channels, rate=rate)
        self.encoder = build_encoder(
            encoder, in_channels, weights=weights, output_stride=output_stride
        )
        deepest = self.encoder.channels[-1]
        self.head = _atrous_head(deepest, head_channels, n_classes, rate, dropout)

    def _logits(self, features: list[Tensor]) -> Tensor:
        return self.head(features[-1])


class DeepLabV2(EncodedNetwork):
    """DeepLab v2: atrous spatial pyramid pooling, its branches' scores summed.

    Branches that look at the same features with 3x3 convolutions of several rates score every
    class each; the scores are added (section 3.2 of [1]_). With "vgg16" a branch has two further
    layers (ASPP-L); with a ResNet it is the 3x3 convolution alone, as in the published model.

    Parameters
    ----------
    in_channels : int
        Channels of the image.
    n_classes : int
        Channels of the logits.
    encoder : str
        "resnet101" or "vgg16" in the paper; any of :data:`hybridseg.networks.ENCODERS`.
    weights : str or path, optional
        The encoder's weights; see :func:`hybridseg.networks.encoder`. None: drawn anew.
    output_stride : {8, 16, 32}
        The stride of the logits along each side, in pixels, before upsampling.
    rates : sequence of int
        Dilations of the branches.
    head_channels : int, "auto" or None
        Channels between a branch's layers; None leaves these layers out. "auto" is 1024 with a
        VGG, as published, and None with other encoders.
    dropout : float
        Share of a branch's features dropped while training, where it has further layers.

    Notes
    -----
    For 21 classes 37 877 652 parameters with VGG16 and 44 048 532 with ResNet-101.

    References
    ----------
    .. [1] L.-C. Chen et al.: DeepLab: Semantic Image Segmentation with Deep Convolutional Nets,
       Atrous Convolution, and Fully Connected CRFs. IEEE TPAMI 40(4), 2018, arXiv:1606.00915.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import DeepLabV2
    >>> network = DeepLabV2(n_classes=4, encoder="resnet18").eval()
    >>> tuple(network(torch.zeros(1, 3, 37, 50)).shape)
    (1, 4, 37, 50)
    """

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 2,
        *,
        encoder: str = "resnet101",
        weights: str | os.PathLike[str] | None = None,
        output_stride: int = 8,
        rates: Sequence[int] = (6, 12, 18, 24),
        head_channels: int | str | None = "auto",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_counts(n_classes=n_classes)
        if head_channels == "auto":
            head_channels = 1024 if encoder.startswith("vgg") else None
        if isinstance(head_channels, str):
            raise ValueError(f"head_channels={head_channels!r}; expected a number, 'auto' or None.")
        if head_channels is not None:
            check_counts(head_channels=head_channels)
        self.encoder = build_encoder(
            encoder, in_channels, weights=weights, output_stride=output_stride
        )
        deepest = self.encoder.channels[-1]
        self.head = _Sum(
            nn.Conv2d(deepest, n_classes, 3, padding=rate, dilation=rate)
            if head_channels is None
            else _atrous_head(deepest, head_channels, n_classes, rate, dropout)
            for rate in rates
        )

    def _logits(self, features: list[Tensor]) -> Tensor:
        return self.head(features[-1])


class _Sum(nn.ModuleList):
    def forward(self, features: Tensor) -> Tensor:
        return sum(branch(features) for branch in self)


def _atrous_head(
    in_channels: int, channels: int, n_classes: int, rate: int, dropout: float
) -> nn.Sequential:
    """A classifier's three fully connected layers as convolutions, the first with holes."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=rate, dilation=rate),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv2d(channels, channels, 1),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv2d(channels, n_classes, 1),
    )
