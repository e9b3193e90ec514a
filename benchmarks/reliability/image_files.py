"""Small files of every format, ways to damage them, and decompression bombs."""

from __future__ import annotations

import gzip
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[Any]


def make_files(folder: Path, seed: int = 0) -> dict[str, list[Path]]:
    """Write whole files; {format: paths}."""
    rng = np.random.default_rng(seed)
    smooth = np.add.outer(np.arange(24), np.arange(35))[..., np.newaxis] * [1, 2, 3]
    rgb = (smooth + rng.integers(0, 9, (24, 35, 3))).astype(np.uint8)
    volume = rng.integers(-500, 1500, (5, 12, 9)).astype(np.int16)
    groups = {
        "PNG": _pngs(folder, rgb),
        "JPEG": _jpegs(folder, rgb),
        "WebP, BMP, GIF": _others(folder, rgb),
        "TIFF": _tiffs(folder, rgb, volume),
        "NumPy": _arrays(folder, rgb, volume),
        "NIfTI": _volumes(folder, volume),
    }
    for paths in groups.values():
        assert all(path.stat().st_size for path in paths)
    return groups


def _pngs(folder: Path, rgb: Array) -> list[Path]:
    gray = rgb[..., 0]
    forms = {
        "rgb": Image.fromarray(rgb),
        "gray": Image.fromarray(gray),
        "rgba": Image.fromarray(np.dstack([rgb, gray])),
        "palette": Image.fromarray(rgb).convert("P"),
        "binary": Image.fromarray(gray > 60),
        "deep": Image.fromarray(gray.astype(np.uint16) * 257),
    }
    for name, image in forms.items():
        image.save(folder / f"{name}.png", exif=_turning(6))
    return [folder / f"{name}.png" for name in forms]


