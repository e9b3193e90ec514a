"""Lengths and neighbourhood in space: why no result depends on the unit of ``spacing``.

The rule of the whole library is here. What a user gives as a length (a width, a sigma) is in the
unit of ``spacing``; what nobody gives is counted in pixels of the finest axis. Everything is
computed in pixels of the finest axis, whose side is the least of ``spacing``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.validation import as_spacing, check_number

Spacing = Sequence[float] | float | None
#: A length in the unit of spacing, or "auto": the default's number of pixels of the finest axis.
Width = float | str


def pixel_sides(spacing: Spacing, spatial_ndim: int) -> tuple[float, ...]:
    """Sides of a pixel in units of its shortest side: the same whatever the unit of ``spacing``.

    Parameters
    ----------
    spacing : float or sequence of float, optional
        The distance between neighbouring pixels along each axis; ones if None.
    spatial_ndim : int
        The number of axes.

    Returns
    -------
    tuple of float
        At least 1 each. Twelve digits are kept, so that 2.5 and 2540 / 1016 are one number.

    Raises
    ------
    ValueError
        ``spacing`` is not as :func:`hybridseg.validation.as_spacing` wants it.
    """
    steps = as_spacing(spacing, spatial_ndim)
    return tuple(settled(step / min(steps)) for step in steps)


def width_in_pixels(
    width: Any, name: str, spacing: Spacing, spatial_ndim: int, *, auto: float, zero: bool = True
) -> float:
    """Give a width in pixels of the finest axis, the unit of :func:`pixel_sides`.

    Parameters
    ----------
    width : float or "auto"
        In the unit of ``spacing``.
    name : str
        What error messages call the width.
    spacing, spatial_ndim
        As in :func:`pixel_sides`.
    auto : float
        What "auto" stands for, in pixels of the finest axis.
    zero : bool
        Whether the width may be 0.

    Raises
    ------
    TypeError, ValueError
        The width is neither "auto" nor a number, or out of its range.
    """
    if isinstance(width, str):
        if width != "auto":
            raise ValueError(f"{name}={width!r}; expected 'auto' or a number.")
        return auto
    check_number(width, name, minimum=0, strict=not zero)
    return settled(float(width) / min(as_spacing(spacing, spatial_ndim)))


def width_in_unit(
    width: Any, name: str, spacing: Spacing, spatial_ndim: int, *, auto: float
) -> Any:
    """Give a width in the unit of ``spacing``; "auto" is ``auto`` pixels of the finest axis.

    What is no text comes back as it is, to be checked by who takes it.

    Raises
    ------
    ValueError
        The width is a text other than "auto".
    """
    if not isinstance(width, str):
        return width
    pixels = width_in_pixels(width, name, spacing, spatial_ndim, auto=auto)
    return pixels * min(as_spacing(spacing, spatial_ndim))


def widths_in_pixels(
    widths: Any, name: str, spacing: Spacing, spatial_ndim: int, *, auto: Sequence[float]
) -> tuple[float, ...]:
    """Give several widths, each above 0, in pixels of the finest axis; "auto" stands for ``auto``.

    Raises
    ------
    TypeError, ValueError
        ``widths`` is neither "auto" nor a sequence of numbers above 0.
    """
    if isinstance(widths, str):
        if widths != "auto":
            raise ValueError(f"{name}={widths!r}; expected 'auto' or a sequence of numbers.")
        return tuple(auto)
    try:
        listed = list(widths)
    except TypeError:
        raise TypeError(
            f"{name}={widths!r} is of type {type(widths).__name__}; expected 'auto' or a sequence "
            f"of numbers, such as ({widths!r},)."
        ) from None
    return tuple(
        width_in_pixels(width, name, spacing, spatial_ndim, auto=0.0, zero=False)
        for width in listed
    )


def nearest_valid(valid: NDArray[np.bool_], spacing: Spacing) -> tuple[NDArray[Any], ...] | None:
    """For each pixel the place of the nearest valid one, to fill what is not valid.

    Parameters
    ----------
    valid : ndarray of bool, (*spatial,)
    spacing : float or sequence of float, optional
        Distances are taken in its unit.

    Returns
    -------
    tuple of ndarray of int, each (*spatial,), or None
        One array for each axis: ``array[places]`` is filled. None where there is nothing to fill,
        or nothing to fill it with.
    """
    if valid.all() or not valid.any():
        return None
    from scipy.ndimage import distance_transform_edt

    places = distance_transform_edt(
        ~valid,
        sampling=pixel_sides(spacing, valid.ndim),
        return_distances=False,
        return_indices=True,
    )
    return tuple(places)


def settled(value: float) -> float:
    """Keep twelve digits: numbers that only rounding sets apart become one."""
    return float(f"{value:.12g}")
