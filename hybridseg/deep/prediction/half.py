"""Mixed precision, and how two errors of torch in bfloat16 on CPUs are avoided."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

#: The dtype of autocast for each ``precision``. None: no autocast.
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}


def autocast(device: torch.device, precision: str) -> Any:
    """The context manager in which torch computes in a precision."""
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def check_precision(precision: str, device: torch.device) -> None:
    """Refuse float16 on a CPU.

    Raises
    ------
    ValueError
        ``precision`` is "float16" and the device is a CPU.
    """
    if precision == "float16" and device.type == "cpu":
        raise ValueError(
            "precision='float16' is for GPUs only; expected 'float32' or 'bfloat16' on a CPU: "
            "use 'bfloat16' if the processor supports it."
        )


def channels_last(images: Tensor) -> Tensor:
    """Images ``(B, C, H, W)`` in channels-last memory format, which is faster; volumes as given."""
    return images.contiguous(memory_format=torch.channels_last) if images.ndim == 4 else images


def training_layout(
    module: nn.Module, spatial_ndim: int, precision: str, device: torch.device
) -> torch.memory_format:
    """The memory format of images and weights in a training: channels last, except for volumes.

    Dilated convolutions in bfloat16 on a CPU keep the contiguous format: with channels last, torch
    2.14 computes wrong gradients of the weights there, often NaN.
    """
    parts = module.modules()
    dilated = any(isinstance(part, nn.Conv2d) and max(part.dilation) > 1 for part in parts)
    if spatial_ndim == 3 or (dilated and _is_faulty(precision, device)):
        return torch.contiguous_format
    return torch.channels_last


@contextmanager
def wide_where_small(module: nn.Module, precision: str, device: torch.device) -> Iterator[None]:
    """Within a ``with`` block, convolve volumes that are smaller than the kernel in float32.

    In bfloat16 on a CPU, torch 2.14 computes wrong gradients of the weights for them, often NaN.
    The lowest levels of a U-shaped network have such small volumes.
    """
    parts = [part for part in module.modules() if isinstance(part, nn.Conv3d)]
    if not _is_faulty(precision, device):
        parts = []
    for part in parts:
        part.forward = functools.partial(_convolve, part)
    try:
        yield
    finally:
        for part in parts:
            del part.forward


def _convolve(part: nn.Conv3d, volume: Tensor) -> Tensor:
    """The forward pass of a convolution, in float32 if the volume is smaller than the kernel."""
    reach = [d * (k - 1) + 1 for d, k in zip(part.dilation, part.kernel_size, strict=True)]
    if all(map(int.__ge__, volume.shape[2:], reach)):
        return nn.Conv3d.forward(part, volume)
    with torch.autocast(volume.device.type, enabled=False):
        return nn.Conv3d.forward(part, volume.float())


def _is_faulty(precision: str, device: torch.device) -> bool:
    """Whether torch has the errors described above for a precision and device."""
    return precision == "bfloat16" and device.type == "cpu"
