"""NIfTI volumes (``.nii``, ``.nii.gz``, ``.hdr`` with ``.img``), through NiBabel."""

from __future__ import annotations

import gzip
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.files.reading import (
    MAX_DEFLATE_RATIO,
    Facts,
    PathLike,
    UnreadableFileError,
    check_dtype,
    check_size,
    documented_errors,
    positive_spacing,
    unpacked,
)

#: Endings that are read here.
SUFFIXES = (".nii.gz", ".nii", ".img", ".hdr")


def read_nifti(path: PathLike) -> NDArray[Any]:
    """Read the voxels of a NIfTI file as (D, H, W[, C]).

    NIfTI [1]_ calls its axes (x, y, z[, channel]), and x varies fastest in the file. This function
    returns the axes (z, y, x[, channel]), the transpose of what NiBabel returns. It does not
    reorient the voxels to the axes of the body.

    Parameters
    ----------
    path : str or path-like
        ``.nii``, ``.nii.gz``, or one of a pair ``.hdr`` and ``.img``; NIfTI-1, NIfTI-2 or
        Analyze 7.5.

    Returns
    -------
    ndarray, (D, H, W[, C]) or (H, W)
        The stored dtype; floats where the header scales the values (``scl_slope``).

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    UnreadableFileError
        The file is damaged, is not a NIfTI file, would unpack to more bytes than the bound, or
        holds complex voxels, color voxels or more than one axis after the third.
    ImportError
        NiBabel is not installed (``pip install hybridseg[volumes]``).

    References
    ----------
    .. [1] R. W. Cox et al., "A (sort of) new image data format standard: NIfTI-1", Human Brain
       Mapping, 2004.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from hybridseg.datasets import read_nifti, write_labels
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_labels(folder + "/labels.nii.gz", np.zeros((3, 4, 5), int))
    ...     read_nifti(folder + "/labels.nii.gz").shape
    (3, 4, 5)
    """
    file, nib = Path(path), _nibabel()
    with documented_errors(file, "a NIfTI volume"), _opened(nib, file) as image:
        shape = _checked_shape(image, file)  # before anything is unpacked
        voxels = np.asanyarray(image.dataobj).reshape(shape)
        axes = (*range(min(voxels.ndim, 3))[::-1], *range(3, voxels.ndim))
        return np.array(voxels.transpose(axes), voxels.dtype.newbyteorder("="), order="C")


def nifti_facts(file: Path) -> Facts:
    """Read the number of axes, the spacing and the affine from the header."""
    nib = _nibabel()
    with documented_errors(file, "a NIfTI volume"), _opened(nib, file, whole=False) as image:
        rank = min(len(image.shape), 3)
        spacing = positive_spacing(image.header.get_zooms()[:rank][::-1])
        affine = np.array(image.affine, dtype=np.float64)
        affine.setflags(write=False)  # all Scenes of this file share the array
        return Facts(rank, spacing, affine)


def write_nifti(
    stream: IO[bytes],
    labels: NDArray[Any],
    packed: bool,
    *,
    like: Path | None = None,
    spacing: tuple[float, ...] | None = None,
    affine: NDArray[Any] | None = None,
) -> None:
    """Write labels (D, H, W) or (H, W), gzip-compressed if ``packed``.

    The header is that of ``like``; without it, the header has ``affine``, or else ``spacing``.
    """
    nib = _nibabel()
    voxels = labels.T
    if like is not None:
        with documented_errors(like, "a NIfTI volume"), _opened(nib, like, whole=False) as image:
            header, affine = image.header, image.affine
            kind = nib.Nifti2Image if isinstance(image, nib.Nifti2Image) else nib.Nifti1Image
    else:
        header, kind = None, nib.Nifti1Image
        if affine is None:
            steps = (spacing or (1.0,) * labels.ndim)[::-1]
            affine = np.diag([*steps, *[1.0] * (4 - len(steps))])
    written = kind(voxels, affine, header)
    written.header.set_data_dtype(labels.dtype)
    # a display range of `like` is of its intensities, not of labels
    written.header["cal_max"] = written.header["cal_min"] = 0
    content = written.to_bytes()
    if packed:
        with gzip.GzipFile(filename="", mode="wb", fileobj=stream, mtime=0) as packer:
            packer.write(content)
    else:
        stream.write(content)


def _nibabel() -> Any:
    try:
        import nibabel
    except ImportError as error:
        raise ImportError(
            "NIfTI files need NiBabel: pip install 'hybridseg[volumes]' (or nibabel)."
        ) from error
    return nibabel


@contextmanager
def _opened(nib: Any, file: Path, *, whole: bool = True) -> Iterator[Any]:
    """Open a NiBabel image without reading voxels; ``whole`` verifies a gzip file's checksum."""
    if file.suffix.lower() in (".img", ".hdr"):
        yield _checked_pair(nib.load(file), file)
    elif not _is_packed(file):
        with file.open("rb") as stream:
            yield _from_stream(nib, stream, file)
    elif whole:
        with unpacked(file) as stream:
            yield _from_stream(nib, stream, file)
    else:
        with gzip.open(file, "rb") as stream:
            yield _from_stream(nib, stream, file)


def _is_packed(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _checked_pair(image: Any, file: Path) -> Any:
    for part in ("header", "image"):
        there = Path(image.file_map[part].filename)
        if not there.is_file():
            raise UnreadableFileError(
                f"{file} needs {there.name} in the same folder, but there is no such file."
            )
    return image


def _from_stream(nib: Any, stream: Any, file: Path) -> Any:
    start = stream.read(4)
    stream.seek(0)
    sizes = {int.from_bytes(start, "little"), int.from_bytes(start, "big")}
    kind = {348: nib.Nifti1Image, 540: nib.Nifti2Image}.get(min(sizes, default=0))
    if kind is None:
        raise UnreadableFileError(f"{file} is not a NIfTI file (.nii or .nii.gz).")
    return kind.from_file_map(kind.make_file_map({"image": stream}))


def _checked_shape(image: Any, file: Path) -> tuple[int, ...]:
    """Return the shape without axes of length 1 after the third; refuse all but volumes."""
    stored = image.header.get_data_dtype()
    check_dtype(stored, file)
    shape = tuple(int(side) for side in image.shape)
    if min(shape, default=0) < 1:
        raise UnreadableFileError(
            f"{file} has a header with the shape {shape}; expected positive sides."
        )
    sides = shape[:3] + tuple(side for side in shape[3:] if side != 1)
    if len(sides) not in (2, 3, 4):
        raise UnreadableFileError(
            f"{file} has axes of {shape} voxels; expected (x, y), (x, y, z) or (x, y, z, channel): "
            f"load it with nibabel and select one volume."
        )
    data = Path(image.file_map["image"].filename or file)
    ratio = MAX_DEFLATE_RATIO if _is_packed(data) else 1
    end = int(image.dataobj.offset) + math.prod(sides) * stored.itemsize
    check_size(data, end, ratio=ratio)
    return sides
