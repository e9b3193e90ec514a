"""Atomic writes: a file is complete or absent, however the process ends."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Write a file atomically: open a temporary file that replaces ``path`` at the end.

    The temporary file is in the same folder. At the end of the ``with`` block, it is flushed to the
    disk and renamed to ``path``. If the block raises an error, the temporary file is removed, and
    an existing file remains unchanged. Temporary files of ``path`` that killed processes left
    behind are removed first.

    Parameters
    ----------
    path : Path
        In a folder that exists. An existing file is replaced.

    Yields
    ------
    file
        Open for writing bytes.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from hybridseg.files.atomic import atomic_write
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "a.bin")
    ...     with atomic_write(path) as file:
    ...         _ = file.write(b"content")
    ...         before = path.exists()
    ...     before, path.read_bytes()
    (False, b'content')
    """
    _remove_left_files(path)
    temporary, file = _new_temporary(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if os.name != "nt":  # Windows cannot rename an open file
                os.replace(temporary, path)
        if os.name == "nt":
            os.replace(temporary, path)
        _sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _new_temporary(path: Path) -> tuple[Path, IO[bytes]]:
    """Make and lock a temporary file.

    Before this process locks the file, another process may remove it, because it looks like the
    file of a killed process. Then the next attempt makes another file.
    """
    while True:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.draft")
        file = temporary.open("xb")
        with suppress(OSError):  # the file system may have no locks
            _lock(file, wait=True)  # another process may be about to remove it
        if os.name == "nt" or os.fstat(file.fileno()).st_nlink > 0:
            return temporary, file
        file.close()


def _remove_left_files(path: Path) -> None:
    """Remove temporary files whose lock is free: the process that wrote them has ended."""
    for temporary in _temporary_files(path):
        with suppress(OSError), temporary.open("rb") as file:
            _lock(file)
            temporary.unlink()


def _temporary_files(path: Path) -> list[Path]:
    """List the temporary files of ``path``."""
    start, end = f".{path.name}.", ".draft"
    with suppress(OSError):
        return [
            found
            for found in path.parent.iterdir()
            if found.name.startswith(start)
            and found.name.endswith(end)
            # the name of another file may start with this name
            and len(found.name[len(start) : -len(end)].split(".")) == 2
        ]
    return []


def _lock(file: IO[bytes], *, wait: bool = False) -> None:
    """Lock a file; the system frees the lock when the file is closed or the process ends.

    Raises
    ------
    OSError
        Another process holds the lock and ``wait`` is False, or the file system has no locks.
    """
    if os.name == "nt":  # Windows removes no open file, which serves as a lock
        return
    fcntl: Any = importlib.import_module("fcntl")
    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _sync_directory(directory: Path) -> None:
    """Flush the folder's new entry to the disk, if the system supports this."""
    with suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
