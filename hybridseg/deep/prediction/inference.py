"""Inference: from a trained network to the scores of an image of any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hybridseg.base import Scene
from hybridseg.deep.prediction.device import device_of
from hybridseg.deep.prediction.evaluation import in_evaluation
from hybridseg.deep.prediction.half import PRECISIONS, autocast, channels_last, check_precision
from hybridseg.deep.prediction.inputs import at_least, resized
from hybridseg.deep.prediction.outputs import logits_of
from hybridseg.deep.prediction.spacing import zoom_of, zoomed_shape
from hybridseg.deep.prediction.tiles import blend_weights, check_tiles, tile_shape, tile_windows
from hybridseg.deep.prediction.views import Views, mirrored_classes
from hybridseg.validation import as_spacing, check_option


@dataclass(frozen=True)
class Inference:
    """The settings of inference, and how a network computes the scores of an image with them.

    Parameters
    ----------
    tile : int, tuple of int or None
        The extent of the tiles along each axis, in pixels. All input of the network then has this
        size. None: the network sees the whole image.
    overlap : int or None
        The minimum overlap of neighboring tiles, in pixels. None: a quarter of the tile.
    tta : {"mirror"}, Views or None
        Test-time augmentation: the views over which predictions are averaged.
    precision : {"float32", "bfloat16", "float16"}
        The precision of the network's computation.
    mirror_pairs : sequence of (int, int)
        Pairs of label values that become each other in a mirror image.
    spacing : float, sequence of float or None
        The spacing to which images are resampled for the network. None: they are not resampled.
    batch_size : int
        The number of tiles in a batch.

    Raises
    ------
    ValueError
        A parameter is not as described.
    """

    tile: int | tuple[int, ...] | None = None
    overlap: int | None = None
    tta: Any = None
    precision: str = "float32"
    mirror_pairs: Sequence[Sequence[int]] = ()
    spacing: Any = None
    batch_size: int = 1

    def __post_init__(self) -> None:
        check_tiles(self.tile, self.overlap)
        if not isinstance(self.tta, Views | None):
            check_option(self.tta, "tta", ("mirror",))
        check_option(self.precision, "precision", sorted(PRECISIONS))

    @classmethod
    def of(cls, segmenter: Any) -> Inference:
        """The inference with the parameters of a segmenter that have the same names."""
        names = [field.name for field in fields(cls) if hasattr(segmenter, field.name)]
        return cls(**{name: getattr(segmenter, name) for name in names})

    def check(self, spatial_ndim: int, classes: NDArray[Any], device: torch.device) -> None:
        """Refuse settings that do not fit the images, their classes or the device.

        Parameters
        ----------
        spatial_ndim : {2, 3}
        classes : ndarray of int, (L,)
            All label values, sorted.
        device : torch.device
            The device of the network.

        Raises
        ------
        ValueError
            ``tile`` or ``spacing`` does not have one number for each axis, ``mirror_pairs`` has a
            value that is not in ``classes``, or the device cannot compute in ``precision``.
        """
        tile_shape(self.tile, self.overlap, (1,) * spatial_ndim)
        mirrored_classes(self.mirror_pairs, classes)
        check_precision(self.precision, device)
        if self.spacing is not None:
            as_spacing(self.spacing, spatial_ndim)

    def seen_shape(self, scene: Scene, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The spatial shape of a Scene's image, which has ``shape``, after it is resampled."""
        return zoomed_shape(shape, zoom_of(scene, self.spacing, len(shape)))

    def scores(
        self,
        network: nn.Module,
        image: Tensor,
        classes: NDArray[Any],
        *,
        size: tuple[int, ...] | None = None,
    ) -> Tensor:
        """Scores of the classes at each pixel, on the CPU; higher is better.

        The network predicts in evaluation mode, and its own mode does not change.

        Parameters
        ----------
        network : Module
        image : Tensor, (C, *spatial)
            A standardized image.
        classes : ndarray of int, (L,)
            The label value of each output of the network, sorted.
        size : tuple of int, optional
            The spatial shape to which the image is resampled for the network. None: its own.

        Returns
        -------
        Tensor, (L, *spatial)
            Logits; with test-time augmentation, log-probabilities.

        Raises
        ------
        TypeError, ValueError
            The network cannot be set to evaluation mode, or its output does not have one channel
            for each class at the size of the image.
        """
        network, inside = in_evaluation(network), tuple(image.shape[1:])
        if size is not None and size != inside:
            return resized(self.scores(network, resized(image, size), classes), inside)
        views = self._views(classes)
        with torch.inference_mode():
            if views is None:
                return self._tiled(network, image, len(classes))
            return views.scores(lambda view: self._tiled(network, view, len(classes)), image)

    def costs(
        self,
        network: nn.Module,
        image: Tensor,
        classes: NDArray[Any],
        *,
        temperature: float = 1.0,
        size: tuple[int, ...] | None = None,
    ) -> NDArray[np.float32]:
        """Costs ``(*spatial, L)``: ``-log_softmax(scores / temperature)`` of :meth:`scores`."""
        scores = self.scores(network, image, classes, size=size)
        costs = -torch.log_softmax(scores / temperature, dim=0)
        return np.ascontiguousarray(np.moveaxis(costs.numpy(), 0, -1))

    def _views(self, classes: NDArray[Any]) -> Views | None:
        """The views of ``tta``, which swap the classes of ``mirror_pairs`` in mirror images."""
        views = Views() if isinstance(self.tta, str) else self.tta
        mirrored = mirrored_classes(self.mirror_pairs, classes)
        return replace(views, mirrored=mirrored) if views is not None and mirrored else views

    def _tiled(self, network: nn.Module, image: Tensor, n_classes: int) -> Tensor:
        """Logits ``(L, *spatial)`` of an image, blended where tiles overlap."""
        inside = tuple(slice(extent) for extent in image.shape[1:])
        tile, overlap = tile_shape(self.tile, self.overlap, tuple(image.shape[1:]))
        image = at_least(image, tile)
        shape = tuple(image.shape[1:])
        windows = list(tile_windows(shape, tile, overlap))
        if len(windows) == 1:
            return self._logits(network, image[None], n_classes)[0][:, *inside]
        total = torch.zeros((n_classes, *shape))
        weight = torch.zeros(shape)
        for start in range(0, len(windows), self.batch_size):
            batch = windows[start : start + self.batch_size]
            tiles = torch.stack([image[:, *window] for window in batch])
            logits = self._logits(network, tiles, n_classes)
            for window, found in zip(batch, logits, strict=True):
                share = blend_weights(window, shape, overlap)
                total[:, *window] += found * share
                weight[window] += share
        return (total / weight)[:, *inside]

    def _logits(self, network: nn.Module, images: Tensor, n_classes: int) -> Tensor:
        """Logits ``(B, L, *spatial)`` of a batch ``(B, C, *spatial)``, float32, on the CPU."""
        expected, device = (len(images), n_classes, *images.shape[2:]), device_of(network)
        with autocast(device, self.precision):
            output = network(channels_last(images.to(device)))
        return logits_of(output, expected).float().cpu()
