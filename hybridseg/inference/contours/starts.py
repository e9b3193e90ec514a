"""What contours start from: a grey picture, and a map or the name of one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.validation import as_image, as_numbers, check_magnitude, check_number

#: Pixels along a side of a checkerboard.
SQUARE = 5

#: Squares of numbers up to these, by the bytes of a float, can be added up.
LARGEST = {4: 1e15, 8: 1e150}


def as_grey(image: ArrayLike, name: str, spatial_ndim: int | None) -> NDArray[Any]:
    """A picture (H, W) or a volume (D, H, W), contiguous, float32 or float64, all finite."""
    image = as_numbers(image, name)
    shape = image.shape
    if spatial_ndim is not None:
        check_number(spatial_ndim, "spatial_ndim", minimum=2, maximum=3, integer=True)
    channels = len(shape) == 3 and spatial_ndim is None and shape[-1] <= 4
    if len(shape) != (spatial_ndim or len(shape)) or len(shape) not in (2, 3) or channels:
        expected = {2: "(H, W)", 3: "(D, H, W)"}.get(spatial_ndim or 0, "(H, W) or (D, H, W)")
        raise ValueError(
            f"{name} has shape {shape}; expected grey values {expected}. Bring a picture with "
            f"channels to one value a pixel, as by skimage.color.rgb2gray; a thin volume needs "
            f"spatial_ndim=3."
        )
    array = as_image(image, spatial_ndim=len(shape), name=name)[..., 0]
    small = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    check_magnitude(array, name, largest=LARGEST[4 if small else 8], cure="fill them before")
    return np.ascontiguousarray(array, np.float32 if small else np.float64)


def checked_init(init: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """A start given as numbers of the image's shape, all finite."""
    array = as_numbers(init, "init")
    if array.shape != shape:
        raise ValueError(
            f"init has shape {array.shape} and dtype {array.dtype}; expected numbers of the "
            f"image's shape {shape}, or the name of a start."
        )
    if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
        raise ValueError("init holds NaN or infinite values; expected a level set of numbers.")
    return array
