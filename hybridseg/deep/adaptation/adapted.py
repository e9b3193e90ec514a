"""Copies of trained segmenters whose networks can be changed, and how these are trained."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hybridseg.deep.prediction.half import channels_last
from hybridseg.deep.prediction.inputs import as_input
from hybridseg.deep.prediction.outputs import logits_of
from hybridseg.deep.pretrained import OfClasses, PretrainedSegmenter
from hybridseg.deep.segmenter import DeepSegmenter

Trained = DeepSegmenter | PretrainedSegmenter

#: The adapted copies of a segmenter, one after each round of a method. With each copy comes the
#: fraction of pixels with a pseudo-label on which it was trained (NaN for methods without them).
Rounds = Iterator[tuple[Any, float]]

#: The side of the windows on which a network without a crop size is trained, by number of axes.
_MAX_WINDOW = {2: 512, 3: 96}


def copied(segmenter: Trained) -> Any:
    """A copy of a segmenter that has its own copy of the network."""
    found = copy.copy(segmenter)
    if isinstance(found, DeepSegmenter):
        found.net_ = copy.deepcopy(found.net_)
        found.__dict__.pop("calibration_error_", None)  # it was measured on other images
    else:
        found.network = copy.deepcopy(found.network).to(found._place())
    return found


def network_of(segmenter: Trained) -> nn.Module:
    """The network of a segmenter, not a copy of it."""
    if isinstance(segmenter, DeepSegmenter):
        return segmenter.net_.module_
    return segmenter.network


def window_of(segmenter: Trained) -> Any:
    """The extent of the windows on which the network is trained, in pixels."""
    if isinstance(segmenter, DeepSegmenter):
        return segmenter.crop_size
    return _MAX_WINDOW[segmenter.spatial_ndim_]


def class_logits(segmenter: Trained, colors: NDArray[np.float32]) -> Tensor:
    """The logits ``(L, *spatial)`` of colors ``(*spatial, C)``, with gradients."""
    network = network_of(segmenter)
    if isinstance(segmenter, DeepSegmenter):
        image = as_input(colors, (segmenter.mean_, segmenter.std_))[None]
        output = network(channels_last(image.to(str(segmenter.net_.device))))
        expected = (1, len(segmenter.classes_), *image.shape[2:])
        return logits_of(output, expected)[0] / segmenter.temperature_
    values = np.asarray(segmenter.classes)
    image = torch.from_numpy(np.moveaxis(colors, -1, 0))[None].to(segmenter._place())
    return OfClasses(network, values, segmenter.classes_)(image)[0]
