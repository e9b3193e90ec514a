"""Label maps to files, in the smallest integers that hold them; each write is atomic."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.files.atomic import atomic_write
from hybridseg.files.images import read_facts, read_image, stated_facts
from hybridseg.files.nifti import SUFFIXES as NIFTI_SUFFIXES
from hybridseg.files.nifti import write_nifti
from hybridseg.files.reading import Facts, PathLike
from hybridseg.validation import as_label_map, as_spacing, check_number

#: The integer types of each format, smallest first.
_DTYPES = {
    ".png": (np.uint8, np.uint16),
    ".tif": (np.uint8, np.uint16, np.int8, np.int16, np.int32),
    ".tiff": (np.uint8, np.uint16, np.int8, np.int16, np.int32),
    ".npy": (np.uint8, np.uint16, np.int8, np.int16, np.int32),
    ".nii": (np.uint8, np.int16, np.int32),
    ".nii.gz": (np.uint8, np.int16, np.int32),
}


def write_labels(
    path: PathLike, labels: ArrayLike, *, ignore_label: int = 255, like: Any = None
) -> None:
    """Write a label map to a file, from which :func:`read_labels` reads the same map.

    The write is atomic: the file gets its name only when it is complete.

    Parameters
    ----------
    path : str or path-like
        The ending is ``.png`` (two axes; 8 bits, or 16 bits if a label is above 255), ``.tif``,
        ``.tiff``, ``.npy``, ``.nii`` or ``.nii.gz``.
    labels : array-like of int, (H, W) or (D, H, W)
        Every negative value is written as ``ignore_label``.
    ignore_label : int
        The stored value that marks void pixels; no label may be equal to it. A negative value,
        such as -1, is read back as void without ``ignore_label=``, but PNG cannot hold it.
    like : path or Scene, optional
        The image of the labels, which must have the same shape. A NIfTI file gets the whole header
        of this image if it is a NIfTI file (or a Scene of one), else ``meta["affine"]`` or
        ``spacing`` of the Scene.

    Raises
    ------
    TypeError
        ``labels`` does not hold integers, or ``like`` is neither a path nor a Scene.
    FileNotFoundError
        The folder to write to, or the file ``like``, does not exist.
    ValueError
        The ending is unknown; the file is a PNG, but ``labels`` is a volume or ``ignore_label`` is
        negative; there are void pixels and a label equals ``ignore_label``; a label is too large
        for the format; or ``labels`` and ``like`` have different shapes.
    ImportError
        The file is a NIfTI file, and NiBabel is not installed (``pip install hybridseg[volumes]``).

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from hybridseg import Scene
    >>> from hybridseg.datasets import write_labels
    >>> labels = np.zeros((4, 5, 6), int)
    >>> scene = Scene(np.zeros((4, 5, 6)), spacing=(3, 1, 1), spatial_ndim=3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_labels(folder + "/labels.nii.gz", labels, like=scene)
    ...     Scene(folder + "/labels.nii.gz").spacing
    (3.0, 1.0, 1.0)
    """
    target = Path(path)
    suffix = _checked_suffix(target)
    array = _stored(as_label_map(labels), target, suffix, ignore_label)
    about = _about(like, array.shape)
    with atomic_write(target) as file:
        _write(file, array, suffix, about)


def _checked_suffix(target: Path) -> str:
    suffix = ".nii.gz" if target.name.lower().endswith(".nii.gz") else target.suffix.lower()
    if suffix not in _DTYPES:
        raise ValueError(
            f"{target.name} has the ending {suffix!r}; expected .png, .tif, .npy, .nii or .nii.gz."
        )
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"{target}: there is no folder {target.parent}.")
    return suffix


def _stored(
    labels: NDArray[np.int64], target: Path, suffix: str, ignore_label: int
) -> NDArray[Any]:
    """Return labels with ``ignore_label`` for void, in the smallest dtype of the format."""
    check_number(ignore_label, "ignore_label", integer=True)
    if labels.ndim not in (2, 3) or labels.size == 0:
        raise ValueError(f"labels have shape {labels.shape}; expected (H, W) or (D, H, W).")
    if suffix == ".png" and labels.ndim != 2:
        raise ValueError(
            f"labels have shape {labels.shape}; a PNG has two axes: use .tif, .npy or .nii.gz."
        )
    void = labels < 0
    if ignore_label < 0 and suffix == ".png":
        raise ValueError(
            f"ignore_label={ignore_label}; a PNG cannot hold negative numbers: pass a number that "
            f"is not a class, such as 255."
        )
    if void.any():
        if ignore_label >= 0 and bool((labels == ignore_label).any()):
            raise ValueError(
                f"labels hold both void pixels and the class {ignore_label}, which would get the "
                f"same stored value: pass an ignore_label= that is not a class."
            )
        labels = np.where(void, ignore_label, labels)
    least, greatest = int(labels.min()), int(labels.max())
    for dtype in _DTYPES[suffix]:
        if np.iinfo(dtype).min <= least and greatest <= np.iinfo(dtype).max:
            return labels.astype(dtype)
    limit = int(np.iinfo(_DTYPES[suffix][-1]).max) + 1
    raise ValueError(
        f"labels range from {least} to {greatest}, but {target.name} can hold labels below {limit}."
    )


def _about(like: Any, shape: tuple[int, ...]) -> tuple[Path | None, Facts]:
    """Return the NIfTI file whose header is used, if ``like`` has one, and the metadata."""
    if like is None:
        return None, Facts()
    file: Path | None
    if isinstance(like, str | os.PathLike):
        file, facts = Path(like), read_facts(like)
        rank = facts.spatial_ndim or len(shape)
        found = read_image(like).shape[:rank]
    elif hasattr(like, "source") and hasattr(like, "spacing"):
        source = like.source("image")
        file = Path(source) if isinstance(source, str | os.PathLike) else None
        rank = like.source("spatial_ndim") or stated_facts(source).spatial_ndim or len(shape)
        spacing = None if like.spacing is None else as_spacing(like.spacing, rank)
        facts = Facts(rank, spacing, like.meta.get("affine"))
        found = np.shape(like.image)[:rank]
    else:
        raise TypeError(f"like is a {type(like).__name__}; expected the image's path or a Scene.")
    if found != shape:
        raise ValueError(
            f"labels have shape {shape}, but like={str(like)!r:.200} has shape {found}; expected "
            f"the same shape."
        )
    is_nifti = file is not None and file.name.lower().endswith(NIFTI_SUFFIXES)
    return (file if is_nifti else None), facts


def _write(
    file: IO[bytes], labels: NDArray[Any], suffix: str, about: tuple[Path | None, Facts]
) -> None:
    if suffix == ".npy":
        np.save(file, labels, allow_pickle=False)
    elif suffix == ".png":
        from PIL import Image

        Image.fromarray(labels).save(file, format="PNG")
    elif suffix in (".tif", ".tiff"):
        import tifffile

        axes = {"axes": "ZYX"[-labels.ndim :]}
        options: Any = {"photometric": "minisblack", "compression": "zlib", "metadata": axes}
        tifffile.imwrite(file, labels, **options)
    else:
        header, facts = about
        packed = suffix == ".nii.gz"
        write_nifti(file, labels, packed, like=header, spacing=facts.spacing, affine=facts.affine)
