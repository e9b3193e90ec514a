"""Explicit SIMD vectors for inner loops that numba's compiler would leave scalar.

A `Vector` is a value in a register: ``lanes`` numbers of one NumPy type, read from a C-contiguous
array with `load` and written with `store`. Vectors are added, subtracted and multiplied with the
usual operators, compared with `less` and chosen with `select`. They become vectors of LLVM, which
every processor can run: if its registers are shorter, one operation becomes several.

An array index counts elements from the start of the array, whatever its shape. Only the checked
build checks it (see `hybridseg.kernels._checked`). `hybridseg.kernels.vectors.padding` says how
much padding rows need. ``lanes`` must be a constant, preferably of the module. Both operands of an
operation have the same type: make a vector of a scalar with `fill`.

These functions exist inside compiled kernels only. Every kernel that uses them has a plain version
with the same results up to rounding. It runs if `ENABLED` is false: with ``HYBRIDSEG_SIMD=0`` in
the environment, or with numba's compiler switched off.
"""

from __future__ import annotations

import inspect
import operator
import os
from typing import Any

import numpy as np
from llvmlite import ir
from numba import config, types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model
from numpy.typing import NDArray

from hybridseg.kernels._checked import CHECKED, checked_place

#: Whether kernels may use vectors in this process.
ENABLED = os.environ.get("HYBRIDSEG_SIMD", "1") != "0" and not config.DISABLE_JIT

#: The bytes of a cache line; `aligned` arrays begin at a multiple of it.
LINE = 64

# Whether this version of llvmlite takes the type that it loads as an argument.
_LOAD_TAKES_TYPE = "typ" in inspect.signature(ir.IRBuilder.load).parameters


