"""NumPy's own files: ``.npy``, and ``.npz`` of one array."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.files.reading import (
    DEFLATE_RATIO,
    UnreadableFileError,
    check_dtype,
    check_size,
    documented_errors,
)


def read_npy(file: Path) -> NDArray[Any]:
    """Read the array of an ``.npy`` file into memory; objects and cut files are refused."""
    with documented_errors(file, "a NumPy array"), file.open("rb") as stream:
        _check_header(stream, file, file.stat().st_size)
        stream.seek(0)
        array: NDArray[Any] = np.load(stream, allow_pickle=False)
    return array


def map_npy(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Map an ``.npy`` file: it stays on disk, and the system keeps what is read of it.

    Values in the other byte order are read whole, because no kernel takes them as they are.
    """
    file = Path(path)
    with documented_errors(file, "a NumPy array"):
        with file.open("rb") as stream:
            dtype, size = _check_header(stream, file, file.stat().st_size)
        if not dtype.isnative:
            array = read_npy(file)
            return array.astype(dtype.newbyteorder("="))
        return np.asarray(np.load(file, mmap_mode="r" if size else None, allow_pickle=False))


def read_npz(file: Path) -> NDArray[Any]:
    """Read the only array of an ``.npz`` file."""
    with documented_errors(file, "an archive of one NumPy array"), zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if len(names) != 1:
            listed = ", ".join(name.removesuffix(".npy") for name in names[:9]) or "none"
            raise UnreadableFileError(
                f"{file} holds {len(names)} arrays ({listed}); expected one. Load it with np.load "
                f"and pass the array that you mean, or save that one as .npy."
            )
        entry = archive.getinfo(names[0])
        check_size(file, entry.file_size, ratio=DEFLATE_RATIO)
        with archive.open(entry) as stream:
            _check_header(stream, file, entry.file_size)
        with archive.open(entry) as stream:
            array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            if stream.read(1):
                raise UnreadableFileError(f"{file} holds more bytes than its array's shape states.")
    return array


def _check_header(stream: IO[bytes], file: Path, n_bytes: int) -> tuple[np.dtype[Any], int]:
    """Refuse an array of ``n_bytes``, header included, before any of it is read."""
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise UnreadableFileError(
            f"{file} is of the .npy version {version}, which stores structured arrays only; "
            f"expected an array of numbers."
        )
    shape, _, dtype = read(stream)
    check_dtype(dtype, file)
    if any(side < 0 for side in shape):
        raise UnreadableFileError(f"{file} states the shape {shape}.")
    needed = math.prod(shape) * dtype.itemsize
    if stream.tell() + needed > n_bytes:
        raise UnreadableFileError(
            f"{file} is cut short: shape {shape} of {dtype} needs {needed} bytes, and "
            f"{n_bytes - stream.tell()} are there."
        )
    return dtype, needed
