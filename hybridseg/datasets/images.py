"""Picture and label files: one array per file, values as stored."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.datasets.nifti import read_nifti
from hybridseg.validation import as_label_map, check_number

#: File name endings that are read; ``.nii.gz`` stands first because it holds a dot of its own.
SUFFIXES = (
    ".nii.gz",
    ".nii",
    ".npy",
    ".tif",
    ".tiff",
    ".png",
    ".jpg",
    ".jpeg",
    ".webp",
    ".bmp",
    ".gif",
)

PathLike = str | os.PathLike[str]


def read_image(path: PathLike) -> NDArray[Any]:
    """Read a picture or a volume as an array of the stored values.

    Parameters
    ----------
    path : str or path-like
        PNG, JPEG, WebP, BMP, GIF (first frame); TIFF; NIfTI-1 (``.nii``, ``.nii.gz``);
        NumPy (``.npy``).

    Returns
    -------
    ndarray, (H, W[, C]) or (D, H, W[, C])
        The stored dtype: uint8 for most pictures, bool for black and white, uint16 for 16 bit grey.
        A palette is replaced by its colours, CMYK and YCbCr by RGB; transparency stays as a last
        channel. NIfTI axes come as (D, H, W), the transpose of what NiBabel gives. The camera's
        rotation mark (EXIF) is not applied, so that label maps drawn on the stored pixels fit.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        An unknown ending, a file that cannot be decoded, or 16 bit colours in a PNG (which would
        be cut to 8 bits).

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
        nothing. Of a palette PNG the indices are read, not the colours; 2 and 4 bit grey values
        stay as stored.
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
    ValueError
        As in :func:`read_image`; several channels; values that are not whole numbers.

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
    if stored.dtype.kind == "f":
        if not bool((np.isfinite(stored) & (stored == np.rint(stored))).all()):
            raise ValueError(f"{path} holds fractions; a label map holds whole numbers.")
        stored = stored.astype(np.int64)
    labels = as_label_map(stored, ignore_label=ignore_label, name=str(path))
    if labels.max(initial=0) > np.iinfo(np.int32).max:
        raise ValueError(f"{path} holds labels above 2**31 - 1; renumber them.")
    return labels.astype(np.int32)


def write_labels(path: PathLike, labels: ArrayLike, *, ignore_label: int = 255) -> None:
    """Write a label map so that :func:`read_labels` gives it back.

    The file appears under its name only when it is whole.

    Parameters
    ----------
    path : str or path-like
        Ends in ``.png`` (two axes; 8 bit, or 16 bit where a label is above 255), ``.tif`` or
        ``.npy`` (any number of axes).
    labels : array-like of int, (H, W) or (D, H, W)
        Every negative value is written as ``ignore_label``.
    ignore_label : int
        The stored value that means void; no label may have it.

    Raises
    ------
    TypeError
        ``labels`` is not of integers.
    ValueError
        Another ending; a PNG of a volume; a negative ``ignore_label``; a label that equals it while
        there are void pixels, or that is too large for the format.
    """
    check_number(ignore_label, "ignore_label", minimum=0, integer=True)
    target = Path(path)
    array = as_label_map(labels)
    void = array < 0
    if void.any():
        if bool((array == ignore_label).any()):
            raise ValueError(
                f"labels hold both void pixels and the class {ignore_label}, which would be "
                f"written alike; pass an ignore_label= that is no class."
            )
        array = np.where(void, ignore_label, array)
    temporary = target.with_name(f".{os.getpid()}-{target.name}")
    try:
        _write(temporary, _narrowed(array, target), target)
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def image_id(name: str) -> str | None:
    """Cut the ending off a file name; None for a file that is no picture."""
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix) and not name.startswith("."):
            return name[: -len(suffix)]
    return None


def _read(path: PathLike, *, as_labels: bool) -> NDArray[Any]:
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"{file}: there is no such file.")
    name = file.name.lower()
    if name.endswith((".nii", ".nii.gz")):
        return read_nifti(file)
    if name.endswith(".npy"):
        return _read_numpy(file)
    if name.endswith((".tif", ".tiff")):
        return _read_tiff(file)
    if name.endswith(SUFFIXES):
        return _read_picture(file, as_labels=as_labels)
    raise ValueError(f"{file} has an unknown ending; expected one of {', '.join(SUFFIXES)}.")


