"""A segmentation network whose logits a dense CRF refines, trained together."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hybridseg.deep.crf_layer import CRFLayer
from hybridseg.deep.dense_features import ColorScale
from hybridseg.deep.prediction.outputs import logits_of

#: The layer of ``crf=True``: weak at first, because a strong CRF may erase small objects.
_DEFAULTS = {
    "spatial_weight": 1.0,
    "spatial_width": 1.0,
    "bilateral_weight": 2.0,
    "bilateral_width": 20.0,
    "n_iter_eval": 10,
}


class CRFNetwork(nn.Module):
    """A network and a CRF after it; it takes standardized images ``(B, C, *spatial)``.

    Parameters
    ----------
    network : Module
        Its output is as :class:`hybridseg.DeepSegmenter` describes. The CRF refines the logits, and
        the outputs of auxiliary heads stay as they are.
    crf : CRFLayer
        The layer; its ``image_range`` is not used.
    n_channels : int
        The number of channels C of images.
    start : float
        The fraction of the epochs in which the network is trained alone.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, crf: CRFLayer, n_channels: int, start: float = 0.0
    ) -> None:
        super().__init__()
        self.network = network
        self.crf = crf
        self.crf.scale = ColorScale((0.0, 255.0))
        self.start = start
        self.refines = True
        self.register_buffer("mean", torch.zeros(n_channels))
        self.register_buffer("std", torch.ones(n_channels))

    @classmethod
    def around(
        cls,
        network: nn.Module,
        crf: Any,
        n_channels: int,
        n_classes: int,
        *,
        start: float = 0.0,
        before: nn.Module | None = None,
    ) -> Self:
        """Make the network for ``DeepSegmenter(crf=...)``.

        Parameters
        ----------
        network : Module
        crf : True, mapping or CRFLayer
            A weak layer, the arguments that differ from it, or a layer, which is copied.
        n_channels, n_classes : int
        start : float
        before : Module, optional
            The network of an earlier training for the same classes. If it has a CRF, a copy of this
            CRF is trained further.

        Raises
        ------
        TypeError, ValueError
            ``crf`` has arguments that a layer refuses, or is for another number of classes.
        """
        if isinstance(before, CRFNetwork):
            return cls(network, copy.deepcopy(before.crf), n_channels, start)
        if isinstance(crf, CRFLayer):
            if crf.n_classes != n_classes:
                raise ValueError(
                    f"crf is for {crf.n_classes} classes, but y has {n_classes}; expected a "
                    f"CRFLayer({n_classes}): pass crf=True, or a dict of its arguments."
                )
            return cls(network, copy.deepcopy(crf), n_channels, start)
        options = dict(crf) if isinstance(crf, Mapping) else {}
        return cls(network, CRFLayer(n_classes, **(_DEFAULTS | options)), n_channels, start)

    @property
    def unrefined(self) -> nn.Module:
        """The network without the CRF."""
        return self.network

    def standardized_by(self, mean: NDArray[np.float32], std: NDArray[np.float32]) -> None:
        """Set the mean and standard deviation ``(C,)`` of colors, on the scale 0..255."""
        self.mean.copy_(torch.from_numpy(mean))
        self.std.copy_(torch.from_numpy(std))

    def begin_epoch(self, epoch: int, n_epochs: int) -> None:
        """Let the CRF join the training if its first epochs are over."""
        self.refines = epoch >= self.start * n_epochs

    def forward(self, images: Tensor) -> Any:
        """Return the output of the network, with refined logits."""
        return self._refined(self.network(images), images)

    def with_auxiliary(self, images: Tensor) -> Any:
        """Return the output of the network in training, with refined logits."""
        network = getattr(self.network, "with_auxiliary", self.network)
        return self._refined(network(images), images)

    def _refined(self, output: Any, images: Tensor) -> Any:
        """Refine the logits in an output; in training only after the first epochs."""
        if self.training and not self.refines:
            return output
        shape = (-1,) + (1,) * (images.ndim - 2)
        colors = images.float() * self.std.float().view(shape) + self.mean.float().view(shape)
        expected = (len(images), self.crf.n_classes, *images.shape[2:])
        refined = self.crf(logits_of(output, expected), colors.clamp(0, 255))
        if isinstance(output, Mapping):
            return {**output, "out": refined}
        if isinstance(output, list | tuple):
            return [refined, *output[1:]]
        return refined
