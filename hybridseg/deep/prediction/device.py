"""Where a network runs."""

from __future__ import annotations

import torch
from torch import nn


def as_device(name: str) -> torch.device:
    """The torch device of a name; "auto" is the GPU where there is one.

    Raises
    ------
    ValueError
        It cannot be used here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device={name!r} cannot be used here ({error}); expected 'auto', 'cpu' or 'cuda'."
        ) from error


def device_of(network: nn.Module) -> torch.device:
    """Where a network's parameters are; the CPU where it has none."""
    return next((p.device for p in network.parameters()), torch.device("cpu"))
