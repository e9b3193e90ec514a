"""TIFF files, through tifffile; axes are reordered to (H, W[, C]) or (D, H, W[, C])."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.files.pillow import ORIENTATION, color_mode, refuse_colors
from hybridseg.files.reading import (
    Facts,
    UnreadableFileError,
    check_size,
    documented_errors,
    positive_spacing,
    turned,
)

#: Endings that are read here.
SUFFIXES = (".tif", ".tiff")

#: Letters of axes in tifffile: Z and I (pages) are the planes of a volume, S and C are channels. Q
#: is an axis that has no name; an array with such an axis keeps its order of axes.
_PLANES, _CHANNELS, _UNNAMED = "ZI", "SC", "Q"

#: Compressions that Pillow decodes, for when tifffile lacks the package imagecodecs.
_PILLOW_COMPRESSIONS = (
    "NONE",
    "LZW",
    "JPEG",
    "OJPEG",
    "CCITT",
    "ZSTD",
    "DEFLATE",
    "ADOBE_DEFLATE",
    "LZMA",
    "PACKBITS",
)


def read_tiff(file: Path, *, as_labels: bool) -> NDArray[Any]:
    """Read an image or a volume, channels last; ``as_labels`` returns indices into a palette."""
    import tifffile

    with documented_errors(file, "a TIFF file"), tifffile.TiffFile(file) as tiff:
        series = _only_series(tiff, file)
        page = series.keyframe
        array, axes = _values(series, _checked_axes(series, file), file)
        if page.photometric == tifffile.PHOTOMETRIC.PALETTE and not as_labels:
            array, axes = _colors(page.colormap, array), axes + "S"
        elif page.photometric == tifffile.PHOTOMETRIC.MINISWHITE:
            array = _inverted(array, page.bitspersample)
        array, axes = _ordered(array, axes)
        if as_labels and axes[-1] in _CHANNELS:
            if array.shape[-1] > 1:
                refuse_colors(array, file, f" (axes {series.axes}; planes would be Z)")
            array, axes = array[..., 0], axes[:-1]
        return np.ascontiguousarray(_upright(array, axes, _orientation(page)))


def tiff_facts(file: Path) -> Facts:
    """Read the number of axes, the spacing of a volume (OME, ImageJ) and the orientation."""
    import tifffile

    with documented_errors(file, "a TIFF file"), tifffile.TiffFile(file) as tiff:
        series = _only_series(tiff, file)
        axes = _checked_axes(series, file)
        if _UNNAMED in axes:
            return Facts(orientation=_orientation(series.keyframe))
        rank = 3 if any(axis in _PLANES for axis in axes) else 2
        spacing = _spacing(tiff, series) if rank == 3 else None
        return Facts(rank, spacing, orientation=_orientation(series.keyframe))


def _only_series(tiff: Any, file: Path) -> Any:
    """Return the only image or volume of the file, not counting its thumbnails."""
    every = list(tiff.series)
    found = [series for series in every if not series.keyframe.is_reduced] or every
    if len(found) != 1:
        shapes = ", ".join(str(series.shape) for series in found[:9]) or "none"
        raise UnreadableFileError(
            f"{file} holds {len(found)} images ({shapes}); expected one: read one of them with "
            f"tifffile.imread({str(file)!r}, series=0) and pass the array or save it."
        )
    series = found[0]
    check_size(file, math.prod(series.shape) * series.dtype.itemsize)
    for page in series.pages:
        if page is not None:
            _check_segments(page, series.keyframe, file)
    return series


def _check_segments(page: Any, first: Any, file: Path) -> None:
    """Raise unless each strip or tile is listed and inside the file.

    tifffile would fill a missing one with zeros.
    """
    size = file.stat().st_size
    places, counts = page.dataoffsets, page.databytecounts
    ends = [start + length for start, length in zip(places, counts, strict=False)]
    listed = min(len(places), len(counts))
    plain = first.compression == 1 and first.bitspersample % 8 == 0 and not first.is_subsampled
    lacking = plain and 0 < sum(counts) < first.nbytes
    if max(ends, default=0) > size or listed < math.prod(first.chunked) or lacking:
        raise UnreadableFileError(
            f"{file} is cut short: its {size} bytes do not hold all of its pixels."
        )


def _checked_axes(series: Any, file: Path) -> str:
    """Return the letters of the axes, without unknown axes of length 1; refuse longer ones."""
    axes = str(series.axes)
    kept = "".join(
        axis
        for axis, side in zip(axes, series.shape, strict=True)
        if side > 1 or axis in "YX" + _PLANES + _CHANNELS + _UNNAMED
    )
    planes = sum(axis in _PLANES for axis in kept)
    channels = sum(axis in _CHANNELS for axis in kept)
    named = set(kept) <= set("YX" + _PLANES + _CHANNELS) and {"Y", "X"} <= set(kept)
    unnamed = set(kept) <= set("YXS" + _UNNAMED) and _UNNAMED in kept
    if not ((named and planes < 2 and channels < 2) or unnamed):
        raise UnreadableFileError(
            f"{file} has the axes {axes} of lengths {tuple(series.shape)}; expected an "
            f"image (Y, X and at most one axis of channels) or a volume (Z as well): read it with "
            f"array = tifffile.imread({str(file)!r}), select an image or a volume, move its "
            f"channels to the end with np.moveaxis(array, 0, -1), and pass the array or save it as "
            f".npy."
        )
    return kept


def _values(series: Any, axes: str, file: Path) -> tuple[NDArray[Any], str]:
    """Return the values and the letters of their axes, by tifffile or else by Pillow."""
    import tifffile

    names, page = tifffile.PHOTOMETRIC, series.keyframe
    is_cmyk = page.photometric == names.SEPARATED and _is_plain_cmyk(series)
    known = (names.MINISBLACK, names.MINISWHITE, names.RGB, names.PALETTE)
    if not is_cmyk and page.photometric not in known:
        return _by_pillow(series, axes, file)
    try:
        array = series.asarray()
    except (ValueError, ImportError) as error:
        if "imagecodecs" not in str(error) and not isinstance(error, ImportError):
            raise
        return _by_pillow(series, axes, file)
    if is_cmyk:
        return _rgb_from_cmyk(array), axes
    sides = [n for a, n in zip(series.axes, series.shape, strict=True) if n > 1 or a in axes]
    return array.reshape(sides), axes


def _is_plain_cmyk(series: Any) -> bool:
    return series.axes == "YXS" and series.shape[-1] == 4 and series.dtype == np.uint8


def _rgb_from_cmyk(array: NDArray[Any]) -> NDArray[Any]:
    """Convert CMYK (H, W, 4) to RGB (H, W, 3)."""
    from PIL import Image

    size = (array.shape[1], array.shape[0])
    return np.array(Image.frombytes("CMYK", size, array.tobytes()).convert("RGB"))


def _by_pillow(series: Any, axes: str, file: Path) -> tuple[NDArray[Any], str]:
    """Decode the pages with Pillow, channels last; other color spaces become RGB."""
    from PIL import TiffImagePlugin

    page = series.keyframe
    names = page.photometric.name, page.compression.name, str(page.dtype)
    is_plain = names[0] in ("MINISBLACK", "MINISWHITE", "RGB", "PALETTE")
    refusal = UnreadableFileError(
        f"{file} is a TIFF of the kind {', '.join(names)}, which "
        + (
            "needs the package imagecodecs: pip install 'hybridseg[tiff]'."
            if is_plain
            else "cannot be converted to RGB; save it as RGB, gray or with a palette."
        )
    )
    if not page.compression.name.startswith(_PILLOW_COMPRESSIONS):
        raise refusal
    planes = []
    try:
        with TiffImagePlugin.TiffImageFile(str(file)) as image:
            for one in series.pages:
                image.seek(one.index)
                planes.append(_plane(image, page, refusal))
    except (SyntaxError, KeyError) as error:  # a kind that Pillow does not know
        raise refusal from error
    outer = [n for a, n in zip(series.axes, series.shape, strict=True) if a in axes and a != "S"]
    if math.prod(outer) != len(planes) * math.prod(planes[0].shape[:2]):
        raise refusal
    array = np.stack(planes).reshape((*outer, *planes[0].shape[2:]))
    return array, axes.replace("S", "") + "S" * (planes[0].ndim - 2)


def _plane(image: Any, page: Any, refusal: Exception) -> NDArray[Any]:
    depth = page.dtype.itemsize
    array = np.array(image.convert(color_mode(image)) if image.mode != "P" else image)
    if array.dtype.kind == "i" and page.dtype.kind in "ui" and depth <= 4:
        return array.astype(page.dtype)  # Pillow widens signed 16-bit integers
    if depth != array.dtype.itemsize or (page.dtype.kind == "f") != (array.dtype.kind == "f"):
        raise refusal
    return array


def _colors(colormap: NDArray[Any], indices: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the 8-bit color of each pixel; a TIFF palette holds 16-bit colors."""
    colors = np.asarray(colormap)
    if colors.max(initial=0) > 255:
        colors = colors >> 8
    return np.ascontiguousarray(colors.astype(np.uint8).T)[indices]


