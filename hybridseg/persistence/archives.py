"""Archives of plain entries: written whole or not at all, read without trust.

Entries are stored as they are, never compressed, so that an archive cannot ask for more memory
than its own size.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hybridseg.files.drafts import whole_file

_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def write_archive(path: Path, entries: Mapping[str, bytes]) -> None:
    """Write an archive, which is there whole or not at all.

    Parameters
    ----------
    path : Path
        An existing file is replaced; where writing fails, it stays as it was.
    entries : mapping of str to bytes
    """
    with whole_file(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def read_archive(content: bytes) -> dict[str, bytes]:
    """The entries of an archive by name.

    Parameters
    ----------
    content : bytes
        A whole file.

    Returns
    -------
    dict of str to bytes
        Together no larger than ``content``.

    Raises
    ------
    ValueError
        It is no archive, is damaged, or is none that :func:`write_archive` writes: entries that
        are compressed, encrypted, or there twice.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            for entry in entries:
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"the entry {entry.filename!r} is compressed")
                if entry.flag_bits & 1 or entry.file_size != entry.compress_size:
                    raise ValueError(f"the entry {entry.filename!r} is not stored as it is")
            if len({entry.filename for entry in entries}) != len(entries):
                raise ValueError("an entry is there twice")
            if sum(entry.file_size for entry in entries) > len(content):
                raise ValueError("its entries are larger than the file")
            return {entry.filename: archive.read(entry) for entry in entries}
    except Exception as error:  # whatever zipfile raises where a file is damaged
        raise ValueError(str(error) or type(error).__name__) from error


def read_array_header(content: bytes, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """The shape and dtype of an array in NumPy's format, whose values are all there.

    Parameters
    ----------
    content : bytes
        An entry, of which no array is made.
    name : str
        The entry's.

    Returns
    -------
    shape : tuple of int
    dtype : dtype

    Raises
    ------
    ValueError
        It is no such array, holds objects, or its shape asks for more or for fewer values than
        there are.
    """
    stream = io.BytesIO(content)
    try:
        read = _HEADERS[np.lib.format.read_magic(stream)]
        shape, _, dtype = read(stream)
    except Exception as error:  # tokenize, ast and struct have errors of their own
        raise ValueError(f"the entry {name!r} is no array ({error!r})") from error
    size = math.prod(shape) * dtype.itemsize
    if (
        dtype.hasobject
        or size != len(content) - stream.tell()
        or not all(0 <= side <= len(content) for side in shape)
    ):
        raise ValueError(
            f"the entry {name!r} says that it is an array {shape} of {dtype}, but its values "
            f"take {len(content) - stream.tell()} bytes"
        )
    return shape, dtype


def read_array(content: bytes, name: str) -> np.ndarray[Any, Any]:
    """An array whose header :func:`read_array_header` accepts."""
    read_array_header(content, name)
    found: np.ndarray[Any, Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return found
