"""PNG, JPEG, WebP, BMP and GIF files, through Pillow."""

from __future__ import annotations

import importlib
import math
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.files.reading import (
    MAX_DEFLATE_RATIO,
    Facts,
    UnreadableFileError,
    check_size,
    documented_errors,
    turned,
)
from hybridseg.validation import warn_caller

#: Endings that are read here. The first bytes of a file, not its ending, say which format it has.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")

#: The first bytes of each format, and its module and class in Pillow. The classes are called
#: directly, because ``Image.open`` would try every format that it knows and has its own bound.
_FORMATS = {
    b"\x89PNG\r\n\x1a\n": ("PngImagePlugin", "PngImageFile"),
    b"\xff\xd8\xff": ("JpegImagePlugin", "jpeg_factory"),
    b"GIF8": ("GifImagePlugin", "GifImageFile"),
    b"BM": ("BmpImagePlugin", "BmpImageFile"),
    b"RIFF": ("WebPImagePlugin", "WebPImageFile"),
}

#: The first bytes of all these formats.
MAGIC = tuple(_FORMATS)

#: The number of the tag "Orientation" in TIFF and EXIF.
ORIENTATION = 274


def read_pillow(file: Path, *, as_labels: bool) -> NDArray[Any]:
    """Read an image upright; ``as_labels`` returns one channel, or the indices into a palette."""
    with documented_errors(file, "an image"), file.open("rb") as stream:
        image = _opened(stream, file)
        raw_mode = _raw_mode(image)
        if "16" in raw_mode and image.mode.startswith(("RGB", "LA")):
            raise UnreadableFileError(
                f"{file} holds 16-bit colors, which would be cut to 8 bits; save it as TIFF or "
                f".npy."
            )
        orientation, doubt = _orientation(image), ""
        if as_labels:
            array = _label_values(image, raw_mode, file)
            doubt = _doubt(image, array)
        else:
            array = np.array(image.convert(color_mode(image)))
            if raw_mode.startswith("I;16"):  # Pillow before 11.3 widens 16-bit gray
                array = array.astype(np.uint16)
    if doubt:
        warn_caller(f"{file} {doubt}")
    return np.ascontiguousarray(turned(array, orientation))


def pillow_facts(file: Path) -> Facts:
    """Read the orientation tag, without decoding pixels."""
    with documented_errors(file, "an image"), file.open("rb") as stream:
        return Facts(orientation=_orientation(_opened(stream, file)))


def _opened(stream: IO[bytes], file: Path) -> Any:
    start = stream.read(16)
    found = next((known for magic, known in _FORMATS.items() if start.startswith(magic)), None)
    if found is None or (start[:4] == b"RIFF" and start[8:12] != b"WEBP"):
        raise UnreadableFileError(
            f"{file} cannot be read as an image: its first bytes match no known format."
            if start
            else f"{file} is empty."
        )
    is_png = found[0] == "PngImagePlugin"
    if is_png:
        _check_png(stream, file)
    stream.seek(0)
    image = getattr(importlib.import_module(f"PIL.{found[0]}"), found[1])(stream, str(file))
    bits = {"1": 1, "I": 32, "F": 32}.get(image.mode, 16 if "16" in image.mode else 8)
    stored_bits = min(bits, _bits(_raw_mode(image)))
    pixels = math.prod(image.size) * len(image.getbands())
    if is_png:
        check_size(file, pixels * stored_bits // 8, ratio=MAX_DEFLATE_RATIO)
    check_size(file, pixels * max(bits, 8) // 8)
    return image


def _bits(raw_mode: str) -> int:
    """Return the bits of one stored value; PNG packs values of 1, 2 and 4 bits in a byte."""
    last = raw_mode.rpartition(";")[2]
    return int(last) if last in ("1", "2", "4") else 8 if raw_mode != "1" else 1


def _check_png(stream: IO[bytes], file: Path) -> None:
    """Verify the checksums of the chunks that make the image; Pillow does not verify all."""
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
                f"{file} cannot be decoded: the checksum of its chunk {kind.decode()} is wrong."
            )
        if kind not in (b"IHDR", b"PLTE", b"IDAT", b"tRNS", b"eXIf"):
            stream.seek(4, 1)


def _raw_mode(image: Any) -> str:
    """Return the layout of the stored pixels, such as "L;4" or "RGB;16B"; "" if not known."""
    arguments = image.tile[0][3] if image.tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _orientation(image: Any) -> int:
    value = image.getexif().get(ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def color_mode(image: Any) -> str:
    """Return the mode to convert to: colors for a palette, RGB for other color spaces."""
    if image.mode in ("P", "PA"):
        return "RGBA" if "transparency" in image.info or image.mode == "PA" else "RGB"
    return "RGB" if image.mode in ("CMYK", "YCbCr", "LAB", "HSV") else str(image.mode)


def _label_values(image: Any, raw_mode: str, file: Path) -> NDArray[Any]:
    array = np.array(image)
    refuse_colors(array, file, f" ({image.mode})")
    # Pillow scales gray values of 2 and 4 bits to 0..255
    return array // {"L;2": 85, "L;4": 17}.get(raw_mode, 1)


def refuse_colors(array: NDArray[Any], file: Path, kind: str = "") -> None:
    """Raise if a label map (H, W[, C]) has a channel axis."""
    if array.ndim == 2:
        return
    colors = array[..., : min(3, array.shape[-1])]
    gray = bool((colors == colors[..., :1]).all())
    cure = (
        "They are all equal: select one, labels[..., 0], and save it."
        if gray and array.shape[-1] > 2
        else "Turn its colors into numbers first, as with "
        "np.unique(labels.reshape(-1, labels.shape[-1]), axis=0, return_inverse=True)."
    )
    raise UnreadableFileError(
        f"{file} has {array.shape[-1]} channels{kind}; a label map has one, the class of each "
        f"pixel. {cure}"
    )


def _doubt(image: Any, labels: NDArray[Any]) -> str:
    """Return a warning if the values of a label map may not be its labels, else "".

    JPEG changes values. Some tools that shrink PNG files turn a gray image into a palette image,
    with its grays in any order.
    """
    if image.format in ("JPEG", "MPO"):
        return (
            "is a JPEG, which changes the numbers of a label map at the borders between labels; "
            "save label maps as PNG."
        )
    palette = np.array(image.getpalette("RGB") if image.mode == "P" else [], dtype=np.uint8)
    palette = palette.reshape(-1, 3)
    used = np.unique(labels)
    used = used[used < len(palette)]
    grays = palette[used]
    if len(used) < 3 or (grays != grays[:, :1]).any() or (grays[:, 0] == used).all():
        return ""
    shown = ", ".join(f"{i} (gray {gray})" for i, gray in zip(used, grays[:, 0], strict=True))
    return (
        f"has a palette of grays, and its indices are read as labels: {shown[:200]}. If the grays "
        f"are the labels, use np.asarray(PIL.Image.open(path).convert('L'))."
    )
