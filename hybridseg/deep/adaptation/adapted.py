"""A copy of a trained segmenter whose network may be changed, and what it says of its images."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hybridseg.base import ImageList
from hybridseg.deep.prediction.half import channels_last
from hybridseg.deep.prediction.inputs import as_input
from hybridseg.deep.prediction.outputs import logits_of
from hybridseg.deep.prediction.uncertainty import entropy_of
from hybridseg.deep.pretrained import OfClasses, PretrainedSegmenter
from hybridseg.deep.segmenter import DeepSegmenter
from hybridseg.validation import as_mask

Trained = DeepSegmenter | PretrainedSegmenter

#: A label of this probability is called confident.
_CONFIDENT = 0.9
#: The most that is shown of a picture, or volume, to a network of which no crop size is known.
_WINDOWS = {2: 512, 3: 96}


def copied(segmenter: Trained) -> Any:
    """A segmenter with the same parameters and a network of its own."""
    found = copy.copy(segmenter)
    if isinstance(found, DeepSegmenter):
        found.net_ = copy.deepcopy(found.net_)
        found.__dict__.pop("calibration_error_", None)  # of other images
    else:
        found.network = copy.deepcopy(found.network).to(found._place())
    return found


def network_of(segmenter: Trained) -> nn.Module:
    """The network itself, no copy of it."""
    if isinstance(segmenter, DeepSegmenter):
        return segmenter.net_.module_
    return segmenter.network


def window_of(segmenter: Trained) -> Any:
    """The most that is shown of an image where gradients are kept: as in the training."""
    if isinstance(segmenter, DeepSegmenter):
        return segmenter.crop_size
    return _WINDOWS[segmenter.spatial_ndim_]


def class_logits(segmenter: Trained, colors: NDArray[np.float32]) -> Tensor:
    """Logits ``(L, *spatial)``, with gradients, of colours ``(*spatial, C)``."""
    network = network_of(segmenter)
    if isinstance(segmenter, DeepSegmenter):
        image = as_input(colors, (segmenter.mean_, segmenter.std_))[None]
        output = network(channels_last(image.to(str(segmenter.net_.device))))
        expected = (1, len(segmenter.classes_), *image.shape[2:])
        return logits_of(output, expected)[0] / segmenter.temperature_
    values = np.asarray(segmenter.classes)
    image = torch.from_numpy(np.moveaxis(colors, -1, 0))[None].to(segmenter._place())
    return OfClasses(network, values, segmenter.classes_)(image)[0]


def survey(segmenter: Trained, scenes: ImageList) -> dict[str, Any]:
    """What a segmenter says of images: how sure it is, and of what.

    Returns
    -------
    dict
        "mean_entropy", "information" (the mutual information of pixel and class), "confident",
        "class_share" and "class_confident"; see :class:`hybridseg.DomainAdapter`.

    Raises
    ------
    ValueError
        The images have no valid pixel.
    """
    n_classes = len(segmenter.classes_)
    total, uncertain = np.zeros(n_classes), 0.0
    counts = np.zeros((2, n_classes), dtype=np.int64)
    for scene in segmenter.transform(scenes):
        proba = scene.proba.reshape(-1, n_classes)
        if scene.valid is not None:
            proba = proba[as_mask(scene.valid, scene.shape).ravel()]
        total += proba.sum(axis=0, dtype=np.float64)
        uncertain += entropy_of(proba).sum(dtype=np.float64)
        found, sure = proba.argmax(axis=-1), proba.max(axis=-1, initial=0.0) >= _CONFIDENT
        counts += [np.bincount(part, minlength=n_classes) for part in (found, found[sure])]
    n_pixels = int(counts[0].sum())
    if n_pixels == 0:
        raise ValueError("X holds no valid pixel; expected images with some to adapt to.")
    with np.errstate(invalid="ignore"):
        confident = counts[1] / counts[0]
    mean_entropy = float(uncertain / n_pixels)
    return {
        "mean_entropy": mean_entropy,
        "information": float(entropy_of(total / n_pixels)) - mean_entropy,
        "confident": float(counts[1].sum() / n_pixels),
        "class_share": (counts[0] / n_pixels).tolist(),
        "class_confident": confident.tolist(),
    }
