"""Data augmentation of training crops: mirroring, scale, contrast, brightness and tint."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from hybridseg.validation import check_number, check_option

#: ``augment(colors (*spatial, C), labels (*spatial,), rng)`` returns changed colors and labels.
Augment = Callable[[NDArray[Any], NDArray[Any], np.random.Generator], tuple[Any, Any]]


@dataclass(frozen=True)
class Augmentation:
    """Random augmentation of crops, for the parameter ``augment`` of a DeepSegmenter.

    Parameters
    ----------
    symmetry : {"upright", "dihedral", "none"}
        "upright" mirrors along the last axis with probability 1/2, for images with a fixed top,
        such as street scenes. "dihedral" mirrors along each axis with probability 1/2, and swaps
        the last two axes of crops with equal height and width. These are the eight symmetries of a
        square (sixteen for volumes), for microscopy and aerial images.
    scale : (low, high)
        Bounds of the random factor by which objects are enlarged. Its logarithm is uniform. (0.5,
        2) is usual for street scenes. Factors below 1 show more context in each crop, which suits
        short trainings.
    contrast : float
        Colors (as distances from the mean) are multiplied by a random factor from ``1 - contrast``
        to ``1 + contrast``; in [0, 1].
    brightness : float
        The largest random shift of all channels together, in standard deviations.
    tint : float
        The largest random shift of each single channel, in standard deviations.
    mirrored : sequence of int
        For each class index 0..L-1, the index of the class that it becomes in a mirror image (an
        odd number of mirrored and swapped axes). Empty: each class stays the same. A segmenter
        sets it from its ``mirror_pairs``.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.unary import Augmentation
    >>> augment = Augmentation("dihedral", scale=(0.5, 1.5), contrast=0.3)
    >>> colors, labels = np.zeros((8, 8, 3), np.float32), np.zeros((8, 8), int)
    >>> augment(colors, labels, np.random.default_rng(0))[0].shape
    (8, 8, 3)
    """

    symmetry: str = "upright"
    scale: tuple[float, float] = (1.0, 1.0)
    contrast: float = 0.25
    brightness: float = 0.3
    tint: float = 0.1
    mirrored: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_option(self.symmetry, "symmetry", ("upright", "dihedral", "none"))
        check_number(self.contrast, "contrast", minimum=0, maximum=1)
        check_number(self.brightness, "brightness", minimum=0)
        check_number(self.tint, "tint", minimum=0)
        try:
            low, high = (float(check_number(factor, "a factor")) for factor in self.scale)
        except (TypeError, ValueError):
            low = high = math.nan
        if not 0 < low <= high < math.inf:
            raise ValueError(
                f"scale={self.scale!r}; expected two factors (low, high) with 0 < low <= high: "
                f"pass (0.5, 2.0), say."
            )

    def __call__(
        self, colors: NDArray[Any], labels: NDArray[Any], rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Augment a crop.

        Parameters
        ----------
        colors : ndarray, (*spatial, C)
            Standardized colors.
        labels : ndarray of int, (*spatial,)
            Class indices, -1 where there is no label.
        rng : Generator

        Returns
        -------
        colors : ndarray, (*spatial, C)
        labels : ndarray of int, (*spatial,)
        """
        colors, labels = self._turned(colors, labels, rng)
        return self._jittered(colors, rng), labels

    def draw_scale(self, rng: np.random.Generator) -> float:
        """Draw the random factor by which objects are enlarged."""
        low, high = self.scale
        return math.exp(rng.uniform(math.log(low), math.log(high))) if low < high else float(low)

    def _turned(
        self, colors: NDArray[Any], labels: NDArray[Any], rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Mirror the crop and swap its axes at random."""
        last = labels.ndim - 1
        axes = {"none": (), "upright": (last,), "dihedral": tuple(range(labels.ndim))}
        swaps = self.symmetry == "dihedral" and labels.shape[-1] == labels.shape[-2]
        n_mirrorings = 0
        if swaps and rng.random() < 0.5:
            colors, labels = colors.swapaxes(last, last - 1), labels.swapaxes(last, last - 1)
            n_mirrorings += 1
        for axis in axes[self.symmetry]:
            if rng.random() < 0.5:
                colors, labels = np.flip(colors, axis), np.flip(labels, axis)
                n_mirrorings += 1
        if n_mirrorings % 2 and len(self.mirrored):
            labels = np.append(self.mirrored, -1).astype(labels.dtype)[labels]  # -1 stays -1
        return colors, labels

    def _jittered(self, colors: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
        """Change contrast, brightness and tint at random."""
        contrast = np.float32(rng.uniform(1 - self.contrast, 1 + self.contrast))
        brightness = rng.uniform(-self.brightness, self.brightness)
        tint = rng.uniform(-self.tint, self.tint, colors.shape[-1])
        return colors * contrast + np.asarray(brightness + tint, dtype=np.float32)


#: The augmentations with a name, such as ``DeepSegmenter(augment="upright")``.
AUGMENTS = {"upright": Augmentation("upright"), "dihedral": Augmentation("dihedral")}


def make_augment(augment: Any, mirrored: tuple[int, ...]) -> Augment | None:
    """The augmentation of a name, or the one that the user gave.

    Parameters
    ----------
    augment : str, Augmentation, callable or None
    mirrored : tuple of int
        For each class index, the index of the class that it becomes in a mirror image. It is set
        in an :class:`Augmentation`; empty: each class stays the same.
    """
    found = AUGMENTS[augment] if isinstance(augment, str) else augment
    if mirrored and isinstance(found, Augmentation):
        return replace(found, mirrored=mirrored)
    return found


def zoomed(
    colors: NDArray[np.float32], labels: NDArray[Any], size: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Resize a crop to the spatial shape ``size``.

    Colors ``(*spatial, C)`` are interpolated linearly, with antialiasing where a 2-D crop shrinks.
    Labels ``(*spatial,)`` are those of the nearest pixels.
    """
    if labels.shape == size:
        return colors, labels
    mode = {2: "bilinear", 3: "trilinear"}[len(size)]
    channels_first = torch.from_numpy(np.ascontiguousarray(np.moveaxis(colors, -1, 0)))[None]
    shrinks = len(size) == 2 and any(map(int.__gt__, labels.shape, size))
    found = functional.interpolate(channels_first, size=size, mode=mode, antialias=shrinks)
    nearest = [
        ((np.arange(new) + 0.5) * (old / new)).astype(np.intp)
        for old, new in zip(labels.shape, size, strict=True)
    ]
    return np.moveaxis(found[0].numpy(), 0, -1), labels[np.ix_(*nearest)]
