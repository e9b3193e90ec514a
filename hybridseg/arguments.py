"""Arguments of every kind: arrays of numbers, masks, numbers, options, steps between pixels.

It also warns at the caller's line. :mod:`hybridseg.validation` builds on this file and exports its
names; the package imports them from there.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Greater numbers are refused: float32 ends at 3.4e38, and sums of many of them must fit.
LARGEST = 1e30

#: Sums of probabilities may be off one by this: half precision, marginals that were rounded.
SUM_TOLERANCE = 0.02

#: Steps between pixels, whose squares are added up in float32, and how far axes may differ.
_SPACING_LIMITS = 1e-15, 1e15
_MOST_ANISOTROPIC = 1e6

#: What `said_once` has let through.
_SAID: ContextVar[set[str] | None] = ContextVar("_SAID", default=None)


def as_numbers(
    values: Any, name: str, *, expected: str = "real numbers", cure: str = "fill it first"
) -> NDArray[Any]:
    """Make an array of what was given, or say that it does not hold booleans or real numbers."""
    _refuse_masked(values, name, cure)
    try:
        array = np.asarray(values)
    except (OSError, MemoryError):  # of an array that is read when it is asked for
        raise
    except Exception as error:  # whatever else an object raises: a ragged list, a tensor
        raise TypeError(
            f"{name} cannot be read as an array ({error}); expected {expected}."
        ) from error
    if array.dtype.kind not in "buif":
        raise TypeError(f"{name} has dtype {array.dtype}; expected {expected}.")
    return array


def as_singles(
    array: NDArray[Any], name: str, *, largest: float = LARGEST, cure: str = ""
) -> NDArray[np.float32]:
    """Make real numbers C-contiguous float32; refuse what is not finite or too great for that."""
    check_magnitude(array, name, largest=largest, cure=cure)
    return np.ascontiguousarray(array, dtype=np.float32)


def check_magnitude(
    array: NDArray[Any], name: str, *, largest: float = LARGEST, cure: str = ""
) -> None:
    """Refuse NaN, infinity, and numbers whose size is above ``largest``.

    Raises
    ------
    ValueError
        It says how to go on: ``cure`` where values are NaN or infinite.
    """
    if array.dtype.kind != "f" or array.size == 0:
        return
    greatest = max(-float(array.min()), float(array.max()))  # NaN where one is
    if greatest <= largest:
        return
    if not bool(np.isfinite(array).all()):
        raise ValueError(f"{name} holds NaN or infinite values; {cure or 'fill or drop them'}.")
    size = f"{greatest:g}" if math.isfinite(greatest) else "beyond 1.8e+308"
    raise ValueError(
        f"{name} holds a number of size {size}; expected at most {largest:g}, because sums of "
        f"greater ones overflow. Divide {name} by a constant, or clip it."
    )


@contextmanager
def said_once() -> Iterator[None]:
    """Within it, `warn_caller` says the same thing once: a call may look at many pictures."""
    token = _SAID.set(set()) if _SAID.get() is None else None
    try:
        yield
    finally:
        if token is not None:
            _SAID.reset(token)


def warn_caller(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside of the package (and of decorators) that led here."""
    said = _SAID.get()
    if said is not None:
        if message in said:
            return
        said.add(message)
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
    """A masked array would lose its mask without a word."""
    if isinstance(array, np.ma.MaskedArray) and bool(np.ma.getmaskarray(array).any()):
        raise TypeError(f"{name} is a masked array; say what its mask means: {cure}.")


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
    """Return ``value`` if it is a finite number within the limits (``strict`` leaves them out).

    Integers must fit 64 bits. Other numbers are computed with in float32, so their size must not
    be above ``largest``.

    Raises
    ------
    TypeError
        Not a number, or not an integer where one is asked for.
    ValueError
        Outside the limits, or not finite.
    """
    kinds = (int, np.integer) if integer else (int, float, np.integer, np.floating)
    if isinstance(value, bool | np.bool_) or not isinstance(value, kinds):
        what = "an integer" if integer else "a number (an int or a float)"
        raise TypeError(f"{name}={value!r} is of type {type(value).__name__}; expected {what}.")
    plain = value.item() if isinstance(value, np.generic) else value  # float16 holds no limits
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
    """An argument and its value; Python refuses to write out integers of thousands of digits."""
    huge = isinstance(value, int) and value.bit_length() > 400
    return f"{name} is an integer of {value.bit_length()} bits" if huge else f"{name}={value!r}"


