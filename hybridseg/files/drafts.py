"""Files that are there whole or not at all, however a process ends."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a draft of a file, which takes its name once all is written and on the disk.

    Where what is done within fails, the draft is removed, and a file of that name stays as it was.
    Drafts of the same name that killed processes have left are removed first.

    Parameters
    ----------
    path : Path
        In a folder that is there. An existing file is replaced.

    Yields
    ------
    file
        Open for writing bytes.
    """
    _remove_left_drafts(path)
    draft, file = _new_draft(path)
    try:
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if os.name != "nt":  # a name that is open cannot change there
                os.replace(draft, path)
        if os.name == "nt":
            os.replace(draft, path)
        _sync_directory(path.parent)
    finally:
        draft.unlink(missing_ok=True)


def _new_draft(path: Path) -> tuple[Path, IO[bytes]]:
    """A draft that is ours: locked, and not taken for a left one before it was."""
    while True:
        draft = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.draft")
        file = draft.open("xb")
        with suppress(OSError):  # a file system without locks
            _lock(file, wait=True)  # for one who is about to remove it
        if os.name == "nt" or os.fstat(file.fileno()).st_nlink > 0:
            return draft, file
        file.close()


def _remove_left_drafts(path: Path) -> None:
    """Remove drafts of a name that no process is writing any more: their lock is free."""
    for draft in _drafts(path):
        with suppress(OSError), draft.open("rb") as file:
            _lock(file)
            draft.unlink()


def _drafts(path: Path) -> list[Path]:
    start, end = f".{path.name}.", ".draft"
    with suppress(OSError):
        return [
            found
            for found in path.parent.iterdir()
            if found.name.startswith(start)
            and found.name.endswith(end)
            # another file's name may start with this one's
            and len(found.name[len(start) : -len(end)].split(".")) == 2
        ]
    return []


def _lock(file: IO[bytes], *, wait: bool = False) -> None:
    """Take a file's lock, which the system frees when the file is closed or the process ends.

    Raises
    ------
    OSError
        Another process holds it and it is not waited for, or the file system has none.
    """
    if os.name == "nt":  # an open file cannot be removed there, which does as well
        return
    fcntl: Any = importlib.import_module("fcntl")
    fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _sync_directory(directory: Path) -> None:
    """Push a new name to the disk, where the system can."""
    with suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
