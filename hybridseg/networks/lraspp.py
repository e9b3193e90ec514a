"""LR-ASPP, the light segmentation head of MobileNetV3 (Howard et al. 2019)."""

from __future__ import annotations

import os

from torch import Tensor, nn

from hybridseg.networks.blocks import check_counts, conv_bn_relu, resize
from hybridseg.networks.encoded import EncodedNetwork
from hybridseg.networks.encoders import encoder as build_encoder

__all__ = ["LRASPP"]


class LRASPP(EncodedNetwork):
    """Lite R-ASPP: gated features of stride 16, whose scores are added to those of stride 8 [1]_.

    A function of the global mean weights the channels of the deepest features (section 6.4 of
    [1]_).

    Parameters
    ----------
    in_channels : int, default=3
        Channels of the image.
    n_classes : int, default=2
        Number of classes; the logits have one channel for each.
    encoder : str, default="mobilenet_v3_large"
        A name in :data:`hybridseg.networks.ENCODERS`; "mobilenet_v3_large" or "mobilenet_v3_small"
        in the paper.
    weights : str or path, optional
        Pretrained weights of the encoder; see :func:`hybridseg.networks.encoder`. Default: random.
    output_stride : {8, 16, 32}, default=16
        Stride of the deepest features.
    head_channels : int, default=128
        Channels to which the deepest features are reduced; 128 in the paper.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described, or the weights do not fit.

    Notes
    -----
    There are 3 221 538 parameters for 21 classes with "mobilenet_v3_large". The mean is taken over
    the whole image, as in torchvision, whereas the paper pools with windows of 49 x 49.

    References
    ----------
    .. [1] A. Howard et al., "Searching for MobileNetV3", ICCV, 2019, arXiv:1905.02244, section 6.4.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import LRASPP
    >>> network = LRASPP(n_classes=4, encoder="mobilenet_v3_small").eval()
    >>> tuple(network(torch.zeros(1, 3, 37, 50)).shape)
    (1, 4, 37, 50)
    """

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 2,
        *,
        encoder: str = "mobilenet_v3_large",
        weights: str | os.PathLike[str] | None = None,
        output_stride: int = 16,
        head_channels: int = 128,
    ) -> None:
        super().__init__()
        check_counts(n_classes=n_classes, head_channels=head_channels)
        self.encoder = build_encoder(
            encoder, in_channels, weights=weights, output_stride=output_stride
        )
        channels, strides = self.encoder.channels, self.encoder.strides
        self.fine = strides.index(8)
        self.reduce = conv_bn_relu(channels[-1], head_channels, 1)
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels[-1], head_channels, 1, bias=False),
            nn.Sigmoid(),
        )
        self.score_fine = nn.Conv2d(channels[self.fine], n_classes, 1)
        self.score = nn.Conv2d(head_channels, n_classes, 1)

    def _logits(self, features: list[Tensor]) -> Tensor:
        fine = features[self.fine]
        coarse = self.reduce(features[-1]) * self.weigh(features[-1])
        return self.score_fine(fine) + self.score(resize(coarse, fine.shape[-2:]))
