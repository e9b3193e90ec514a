"""The checked build of the kernels: every access is compared with the size of its array.

With ``HYBRIDSEG_CHECK=1`` in the environment (as ``NUMBA_BOUNDSCHECK=1`` asks of numba) a kernel
that reads or writes outside of an array raises an IndexError with the file, the line, the index
and the size, once it has returned. Vectors are checked whole: their first and their last number.
What lies outside is not touched; the kernel goes on with a spare place in memory. An index of one
element is checked as well, and there the kernel returns at once.

Kernels run without the interpreter lock, and several threads share a loop, where an exception
would be lost. So the compiled code calls back, and the call from Python raises what was noted.
Checked code is some times slower and is kept in files of its own; see `_compile`.
"""

from __future__ import annotations

import ctypes
import os
import sys
from types import FrameType
from typing import Any

from llvmlite import binding, ir
from numba import config
from numba.core import cgutils
from numba.core.errors import NumbaTypeError
from numba.core.lowering import BaseLower
from numba.core.registry import CPUDispatcher

#: Whether kernels of this process are compiled with their accesses checked.
CHECKED = os.environ.get("HYBRIDSEG_CHECK", "0") not in ("", "0") and not config.DISABLE_JIT

#: Bytes of the spare place: the longest vector has 64 numbers of 8 bytes.
_SPARE = 512
_SYMBOL = "hybridseg_outside"

#: The first access outside of an array at each line, until the kernel returns.
_found: dict[bytes, str] = {}


@ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
def _note(place: bytes, index: int, lanes: int, size: int) -> None:
    """What compiled code calls; from any thread."""
    if place not in _found:
        numbers = f"element {index}" if lanes == 1 else f"elements {index} to {index + lanes - 1}"
        _found[place] = f"{place.decode()}: {numbers} of an array of {size}"


def raise_found() -> None:
    """Raise an IndexError if a kernel has left an array since the last call."""
    if _found:
        found = list(_found.values())
        _found.clear()
        raise IndexError("a kernel left its array: " + "; ".join(found))


class CheckedDispatcher(CPUDispatcher):
    """A kernel whose call from Python raises what its compiled code has noted."""

    __slots__ = ()

    def __call__(self, *args: Any, **options: Any) -> Any:
        try:
            return super().__call__(*args, **options)
        finally:
            raise_found()


def checked_place(
    context: Any, builder: Any, kind: Any, array: Any, index: Any, place: Any, lanes: int, loc: Any
) -> Any:
    """The ``place`` of element ``index``, or a spare one where ``lanes`` from there leave it."""
    if kind.layout != "C":
        raise NumbaTypeError(f"{_written(loc)}: a vector of an array that is not C-contiguous")
    outside = builder.or_(
        builder.icmp_signed("<", index, index.type(0)),
        builder.icmp_signed(">", index, builder.sub(array.nitems, index.type(lanes))),
    )
    _call_note(context, builder, outside, index, lanes, array.nitems, loc)
    spare = _spare(builder)
    return builder.select(outside, builder.bitcast(spare, place.type), place)


def _call_note(
    context: Any, builder: Any, outside: Any, index: Any, lanes: int, size: Any, loc: Any
) -> None:
    word, text = ir.IntType(64), ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [text, word, word, word])
    note = cgutils.get_or_insert_function(builder.module, kind, _SYMBOL)
    with builder.if_then(outside, likely=False):
        where = context.insert_const_string(builder.module, _written(loc))
        builder.call(note, [where, index, word(lanes), size])


def _written(loc: Any) -> str:
    return "an unknown line" if loc is None else f"{loc.filename}:{loc.line}"


def _spare(builder: Any) -> Any:
    """A place of each module that takes and gives what lies outside."""
    known = builder.module.globals.get("hybridseg_spare")
    if known is None:
        kind = ir.ArrayType(ir.IntType(8), _SPARE)
        known = cgutils.add_global_variable(builder.module, kind, "hybridseg_spare")
        known.linkage, known.align = "internal", 64
        known.initializer = ir.Constant(kind, None)
    return known


def _line_in_work() -> Any:
    """The line that numba is about to turn into code."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        lowering = frame.f_locals.get("self")
        if isinstance(lowering, BaseLower):
            return lowering.loc
        frame = frame.f_back
    return None


def _checked_index(context: Any, builder: Any, ind: Any, dimlen: Any, axis: Any = None) -> None:
    """Numba's check of one index, which also notes where it fails."""
    outside = builder.or_(
        builder.icmp_signed("<", ind, ind.type(0)), builder.icmp_signed(">=", ind, dimlen)
    )
    _call_note(context, builder, outside, ind, 1, dimlen, _line_in_work())
    _numbas_check(context, builder, ind, dimlen, axis)


if CHECKED:
    binding.add_symbol(_SYMBOL, ctypes.cast(_note, ctypes.c_void_p).value)
    _numbas_check, cgutils.do_boundscheck = cgutils.do_boundscheck, _checked_index
