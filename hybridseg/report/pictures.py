"""Pictures and label maps as small files inside a page.

A label map becomes an indexed PNG with transparency that the page lays over the photograph: it
stays crisp, takes a few kilobytes, and the photograph is stored once.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_dilation

from hybridseg.validation import as_colors

#: Okabe and Ito's eight colours (without black), told apart with any kind of colour blindness;
#: then those of P. Tol's "muted" scheme that are unlike them. More classes go round again.
PALETTE = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (213, 94, 0),
    (0, 114, 178),
    (51, 34, 136),
    (136, 204, 238),
    (153, 153, 51),
    (136, 34, 85),
    (221, 204, 119),
    (170, 68, 153),
    (17, 119, 51),
    (204, 102, 119),
)
#: A class of this name is darkened, so that the objects stand out.
BACKGROUND = "background"
BACKGROUND_COLOR = (15, 23, 42)
VOID_COLOR = (255, 255, 255)
_FILL, _DARK, _EDGE = 135, 160, 255  # opacity of an area, of the background, of an outline
_MAX_CLASSES = 127  # two palette entries a class fit in the 256 of a PNG


def class_colors(class_names: Mapping[int, str]) -> dict[int, tuple[int, int, int]]:
    """Give each label value a colour: rising values take the palette's in order.

    Parameters
    ----------
    class_names : mapping from int to str
        The name of each label value; a class named "background" becomes dark.

    Returns
    -------
    dict from int to (red, green, blue)
        0..255 each.
    """
    colors = {}
    for value in sorted(class_names):
        if class_names[value] == BACKGROUND:
            colors[value] = BACKGROUND_COLOR
        else:
            taken = sum(color != BACKGROUND_COLOR for color in colors.values())
            colors[value] = PALETTE[taken % len(PALETTE)]
    return colors


def photo_uri(image: NDArray[Any], width: int, *, quality: int = 85) -> str:
    """Scale a picture to a width in pixels and write it as a JPEG data URI.

    Parameters
    ----------
    image : ndarray, (H, W[, C])
        Grey (1 channel), RGB (3 or more: the first three) of any real dtype.
    width : int
        Of the result; a smaller picture stays as it is.
    quality : int
        Of the JPEG, 1 to 95.

    Returns
    -------
    str
        ``data:image/jpeg;base64,...``
    """
    picture = Image.fromarray(_displayable(image))
    if picture.width > width:
        picture = picture.resize(_scaled(picture.size, width), Image.Resampling.LANCZOS)
    return _uri(picture, "jpeg", quality=quality)


def _displayable(image: NDArray[Any]) -> NDArray[np.uint8]:
    in_range = "dtype" if image.dtype == np.uint8 else "image"
    colors = as_colors(image, spatial_ndim=2, intensity_range=in_range)
    if colors.shape[-1] < 3:
        colors = np.repeat(colors[..., :1], 3, axis=-1)
    rounded: NDArray[np.uint8] = np.rint(colors[..., :3]).astype(np.uint8)
    return rounded


def labels_uri(
    labels: NDArray[Any], colors: Mapping[int, Sequence[int]], width: int, *, sparse: bool = False
) -> str:
    """Scale a label map and write it as a translucent PNG data URI, to lie over its photograph.

    Parameters
    ----------
    labels : ndarray of int, (H, W)
        Label values; negative, and whatever ``colors`` lacks, is void.
    colors : mapping from int to (red, green, blue)
        The colour of each label value; at most 127 of them in one map.
    width : int
        Of the result in pixels; a smaller map stays as it is.
    sparse : bool
        True for scribbles: opaque strokes, edged in white, on nothing. False: translucent areas,
        opaque outlines, void hatched in white.

    Returns
    -------
    str
        ``data:image/png;base64,...``
    """
    small = nearest(labels, _scaled(labels.shape[::-1], width)[::-1])
    colors = {value: colors[value] for value in np.unique(small).tolist() if value in colors}
    if len(colors) > _MAX_CLASSES:
        raise ValueError(f"labels holds {len(colors)} classes; a PNG takes {_MAX_CLASSES}.")
    indices = _indices(small, sorted(colors))
    painted = _strokes(indices) if sparse else _areas(indices)
    picture = Image.fromarray(painted)
    picture.putpalette(_palette([tuple(colors[value]) for value in sorted(colors)]))
    return _uri(picture, "png", optimize=True, transparency=_opacities(colors))


def nearest(array: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Scale the first two axes to a shape by taking the nearest pixel (labels do not mix)."""
    rows, columns = (
        np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(np.intp)
        for new, old in zip(shape, array.shape, strict=False)
    )
    return array[rows[:, np.newaxis], columns]


def _scaled(size: Sequence[int], width: int) -> tuple[int, int]:
    """Fit a picture's (width, height) into a width."""
    if size[0] <= width:
        return int(size[0]), int(size[1])
    return width, max(1, round(size[1] * width / size[0]))


def _indices(labels: NDArray[Any], values: list[int]) -> NDArray[np.int64]:
    if not values:
        return np.full(labels.shape, -1)
    order = np.asarray(values)
    places = np.minimum(np.searchsorted(order, labels), len(order) - 1)
    return np.where(order[places] == labels, places, -1)


# Palette: entry 0 is nothing, 1 is void's white, then an area's and an outline's entry a class.
def _areas(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    painted = 2 + 2 * indices + _outline(indices)
    rows, columns = np.indices(indices.shape)
    hatch = (rows + columns) % 6 < 2
    return np.where(indices < 0, hatch, painted).astype(np.uint8)


def _strokes(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    drawn = indices >= 0
    halo = binary_dilation(drawn, np.ones((3, 3), dtype=bool))  # strokes show on their own colour
    return np.where(drawn, 3 + 2 * indices, halo).astype(np.uint8)


def _outline(indices: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Mark the pixels on either side of a change of label, two pixels wide in all."""
    edge = np.zeros(indices.shape, dtype=bool)
    for axis in range(2):
        line, edges = np.moveaxis(indices, axis, 0), np.moveaxis(edge, axis, 0)
        differs = line[1:] != line[:-1]
        edges[1:] |= differs
        edges[:-1] |= differs
    return edge


def _palette(colors: list[tuple[int, ...]]) -> list[int]:
    entries: list[tuple[int, ...]] = [(0, 0, 0), VOID_COLOR]
    for color in colors:
        entries += [color, color]
    return [channel for entry in entries for channel in entry]


def _opacities(colors: Mapping[int, Sequence[int]]) -> bytes:
    opacities = [0, 200]
    for value in sorted(colors):
        dark = tuple(colors[value]) == BACKGROUND_COLOR
        opacities += [_DARK if dark else _FILL, _EDGE]
    return bytes(opacities)


def _uri(picture: Image.Image, kind: str, **options: Any) -> str:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
