"""The device on which a network runs."""

from __future__ import annotations

import torch
from torch import nn


def as_device(name: str) -> torch.device:
    """The torch device of a name; "auto" is the GPU if there is one, else the CPU.

    Raises
    ------
    ValueError
        torch does not know the device, or the computer does not have it.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device={name!r} cannot be used here ({error}); expected 'auto', 'cpu' or 'cuda': "
            f"pass 'auto' to use a GPU only where there is one."
        ) from error


def device_of(network: nn.Module) -> torch.device:
    """The device of a network's parameters; the CPU if it has none."""
    return next((p.device for p in network.parameters()), torch.device("cpu"))
