"""Half precision, and two ways round errors of torch in it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

#: The dtype that torch computes in under each ``precision``; None: as the weights are.
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(device: torch.device, precision: str) -> Any:
    """Compute in half precision where it is asked for."""
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse a precision that the device cannot train in."""
    if precision == "float16" and device.type == "cpu":
        raise ValueError(
            "precision='float16' is for GPUs; on a CPU expected 'float32', or 'bfloat16' where "
            "the processor has it."
        )


def channels_last(images: Tensor) -> Tensor:
    """Lay out pictures ``(B, C, H, W)`` as convolutions like them; volumes stay as they are."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def training_layout(
    module: nn.Module, spatial_ndim: int, precision: str, device: torch.device
) -> torch.memory_format:
    """How images and weights lie in memory in a training: pictures as convolutions like them.

    Not where torch (2.14, on processors) gives garbage, often NaN, for the weights' gradients:
    dilated convolutions in bfloat16 with channels last.
    """
    parts = module.modules()
    dilated = any(isinstance(part, nn.Conv2d) and max(part.dilation) > 1 for part in parts)
    if spatial_ndim == 3 or (dilated and _is_suspect(precision, device)):
        return torch.contiguous_format
    return torch.channels_last


@contextmanager
def wide_where_small(module: nn.Module, precision: str, device: torch.device) -> Iterator[None]:
    """For a while, convolve volumes that are smaller than the kernel in float32.

    In bfloat16 torch (2.14, on processors) gives garbage, often NaN, for the weights' gradients
    there. Volumes are so small at the bottom of a U-shaped network.
    """
    parts = [part for part in module.modules() if isinstance(part, nn.Conv3d)]
    if not _is_suspect(precision, device):
        parts = []
    for part in parts:
        part.forward = functools.partial(_convolve, part)
    try:
        yield
    finally:
        for part in parts:
            del part.forward


def _convolve(part: nn.Conv3d, volume: Tensor) -> Tensor:
    reach = [d * (k - 1) + 1 for d, k in zip(part.dilation, part.kernel_size, strict=True)]
    if all(map(int.__ge__, volume.shape[2:], reach)):
        return nn.Conv3d.forward(part, volume)
    with torch.autocast(volume.device.type, enabled=False):
        return nn.Conv3d.forward(part, volume.float())


def _is_suspect(precision: str, device: torch.device) -> bool:
    return precision == "bfloat16" and device.type == "cpu"
