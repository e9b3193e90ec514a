"""Checks of arguments: arrays of numbers, masks, numbers, options, spacing, probabilities.

Warnings at the caller's line, and the protection of an estimator from a failed fit, are here as
well. :mod:`hybridseg.validation` builds on this file and
exports its names; the package imports them from there.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

Scalar = TypeVar("Scalar", bound=np.generic)

#: The maximum size of numbers: sums of many of them must not exceed float32, which ends at 3.4e38.
LARGEST = 1e30

#: The maximum difference between one and a sum of probabilities, which may have been rounded.
SUM_TOLERANCE = 0.02

#: Bounds of the spacing, whose squares are added in float32, and of the ratio of two axes.
_SPACING_LIMITS = 1e-15, 1e15
_MAX_ANISOTROPY = 1e6

#: The warnings that were shown within `said_once`; None outside of it.
_SHOWN_WARNINGS: ContextVar[set[str] | None] = ContextVar("_SHOWN_WARNINGS", default=None)


def as_numbers(
    values: Any, name: str, *, expected: str = "real numbers", cure: str = "fill it first"
) -> NDArray[Any]:
    """Convert to an array of booleans or real numbers; refuse everything else."""
    _refuse_masked(values, name, cure)
    try:
        array = np.asarray(values)
    except (OSError, MemoryError):  # a lazy array that cannot be read
        raise
    except Exception as error:  # any object may raise anything: a ragged list, a tensor
        raise TypeError(
            f"{name} cannot be read as an array ({error}); expected {expected}."
        ) from error
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} has dtype {array.dtype}; expected {expected}.")
    return array


def as_singles(
    array: NDArray[Any], name: str, *, largest: float = LARGEST, cure: str = ""
) -> NDArray[np.float32]:
    """Convert real numbers to C-contiguous float32; refuse NaN, infinity and too large ones."""
    check_magnitude(array, name, largest=largest, cure=cure)
    return np.ascontiguousarray(array, dtype=np.float32)


def check_magnitude(
    array: NDArray[Any], name: str, *, largest: float = LARGEST, cure: str = ""
) -> None:
    """Refuse NaN, infinity, and numbers whose absolute value is above ``largest``.

    Raises
    ------
    ValueError
        The array holds such numbers. ``cure`` is the advice for NaN and infinity.
    """
    if array.dtype.kind != "f" or array.size == 0:
        return
    greatest = max(-float(array.min()), float(array.max()))  # NaN if any is NaN
    if greatest <= largest:
        return
    if not bool(np.isfinite(array).all()):
        raise ValueError(f"{name} holds NaN or infinite values; {cure or 'fill or drop them'}.")
    size = f"{greatest:g}" if math.isfinite(greatest) else "beyond 1.8e+308"
    raise ValueError(
        f"{name} holds a number of size {size}; expected at most {largest:g}, because sums of "
        f"larger numbers overflow. Divide {name} by a constant, or clip it."
    )


@contextmanager
def said_once() -> Iterator[None]:
    """Within this context `warn_caller` shows a warning once, even if many images cause it."""
    token = _SHOWN_WARNINGS.set(set()) if _SHOWN_WARNINGS.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _SHOWN_WARNINGS.reset(token)


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside of the package (and of decorators) that called it."""
    shown = _SHOWN_WARNINGS.get()
    if shown is not None:
        if message in shown:
            return
        shown.add(message)
    modules: list[str] = []
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        modules.append(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    level = max(i for i, name in enumerate(modules) if name.startswith("hybridseg.")) + 1
    while level < len(modules) and modules[level] == "contextlib":
        level += 1
    warnings.warn(message, category, stacklevel=level + 1)


def _refuse_masked(array: Any, name: str, cure: str) -> None:
    """Refuse a masked array, whose mask a conversion would drop silently."""
    if isinstance(array, np.ma.MaskedArray) and bool(np.ma.getmaskarray(array).any()):
        raise TypeError(f"{name} is a masked array; expected a plain array: {cure}.")


def check_number(
    value: Any,
    name: str,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    strict: bool = False,
    integer: bool = False,
    largest: float = LARGEST,
) -> Any:
    """Return ``value`` if it is a finite number within limits (``strict`` excludes the limits).

    Integers must fit 64 bits. The absolute value of other numbers must not exceed ``largest``,
    because they are used in float32.

    Raises
    ------
    TypeError
        ``value`` is not a number, or not an integer although ``integer`` is True.
    ValueError
        ``value`` is outside the limits, or not finite.
    """
    kinds = (int, np.integer) if integer else (int, float, np.integer, np.floating)
    if isinstance(value, bool | np.bool_) or not isinstance(value, kinds):
        what = "an integer" if integer else "a number (an int or a float)"
        raise TypeError(f"{name}={value!r} is of type {type(value).__name__}; expected {what}.")
    plain = value.item() if isinstance(value, np.generic) else value  # limits overflow float16
    low_ok = minimum is None or (plain > minimum if strict else plain >= minimum)
    high_ok = maximum is None or (plain < maximum if strict else plain <= maximum)
    most = 2**63 - 1 if integer else largest
    if not (low_ok and high_ok and -most <= plain <= most):  # NaN is neither
        signs = (">", "<") if strict else (">=", "<=")
        limits = [
            f"{sign} {limit:g}"
            for sign, limit in zip(signs, (minimum, maximum), strict=True)
            if limit is not None
        ]
        beyond = f", of a size up to {most:g}" if low_ok and high_ok and plain == plain else ""
        raise ValueError(
            f"{_shown(name, value)}; expected a number {' and '.join(limits) or 'finite'}{beyond}."
        )
    return value


def _shown(name: str, value: Any) -> str:
    """Format an argument and its value; Python does not print integers of thousands of digits."""
    huge = isinstance(value, int) and value.bit_length() > 400
    return f"{name} is an integer of {value.bit_length()} bits" if huge else f"{name}={value!r}"


def check_option(value: Any, name: str, options: Sequence[str]) -> Any:
    """Return ``value`` if it is one of ``options``; the error lists them."""
    if not isinstance(value, str) or value not in options:
        listed = ", ".join(repr(option) for option in options)
        raise ValueError(f"{name}={value!r}; expected one of {listed}.")
    return value


def as_spacing(spacing: Sequence[float] | float | None, spatial_ndim: int) -> tuple[float, ...]:
    """Check the distance between neighboring pixels along each axis; None means ones.

    Raises
    ------
    TypeError
        ``spacing`` does not hold real numbers.
    ValueError
        ``spacing`` is neither one positive number nor one for each of the ``spatial_ndim`` axes,
        a number is outside 1e-15..1e15, or two axes differ by more than a factor of 1e6.
    """
    if spacing is None:
        return (1.0,) * spatial_ndim
    axes = {2: " (row, column)", 3: " (plane, row, column)"}.get(spatial_ndim, "")
    expected = f"{spatial_ndim} positive numbers, one for each axis{axes}, or None"
    given = as_numbers(spacing, "spacing", expected=expected)
    if given.dtype.kind == "b":
        raise TypeError(f"spacing={spacing!r} holds booleans; expected {expected}.")
    with np.errstate(over="ignore"):
        values = np.atleast_1d(given.astype(np.float64))
    if values.shape == (1,):
        values = np.repeat(values, spatial_ndim)
    if values.shape != (spatial_ndim,) or not bool((np.isfinite(values) & (values > 0)).all()):
        raise ValueError(f"spacing={spacing!r}; expected {expected}.")
    low, high = _SPACING_LIMITS
    if values.min() < low or values.max() > high:
        raise ValueError(
            f"spacing={spacing!r}; expected numbers from {low:g} to {high:g}, whose squares fit "
            f"float32: use another unit of length."
        )
    if values.max() > _MAX_ANISOTROPY * values.min():
        raise ValueError(
            f"spacing={spacing!r}; expected axes that differ by a factor of at most "
            f"{_MAX_ANISOTROPY:g}: give all of them in the same unit."
        )
    return tuple(float(value) for value in values)


def as_mask(mask: ArrayLike, shape: tuple[int, ...], *, name: str = "valid") -> NDArray[np.bool_]:
    """Check a boolean mask of a known shape; integers 0 and 1 become booleans."""
    array = as_numbers(mask, name, expected="a boolean mask")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected the image's {shape}.")
    if array.dtype.kind in "ui" and bool(np.isin(array, (0, 1)).all()):
        array = array.astype(bool)
    if array.dtype.kind != "b":
        raise TypeError(f"{name} has dtype {array.dtype}; expected a boolean mask.")
    return array


def only_valid(
    values: ArrayLike,
    valid: NDArray[np.bool_] | None,
    *,
    instead: float = 0.0,
    name: str = "unary",
) -> NDArray[Any]:
    """Return values ``(*spatial, K)`` with ``instead`` at pixels that are not valid.

    Values of another shape are returned unchanged; a later check refuses them.
    """
    array = as_numbers(values, name, expected="real numbers (..., L)")
    if valid is None or array.shape[:-1] != valid.shape or valid.all():
        return array
    return np.where(valid[..., np.newaxis], array, instead)


def random_generator(random_state: Any) -> np.random.Generator:
    """Return a NumPy generator for any ``random_state`` that scikit-learn accepts.

    One draw from a RandomState seeds the generator. With None, the operating system provides the
    seed.
    """
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31 - 1))
    return np.random.default_rng(random_state)


