"""Photographs of scikit-image, with polygons and scribbles drawn for this project.

scikit-image ships the photographs. This package holds one small JSON file per photograph, with
polygons, which make the ground truth, and strokes, which make the sparse training labels.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib import resources
from itertools import pairwise
from typing import Any

import numpy as np
import skimage.data
from skimage import draw
from sklearn.utils import Bunch

__all__ = ["load_photos", "render_polygons", "render_scribbles"]

UNLABELED = -1
VOID_CLASS = "void"

DESCR = """\
Photographs with hand-drawn ground truth and scribbles
------------------------------------------------------
Real photographs that scikit-image distributes (`skimage.data`; see its README for the sources and
licenses), in their original size. Each has two kinds of labels, both drawn by looking at
enlarged crops of the photograph:

truth
    Polygons that label every pixel with one of two to five classes, accurate to about one to
    three pixels. Pixels whose class cannot be decided (hair fringes, thin strings, motion blur)
    are void: they have the label -1, and every score leaves them out.
scribbles
    A few short strokes per class, as a person draws in half a minute: up to about three percent
    of the pixels. All other pixels are -1. A scribble never disagrees with the truth.

Label values index `classes`, which holds one list of names per photograph. Photographs do not
share classes, so a model is trained and scored on each photograph separately.
"""


def load_photos(names: str | Sequence[str] | None = None) -> Bunch:
    """Load real photographs with their ground truth and their scribbles.

    Parameters
    ----------
    names : str, sequence of str or None, default=None
        The photographs to load, in this order; None loads all in alphabetical order. One or two
        are enough for a quick experiment. Use all to compare methods, because each photograph has
        its own difficulty.

    Returns
    -------
    photos : sklearn.utils.Bunch
        Lists with one entry per photograph,

        - ``images`` : uint8 arrays, (H, W) if gray and (H, W, 3) if RGB;
        - ``truth`` : int32 arrays (H, W), the index of the class of each pixel, -1 where void;
        - ``scribbles`` : int32 arrays (H, W), the same indices, -1 where nothing was drawn;
        - ``names`` : str, the names of the photographs;
        - ``classes`` : lists of str, the names of the classes by label value;

        and ``DESCR``, a str that describes the collection.

    Raises
    ------
    ValueError
        A name is not that of a bundled photograph.

    Examples
    --------
    >>> from hybridseg.datasets.photos import load_photos
    >>> photos = load_photos("astronaut")
    >>> photos.images[0].shape, photos.truth[0].shape, photos.scribbles[0].dtype
    ((512, 512, 3), (512, 512), dtype('int32'))
    """
    wanted = _chosen_names(names)
    annotations = [_read_annotation(name) for name in wanted]
    return Bunch(
        images=[_read_photo(annotation["photo"]) for annotation in annotations],
        truth=[render_polygons(annotation) for annotation in annotations],
        scribbles=[render_scribbles(annotation) for annotation in annotations],
        names=wanted,
        classes=[list(annotation["classes"]) for annotation in annotations],
        DESCR=DESCR,
    )


def render_polygons(annotation: dict[str, Any]) -> np.ndarray:
    """Paint the polygons of an annotation into a label map.

    Polygons are painted in order, so a later polygon covers an earlier one; a hole is a later
    polygon of the class behind it. Pixels that no polygon covers have label 0. Polygons are clipped
    at the border of the image.

    Parameters
    ----------
    annotation : dict
        ``"size"`` is the height and width in pixels; ``"classes"`` lists names by label value;
        ``"polygons"`` is a list of dicts. Each has a ``"class"`` (one of the classes, or
        ``"void"``) and either ``"points"``, vertices ``[x, y]``, or ``"ellipse"``,
        ``[center x, center y, radius x, radius y, degrees]``, rotated clockwise as seen on the
        image. x points to the right and y down, in pixels; the centers of pixels are at integers.

    Returns
    -------
    labels : ndarray of int32, shape (H, W)
        Index of the class of each pixel; -1 where void.

    Raises
    ------
    ValueError
        The class of a polygon is not in ``"classes"``.

    Examples
    --------
    >>> from hybridseg.datasets.photos import render_polygons
    >>> triangle = {"class": "sail", "points": [[0, 0], [3, 0], [0, 2]]}
    >>> render_polygons({"size": [3, 4], "classes": ["sky", "sail"], "polygons": [triangle]})
    array([[1, 1, 1, 1],
           [1, 1, 0, 0],
           [1, 0, 0, 0]], dtype=int32)
    """
    labels = np.zeros(annotation["size"], dtype=np.int32)
    for shape in annotation["polygons"]:
        labels[_pixels_inside(shape, labels.shape)] = _label_value(shape, annotation["classes"])
    return labels


def render_scribbles(annotation: dict[str, Any]) -> np.ndarray:
    """Paint the scribbles of an annotation into a label map.

    Parameters
    ----------
    annotation : dict
        ``"size"`` and ``"classes"`` are as for :func:`render_polygons`; ``"scribbles"`` is a list
        of dicts. Each has a ``"class"``, a ``"width"`` in pixels and ``"points"``, the vertices
        ``[x, y]`` of the stroke; one vertex makes a dot.

    Returns
    -------
    labels : ndarray of int32, shape (H, W)
        Index of the class under each stroke; -1 where nothing was drawn.

    Raises
    ------
    ValueError
        The class of a scribble is not in ``"classes"``.

    Examples
    --------
    >>> from hybridseg.datasets.photos import render_scribbles
    >>> stroke = {"class": "sail", "width": 1, "points": [[0, 1], [2, 1]]}
    >>> render_scribbles({"size": [3, 4], "classes": ["sky", "sail"], "scribbles": [stroke]})
    array([[-1, -1, -1, -1],
           [ 1,  1,  1, -1],
           [-1, -1, -1, -1]], dtype=int32)
    """
    labels = np.full(annotation["size"], UNLABELED, dtype=np.int32)
    for stroke in annotation["scribbles"]:
        labels[_pixels_under(stroke, labels.shape)] = _label_value(stroke, annotation["classes"])
    return labels


def _label_value(shape: dict[str, Any], classes: Sequence[str]) -> int:
    name = shape["class"]
    if name == VOID_CLASS:
        return UNLABELED
    if name not in classes:
        raise ValueError(
            f"the annotation uses the class {name!r}, but its classes are {list(classes)}: "
            f"add the class to the list, or use {VOID_CLASS!r}."
        )
    return classes.index(name)


def _pixels_inside(shape: dict[str, Any], size: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    if "ellipse" in shape:
        x, y, radius_x, radius_y, degrees = shape["ellipse"]
        # skimage rotates counter-clockwise; with y down, the angle on the image is clockwise.
        turn = -np.deg2rad(degrees)
        return draw.ellipse(y, x, radius_y, radius_x, shape=size, rotation=turn)
    xs, ys = np.transpose(shape["points"])
    return draw.polygon(ys, xs, shape=size)


def _pixels_under(stroke: dict[str, Any], size: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Return the pixels of a stroke: a disk at each vertex, a rectangle along each segment."""
    touched = np.zeros(size, dtype=bool)
    points = np.asarray(stroke["points"], dtype=np.float64)
    half = stroke["width"] / 2
    for x, y in points:
        # The disk excludes its rim; the pixel that contains the vertex always counts.
        touched[draw.disk((y, x), max(half, 0.5 + 1e-9), shape=size)] = True
    for start, end in pairwise(points):
        touched[_pixels_of_segment(start, end, half, size)] = True
    return np.nonzero(touched)


