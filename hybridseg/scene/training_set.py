"""Training data: checked pairs of an image and a label map, read one pair at a time."""

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
    """Checked pairs of an image and a label map; iterating reads one pair at a time.

    Attributes
    ----------
    scenes : ImageList of Scene
    sources : list
        The label maps as they were given.
    classes : ndarray of int, (L,)
        The label values of all classes, sorted.
    present : ndarray of int, (K,)
        The label values that occur in the label maps, sorted.
    spatial_ndim, n_channels : int
        The numbers of spatial axes and of channels of each image.
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
        intensity_range: IntensityRange | None,
        ignore_label: int | None,
        *,
        classes: ArrayLike | None = None,
        known: ArrayLike = (),
        n_least: int = 2,
    ) -> TrainingSet:
        """Check the pairs and find the classes; reads every label map, and the first image.

        Parameters
        ----------
        X, y, intensity_range, ignore_label
            The arguments and parameters of a segmenter. None leaves the field of the Scenes unset.
        classes : array-like of int, optional
            The label values of all classes; ``y`` may hold no others.
        known : array-like of int
            Without ``classes``: label values that are added to those in ``y``.
        n_least : int
            The minimum number of classes.

        Raises
        ------
        TypeError, ValueError
            ``X``, ``y`` or ``classes`` cannot be used; the message names what is wrong.

        Warns
        -----
        UserWarning
            The label maps seem to be instance maps, which number objects.
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
                f"all classes of y in the list: add the missing ones."
            )
        wanted = (
            np.union1d(found, np.asarray(known, dtype=np.int64)) if classes is None else classes
        )
        if len(wanted) < n_least:
            raise ValueError(
                f"y holds one class only, {wanted[0]}; expected at least two. If the background is "
                f"marked as ignore, give it a label value of its own. If other data hold further "
                f"classes, name all of them: classes=[0, 1]."
            )
        return cls(scenes, sources, wanted, found, rank, n_channels)

    def _find_classes(self, ignore_label: int | None) -> NDArray[np.int64]:
        present = [np.unique(self._labels(i)) for i in range(len(self))]
        present = [values[values >= 0] for values in present]
        classes = np.unique(np.concatenate(present)).astype(np.int64)
        if len(classes) == 0:
            raise ValueError(
                "y holds no labeled pixel: every value is negative"
                + ("" if ignore_label is None else f" or ignore_label={ignore_label}")
                + ", or outside the Scenes' valid masks; expected at least two classes."
            )
        warn_of_instance_maps(present, self._labels)
        return classes

    def _labels(self, i: int, shape: tuple[int, ...] | None = None) -> NDArray[np.int64]:
        """Return the i-th label map, -1 where void, ignored or not valid."""
        scene = self.scenes[i]
        source = read_truth(scene, self.sources[i], shape, f"y[{i}]")
        labels = as_label_map(source, shape=shape, ignore_label=scene.ignore_label, name=f"y[{i}]")
        if scene.valid is not None:
            valid = as_mask(scene.valid, labels.shape, name=f"the valid mask of X[{i}]")
            labels[~valid] = -1
        return labels

    def counts(self) -> NDArray[np.int64]:
        """Count the labeled pixels of each class in each image ``(N, L)``; reads no image."""
        found = np.zeros((len(self), len(self.classes)), np.int64)
        for i in range(len(self)):
            labels = self._labels(i)
            indices = np.searchsorted(self.classes, labels[labels >= 0])
            found[i] = np.bincount(indices, minlength=len(self.classes))
        return found

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, i: int) -> tuple[Scene, NDArray[np.int64]]:
        """Return the i-th Scene and its labels as indices into ``classes``, -1 where ignored."""
        scene = self.scenes[i]
        image = as_image(scene.image, spatial_ndim=self.spatial_ndim, name=f"X[{i}]")
        if image.shape[-1] != self.n_channels:
            source = scene.source("image")
            where = f" ({source})" if isinstance(source, str | os.PathLike) else ""
            raise ValueError(
                f"X[{i}]{where} has {image.shape[-1]} channels but X[0] has {self.n_channels}; "
                f"expected the same number: convert gray images with skimage.color.gray2rgb, or "
                f"color images with skimage.color.rgb2gray."
            )
        labels = self._labels(i, image.shape[:-1])
        indices = np.searchsorted(self.classes, labels)
        indices[labels < 0] = -1
        return scene, indices

    def __iter__(self) -> Iterator[tuple[Scene, NDArray[np.int64]]]:
        return (self[i] for i in range(len(self)))


def _rank_of_labels(y: Any) -> int:
    """Return the rank of the first label map: 2 for images, 3 for volumes."""
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
    """Raise if label maps have a channel axis, because they would pass for volumes."""
    if labels[-1] in (1, 3, 4) and image[:2] == labels[:2] and len(image) < 4:
        raise ValueError(
            f"y[0] has shape {labels}, which looks like an image with channels; its image has "
            f"shape {image}. Expected label values (H, W): drop the last axis, or turn each color "
            f"into the label value of its class."
        )
