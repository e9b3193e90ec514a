"""ESPNet of Mehta, Rastegari, Caspi, Shapiro and Hajishirzi (2018)."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridseg.networks.blocks import bn_prelu, check_counts, conv_bn_prelu, pad_to_multiple
from hybridseg.networks.published import Renames, load_whole_or_encoder

__all__ = ["ESPNet"]

_EPS = 1e-3
#: Dilations of the spatial pyramid: K = 5 branches with dilation 2^(k-1) (section 3.1).
_DILATIONS = (1, 2, 4, 8, 16)

#: Patterns that turn the tensor names of the authors' files into ours.
_RENAMES: Renames = (
    (r"^encoder\.classifier\.conv\.", "score3."),
    (r"^level3_C\.conv\.", "score2."),
    (r"^br\.", "norm3."),
    (r"^conv\.", "fuse."),
    (r"^up_l3\.0\.", "up3."),
    (r"^combine_l2_l3\.", "mix."),
    (r"^up_l2\.", "up2."),
    (r"^classifier\.", "last."),
    (r"^encoder\.level1\.", "encoder.first."),
    (r"^encoder\.b(\d)\.", r"encoder.norm\1."),
    (r"\.level(\d)_0\.(bn|act)\.", r".down\1.norm.\2."),
    (r"\.level(\d)_0\.", r".down\1."),
    (r"\.level(\d)\.", r".stage\1."),
    (r"\.bn\.(bn|act)\.", r".norm.\1."),
    (r"\.c1\.conv\.", ".reduce."),
    *((rf"\.d{d}\.conv\.", f".branches.{i}.") for i, d in enumerate(_DILATIONS)),
)


class ESPNet(nn.Module):
    """ESPNet: efficient spatial pyramids of dilated convolutions, a third of a million parameters.

    An ESP unit reduces its input to a fifth of the channels and convolves it with five dilations in
    parallel. It adds the results in the order of their dilations (hierarchical feature fusion,
    which removes the gridding artifacts of dilated convolutions), and concatenates the sums. The
    encoder works at strides 2, 4 and 8 and takes the downsampled image again at strides 2 and 4. A
    light decoder scores the features of strides 8 and 4, and concatenates those of stride 2 before
    the last upsampling (ESPNet in Figure 4d of [1]_).

    Parameters
    ----------
    in_channels : int, default=3
        Channels of the image.
    n_classes : int, default=2
        Number of classes; the logits have one channel for each. The layers of the decoder have as
        many channels, and at least five.
    depths : (int, int), default=(2, 8)
        ESP units at strides 4 and 8: the paper's (alpha2, alpha3) = (2, 8), also called p and q.
    image_in_fusion : bool, default=True
        Concatenate the image at half its size to the features of stride 2 in the decoder. The
        authors' CamVid model does this, and their Cityscapes model does not.
    weights : str or path, optional
        A state dict of the whole network: the authors' (``espnet_p_2_q_8_camvid.pth`` with 12
        classes; ``espnet_p_2_q_8.pth`` with 20 classes and ``image_in_fusion=False``), or our own.
        Default: random.
    encoder_weights : str or path, optional
        One of the same files, from which only the encoder is loaded. ``n_classes`` is then free:
        use it to begin a training on other classes.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described, or the weights do not fit.

    Notes
    -----
    Details follow the authors' published weights. Batch normalization and PReLU follow each unit.
    The image is downsampled by 3x3 means. Features are upsampled by 2x2 transposed convolutions.
    There are 354 517 parameters with 12 classes, as in the authors' CamVid file, and 364 569 with
    20 classes and ``image_in_fusion=False``, as in their Cityscapes file (0.36 million in the
    paper).

    The authors' files expect channels in the order blue, green, red, standardized and then divided
    by 255. CamVid has 480 x 360 pixels, with classes in SegNet's order and "void" last; Cityscapes
    has 1024 x 512. ``adapt(network, **ESPNet.inputs["camvid"])``, or "cityscapes", takes colors
    0..255 and standardizes them inside the network.

    References
    ----------
    .. [1] S. Mehta, M. Rastegari, A. Caspi, L. Shapiro, H. Hajishirzi, "ESPNet: Efficient Spatial
       Pyramid of Dilated Convolutions for Semantic Segmentation", ECCV, 2018, arXiv:1803.06815.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import ESPNet
    >>> network = ESPNet(n_classes=4).eval()
    >>> tuple(network(torch.zeros(1, 3, 37, 50)).shape)
    (1, 4, 37, 50)
    """

    #: The arguments of :func:`hybridseg.networks.adapt` for the authors' weights.
    inputs: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "camvid": {
            "mean": (110.33, 108.41, 105.03),
            "std": (255 * 72.13, 255 * 72.69, 255 * 69.90),
            "reverse_channels": True,
        },
        "cityscapes": {
            "mean": (72.3923, 82.9090, 73.1584),
            "std": (255 * 45.3192, 255 * 46.1529, 255 * 44.9148),
            "reverse_channels": True,
        },
    }

    def __init__(
        self,
        in_channels: int = 3,
        n_classes: int = 2,
        *,
        depths: Sequence[int] = (2, 8),
        image_in_fusion: bool = True,
        weights: str | os.PathLike[str] | None = None,
        encoder_weights: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        check_counts(in_channels=in_channels, n_classes=n_classes)
        self.image_in_fusion = image_in_fusion
        self.encoder = _Encoder(in_channels, depths)
        fine, middle, coarse = self.encoder.channels
        width = max(n_classes, len(_DILATIONS))
        self.score3 = nn.Conv2d(coarse, width, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(width, eps=_EPS)
        self.up3 = _doubling(width, width)
        self.score2 = nn.Conv2d(middle, width, 1, bias=False)
        self.mix = nn.Sequential(
            bn_prelu(2 * width, eps=_EPS), _Pyramid(2 * width, width, residual=False)
        )
        self.up2 = nn.Sequential(_doubling(width, width), bn_prelu(width, eps=_EPS))
        joined = fine if image_in_fusion else fine - in_channels
        self.fuse = conv_bn_prelu(width + joined, width, eps=_EPS)
        self.last = _doubling(width, n_classes)
        load_whole_or_encoder(self, weights, encoder_weights, _RENAMES)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits ``(B, L, H, W)`` of images ``(B, C, H, W)``."""
        height, width = images.shape[-2:]
        padded = pad_to_multiple(images, 8, training=self.training)
        first, fine, middle, coarse = self.encoder(padded)
        scores = self.up3(self.norm3(self.score3(coarse)))
        scores = self.up2(self.mix(torch.cat([self.score2(middle), scores], dim=1)))
        joined = fine if self.image_in_fusion else first
        scores = self.fuse(torch.cat([scores, joined], dim=1))
        return self.last(scores)[..., :height, :width]


