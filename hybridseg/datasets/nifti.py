"""Reading NIfTI-1 volumes (``.nii``, ``.nii.gz``): a header of 348 bytes, then the voxels."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DTYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}


def read_nifti(path: str | Path) -> NDArray[Any]:
    """Read the voxels of a NIfTI-1 file, the slowest axis first.

    A NIfTI file stores x fastest and calls its axes (x, y, z[, channel]); here they come as
    (z, y, x[, channel]), that is (D, H, W[, C]), the transpose of what NiBabel gives. Orientation
    is left as stored.

    Parameters
    ----------
    path : str or Path
        A single file, gzipped or not.

    Returns
    -------
    ndarray, (D, H, W[, C]) or (H, W)
        The stored dtype; float64 where the header scales the values.

    Raises
    ------
    ValueError
        The file is not NIfTI-1, is cut short, or holds complex or colour voxels.

    References
    ----------
    R. W. Cox et al., "A (sort of) new image data format standard: NIfTI-1", Human Brain Mapping
    2004; field offsets from the standard's header ``nifti1.h``.
    """
    content = Path(path).read_bytes()
    if content[:2] == b"\x1f\x8b":
        content = gzip.decompress(content)
    order = {348: "<", 1543569408: ">"}.get(_number(content, "<i4", 0))
    if order is None or content[344:348] != b"n+1\0":
        raise ValueError(f"{path} is not a NIfTI-1 file (.nii or .nii.gz); convert it to one.")
    code = _number(content, order + "i2", 70)
    if code not in _DTYPES:
        raise ValueError(f"{path} has voxels of NIfTI type {code}; expected integers or reals.")
    shape = _stored_shape(content, order)
    start, size = int(_number(content, order + "f4", 108)), math.prod(shape)
    dtype = np.dtype(order + _DTYPES[code])
    if len(content) < start + size * dtype.itemsize:
        raise ValueError(f"{path} is cut short: {shape} voxels of {dtype} need more bytes.")
    voxels = np.frombuffer(content, dtype, size, start).reshape(shape[::-1])
    if voxels.ndim == 4:
        voxels = np.moveaxis(voxels, 0, -1)
    return _scaled(voxels, *(_number(content, order + "f4", place) for place in (112, 116)))


def _number(content: bytes, dtype: str, offset: int) -> Any:
    if len(content) < 348:
        return -1
    return np.frombuffer(content, dtype, 1, offset)[0].item()


def _stored_shape(content: bytes, order: str) -> list[int]:
    """(x, y[, z[, channel]]): axes of length one after the third are dropped."""
    rank, *sides = (int(side) for side in np.frombuffer(content, order + "i2", 8, 40))
    return sides[: min(rank, 3)] + [side for side in sides[3:rank] if side != 1]


def _scaled(voxels: NDArray[Any], slope: float, offset: float) -> NDArray[Any]:
    native = np.array(voxels, dtype=voxels.dtype.newbyteorder("="), order="C")
    if slope == 0.0 or (slope, offset) == (1.0, 0.0):  # slope 0 says that nothing is scaled
        return native
    return native * np.float64(slope) + np.float64(offset)