def _read_numpy(file: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{file} cannot be read as a NumPy array: {error}") from error
    return array


def _read_tiff(file: Path) -> NDArray[Any]:
    import tifffile

    try:
        with tifffile.TiffFile(file) as tiff:
            series = tiff.series[0]
            array: NDArray[Any] = series.asarray()
            channels = series.axes.find("S")
    except (tifffile.TiffFileError, IndexError) as error:
        raise ValueError(f"{file} cannot be read as a TIFF file: {error}") from error
    return array if channels < 0 else np.moveaxis(array, channels, -1)


def _read_picture(file: Path, *, as_labels: bool) -> NDArray[Any]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as picture:
            raw_mode = _raw_mode(picture)
            if "16" in raw_mode and picture.mode.startswith(("RGB", "LA")):
                raise ValueError(
                    f"{file} holds 16 bit colours, of which 8 bits would be lost; save it as TIFF "
                    f"or .npy."
                )
            if as_labels:
                return _label_values(picture, raw_mode, file)
            array = np.array(picture.convert(_colour_mode(picture)))
            # Pillow before 11.3 widens 16 bit grey
            return array.astype(np.uint16) if raw_mode.startswith("I;16") else array
    except UnidentifiedImageError as error:
        raise ValueError(f"{file} cannot be read as a picture.") from error
    except (OSError, SyntaxError) as error:  # Pillow's errors for broken files
        raise ValueError(f"{file} cannot be decoded: {error}") from error


def _raw_mode(picture: Any) -> str:
    """How the pixels lie in the file, where the decoder says so (PNG: "L;4", "RGB;16B")."""
    arguments = picture.tile[0][3] if picture.tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _colour_mode(picture: Any) -> str:
    if picture.mode in ("P", "PA"):
        return "RGBA" if "transparency" in picture.info or picture.mode == "PA" else "RGB"
    return "RGB" if picture.mode in ("CMYK", "YCbCr", "LAB", "HSV") else str(picture.mode)


def _label_values(picture: Any, raw_mode: str, file: Path) -> NDArray[Any]:
    array = np.array(picture)
    if array.ndim != 2:
        raise ValueError(
            f"{file} has {array.shape[-1]} channels ({picture.mode}); a label map has one, the "
            f"class number of each pixel. Turn its colours into numbers first."
        )
    # Pillow stretches grey values of 2 and 4 bits to 0..255
    return array // {"L;2": 85, "L;4": 17}.get(raw_mode, 1)


def _narrowed(labels: NDArray[np.int64], target: Path) -> NDArray[Any]:
    """Take the smallest dtype that holds the labels and that the format can store."""
    if target.suffix.lower() == ".png" and labels.ndim != 2:
        raise ValueError(
            f"labels have shape {labels.shape}; a PNG has two axes, take .tif or .npy."
        )
    greatest = int(labels.max(initial=0))
    limit = 2**16 if target.suffix.lower() == ".png" else 2**31
    if greatest >= limit:
        raise ValueError(
            f"labels go up to {greatest}, but {target.name} can hold labels below {limit}."
        )
    return labels.astype(
        np.uint8 if greatest < 2**8 else np.uint16 if greatest < 2**16 else np.int32
    )


def _write(temporary: Path, labels: NDArray[Any], target: Path) -> None:
    suffix = target.suffix.lower()
    with temporary.open("xb") as file:
        if suffix == ".npy":
            np.save(file, labels, allow_pickle=False)
        elif suffix in (".tif", ".tiff"):
            import tifffile

            tifffile.imwrite(file, labels, photometric="minisblack", compression="zlib")
        elif suffix == ".png":
            from PIL import Image

            Image.fromarray(labels).save(file, format="PNG")
        else:
            raise ValueError(f"{target.name} has the ending {suffix!r}; expected .png, .tif, .npy.")