class _Encoder(nn.Module):
    """Features of stride 2 (without and with the image), 4 and 8."""

    def __init__(self, in_channels: int, depths: Sequence[int]) -> None:
        super().__init__()
        depth2, depth3 = depths
        self.channels = (16 + in_channels, 128 + in_channels, 256)
        fine, middle, coarse = self.channels
        self.first = conv_bn_prelu(in_channels, 16, stride=2, eps=_EPS)
        self.norm1 = bn_prelu(fine, eps=_EPS)
        self.down2 = _Pyramid(fine, 64, stride=2)
        self.stage2 = nn.Sequential(*(_Pyramid(64, 64) for _ in range(depth2)))
        self.norm2 = bn_prelu(middle, eps=_EPS)
        self.down3 = _Pyramid(middle, 128, stride=2)
        self.stage3 = nn.Sequential(*(_Pyramid(128, 128) for _ in range(depth3)))
        self.norm3 = bn_prelu(coarse, eps=_EPS)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        half = functional.avg_pool2d(images, 3, stride=2, padding=1)
        quarter = functional.avg_pool2d(half, 3, stride=2, padding=1)
        first = self.first(images)
        fine = self.norm1(torch.cat([first, half], dim=1))
        reduced = self.down2(fine)
        middle = self.norm2(torch.cat([self.stage2(reduced), reduced, quarter], dim=1))
        reduced = self.down3(middle)
        coarse = self.norm3(torch.cat([reduced, self.stage3(reduced)], dim=1))
        return first, fine, middle, coarse


class _Pyramid(nn.Module):
    """The ESP unit: reduce, convolve with several dilations, add in their order, join (Figure 1).

    With a stride, the reduction halves the size, and there is no residual connection.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, residual: bool = True
    ) -> None:
        super().__init__()
        narrow = out_channels // len(_DILATIONS)
        # The branch without dilation also has the remainder of the division.
        widths = [out_channels - (len(_DILATIONS) - 1) * narrow] + [narrow] * 4
        self.residual = residual and stride == 1
        size = 3 if stride > 1 else 1
        self.reduce = nn.Conv2d(
            in_channels, narrow, size, stride=stride, padding=size // 2, bias=False
        )
        self.branches = nn.ModuleList(
            nn.Conv2d(narrow, width, 3, padding=dilation, dilation=dilation, bias=False)
            for width, dilation in zip(widths, _DILATIONS, strict=True)
        )
        self.norm = bn_prelu(out_channels, eps=_EPS)

    def forward(self, features: Tensor) -> Tensor:
        reduced = self.reduce(features)
        plain, *dilated = (branch(reduced) for branch in self.branches)
        joined = [plain, dilated[0]]
        for more in dilated[1:]:
            joined.append(joined[-1] + more)
        found = torch.cat(joined, dim=1)
        return self.norm(features + found if self.residual else found)


def _doubling(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_channels, out_channels, 2, stride=2, bias=False)