def _turning(mark: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = mark
    return exif


def _jpegs(folder: Path, rgb: Array) -> list[Path]:
    image = Image.fromarray(rgb)
    image.save(folder / "plain.jpg", exif=_turning(8))
    image.save(folder / "progressive.jpg", progressive=True, quality=60)
    image.convert("L").save(folder / "gray.jpg")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    return [folder / f"{name}.jpg" for name in ("plain", "progressive", "gray", "cmyk")]


def _others(folder: Path, rgb: Array) -> list[Path]:
    image = Image.fromarray(rgb)
    image.save(folder / "lossy.webp", exif=_turning(3))
    image.save(folder / "lossless.webp", lossless=True)
    image.save(folder / "a.bmp")
    image.convert("P").save(folder / "palette.bmp")
    image.save(folder / "a.gif")
    names = ("lossy.webp", "lossless.webp", "a.bmp", "palette.bmp", "a.gif")
    return [folder / name for name in names]


def _tiffs(folder: Path, rgb: Array, volume: Array) -> list[Path]:
    gray = rgb[..., 0]
    plain: dict[str, Any] = {"photometric": "minisblack"}
    forms: dict[str, tuple[Array, dict[str, Any]]] = {
        "plain": (rgb, {"photometric": "rgb"}),
        "planar": (np.moveaxis(rgb, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        "lzw": (rgb, {"photometric": "rgb", "compression": "lzw", "predictor": True}),
        "zstd": (gray.astype(np.uint16), {**plain, "compression": "zstd"}),
        "jpeg": (rgb, {"photometric": "rgb", "compression": "jpeg"}),
        "float": (gray / np.float32(7), {**plain, "compression": "deflate", "predictor": True}),
        "half": ((gray / 7).astype(np.float16), plain),
        "tiles": (rgb, {"photometric": "rgb", "tile": (16, 16), "compression": "deflate"}),
        "big": (gray.astype(">u4"), {**plain, "bigtiff": True, "byteorder": ">"}),
        "pages": (volume, {**plain, "metadata": None, "rowsperstrip": 4}),
        "cyx.ome": (np.moveaxis(rgb, -1, 0), {**plain, "metadata": {"axes": "CYX"}}),
        "imagej": (
            np.stack([volume, volume], 1),
            {"imagej": True, "metadata": {"axes": "ZCYX", "spacing": 2.0, "unit": "um"}},
        ),
    }
    for name, (array, options) in forms.items():
        tifffile.imwrite(folder / f"{name}.tif", array, **options)
    image = Image.fromarray(rgb)
    (image.convert("1")).save(folder / "ccitt.tif", compression="group4")
    image.convert("P").save(folder / "palette.tif")
    image.convert("CMYK").save(folder / "cmyk.tif", compression="tiff_lzw")
    names = (*forms, "ccitt", "palette", "cmyk")
    return [folder / f"{name}.tif" for name in names]


def _arrays(folder: Path, rgb: Array, volume: Array) -> list[Path]:
    forms: dict[str, Array] = {
        "bytes": rgb,
        "floats": volume.astype(np.float32),
        "swapped": volume.astype(">i2"),
        "complex": volume[0].astype(np.complex64),
        "text": np.array([["a", "b"]]),
        "fields": np.zeros((4, 5), [("a", "f4"), ("b", "i2")]),
    }
    for name, array in forms.items():
        np.save(folder / f"{name}.npy", array)
    np.save(folder / "objects.npy", np.array([[1, None]], object), allow_pickle=True)
    np.savez_compressed(folder / "packed.npz", rgb)
    np.savez(folder / "stored.npz", volume)
    names = [f"{name}.npy" for name in (*forms, "objects")] + ["packed.npz", "stored.npz"]
    return [folder / name for name in names]


def _volumes(folder: Path, volume: Array) -> list[Path]:
    affine = np.diag([0.5, 0.5, 2.0, 1.0])
    plain = nibabel.Nifti1Image(volume.T, affine)
    scaled = nibabel.Nifti1Image(volume.T.astype(np.float32), affine)
    scaled.set_data_dtype(np.int16)
    swapped = nibabel.Nifti1Image(volume.T, affine, nibabel.Nifti1Header(endianness=">").copy())
    images = {
        "plain.nii": plain,
        "plain.nii.gz": plain,
        "scaled.nii.gz": scaled,
        "swapped.nii": swapped,
        "second.nii": nibabel.Nifti2Image(volume.T, affine),
        "modalities.nii.gz": nibabel.Nifti1Image(np.stack([volume.T] * 2, -1), affine),
    }
    for name, image in images.items():
        nibabel.save(image, folder / name)
    return [folder / name for name in images]


def damage(content: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Damage a file's content in one way, drawn at random; (way, content)."""
    ways = list(_WAYS)
    way = ways[int(rng.integers(len(ways)))]
    return way, bytes(_WAYS[way](bytearray(content), rng))


def _cut(content: bytearray, rng: np.random.Generator) -> bytearray:
    return content[: int(rng.integers(len(content)))]


def _flip(content: bytearray, rng: np.random.Generator) -> bytearray:
    for place in rng.integers(0, len(content), int(rng.integers(1, 9))):
        content[place] ^= 1 << int(rng.integers(8))
    return content


def _flip_head(content: bytearray, rng: np.random.Generator) -> bytearray:
    return _flip(content[:400], rng) + content[400:]


def _swap_sizes(content: bytearray, rng: np.random.Generator) -> bytearray:
    """Overwrite a number in the header or the trailer, which hold sizes and offsets."""
    extremes = (0, 1, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0xFFFFFFFF, 0x10000000, 40000)
    number = int(rng.choice(extremes))
    form = str(rng.choice(["<H", ">H", "<I", ">I", "<Q", ">Q"]))
    packed = struct.pack(form, number & (0xFFFF if form[1] == "H" else 0xFFFFFFFF))
    end = min(400, len(content))
    place = int(rng.integers(end)) if rng.random() < 0.7 else int(rng.integers(len(content)))
    content[place : place + len(packed)] = packed
    return content


def _blank(content: bytearray, rng: np.random.Generator) -> bytearray:
    start, length = int(rng.integers(len(content))), int(rng.integers(1, 64))
    content[start : start + length] = bytes(len(content[start : start + length]))
    return content


def _repeat(content: bytearray, rng: np.random.Generator) -> bytearray:
    start, length = int(rng.integers(len(content))), int(rng.integers(1, 200))
    place = int(rng.integers(len(content)))
    return content[:place] + content[start : start + length] + content[place:]


def _append(content: bytearray, rng: np.random.Generator) -> bytearray:
    return content + rng.bytes(int(rng.integers(1, 300)))


_WAYS: dict[str, Callable[[bytearray, np.random.Generator], bytearray]] = {
    "cut": _cut,
    "bits flipped": _flip,
    "bits of the head flipped": _flip_head,
    "sizes swapped": _swap_sizes,
    "bytes blanked": _blank,
    "bytes repeated": _repeat,
    "junk appended": _append,
}


def make_bombs(folder: Path, side: int = 20000) -> list[Path]:
    """Write small files that claim, or unpack to, far more than a bound of 64 MiB."""
    zeros = zlib.compress(bytes(side * side))
    bombs = {
        "bomb.png": _png(side, side, zlib.compress(bytes((side + 1) * side))),
        "claims.png": _png(60000, 60000, zlib.compress(bytes(1000))),
        "bomb.nii.gz": gzip.compress(_nifti_head((side, side, 1)) + bytes(side * side)),
        "tail.nii.gz": gzip.compress(_nifti_head((2, 2, 2)) + bytes(side * side)),
        "claims.nii": _nifti_head((30000, 30000, 300)) + bytes(100),
        "claims.npy": _npy_head((2**40, 2**40)) + bytes(100),
        "wraps.npy": _npy_head((2**62, 4)) + bytes(100),
        "claims.bmp": b"BM"
        + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, side, side, 1, 24, *[0] * 6),
        "strip.tif": _tiff(30, 30, zeros, 8),
        "bomb.tif": _tiff(side, side, zeros, 8),
        "claims.tif": _tiff(60000, 60000, bytes(20), 1),
        "sparse.tif": _tiff(side, side, b"", 8),
        "claims.gif": b"GIF89a"
        + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0)
        + bytes(6)
        + b","
        + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
        + b"\x02\x02\x4c\x01\x00;",
    }
    for name, content in bombs.items():
        (folder / name).write_bytes(content)
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", _npy_head((side, side)) + bytes(side * side))
    less = side * 9 // 20
    Image.new("RGB", (less, less)).save(folder / "bomb.webp", lossless=True)
    Image.new("RGB", (less, less)).save(folder / "bomb.jpg")
    Image.new("L", (side, side)).save(folder / "bomb.gif")
    return sorted(path for path in folder.iterdir() if path.is_file())


def _png(width: int, height: int, body: bytes) -> bytes:
    def part(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", body) + part(b"IEND", b"")


def _nifti_head(shape: tuple[int, ...]) -> bytes:
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.uint8)
    header.set_data_shape(shape)
    header["magic"], header["vox_offset"] = b"n+1", 352
    return bytes(header.binaryblock) + bytes(4)


def _npy_head(shape: tuple[int, ...]) -> bytes:
    text = str({"descr": "|u1", "fortran_order": False, "shape": shape}).encode()
    text += b" " * (118 - len(text) - 1) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def _tiff(width: int, height: int, strip: bytes, compression: int) -> bytes:
    """One gray strip that holds whatever it is given."""
    tags = {256: width, 257: height, 258: 8, 259: compression, 262: 1}
    tags |= {273: 8, 277: 1, 278: height, 279: len(strip)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    place = 8 + len(strip)
    return (
        b"II*\0"
        + struct.pack("<I", place)
        + strip
        + struct.pack("<H", len(tags))
        + entries
        + bytes(4)
    )
