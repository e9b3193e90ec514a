"""Encoders: classifiers cut into stages, which return the feature maps of every stride."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hybridseg.networks import efficientnet_lite
from hybridseg.networks.published import read_state, rename
from hybridseg.networks.statistics import READY, Statistics, of_weights, warn_of_scale
from hybridseg.validation import check_number, check_option

__all__ = ["ENCODERS", "Encoder", "encoder"]


class Encoder(nn.Module):
    """A chain of stages that returns the output of each stage.

    Parameters
    ----------
    stages : sequence of nn.Module
        Applied one after another.
    channels, strides : sequence of int
        Channels and stride of each stage's output. The strides never decrease.

    Attributes
    ----------
    channels, strides : tuple of int
        As given.
    input_mean, input_std : tuple of float, or None
        The mean and standard deviation for each channel, on the scale of colors 0..255: pretrained
        weights expect ``(color - input_mean) / input_std``. None for random weights. The encoder
        does not standardize its input itself.


    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from hybridseg.networks import Encoder
    >>> stages = [nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)]
    >>> encoder = Encoder(stages, channels=(8, 16), strides=(2, 4))
    >>> [tuple(features.shape) for features in encoder(torch.zeros(1, 3, 32, 48))]
    [(1, 8, 16, 24), (1, 16, 8, 12)]
    """

    input_mean: tuple[float, ...] | None = None
    input_std: tuple[float, ...] | None = None

    def __init__(
        self, stages: Sequence[nn.Module], channels: Sequence[int], strides: Sequence[int]
    ) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.channels = tuple(channels)
        self.strides = tuple(strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return one feature map for each stage, ``(B, channels, H / stride, W / stride)``."""
        features = []
        for stage in self.stages:
            images = stage(images)
            features.append(images)
        return features


def encoder(
    name: str,
    in_channels: int = 3,
    *,
    weights: str | os.PathLike[str] | None = None,
    output_stride: int = 32,
) -> Encoder:
    """Build an encoder by name, with five feature maps of stride 2, 4, 8, 16 and 32.

    Parameters
    ----------
    name : str
        One of :data:`ENCODERS`: "vgg16", "vgg16_bn", "resnet18", "resnet34", "resnet50",
        "resnet101", "mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small", or
        "efficientnet_lite0", whose ImageNet weights are installed by ``hybridseg[pretrained]``.
    in_channels : int, default=3
        Channels of the image. Pretrained weights of the first convolution are summed for one
        channel. For other numbers, they are repeated in turn and multiplied by
        3 / ``in_channels``, so that the first features keep their scale.
    weights : str or path, optional
        Default: random. A path is a state dict of the torchvision model (``.pth``, read without
        running code, or ``.safetensors``). Another string names weights of torchvision, such as
        "DEFAULT" or "IMAGENET1K_V1", which are downloaded on first use. For "efficientnet_lite0",
        "DEFAULT" names the installed weights.
    output_stride : {8, 16, 32}, default=32
        Stride of the deepest features. Below 32, the last stages keep their size, and their
        convolutions are dilated instead, so that they keep their field of view (DeepLab).

    Returns
    -------
    Encoder

    Raises
    ------
    ValueError
        An unknown name or stride; ``weights`` is neither a file nor a known name; or the file does
        not fit the encoder.
    ImportError
        The package with the weights of "efficientnet_lite0" is not installed.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.networks import encoder
    >>> resnet = encoder("resnet18", in_channels=1).eval()
    >>> resnet.channels, resnet.strides
    ((64, 64, 128, 256, 512), (2, 4, 8, 16, 32))
    >>> tuple(resnet(torch.zeros(1, 1, 64, 96))[-1].shape)
    (1, 512, 2, 3)
    """
    check_option(name, "encoder", tuple(ENCODERS))
    check_number(in_channels, "in_channels", minimum=1, integer=True)
    if output_stride not in (8, 16, 32):
        raise ValueError(f"output_stride={output_stride!r}; expected 8, 16 or 32.")
    cut = ENCODERS[name]
    model = _model(name, weights)
    if in_channels != 3:
        _replace_first(model, in_channels, pretrained=weights is not None)
    built = cut(model, output_stride)
    if weights is not None:
        mean, std, _ = _LITE_INPUT if name == _LITE else _IMAGENET_INPUT
        built.input_mean, built.input_std = (_spread(value, in_channels) for value in (mean, std))
    return built


