"""Invalid values and unusual forms of values, to replace valid arguments."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

Make = Callable[[Any, np.random.Generator], Any]


class Broken:
    """An object that fails when it is read as an array."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        raise RuntimeError("no array of mine")


def _with(value: float, dtype: Any = np.float64) -> Make:
    """One entry of the array becomes ``value``."""

    def make(good: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        array = good.astype(dtype)
        if array.size:
            array.flat[rng.integers(array.size)] = value
        return array

    return make


def _full(value: Any, dtype: Any = np.float64) -> Make:
    return lambda good, _: np.full(good.shape, value, dtype)


def _read_only(good: np.ndarray) -> np.ndarray:
    array = good.copy()
    array.setflags(write=False)
    return array


def _strided(good: np.ndarray) -> np.ndarray:
    """The same values, none next to the other in memory."""
    wide = np.zeros([2 * n for n in good.shape], good.dtype)
    view = wide[(slice(None, None, 2),) * good.ndim]
    view[...] = good
    return view


def _unaligned(good: np.ndarray) -> np.ndarray:
    raw = np.empty(good.nbytes + 1, np.uint8)[1:]
    view = raw.view(good.dtype).reshape(good.shape) if good.size else good.copy()
    view[...] = good
    return view


#: The same values in another form: the result must be the same.
SAME: dict[str, Callable[[np.ndarray], Any]] = {
    "read-only": _read_only,
    "strided": _strided,
    "unaligned": _unaligned,
    "Fortran order": np.asfortranarray,
    "reversed twice": lambda a: np.ascontiguousarray(a[::-1])[::-1],
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "subclass": lambda a: np.ma.MaskedArray(a, mask=False),
}

ARRAYS: dict[str, Make] = {
    "one NaN": _with(np.nan),
    "one infinity": _with(np.inf),
    "one -infinity": _with(-np.inf, np.float32),
    "one 1e39": _with(1e39),
    "one -1e39": _with(-1e39),
    "one 1e308": _with(1e308),
    "one 3e38": _with(3e38, np.float32),
    "one subnormal": _with(1e-310),
    "longdouble beyond float64": _with(np.longdouble("1e4000"), np.longdouble),
    "longdouble": lambda a, _: a.astype(np.longdouble),
    "one 2**63 - 1": _with(2**63 - 1, np.int64),
    "one -2**63": _with(-(2**63), np.int64),
    "one 2**64 - 1": _with(2**64 - 1, np.uint64),
    "one 10**9": _with(10**9, np.int64),
    "one -1": _with(-1, np.int64),
    "all NaN": _full(np.nan),
    "all 1e308": _full(1e308),
    "all -1e308": _full(-1e308),
    "all 3e38": _full(3e38, np.float32),
    "all 1e-310": _full(1e-310),
    "all 2**62": _full(2**62, np.int64),
    "all 0": lambda a, _: np.zeros_like(a),
    "all 1": lambda a, _: np.ones_like(a),
    "all -1": _full(-1, np.int64),
    "float16": lambda a, _: a.astype(np.float16),
    "float64": lambda a, _: a.astype(np.float64),
    "uint8": lambda a, _: a.astype(np.uint8),
    "int8": lambda a, _: a.astype(np.int8),
    "bool": lambda a, _: a.astype(bool),
    "complex": lambda a, _: a.astype(complex),
    "objects": lambda a, _: a.astype(object),
    "objects with None": lambda a, _: np.array([None, *a.ravel()[1:]], object).reshape(a.shape),
    "strings": lambda a, _: a.astype(str),
    "bytes": lambda a, _: a.astype("S4"),
    "dates": lambda a, _: np.zeros(a.shape, "M8[s]"),
    "structured": lambda a, _: np.zeros(a.shape, [("r", "u1"), ("g", "f4")]),
    "no entries": lambda a, _: a[:0],
    "no columns": lambda a, _: a[..., :0],
    "0-d": lambda a, _: np.array(a.flat[0]) if a.size else np.array(0),
    "one axis less": lambda a, _: a[0],
    "one axis more": lambda a, _: a[np.newaxis],
    "a last axis more": lambda a, _: a[..., np.newaxis],
    "turned": lambda a, _: a.T,
    "one row less": lambda a, _: a[1:],
    "one entry": lambda a, _: a[(slice(0, 1),) * a.ndim],
    "flat": lambda a, _: a.ravel(),
    "eight axes": lambda a, _: a.reshape((1,) * (8 - a.ndim) + a.shape),
    "a view of one value": lambda a, _: np.broadcast_to(a[:1], a.shape),
    "masked": lambda a, rng: np.ma.MaskedArray(a, mask=rng.random(a.shape) < 0.5),
    "noise": lambda a, rng: rng.normal(0, 100, a.shape),
    "integers at random": lambda a, rng: rng.integers(-5, 300, a.shape),
}

#: What stands where anything was expected.
OTHERS: dict[str, Make] = {
    "None": lambda *_: None,
    "a number": lambda *_: 3,
    "a text": lambda *_: "x",
    "an empty text": lambda *_: "",
    "bytes ": lambda *_: b"ab",
    "an empty list": lambda *_: [],
    "an empty dict": lambda *_: {},
    "a dict": lambda *_: {"a": 1},
    "a set": lambda *_: {1, 2},
    "a ragged list": lambda *_: [[1, 2], [3]],
    "a list of None": lambda *_: [None, None],
    "a generator": lambda *_: (i for i in range(3)),
    "a function": lambda *_: len,
    "a class": lambda *_: dict,
    "an unreadable object": lambda *_: Broken(),
    "NaN": lambda *_: float("nan"),
}

NUMBERS: dict[str, Make] = {
    repr(value): (lambda *_, value=value: value)  # type: ignore[misc]
    for value in (
        *(float("nan"), float("inf"), -float("inf"), -1, 0, -0.0, 1, 2.5, 1e-300, 1e-45, 1e-30),
        *(1e30, 1e39, 1e308, 10**40, 10**400, 2**31, 2**63, -(2**63), True, False, "1", "x", None),
        *(1 + 2j, Fraction(1, 2), Decimal("0.5"), [1], (1, 2), {}, b"1", np.float32(0.5)),
        *(np.float16(2), np.int64(2), np.uint8(1), np.bool_(True), np.array(1.0), np.array([1])),
        *(np.longdouble("1e4000"), np.float32(np.inf), np.nan, np.datetime64(1, "s")),
    )
}

#: Integers that ask for work without end are no nonsense; these bounds are not tried.
ENDLESS = {repr(value) for value in (2**31, 1e30, 2**62)}

TEXTS: dict[str, Make] = {
    repr(value): (lambda *_, value=value: value)  # type: ignore[misc]
    for value in (
        "",
        "x",
        "POTTS",
        None,
        3,
        True,
        b"dtype",
        ["a"],
        {},
        np.str_("q"),
        object,
        "é" * 9,
    )
}

TUPLES: dict[str, Make] = {
    repr(value): (lambda *_, value=value: value)  # type: ignore[misc]
    for value in (
        *((), (1,), (1, 2, 3, 4), (0, 1), (1, 0), (-1, 1), (float("nan"), 1), (float("inf"), 1)),
        *((1e-300, 1), (1e300, 1e300), (1e-300, 1e-300), (1e20, 1), ("a", "b"), ("1", "2")),
        *((None, None), (1, (2, 3)), (True, False), (1 + 1j, 2), 1e-300, 1e300, 0, -1, "ab", "x"),
        *({}, {"a": 1}, [1, 1], np.array([1.0, 2.0]), np.array([[1, 2]]), (10**400, 1), (1e39, 1)),
        *((1, 1e39), (np.longdouble("1e4000"), 1), (Fraction(1, 2), 1), (Decimal(1), 1), 3, (2, 1)),
    )
}


def choices(good: Any) -> dict[str, Make]:
    """Return the values that may replace a valid argument."""
    if isinstance(good, np.ndarray):
        return ARRAYS | OTHERS
    if isinstance(good, bool | np.bool_):
        return TEXTS | NUMBERS
    if isinstance(good, int | float | np.number):
        return NUMBERS | {"an array": lambda *_: np.ones((3, 3))}
    if isinstance(good, str):
        return TEXTS | OTHERS
    if isinstance(good, tuple):
        return TUPLES | OTHERS
    if isinstance(good, list):
        return _inside(good) | OTHERS
    return OTHERS | NUMBERS | TUPLES


def _inside(good: list[Any]) -> dict[str, Make]:
    """A list whose first item is replaced, or which is too short, too long or nested."""
    if not good:
        return {}
    changed: dict[str, Make] = {
        "one item less": lambda a, _: a[1:],
        "one item more": lambda a, _: [*a, a[0]],
        "nested": lambda a, _: [a],
        "the first item alone": lambda a, _: a[0],
        "an array of the items": lambda a, _: np.array(a[:1]),
    }
    for name, make in choices(good[0]).items():
        changed[f"first: {name}"] = lambda a, rng, make=make: [make(a[0], rng), *a[1:]]  # type: ignore[misc]
    return changed
