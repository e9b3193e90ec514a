"""ESPNetv2 of Mehta, Rastegari, Shapiro and Hajishirzi (2019)."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridseg.networks.blocks import (
    bn_prelu,
    check_counts,
    conv_bn_prelu,
    pad_to_multiple,
    resize,
)
from hybridseg.networks.published import Renames, load_whole_or_encoder
from hybridseg.validation import check_number

__all__ = ["ESPNetv2"]

#: Number of branches of a unit, and of groups in its 1x1 convolutions.
_BRANCHES = 4
#: The widest kernel of the units at strides 4, 8 and 16, in pixels (section 3.1). A branch whose
#: kernel would be wider is not dilated.
_WIDEST = {4: 13, 8: 11, 16: 9}
_WIDEST_REPEATED = {8: 9, 16: 7}
#: Sizes at which the decoder's pyramids convolve features, as multiples of the features' size.
_SCALES = (2.0, 1.5, 1.0, 0.5, 0.1)
#: Channels of the decoder at strides 16, 8 and 4.
_DECODER = (64, 48, 32)
#: Channels of the downsampled image in the units with a stride.
_REINFORCE = 3

#: Patterns that turn the tensor names of the authors' files into ours.
_RENAMES: Renames = (
    (r"\.eesp\.module_act\.", None),  # a unit with a stride does not use its activation
    (r"^base_net\.level1\.", "encoder.first."),
    (r"^base_net\.level(\d)_0\.", r"encoder.down\1."),
    (r"^base_net\.level(\d)\.", r"encoder.stage\1."),
    (r"\.eesp\.", ".unit."),
    (r"\.inp_reinf\.", ".reinforce."),
    (r"\.proj_1x1\.", ".reduce."),
    (r"\.spp_dw\.(\d)\.conv\.", r".branches.\1."),
    (r"\.br_after_cat\.", ".norm."),
    (r"\.conv_1x1_exp\.", ".expand."),
    (r"\.module_act\.", ".act."),
    (r"^bu_dec_l(\d)\.", r"pyramid\1."),
    (r"^merge_enc_dec_l(\d)\.", r"skip\1."),
    (r"^bu_br_l(\d)\.0\.", r"norm\1.bn."),
    (r"^bu_br_l(\d)\.1\.", r"norm\1.act."),
    (r"\.projection_layer\.", ".reduce."),
    (r"\.stages\.", ".branches."),
    (r"\.merge_layer\.0\.", ".norm."),
    (r"\.merge_layer\.2\.", ".mix."),
    (r"\.merge_layer\.3\.", ".expand."),
    (r"\.wt_layer\.1\.", ".weigh.1."),
    (r"\.expansion_layer\.", ".convolve."),
    (r"^(pyramid\d)\.br\.", r"\1.last."),
    (r"\.cbr\.0\.", ".conv."),
    (r"\.(cbr\.1|br\.0)\.", ".bn."),
    (r"\.(cbr\.2|br\.1)\.", ".act."),
)


class ESPNetv2(nn.Module):
    """ESPNetv2: pyramids of depthwise dilated convolutions with an efficient decoder [1]_.

    An EESP unit reduces its input by a grouped 1x1 convolution and convolves each channel with four
    dilations. It adds the results in the order of their dilations, and expands them by a grouped
    1x1 convolution. A unit that halves the size concatenates its result with its pooled input and
    adds the downsampled image (Figures 1 and 2 of [1]_). The features have strides 2, 4, 8 and 16.

    Parameters
    ----------
    in_channels : int, default=3
        Channels of the image.
    n_classes : int, default=2
        Number of classes; the logits have one channel for each.
    scale : float, default=1.0
        The paper's width multiplier s, at least 0.5; 0.5, 1 and 2 for the published weights.
        Widths are rounded to multiples of 16; the first is at most 32.
    depths : (int, int), default=(3, 7)
        Units without stride at strides 8 and 16; (3, 7) in the paper.
    weights : str or path, optional
        A state dict of the whole network: the authors' (21 classes of PASCAL VOC, or 20 classes of
        Cityscapes with the ground last), or our own. Default: random.
    encoder_weights : str or path, optional
        One of the same files, from which only the encoder is loaded. ``n_classes`` is then free:
        use it to begin a training on other classes.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described, or the weights do not fit.

    Notes
    -----
    The decoder is that of the authors' published segmentation weights (efficient pyramid pooling,
    [2]_). Features are projected to half as many channels as there are classes (between 5 and 16),
    convolved depthwise at five sizes, mixed channel by channel, and expanded. Between two pyramids,
    the encoder's features of the next stride are added, weighted by their global means. With 21
    classes and scales 0.5, 1 and 2, the network has 80 241, 233 797 and 788 773 parameters. The
    authors' files have 112, 224 and 480 more, of activations that are not used.

    The authors' files expect red, green, blue on [0, 1], standardized with mean (0.485, 0.456,
    0.406) and standard deviation (0.229, 0.224, 0.225).
    ``adapt(network, **ESPNetv2.inputs["imagenet"])`` takes colors 0..255 and standardizes them
    inside the network.

    References
    ----------
    .. [1] S. Mehta, M. Rastegari, L. Shapiro, H. Hajishirzi, "ESPNetv2: A Light-weight, Power
       Efficient, and General Purpose Convolutional Neural Network", CVPR, 2019, arXiv:1811.11431.
    .. [2] S. Mehta, H. Hajishirzi, M. Rastegari, "DiCENet: Dimension-wise Convolutions for
       Efficient Networks", PAMI, 2020, arXiv:1906.03516.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import ESPNetv2
    >>> network = ESPNetv2(n_classes=4, scale=0.5).eval()
    >>> tuple(network(torch.zeros(1, 3, 37, 50)).shape)
    (1, 4, 37, 50)
    """

    #: The arguments of :func:`hybridseg.networks.adapt` for the authors' weights.
    inputs: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "imagenet": {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
    }

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 2,
        *,
        scale: float = 1.0,
        depths: Sequence[int] = (3, 7),
        weights: str | os.PathLike[str] | None = None,
        encoder_weights: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, n_classes=n_classes)
        check_number(scale, "scale", minimum=0.5)
        self.encoder = _Encoder(in_channels, scale, depths)
        stride2, stride4, stride8, stride16 = self.encoder.channels
        narrow = min(max(n_classes // 2, 5), 16)
        wide, middle, fine = _DECODER
        self.pyramid1 = _PyramidPooling(stride16, narrow, wide)
        self.skip2 = _WeightedSkip(stride8, wide)
        self.norm2 = bn_prelu(wide)
        self.pyramid2 = _PyramidPooling(wide, narrow, middle)
        self.skip3 = _WeightedSkip(stride4, middle)
        self.norm3 = bn_prelu(middle)
        self.pyramid3 = _PyramidPooling(middle, narrow, fine)
        self.skip4 = _WeightedSkip(stride2, fine)
        self.norm4 = bn_prelu(fine)
        self.pyramid4 = _PyramidPooling(fine, narrow, n_classes, scores=True)
        load_whole_or_encoder(self, weights, encoder_weights, _RENAMES)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, L, H, W)`` of images ``(B, C, H, W)``."""
        height, width = images.shape[-2:]
        padded = pad_to_multiple(images, 16, training=self.training)
        stride2, stride4, stride8, stride16 = self.encoder(padded)
        found = self.pyramid1(stride16)
        for features, skip, norm, pyramid in (
            (stride8, self.skip2, self.norm2, self.pyramid2),
            (stride4, self.skip3, self.norm3, self.pyramid3),
            (stride2, self.skip4, self.norm4, self.pyramid4),
        ):
            enlarged = resize(found, features.shape[-2:], align_corners=True)
            found = pyramid(norm(skip(features) + enlarged))
        return resize(found, padded.shape[-2:], align_corners=True)[..., :height, :width]


