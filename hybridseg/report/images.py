"""Images and label maps as data URIs inside a page.

A label map becomes an indexed PNG with transparency, which the page shows over the photograph. It
is sharp, takes a few kilobytes, and the photograph is stored only once.
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

#: The eight colors of Okabe and Ito without black, which are distinct with any color blindness, and
#: the colors of P. Tol's "muted" scheme that differ from them. More classes repeat the palette.
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
#: The name of the class that is shown dark, so that objects stand out.
BACKGROUND = "background"
BACKGROUND_COLOR = (15, 23, 42)
VOID_COLOR = (255, 255, 255)
_AREA_OPACITY, _BACKGROUND_OPACITY, _OUTLINE_OPACITY, _VOID_OPACITY = 135, 160, 255, 200
_MAX_CLASSES = 127  # a class takes two of the 256 palette entries of a PNG


def class_colors(class_names: Mapping[int, str]) -> dict[int, tuple[int, int, int]]:
    """Assign the colors of the palette to the label values in ascending order.

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
    """Scale an image to a width in pixels and return it as a JPEG data URI.

    Parameters
    ----------
    image : ndarray, (H, W[, C])
        Any real dtype. Less than 3 channels are shown as gray (the first), others as RGB (the
        first three).
    width : int
        The maximum width of the result; a narrower image is not scaled.
    quality : int
        The JPEG quality, 1 to 95.

    Returns
    -------
    str
        ``data:image/jpeg;base64,...``
    """
    photo = Image.fromarray(_displayable(image))
    if photo.width > width:
        photo = photo.resize(_scaled(photo.size, width), Image.Resampling.LANCZOS)
    return _uri(photo, "jpeg", quality=quality)


def _displayable(image: NDArray[Any]) -> NDArray[np.uint8]:
    intensity_range = "dtype" if image.dtype == np.uint8 else "image"
    colors = as_colors(image, spatial_ndim=2, intensity_range=intensity_range)
    if colors.shape[-1] < 3:
        colors = np.repeat(colors[..., :1], 3, axis=-1)
    rounded: NDArray[np.uint8] = np.rint(colors[..., :3]).astype(np.uint8)
    return rounded


def labels_uri(
    labels: NDArray[Any], colors: Mapping[int, Sequence[int]], width: int, *, sparse: bool = False
) -> str:
    """Scale a label map and return it as a translucent PNG data URI, to show over its photograph.

    Parameters
    ----------
    labels : ndarray of int, (H, W)
        Label values; negative values and values that are not in ``colors`` are void.
    colors : mapping from int to (red, green, blue)
        The color of each label value; at most 127 of them in one map.
    width : int
        The maximum width of the result in pixels; a narrower map is not scaled.
    sparse : bool
        True for scribbles: opaque strokes with white edges, transparent elsewhere. False:
        translucent areas with opaque outlines, and white hatching for void.

    Returns
    -------
    str
        ``data:image/png;base64,...``

    Raises
    ------
    ValueError
        The map holds more than 127 classes.
    """
    small = nearest(labels, _scaled(labels.shape[::-1], width)[::-1])
    colors = {value: colors[value] for value in np.unique(small).tolist() if value in colors}
    if len(colors) > _MAX_CLASSES:
        raise ValueError(
            f"labels holds {len(colors)} classes; expected at most {_MAX_CLASSES}, which the "
            f"palette of a PNG can hold: merge classes."
        )
    indices = _indices(small, sorted(colors))
    painted = _strokes(indices) if sparse else _areas(indices)
    overlay = Image.fromarray(painted)
    overlay.putpalette(_palette([tuple(colors[value]) for value in sorted(colors)]))
    return _uri(overlay, "png", optimize=True, transparency=_opacities(colors))


def nearest(array: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """Scale the first two axes to a shape by the nearest pixel, which keeps label values."""
    rows, columns = (
        np.minimum((np.arange(new) + 0.5) * old / new, old - 1).astype(np.intp)
        for new, old in zip(shape, array.shape, strict=False)
    )
    return array[rows[:, np.newaxis], columns]


def _scaled(size: Sequence[int], width: int) -> tuple[int, int]:
    """Scale a size (width, height) down to a maximum width."""
    if size[0] <= width:
        return int(size[0]), int(size[1])
    return width, max(1, round(size[1] * width / size[0]))


def _indices(labels: NDArray[Any], values: list[int]) -> NDArray[np.int64]:
    if not values:
        return np.full(labels.shape, -1)
    order = np.asarray(values)
    places = np.minimum(np.searchsorted(order, labels), len(order) - 1)
    return np.where(order[places] == labels, places, -1)


# Entries of the palette: 0 is transparent, 1 is white for void; then each class has two entries,
# for its area and its outline.
def _areas(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    painted = 2 + 2 * indices + _outline(indices)
    rows, columns = np.indices(indices.shape)
    hatch = (rows + columns) % 6 < 2
    return np.where(indices < 0, hatch, painted).astype(np.uint8)


def _strokes(indices: NDArray[np.int64]) -> NDArray[np.uint8]:
    drawn = indices >= 0
    halo = binary_dilation(
        drawn, np.ones((3, 3), dtype=bool)
    )  # keeps strokes visible on their color
    return np.where(drawn, 3 + 2 * indices, halo).astype(np.uint8)


def _outline(indices: NDArray[np.int64]) -> NDArray[np.bool_]:
    """The pixels on both sides of a change of label, two pixels wide in total."""
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
    opacities = [0, _VOID_OPACITY]
    for value in sorted(colors):
        dark = tuple(colors[value]) == BACKGROUND_COLOR
        opacities += [_BACKGROUND_OPACITY if dark else _AREA_OPACITY, _OUTLINE_OPACITY]
    return bytes(opacities)


def _uri(image: Image.Image, kind: str, **options: Any) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"