def check_option(value: Any, name: str, options: Sequence[str]) -> Any:
    """Return ``value`` if it is one of ``options``; otherwise say which there are."""
    if not isinstance(value, str) or value not in options:
        listed = ", ".join(repr(option) for option in options)
        raise ValueError(f"{name}={value!r}; expected one of {listed}.")
    return value


def as_spacing(spacing: Sequence[float] | float | None, spatial_ndim: int) -> tuple[float, ...]:
    """Check the distance between neighbouring pixels along each axis; None gives ones.

    Raises
    ------
    TypeError
        Not of real numbers.
    ValueError
        Not one positive number, or one for each of the ``spatial_ndim`` axes; numbers outside
        1e-15..1e15, or axes that differ by more than a factor of 1e6.
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
            f"spacing={spacing!r}; expected numbers from {low:g} to {high:g}, whose squares can "
            f"be added up: use another unit of length."
        )
    if values.max() > _MOST_ANISOTROPIC * values.min():
        raise ValueError(
            f"spacing={spacing!r}; expected axes that differ by a factor of "
            f"{_MOST_ANISOTROPIC:g} at most: is one of them in another unit?"
        )
    return tuple(float(value) for value in values)


def as_mask(mask: ArrayLike, shape: tuple[int, ...], *, name: str = "valid") -> NDArray[np.bool_]:
    """Check a boolean mask of a known shape; integers 0 and 1 are taken as booleans."""
    array = as_numbers(mask, name, expected="a mask of booleans")
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected the image's {shape}.")
    if array.dtype.kind in "ui" and bool(np.isin(array, (0, 1)).all()):
        array = array.astype(bool)
    if array.dtype.kind != "b":
        raise TypeError(f"{name} has dtype {array.dtype}; expected a mask of booleans.")
    return array


def only_valid(
    values: ArrayLike,
    valid: NDArray[np.bool_] | None,
    *,
    instead: float = 0.0,
    name: str = "unary",
) -> NDArray[Any]:
    """Values ``(*spatial, K)`` with another number where not valid, so that nobody looks there.

    Values of another shape come back as they are: who checks them says what is wrong.
    """
    array = as_numbers(values, name, expected="real numbers (..., L)")
    if valid is None or array.shape[:-1] != valid.shape or valid.all():
        return array
    return np.where(valid[..., np.newaxis], array, instead)


def random_generator(random_state: Any) -> np.random.Generator:
    """A NumPy generator from what scikit-learn accepts as ``random_state``.

    A RandomState is drawn from; of None the generator is seeded by the operating system.
    """
    if isinstance(random_state, np.random.RandomState):
        return np.random.default_rng(random_state.randint(2**31 - 1))
    return np.random.default_rng(random_state)


def check_proba(proba: NDArray[Any], name: str, *, where: str = "") -> None:
    """Refuse what are no probabilities ``(..., L)``: negative, NaN, or of other sums than one.

    Raises
    ------
    ValueError
        Numbers below 0 (by more than rounding), or sums that are off one by more than 2%.
    """
    with np.errstate(all="ignore"):  # refused below
        sums = proba.sum(axis=-1, dtype=np.float64)
    least = float(proba.min(initial=0))  # NaN where one is
    if not (least >= -1e-6 and float(abs(sums - 1).max(initial=0)) <= SUM_TOLERANCE):
        raise ValueError(
            f"{name} has a least value of {least:g} and sums from {float(sums.min()):g} to "
            f"{float(sums.max()):g} over its last axis{where}; expected probabilities, which sum "
            f"to one."
        )
