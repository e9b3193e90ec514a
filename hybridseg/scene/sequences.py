"""The arguments ``X`` and ``y``: sequences with one item per image, read one at a time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

from hybridseg.files.images import read_facts, read_labels
from hybridseg.files.reading import swaps_sides
from hybridseg.scene.scene import Scene
from hybridseg.validation import as_numbers


class ImageList(list[Any]):
    """A list with one entry per image, which NumPy sees as a 1-D array of objects.

    Results of images of different sizes cannot be stacked, but scikit-learn's
    ``cross_val_predict`` concatenates the results of the folds. NumPy concatenates and slices this
    list image by image.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg import ImageList
    >>> maps = ImageList([np.zeros((2, 3), int), np.ones((4, 5), int)])
    >>> np.concatenate([maps, maps]).shape
    (4,)
    """

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        out = np.empty(len(self), dtype=object)
        for i, item in enumerate(self):
            out[i] = item
        return out

    @overload
    def __getitem__(self, index: SupportsIndex) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> ImageList: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        taken = super().__getitem__(index)
        return ImageList(taken) if isinstance(index, slice) else taken


def as_items(sequence: Any, name: str) -> list[Any]:
    """List the items of ``X`` or ``y`` by position, without reading files.

    Raises
    ------
    TypeError
        ``sequence`` is not a sequence, or is a data frame.
    """
    if hasattr(sequence, "iloc"):  # in pandas, [i] looks up the index, not the position
        if getattr(sequence, "ndim", 1) != 1:
            raise TypeError(f"{name} is a data frame; pass its column of paths: {name}['path'].")
        sequence = sequence.tolist()
    is_sequence = hasattr(sequence, "__len__") and hasattr(sequence, "__getitem__")
    if not is_sequence or isinstance(sequence, str | bytes | Mapping | type):
        what = "images" if name == "X" else "label maps"
        raise TypeError(f"{name} is a {type(sequence).__name__}; expected a sequence of {what}.")
    return [sequence[i] for i in range(len(sequence))]


def as_scenes(X: Any, *, n_channels: int | None = None, **unstated: Any) -> ImageList:
    """Wrap each item of ``X`` (images, paths or Scenes) in a Scene, without reading files.

    Parameters
    ----------
    X : sequence of images, paths and Scenes, or an array with one more axis
        One item per image; the images may differ in size.
    n_channels : int, optional
        The number of channels, if it is known; only used to recognize a single image.
    **unstated
        Fields of the Scenes, such as ``spatial_ndim`` and ``intensity_range``. A Scene in ``X``
        that has such a field keeps its value.

    Raises
    ------
    TypeError
        ``X`` is not a sequence, or an item is not an image.
    ValueError
        ``X`` is empty, or is a single image instead of a sequence.
    """
    _refuse_single(X, unstated.get("spatial_ndim"), n_channels)
    items = as_items(X, "X")
    if not items:
        raise ValueError("X is empty; expected at least one image in a list.")
    return ImageList(_as_scene(item, i, unstated) for i, item in enumerate(items))


def _as_scene(item: Any, position: int, unstated: dict[str, Any]) -> Scene:
    if isinstance(item, Scene):
        missing = {name: value for name, value in unstated.items() if item.source(name) is None}
        return item.replace(**missing) if missing else item
    if isinstance(item, list | tuple):
        item = as_numbers(item, f"X[{position}]", expected="an image array, a path or a Scene")
    if isinstance(item, str | os.PathLike) or hasattr(item, "__array__"):
        return Scene(item, **unstated)
    raise TypeError(
        f"X[{position}] is a {type(item).__name__}; expected an image array, a path or a Scene."
    )


def _refuse_single(X: Any, spatial_ndim: int | None, n_channels: int | None) -> None:
    """Raise if ``X`` is a single image, which would be split into its rows without an error."""
    wrap = "wrap it in a list: [image]."
    if isinstance(X, Scene):
        raise ValueError("X is one Scene; expected a sequence of them: wrap it in a list.")
    if isinstance(X, str | os.PathLike):
        raise ValueError(f"X={str(X)!r} is one path; expected a sequence of images: {wrap}")
    shape = getattr(X, "shape", None)  # of NumPy, torch and their like
    kind = getattr(getattr(X, "dtype", None), "kind", "f")
    if not isinstance(shape, tuple) or kind in "OUST" or hasattr(X, "iloc"):
        return  # objects, arrays of paths, pandas
    rank = spatial_ndim or 2
    looks_single = len(shape) <= rank or (
        len(shape) == rank + 1 and (shape[-1] <= 4 or n_channels not in (None, 1))
    )
    if looks_single:
        raise ValueError(
            f"X is one array of shape {tuple(shape)}, which looks like one image; {wrap}"
        )


def as_sources(y: Any, n_images: int) -> list[Any]:
    """Check that ``y`` is a sequence with one label map (or path) per image; read no file.

    Raises
    ------
    TypeError
        ``y`` is None or not a sequence.
    ValueError
        The lengths of ``y`` and ``X`` differ.
    """
    if y is None:
        raise TypeError("y is None; expected a sequence of label maps, one per image.")
    items = as_items(y, "y")
    if len(items) != n_images:
        raise ValueError(
            f"X holds {n_images} images but y holds {len(items)} label maps; expected one per "
            f"image" + (" (wrap a single map in a list)." if n_images == 1 else ".")
        )
    return items


def read_label_source(source: Any) -> Any:
    """Return a label map as it was given; a path is read."""
    if isinstance(source, str | os.PathLike):
        return read_labels(source)
    return source


def read_truth(scene: Scene, source: Any, shape: tuple[int, ...] | None, name: str) -> Any:
    """Return a label map for the image of a Scene as it was given; a path is read.

    Parameters
    ----------
    scene : Scene
    source : array-like or path
    shape : tuple of int, optional
        The expected shape of the map; None accepts every shape.
    name : str
        The name of the map in error messages.

    Raises
    ------
    ValueError
        The shape differs from the image's for a known reason: the file of the image carries an
        orientation tag, or the channels of the image come first. Other differences are not checked
        here.
    """
    labels = read_label_source(source)
    if not isinstance(labels, np.ndarray):
        labels = as_numbers(labels, name, expected="integers, one label per pixel")
    if shape in (None, labels.shape) or labels.ndim != 2:
        return labels
    image = np.shape(scene.image)
    start = f"{name} has shape {labels.shape}, but its image has shape {image}."
    if image[1:] == labels.shape:
        raise ValueError(
            f"{start} The image's channels seem to come first: pass it as np.moveaxis(image, 0, "
            f"-1); if it is a volume, pass label maps of its shape."
        )
    file = scene.source("image")
    if not isinstance(file, str | os.PathLike) or image[:2] != labels.shape[::-1]:
        return labels
    tag = read_facts(file).orientation
    if swaps_sides(tag):
        raise ValueError(
            f"{start} The image's file {file} carries the orientation tag {tag}, so it is read "
            f"upright, as viewers show it; the label map seems to be drawn on the stored, unturned "
            f"pixels. Turn the label map as well, with "
            f"hybridseg.files.reading.turned(labels, {tag}), or remove the tag from the image."
        )
    return labels
