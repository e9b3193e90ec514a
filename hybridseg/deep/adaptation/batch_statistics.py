"""Batch normalisation's statistics, estimated anew on pictures of another kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

#: A layer that sees fewer values of a channel in a picture (one, after global pooling) cannot be
#: normalised by them.
_FEW = 32


@dataclass(eq=False)
class Moments:
    """Mean and variance ``(C,)`` of all values of each channel that were added, in 64 bits.

    Attributes
    ----------
    count : int
        Values of each channel.
    mean : Tensor, (C,)
    squares : Tensor, (C,)
        The sum of squared distances from the mean.
    """

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    @classmethod
    def of(cls, values: Tensor) -> Moments:
        """Those of features ``(B, C, *spatial)``."""
        axes = [axis for axis in range(values.ndim) if axis != 1]
        count = values.numel() // values.shape[1]
        variance, mean = torch.var_mean(values.float(), axes, correction=0)
        return cls(count, mean.double(), variance.double() * count)

    def add(self, other: Moments) -> None:
        """Join those of other values, as if all had been seen together (Chan et al. 1979)."""
        count, apart = self.count + other.count, other.mean - self.mean
        self.mean = self.mean + apart * (other.count / count)
        self.squares = self.squares + other.squares + apart**2 * (self.count * other.count / count)
        self.count = count

    @property
    def variance(self) -> Tensor:
        """Unbiased, as torch keeps it."""
        return self.squares / max(self.count - 1, 1)


def batch_norms(network: nn.Module) -> list[Any]:
    """The batch normalisations that keep statistics of what they have seen."""
    return [
        part
        for part in network.modules()
        if isinstance(part, BATCH_NORMS) and part.running_mean is not None
    ]


@contextmanager
def collected(layers: list[Any]) -> Iterator[list[Moments]]:
    """Collect the moments of all that layers are given while a network in evaluation mode runs.

    Each batch is normalised by its own moments, so that every layer sees its input as it will be
    once those before it are adapted. (By moments that are still wrong, errors would add up from
    layer to layer.) Layers of which a batch has too few values normalise as before.
    """
    found = [Moments() for _ in layers]
    hooks = [
        layer.register_forward_hook(partial(_normalised, moments))
        for layer, moments in zip(layers, found, strict=True)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _normalised(moments: Moments, layer: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    values = inputs[0]
    moments.add(Moments.of(values.detach()))
    if values.numel() // values.shape[1] < _FEW:
        return output
    found = functional.batch_norm(
        values.float(), None, None, layer.weight, layer.bias, training=True, eps=layer.eps
    )
    return found.to(output.dtype)


def restate(layers: list[Any], found: list[Moments], source_share: float) -> None:
    """Write moments into layers, mixed with those that are there ([1]_, equation 3).

    Layers that were given too few values keep theirs.

    Parameters
    ----------
    layers : list of batch normalisations
    found : list of Moments
    source_share : float
        The weight of what is there, in [0, 1].

    References
    ----------
    .. [1] S. Schneider et al.: Improving robustness against common corruptions by covariate shift
       adaptation. NeurIPS 2020.
    """
    for layer, moments in zip(layers, found, strict=True):
        if moments.count < _FEW:
            continue
        with torch.no_grad():
            layer.running_mean.lerp_(moments.mean.to(layer.running_mean), 1 - source_share)
            layer.running_var.lerp_(moments.variance.to(layer.running_var), 1 - source_share)
