"""Checks and conversions of images, costs and label maps, and of other arguments.

Every function returns an array (or a number) in the form that the rest of the package expects, or
raises an error that names the argument, its value, what was expected and what to do. No function
writes to its arguments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.arguments import LARGEST as LARGEST
from hybridseg.arguments import as_mask as as_mask
from hybridseg.arguments import as_numbers as as_numbers
from hybridseg.arguments import as_singles as as_singles
from hybridseg.arguments import as_spacing as as_spacing
from hybridseg.arguments import check_magnitude as check_magnitude
from hybridseg.arguments import check_number as check_number
from hybridseg.arguments import check_option as check_option
from hybridseg.arguments import check_proba as check_proba
from hybridseg.arguments import only_valid as only_valid
from hybridseg.arguments import said_once as said_once
from hybridseg.arguments import warn_caller as warn_caller

#: The upper end of the scale of colors, which is also the scale of color widths.
COLOR_SCALE = 255.0

#: A warning is issued if the values of an image use at most this fraction of its dtype's range. It
#: is the fraction of 14 bits in 16 for integers, and of 12 bits in 16 for floats.
_MAX_SUSPICIOUS_FRACTION = {"i": 1 / 4, "u": 1 / 4, "f": 1 / 16}

#: Values count as nearly constant if their range is at most this fraction of the largest value, or
#: this fraction of the dtype's range.
_MAX_FLAT_CONTRAST = 1 / 16
_MAX_FLAT_FRACTION = {"i": 1e-4, "u": 1e-4, "f": 1e-6}

#: The approximate number of pixels from which the range of values is estimated.
_N_SAMPLED_PIXELS = 2**14

IntensityRange = str | tuple[float, float]


@dataclass(frozen=True, eq=False)
class Colors:
    """Colors of an image on the scale 0..255, to convert an image once and use it several times.

    Functions that take an image also take Colors. They neither convert nor check them again, and
    ``intensity_range`` has no effect.

    Parameters
    ----------
    values : ndarray of float32, (*spatial, C)
        Finite values, as returned by :func:`as_colors`. No function writes to them.

    Raises
    ------
    TypeError, ValueError
        ``values`` is not a float32 array with two or three spatial axes and one axis of channels,
        or it has no pixels, or a value is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.features import slic
    >>> from hybridseg.validation import Colors, as_colors
    >>> image = np.zeros((20, 30), np.uint8)
    >>> colors = Colors(as_colors(image))
    >>> bool((slic(colors, 6) == slic(image, 6)).all())
    True
    """

    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        kind = getattr(self.values, "dtype", type(self.values).__name__)
        if not isinstance(self.values, np.ndarray) or kind != np.float32:
            raise TypeError(f"values are {kind}; expected float32: pass as_colors(image).")
        if self.values.ndim not in (3, 4) or self.values.size == 0:
            raise ValueError(
                f"values has shape {self.values.shape}; expected (H, W, C) or (D, H, W, C)."
            )
        if not np.isfinite(self.values.sum(dtype=np.float64)):
            raise ValueError("values holds NaN or infinite colors; fill them before.")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Convert to an array, for NumPy."""
        array = np.asarray(self.values, dtype)
        return array.copy() if copy and array is self.values else array


