"""Networks: plain torch modules from images ``(B, C, H, W)`` to logits ``(B, L, H, W)``.

Each takes ``in_channels`` and ``n_classes``, accepts any input size and gives raw logits at that
size. This is the folder that imports torch.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("hybridseg.networks needs PyTorch: pip install hybridseg[deep]") from error

from hybridseg.networks.unet import UNet

__all__ = ["NETWORKS", "UNet"]

#: What a name such as ``DeepSegmenter("unet")`` stands for.
NETWORKS = {"unet": UNet}
