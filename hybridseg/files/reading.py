"""What reading a file of any format shares: its one error, its bound, and quiet decoders."""

from __future__ import annotations

import gzip
import logging
import os
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

PathLike = str | os.PathLike[str]

#: How many bytes a file may unpack to, unless the environment variable
#: ``HYBRIDSEG_MAX_UNPACKED_BYTES`` says otherwise. A file that is larger than this itself may
#: unpack to its own size.
MAX_UNPACKED_BYTES = 2**31

#: Deflate (PNG, gzip, zip) cannot shrink anything further than this.
DEFLATE_RATIO = 1032

#: Decoders whose warnings and log records are about files, which our error reports.
_DECODERS = ("PIL", "tifffile", "nibabel", "numpy.lib")


class UnreadableFileError(OSError, ValueError):
    """A file is there, but it cannot be read as what it should be.

    The message names the file, says what is wrong and, where there is one, what to do. Reading a
    picture, a volume or a label map raises this error or, where there is no such file,
    FileNotFoundError, whatever the decoder beneath raises. Both are OSErrors, and this one is a
    ValueError as well.

    Parameters
    ----------
    message : str
        What is wrong, with the file's name.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from hybridseg.datasets import UnreadableFileError, read_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.png").write_bytes(b"no picture")
    ...     try:
    ...         read_image(folder + "/a.png")
    ...     except UnreadableFileError as error:
    ...         message = str(error)
    >>> message.removeprefix(folder)
    '/a.png cannot be read as a picture: its first bytes are of no known format.'
    """


@dataclass(frozen=True)
class Facts:
    """What a file says about its picture, beside the values.

    Attributes
    ----------
    spatial_ndim : {2, 3}, optional
        The number of spatial axes; None where the file does not tell.
    spacing : tuple of float, optional
        The distance between pixels along each spatial axis, in the file's unit.
    affine : ndarray of float, (4, 4), optional
        From the indices (x, y, z) to positions in space, as NiBabel gives it.
    orientation : int
        The orientation mark (EXIF, TIFF) that :func:`turned` applies; 1 turns nothing.
    """

    spatial_ndim: int | None = None
    spacing: tuple[float, ...] | None = None
    affine: NDArray[np.float64] | None = None
    orientation: int = 1


def max_unpacked_bytes() -> int:
    """The bound on what a file may unpack to, as the environment or the constant states it."""
    stated = os.environ.get("HYBRIDSEG_MAX_UNPACKED_BYTES")
    if stated is None:
        return MAX_UNPACKED_BYTES
    if not stated.isdecimal() or int(stated) < 1:
        raise ValueError(
            f"HYBRIDSEG_MAX_UNPACKED_BYTES={stated!r}; expected a whole number of bytes above 0."
        )
    return int(stated)


def check_size(file: Path, n_bytes: int, *, ratio: int | None = None) -> None:
    """Refuse a file that states more bytes than the bound, or than its own size can hold.

    Parameters
    ----------
    file : Path
    n_bytes : int
        What it states to unpack to.
    ratio : int, optional
        How far its compression can shrink data at most; 1 where it has none.
    """
    own = file.stat().st_size
    if ratio is not None and n_bytes > ratio * own:
        raise UnreadableFileError(
            f"{file} is cut short: it states {n_bytes} bytes, which a file of {own} bytes cannot "
            f"hold."
        )
    bound = max(max_unpacked_bytes(), own)
    if n_bytes > bound:
        raise UnreadableFileError(
            f"{file} would unpack to {n_bytes} bytes, more than the bound of {bound}. If you trust "
            f"the file, set the environment variable HYBRIDSEG_MAX_UNPACKED_BYTES={n_bytes}."
        )