def _pixels_of_segment(
    start: np.ndarray, end: np.ndarray, half: float, size: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    length = float(np.hypot(*(end - start)))
    if length == 0:  # a repeated vertex; its disk is painted already
        empty = np.zeros(0, dtype=np.intp)
        return empty, empty
    side = half / length * np.array([start[1] - end[1], end[0] - start[0]])
    corners = np.stack([start + side, end + side, end - side, start - side])
    return draw.polygon(corners[:, 1], corners[:, 0], shape=size)


def _chosen_names(names: str | Sequence[str] | None) -> list[str]:
    bundled = _bundled_names()
    if names is None:
        return bundled
    chosen = [names] if isinstance(names, str) else list(names)
    unknown = [name for name in chosen if name not in bundled]
    if unknown:
        raise ValueError(
            f"names={names!r}: there is no photograph called {', '.join(map(repr, unknown))}; "
            f"choose from {bundled}."
        )
    return chosen


def _bundled_names() -> list[str]:
    files = (resources.files("hybridseg.datasets") / "photos").iterdir()
    return sorted(file.name.removesuffix(".json") for file in files if file.name.endswith(".json"))


def _read_annotation(name: str) -> dict[str, Any]:
    file = resources.files("hybridseg.datasets") / "photos" / f"{name}.json"
    annotation: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return annotation


def _read_photo(function_name: str) -> np.ndarray:
    image = getattr(skimage.data, function_name)()
    # skimage returns a stereo pair as (left, right, disparity).
    return image[0] if isinstance(image, tuple) else image
