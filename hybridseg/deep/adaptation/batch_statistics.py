"""Statistics of batch normalization, estimated anew on pictures of another kind."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridseg.base import ImageList
from hybridseg.deep.adaptation.adapted import Rounds, Trained, copied, network_of
from hybridseg.validation import check_number

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)

#: The fewest values of a channel that statistics are estimated from: after global pooling, a layer
#: sees one in each picture.
_MIN_VALUES = 32


@dataclass(frozen=True)
class BatchStatistics:
    """Adapt a network by estimating the statistics of its batch normalization anew.

    A method of :class:`hybridseg.DomainAdapter`. The means and variances are those of all pixels
    of all images (AdaBN [1]_). It costs as much as predicting the images; a dozen images are
    enough, and a single one may be.

    Parameters
    ----------
    prior : float
        The number of images that the old statistics count as much as, where statistics are mixed
        [2]_. Under a strong shift 0 is best; a few smooth the statistics of small images that show
        few classes.

    Raises
    ------
    TypeError, ValueError
        ``prior`` is no number, or negative.

    References
    ----------
    .. [1] Y. Li, N. Wang, J. Shi, X. Hou, J. Liu: Adaptive Batch Normalization for Practical Domain
       Adaptation. Pattern Recognition 80, 2018 (arXiv:1603.04779, 2016).
    .. [2] S. Schneider et al.: Improving robustness against common corruptions by covariate shift
       adaptation. NeurIPS 2020.

    Examples
    --------
    >>> import torch
    >>> from hybridseg import DomainAdapter, PretrainedSegmenter
    >>> from hybridseg.datasets import make_scenes
    >>> from hybridseg.deep import BatchStatistics
    >>> from hybridseg.networks import UNet
    >>> images = make_scenes(2, shape=(24, 32), random_state=0).images
    >>> _ = torch.manual_seed(3)
    >>> model = PretrainedSegmenter(UNet(n_classes=2, width=4, depth=1), classes=[0, 1])
    >>> adapter = DomainAdapter(model, BatchStatistics(prior=2.0)).fit(images)
    >>> [row["method"] for row in adapter.history_]
    ['source', 'batch_statistics']
    """

    prior: float = 0.0

    name: ClassVar[str] = "batch_statistics"
    must_be_surer: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_number(self.prior, "prior", minimum=0)

    def check(self, segmenter: Trained) -> None:
        """Refuse a segmenter that this method cannot adapt.

        Raises
        ------
        ValueError
            Its network has no batch normalization that keeps statistics.
        """
        network = network_of(segmenter)
        if not batch_norms(network):
            raise ValueError(
                f"method='batch_statistics', but {type(network).__name__} has no batch "
                f"normalization that keeps statistics; pass method='self_training'."
            )

    def rounds_of(self, segmenter: Trained, scenes: ImageList, rng: np.random.Generator) -> Rounds:
        """The adapted copy of a segmenter; there is one round."""
        adapted = copied(segmenter)
        reestimate(adapted, scenes, self.prior)
        yield adapted, math.nan


def reestimate(segmenter: Trained, scenes: ImageList, prior: float) -> None:
    """Estimate a segmenter's batch statistics anew, in place."""
    layers = batch_norms(network_of(segmenter))
    with collected(layers) as moments:
        for scene in segmenter.transform(scenes):
            _ = scene.unary  # which runs the network
    write_moments(layers, moments, prior / (prior + len(scenes)))


@dataclass(eq=False)
class Moments:
    """Mean and variance ``(C,)`` of each channel over all values that were added, in 64 bits.

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
    """The batch normalizations that keep running statistics."""
    return [
        part
        for part in network.modules()
        if isinstance(part, BATCH_NORMS) and part.running_mean is not None
    ]


@contextmanager
def collected(layers: list[Any]) -> Iterator[list[Moments]]:
    """Collect the moments of the layers' inputs while a network in evaluation mode runs.

    Each batch is normalized by its own moments, so that every layer sees its input as it will be
    once the layers before it are adapted. (With the old moments, errors would add up from layer to
    layer.) A layer that is given too few values normalizes as before.
    """
    found = [Moments() for _ in layers]
    hooks = [
        layer.register_forward_hook(partial(_normalized, moments))
        for layer, moments in zip(layers, found, strict=True)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _normalized(moments: Moments, layer: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    values = inputs[0]
    moments.add(Moments.of(values.detach()))
    if values.numel() // values.shape[1] < _MIN_VALUES:
        return output
    found = functional.batch_norm(
        values.float(), None, None, layer.weight, layer.bias, training=True, eps=layer.eps
    )
    return found.to(output.dtype)


def write_moments(layers: list[Any], found: list[Moments], source_share: float) -> None:
    """Write moments into layers, mixed with their old statistics ([1]_, equation 3).

    Layers that were given too few values keep their old ones.

    Parameters
    ----------
    layers : list of batch normalizations
    found : list of Moments
    source_share : float
        The weight of the old statistics, in [0, 1].

    References
    ----------
    .. [1] S. Schneider et al.: Improving robustness against common corruptions by covariate shift
       adaptation. NeurIPS 2020.
    """
    for layer, moments in zip(layers, found, strict=True):
        if moments.count < _MIN_VALUES:
            continue
        with torch.no_grad():
            layer.running_mean.lerp_(moments.mean.to(layer.running_mean), 1 - source_share)
            layer.running_var.lerp_(moments.variance.to(layer.running_var), 1 - source_share)
