"""The semantic branch of panoptic feature pyramid networks (Kirillov et al. 2019)."""

from __future__ import annotations

import math
import os

from torch import Tensor, nn

from hybridseg.networks.blocks import check_counts
from hybridseg.networks.encoded import EncodedNetwork
from hybridseg.networks.encoders import encoder as build_encoder
from hybridseg.validation import check_number

__all__ = ["FPN"]


class FPN(EncodedNetwork):
    """Panoptic FPN's semantic branch: pyramid levels are upsampled to stride 4 and added [1]_.

    The feature pyramid is torchvision's: 1x1 convolutions bring features of stride 4 to 32 to the
    same number of channels, and coarser features are added to finer ones from the top down [2]_.
    The head is that of section 3.1 of [1]_: each level repeats a 3x3 convolution, group
    normalization, ReLU and upsampling by two until it has stride 4.

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
    pyramid_channels : int, default=256
        Channels of the levels of the pyramid; 256 in the paper.
    head_channels : int, default=128
        Channels of the head, a multiple of 8; 128 in the paper.
    smooth : bool, default=True
        Apply a 3x3 convolution to each level of the pyramid before the head, as in both papers. If
        False, as in segmentation_models_pytorch, there are three tenths fewer operations.
    dropout : float, default=0.0
        Fraction of the summed features that is dropped in training.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described, or the weights do not fit.

    References
    ----------
    .. [1] A. Kirillov, R. Girshick, K. He, P. Dollár, "Panoptic Feature Pyramid Networks", CVPR,
       2019, arXiv:1901.02446.
    .. [2] T.-Y. Lin et al., "Feature Pyramid Networks for Object Detection", CVPR, 2017.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import FPN
    >>> network = FPN(n_classes=4, encoder="resnet18", pyramid_channels=16, head_channels=8).eval()
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
        pyramid_channels: int = 256,
        head_channels: int = 128,
        smooth: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        # Imported here, because torchvision takes a second to import.
        from torchvision.ops import FeaturePyramidNetwork

        check_counts(n_classes=n_classes, pyramid_channels=pyramid_channels)
        check_number(head_channels, "head_channels", minimum=8, integer=True)
        if head_channels % 8:
            raise ValueError(f"head_channels={head_channels}; expected a multiple of 8.")
        self.encoder = build_encoder(encoder, in_channels, weights=weights)
        self.first = self.encoder.strides.index(4)
        channels = list(self.encoder.channels[self.first :])
        self.pyramid = FeaturePyramidNetwork(channels, pyramid_channels)
        if not smooth:
            self.pyramid.layer_blocks = nn.ModuleList(nn.Identity() for _ in channels)
        self.levels = nn.ModuleList(
            _level(pyramid_channels, head_channels, doublings) for doublings in range(len(channels))
        )
        self.dropout = nn.Dropout2d(dropout)
        self.score = nn.Conv2d(head_channels, n_classes, 1)

    def _logits(self, features: list[Tensor]) -> Tensor:
        fine = features[self.first :]
        pyramid = self.pyramid({str(k): feature for k, feature in enumerate(fine)})
        parts = zip(self.levels, pyramid.values(), strict=True)
        return self.score(self.dropout(sum(level(found) for level, found in parts)))


def _level(in_channels: int, channels: int, doublings: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for step in range(max(1, doublings)):
        layers += [
            nn.Conv2d(channels if step else in_channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(math.gcd(32, channels // 4), channels),
            nn.ReLU(inplace=True),
        ]
        if doublings:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
    return nn.Sequential(*layers)