def check_proba(proba: NDArray[Any], name: str, *, where: str = "", advice: str = "") -> None:
    """Refuse arrays ``(..., L)`` that are not probabilities.

    Raises
    ------
    ValueError
        A number is NaN or negative (by more than rounding), or a sum over the last axis differs
        from one by more than 2%.
    """
    with np.errstate(all="ignore"):  # refused below
        sums = proba.sum(axis=-1, dtype=np.float64)
    least = float(proba.min(initial=0))  # NaN if any is NaN
    if not (least >= -1e-6 and float(abs(sums - 1).max(initial=0)) <= SUM_TOLERANCE):
        raise ValueError(
            f"{name} has the minimum {least:g}, and its sums over the last axis range from "
            f"{float(sums.min()):g} to {float(sums.max()):g}{where}; expected probabilities that "
            f"sum to one{advice}."
        )


def read_only(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """Return a view that cannot be written to, for the user's own code to read."""
    view = array.view()
    view.flags.writeable = False
    return view


@contextmanager
def restored_on_error(estimator: Any) -> Iterator[None]:
    """Restore the attributes of an estimator if an error is raised, such as in a second fit."""
    before = dict(vars(estimator))
    try:
        yield
    except BaseException:
        vars(estimator).clear()
        vars(estimator).update(before)
        raise