def as_image(
    image: ArrayLike, *, spatial_ndim: int | None = None, name: str = "image"
) -> NDArray[Any]:
    """Check an image and add a channel axis if it has none.

    Parameters
    ----------
    image : array-like, (H, W[, C]) or (D, H, W[, C])
        Any real dtype, any memory layout.
    spatial_ndim : {2, 3}, optional
        The number of spatial axes. With None, 2 axes are (H, W), 3 are (H, W, C), and 4 are
        (D, H, W, C).
    name : str
        The name of the argument in error messages.

    Returns
    -------
    ndarray, (*spatial, C)
        The dtype is unchanged; the array is a view where possible.

    Raises
    ------
    TypeError, ValueError
        The dtype is not boolean, integer or real, the rank is wrong, or an axis is empty.
    """
    array = as_numbers(
        image,
        name,
        expected="boolean, integer or real numbers in an array (H, W[, C]) or (D, H, W[, C])",
        cure="Scene(image.filled(0), valid=~image.mask)",
    )
    if spatial_ndim is not None:
        check_number(spatial_ndim, "spatial_ndim", integer=True)
    rank = spatial_ndim or {2: 2, 3: 2, 4: 3}.get(array.ndim)
    if rank is None or array.ndim not in (rank, rank + 1):
        axes = {2: "(H, W[, C])", 3: "(D, H, W[, C])"}.get(rank or 0, "(H, W[, C])")
        told = "" if spatial_ndim is None else f" with spatial_ndim={spatial_ndim}"
        raise ValueError(f"{name} has shape {array.shape}; expected one image {axes}{told}.")
    if array.size == 0:
        raise ValueError(f"{name} has shape {array.shape}; expected at least one pixel.")
    return array if array.ndim == rank + 1 else array[..., np.newaxis]


def as_colors(
    image: ArrayLike | Colors,
    *,
    spatial_ndim: int | None = None,
    intensity_range: IntensityRange = "dtype",
    valid: NDArray[np.bool_] | None = None,
    name: str = "image",
) -> NDArray[np.float32]:
    """Convert an image to float32 colors on the scale 0..255, which is the scale of color widths.

    Parameters
    ----------
    image : array-like, (H, W[, C]) or (D, H, W[, C]), or Colors
        Any real dtype. Colors are returned unchanged, and copied only if ``valid`` masks pixels.
    spatial_ndim : {2, 3}, optional
        As in :func:`as_image`.
    intensity_range : {"dtype", "image"} or (low, high)
        The range of values that is mapped to 0..255. ``"dtype"``: the range of the dtype for 8-bit
        and 16-bit integers, [0, 1] for floats. ``"image"``: from the minimum to the maximum of the
        image (MRI, float rasters). ``(low, high)``: this window, to which values are clipped. Pass
        the same window for all images of a data set, so that equal values get equal colors.
    valid : ndarray of bool, (*spatial,), optional
        Where False, the pixel is ignored (it may be NaN) and its color becomes 0.
    name : str
        The name of the argument in error messages.

    Returns
    -------
    ndarray of float32, C-contiguous, (*spatial, C)

    Raises
    ------
    ValueError
        A pixel is NaN or infinite; under ``"dtype"``, floats are outside [0, 1] or integers have
        more than 16 bits; or the range is unknown or empty.

    Warns
    -----
    UserWarning
        Under ``"dtype"``, the values use at most a quarter of the range of 16-bit integers (CT,
        cameras of 12 or 14 bits, 8-bit values in a wider type), or at most a sixteenth of [0, 1].
        Their colors then differ too little for the usual color widths. The lowest and highest
        0.1 % of the values are ignored. Images without contrast cause no warning.
    """
    if isinstance(image, Colors):
        return _converted_before(image, spatial_ndim, valid, name)
    array = as_image(image, spatial_ndim=spatial_ndim, name=name)
    if valid is not None:
        inside = as_mask(valid, array.shape[:-1])[..., np.newaxis]
        array = np.where(inside, array, array.dtype.type(0))  # keeps the dtype, even bool
    _check_finite(array, name)
    low, high = intensity_limits(array, intensity_range, valid, name)
    if isinstance(intensity_range, str):
        _check_spread(array, intensity_range, low, high, name)
        if intensity_range == "dtype":
            _warn_of_unused_range(array, valid, high - low, name)
    with np.errstate(over="ignore"):  # values outside the window are clipped below
        colors = _scaled(array, low, high)
    if not isinstance(intensity_range, str):
        np.clip(colors, 0.0, COLOR_SCALE, out=colors)
    if valid is not None:
        colors[~np.asarray(valid, dtype=bool)] = 0
    return colors


