"""Lengths in space, computed so that no result depends on the unit of ``spacing``.

The whole library follows one rule. A length that a user passes (a width, a sigma) is in the unit
of ``spacing``, and a default length is in pixels of the finest axis. All computations are in
pixels of the finest axis, whose side is the minimum of ``spacing``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.validation import as_spacing, check_number

Spacing = Sequence[float] | float | None
#: A length in the unit of spacing, or "auto": the default number of pixels of the finest axis.
Width = float | str


def pixel_sides(spacing: Spacing, spatial_ndim: int) -> tuple[float, ...]:
    """Return the sides of a pixel in units of the shortest, for any unit of ``spacing``.

    Parameters
    ----------
    spacing : float or sequence of float, optional
        The distance between neighboring pixels along each axis; ones if None.
    spatial_ndim : int
        The number of axes.

    Returns
    -------
    tuple of float
        Each side is at least 1. It is rounded to twelve digits, so that 2.5 and 2540 / 1016 are
        equal.

    Raises
    ------
    TypeError, ValueError
        ``spacing`` is not valid; see :func:`hybridseg.validation.as_spacing`.
    """
    steps = as_spacing(spacing, spatial_ndim)
    return tuple(settled(step / min(steps)) for step in steps)


def width_in_pixels(
    width: Any, name: str, spacing: Spacing, spatial_ndim: int, *, auto: float, zero: bool = True
) -> float:
    """Convert a width to pixels of the finest axis, the unit of :func:`pixel_sides`.

    Parameters
    ----------
    width : float or "auto"
        In the unit of ``spacing``.
    name : str
        The name of the width in error messages.
    spacing, spatial_ndim
        As in :func:`pixel_sides`.
    auto : float
        The value of "auto", in pixels of the finest axis.
    zero : bool
        Whether the width may be 0.

    Returns
    -------
    float
        The width in pixels of the finest axis.

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
    """Return a width in the unit of ``spacing``; "auto" is ``auto`` pixels of the finest axis.

    A width that is not a string is returned unchanged and unchecked.

    Raises
    ------
    ValueError
        The width is a string other than "auto".
    """
    if not isinstance(width, str):
        return width
    pixels = width_in_pixels(width, name, spacing, spatial_ndim, auto=auto)
    return pixels * min(as_spacing(spacing, spatial_ndim))


def widths_in_pixels(
    widths: Any, name: str, spacing: Spacing, spatial_ndim: int, *, auto: Sequence[float]
) -> tuple[float, ...]:
    """Convert several widths, each above 0, to pixels of the finest axis; "auto" is ``auto``.

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
    for width in listed:
        check_number(width, name, minimum=0, strict=True)
    shortest = min(as_spacing(spacing, spatial_ndim))
    return tuple(settled(float(width) / shortest) for width in listed)


def nearest_valid(valid: NDArray[np.bool_], spacing: Spacing) -> tuple[NDArray[Any], ...] | None:
    """Return the indices of the valid pixel that is nearest to each pixel.

    Parameters
    ----------
    valid : ndarray of bool, (*spatial,)
    spacing : float or sequence of float, optional
        The distance between neighboring pixels along each axis. Distances are in its unit.

    Returns
    -------
    tuple of ndarray of int, each (*spatial,), or None
        One array of indices for each axis: ``array[result]`` is ``array`` with invalid pixels
        filled. None if all pixels are valid, or if no pixel is valid.
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
    """Round to twelve digits, so that numbers that differ by rounding errors become equal."""
    return float(f"{value:.12g}")
