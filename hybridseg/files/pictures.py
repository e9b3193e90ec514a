"""PNG, JPEG, WebP, BMP and GIF files, through Pillow."""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.files.reading import (
    DEFLATE_RATIO,
    Facts,
    UnreadableFileError,
    check_size,
    documented_errors,
    turned,
)
from hybridseg.validation import warn_caller

#: Endings that are read here, whichever of the formats the content turns out to be of.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")

#: Pillow's module and class of each format. They are called by name rather than through
#: ``Image.open``, which would try every format that it knows and has a bound of its own.
_FORMATS = {
    b"\x89PNG\r\n\x1a\n": ("PngImagePlugin", "PngImageFile"),
    b"\xff\xd8\xff": ("JpegImagePlugin", "jpeg_factory"),
    b"GIF8": ("GifImagePlugin", "GifImageFile"),
    b"BM": ("BmpImagePlugin", "BmpImageFile"),
    b"RIFF": ("WebPImagePlugin", "WebPImageFile"),
}

#: How the files of these formats start.
MAGIC = tuple(_FORMATS)

#: The tag "Orientation" of TIFF and EXIF.
ORIENTATION = 274


def read_picture(file: Path, *, as_labels: bool) -> NDArray[Any]:
    """Read colours, or as a label map the indices of a palette; turned as its mark says."""
    with documented_errors(file, "a picture"), file.open("rb") as stream:
        picture = _opened(stream, file)
        raw_mode = _raw_mode(picture)
        if "16" in raw_mode and picture.mode.startswith(("RGB", "LA")):
            raise UnreadableFileError(
                f"{file} holds 16 bit colours, of which 8 bits would be lost; save it as TIFF or "
                f".npy."
            )
        orientation, doubt = _orientation(picture), ""
        if as_labels:
            array = _label_values(picture, raw_mode, file)
            doubt = _doubt(picture, array)
        else:
            array = np.array(picture.convert(colour_mode(picture)))
            if raw_mode.startswith("I;16"):  # Pillow before 11.3 widens 16 bit grey
                array = array.astype(np.uint16)
    if doubt:
        warn_caller(f"{file} {doubt}")
    return np.ascontiguousarray(turned(array, orientation))


def picture_facts(file: Path) -> Facts:
    """Read the orientation mark, and nothing of the pixels."""
    with documented_errors(file, "a picture"), file.open("rb") as stream:
        return Facts(orientation=_orientation(_opened(stream, file)))


def _opened(stream: IO[bytes], file: Path) -> Any:
    import importlib

    start = stream.read(16)
    found = next((known for magic, known in _FORMATS.items() if start.startswith(magic)), None)
    if found is None or (start[:4] == b"RIFF" and start[8:12] != b"WEBP"):
        raise UnreadableFileError(
            f"{file} cannot be read as a picture: its first bytes are of no known format."
            if start
            else f"{file} is empty."
        )
    is_png = found[0] == "PngImagePlugin"
    if is_png:
        _check_png(stream, file)
    stream.seek(0)
    picture = getattr(importlib.import_module(f"PIL.{found[0]}"), found[1])(stream, str(file))
    bits = {"1": 1, "I": 32, "F": 32}.get(picture.mode, 16 if "16" in picture.mode else 8)
    stored_bits = min(bits, _bits(_raw_mode(picture)))
    pixels = math.prod(picture.size) * len(picture.getbands())
    if is_png:
        check_size(file, pixels * stored_bits // 8, ratio=DEFLATE_RATIO)
    check_size(file, pixels * max(bits, 8) // 8)
    return picture


def _bits(raw_mode: str) -> int:
    """How many bits a value takes in a PNG that packs several in a byte."""
    last = raw_mode.rpartition(";")[2]
    return int(last) if last in ("1", "2", "4") else 8 if raw_mode != "1" else 1


def _check_png(stream: IO[bytes], file: Path) -> None:
    """Compare the checksums of the parts that make the picture; Pillow does not for all."""
    stream.seek(8)
    kind = b""
    while kind != b"IEND":
        head = stream.read(8)
        if len(head) < 8:
            raise UnreadableFileError(f"{file} cannot be decoded: it is cut short.")
        length, kind = int.from_bytes(head[:4], "big"), head[4:]
        if length > file.stat().st_size:
            raise UnreadableFileError(f"{file} cannot be decoded: it is cut short.")
        content = stream.read(length)
        if kind in (b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"eXIf") and (
            zlib.crc32(kind + content) != int.from_bytes(stream.read(4), "big")
        ):
            raise UnreadableFileError(
                f"{file} cannot be decoded: the checksum of its part {kind.decode()} is wrong."
            )
        if kind not in (b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"eXIf"):
            stream.seek(4, 1)


def _raw_mode(picture: Any) -> str:
    """How the pixels lie in the file, where the decoder says so (PNG: "L;4", "RGB;16B")."""
    arguments = picture.tile[0][3] if picture.tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _orientation(picture: Any) -> int:
    mark = picture.getexif().get(ORIENTATION, 1)
    return mark if isinstance(mark, int) and 1 <= mark <= 8 else 1


def colour_mode(picture: Any) -> str:
    """The mode to convert to: a palette gives colours, other colour spaces give RGB."""
    if picture.mode in ("P", "PA"):
        return "RGBA" if "transparency" in picture.info or picture.mode == "PA" else "RGB"
    return "RGB" if picture.mode in ("CMYK", "YCbCr", "LAB", "HSV") else str(picture.mode)


def _label_values(picture: Any, raw_mode: str, file: Path) -> NDArray[Any]:
    array = np.array(picture)
    refuse_colours(array, file, f" ({picture.mode})")
    # Pillow stretches grey values of 2 and 4 bits to 0..255
    return array // {"L;2": 85, "L;4": 17}.get(raw_mode, 1)


def refuse_colours(array: NDArray[Any], file: Path, kind: str = "") -> None:
    """A label map has no channel axis; ``array`` is (H, W[, C])."""
    if array.ndim == 2:
        return
    colors = array[..., : min(3, array.shape[-1])]
    grey = bool((colors == colors[..., :1]).all())
    cure = (
        "They are all equal: take one, labels[..., 0], and save that."
        if grey and array.shape[-1] > 2
        else "Turn its colours into numbers first, as "
        "np.unique(labels.reshape(-1, labels.shape[-1]), axis=0, return_inverse=True) does."
    )
    raise UnreadableFileError(
        f"{file} has {array.shape[-1]} channels{kind}; a label map has one, the class number of "
        f"each pixel. {cure}"
    )


def _doubt(picture: Any, labels: NDArray[Any]) -> str:
    """Why a label map that can be read may not be what it should be; "" where nothing is odd.

    JPEG changes values. A tool that shrinks PNG files turns a grey label map into a palette of
    its greys, in any order.
    """
    if picture.format in ("JPEG", "MPO"):
        return (
            "is a JPEG, which changes the numbers of a label map where labels meet; save label "
            "maps as PNG."
        )
    palette = np.array(picture.getpalette("RGB") if picture.mode == "P" else [], dtype=np.uint8)
    palette = palette.reshape(-1, 3)
    used = np.unique(labels)
    used = used[used < len(palette)]
    greys = palette[used]
    if len(used) < 3 or (greys != greys[:, :1]).any() or (greys[:, 0] == used).all():
        return ""
    shown = ", ".join(f"{i} (grey {grey})" for i, grey in zip(used, greys[:, 0], strict=True))
    return (
        f"has a palette of greys, and its indices are read as labels: {shown[:200]}. If the greys "
        f"are the labels, take np.asarray(PIL.Image.open(path).convert('L'))."
    )