def _converted_before(
    colors: Colors, spatial_ndim: int | None, valid: NDArray[np.bool_] | None, name: str
) -> NDArray[np.float32]:
    values = colors.values
    if spatial_ndim not in (None, values.ndim - 1):
        raise ValueError(
            f"{name} holds Colors of shape {values.shape}, whose last axis holds the channels; "
            f"expected {spatial_ndim} axes before it, as spatial_ndim={spatial_ndim}."
        )
    if valid is None:
        return np.ascontiguousarray(values)
    inside = as_mask(valid, values.shape[:-1])[..., np.newaxis]
    return np.ascontiguousarray(values if inside.all() else np.where(inside, values, np.float32(0)))


def _scaled(array: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Map ``low`` to 0 and ``high`` to 255."""
    if (low, high) == (0.0, COLOR_SCALE):
        return array.astype(np.float32, order="C")
    extreme = high - low < 1 / LARGEST or max(-low, high) > LARGEST
    if high > low and extreme:  # the factor does not fit float32
        exact = (array.astype(np.float64) - low) / (high - low) * COLOR_SCALE
        return exact.astype(np.float32, order="C")
    if low == 0.0:
        colors = array.astype(np.float32, order="C")
    else:
        colors = (array.astype(np.float64) - low).astype(np.float32, order="C")
    colors *= np.float32(COLOR_SCALE / (high - low)) if high > low else np.float32(0)
    return colors


def _refuse_wrapping(array: NDArray[Any], name: str) -> None:
    """Refuse uint64 numbers that would become negative as int64."""
    if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} holds {array.max()}; expected at most {np.iinfo(np.int64).max}.")


def _check_finite(array: NDArray[Any], name: str) -> None:
    if array.dtype.kind != "f" or bool(np.isfinite(array).all()):
        return
    n_bad = int(np.count_nonzero(~np.isfinite(array)))
    where = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    raise ValueError(
        f"{name} holds {n_bad} NaN or infinite values (the first at {where}); fill them, or mark "
        f"their pixels with valid=mask."
    )


def intensity_limits(
    array: NDArray[Any],
    intensity_range: IntensityRange,
    valid: NDArray[np.bool_] | None = None,
    name: str = "image",
) -> tuple[float, float]:
    """Return the values that become 0 and 255 in :func:`as_colors`.

    The values of the image are read only for ``"image"``, and they are not checked.
    """
    if isinstance(intensity_range, str):
        check_option(intensity_range, "intensity_range", ("dtype", "image"))
        if intensity_range == "image":
            seen = array if valid is None else array[np.asarray(valid, dtype=bool)]
            return (float(seen.min()), float(seen.max())) if seen.size else (0.0, 0.0)
        if array.dtype.kind not in "ui":
            return 0.0, 1.0
        if array.dtype.itemsize > 2:
            raise ValueError(
                f"{name} has dtype {array.dtype}, whose range is too wide to be that of the image; "
                f"pass intensity_range=(low, high), for example (0, 255), or convert with "
                f"{name}.astype(np.uint8)."
            )
        info = np.iinfo(array.dtype)
        return float(info.min), float(info.max)
    try:
        low, high = (float(check_number(end, "end", largest=1e300)) for end in intensity_range)
    except (TypeError, ValueError):
        low = high = math.nan
    if not low < high:
        raise ValueError(
            f"intensity_range={intensity_range!r}; expected 'dtype', 'image' or two numbers "
            f"(low, high) with low < high."
        )
    return low, high


def _check_spread(array: NDArray[Any], how: str, low: float, high: float, name: str) -> None:
    """Refuse a range that overflows float64, and under ``"dtype"`` floats outside [0, 1]."""
    if how == "image" and not math.isfinite(high - low):
        raise ValueError(
            f"{name} holds values from {low:g} to {high:g}, whose difference overflows float64; "
            f"divide {name} by a constant."
        )
    if how == "dtype" and array.dtype.kind == "f":
        least, greatest = array.min(), array.max()
        if least < -1e-3 or greatest > 1.0 + 1e-3:
            raise ValueError(
                f"{name} holds floats from {least:g} to {greatest:g}, but intensity_range='dtype' "
                f"expects floats in [0, 1]; pass intensity_range='image' (its own range) or "
                f"intensity_range=(low, high), or divide by 255 if these are 8-bit colors."
            )


def _warn_of_unused_range(
    array: NDArray[Any], valid: NDArray[np.bool_] | None, span: float, name: str
) -> None:
    """Warn of an image whose values use a small fraction of its dtype's range."""
    kind = array.dtype.kind
    if kind == "b" or array.dtype.itemsize == 1:  # a dark photograph is common
        return
    every = math.ceil((math.prod(array.shape[:-1]) / _N_SAMPLED_PIXELS) ** (1 / (array.ndim - 1)))
    places = (slice(None, None, every),) * (array.ndim - 1)
    seen = array[places] if valid is None else array[places][np.asarray(valid, bool)[places]]
    if seen.size == 0:
        return
    tail = seen.size // 1000
    ordered = np.partition(seen.ravel(), (tail, seen.size - 1 - tail))
    least, greatest = float(ordered[tail]), float(ordered[-1 - tail])
    used = greatest - least
    if used <= max(_MAX_FLAT_CONTRAST * max(-least, greatest), _MAX_FLAT_FRACTION[kind] * span):
        return
    if used <= _MAX_SUSPICIOUS_FRACTION[kind] * span:
        fraction = f"1/{2 ** math.floor(math.log2(span / used))}"
        whole = "[0, 1]" if kind == "f" else f"the range of {array.dtype.name}"
        warn_caller(
            f"{name} uses less than {fraction} of {whole}, which intensity_range='dtype' maps to "
            f"0..255; its colors differ too little for color widths, which are meant for the whole "
            f"scale. Pass intensity_range=(low, high), the same for all images, such as (0, 4095) "
            f"for 12 bits or (-1024, 3071) for CT, or intensity_range='image', which is the "
            f"minimum and maximum of each image."
        )


def as_costs(
    unary: ArrayLike,
    *,
    spatial_shape: tuple[int, ...] | None = None,
    keep_double: bool = False,
    keep_integer: bool = False,
    name: str = "unary",
) -> NDArray[Any]:
    """Check costs ``(..., L)``, lower is better, and convert them to C-contiguous float32.

    Parameters
    ----------
    unary : array-like, (..., L)
        One cost for each label at each pixel (or region), any real dtype.
    spatial_shape : tuple of int, optional
        The required shape of the axes before the last.
    keep_double, keep_integer : bool
        Keep float64 (or convert integers to int64) instead of converting to float32.
    name : str
        The name of the argument in error messages.

    Returns
    -------
    ndarray of float32 (or float64 or int64, if kept), (..., L), C-contiguous

    Raises
    ------
    TypeError, ValueError
        The dtype is not integer or real, the shape is not (..., L) with L >= 1, or a value is NaN
        or infinite, also after the conversion to float32.
    """
    array = as_numbers(unary, name, expected="real costs (..., L)")
    if array.ndim < 2 or array.size == 0:
        raise ValueError(
            f"{name} has shape {array.shape}; expected costs (..., L): one per label on the last "
            f"axis, with at least one pixel and one label."
        )
    if spatial_shape is not None and array.shape[:-1] != tuple(spatial_shape):
        raise ValueError(
            f"{name} has shape {array.shape}; expected ({', '.join(map(str, spatial_shape))}, L)."
            + _channels_first_hint(array.shape, tuple(spatial_shape), name)
        )
    dtype = _cost_dtype(array, keep_double, keep_integer)
    check_magnitude(
        array,
        name,
        largest=float(np.finfo(np.float32 if dtype is np.float32 else np.float64).max),
        cure="give a large finite cost to a label that is impossible",
    )
    _refuse_wrapping(array, name)
    return np.ascontiguousarray(array, dtype=dtype)


def _cost_dtype(array: NDArray[Any], keep_double: bool, keep_integer: bool) -> type[np.generic]:
    if keep_integer and array.dtype.kind in "bui":
        return np.int64
    wide = array.dtype.kind == "f" and array.dtype.itemsize >= 8  # of any byte order
    return np.float64 if keep_double and wide else np.float32


def as_soft_costs(costs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return costs whose differences fit float32, for marginals, which depend on differences only.

    Differences from the cheapest label of a pixel are clipped at 1e30. The probability of such a
    label is 0 with and without clipping.
    """
    if max(-float(costs.min()), float(costs.max())) <= LARGEST:
        return costs
    above = costs.astype(np.float64) - costs.min(axis=-1, keepdims=True)
    return np.minimum(above, LARGEST).astype(np.float32)


def _channels_first_hint(shape: tuple[int, ...], spatial: tuple[int, ...], name: str) -> str:
    if shape[1:] == spatial:
        return f" The labels seem to come first: pass np.moveaxis({name}, 0, -1)."
    if shape[0] == 1 and shape[2:] == spatial:
        return f" This seems to be a batch of one: pass np.moveaxis({name}[0], 0, -1)."
    return ""


def as_label_map(
    labels: ArrayLike,
    *,
    shape: tuple[int, ...] | None = None,
    ignore_label: int | None = None,
    name: str = "labels",
) -> NDArray[np.int64]:
    """Check a label map and turn every "ignore" value into -1.

    Parameters
    ----------
    labels : array-like of int or bool, (*spatial,)
        Any integers; every negative value means "ignore". Booleans become 0 and 1.
    shape : tuple of int, optional
        The image's spatial shape, which the map must have.
    ignore_label : int, optional
        One more value that means "ignore", such as 255.
    name : str
        The name of the argument in error messages.

    Returns
    -------
    ndarray of int64, (*spatial,)

    Raises
    ------
    TypeError
        The map holds floats (or anything else that is not an integer).
    ValueError
        The shape differs from the image's.
    """
    array = as_numbers(
        labels,
        name,
        expected="integers, one label per pixel (negative = ignore)",
        cure="labels.filled(-1)",
    )
    if ignore_label is not None:
        check_number(ignore_label, "ignore_label", integer=True)
    if array.dtype.kind not in "bui":
        raise TypeError(
            f"{name} has dtype {array.dtype}; expected integers (negative = ignore). "
            f"Convert with {name}.astype(int) if these are class numbers."
        )
    if shape is not None and array.shape != tuple(shape):
        raise ValueError(
            f"{name} has shape {array.shape}, but its image has {tuple(shape)}; expected one "
            f"label per pixel and no channel axis."
        )
    _refuse_wrapping(array, name)
    out = array.astype(np.int64)
    void = out < 0
    if ignore_label is not None:
        void |= out == ignore_label
    out[void] = -1
    return out


def as_label_values(
    classes: ArrayLike, *, ignore_label: int | None = None, name: str = "classes"
) -> NDArray[np.int64]:
    """Check the label values of the classes, and sort them.

    Raises
    ------
    TypeError, ValueError
        The values are not integers, fewer than two, negative or not distinct, or one of them
        equals ``ignore_label``.
    """
    array = np.asarray(classes)
    if array.dtype.kind not in "bui":
        raise TypeError(f"{name}={classes!r}; expected integers, the label values of the classes.")
    _refuse_wrapping(array, name)
    values = np.unique(array.astype(np.int64))
    if array.ndim != 1 or len(values) < max(2, array.size) or values[0] < 0:
        raise ValueError(
            f"{name}={classes!r}; expected at least two different label values, none negative."
        )
    if ignore_label is not None and bool((values == ignore_label).any()):
        raise ValueError(
            f"{name}={classes!r} contains ignore_label={ignore_label}; remove it from the classes, "
            f"or pass ignore_label=None."
        )
    return values
