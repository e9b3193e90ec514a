"""What a network is trained on: random crops of images of differing sizes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from hybridseg.base import Scene, TrainingSet

Augment = Callable[[NDArray[Any], NDArray[Any], np.random.Generator], tuple[Any, Any]]

#: Colours and labels are kept between epochs up to this many bytes, else read again.
_MEMORY = 1 << 29


@dataclass(frozen=True, eq=False)
class Survey:
    """What one look at every training image tells.

    Attributes
    ----------
    mean, std : ndarray of float32, (C,)
        Of the colours, on the scale 0..255, over all valid pixels.
    counts : ndarray of int64, (L,)
        Labelled pixels of each class.
    labelled : list of int
        The images that have a labelled pixel.
    longest : int
        The longest side of any image.
    """

    mean: NDArray[np.float32]
    std: NDArray[np.float32]
    counts: NDArray[np.int64]
    labelled: list[int]
    longest: int

    @classmethod
    def of(cls, training: TrainingSet) -> Survey:
        """Look at every image of a training set once."""
        n_pixels, longest, labelled = 0, 1, []
        sums = np.zeros((2, training.n_channels))
        counts = np.zeros(len(training.classes), dtype=np.int64)
        for position, (scene, labels) in enumerate(training):
            colors = valid_colors(scene).astype(np.float64)
            n_pixels += len(colors)
            sums += colors.sum(axis=0), np.square(colors).sum(axis=0)
            found = np.bincount(labels[labels >= 0], minlength=len(counts))
            counts += found
            longest = max(longest, *labels.shape)
            if found.any():
                labelled.append(position)
        mean, square = sums / max(n_pixels, 1)
        std = np.sqrt(np.maximum(square - mean**2, 0))
        std[std < 1e-2] = 1.0  # a constant channel
        return cls(mean.astype(np.float32), std.astype(np.float32), counts, labelled, longest)

    def balanced_weights(self) -> NDArray[np.float32]:
        """Class weights n / (L n_l): each class counts the same in all."""
        weights = self.counts.sum() / (len(self.counts) * np.maximum(self.counts, 1))
        return np.asarray(weights, dtype=np.float32)


def valid_colors(scene: Scene) -> NDArray[np.float32]:
    """The colours of a Scene's valid pixels, ``(n, C)``."""
    colors = scene.colors
    if scene.valid is None:
        return colors.reshape(-1, colors.shape[-1])
    return colors[np.asarray(scene.valid, dtype=bool)]


class Crops(Dataset):
    """Square random crops ``(colors (C, S, S), labels (S, S))``, each with a labelled pixel.

    Colours are standardised; labels are class indices, -1 where there is none or the crop leaves
    the image.
    """

    def __init__(
        self,
        training: TrainingSet,
        survey: Survey,
        *,
        crop_size: int,
        crops_per_image: int,
        augment: Augment | None,
        rng: np.random.Generator,
    ) -> None:
        self.training = training
        self.survey = survey
        self.size = min(crop_size, survey.longest)
        self.crops_per_image = crops_per_image
        self.augment = augment
        self.rng = rng
        self._held: dict[int, tuple[NDArray[np.float32], NDArray[np.int32]]] = {}
        self._free = _MEMORY

    def __len__(self) -> int:
        return len(self.survey.labelled) * self.crops_per_image

    def __getitem__(self, i: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        colors, labels = self._image(self.survey.labelled[i % len(self.survey.labelled)])
        colors, labels = cut(colors, labels, self.size, self.rng)
        if self.augment is not None:
            colors, labels = self.augment(colors, labels, self.rng)
        channels_first = np.moveaxis(np.asarray(colors, dtype=np.float32), -1, 0)
        return np.ascontiguousarray(channels_first), np.ascontiguousarray(labels, dtype=np.int64)

    def _image(self, position: int) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        if position in self._held:
            return self._held[position]
        scene, indices = self.training[position]
        colors = (scene.colors - self.survey.mean) / self.survey.std
        labels = indices.astype(np.int32)
        self._free -= colors.nbytes + labels.nbytes
        if self._free >= 0:
            self._held[position] = colors, labels
        return colors, labels


def cut(
    colors: NDArray[Any], labels: NDArray[Any], size: int, rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """A random square that holds a labelled pixel; beyond the image, edges repeat, labels end."""
    pixel = draw_pixel(labels, rng)
    starts = [
        int(rng.integers(max(0, at - size + 1), max(0, min(at, side - size)) + 1))
        for at, side in zip(pixel, labels.shape, strict=True)
    ]
    window = tuple(slice(start, start + size) for start in starts)
    colors, labels = colors[window], labels[window]
    missing = [(0, size - side) for side in labels.shape]
    if any(after for _, after in missing):
        colors = np.pad(colors, [*missing, (0, 0)], mode="edge")
        labels = np.pad(labels, missing, constant_values=-1)
    return colors, labels


def draw_pixel(labels: NDArray[Any], rng: np.random.Generator) -> tuple[Any, ...]:
    """A labelled pixel, drawn evenly over the classes and then over a class's pixels."""
    labelled = np.flatnonzero(labels >= 0)
    values = labels.ravel()[labelled]
    present = np.flatnonzero(np.bincount(values))
    candidates = labelled[values == present[rng.integers(len(present))]]
    return np.unravel_index(candidates[rng.integers(len(candidates))], labels.shape)


def augment_upright(
    colors: NDArray[Any], labels: NDArray[Any], rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Mirror left to right half of the time; jitter contrast and brightness."""
    if rng.random() < 0.5:
        colors, labels = colors[:, ::-1], labels[:, ::-1]
    return jitter_colors(colors, rng), labels


def augment_dihedral(
    colors: NDArray[Any], labels: NDArray[Any], rng: np.random.Generator
) -> tuple[NDArray[Any], NDArray[Any]]:
    """One of the eight turns and mirrorings of a square; jitter contrast and brightness."""
    if rng.random() < 0.5:
        colors, labels = colors.swapaxes(0, 1), labels.swapaxes(0, 1)
    for axis in (0, 1):
        if rng.random() < 0.5:
            colors, labels = np.flip(colors, axis), np.flip(labels, axis)
    return jitter_colors(colors, rng), labels


def jitter_colors(colors: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Change the contrast by up to a quarter, the brightness by up to 0.3 standard deviations."""
    contrast = np.float32(rng.uniform(0.75, 1.25))
    brightness = np.float32(rng.uniform(-0.3, 0.3))
    shift = np.asarray(rng.uniform(-0.1, 0.1, colors.shape[-1]), dtype=np.float32)
    return colors * contrast + (brightness + shift)