class _Encoder(nn.Module):
    """Features of stride 2, 4, 8 and 16."""

    def __init__(self, in_channels: int, scale: float, depths: Sequence[int]) -> None:
        super().__init__()
        depth3, depth4 = depths
        first, *others = (16 * max(1, round(width * scale / 16)) for width in (32, 64, 128, 256))
        self.channels = (min(first, 32), *others)
        stride2, stride4, stride8, stride16 = self.channels
        self.first = conv_bn_prelu(in_channels, stride2, stride=2)
        self.down2 = _Down(in_channels, stride2, stride4, _WIDEST[4])
        self.down3 = _Down(in_channels, stride4, stride8, _WIDEST[8])
        self.stage3 = _repeated(stride8, _WIDEST_REPEATED[8], depth3)
        self.down4 = _Down(in_channels, stride8, stride16, _WIDEST[16])
        self.stage4 = _repeated(stride16, _WIDEST_REPEATED[16], depth4)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        quarter = _halved(_halved(images))
        eighth = _halved(quarter)
        stride2 = self.first(images)
        stride4 = self.down2(stride2, quarter)
        stride8 = self.stage3(self.down3(stride4, eighth))
        stride16 = self.stage4(self.down4(stride8, _halved(eighth)))
        return stride2, stride4, stride8, stride16


def _repeated(channels: int, widest: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(_Unit(channels, channels, widest) for _ in range(depth)))


