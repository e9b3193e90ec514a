"""The base class of the parameter objects of superpixels, and the call of any such method."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from hybridseg.validation import COLOR_SCALE, Colors, IntensityRange


class Superpixels(BaseEstimator):
    """Base class of superpixel methods: parameters, and a call that segments one image.

    A subclass defines ``__init__`` and the hook ``_cut(image, **options)``.
    """

    def __call__(
        self,
        image: ArrayLike | Colors,
        spacing: Sequence[float] | float | None = None,
        intensity_range: IntensityRange = "dtype",
        *,
        spatial_ndim: int | None = None,
        valid: ArrayLike | None = None,
    ) -> NDArray[np.int32]:
        """Compute the region map of one image.

        Parameters
        ----------
        image : array-like, (H, W[, C]) or (D, H, W[, C]), or Colors
            Any real dtype.
        spacing : float or sequence of float, optional
            Distance between neighboring pixels along each axis, in any unit; ones if None.
        intensity_range : {"dtype", "image"} or (low, high), default="dtype"
            How values become colors; see :func:`hybridseg.validation.as_colors`.
        spatial_ndim : {2, 3}, optional
            Number of spatial axes, if the shape is ambiguous.
        valid : array-like of bool, (*spatial,), optional
            Where False, the pixel belongs to no region and gets -1.

        Returns
        -------
        ndarray of int32, (*spatial,)
            Region numbers 0..R-1 in raster order of their first pixels.

        Raises
        ------
        TypeError, ValueError
            The image or a parameter is not as described.
        """
        return self._cut(
            image,
            spacing=spacing,
            intensity_range=intensity_range,
            spatial_ndim=spatial_ndim,
            valid=valid,
        )

    def _cut(self, image: ArrayLike | Colors, **options: Any) -> NDArray[np.int32]:
        raise TypeError(f"{type(self).__name__} lacks the hook _cut(image, **options).")


def cut_image(
    method: Callable[..., ArrayLike],
    colors: NDArray[np.float32],
    spacing: Sequence[float],
    valid: NDArray[np.bool_] | None,
) -> NDArray[Any]:
    """Call a superpixel method of the user with checked colors (*spatial, C); not checked.

    The mask of the valid pixels is passed on only if the method takes it.
    """
    options: dict[str, Any] = {"spacing": spacing}
    if valid is not None and _takes_valid(method):
        options["valid"] = valid
    if type(method).__call__ is Superpixels.__call__:
        return np.asarray(method(Colors(colors), **options))
    options["intensity_range"] = (0.0, COLOR_SCALE)
    return np.asarray(method(colors, **options))


def _takes_valid(method: Callable[..., ArrayLike]) -> bool:
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):  # a callable written in C
        return False
    return any(p.name == "valid" or p.kind == p.VAR_KEYWORD for p in parameters)
