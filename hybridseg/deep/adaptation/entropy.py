"""Entropy minimization: adapt a network by lowering the entropy of its predictions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hybridseg.base import ImageList, Scene
from hybridseg.deep.adaptation.adapted import (
    Rounds,
    Trained,
    class_logits,
    copied,
    network_of,
    window_of,
)
from hybridseg.deep.adaptation.batch_statistics import (
    BATCH_NORMS,
    batch_norms,
    collected,
    reestimate,
)
from hybridseg.deep.prediction.evaluation import evaluating
from hybridseg.validation import check_number

_NORMS = (
    *BATCH_NORMS,
    *(nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)

#: The most windows in a gradient step.
_MAX_BATCH = 4


@dataclass(frozen=True)
class Entropy:
    """Adapt a network by minimizing the entropy of its predictions (TENT [1]_).

    A method of :class:`hybridseg.DomainAdapter`. Only the scales and shifts of normalization layers
    are trained, on one random window of each image in each epoch; the loss is the mean entropy of
    the pixels' probabilities. The method helps if most predictions are correct before. If the
    network has batch normalization, put :class:`BatchStatistics` before it.

    Parameters
    ----------
    epochs : int
        The number of epochs.
    lr : float
        The learning rate of Adam.
    prior : float
        The ``prior`` of :class:`BatchStatistics`: batch statistics are estimated again after each
        epoch.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Notes
    -----
    During the training, batch normalization uses the statistics of each window. With fixed
    statistics, the training could lower the entropy by simply enlarging all features.

    References
    ----------
    .. [1] D. Wang, E. Shelhamer, S. Liu, B. Olshausen, T. Darrell, "Tent: fully test-time
       adaptation by entropy minimization", ICLR, 2021.

    Examples
    --------
    >>> import torch
    >>> from hybridseg import DomainAdapter, PretrainedSegmenter
    >>> from hybridseg.datasets import make_scenes
    >>> from hybridseg.deep import BatchStatistics, Entropy
    >>> from hybridseg.networks import UNet
    >>> images = make_scenes(2, shape=(24, 32), random_state=0).images
    >>> _ = torch.manual_seed(3)
    >>> model = PretrainedSegmenter(UNet(n_classes=2, width=4, depth=1), classes=[0, 1])
    >>> methods = [BatchStatistics(), Entropy(epochs=2)]
    >>> adapter = DomainAdapter(model, methods, guard=False, random_state=0).fit(images)
    >>> [(row["method"], row["round"]) for row in adapter.history_]
    [('source', 0), ('batch_statistics', 1), ('entropy', 1), ('entropy', 2)]
    """

    epochs: int = 1
    lr: float = 2e-4
    prior: float = 0.0

    name: ClassVar[str] = "entropy"
    must_be_surer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number(self.epochs, "epochs", minimum=1, integer=True)
        check_number(self.lr, "lr", minimum=0, strict=True)
        check_number(self.prior, "prior", minimum=0)

    def check(self, segmenter: Trained) -> None:
        """Refuse a segmenter that this method cannot adapt.

        Raises
        ------
        ValueError
            The network has no normalization layer with scales and shifts.
        """
        network = network_of(segmenter)
        if not scales_and_shifts(network):
            raise ValueError(
                f"method='entropy', but {type(network).__name__} has no normalization with scales "
                f"and shifts to train; pass method='self_training'."
            )

    def rounds_of(self, segmenter: Trained, scenes: ImageList, rng: np.random.Generator) -> Rounds:
        """Yield the adapted copies of a segmenter, one after each epoch."""
        learner = copied(segmenter)
        optimizer = torch.optim.Adam(scales_and_shifts(network_of(learner)), lr=self.lr)
        for _ in range(self.epochs):
            learn_epoch(learner, optimizer, scenes, rng)
            adapted = copied(learner)
            reestimate(adapted, scenes, self.prior)
            yield adapted, math.nan


def learn_epoch(
    learner: Trained, optimizer: torch.optim.Optimizer, scenes: ImageList, rng: np.random.Generator
) -> None:
    """Minimize the mean entropy for one epoch, on one random window of each image.

    Parameters
    ----------
    learner : DeepSegmenter or PretrainedSegmenter
        The segmenter whose network is trained, in place.
    optimizer : Optimizer
        The optimizer of the scales and shifts of the network.
    scenes : ImageList of Scene
    rng : Generator
        Draws the order of the images and the windows.
    """
    network, window = network_of(learner), window_of(learner)
    chosen, layers = scales_and_shifts(network), batch_norms(network)
    order = rng.permutation(len(scenes))
    with learning_only(chosen, network), evaluating(network), collected(layers):
        for start in range(0, len(order), _MAX_BATCH):
            batch = order[start : start + _MAX_BATCH]
            optimizer.zero_grad()
            for position in batch:
                colors, valid = shown(scenes[position], window, rng)
                if valid.any():
                    entropy = mean_entropy(class_logits(learner, colors), valid)
                    (entropy / len(batch)).backward()
            optimizer.step()


def scales_and_shifts(network: nn.Module) -> list[nn.Parameter]:
    """The weights and biases of a network's normalization layers."""
    return [
        parameter
        for part in network.modules()
        if isinstance(part, _NORMS)
        for parameter in (part.weight, part.bias)
        if parameter is not None
    ]


@contextmanager
def learning_only(chosen: list[nn.Parameter], network: nn.Module) -> Iterator[None]:
    """Within a ``with`` block, compute gradients for the chosen parameters only."""
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
    """The mean entropy of the valid pixels, in nats, from logits ``(L, *spatial)``."""
    logs = torch.log_softmax(logits.float(), dim=0)
    entropy = -(logs.exp() * logs).sum(dim=0)
    return entropy[torch.from_numpy(valid).to(entropy.device)].mean()


def shown(
    scene: Scene, window: Any, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The colors ``(*spatial, C)`` of a random window of an image, and its valid pixels."""
    colors = scene.filled_colors
    extents = colors.shape[:-1]
    valid = np.ones(extents, bool) if scene.valid is None else np.asarray(scene.valid, bool)
    sides = np.minimum(np.broadcast_to(window, len(extents)), extents)
    starts = rng.integers(np.subtract(extents, sides) + 1)
    place = tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))
    return colors[place], valid[place]
