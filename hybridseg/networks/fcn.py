"""The fully convolutional networks of Long, Shelhamer and Darrell (2015)."""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor, nn

from hybridseg.networks.blocks import bilinear_upsampling, check_counts
from hybridseg.networks.encoded import EncodedNetwork
from hybridseg.networks.encoders import encoder as build_encoder

__all__ = ["FCN8s", "FCN16s", "FCN32s"]


class FCN8s(EncodedNetwork):
    """FCN-8s: a classifier as a convolutional network, with scores of strides 32, 16 and 8 [1]_.

    The fully connected layers of the classifier become convolutions, which score every 32nd pixel.
    The scores of finer features are *added* to the upsampled coarser ones. A transposed
    convolution, initialized to bilinear interpolation, upsamples the sum to the size of the image
    (sections 3.3 and 4.2 of [1]_).

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
    head_channels : int, default=4096
        Channels of the two convolutions that replace the fully connected layers; 4096 in the paper.
    learn_upsampling : bool, default=True
        Train the transposed convolutions, as in the paper. If False they stay bilinear, as in the
        published models.
    dropout : float, default=0.5
        Fraction of the features of the head that is dropped in training; 0.5 in the paper.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described, or the weights do not fit.

    Notes
    -----
    The published models pad the image by 100 pixels and crop the scores. Here the first convolution
    of the head keeps the size, and images whose size is no multiple of 32 are padded at the bottom
    and right. The score layers are initialized to zero, as in the paper. The head is initialized
    randomly, whereas the paper copies the weights of the classifier.

    There are 134 362 751 parameters for 21 classes, and those of the upsampling.

    References
    ----------
    .. [1] J. Long, E. Shelhamer, T. Darrell, "Fully Convolutional Networks for Semantic
       Segmentation", CVPR, 2015, arXiv:1411.4038.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import FCN8s
    >>> network = FCN8s(n_classes=4, encoder="resnet18", head_channels=32).eval()
    >>> tuple(network(torch.zeros(1, 3, 37, 50)).shape)
    (1, 4, 37, 50)
    """

    _skips: tuple[int, ...] = (16, 8)

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 2,
        *,
        encoder: str = "vgg16",
        weights: str | os.PathLike[str] | None = None,
        head_channels: int = 4096,
        learn_upsampling: bool = True,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_counts(n_classes=n_classes, head_channels=head_channels)
        self.encoder = build_encoder(encoder, in_channels, weights=weights)
        deepest = self.encoder.channels[-1]
        self.head = nn.Sequential(
            nn.Conv2d(deepest, head_channels, 7, padding=3),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Conv2d(head_channels, head_channels, 1),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
        )
        self.score = _zero(nn.Conv2d(head_channels, n_classes, 1))
        places = [self.encoder.strides.index(stride) for stride in self._skips]
        self.places = tuple(places)
        self.skip_scores = nn.ModuleList(
            _zero(nn.Conv2d(self.encoder.channels[place], n_classes, 1)) for place in places
        )
        options: dict[str, Any] = {"learn": learn_upsampling}
        self.upsample = nn.ModuleList(bilinear_upsampling(n_classes, 2, **options) for _ in places)
        last = self._skips[-1] if self._skips else 32
        self.last = bilinear_upsampling(n_classes, last, **options)

    def _logits(self, features: list[Tensor]) -> Tensor:
        scores = self.score(self.head(features[-1]))
        parts = zip(self.upsample, self.skip_scores, self.places, strict=True)
        for upsample, score, place in parts:
            scores = upsample(scores) + score(features[place])
        return self.last(scores)


def _zero(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class FCN16s(FCN8s):
    """FCN-16s: an :class:`FCN8s` without the scores of stride 8.

    Parameters
    ----------
    in_channels, n_classes, encoder, weights, head_channels, learn_upsampling, dropout
        See :class:`FCN8s`. There are 134 357 354 parameters for 21 classes, and those of the
        upsampling.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described, or the weights do not fit.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import FCN16s
    >>> network = FCN16s(n_classes=4, encoder="resnet18", head_channels=32).eval()
    >>> tuple(network(torch.zeros(1, 3, 37, 50)).shape)
    (1, 4, 37, 50)
    """

    _skips = (16,)


class FCN32s(FCN8s):
    """FCN-32s: an :class:`FCN8s` with the scores of stride 32 only.

    Parameters
    ----------
    in_channels, n_classes, encoder, weights, head_channels, learn_upsampling, dropout
        See :class:`FCN8s`. There are 134 346 581 parameters for 21 classes, and those of the
        upsampling.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described, or the weights do not fit.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import FCN32s
    >>> network = FCN32s(n_classes=4, encoder="resnet18", head_channels=32).eval()
    >>> tuple(network(torch.zeros(1, 3, 37, 50)).shape)
    (1, 4, 37, 50)
    """

    _skips = ()
