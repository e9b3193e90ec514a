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
    """DeepLab v1 with a large field of view (LargeFOV): VGG16 with atrous convolutions at stride 8.

    The last two pooling layers keep the size, and the convolutions after them are dilated, so that
    every 8th pixel is classified with the original field of view. The first fully connected layer
    becomes a 3x3 convolution of rate 12 (section 3.1 of [1]_). The scores are upsampled bilinearly.
    The paper refines them with a dense CRF:
    ``make_pipeline(DeepSegmenter("deeplabv1"), DenseCRF())``.

    Parameters
    ----------
    in_channels : int, default=3
        Channels of the image.
    n_classes : int, default=2
        Number of classes; the logits have one channel for each.
    encoder : str, default="vgg16"
        A name in :data:`hybridseg.networks.ENCODERS`; "vgg16" in the paper.
    weights : str or path, optional
        Pretrained weights of the encoder; see :func:`hybridseg.networks.encoder`. Default: random.
    output_stride : {8, 16, 32}, default=8
        Stride of the logits in pixels before upsampling.
    head_channels : int, default=1024
        Channels of the convolutions that replace the fully connected layers; 1024 in the paper.
    rate : int, default=12
        Atrous rate of the first of them; 12 in the paper.
    dropout : float, default=0.5
        Fraction of the features of the head that is dropped in training.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described, or the weights do not fit.

    Notes
    -----
    There are 20 505 429 parameters for 21 classes.

    References
    ----------
    .. [1] L.-C. Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully
       Connected CRFs", ICLR, 2015, arXiv:1412.7062.

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
    """DeepLab v2: atrous spatial pyramid pooling that adds the scores of its branches [1]_.

    All branches take the same features. Each has a 3x3 convolution of another atrous rate and
    scores every class; the scores are added (section 3.2 of [1]_). With a VGG encoder, a branch has
    two further layers (ASPP-L). With a ResNet, it is only the 3x3 convolution, as in the published
    model.

    Parameters
    ----------
    in_channels : int, default=3
        Channels of the image.
    n_classes : int, default=2
        Number of classes; the logits have one channel for each.
    encoder : str, default="resnet101"
        A name in :data:`hybridseg.networks.ENCODERS`; "resnet101" or "vgg16" in the paper.
    weights : str or path, optional
        Pretrained weights of the encoder; see :func:`hybridseg.networks.encoder`. Default: random.
    output_stride : {8, 16, 32}, default=8
        Stride of the logits in pixels before upsampling.
    rates : sequence of int, default=(6, 12, 18, 24)
        Atrous rates of the branches.
    head_channels : int, "auto" or None, default="auto"
        Channels between the layers of a branch; None leaves the further layers out. "auto" is 1024
        with a VGG encoder, as published, and None with other encoders.
    dropout : float, default=0.5
        Fraction of the features of a branch that is dropped in training, if it has further layers.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described, or the weights do not fit.

    Notes
    -----
    For 21 classes, there are 37 877 652 parameters with VGG16 and 44 048 532 with ResNet-101.

    References
    ----------
    .. [1] L.-C. Chen et al., "DeepLab: Semantic Image Segmentation with Deep Convolutional Nets,
       Atrous Convolution, and Fully Connected CRFs", IEEE TPAMI 40(4), 2018, arXiv:1606.00915.

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
    """Return a classifier's fully connected layers as convolutions, the first one atrous."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, 3, padding=rate, dilation=rate),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv2d(channels, channels, 1),
        nn.ReLU(inplace=True),
        nn.Dropout(dropout),
        nn.Conv2d(channels, n_classes, 1),
    )