class _Unit(nn.Module):
    """The EESP unit (Figure 1c). With a stride, it has no residual connection and no activation."""

    def __init__(
        self, in_channels: int, out_channels: int, widest: int, *, stride: int = 1
    ) -> None:
        super().__init__()
        narrow = out_channels // _BRANCHES
        self.reduce = conv_bn_prelu(in_channels, narrow, 1, groups=_BRANCHES)
        self.branches = nn.ModuleList(
            nn.Conv2d(
                narrow,
                narrow,
                3,
                stride=stride,
                padding=dilation,
                dilation=dilation,
                groups=narrow,
                bias=False,
            )
            for dilation in _dilations(widest)
        )
        self.norm = bn_prelu(out_channels)
        self.expand = conv_bn_prelu(out_channels, out_channels, 1, groups=_BRANCHES, act=False)
        self.act = nn.PReLU(out_channels) if stride == 1 else None

    def forward(self, features: Tensor) -> Tensor:
        reduced = self.reduce(features)
        joined = [self.branches[0](reduced)]
        for branch in self.branches[1:]:
            joined.append(joined[-1] + branch(reduced))
        found = self.expand(self.norm(torch.cat(joined, dim=1)))
        return found if self.act is None else self.act(features + found)


def _dilations(widest: int) -> list[int]:
    """Return increasing dilations of the branches; kernels wider than ``widest`` get dilation 1."""
    seen = [3 + 2 * k for k in range(_BRANCHES)]
    return sorted((size - 1) // 2 if size <= widest else 1 for size in seen)


class _Down(nn.Module):
    """Halve the size: concatenate a unit and the pooled input, and add the image (Figure 2)."""

    def __init__(
        self, image_channels: int, in_channels: int, out_channels: int, widest: int
    ) -> None:
        super().__init__()
        self.unit = _Unit(in_channels, out_channels - in_channels, widest, stride=2)
        self.reinforce = nn.Sequential(
            conv_bn_prelu(image_channels, _REINFORCE),
            conv_bn_prelu(_REINFORCE, out_channels, 1, act=False),
        )
        self.act = nn.PReLU(out_channels)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        joined = torch.cat([_halved(features), self.unit(features)], dim=1)
        return self.act(joined + self.reinforce(image))


def _halved(features: Tensor) -> Tensor:
    return functional.avg_pool2d(features, 3, stride=2, padding=1)


class _PyramidPooling(nn.Module):
    """Efficient pyramid pooling: project, convolve depthwise at five sizes, mix, expand."""

    def __init__(
        self, in_channels: int, narrow: int, out_channels: int, *, scores: bool = False
    ) -> None:
        super().__init__()
        self.reduce = conv_bn_prelu(in_channels, narrow, 1)
        self.branches = nn.ModuleList(
            nn.Conv2d(narrow, narrow, 3, padding=1, groups=narrow, bias=False) for _ in _SCALES
        )
        self.norm = bn_prelu(narrow * len(_SCALES))
        self.mix = conv_bn_prelu(narrow * len(_SCALES), narrow, groups=narrow)
        self.expand = nn.Conv2d(narrow, out_channels, 1, bias=scores)
        self.last = nn.Identity() if scores else bn_prelu(out_channels)

    def forward(self, features: Tensor) -> Tensor:
        reduced = self.reduce(features)
        seen = [
            _seen_at(scale, reduced, branch)
            for scale, branch in zip(_SCALES, self.branches, strict=True)
        ]
        joined = self.norm(torch.cat(seen, dim=1))
        # Reorder, so that the five sizes of each channel are adjacent and form one group.
        by_channel = joined.unflatten(1, (len(_SCALES), -1)).transpose(1, 2).flatten(1, 2)
        return self.last(self.expand(self.mix(by_channel)))


def _seen_at(scale: float, features: Tensor, convolve: nn.Module) -> Tensor:
    """Convolve features at another size, at least 5 pixels a side, and resize the result back."""
    own = features.shape[-2:]
    if scale == 1:
        return convolve(features)
    size = [max(5, math.ceil(side * scale)) for side in own]
    if scale > 1:
        larger = convolve(resize(features, size, align_corners=True))
        return functional.adaptive_avg_pool2d(larger, own)
    smaller = convolve(functional.adaptive_avg_pool2d(features, size))
    return resize(smaller, own, align_corners=True)


class _WeightedSkip(nn.Module):
    """Features of the encoder, convolved in groups and weighted by a function of their means."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.Sigmoid(),
        )
        self.convolve = conv_bn_prelu(
            in_channels, out_channels, groups=math.gcd(in_channels, out_channels)
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.convolve(features) * self.weigh(features)