def _inverted(array: NDArray[Any], bits: int) -> NDArray[Any]:
    """Invert values whose 0 is white, so that 0 is black."""
    if array.dtype.kind == "b":
        return ~array
    return (2**bits - 1 - array).astype(array.dtype) if array.dtype.kind == "u" else array


def _ordered(array: NDArray[Any], axes: str) -> tuple[NDArray[Any], str]:
    """Reorder named axes to planes, rows, columns, channels."""
    if _UNNAMED in axes:
        return array, axes
    order = sorted(range(len(axes)), key=lambda i: "ZIYXSC".index(axes[i]))
    return array.transpose(order), "".join(axes[i] for i in order)


def _upright(array: NDArray[Any], axes: str, orientation: int) -> NDArray[Any]:
    if axes[0] in _PLANES:
        return np.moveaxis(turned(np.moveaxis(array, 0, -1), orientation), -1, 0)
    return array if _UNNAMED in axes else turned(array, orientation)


def _orientation(page: Any) -> int:
    tag = page.tags.get(ORIENTATION)
    value = 1 if tag is None else tag.value
    return int(value) if isinstance(value, int) and 1 <= value <= 8 else 1


def _spacing(tiff: Any, series: Any) -> tuple[float, ...] | None:
    """Return the distance between voxels (z, y, x), if the file states all three in one unit."""
    import tifffile

    if series.kind == "ome" and tiff.ome_metadata:
        described = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]
        pixels = (described[0] if isinstance(described, list) else described)["Pixels"]
        units = {pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"}
        steps = [pixels.get(f"PhysicalSize{axis}") for axis in "ZYX"]
        return positive_spacing(steps) if len(units) == 1 else None
    about = tiff.imagej_metadata or {}
    if "spacing" in about and "unit" in about:
        width, height = series.keyframe.resolution
        if width > 0 and height > 0:
            return positive_spacing([about["spacing"], 1 / height, 1 / width])
    return None
