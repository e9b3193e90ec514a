"""BiSeNet, the bilateral segmentation network of Yu et al. (2018)."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hybridseg.networks.blocks import (
    ImagePooling,
    PooledNorm,
    check_counts,
    conv_bn_relu,
    resize,
)
from hybridseg.networks.encoded import EncodedNetwork
from hybridseg.networks.encoders import encoder as build_encoder

__all__ = ["BiSeNet"]


class BiSeNet(EncodedNetwork):
    """BiSeNet: a shallow path for details beside a deep path for context [1]_.

    The spatial path reduces the image to stride 8 with four convolutions. The context path is an
    encoder. Attention refinement weights the channels of its features of stride 16 and 32, which
    are upsampled to stride 8 together with the global mean. A fusion module weights the channels of
    both paths again (section 3 of [1]_).

    Parameters
    ----------
    in_channels : int, default=3
        Channels of the image.
    n_classes : int, default=2
        Number of classes; the logits have one channel for each.
    encoder : str, default="resnet18"
        A name in :data:`hybridseg.networks.ENCODERS`; "resnet18" in the paper's larger model.
    weights : str or path, optional
        Pretrained weights of the encoder; see :func:`hybridseg.networks.encoder`. Default: random.
    width : int, default=64
        Channels of the first layers of the spatial path and of the head; 64 in the paper. The
        context path has twice as many.
    auxiliary : bool, default=False
        Add two auxiliary heads on the context path, which are trained too and not used in
        prediction (section 3.3 of [1]_). :meth:`with_auxiliary` returns their logits.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described, or the weights do not fit.

    Notes
    -----
    As in the authors' code, the spatial path begins with a 7x7 convolution and ends with a 1x1
    convolution (the text of the paper has three 3x3 convolutions), and a 3x3 convolution follows
    each upsampling of the context path. There are 12 894 163 parameters for 19 classes, and 600 614
    in the auxiliary heads.

    References
    ----------
    .. [1] C. Yu, J. Wang, C. Peng, C. Gao, G. Yu, N. Sang, "BiSeNet: Bilateral Segmentation Network
       for Real-time Semantic Segmentation", ECCV, 2018, arXiv:1808.00897.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import BiSeNet
    >>> network = BiSeNet(n_classes=4, width=8, auxiliary=True)
    >>> [tuple(logits.shape) for logits in network.with_auxiliary(torch.zeros(1, 3, 37, 50))]
    [(1, 4, 37, 50), (1, 4, 37, 50), (1, 4, 37, 50)]
    """

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 2,
        *,
        encoder: str = "resnet18",
        weights: str | os.PathLike[str] | None = None,
        width: int = 64,
        auxiliary: bool = False,
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, n_classes=n_classes, width=width)
        context = 2 * width
        self.spatial = nn.Sequential(
            conv_bn_relu(in_channels, width, 7, stride=2),
            conv_bn_relu(width, width, 3, stride=2),
            conv_bn_relu(width, width, 3, stride=2),
            conv_bn_relu(width, context, 1),
        )
        self.encoder = build_encoder(encoder, in_channels, weights=weights)
        deepest = self.encoder.channels[-1:-3:-1]
        self.mean = ImagePooling(deepest[0], context)
        self.attend = nn.ModuleList(_Attention(channels, context) for channels in deepest)
        self.refine = nn.ModuleList(conv_bn_relu(context, context) for _ in deepest)
        self.fuse = _Fusion(2 * context)
        self.head = _head(2 * context, width, n_classes)
        self.auxiliary = nn.ModuleList(
            _head(context, 4 * width, n_classes) for _ in deepest if auxiliary
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, L, H, W)`` of images ``(B, C, H, W)``."""
        return self._scores(images, [self.head])[0]

    def with_auxiliary(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the logits, and those of the auxiliary heads at stride 16 and 8.

        All are ``(B, L, H, W)``. The loss in the paper is the sum of the cross-entropies of all
        three. A network without auxiliary heads returns the logits only.
        """
        return self._scores(images, [self.head, *self.auxiliary])

    def _scores(self, images: Tensor, heads: Sequence[nn.Module]) -> tuple[Tensor, ...]:
        padded = self._padded(images)
        contexts = self._contexts(padded)
        fused = self.fuse(torch.cat([self.spatial(padded), contexts[-1]], dim=1))
        return tuple(
            self._at_size_of(images, padded, head(features))
            for head, features in zip(heads, [fused, *contexts], strict=False)
        )

    def _contexts(self, padded: Tensor) -> list[Tensor]:
        """Return the features of the context path at stride 16 and at stride 8."""
        eighth, sixteenth, last = self.encoder(padded)[-3:]
        context, contexts = self.mean(last), []
        parts = zip((last, sixteenth), (sixteenth, eighth), self.attend, self.refine, strict=True)
        for features, finer, attend, refine in parts:
            context = refine(resize(attend(features) + context, finer.shape[-2:]))
            contexts.append(context)
        return contexts


class _Attention(nn.Module):
    """Attention refinement (Figure 2b): the channels are weighted by a function of their means."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.conv = conv_bn_relu(in_channels, channels)
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels, 1, bias=False),
            PooledNorm(channels),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        features = self.conv(features)
        return features * self.weigh(features)


class _Fusion(nn.Module):
    """Feature fusion (Figure 2c): a 1x1 convolution, whose channels are weighted by their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = conv_bn_relu(channels, channels, 1)
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        mixed = self.mix(features)
        return mixed + mixed * self.weigh(mixed)


def _head(in_channels: int, channels: int, n_classes: int) -> nn.Sequential:
    return nn.Sequential(conv_bn_relu(in_channels, channels), nn.Conv2d(channels, n_classes, 1))
