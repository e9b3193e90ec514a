"""Random changes of training crops: mirrorings, scale, contrast, brightness, tint."""

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

#: ``augment(colors (*spatial, C), labels (*spatial,), rng)`` gives both, changed.
Augment = Callable[[NDArray[Any], NDArray[Any], np.random.Generator], tuple[Any, Any]]


@dataclass(frozen=True)
class Augmentation:
    """Random changes of crops, for :class:`hybridseg.DeepSegmenter` ``(augment=...)``.

    Parameters
    ----------
    symmetry : {"upright", "dihedral", "none"}
        "upright": mirrored along the last axis half of the time, for pictures that have a top.
        "dihedral": mirrored along every axis, and the last two axes swapped where the crop is as
        high as it is wide: the eight turns and mirrorings of a square, for microscopy and aerial
        pictures; of volumes, sixteen.
    scale : (low, high)
        Objects are shown at a size drawn between these factors (evenly in their logarithm): a crop
        is cut larger or smaller and resized. (0.5, 2) is usual for street scenes. Below one, more
        is seen at once, which suits short trainings.
    contrast : float
        The colors' distance from their mean is multiplied by up to ``1 +- contrast``.
    brightness : float
        All channels are moved together by up to this many standard deviations.
    tint : float
        Each channel is moved on its own by up to this many standard deviations.
    mirrored : sequence of int
        The class index that each of 0..L-1 becomes where the crop is a mirror image: where an odd
        number of axes were mirrored or swapped; two mirrorings make a turn, which leaves left
        left. Empty: all stay. A segmenter fills it in from its ``mirror_pairs``.

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
                f"scale={self.scale!r}; expected two factors (low, high) with 0 < low <= high, "
                f"such as (0.5, 2.0)."
            )

    def __call__(
        self, colors: NDArray[Any], labels: NDArray[Any], rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Change colors ``(*spatial, C)``, in standard deviations, and labels together."""
        colors, labels = self._turned(colors, labels, rng)
        return self._jittered(colors, rng), labels

    def draw_scale(self, rng: np.random.Generator) -> float:
        """Draw the factor by which objects are enlarged."""
        low, high = self.scale
        return math.exp(rng.uniform(math.log(low), math.log(high))) if low < high else float(low)

    def _turned(
        self, colors: NDArray[Any], labels: NDArray[Any], rng: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
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
        contrast = np.float32(rng.uniform(1 - self.contrast, 1 + self.contrast))
        brightness = rng.uniform(-self.brightness, self.brightness)
        tint = rng.uniform(-self.tint, self.tint, colors.shape[-1])
        return colors * contrast + np.asarray(brightness + tint, dtype=np.float32)


#: What a name such as ``DeepSegmenter(augment="upright")`` stands for.
AUGMENTS = {"upright": Augmentation("upright"), "dihedral": Augmentation("dihedral")}


def make_augment(augment: Any, mirrored: tuple[int, ...]) -> Augment | None:
    """What changes crops: by its name, or the caller's.

    Parameters
    ----------
    augment : str, Augmentation, callable or None
    mirrored : tuple of int
        The index of the class that each class becomes in a mirror image, which an
        :class:`Augmentation` is told; empty: all stay.
    """
    found = AUGMENTS[augment] if isinstance(augment, str) else augment
    if mirrored and isinstance(found, Augmentation):
        return replace(found, mirrored=mirrored)
    return found


def zoomed(
    colors: NDArray[np.float32], labels: NDArray[Any], size: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[Any]]:
    """Resize a crop: colors linearly (pictures smoothed where they shrink), labels to the nearest.

    Colors are ``(*spatial, C)``, labels ``(*spatial,)``; ``size`` is the new spatial shape.
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
