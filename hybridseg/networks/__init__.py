"""Networks: plain torch modules from images ``(B, C, H, W)`` to logits ``(B, L, H, W)``.

Each takes ``in_channels`` and ``n_classes``, accepts images of any size and returns logits of
that size. :class:`UNet3D` and :class:`VNet` take volumes ``(B, C, D, H, W)`` instead. This folder
needs torch.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("hybridseg.networks needs PyTorch: pip install hybridseg[deep]") from error

from hybridseg.networks import losses
from hybridseg.networks.adapters import AdaptedNetwork as _AdaptedNetwork
from hybridseg.networks.adapters import adapt
from hybridseg.networks.arguments import remember_arguments as _remember_arguments
from hybridseg.networks.attention_unet import AttentionUNet
from hybridseg.networks.bisenet import BiSeNet
from hybridseg.networks.deeplab import DeepLabV1, DeepLabV2
from hybridseg.networks.deeplabv3 import DeepLabV3, DeepLabV3Plus
from hybridseg.networks.denseunet import DenseUNet
from hybridseg.networks.efficientnet_lite import EfficientNetLite0
from hybridseg.networks.encoders import ENCODERS, Encoder, encoder, input_statistics
from hybridseg.networks.enet import ENet
from hybridseg.networks.espnet import ESPNet
from hybridseg.networks.espnetv2 import ESPNetv2
from hybridseg.networks.fcn import FCN8s, FCN16s, FCN32s
from hybridseg.networks.folding import fold_batch_norm
from hybridseg.networks.fpn import FPN
from hybridseg.networks.liteseg import LiteSeg
from hybridseg.networks.lraspp import LRASPP
from hybridseg.networks.pspnet import PSPNet
from hybridseg.networks.resunet import ResUNet
from hybridseg.networks.segnet import SegNet
from hybridseg.networks.unet import UNet
from hybridseg.networks.unet3d import UNet3D
from hybridseg.networks.vnet import VNet

__all__ = [
    "ENCODERS",
    "FPN",
    "LRASPP",
    "NETWORKS",
    "AttentionUNet",
    "BiSeNet",
    "DeepLabV1",
    "DeepLabV2",
    "DeepLabV3",
    "DeepLabV3Plus",
    "DenseUNet",
    "ENet",
    "ESPNet",
    "ESPNetv2",
    "EfficientNetLite0",
    "Encoder",
    "FCN8s",
    "FCN16s",
    "FCN32s",
    "LiteSeg",
    "PSPNet",
    "ResUNet",
    "SegNet",
    "UNet",
    "UNet3D",
    "VNet",
    "adapt",
    "encoder",
    "fold_batch_norm",
    "input_statistics",
    "losses",
]

#: The networks by name; ``DeepSegmenter("unet")`` looks up its network here.
NETWORKS = {
    "attention_unet": AttentionUNet,
    "bisenet": BiSeNet,
    "deeplabv1": DeepLabV1,
    "deeplabv2": DeepLabV2,
    "deeplabv3": DeepLabV3,
    "deeplabv3plus": DeepLabV3Plus,
    "denseunet": DenseUNet,
    "enet": ENet,
    "espnet": ESPNet,
    "espnetv2": ESPNetv2,
    "fcn16s": FCN16s,
    "fcn32s": FCN32s,
    "fcn8s": FCN8s,
    "fpn": FPN,
    "liteseg": LiteSeg,
    "lraspp": LRASPP,
    "pspnet": PSPNet,
    "resunet": ResUNet,
    "segnet": SegNet,
    "unet": UNet,
    "unet3d": UNet3D,
    "vnet": VNet,
}

for _network in (*NETWORKS.values(), _AdaptedNetwork):
    _remember_arguments(_network)
