"""Adaptive batch normalization: statistics that are estimated again on images of a new domain."""

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

#: The fewest values of a channel from which statistics are estimated. After global pooling, a
#: layer gets only one value from each image.
_MIN_VALUES = 32


@dataclass(frozen=True)
class BatchStatistics:
    """Adapt a network by estimating the statistics of its batch normalization on new images.

    A method of :class:`hybridseg.DomainAdapter`. The new means and variances are computed over all
    pixels of all images (AdaBN [1]_). This takes as long as predicting the images. A dozen images
    are enough, and a single one may be.

    Parameters
    ----------
    prior : float
        The weight of the old statistics in the new ones, as a number of images [2]_: n images and
        a prior N give the old statistics the weight N / (N + n). 0 is best for a strong domain
        shift. A few are useful for small images with few classes.

    Raises
    ------
    TypeError, ValueError
        ``prior`` is not a number of at least 0.

    References
    ----------
    .. [1] Y. Li, N. Wang, J. Shi, X. Hou, J. Liu, "Adaptive batch normalization for practical
       domain adaptation", Pattern Recognition 80, 2018.
    .. [2] S. Schneider, E. Rusak, L. Eck, O. Bringmann, W. Brendel, M. Bethge, "Improving
       robustness against common corruptions by covariate shift adaptation", NeurIPS, 2020.

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
            The network has no batch normalization with running statistics.
        """
        network = network_of(segmenter)
        if not batch_norms(network):
            raise ValueError(
                f"method='batch_statistics', but {type(network).__name__} has no batch "
                f"normalization that keeps statistics; pass method='self_training'."
            )

    def rounds_of(self, segmenter: Trained, scenes: ImageList, rng: np.random.Generator) -> Rounds:
        """Yield the adapted copy of a segmenter; there is one round."""
        adapted = copied(segmenter)
        reestimate(adapted, scenes, self.prior)
        yield adapted, math.nan


def reestimate(segmenter: Trained, scenes: ImageList, prior: float) -> None:
    """Replace a segmenter's batch statistics by those of new images, in place."""
    layers = batch_norms(network_of(segmenter))
    with collected(layers) as moments:
        for scene in segmenter.transform(scenes):
            _ = scene.unary  # reading the costs runs the network
    write_moments(layers, moments, prior / (prior + len(scenes)))


@dataclass(eq=False)
class Moments:
    """Mean and variance of each channel over all values that were added, in float64.

    Attributes
    ----------
    count : int
        The number of values of each channel.
    mean : Tensor, (C,)
    squares : Tensor, (C,)
        The sums of squared differences from the mean.
    """

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    squares: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    @classmethod
    def of(cls, values: Tensor) -> Moments:
        """The moments of features ``(B, C, *spatial)``."""
        axes = [axis for axis in range(values.ndim) if axis != 1]
        count = values.numel() // values.shape[1]
        variance, mean = torch.var_mean(values.float(), axes, correction=0)
        return cls(count, mean.double(), variance.double() * count)

    def add(self, other: Moments) -> None:
        """Add the moments of other values; the result is that of all values together [1]_.

        References
        ----------
        .. [1] T. F. Chan, G. H. Golub, R. J. LeVeque, "Updating formulae and a pairwise algorithm
           for computing sample variances", technical report, Stanford University, 1979.
        """
        count, apart = self.count + other.count, other.mean - self.mean
        self.mean = self.mean + apart * (other.count / count)
        self.squares = self.squares + other.squares + apart**2 * (self.count * other.count / count)
        self.count = count

    @property
    def variance(self) -> Tensor:
        """The unbiased variance ``(C,)``, as in torch's running statistics."""
        return self.squares / max(self.count - 1, 1)


def batch_norms(network: nn.Module) -> list[Any]:
    """The batch normalization layers of a network that have running statistics."""
    return [
        part
        for part in network.modules()
        if isinstance(part, BATCH_NORMS) and part.running_mean is not None
    ]


@contextmanager
def collected(layers: list[Any]) -> Iterator[list[Moments]]:
    """Within a ``with`` block, collect the moments of the inputs of batch normalization layers.

    The network runs in evaluation mode, but each batch is normalized by its own moments. So every
    layer gets inputs like those after the adaptation of the layers before it; with the old moments,
    errors would accumulate from layer to layer. A layer with too few values uses the old moments.
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
    """A forward hook: add the moments of a layer's input, and normalize the input by them."""
    values = inputs[0]
    moments.add(Moments.of(values.detach()))
    if values.numel() // values.shape[1] < _MIN_VALUES:
        return output
    found = functional.batch_norm(
        values.float(), None, None, layer.weight, layer.bias, training=True, eps=layer.eps
    )
    return found.to(output.dtype)


def write_moments(layers: list[Any], found: list[Moments], source_weight: float) -> None:
    """Set the statistics of layers to a weighted mean of the old and new ones ([1]_, equation 3).

    Layers with too few values keep their old statistics.

    Parameters
    ----------
    layers : list of batch normalization layers
    found : list of Moments
        The new statistics of each layer.
    source_weight : float
        The weight of the old statistics, in [0, 1].

    References
    ----------
    .. [1] S. Schneider, E. Rusak, L. Eck, O. Bringmann, W. Brendel, M. Bethge, "Improving
       robustness against common corruptions by covariate shift adaptation", NeurIPS, 2020.
    """
    for layer, moments in zip(layers, found, strict=True):
        if moments.count < _MIN_VALUES:
            continue
        with torch.no_grad():
            layer.running_mean.lerp_(moments.mean.to(layer.running_mean), 1 - source_weight)
            layer.running_var.lerp_(moments.variance.to(layer.running_var), 1 - source_weight)
