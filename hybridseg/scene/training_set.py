"""Images and label maps that belong together, checked, and read one pair at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.scene.instance_maps import warn_of_instance_maps
from hybridseg.scene.scene import Scene
from hybridseg.scene.sequences import (
    ImageList,
    as_items,
    as_scenes,
    as_sources,
    read_label_source,
    read_truth,
)
from hybridseg.validation import (
    IntensityRange,
    as_image,
    as_label_map,
    as_label_values,
    as_mask,
    as_numbers,
)


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Images and label maps that belong together; iterating reads one pair at a time.

    Attributes
    ----------
    scenes : ImageList of Scene
    sources : list
        Label maps as they were given.
    classes : ndarray of int, (L,)
        All label values that occur, or that are to be told apart, sorted.
    present : ndarray of int, (K,)
        Those that occur.
    spatial_ndim, n_channels : int
        Of every image.
    """

    scenes: ImageList
    sources: list[Any]
    classes: NDArray[Any]
    present: NDArray[Any]
    spatial_ndim: int
    n_channels: int

    @classmethod
    def read(
        cls,
        X: Any,
        y: Any,
        intensity_range: IntensityRange,
        ignore_label: int | None,
        *,
        classes: ArrayLike | None = None,
        known: ArrayLike = (),
        n_least: int = 2,
    ) -> TrainingSet:
        """Check the pairs and find the classes; reads every label map once, and one image.

        Parameters
        ----------
        X, y, intensity_range, ignore_label
            As of a segmenter.
        classes : array-like of int, optional
            All label values that ``y`` may hold.
        known : array-like of int
            Without ``classes``: label values to add to those of ``y``.
        n_least : int
            So many classes there must be in all.

        Warns
        -----
        UserWarning
            The maps seem to number objects, and not to name classes.
        """
        if classes is not None:
            classes = as_label_values(classes, ignore_label=ignore_label)
        rank = _rank_of_labels(y)
        scenes = as_scenes(
            X, spatial_ndim=rank, intensity_range=intensity_range, ignore_label=ignore_label
        )
        sources = as_sources(y, len(scenes))
        first = as_numbers(scenes[0].image, "X[0]")
        if rank == 3:
            _refuse_colored_labels(np.shape(read_label_source(sources[0])), first.shape)
        n_channels = as_image(first, spatial_ndim=rank, name="X[0]").shape[-1]
        none = np.empty(0, dtype=np.int64)
        found = cls(scenes, sources, none, none, rank, n_channels)._find_classes(ignore_label)
        if classes is not None and not np.isin(found, classes).all():
            raise ValueError(
                f"y holds the classes {found.tolist()}, but classes={classes.tolist()}; expected "
                f"all of them, and others if need be."
            )
        told = np.union1d(found, np.asarray(known, dtype=np.int64)) if classes is None else classes
        if len(told) < n_least:
            raise ValueError(
                f"y holds one class only, {told[0]}; expected at least two. Is the background "
                f"marked as ignore? Where y lacks classes that others have, name all of them: "
                f"classes=[0, 1]."
            )
        return cls(scenes, sources, told, found, rank, n_channels)

    def _find_classes(self, ignore_label: int | None) -> NDArray[np.int64]:
        present = [np.unique(self._labels(i)) for i in range(len(self))]
        present = [values[values >= 0] for values in present]
        classes = np.unique(np.concatenate(present)).astype(np.int64)
        if len(classes) == 0:
            raise ValueError(
                "y holds no labelled pixel: every value is negative"
                + ("" if ignore_label is None else f" or ignore_label={ignore_label}")
                + ", or outside the Scenes' valid masks; expected at least two classes."
            )
        warn_of_instance_maps(present, self._labels)
        return classes

    def _labels(self, i: int, shape: tuple[int, ...] | None = None) -> NDArray[np.int64]:
        """The i-th label map's values, -1 where void, ignored or not valid."""
        scene = self.scenes[i]
        source = read_truth(scene, self.sources[i], shape, f"y[{i}]")
        labels = as_label_map(source, shape=shape, ignore_label=scene.ignore_label, name=f"y[{i}]")
        if scene.valid is not None:
            valid = as_mask(scene.valid, labels.shape, name=f"the valid mask of X[{i}]")
            labels[~valid] = -1
        return labels

    def counts(self) -> NDArray[np.int64]:
        """How many pixels of each class are labelled in each image ``(N, L)``; reads no image."""
        found = np.zeros((len(self), len(self.classes)), np.int64)
        for i in range(len(self)):
            labels = self._labels(i)
            indices = np.searchsorted(self.classes, labels[labels >= 0])
            found[i] = np.bincount(indices, minlength=len(self.classes))
        return found

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, i: int) -> tuple[Scene, NDArray[np.int64]]:
        """The i-th Scene and its labels as indices into ``classes``, -1 where to be left out."""
        scene = self.scenes[i]
        image = as_image(scene.image, spatial_ndim=self.spatial_ndim, name=f"X[{i}]")
        if image.shape[-1] != self.n_channels:
            source = scene.source("image")
            where = f" ({source})" if isinstance(source, str | os.PathLike) else ""
            raise ValueError(
                f"X[{i}]{where} has {image.shape[-1]} channels but X[0] has {self.n_channels}; "
                f"all images need the same: convert the grey ones with skimage.color.gray2rgb, "
                f"or the others with skimage.color.rgb2gray."
            )
        labels = self._labels(i, image.shape[:-1])
        indices = np.searchsorted(self.classes, labels)
        indices[labels < 0] = -1
        return scene, indices

    def __iter__(self) -> Iterator[tuple[Scene, NDArray[np.int64]]]:
        return (self[i] for i in range(len(self)))


def _rank_of_labels(y: Any) -> int:
    """The first label map's rank says whether images are pictures or volumes."""
    if y is None:
        raise TypeError("y is None; expected a sequence of label maps, one per image.")
    sources = as_items(y, "y")
    if not sources:
        raise ValueError("y is empty; expected at least one label map in a list.")
    first = as_numbers(read_label_source(sources[0]), "y[0]", cure="labels.filled(-1)")
    if first.ndim not in (2, 3):
        raise ValueError(
            f"y[0] has shape {first.shape}; expected label maps (H, W) or (D, H, W)"
            + (": wrap a single map in a list." if first.ndim == 1 else ".")
        )
    return int(first.ndim)


def _refuse_colored_labels(labels: tuple[int, ...], image: tuple[int, ...]) -> None:
    """A picture of labels in colours, or with a channel axis, would pass for a volume."""
    if labels[-1] in (1, 3, 4) and image[:2] == labels[:2] and len(image) < 4:
        raise ValueError(
            f"y[0] has shape {labels}, which looks like a picture with colour channels for the "
            f"image {image}; expected class numbers (H, W): drop the last axis, or turn each "
            f"colour into its class's number."
        )