def input_statistics(source: Any) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the mean and standard deviation of each channel that pretrained weights expect.

    The input of the network is ``(color - mean) / deviation``.

    Parameters
    ----------
    source : nn.Module, str, weights, mapping or image processor
        One of these:

        - a network of this package, an encoder, any module that contains one, or the result of
          :func:`hybridseg.networks.adapt`;
        - "imagenet", "caffe" (blue, green, red, in this order), a name in :data:`ENCODERS`, or the
          name of torchvision's weights, such as "FCN_ResNet50_Weights.DEFAULT";
        - torchvision's weights themselves, such as ``FCN_ResNet50_Weights.DEFAULT``;
        - a mapping with "mean" and "std" (and optionally "input_range" and "input_space"), such as
          the results of ``get_preprocessing_params`` of segmentation_models_pytorch and
          ``resolve_data_config`` of timm;
        - an image processor of transformers.

    Returns
    -------
    (mean, deviation), or None
        Two tuples with one float for each channel, or one for all channels, on the scale of colors
        0..255. They are (0,) and (1,) for a module that was adapted with its own mean or standard
        deviation. None for a module without pretrained weights, which can be trained with any
        standardization.

    Raises
    ------
    TypeError, ValueError
        ``source`` is none of these.

    Examples
    --------
    >>> from hybridseg.networks import input_statistics
    >>> input_statistics("imagenet")
    ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
    """
    if not isinstance(source, nn.Module):
        return ready_statistics(source)[:2]
    for part in source.modules():
        mean, std = (getattr(part, name, None) for name in ("input_mean", "input_std"))
        if isinstance(mean, tuple) and isinstance(std, tuple):
            warn_of_scale(mean, std)
            return mean, std
    return None


def ready_statistics(source: Any) -> Statistics:
    """Return the statistics of a name, weights, a mapping or an image processor.

    Raises
    ------
    TypeError, ValueError
        ``source`` is none of those that :func:`input_statistics` lists.
    """
    if isinstance(source, str):
        if source == _LITE:
            return _LITE_INPUT
        if source in (*ENCODERS, "imagenet"):
            return _IMAGENET_INPUT
        if "_Weights." in source:
            from torchvision import models

            source = models.get_weight(source)
        else:
            source = READY[check_option(source, "statistics", (*READY, *ENCODERS))]
    if isinstance(source, Statistics):
        return source
    found = of_weights(source)
    if found is None:
        raise TypeError(
            f"statistics is a {type(source).__name__}; expected a name, such as 'imagenet', the "
            f"weights of torchvision, or a mapping with 'mean' and 'std'."
        )
    return found


def load_convolutions(target: nn.Module, name: str, weights: str | os.PathLike[str]) -> None:
    """Copy the convolutions and batch normalizations of a torchvision model, in their order.

    It serves networks whose encoder is a published one with another structure, such as SegNet.

    Raises
    ------
    ValueError
        An error of :func:`encoder`, or the shapes differ.
    """
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    model = _model(name, weights)
    first = next(module for module in target.modules() if isinstance(module, nn.Conv2d))
    if first.in_channels != 3:
        _replace_first(model, first.in_channels, pretrained=True)
    theirs = [module for module in model.features.modules() if isinstance(module, kinds)]
    ours = [module for module in target.modules() if isinstance(module, kinds)]
    for old, new in zip(theirs, ours, strict=True):
        if old.weight.shape != new.weight.shape:
            raise ValueError(
                f"weights of {name} have shape {tuple(old.weight.shape)}; expected "
                f"{tuple(new.weight.shape)}: build the network with the paper's width."
            )
        new.load_state_dict(old.state_dict())


def _model(name: str, weights: str | os.PathLike[str] | None) -> nn.Module:
    if name == _LITE:
        return _lite_model(weights)
    # Imported here, because torchvision takes a second to import and not all networks need it.
    from torchvision import models

    model = _vgg_features(name) if name.startswith("vgg") else models.get_model(name)
    if weights is None:
        return model
    known = models.get_model_weights(name)
    if isinstance(weights, str) and weights in known.__members__:
        state = known[weights].get_state_dict(check_hash=True)
    elif Path(weights).is_file():
        state = read_state(Path(weights))
    else:
        raise ValueError(
            f"weights={str(weights)!r} is neither a file nor a name of torchvision's weights for "
            f"{name}; expected a path, or one of {', '.join(known.__members__)}."
        )
    _load(model, state, f"weights={str(weights)!r} does not fit {name}")
    return model


def _lite_model(weights: str | os.PathLike[str] | None) -> nn.Module:
    model = efficientnet_lite.EfficientNetLite0()
    if weights is None:
        return model
    path = efficientnet_lite.packaged_weights() if weights in (_LITE, "DEFAULT") else Path(weights)
    if not path.is_file():
        raise ValueError(f"weights={str(weights)!r} is not a file; expected a path or 'DEFAULT'.")
    state = rename(read_state(path), efficientnet_lite.RENAMES)
    _load(model, state, f"weights={str(weights)!r} does not fit {_LITE}")
    return model


def _vgg_features(name: str) -> nn.Module:
    """Build VGG16 without its classifier, whose 120 million weights take seconds to initialize."""
    from torchvision.models import vgg

    model = nn.Module()
    model.features = vgg.make_layers(vgg.cfgs["D"], batch_norm=name.endswith("_bn"))
    for layer in model.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return model


def _load(model: nn.Module, state: Mapping[str, Tensor], complaint: str) -> None:
    """Load the features; the classifier, which may have other classes, is left out."""
    heads = ("classifier.", "fc.")
    wanted = {k: v for k, v in model.state_dict().items() if not k.startswith(heads)}
    given = {k: v for k, v in state.items() if not k.startswith(heads)}
    wrong = [k for k in wanted if k not in given or given[k].shape != wanted[k].shape]
    # The oldest files of torchvision lack the counters of batch normalization.
    wrong = [k for k in wrong if not k.endswith("num_batches_tracked")]
    if wrong:
        raise ValueError(
            f"{complaint}: {len(wrong)} of {len(wanted)} tensors are missing or have another "
            f"shape, the first {wrong[0]!r}."
        )
    model.load_state_dict({k: v for k, v in given.items() if k in wanted}, strict=False)


def _replace_first(model: nn.Module, in_channels: int, *, pretrained: bool) -> None:
    name, module = next(
        (name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)
    )
    fresh = type(module)(
        in_channels,
        module.out_channels,
        module.kernel_size,
        stride=module.stride,
        padding=module.padding,
        bias=module.bias is not None,
    )
    nn.init.kaiming_normal_(fresh.weight, mode="fan_out", nonlinearity="relu")
    if pretrained:
        with torch.no_grad():
            fresh.weight.copy_(spread_weights(module.weight, in_channels))
            if module.bias is not None:
                fresh.bias.copy_(module.bias)
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, fresh)


def _spread(values: Sequence[float], in_channels: int) -> tuple[float, ...]:
    """Return one value for each channel: the mean of all for gray images, else repeated in turn."""
    if in_channels == 1:
        return (sum(values) / len(values),)
    return tuple(values[channel % len(values)] for channel in range(in_channels))


def spread_weights(weight: Tensor, in_channels: int) -> Tensor:
    """Adapt first weights ``(K, 3, h, w)`` to other channels, and keep the scale of the outputs."""
    if in_channels == 1:
        return weight.sum(dim=1, keepdim=True)
    places = torch.arange(in_channels) % weight.shape[1]
    return weight[:, places] * (weight.shape[1] / in_channels)


# -- families of models ------------------------------------------------------------------------


def _cut_vgg(model: Any, output_stride: int) -> Encoder:
    """Cut after each pooling layer into five stages."""
    stages: list[list[nn.Module]] = [[]]
    for layer in model.features:
        stages[-1].append(layer)
        if isinstance(layer, nn.MaxPool2d):
            stages.append([])
    return _dilated(stages[:-1], (64, 128, 256, 512, 512), (2, 4, 8, 16, 32), output_stride)


def _cut_resnet(model: Any, output_stride: int) -> Encoder:
    stages = [
        [model.conv1, model.bn1, model.relu],
        [model.maxpool, model.layer1],
        [model.layer2],
        [model.layer3],
        [model.layer4],
    ]
    widest = [stage[-1][-1] for stage in stages[1:]]
    channels = [64, *((b.conv3 if hasattr(b, "conv3") else b.conv2).out_channels for b in widest)]
    return _dilated(stages, channels, (2, 4, 8, 16, 32), output_stride)


def _cut_mobilenet(model: Any, output_stride: int) -> Encoder:
    """Cut before each block that halves the size, so that it begins a new stage."""
    stages: list[list[nn.Module]] = [[]]
    stride, strides = 1, []
    for block in model.features:
        halves = any(isinstance(m, nn.Conv2d) and m.stride == (2, 2) for m in block.modules())
        if halves:
            if stages[-1]:
                stages.append([])
            stride *= 2
            strides.append(stride)
        stages[-1].append(block)
    channels = [stage[-1].out_channels for stage in stages]
    return _dilated(stages, channels, strides, output_stride)


def _dilated(
    stages: Sequence[Sequence[nn.Module]],
    channels: Sequence[int],
    strides: Sequence[int],
    output_stride: int,
) -> Encoder:
    """Limit the stride to ``output_stride``; the convolutions after that stage are dilated."""
    dilation = 1
    for stage, stride in zip(stages, strides, strict=True):
        if stride <= output_stride:
            continue
        for module in (inner for part in stage for inner in part.modules()):
            if isinstance(module, nn.MaxPool2d) and module.stride == 2:
                module.kernel_size, module.stride, module.padding = 3, 1, 1
                dilation *= 2
            elif isinstance(module, nn.Conv2d):
                dilation *= _spread_taps(module, dilation)
    kept = [min(stride, output_stride) for stride in strides]
    return Encoder([nn.Sequential(*stage) for stage in stages], channels, kept)


def _spread_taps(convolution: nn.Conv2d, dilation: int) -> int:
    """Dilate a convolution, remove its stride and return that stride."""
    stride = convolution.stride[0]
    convolution.stride = (1, 1)
    if convolution.kernel_size[0] > 1:
        convolution.dilation = (dilation, dilation)
        reach = dilation * (convolution.kernel_size[0] - 1) // 2
        convolution.padding = (reach, reach)
    # The 1x1 projection of the shortcut has the same stride, which must not be counted twice.
    return stride if convolution.kernel_size[0] > 1 else 1


_LITE = "efficientnet_lite0"
#: Means and standard deviations of red, green, blue (0..255) for which weights were trained.
_IMAGENET_INPUT = READY["imagenet"]
_LITE_INPUT = Statistics((127.0,) * 3, (128.0,) * 3)

#: The function that cuts each model into stages.
ENCODERS: dict[str, Callable[[Any, int], Encoder]] = {
    _LITE: _cut_mobilenet,
    "mobilenet_v2": _cut_mobilenet,
    "mobilenet_v3_large": _cut_mobilenet,
    "mobilenet_v3_small": _cut_mobilenet,
    "resnet18": _cut_resnet,
    "resnet34": _cut_resnet,
    "resnet50": _cut_resnet,
    "resnet101": _cut_resnet,
    "vgg16": _cut_vgg,
    "vgg16_bn": _cut_vgg,
}
