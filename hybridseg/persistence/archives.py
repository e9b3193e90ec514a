"""Zip archives of uncompressed entries: written atomically, checked when they are read.

Entries are never compressed, so an archive cannot unpack to more than its own size.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hybridseg.files.atomic import atomic_write

#: The function that reads an array's header, by the version of NumPy's format.
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def write_archive(path: Path, entries: Mapping[str, bytes]) -> None:
    """Write an archive atomically.

    Parameters
    ----------
    path : Path
        An existing file is replaced; if writing fails, it stays as it was.
    entries : mapping of str to bytes
        The content of each entry by its name.
    """
    with atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def read_archive(content: bytes) -> dict[str, bytes]:
    """Read the entries of an archive.

    Parameters
    ----------
    content : bytes
        The whole file.

    Returns
    -------
    dict of str to bytes
        The content of each entry by its name; together no larger than ``content``.

    Raises
    ------
    ValueError
        ``content`` is not an archive, is damaged, or could not come from :func:`write_archive`: an
        entry is compressed, encrypted or there twice.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            for entry in entries:
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"the entry {entry.filename!r} is compressed")
                if entry.flag_bits & 1 or entry.file_size != entry.compress_size:
                    raise ValueError(
                        f"the entry {entry.filename!r} is encrypted, or its sizes differ"
                    )
            if len({entry.filename for entry in entries}) != len(entries):
                raise ValueError("two entries have the same name")
            if sum(entry.file_size for entry in entries) > len(content):
                raise ValueError("its entries are larger than the file")
            return {entry.filename: archive.read(entry) for entry in entries}
    except Exception as error:  # zipfile raises errors of every kind for damaged files
        raise ValueError(str(error) or type(error).__name__) from error


def read_array_header(content: bytes, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Read the shape and dtype of an array in NumPy's format; check that its values are there.

    Parameters
    ----------
    content : bytes
        The entry; no array is made from it.
    name : str
        The name of the entry, for error messages.

    Returns
    -------
    shape : tuple of int
    dtype : dtype

    Raises
    ------
    ValueError
        The entry is not an array, holds objects, or has more or fewer values than its shape states.
    """
    stream = io.BytesIO(content)
    try:
        read = _HEADERS[np.lib.format.read_magic(stream)]
        shape, _, dtype = read(stream)
    except Exception as error:  # NumPy passes on errors of tokenize, ast and struct
        raise ValueError(f"the entry {name!r} is not an array ({error!r})") from error
    size = math.prod(shape) * dtype.itemsize
    if (
        dtype.hasobject
        or size != len(content) - stream.tell()
        or not all(0 <= side <= len(content) for side in shape)
    ):
        raise ValueError(
            f"the entry {name!r} states an array {shape} of {dtype}, but holds "
            f"{len(content) - stream.tell()} bytes of values"
        )
    return shape, dtype


def read_array(content: bytes, name: str) -> np.ndarray[Any, Any]:
    """Read an array; raises the errors of :func:`read_array_header`."""
    read_array_header(content, name)
    found: np.ndarray[Any, Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return found