@contextmanager
def documented_errors(file: Path, what: str) -> Iterator[None]:
    """Turn whatever a decoder raises into :class:`UnreadableFileError`, and keep it quiet."""
    try:
        with _quiet():
            yield
    except (FileNotFoundError, UnreadableFileError):
        raise
    except PermissionError as error:
        raise UnreadableFileError(f"{file} may not be read: {error.strerror}.") from error
    except MemoryError as error:
        raise UnreadableFileError(f"{file} needs more memory than there is.") from error
    except Exception as error:  # decoders raise whatever their damaged input runs into
        reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        raise UnreadableFileError(f"{file} cannot be read as {what}: {reason}.") from error


class _QuietFilter(logging.Filter):
    """Drops the decoders' log records in threads that are reading a file."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is kept."""
        return getattr(_READING, "depth", 0) == 0


_READING = threading.local()
_QUIET_FILTER = _QuietFilter()
_LOCK = threading.Lock()
_SHARED: dict[str, Any] = {"readers": 0, "filters": None}


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop the decoders' warnings and log records.

    Python's warning filters belong to the whole process. So the first reader sets them and the
    last one puts them back, and they name only the decoders' modules.
    """
    _enter_quiet()
    _READING.depth = getattr(_READING, "depth", 0) + 1
    try:
        yield
    finally:
        _READING.depth -= 1
        _leave_quiet()


def _enter_quiet() -> None:
    with _LOCK:
        _SHARED["readers"] += 1
        if _SHARED["readers"] > 1:
            return
        for name in ("tifffile", "nibabel.global"):
            logging.getLogger(name).addFilter(_QUIET_FILTER)  # adding it twice changes nothing
        _SHARED["filters"] = warnings.catch_warnings()
        _SHARED["filters"].__enter__()
        for name in _DECODERS:
            warnings.filterwarnings("ignore", module=name)


def _leave_quiet() -> None:
    with _LOCK:
        _SHARED["readers"] -= 1
        if _SHARED["readers"] == 0:
            _SHARED["filters"].__exit__(None, None, None)


def check_values(array: NDArray[Any], file: Path) -> NDArray[Any]:
    """Refuse values that are no real numbers and shapes that are no picture; native bytes."""
    check_dtype(array.dtype, file)
    if array.ndim not in (2, 3, 4) or array.size == 0:
        raise UnreadableFileError(
            f"{file} holds an array of shape {array.shape}; expected (H, W[, C]) or "
            f"(D, H, W[, C]) with at least one pixel."
        )
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def check_dtype(dtype: np.dtype[Any], file: Path) -> None:
    """Refuse what is neither boolean, integer nor real."""
    if dtype.kind in "buif":
        return
    cure = {
        "c": "Store its real part, or np.abs of it, instead",
        "V": "Store its fields as separate arrays, or as channels on a last axis",
        "O": "Objects would need pickle, which runs code; store an array of numbers",
    }.get(dtype.kind, "Store numbers instead")
    raise UnreadableFileError(
        f"{file} holds values of dtype {dtype}; expected booleans, integers or real numbers. "
        f"{cure}."
    )


def turned(array: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn a picture (H, W[, C]) as its orientation mark says, so that it stands upright.

    References
    ----------
    TIFF 6.0 (1992), tag 274 "Orientation"; EXIF 2.3 takes it over.
    """
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def swaps_sides(orientation: int) -> bool:
    """Whether an orientation mark exchanges height and width."""
    return orientation in (5, 6, 7, 8)


def positive_spacing(steps: Sequence[Any]) -> tuple[float, ...] | None:
    """Steps as a spacing; None where one of them is missing or no positive number."""
    try:
        values = tuple(abs(float(step)) for step in steps)
    except (TypeError, ValueError):
        return None
    return values if all(np.isfinite(value) and value > 0 for value in values) else None


@contextmanager
def unpacked(file: Path) -> Iterator[Any]:
    """Open a gzip file for reading; its end, where its checksum stands, is reached on leaving."""
    with gzip.open(file, "rb") as stream:
        yield stream
        left = max(max_unpacked_bytes(), file.stat().st_size)
        while chunk := stream.read(2**20):
            left -= len(chunk)
            if left < 0:
                raise UnreadableFileError(f"{file} unpacks to more than its header states.")