def aligned(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return an array of zeros that begins at a cache line; to be called from Python only."""
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    room = np.zeros(size + LINE, np.uint8)
    start = -room.ctypes.data % LINE
    return room[start : start + size].view(dtype).reshape(shape)


class Vector(types.Type):
    """The numba type of a vector: ``lanes`` numbers of a NumPy scalar type, or truth values."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        self.dtype = dtype
        self.lanes = lanes
        super().__init__(name=f"Vector({dtype}, {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, _llvm(kind))


def _element(dtype: Any) -> Any:
    if dtype == types.boolean:
        return ir.IntType(1)
    if dtype == types.float32:
        return ir.FloatType()
    if dtype == types.float64:
        return ir.DoubleType()
    return ir.IntType(dtype.bitwidth)


def _llvm(kind: Vector) -> Any:
    return ir.VectorType(_element(kind.dtype), kind.lanes)


def _constant(kind: Vector, value: float) -> Any:
    return ir.Constant(_llvm(kind), [value] * kind.lanes)


def _is_float(kind: Vector) -> bool:
    return isinstance(kind.dtype, types.Float)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any, *checked: Any) -> Any:
    """Return the address of an element; all vector accesses use it, so it has the check.

    ``checked`` holds the number of lanes and the source line, for the checked build.
    """
    view = context.make_array(kind)(context, builder, array)
    place = builder.gep(view.data, [index], inbounds=True)
    return checked_place(context, builder, kind, view, index, place, *checked) if CHECKED else place


# -- memory ---------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def load(typing: Any, array: Any, index: Any, lanes: Any) -> Any:
    """Return ``lanes`` consecutive numbers of ``array``, from element ``index`` on."""
    kind = Vector(array.dtype, lanes.literal_value)

    def generate(context: Any, builder: Any, sig: Any, args: Any, loc: Any) -> Any:
        place = _pointer(context, builder, sig.args[0], args[0], args[1], kind.lanes, loc)
        return _read(context, builder, kind, place)

    return signature(kind, array, types.intp, lanes), generate


def _read(context: Any, builder: Any, kind: Vector, place: Any) -> Any:
    vector, width = _llvm(kind), kind.dtype.bitwidth // 8
    place = builder.bitcast(place, vector.as_pointer())
    typed = {"typ": vector} if _LOAD_TAKES_TYPE else {}
    return builder.load(place, align=width, **typed)


@intrinsic
def store(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """Write a vector to ``array`` from element ``index`` on."""

    def generate(context: Any, builder: Any, sig: Any, args: Any, loc: Any) -> Any:
        place = _pointer(context, builder, sig.args[0], args[0], args[1], vector.lanes, loc)
        place = builder.bitcast(place, _llvm(vector).as_pointer())
        builder.store(args[2], place, align=vector.dtype.bitwidth // 8)
        return context.get_dummy_value()

    if array.dtype != vector.dtype:
        return None
    return signature(types.none, array, types.intp, vector), generate


@intrinsic
def gather(typing: Any, array: Any, indices: Any) -> Any:
    """Return the elements of ``array`` whose indices are in a vector of integers."""
    kind = Vector(array.dtype, indices.lanes)

    def generate(context: Any, builder: Any, sig: Any, args: Any, loc: Any) -> Any:
        found = ir.Constant(_llvm(kind), ir.Undefined)
        for lane in range(kind.lanes):
            number = ir.Constant(ir.IntType(32), lane)
            index = builder.extract_element(args[1], number)
            index = context.cast(builder, index, indices.dtype, types.intp)
            place = _pointer(context, builder, sig.args[0], args[0], index, 1, loc)
            typed = {"typ": _element(kind.dtype)} if _LOAD_TAKES_TYPE else {}
            found = builder.insert_element(found, builder.load(place, **typed), number)
        return found

    return signature(kind, array, indices), generate


@intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Fetch the cache line of element ``index`` of ``array`` before it is used."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        byte = ir.IntType(8).as_pointer()
        data = context.make_array(sig.args[0])(context, builder, args[0]).data
        place = builder.gep(data, [args[1]], inbounds=True)  # no check: nothing is read
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        wanted = [ir.Constant(number, value) for value in (0, 3, 1)]
        builder.call(call, [builder.bitcast(place, byte), *wanted])
        return context.get_dummy_value()

    return signature(types.none, array, types.intp), generate


# -- making vectors -------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def fill(typing: Any, value: Any, lanes: Any) -> Any:
    """Return a vector with ``value``, a NumPy scalar, in each of ``lanes`` lanes."""
    value = types.unliteral(value)
    kind = Vector(value, lanes.literal_value)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = _llvm(kind)
        first = ir.Constant(ir.IntType(32), 0)
        lone = builder.insert_element(ir.Constant(vector, ir.Undefined), args[0], first)
        places = ir.Constant(ir.VectorType(ir.IntType(32), kind.lanes), [0] * kind.lanes)
        return builder.shuffle_vector(lone, ir.Constant(vector, ir.Undefined), places)

    return signature(kind, value, lanes), generate


@intrinsic(prefer_literal=True)
def count_up(typing: Any, start: Any, lanes: Any) -> Any:
    """Return the vector start, start + 1, ... of the integer type of ``start``."""
    start = types.unliteral(start)
    kind = Vector(start, lanes.literal_value)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        vector = ir.Constant(_llvm(kind), list(range(kind.lanes)))
        for lane in range(kind.lanes):
            number = ir.Constant(ir.IntType(32), lane)
            element = builder.add(args[0], builder.extract_element(vector, number))
            vector = builder.insert_element(vector, element, number)
        return vector

    return signature(kind, start, lanes), generate


@intrinsic
def convert(typing: Any, vector: Any, dtype: Any) -> Any:
    """Return the numbers in another type, such as ``np.float32``; floats round towards zero."""
    kind = Vector(dtype.dtype, vector.lanes)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _converted(builder, vector, kind, args[0])

    return signature(kind, vector, dtype), generate


def _converted(builder: Any, old: Vector, new: Vector, value: Any) -> Any:
    target = _llvm(new)
    if _is_float(old) and _is_float(new):
        grows = new.dtype.bitwidth > old.dtype.bitwidth
        return (builder.fpext if grows else builder.fptrunc)(value, target)
    if _is_float(old):
        return (builder.fptosi if new.dtype.signed else builder.fptoui)(value, target)
    signed = old.dtype != types.boolean and old.dtype.signed
    if _is_float(new):
        return (builder.sitofp if signed else builder.uitofp)(value, target)
    if target.element.width > _llvm(old).element.width:
        return (builder.sext if signed else builder.zext)(value, target)
    return builder.trunc(value, target)


@intrinsic
def reinterpret(typing: Any, vector: Any, dtype: Any) -> Any:
    """Return the same bits as numbers of another type of the same width."""
    kind = Vector(dtype.dtype, vector.lanes)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], _llvm(kind))

    return signature(kind, vector, dtype), generate


# -- arithmetic, lane by lane ---------------------------------------------------------------------


def _define_operator(sign: Any, of_floats: str, of_integers: str) -> None:
    """Define an operator of vectors by its LLVM instructions; "" if floats do not have it."""

    @infer_global(sign)
    class _Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                if not of_floats and _is_float(args[0]):
                    return None
                return signature(args[0], args[0], args[0])
            return None

    @lower_builtin(sign, Vector, Vector)
    def _generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        name = of_floats if _is_float(sig.args[0]) else of_integers
        return getattr(builder, name)(*args)


_define_operator(operator.add, "fadd", "add")
_define_operator(operator.sub, "fsub", "sub")
_define_operator(operator.mul, "fmul", "mul")
_define_operator(operator.and_, "", "and_")
_define_operator(operator.or_, "", "or_")
_define_operator(operator.xor, "", "xor")
_define_operator(operator.lshift, "", "shl")


@infer_global(operator.truediv)
class _Quotient(AbstractTemplate):
    def generic(self, args: Any, kws: Any) -> Any:
        if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
            return signature(args[0], args[0], args[0]) if _is_float(args[0]) else None
        return None


@lower_builtin(operator.truediv, Vector, Vector)
def _divide(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    return builder.fdiv(*args)


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c`` of floats, rounded once."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _fma(builder, sig.return_type, *args)

    return signature(a, a, a, a), generate


def _fma(builder: Any, kind: Vector, a: Any, b: Any, c: Any) -> Any:
    vector = _llvm(kind)
    name = f"llvm.fma.v{kind.lanes}f{kind.dtype.bitwidth}"
    of = ir.FunctionType(vector, [vector] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, of, name), [a, b, c])


def _compare(builder: Any, kind: Vector, sign: str, a: Any, b: Any) -> Any:
    if _is_float(kind):
        return builder.fcmp_ordered(sign, a, b)
    if kind.dtype == types.boolean or kind.dtype.signed is False:
        return builder.icmp_unsigned(sign, a, b)
    return builder.icmp_signed(sign, a, b)


@intrinsic
def less(typing: Any, a: Any, b: Any) -> Any:
    """Return where ``a < b``, as a vector of truth values; false where one is NaN."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _compare(builder, a, "<", *args)

    return signature(Vector(types.boolean, a.lanes), a, a), generate


@intrinsic
def equal(typing: Any, a: Any, b: Any) -> Any:
    """Return where ``a == b``, as a vector of truth values."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _compare(builder, a, "==", *args)

    return signature(Vector(types.boolean, a.lanes), a, a), generate


@intrinsic
def select(typing: Any, where: Any, a: Any, b: Any) -> Any:
    """Return ``a`` where ``where`` is true, ``b`` elsewhere."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(*args)

    return signature(a, where, a, a), generate


@intrinsic
def minimum(typing: Any, a: Any, b: Any) -> Any:
    """Return the smaller number of each lane; ``b`` where one is NaN."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(_compare(builder, a, "<", *args), *args)

    return signature(a, a, a), generate


@intrinsic
def maximum(typing: Any, a: Any, b: Any) -> Any:
    """Return the larger number of each lane; ``b`` where one is NaN."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(_compare(builder, a, ">", *args), *args)

    return signature(a, a, a), generate


@intrinsic
def shift_right(typing: Any, vector: Any, by: Any) -> Any:
    """Return integers shifted right; signed ones keep their sign."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return (builder.ashr if vector.dtype.signed else builder.lshr)(*args)

    return signature(vector, vector, by), generate


@intrinsic
def floor(typing: Any, vector: Any) -> Any:
    """Return the largest integer that is not above each number, as a float."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        of = ir.FunctionType(_llvm(vector), [_llvm(vector)])
        name = f"llvm.floor.v{vector.lanes}f{vector.dtype.bitwidth}"
        return builder.call(cgutils.get_or_insert_function(builder.module, of, name), args)

    return signature(vector, vector), generate


#: The coefficients of exp(r) for |r| <= ln(2) / 2 from r^7 down to r^2; 1 + r is added separately.
#: The polynomial is near-minimax, with a relative error of 2e-8.
_EXP_COEFFICIENTS = (
    *(1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3),
    *(4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1),
)


@intrinsic
def exp(typing: Any, vector: Any) -> Any:
    """Return the exponential of float32 numbers, within 2 units in the last place.

    Below -87.3 the result is 0, above 88.3 it is that of 88.3; NaN stays NaN. The argument is split
    into a multiple of ln 2, which becomes the exponent, and a remainder within ln(2) / 2 (W. J.
    Cody, W. Waite, "Software manual for the elementary functions", Prentice-Hall, 1980).
    """
    if vector.dtype != types.float32:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _exp(builder, vector, args[0])

    return signature(vector, vector), generate


def _exp(builder: Any, kind: Vector, x: Any) -> Any:
    whole = Vector(types.int32, kind.lanes)

    def number(value: float) -> Any:
        return _constant(kind, float(np.float32(value)))

    tiny = builder.fcmp_ordered("<", x, number(-87.3))
    x = builder.select(tiny, number(-87.3), x)
    x = builder.select(builder.fcmp_ordered(">", x, number(88.3)), number(88.3), x)
    # Adding 1.5 * 2**23 rounds to an integer, which then is in the lowest bits of the float.
    magic = 12582912.0
    shifted = _fma(builder, kind, x, number(1.4426950408889634), number(magic))
    power = builder.fsub(shifted, number(magic))
    rest = _fma(builder, kind, power, number(-0.693359375), x)
    rest = _fma(builder, kind, power, number(2.12194440e-4), rest)
    total = number(_EXP_COEFFICIENTS[0])
    for coefficient in _EXP_COEFFICIENTS[1:]:
        total = _fma(builder, kind, total, rest, number(coefficient))
    total = _fma(builder, kind, total, builder.fmul(rest, rest), builder.fadd(rest, number(1.0)))
    # The shift moves the integer to the bits of the exponent; the other bits of the sum fall off.
    bits = builder.shl(builder.bitcast(shifted, _llvm(whole)), _constant(whole, 23))
    scaled = builder.add(builder.bitcast(total, _llvm(whole)), bits)
    return builder.select(tiny, number(0.0), builder.bitcast(scaled, _llvm(kind)))


# -- across lanes ---------------------------------------------------------------------------------


def _halves(builder: Any, kind: Vector, value: Any, join: Any) -> Any:
    """Reduce a vector to one number: join its upper half to its lower half, again and again."""
    lanes = kind.lanes
    while lanes > 1:
        lanes //= 2
        places = [*range(lanes, 2 * lanes), *[0] * (kind.lanes - lanes)]
        mask = ir.Constant(ir.VectorType(ir.IntType(32), kind.lanes), places)
        upper = builder.shuffle_vector(value, ir.Constant(_llvm(kind), ir.Undefined), mask)
        value = join(value, upper)
    return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))


@intrinsic
def total(typing: Any, vector: Any) -> Any:
    """Return the sum of a vector, added in halves; the number of lanes is a power of two."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        join = builder.fadd if _is_float(vector) else builder.add
        return _halves(builder, vector, args[0], join)

    return signature(vector.dtype, vector), generate


@intrinsic
def greatest(typing: Any, vector: Any) -> Any:
    """Return the largest number of a vector; the number of lanes is a power of two."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def join(a: Any, b: Any) -> Any:
            return builder.select(_compare(builder, vector, ">", a, b), a, b)

        return _halves(builder, vector, args[0], join)

    return signature(vector.dtype, vector), generate


@intrinsic
def any_true(typing: Any, where: Any) -> Any:
    """Return whether a vector of truth values is true in any lane."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], ir.IntType(where.lanes))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(where.lanes), 0))

    return signature(types.boolean, where), generate
