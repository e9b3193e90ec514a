"""Products with the Laplacian of a grid for a vector of eight pixels, unrolled over the neighbors.

These are numba intrinsics: functions that write LLVM code, for `random_walker`, `deflated_cg` and
`multigrid`. A loop over neighbors that is not unrolled computes addresses in each turn. So the
number of neighbors is part of the type: the steps to them are a tuple, not an array.

Arrays are laid out as in `random_walker`. They may be float32 or float64; a vector of float32 is
widened when it is read. Vectors may be read at any place, and the caller makes sure that all
neighbors lie in the array.
"""

# ruff: noqa: ARG001 (numba fixes the arguments of its hooks)

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from hybridseg.kernels.vectors.instruction import instruction
from hybridseg.kernels.vectors.simd import Vector, _fma, _llvm, _pointer, _read

#: Pixels in a vector.
LANES = 8


def _steps_at(array: Any, start: Any, alike: Any) -> Any:
    """Do what `steps_at` does where nothing is compiled."""
    return tuple(array[start : start + len(alike)].tolist())


@instruction(_steps_at)
def steps_at(typing: Any, array: Any, start: Any, alike: Any) -> Any:
    """Return numbers of ``array`` (int64), from element ``start`` on, as a tuple like ``alike``."""

    def generate(context: Any, builder: Any, sig: Any, args: Any, loc: Any) -> Any:
        found = []
        for k in range(sig.return_type.count):
            index = builder.add(args[1], context.get_constant(types.intp, k))
            place = _pointer(context, builder, sig.args[0], args[0], index, 1, loc)
            found.append(builder.load(place))
        return context.make_tuple(builder, sig.return_type, found)

    return signature(alike, array, types.intp, alike), generate


@intrinsic
def doubles(typing: Any, array: Any, i: Any) -> Any:
    """Return eight numbers of ``array``, float32 or float64, from element ``i`` on, as float64."""
    kind = Vector(types.float64, LANES)

    def generate(context: Any, builder: Any, sig: Any, args: Any, loc: Any) -> Any:
        place = _pointer(context, builder, sig.args[0], args[0], args[1], LANES, loc)
        found = _read(context, builder, Vector(array.dtype, LANES), place)
        return found if array.dtype == types.float64 else builder.fpext(found, _llvm(kind))

    return signature(kind, array, types.intp), generate


@intrinsic
def store_narrow(typing: Any, array: Any, i: Any, vector: Any) -> Any:
    """Write a vector of float64 to ``array``, float32 or float64, from element ``i`` on."""

    def generate(context: Any, builder: Any, sig: Any, args: Any, loc: Any) -> Any:
        kind, value = _llvm(Vector(array.dtype, LANES)), args[2]
        if array.dtype != types.float64:
            value = builder.fptrunc(value, kind)
        place = _pointer(context, builder, sig.args[0], args[0], args[1], LANES, loc)
        place = builder.bitcast(place, kind.as_pointer())
        builder.store(value, place, align=array.dtype.bitwidth // 8)
        return context.get_dummy_value()

    return signature(types.none, array, types.intp, vector), generate


@intrinsic
def laplacian(typing: Any, links: Any, steps: Any, ground: Any, x: Any, i: Any) -> Any:
    """Return ``ground_i x_i + sum_j links_ij (x_i - x_j)`` for pixel ``i`` and the following seven.

    ``links`` is (m, n), ``steps`` a tuple of m. Links and ground may have fewer bits than ``x``,
    whose type the result has.
    """
    kind = Vector(x.dtype, LANES)

    def generate(context: Any, builder: Any, sig: Any, args: Any, loc: Any) -> Any:
        def load(which: int, index: Any) -> Any:
            array, value = sig.args[which], args[which]
            place = _pointer(context, builder, array, value, index, LANES, loc)
            found = _read(context, builder, Vector(array.dtype, LANES), place)
            return found if array.dtype == x.dtype else builder.fpext(found, _llvm(kind))

        shape = context.make_array(sig.args[0])(context, builder, args[0]).shape
        n = cgutils.unpack_tuple(builder, shape)[1]
        at = args[4]
        here = load(3, at)
        total = builder.fmul(load(2, at), here)
        for o, step in enumerate(cgutils.unpack_tuple(builder, args[1])):
            row = builder.add(at, builder.mul(n, ir.Constant(n.type, o)))
            ahead = builder.fsub(here, load(3, builder.add(at, step)))
            behind = builder.fsub(here, load(3, builder.sub(at, step)))
            fro = load(0, builder.sub(row, step))
            total = _fma(builder, kind, fro, behind, total)
            total = _fma(builder, kind, load(0, row), ahead, total)
        return total

    return signature(kind, links, steps, ground, x, types.intp), generate
