"""Code for all readers: one error, one bound on unpacked bytes, checks, and quiet decoders."""

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

#: A file may unpack to this many bytes, unless the environment variable
#: ``HYBRIDSEG_MAX_UNPACKED_BYTES`` sets another bound. A file that is itself larger than the bound
#: may unpack to its own size.
MAX_UNPACKED_BYTES = 2**31

#: The maximum compression ratio of Deflate, which PNG, gzip and zip use.
MAX_DEFLATE_RATIO = 1032

#: Decoders whose warnings are silenced, because our own errors report what is wrong with a file.
_DECODERS = ("PIL", "tifffile", "nibabel", "numpy.lib")


class UnreadableFileError(OSError, ValueError):
    """A file exists, but it cannot be read as an image, a volume or a label map.

    The message names the file, the fault and, if there is a remedy, what to do. All readers convert
    the errors of their decoders to this error. If a file does not exist, they raise
    FileNotFoundError. Both errors are OSErrors, and this one is a ValueError as well.

    Parameters
    ----------
    message : str
        The name of the file, and what is wrong with it.

    Examples
    --------
    >>> import tempfile
    >>> from pathlib import Path
    >>> from hybridseg.datasets import UnreadableFileError, read_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "a.png").write_bytes(b"no image")
    ...     try:
    ...         read_image(folder + "/a.png")
    ...     except UnreadableFileError as error:
    ...         message = str(error)
    >>> message.removeprefix(folder)
    '/a.png cannot be read as an image: its first bytes match no known format.'
    """


@dataclass(frozen=True)
class Facts:
    """The metadata of an image file.

    Attributes
    ----------
    spatial_ndim : {2, 3}, optional
        The number of spatial axes; None where the file does not state it.
    spacing : tuple of float, optional
        The distance between neighboring pixels along each spatial axis, in the file's unit.
    affine : ndarray of float, (4, 4), optional
        The matrix from voxel indices (x, y, z) to positions in space, as in NiBabel.
    orientation : int
        The orientation tag (EXIF, TIFF), 1 to 8, an argument of :func:`turned`; 1 changes nothing.
    """

    spatial_ndim: int | None = None
    spacing: tuple[float, ...] | None = None
    affine: NDArray[np.float64] | None = None
    orientation: int = 1


def max_unpacked_bytes() -> int:
    """Return the bound on unpacked bytes, from the environment variable or else the constant."""
    stated = os.environ.get("HYBRIDSEG_MAX_UNPACKED_BYTES")
    if stated is None:
        return MAX_UNPACKED_BYTES
    if not stated.isdecimal() or int(stated) < 1:
        raise ValueError(
            f"HYBRIDSEG_MAX_UNPACKED_BYTES={stated!r}; expected a whole number of bytes above 0."
        )
    return int(stated)


def check_size(file: Path, n_bytes: int, *, ratio: int | None = None) -> None:
    """Refuse a file that would unpack to more bytes than the bound, or than its size can hold.

    Parameters
    ----------
    file : Path
    n_bytes : int
        The size of the unpacked values, as the file's header states it.
    ratio : int, optional
        The maximum compression ratio of the file's format, 1 without compression. With None,
        ``n_bytes`` is not compared with the file's own size.

    Raises
    ------
    UnreadableFileError
        ``n_bytes`` exceeds the bound, or ``ratio`` times the size of the file.
    """
    own = file.stat().st_size
    if ratio is not None and n_bytes > ratio * own:
        raise UnreadableFileError(
            f"{file} is cut short: its header states {n_bytes} bytes of values, but a file of "
            f"{own} bytes cannot hold them."
        )
    bound = max(max_unpacked_bytes(), own)
    if n_bytes > bound:
        raise UnreadableFileError(
            f"{file} would unpack to {n_bytes} bytes, more than the bound of {bound}. If you trust "
            f"the file, set the environment variable HYBRIDSEG_MAX_UNPACKED_BYTES={n_bytes}."
        )


@contextmanager
def unpacked(file: Path) -> Iterator[Any]:
    """Open a gzip file; on leaving, read it to the end, so that its checksum is verified."""
    with gzip.open(file, "rb") as stream:
        yield stream
        left = max(max_unpacked_bytes(), file.stat().st_size)
        while chunk := stream.read(2**20):
            left -= len(chunk)
            if left < 0:
                raise UnreadableFileError(f"{file} unpacks to more than its header states.")


@contextmanager
def documented_errors(file: Path, what: str) -> Iterator[None]:
    """Turn every error of a decoder into :class:`UnreadableFileError`; silence its warnings."""
    try:
        with _quiet():
            yield
    except (FileNotFoundError, UnreadableFileError):
        raise
    except PermissionError as error:
        raise UnreadableFileError(f"{file} cannot be read: {error.strerror}.") from error
    except MemoryError as error:
        raise UnreadableFileError(f"{file} needs more memory than is available.") from error
    except Exception as error:  # damaged files raise errors of every kind
        reason = " ".join(str(error).split())[:300].rstrip(".") or type(error).__name__
        raise UnreadableFileError(f"{file} cannot be read as {what}: {reason}.") from error


class _QuietFilter(logging.Filter):
    """Drops log records of decoders in threads that are reading a file."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is kept."""
        return getattr(_READING, "depth", 0) == 0


#: ``depth``: how many files the thread is reading, one within the other.
_READING = threading.local()
_QUIET_FILTER = _QuietFilter()
_LOCK = threading.Lock()
#: Of all threads, guarded by the lock: how many files are being read, and the saved filters.
_SHARED: dict[str, Any] = {"readers": 0, "filters": None}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings and log records of decoders.

    Python's warning filters belong to the whole process. So the first reader sets filters for the
    modules of the decoders only, and the last reader restores the filters from before.
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
    """Return an array in native byte order; refuse all but images and volumes of real numbers."""
    check_dtype(array.dtype, file)
    if array.ndim not in (2, 3, 4) or array.size == 0:
        raise UnreadableFileError(
            f"{file} holds an array of shape {array.shape}; expected (H, W[, C]) or "
            f"(D, H, W[, C]) with at least one pixel."
        )
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def check_dtype(dtype: np.dtype[Any], file: Path) -> None:
    """Refuse values that are neither boolean, integer nor real."""
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
    """Turn an image (H, W[, C]) upright according to its orientation tag [1]_ [2]_.

    Parameters
    ----------
    array : ndarray, (H, W[, C])
        The stored pixels.
    orientation : int
        The value of the tag, 1 to 8; 1 changes nothing.

    Returns
    -------
    ndarray, (H, W[, C]) or (W, H[, C])
        A view of ``array``.

    References
    ----------
    .. [1] Aldus Corporation, "TIFF Revision 6.0", 1992, tag 274 "Orientation".
    .. [2] JEITA, "Exchangeable image file format for digital still cameras: Exif Version 2.3",
       CP-3451B, 2010, tag 274 "Orientation".

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.files.reading import turned
    >>> turned(np.array([[1, 2, 3], [4, 5, 6]]), 6)
    array([[4, 1],
           [5, 2],
           [6, 3]])
    """
    if orientation in (5, 6, 7, 8):
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def swaps_sides(orientation: int) -> bool:
    """Return whether an orientation tag exchanges height and width."""
    return orientation in (5, 6, 7, 8)


def positive_spacing(steps: Sequence[Any]) -> tuple[float, ...] | None:
    """Return the sizes of steps as a spacing; None if one is missing, zero or not finite."""
    try:
        values = tuple(abs(float(step)) for step in steps)
    except (TypeError, ValueError):
        return None
    return values if all(np.isfinite(value) and value > 0 for value in values) else None
