"""Entropy minimisation: a network made sure of itself on pictures of another kind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hybridseg.base import ImageList, Scene
from hybridseg.deep.adaptation.batch_statistics import BATCH_NORMS, batch_norms, collected
from hybridseg.deep.prediction.evaluation import evaluating

_NORMS = (
    *BATCH_NORMS,
    *(nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)

#: Windows of one gradient step.
_BATCH = 4


def scales_and_shifts(network: nn.Module) -> list[nn.Parameter]:
    """The weights and biases of a network's normalisations."""
    return [
        parameter
        for part in network.modules()
        if isinstance(part, _NORMS)
        for parameter in (part.weight, part.bias)
        if parameter is not None
    ]


def minimise_entropy(
    network: nn.Module,
    logits: Callable[[NDArray[np.float32]], Tensor],
    scenes: ImageList,
    *,
    window: Any,
    lr: float,
    epochs: int,
    rng: np.random.Generator,
) -> Iterator[int]:
    """Lower the mean entropy of the pixels' probabilities, by scales and shifts alone.

    The network is changed in place. While it learns, batch normalisation takes each window's own
    statistics: with fixed ones the entropy falls soonest where all features grow. The statistics
    that are kept have to be estimated anew after each epoch, whose number is given.

    Parameters
    ----------
    network : Module
    logits : callable
        From colours ``(*spatial, C)`` to the network's logits ``(L, *spatial)``.
    scenes : ImageList of Scene
        Each shows one random window an epoch.
    window : int or tuple of int
        The most that is shown of a picture at once.
    lr : float
        Of Adam.
    epochs : int
    rng : Generator
    """
    chosen, layers = scales_and_shifts(network), batch_norms(network)
    optimizer = torch.optim.Adam(chosen, lr=lr)
    for epoch in range(epochs):
        order = rng.permutation(len(scenes))
        with learning_only(chosen, network), evaluating(network), collected(layers):
            for start in range(0, len(order), _BATCH):
                part = order[start : start + _BATCH]
                optimizer.zero_grad()
                for position in part:
                    colors, valid = shown(scenes[position], window, rng)
                    if valid.any():
                        (mean_entropy(logits(colors), valid) / len(part)).backward()
                optimizer.step()
        yield epoch + 1


@contextmanager
def learning_only(chosen: list[nn.Parameter], network: nn.Module) -> Iterator[None]:
    """Compute gradients for the chosen parameters, and no others, for a while."""
    before = [(parameter, parameter.requires_grad) for parameter in network.parameters()]
    network.requires_grad_(False)
    for parameter in chosen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, learns in before:
            parameter.requires_grad_(learns)
            parameter.grad = None


def mean_entropy(logits: Tensor, valid: NDArray[np.bool_]) -> Tensor:
    """The mean over valid pixels of ``-sum p log p``, in nats, of logits ``(L, *spatial)``."""
    logs = torch.log_softmax(logits.float(), dim=0)
    entropy = -(logs.exp() * logs).sum(dim=0)
    return entropy[torch.from_numpy(valid).to(entropy.device)].mean()


def shown(
    scene: Scene, window: Any, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The colours ``(*spatial, C)`` of a random window of a picture, and where they are valid."""
    colors = scene.filled_colors
    extents = colors.shape[:-1]
    valid = np.ones(extents, bool) if scene.valid is None else np.asarray(scene.valid, bool)
    sides = np.minimum(np.broadcast_to(window, len(extents)), extents)
    starts = rng.integers(np.subtract(extents, sides) + 1)
    place = tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))
    return colors[place], valid[place]
