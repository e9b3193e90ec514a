"""Picture and label files: one array per file, as the file says that it is to be read."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.files import arrays, nifti, pictures, tiff
from hybridseg.files.reading import (
    Facts,
    PathLike,
    UnreadableFileError,
    check_values,
    documented_errors,
)
from hybridseg.validation import as_label_map

#: File name endings that are read; ``.nii.gz`` stands first because it holds a dot of its own.
SUFFIXES = (*nifti.SUFFIXES, ".npy", ".npz", *tiff.SUFFIXES, *pictures.SUFFIXES)


def read_image(path: PathLike) -> NDArray[Any]:
    """Read a picture or a volume as an array of the stored values.

    Parameters
    ----------
    path : str or path-like
        PNG, JPEG, WebP, BMP, GIF (of several frames the first); TIFF; NIfTI (``.nii``,
        ``.nii.gz``, ``.hdr`` with ``.img``); NumPy (``.npy``, or ``.npz`` of one array).

    Returns
    -------
    ndarray, (H, W[, C]) or (D, H, W[, C])
        The stored dtype: uint8 for most pictures, bool for black and white, uint16 for 16 bit grey.
        A palette is replaced by its colours, CMYK, YCbCr and Lab by RGB; transparency stays as a
        last channel.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    UnreadableFileError
        Everything else that keeps a file from being read: an unknown ending, a folder, missing
        rights, damage, a file that would unpack to more than the bound, 16 bit colours in a PNG
        (which would be cut to 8 bits), values that are no real numbers, axes that make neither a
        picture nor a volume. It is an OSError and a ValueError.
    ImportError
        A NIfTI file, and NiBabel is not installed (``pip install hybridseg[volumes]``).

    Notes
    -----
    *Orientation.* A camera's orientation mark (EXIF, the TIFF tag) is applied: the picture comes
    upright, as viewers show it. A label map that was drawn on the unturned pixels must be turned
    as well, or carry the same mark.

    *Axes.* Channels come last. The axes that a TIFF file names (OME, ImageJ, tifffile) are
    honoured: CYX becomes (H, W, C), and ZYX with or without channels a volume. Pages without a
    name are the planes of a volume. Axes without a name that tifffile stored come back as they
    were. Time steps and several pictures in one file are refused. NIfTI axes come as (D, H, W),
    the transpose of what NiBabel gives.

    *Bound.* A file may unpack to ``hybridseg.files.reading.MAX_UNPACKED_BYTES`` (2 GiB), or to
    its own size where that is more. The environment variable ``HYBRIDSEG_MAX_UNPACKED_BYTES`` sets
    another bound.

    See Also
    --------
    read_labels : Read a label map, where a palette's indices count and not its colours.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from hybridseg.datasets import read_image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.save(folder + "/volume.npy", np.zeros((3, 4, 5), np.uint16))
    ...     image = read_image(folder + "/volume.npy")
    >>> image.shape, image.dtype
    ((3, 4, 5), dtype('uint16'))
    """
    return _read(path, as_labels=False)


def read_labels(path: PathLike, ignore_label: int | None = None) -> NDArray[np.int32]:
    """Read a label map; void values become -1.

    Parameters
    ----------
    path : str or path-like
        A file of one channel, of the formats that :func:`read_image` reads; take one that loses
        nothing (a JPEG is read with a warning). Of a palette the indices are read, not the
        colours; 2 and 4 bit grey values stay as stored.
    ignore_label : int, optional
        The stored value that means void, such as 255.

    Returns
    -------
    ndarray of int32, (H, W) or (D, H, W)
        -1 where the file holds ``ignore_label`` or a negative value.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    UnreadableFileError
        As in :func:`read_image`; several channels; values that are not whole numbers, or do not
        fit in 32 bits.

    Warns
    -----
    UserWarning
        The map is a JPEG, or has a palette of greys that are not their own indices.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from hybridseg.datasets import read_labels, write_labels
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_labels(folder + "/map.png", np.array([[0, 1, -1]]))
    ...     read_labels(folder + "/map.png", ignore_label=255)
    array([[ 0,  1, -1]], dtype=int32)
    """
    stored = _read(path, as_labels=True)
    if stored.ndim == 4:
        raise UnreadableFileError(
            f"{path} has four axes {stored.shape}; a label map is (H, W) or (D, H, W)."
        )
    if stored.dtype.kind == "f":
        stored = _whole(stored, path)
    if stored.dtype.kind in "ui" and int(stored.max()) > np.iinfo(np.int32).max:
        raise UnreadableFileError(f"{path} holds labels above 2**31 - 1; renumber them.")
    return as_label_map(stored, ignore_label=ignore_label, name=str(path)).astype(np.int32)


def _whole(stored: NDArray[Any], path: PathLike) -> NDArray[np.int64]:
    if not bool(np.isfinite(stored).all()) or bool((stored != np.rint(stored)).any()):
        raise UnreadableFileError(f"{path} holds fractions; a label map holds whole numbers.")
    if float(np.abs(stored).max()) > np.iinfo(np.int32).max:
        raise UnreadableFileError(f"{path} holds labels above 2**31 - 1; renumber them.")
    return stored.astype(np.int64)


def image_id(name: str) -> str | None:
    """Cut the ending off a file name; None for what is no picture, or the head of an ``.img``."""
    for suffix in SUFFIXES:
        if suffix != ".hdr" and name.lower().endswith(suffix) and not name.startswith("."):
            return name[: -len(suffix)]
    return None


def read_facts(path: PathLike) -> Facts:
    """What a file says about its picture beside the values; reads its header only.

    Raises
    ------
    FileNotFoundError, UnreadableFileError
        As in :func:`read_image`.
    """
    file = _checked_file(path)
    seen = file.stat()
    return _facts(file.absolute(), seen.st_mtime_ns, seen.st_size)


def stated_facts(image: Any) -> Facts:
    """What the file of an image says, where the image is the path of a NIfTI or TIFF file.

    Parameters
    ----------
    image : array, path or anything else

    Returns
    -------
    Facts
        Those of no file where ``image`` is not such a path.
    """
    if not isinstance(image, str | os.PathLike):
        return Facts()
    says = os.fspath(image).lower().endswith((*nifti.SUFFIXES, *tiff.SUFFIXES))
    return read_facts(image) if says else Facts()


@lru_cache(maxsize=4096)
def _facts(file: Path, changed: int, size: int) -> Facts:  # noqa: ARG001, they are the key
    name = file.name.lower()
    if name.endswith(nifti.SUFFIXES):
        return nifti.nifti_facts(file)
    if not name.endswith((*tiff.SUFFIXES, *pictures.SUFFIXES)):
        return Facts()
    return tiff.tiff_facts(file) if _is_tiff(file) else pictures.picture_facts(file)


def _checked_file(path: PathLike) -> Path:
    file = Path(path)
    with documented_errors(file, "a file"):
        if file.is_dir():
            raise UnreadableFileError(f"{file} is a folder; expected a file.")
        if not file.exists():
            raise FileNotFoundError(f"{file}: there is no such file.")
        if not file.is_file():
            raise UnreadableFileError(f"{file} is no plain file, but a device or a pipe.")
    if not file.name.lower().endswith(SUFFIXES):
        raise UnreadableFileError(
            f"{file} has an unknown ending; expected one of {', '.join(SUFFIXES)}."
        )
    return file


def _is_tiff(file: Path) -> bool:
    """Whether a picture is a TIFF file: by its first bytes, or by its ending where they tell none.

    Pictures are often renamed without being converted.
    """
    with documented_errors(file, "a picture"), file.open("rb") as stream:
        start = stream.read(16)
    if start.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return True
    return file.name.lower().endswith(tiff.SUFFIXES) and not start.startswith(pictures.MAGIC)


def _read(path: PathLike, *, as_labels: bool) -> NDArray[Any]:
    file = _checked_file(path)
    name = file.name.lower()
    if name.endswith(nifti.SUFFIXES):
        array = nifti.read_nifti(file)
    elif name.endswith(".npy"):
        array = arrays.read_npy(file)
    elif name.endswith(".npz"):
        array = arrays.read_npz(file)
    elif _is_tiff(file):
        array = tiff.read_tiff(file, as_labels=as_labels)
    else:
        array = pictures.read_picture(file, as_labels=as_labels)
    return check_values(array, file)
