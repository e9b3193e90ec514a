"""Every network, with its equal in another library if there is one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from hybridseg import networks

Size = tuple[int, ...]

#: Height and width: CamVid's images, and Cityscapes' at half scale.
SMALL, LARGE = (360, 480), (512, 1024)
#: Depth, height and width of the volumes.
VOLUME = (32, 64, 64)


@dataclass(frozen=True)
class Pair:
    """A network of ours, and another library's.

    Attributes
    ----------
    title : str
    ours : callable () -> nn.Module
    library : str
        The peer's module, as it is imported; "" where there is no peer.
    peer : callable (module, size) -> nn.Module, optional
        Builds it for images of that size.
    peer_name : str
    differs : str
        What the peer computes otherwise. "": it is the same network, which the run checks.
    channels : int
        Of the image.
    stride : int
        The peer takes multiples of it only, and is given the image padded.
    sizes : sequence of tuple
    quick : bool
        Whether it is among those of ``--quick``.
    """

    title: str
    ours: Callable[[], nn.Module]
    library: str = ""
    peer: Callable[[Any, Size], nn.Module] | None = None
    peer_name: str = ""
    differs: str = ""
    channels: int = 3
    stride: int = 1
    sizes: tuple[Size, ...] = (SMALL,)
    quick: bool = False


def _ours(name: str, n_classes: int = 21, **options: Any) -> Callable[[], nn.Module]:
    return lambda: networks.NETWORKS[name](n_classes=n_classes, **options)


def _torchvision(title: str, ours: Callable[[], nn.Module], name: str, **more: Any) -> Pair:
    options = {"weights": None, "weights_backbone": None, "num_classes": 21}
    if not name.startswith("lraspp"):
        options["aux_loss"] = False

    def build(models: Any, _size: Size) -> nn.Module:
        return models.get_model(name, **options)

    return Pair(title, ours, "torchvision.models", build, f"torchvision {name}", **more)


def _smp(title: str, ours: Callable[[], nn.Module], name: str, encoder: str, **more: Any) -> Pair:
    def build(smp: Any, _size: Size) -> nn.Module:
        return getattr(smp, name)(encoder, encoder_weights=None, classes=21)

    return Pair(title, ours, "segmentation_models_pytorch", build, f"smp {name}", **more)


def _pytorchcv(title: str, ours: Callable[[], nn.Module], name: str, **more: Any) -> Pair:
    classes = 21 if name.endswith("_voc") else 19
    options = {"aux": False} if name.startswith(("bisenet", "pspnet")) else {}

    def build(provider: Any, size: Size) -> nn.Module:
        return provider.get_model(name, in_size=size, num_classes=classes, **options)

    return Pair(title, ours, "pytorchcv.model_provider", build, f"pytorchcv {name}", **more)


def _monai(
    title: str, ours: Callable[[], nn.Module], name: str, *arguments: Any, **more: Any
) -> Pair:
    options = more.pop("options", {})

    def build(nets: Any, _size: Size) -> nn.Module:
        return getattr(nets, name)(*arguments, **options)

    return Pair(title, ours, "monai.networks.nets", build, f"MONAI {name}", **more)


_FIRST_BLOCK = "dilates the first block after the last stride, too"
_ONE_COARSE = (
    "one of the decoder's two 3x3 convolutions at stride 16, both at stride 4 in the paper"
)
_BOTH = (SMALL, LARGE)
_UNET_WIDTHS = (64, 128, 256, 512, 1024)

PAIRS = [
    _torchvision(
        "LR-ASPP, MobileNetV3-L",
        _ours("lraspp"),
        "lraspp_mobilenet_v3_large",
        differs=_FIRST_BLOCK,
        sizes=_BOTH,
        quick=True,
    ),
    _torchvision(
        "DeepLab v3, MobileNetV3-L",
        _ours("deeplabv3", encoder="mobilenet_v3_large", output_stride=16, rates=(12, 24, 36)),
        "deeplabv3_mobilenet_v3_large",
        differs=_FIRST_BLOCK,
        quick=True,
    ),
    _torchvision(
        "DeepLab v3, ResNet-50, stride 8",
        _ours("deeplabv3", output_stride=8),
        "deeplabv3_resnet50",
    ),
    _torchvision(
        "DeepLab v3, ResNet-101, stride 8",
        _ours("deeplabv3", encoder="resnet101", output_stride=8),
        "deeplabv3_resnet101",
    ),
    _smp(
        "DeepLab v3+, MobileNetV2",
        _ours("deeplabv3plus", encoder="mobilenet_v2"),
        "DeepLabV3Plus",
        "mobilenet_v2",
        stride=16,
        differs=_ONE_COARSE,
        sizes=_BOTH,
        quick=True,
    ),
    _smp(
        "DeepLab v3+, ResNet-50",
        _ours("deeplabv3plus"),
        "DeepLabV3Plus",
        "resnet50",
        stride=16,
        differs=_ONE_COARSE,
    ),
    _smp(
        "FPN without smoothing, ResNet-50",
        _ours("fpn", smooth=False),
        "FPN",
        "resnet50",
        stride=32,
        differs="aligns corners",
    ),
    _smp(
        "FPN without smoothing, ResNet-18",
        _ours("fpn", encoder="resnet18", smooth=False),
        "FPN",
        "resnet18",
        stride=32,
        differs="aligns corners",
        quick=True,
    ),
    Pair("FPN, ResNet-50", _ours("fpn")),
    Pair("FPN, ResNet-18", _ours("fpn", encoder="resnet18"), sizes=_BOTH),
    _pytorchcv(
        "PSPNet, ResNet-50, stride 8",
        _ours("pspnet"),
        "pspnet_resnetd50b_voc",
        stride=8,
        differs="three 3x3 convolutions for the first 7x7; aligns corners",
    ),
    _pytorchcv("SegNet", _ours("segnet", 19), "segnet_cityscapes", stride=32),
    _pytorchcv(
        "ENet",
        _ours("enet", 19),
        "enet_cityscapes",
        stride=8,
        differs="details of the bottlenecks",
        sizes=_BOTH,
        quick=True,
    ),
    _pytorchcv(
        "BiSeNet, ResNet-18",
        _ours("bisenet", 19),
        "bisenet_resnet18_celebamaskhq",
        stride=32,
        differs="a wider head; features of stride 8 of the encoder for the spatial path",
        sizes=_BOTH,
        quick=True,
    ),
    Pair("ESPNet", _ours("espnet", 19), sizes=_BOTH, quick=True),
    Pair("ESPNetv2, s = 1", _ours("espnetv2", 19), sizes=_BOTH, quick=True),
    Pair("LiteSeg, MobileNetV2", _ours("liteseg", 19), sizes=_BOTH, quick=True),
    _monai(
        "U-Net",
        _ours("unet"),
        "BasicUNet",
        *(2, 3, 21, (*_UNET_WIDTHS, 64)),
        options={"norm": "batch", "act": ("relu", {"inplace": True})},
        stride=16,
        differs="the last level keeps 128 channels while it is enlarged",
    ),
    _monai(
        "Attention U-Net, gates of equal size",
        _ours("attention_unet", gates="equal"),
        "AttentionUnet",
        *(2, 3, 21, _UNET_WIDTHS, (2, 2, 2, 2)),
        stride=16,
        differs="strides for pooling; one convolution a level going up, not two",
    ),
    Pair("Attention U-Net", _ours("attention_unet")),
    Pair("ResU-Net", _ours("resunet")),
    Pair("Dense U-Net, FC-DenseNet67", _ours("denseunet", 11)),
    Pair("FCN-32s, VGG16", _ours("fcn32s")),
    Pair("FCN-16s, VGG16", _ours("fcn16s")),
    Pair("FCN-8s, VGG16", _ours("fcn8s")),
    Pair("DeepLab v1, VGG16", _ours("deeplabv1")),
    Pair("DeepLab v2, ResNet-101", _ours("deeplabv2")),
    _monai(
        "V-Net",
        _ours("vnet", 2, in_channels=1, batch_norm=True),
        "VNet",
        *(3, 1, 2),
        differs="a convolution less at the deepest level and at the first coming up; ELU",
        channels=1,
        sizes=(VOLUME,),
    ),
    Pair("3-D U-Net", _ours("unet3d", 2, in_channels=1), channels=1, sizes=(VOLUME,)),
]


def _encoder(name: str) -> Pair:
    def trunk(models: Any, _size: Size) -> nn.Module:
        model = models.get_model(name, weights=None)
        if name.startswith("resnet"):
            return nn.Sequential(*list(model.children())[:-2])
        return model.features

    return Pair(
        f"encoder {name}",
        lambda: networks.encoder(name),
        "torchvision.models",
        trunk,
        f"torchvision {name}",
        quick=name in ("mobilenet_v2", "mobilenet_v3_large", "resnet18"),
    )


PAIRS += [_encoder(name) for name in networks.ENCODERS if name != "efficientnet_lite0"]
PAIRS.append(
    Pair(
        "encoder efficientnet_lite0",
        lambda: networks.encoder("efficientnet_lite0"),
        "timm",
        lambda timm, _size: timm.create_model("tf_efficientnet_lite0", features_only=True),
        "timm tf_efficientnet_lite0",
        quick=True,
    )
)
