"""The network that corrects log-probabilities near the boundaries of a segmentation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hybridseg.networks.arguments import remember_arguments

#: Logarithms of probabilities are cut off at this size and divided by it.
_SIZE = 10.0


class BoundaryNetwork(nn.Module):
    """Correct log-probabilities from a small neighborhood of each pixel.

    A stack of dilated convolutions without padding: the output is smaller than the input by
    ``reach`` pixels on each side. The last layer starts at zero, so that a new network corrects
    nothing.

    Parameters
    ----------
    n_channels : int
        The number of channels C of images.
    n_labels : int
        The number of labels L.
    ndim : {2, 3}
        The number of spatial axes.
    hidden : int
        The number of channels between layers.
    depth : int
        The number of convolutions of side 3.
    reach : int
        An upper bound of the radius of the neighborhood, in pixels; at least ``depth``. The
        dilations double from layer to layer up to this bound.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        n_channels: int,
        n_labels: int,
        *,
        ndim: int = 2,
        hidden: int = 32,
        depth: int = 5,
        reach: int = 12,
    ) -> None:
        super().__init__()
        self.n_channels, self.n_labels, self.ndim = n_channels, n_labels, ndim
        self.dilations = dilations(depth, reach)
        convolution = {2: nn.Conv2d, 3: nn.Conv3d}[ndim]
        n_inputs = n_labels + 1 + n_channels
        self.layers = nn.ModuleList(
            convolution(n_inputs if place == 0 else hidden, hidden, 3, dilation=dilation)
            for place, dilation in enumerate(self.dilations)
        )
        self.last = convolution(hidden, n_labels, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.register_buffer("mean", torch.zeros(n_channels))
        self.register_buffer("std", torch.ones(n_channels))

    @property
    def reach(self) -> int:
        """The radius of the neighborhood that a correction depends on, in pixels."""
        return sum(self.dilations)

    def forward(self, log_proba: Tensor, nearness: Tensor, colors: Tensor) -> Tensor:
        """Compute corrections, to be added to the log-probabilities.

        Parameters
        ----------
        log_proba : Tensor, (B, L, *spatial)
        nearness : Tensor, (B, *spatial)
            From 1 at a boundary to 0 beyond the band.
        colors : Tensor, (B, C, *spatial)
            On the scale 0..255.

        Returns
        -------
        Tensor, (B, L, *inner)
            With ``reach`` pixels less on each side.
        """
        shape = (1, -1) + (1,) * self.ndim
        scores = log_proba.clamp(min=-_SIZE) / _SIZE
        standardized = (colors - self.mean.view(shape)) / self.std.view(shape)
        values = torch.cat([scores, nearness[:, None], standardized], dim=1)
        for place, (layer, dilation) in enumerate(zip(self.layers, self.dilations, strict=True)):
            found = torch.relu(layer(values))
            inner = (slice(dilation, -dilation),) * self.ndim
            values = found if place == 0 else values[(..., *inner)] + found
        result: Tensor = self.last(values)
        return result


def dilations(depth: int, reach: int) -> tuple[int, ...]:
    """Return dilations that double from layer to layer; their sum is at most ``reach``.

    The first and the last layer have the dilation 1, and no sum is below ``depth``.
    """
    found = [1] * depth
    for place in range(1, depth - 1):
        room = reach - sum(found) + 1
        found[place] = max(1, min(2 * found[place - 1], room))
    return tuple(found)


remember_arguments(BoundaryNetwork)
