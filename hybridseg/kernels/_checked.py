"""The checked build of the kernels, which compares every array access with the array's size.

It is a debugging tool, like ``NUMBA_BOUNDSCHECK=1`` of numba: set ``HYBRIDSEG_CHECK=1`` in the
environment before the import. A kernel that reads or writes outside of an array then raises an
IndexError with the file, the line, the index and the size after it has returned. `_compile` and
`hybridseg.kernels.vectors.simd` use this module; the usual build contains none of the checks.

* A vector is checked as a whole, from its first to its last element. If it leaves the array, the
  kernel continues with spare memory instead, so nothing outside of the array is touched.
* The index of a single element is checked by numba's own check, which ends the kernel at once.

Kernels run without the interpreter lock, and the threads of a parallel loop would lose an
exception. So the compiled code calls back into Python, where the first bad access of each line is
noted, and `CheckedDispatcher` raises the notes when the kernel returns. Checked code is much slower
and is cached in separate files (see `_compile`).
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

#: The bytes of the spare memory: the longest vector has 64 numbers of 8 bytes.
_SPARE_BYTES = 512
_SYMBOL = "hybridseg_outside"

#: From a place in the source (``file:line``) to the message about its first bad access. It is
#: cleared when the kernel returns.
_found: dict[bytes, str] = {}


@ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
def _note(place: bytes, index: int, lanes: int, size: int) -> None:
    """Note a bad access; compiled code calls this from any thread."""
    if place not in _found:
        numbers = f"element {index}" if lanes == 1 else f"elements {index} to {index + lanes - 1}"
        _found[place] = f"{place.decode()}: {numbers} of an array of {size}"


def raise_found() -> None:
    """Raise an IndexError if a kernel has accessed memory outside of an array since the last call.

    Raises
    ------
    IndexError
        The message names the file, the line, the index and the size of each bad access.
    """
    if _found:
        found = list(_found.values())
        _found.clear()
        raise IndexError("a kernel accessed memory outside of an array: " + "; ".join(found))


class CheckedDispatcher(CPUDispatcher):
    """A kernel that, called from Python, raises the bad accesses that its compiled code noted."""

    __slots__ = ()

    def __call__(self, *args: Any, **options: Any) -> Any:
        try:
            return super().__call__(*args, **options)
        finally:
            raise_found()


def checked_place(
    context: Any, builder: Any, kind: Any, array: Any, index: Any, place: Any, lanes: int, loc: Any
) -> Any:
    """Return ``place``, or spare memory if a vector that begins there leaves the array.

    It writes the check into the code that is being compiled. ``place`` is the address of element
    ``index`` of ``array`` (of numba type ``kind``), ``lanes`` the length of the vector, and ``loc``
    the source line for the message.
    """
    if kind.layout != "C":
        raise NumbaTypeError(
            f"{_file_and_line(loc)}: a vector of an array that is not C-contiguous"
        )
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
    """Write a call of `_note` that runs only if ``outside`` is true."""
    word, text = ir.IntType(64), ir.IntType(8).as_pointer()
    kind = ir.FunctionType(ir.VoidType(), [text, word, word, word])
    note = cgutils.get_or_insert_function(builder.module, kind, _SYMBOL)
    with builder.if_then(outside, likely=False):
        where = context.insert_const_string(builder.module, _file_and_line(loc))
        builder.call(note, [where, index, word(lanes), size])


def _file_and_line(loc: Any) -> str:
    """Return ``file:line``."""
    return "an unknown line" if loc is None else f"{loc.filename}:{loc.line}"


def _spare(builder: Any) -> Any:
    """Return the address of the spare memory; each compiled module has its own."""
    known = builder.module.globals.get("hybridseg_spare")
    if known is None:
        kind = ir.ArrayType(ir.IntType(8), _SPARE_BYTES)
        known = cgutils.add_global_variable(builder.module, kind, "hybridseg_spare")
        known.linkage, known.align = "internal", 64
        known.initializer = ir.Constant(kind, None)
    return known


def _line_being_compiled() -> Any:
    """Return the source line that numba is compiling now.

    Numba's check of an index does not receive the line, so it is read from the local variables of
    the compiler, further up the call stack.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        lowering = frame.f_locals.get("self")
        if isinstance(lowering, BaseLower):
            return lowering.loc
        frame = frame.f_back
    return None


def _checked_index(context: Any, builder: Any, ind: Any, dimlen: Any, axis: Any = None) -> None:
    """Write numba's check of one index, and a note of where it fails."""
    outside = builder.or_(
        builder.icmp_signed("<", ind, ind.type(0)), builder.icmp_signed(">=", ind, dimlen)
    )
    _call_note(context, builder, outside, ind, 1, dimlen, _line_being_compiled())
    _numbas_check(context, builder, ind, dimlen, axis)


if CHECKED:
    binding.add_symbol(_SYMBOL, ctypes.cast(_note, ctypes.c_void_p).value)
    _numbas_check, cgutils.do_boundscheck = cgutils.do_boundscheck, _checked_index
