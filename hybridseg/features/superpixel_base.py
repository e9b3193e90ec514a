"""The base class of the parameter objects of superpixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from hybridseg.validation import Colors, IntensityRange


class Superpixels(BaseEstimator):
    """Settings of a function that cuts an image into regions; calling them cuts one image.

    A subclass writes ``__init__`` and the hook ``_cut(image, **options)``.
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
        """Region map of one image; the arguments are those of the function (See Also)."""
        return self._cut(
            image,
            spacing=spacing,
            intensity_range=intensity_range,
            spatial_ndim=spatial_ndim,
            valid=valid,
        )

    def _cut(self, image: ArrayLike | Colors, **options: Any) -> NDArray[np.int32]:
        raise TypeError(f"{type(self).__name__} lacks the hook _cut(image, **options).")
