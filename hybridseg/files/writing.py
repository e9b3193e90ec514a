"""Label maps as files: the smallest numbers that hold them, whole or not there at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.files.drafts import whole_file
from hybridseg.files.images import read_facts, read_image, stated_facts
from hybridseg.files.nifti import SUFFIXES as NIFTI_SUFFIXES
from hybridseg.files.nifti import write_nifti
from hybridseg.files.reading import Facts, PathLike
from hybridseg.validation import as_label_map, as_spacing, check_number

#: For each ending the integers that are stored, smallest first.
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
    """Write a label map so that :func:`read_labels` gives it back.

    The file appears under its name only when it is whole.

    Parameters
    ----------
    path : str or path-like
        Ends in ``.png`` (two axes; 8 bit, or 16 bit where a label is above 255), ``.tif``,
        ``.npy``, ``.nii`` or ``.nii.gz``.
    labels : array-like of int, (H, W) or (D, H, W)
        Every negative value is written as ``ignore_label``.
    ignore_label : int
        The stored value that means void; no label may have it. A negative one, such as -1, is
        read back as void without being named; PNG cannot hold it.
    like : path or Scene, optional
        The image that the labels belong to, whose shape they must have. A NIfTI file gets its
        affine and spacing: the whole header where it is a NIfTI file (or a Scene of one), else
        ``meta["affine"]`` or ``spacing`` of the Scene.

    Raises
    ------
    TypeError
        ``labels`` is not of integers; ``like`` is neither a path nor a Scene.
    FileNotFoundError
        There is no folder to write to, or no file ``like``.
    ValueError
        Another ending; a PNG of a volume; a negative ``ignore_label`` in a PNG; a label that
        equals it while there are void pixels, or that is too large for the format; a shape that is
        not that of ``like``.
    ImportError
        A NIfTI file, and NiBabel is not installed (``pip install hybridseg[volumes]``).

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
    with whole_file(target) as file:
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
    """The labels with their void value, in the smallest dtype that the format has for them."""
    check_number(ignore_label, "ignore_label", integer=True)
    if labels.ndim not in (2, 3) or labels.size == 0:
        raise ValueError(f"labels have shape {labels.shape}; expected (H, W) or (D, H, W).")
    if suffix == ".png" and labels.ndim != 2:
        raise ValueError(
            f"labels have shape {labels.shape}; a PNG has two axes, take .tif, .npy or .nii.gz."
        )
    void = labels < 0
    if ignore_label < 0 and suffix == ".png":
        raise ValueError(
            f"ignore_label={ignore_label}; a PNG holds no negative numbers, so void pixels need a "
            f"number that is no class, such as 255."
        )
    if void.any():
        if ignore_label >= 0 and bool((labels == ignore_label).any()):
            raise ValueError(
                f"labels hold both void pixels and the class {ignore_label}, which would be "
                f"written alike; pass an ignore_label= that is no class."
            )
        labels = np.where(void, ignore_label, labels)
    least, greatest = int(labels.min()), int(labels.max())
    for dtype in _DTYPES[suffix]:
        if np.iinfo(dtype).min <= least and greatest <= np.iinfo(dtype).max:
            return labels.astype(dtype)
    limit = int(np.iinfo(_DTYPES[suffix][-1]).max) + 1
    raise ValueError(
        f"labels go from {least} to {greatest}, but {target.name} can hold labels below {limit}."
    )


def _about(like: Any, shape: tuple[int, ...]) -> tuple[Path | None, Facts]:
    """The NIfTI file whose header is taken, if there is one, and what else is known."""
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
            f"labels have shape {shape}, but like={str(like)!r:.200} has shape {found}; they must "
            f"be those of one image."
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
