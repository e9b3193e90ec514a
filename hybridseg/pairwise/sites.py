"""The sites of an energy (pixels or regions), and the image data that terms read there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.arguments import read_only
from hybridseg.validation import (
    Colors,
    IntensityRange,
    as_colors,
    as_image,
    as_label_map,
    as_mask,
    as_spacing,
)


@dataclass(frozen=True, eq=False)
class Sites:
    """The pixels or regions that get a label, with the image that terms read.

    :class:`hybridseg.pairwise.Energy` makes it; a term's methods receive it. Its arrays are
    read-only.

    Attributes
    ----------
    shape : tuple of int
        The shape of a labeling: (H, W) or (D, H, W) for pixels, (R,) for regions.
    image : array-like, (*spatial[, C]), Colors or None
        As the user passed it; terms read ``colors`` instead.
    intensity_range : {"dtype", "image"} or (low, high)
        How the image's values become colors.
    spacing : tuple of float
        The distance between neighboring pixels along each axis.
    valid : ndarray of bool, (*spatial,), or None
        False where there is no data, and outside of all regions. Such a pixel has no cost and
        influences no other.
    regions : ndarray of int64, (*spatial,), or None
        If the sites are regions: the number 0..R-1 of each pixel's region, -1 outside of all
        regions. None if the sites are pixels, or if there is no region map.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.pairwise import Energy
    >>> sites = Energy(np.zeros((2, 3, 4)), image=np.full((2, 3), 0.5)).sites
    >>> sites.shape, sites.colors.shape, float(sites.colors[0, 0, 0])
    ((2, 3), (2, 3, 1), 127.5)
    """

    shape: tuple[int, ...]
    image: Any
    intensity_range: IntensityRange
    spacing: tuple[float, ...]
    valid: NDArray[np.bool_] | None
    regions: NDArray[np.int64] | None

    @classmethod
    def of(
        cls,
        shape: tuple[int, ...],
        image: ArrayLike | Colors | None,
        intensity_range: IntensityRange,
        spacing: Sequence[float] | float | None,
        valid: ArrayLike | None,
        regions: ArrayLike | None,
    ) -> Self:
        """Check the arguments of :class:`hybridseg.pairwise.Energy` that describe its sites.

        Raises
        ------
        TypeError, ValueError
            An argument does not fit its description, or does not fit the others.
        """
        spatial, numbers = shape, None
        if regions is not None:
            numbers = _as_regions(regions, shape)
            spatial = numbers.shape
        mask = None if valid is None else as_mask(valid, spatial)
        if numbers is not None:
            if mask is not None:
                numbers[~mask] = -1
            inside = numbers >= 0
            mask = None if inside.all() else inside
        if image is not None:
            found = as_image(image, spatial_ndim=_rank(spatial)).shape[:-1]
            if found != spatial:
                of = "the map regions" if numbers is not None else "unary"
                raise ValueError(
                    f"image has the spatial shape {found}; expected that of {of}, {spatial}."
                )
        steps = as_spacing(spacing, len(spatial))
        return cls(
            *(shape, image, intensity_range, steps),
            valid=None if mask is None else read_only(mask),
            regions=None if numbers is None else read_only(numbers),
        )

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """The image's shape without channels, whether pixels or regions get the labels."""
        return self.shape if self.regions is None else self.regions.shape

    @property
    def counted(self) -> NDArray[np.bool_] | None:
        """Mask (*shape,) of the sites that count; None if all sites count, as with regions."""
        return self.valid if self.regions is None else None

    @cached_property
    def colors(self) -> NDArray[np.float32]:
        """The image as colors (*spatial, C) on the scale 0..255; 0 where not valid.

        Raises
        ------
        ValueError
            The energy has no image, or its values do not fit ``intensity_range``.
        """
        shape = self.spatial_shape
        if self.image is None:
            raise ValueError(
                "image is None, but a term reads the image: pass image= to Energy, or use a term "
                "without one, such as EdgeTerm(weights) or GridTerm(weight, contrast=None)."
            )
        colors = as_colors(
            self.image,
            spatial_ndim=len(shape),
            intensity_range=self.intensity_range,
            valid=self.valid,
        )
        return read_only(colors)


def _rank(shape: tuple[int, ...]) -> int:
    if len(shape) not in (2, 3):
        raise ValueError(
            f"image belongs to costs (H, W, L) or (D, H, W, L), or to regions whose pixels are "
            f"known: these costs are for {shape} sites; pass regions=map beside image."
        )
    return len(shape)


def _as_regions(regions: ArrayLike, shape: tuple[int, ...]) -> NDArray[np.int64]:
    numbers = as_label_map(regions, name="regions")
    if len(shape) != 1:
        raise ValueError(
            f"regions is given, but unary has costs for {shape} pixels; expected costs (R, L), one "
            f"row for each region, such as hybridseg.features.region_sums(costs, regions)."
        )
    if numbers.ndim not in (2, 3):
        raise ValueError(
            f"regions has shape {numbers.shape}; expected a map (H, W) or (D, H, W) of "
            f"region numbers."
        )
    if numbers.max(initial=-1) >= shape[0]:
        raise ValueError(
            f"regions holds the number {numbers.max()}, but unary has {shape[0]} rows; expected "
            f"numbers 0..{shape[0] - 1}, negative outside of all regions."
        )
    return numbers
