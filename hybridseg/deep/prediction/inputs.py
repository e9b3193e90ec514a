"""The input of a network: standardized colors, channels first, in the size that it needs."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

#: Mean and standard deviation ``(C,)`` of each channel, on the scale 0..255.
Moments = tuple[NDArray[np.float32], NDArray[np.float32]]

#: The most values that an image may have after it is padded to the size of a tile.
_MAX_PADDED_VALUES = 2**30


def as_input(colors: NDArray[np.float32], moments: Moments) -> Tensor:
    """Standardize colors ``(*spatial, C)`` on the scale 0..255 to an input ``(C, *spatial)``."""
    mean, std = moments
    standardized = (np.asarray(colors, dtype=np.float32) - mean) / std
    return torch.from_numpy(np.moveaxis(standardized, -1, 0))


def resized(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """Interpolate values ``(C, *spatial)`` linearly to another spatial shape."""
    if tuple(values.shape[1:]) == size:
        return values
    mode = {2: "bilinear", 3: "trilinear"}[len(size)]
    shrinks = len(size) == 2 and any(
        new < old for new, old in zip(size, values.shape[1:], strict=True)
    )
    return functional.interpolate(values[None], size=size, mode=mode, antialias=shrinks)[0]


def at_least(image: Tensor, sides: tuple[int, ...]) -> Tensor:
    """Pad an image ``(C, *spatial)`` at its ends with its last values to a minimum spatial shape.

    Raises
    ------
    ValueError
        The padded image would have more than 2**30 values.
    """
    missing = [max(0, side - n) for side, n in zip(sides, image.shape[1:], strict=True)]
    if not any(missing):
        return image
    if len(image) * math.prod(map(max, sides, image.shape[1:])) > _MAX_PADDED_VALUES:
        raise ValueError(
            f"tile={sides} is far larger than the image, {tuple(image.shape[1:])}, which is padded "
            f"to that size; expected at most {_MAX_PADDED_VALUES} values: pass a tile of the size "
            f"that the network needs."
        )
    ends = [amount for side in reversed(missing) for amount in (0, side)]
    return functional.pad(image[None], ends, mode="replicate")[0]
