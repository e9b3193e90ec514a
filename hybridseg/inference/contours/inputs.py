"""Checks of the arguments that all contour functions share: a gray image, and an initial map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.validation import as_image, as_numbers, check_magnitude, check_number

#: The side of a square of the initial checkerboard, in pixels.
SQUARE = 5

#: The largest pixel value by bytes of the float type: sums of squares stay finite.
MAX_VALUE = {4: 1e15, 8: 1e150}


def as_gray(image: ArrayLike, name: str, spatial_ndim: int | None) -> NDArray[Any]:
    """Check an image (H, W) or a volume (D, H, W) of finite gray values: float32 or float64."""
    image = as_numbers(image, name)
    shape = image.shape
    if spatial_ndim is not None:
        check_number(spatial_ndim, "spatial_ndim", minimum=2, maximum=3, integer=True)
    channels = len(shape) == 3 and spatial_ndim is None and shape[-1] <= 4
    if len(shape) != (spatial_ndim or len(shape)) or len(shape) not in (2, 3) or channels:
        expected = {2: "(H, W)", 3: "(D, H, W)"}.get(spatial_ndim or 0, "(H, W) or (D, H, W)")
        raise ValueError(
            f"{name} has shape {shape}; expected gray values {expected}. For an image with "
            f"channels, pass skimage.color.rgb2gray(image); for a thin volume, pass "
            f"spatial_ndim=3."
        )
    array = as_image(image, spatial_ndim=len(shape), name=name)[..., 0]
    small = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    check_magnitude(array, name, largest=MAX_VALUE[4 if small else 8], cure="fill them before")
    return np.ascontiguousarray(array, np.float32 if small else np.float64)


def checked_init(init: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """Check an initial map: finite numbers of the image's shape."""
    array = as_numbers(init, "init")
    if array.shape != shape:
        raise ValueError(
            f"init has shape {array.shape} and dtype {array.dtype}; expected numbers of the "
            f"image's shape {shape}, or the name of an initial map."
        )
    if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
        raise ValueError(
            "init holds NaN or infinite values; expected finite numbers: fill them before."
        )
    return array
