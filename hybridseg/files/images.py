"""Images and label maps from files: one array per file, read by the format of the file."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.files import arrays, nifti, pillow, tiff
from hybridseg.files.reading import (
    Facts,
    PathLike,
    UnreadableFileError,
    check_values,
    documented_errors,
)
from hybridseg.validation import as_label_map

#: File name endings that are read. ``.nii.gz`` comes before endings that are a part of it.
SUFFIXES = (*nifti.SUFFIXES, ".npy", ".npz", *tiff.SUFFIXES, *pillow.SUFFIXES)


def read_image(path: PathLike) -> NDArray[Any]:
    """Read an image or a volume as an array of the stored values.

    Parameters
    ----------
    path : str or path-like
        PNG, JPEG, WebP, BMP, GIF (the first frame); TIFF; NIfTI (``.nii``, ``.nii.gz``, ``.hdr``
        with ``.img``); NumPy (``.npy``, or ``.npz`` of one array).

    Returns
    -------
    ndarray, (H, W[, C]) or (D, H, W[, C])
        The stored dtype: uint8 for most images, bool for black and white, uint16 for 16-bit gray.
        Indices into a palette become its colors; CMYK, YCbCr and Lab become RGB; transparency
        stays as the last channel.

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    UnreadableFileError
        The file cannot be read for any other reason: its ending is unknown, it is a folder, the
        permission is missing, it is damaged, it would unpack to more bytes than the bound, it is a
        PNG of 16-bit colors (which would be cut to 8 bits), its values are not real numbers, or its
        axes are those of neither an image nor a volume. This error is an OSError and a ValueError.
    ImportError
        The file is a NIfTI file, and NiBabel is not installed (``pip install hybridseg[volumes]``).

    Notes
    -----
    *Orientation.* The orientation tag of a camera (EXIF, TIFF) is applied: the image is upright,
    as viewers show it. A label map that was drawn on the stored, unturned pixels must be turned as
    well, or its file must carry the same tag.

    *Axes.* Channels come last. The axes that a TIFF file names (OME, ImageJ, tifffile) are
    respected: CYX becomes (H, W, C); ZYX, with or without channels, becomes a volume. Pages without
    a name are the planes of a volume. An array that tifffile stored without names of axes keeps its
    order of axes. Several time steps, or several images in one file, are refused. NIfTI axes are
    returned as (D, H, W), the transpose of the array of NiBabel.

    *Bound.* A file may unpack to ``hybridseg.files.reading.MAX_UNPACKED_BYTES`` (2 GiB), or to
    its own size if that is more. The environment variable ``HYBRIDSEG_MAX_UNPACKED_BYTES`` sets
    another bound.

    See Also
    --------
    read_labels : Read a label map; it returns the indices of a palette image, not the colors.

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
    """Read a label map; void pixels become -1.

    Parameters
    ----------
    path : str or path-like
        A file of one channel, in a format that :func:`read_image` reads. Use a lossless format (a
        JPEG is read with a warning). For a palette image, the indices are returned, not the colors.
        Gray values of 2 and 4 bits are not rescaled.
    ignore_label : int, optional
        The stored value that marks void pixels, such as 255.

    Returns
    -------
    ndarray of int32, (H, W) or (D, H, W)
        Label values; -1 where the file holds ``ignore_label`` or a negative value.

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    UnreadableFileError
        The file cannot be read (see :func:`read_image`), has several channels, or holds values that
        are not whole numbers or do not fit in 32 bits.
    ImportError
        The file is a NIfTI file, and NiBabel is not installed (``pip install hybridseg[volumes]``).

    Warns
    -----
    UserWarning
        The file is a JPEG, or has a palette of grays that differ from their indices.

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


def image_id(name: str) -> str | None:
    """Return the name of an image file without its ending; None for other files.

    The header of an Analyze or NIfTI pair (``.hdr``) does not count as an image file, so that the
    pair has one ID. A hidden file does not count either.

    Examples
    --------
    >>> from hybridseg.files.images import image_id
    >>> image_id("a.b.nii.gz"), image_id("a.hdr"), image_id("notes.txt")
    ('a.b', None, None)
    """
    for suffix in SUFFIXES:
        if suffix != ".hdr" and name.lower().endswith(suffix) and not name.startswith("."):
            return name[: -len(suffix)]
    return None


def read_facts(path: PathLike) -> Facts:
    """Read the metadata of an image file, without decoding its pixels.

    Raises
    ------
    FileNotFoundError, UnreadableFileError
        As in :func:`read_image`.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from hybridseg.datasets import write_labels
    >>> from hybridseg.files.images import read_facts
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_labels(folder + "/a.tif", np.zeros((3, 4, 5), int))
    ...     read_facts(folder + "/a.tif")
    Facts(spatial_ndim=3, spacing=None, affine=None, orientation=1)
    """
    file = _checked_file(path)
    seen = file.stat()
    return _facts(file.absolute(), seen.st_mtime_ns, seen.st_size)


def stated_facts(image: Any) -> Facts:
    """Read the metadata of an image that is the path of a NIfTI or TIFF file.

    Parameters
    ----------
    image : array, path or anything else

    Returns
    -------
    Facts
        The default values if ``image`` is anything else.
    """
    if not isinstance(image, str | os.PathLike):
        return Facts()
    says = os.fspath(image).lower().endswith((*nifti.SUFFIXES, *tiff.SUFFIXES))
    return read_facts(image) if says else Facts()


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
        array = pillow.read_pillow(file, as_labels=as_labels)
    return check_values(array, file)


def _checked_file(path: PathLike) -> Path:
    file = Path(path)
    with documented_errors(file, "a file"):
        if file.is_dir():
            raise UnreadableFileError(f"{file} is a folder; expected a file.")
        if not file.exists():
            raise FileNotFoundError(f"{file}: there is no such file.")
        if not file.is_file():
            raise UnreadableFileError(f"{file} is a device or a pipe; expected a regular file.")
    if not file.name.lower().endswith(SUFFIXES):
        raise UnreadableFileError(
            f"{file} has an unknown ending; expected one of {', '.join(SUFFIXES)}."
        )
    return file


def _is_tiff(file: Path) -> bool:
    """Return whether an image is a TIFF file: by its first bytes, or else by its ending.

    The first bytes decide, because image files are often renamed without being converted. The
    ending decides only if the first bytes match no known format.
    """
    with documented_errors(file, "an image"), file.open("rb") as stream:
        start = stream.read(16)
    if start.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        return True
    return file.name.lower().endswith(tiff.SUFFIXES) and not start.startswith(pillow.MAGIC)


@lru_cache(maxsize=4096)
def _facts(file: Path, changed: int, size: int) -> Facts:  # noqa: ARG001, keys of the cache
    name = file.name.lower()
    if name.endswith(nifti.SUFFIXES):
        return nifti.nifti_facts(file)
    if not name.endswith((*tiff.SUFFIXES, *pillow.SUFFIXES)):
        return Facts()
    return tiff.tiff_facts(file) if _is_tiff(file) else pillow.pillow_facts(file)


def _whole(stored: NDArray[Any], path: PathLike) -> NDArray[np.int64]:
    if not bool(np.isfinite(stored).all()) or bool((stored != np.rint(stored)).any()):
        raise UnreadableFileError(
            f"{path} holds fractions, NaN or infinity; a label map holds whole numbers."
        )
    if float(np.abs(stored).max()) > np.iinfo(np.int32).max:
        raise UnreadableFileError(
            f"{path} holds labels above 2**31 - 1 in absolute value; renumber them."
        )
    return stored.astype(np.int64)
