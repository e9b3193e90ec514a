"""NumPy files: ``.npy``, and ``.npz`` archives of one array."""

from __future__ import annotations

import math
import os
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.files.reading import (
    MAX_DEFLATE_RATIO,
    UnreadableFileError,
    check_dtype,
    check_size,
    documented_errors,
)


def read_npy(file: Path) -> NDArray[Any]:
    """Read the array of an ``.npy`` file into memory; refuse object arrays and truncated files."""
    with documented_errors(file, "a NumPy array"), file.open("rb") as stream:
        _check_header(stream, file, file.stat().st_size)
        stream.seek(0)
        array: NDArray[Any] = np.load(stream, allow_pickle=False)
    return array


def map_npy(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Memory-map the array of an ``.npy`` file; only values that are used are read.

    An array in the other byte order is read into memory and converted, because kernels need native
    byte order. An empty array is not mapped.

    Raises
    ------
    UnreadableFileError
        The file is damaged, or does not hold an array of numbers.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from hybridseg.files.arrays import map_npy
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(folder + "/a.npy", np.arange(6.0))
    ...     mapped = map_npy(folder + "/a.npy")
    ...     isinstance(mapped.base, np.memmap), float(mapped[4])
    (True, 4.0)
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
    """Read the only array of an ``.npz`` file.

    Raises
    ------
    UnreadableFileError
        The file is damaged, or does not hold exactly one array of numbers.
    """
    with documented_errors(file, "an archive of one NumPy array"), zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        if len(names) != 1:
            listed = ", ".join(name.removesuffix(".npy") for name in names[:9]) or "none"
            raise UnreadableFileError(
                f"{file} holds {len(names)} arrays ({listed}); expected one: load the file with "
                f"np.load and pass one of its arrays, or save that array as .npy."
            )
        entry = archive.getinfo(names[0])
        check_size(file, entry.file_size, ratio=MAX_DEFLATE_RATIO)
        with archive.open(entry) as stream:
            _check_header(stream, file, entry.file_size)
        with archive.open(entry) as stream:
            array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
            if stream.read(1):
                raise UnreadableFileError(f"{file} holds more bytes than its header states.")
    return array


def _check_header(stream: IO[bytes], file: Path, n_bytes: int) -> tuple[np.dtype[Any], int]:
    """Read an array's dtype and size in bytes from its header; refuse a damaged one.

    No value is read. ``n_bytes`` is the length of the stream, header included.
    """
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise UnreadableFileError(
            f"{file} has the .npy version {version}, which is for structured arrays; expected an "
            f"array of numbers, of version (1, 0) or (2, 0)."
        )
    shape, _, dtype = read(stream)
    check_dtype(dtype, file)
    if any(side < 0 for side in shape):
        raise UnreadableFileError(
            f"{file} has a header with the shape {shape}; expected sides >= 0."
        )
    needed = math.prod(shape) * dtype.itemsize
    if stream.tell() + needed > n_bytes:
        raise UnreadableFileError(
            f"{file} is cut short: the shape {shape} of {dtype} needs {needed} bytes, but the file "
            f"holds {n_bytes - stream.tell()}."
        )
    return dtype, needed
