"""Vectors of pairs of int16, each pair in one int32 lane, and other operations on integers.

The sum of products of two pairs is the fastest integer arithmetic of x86 processors: one
instruction (``pmaddwd``) multiplies and adds the two products. SLIC computes its distances with it
and counts pixels with `population`. The rules of `hybridseg.kernels.vectors.simd` hold here as
well.
"""

# ruff: noqa: ARG001 (numba fixes the arguments of its hooks)

from __future__ import annotations

import platform
from typing import Any

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from hybridseg.kernels.vectors.simd import Vector, _pointer, _read

#: Whether to ask for the AVX2 instruction by name. LLVM does not recognize it in the general form,
#: which is used on other processors and if numba compiles for a processor other than this one.
_HAS_AVX2 = (
    platform.machine() in ("x86_64", "AMD64")
    and config.CPU_NAME is None
    and config.CPU_FEATURES is None
    and bool(binding.get_host_cpu_features().get("avx2"))
)


@intrinsic
def dot_pairs(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a_low * b_low + a_high * b_high + c``; int32 lanes of a and b are int16 pairs."""
    if not (isinstance(a, Vector) and a == b == c and a.dtype == types.int32):
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        halves = ir.VectorType(ir.IntType(16), 2 * a.lanes)
        wide = ir.VectorType(ir.IntType(32), a.lanes)
        x, y = (builder.bitcast(v, halves) for v in args[:2])
        if _HAS_AVX2 and a.lanes == 8:
            kind = ir.FunctionType(wide, [halves, halves])
            name = "llvm.x86.avx2.pmadd.wd"
            product = cgutils.get_or_insert_function(builder.module, kind, name)
            return builder.add(args[2], builder.call(product, [x, y]))
        # The general form: the lower halves of all lanes, then the upper ones.
        total = args[2]
        for first in (0, 1):
            places = [2 * lane + first for lane in range(a.lanes)]
            factors = (builder.sext(_chosen(builder, v, places), wide) for v in (x, y))
            total = builder.add(total, builder.mul(*factors))
        return total

    return signature(a, a, a, a), generate


def _chosen(builder: Any, vector: Any, places: list[int]) -> Any:
    """Return the lanes ``places`` of a vector as a vector."""
    mask = ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places)
    return builder.shuffle_vector(vector, ir.Constant(vector.type, ir.Undefined), mask)


@intrinsic(prefer_literal=True)
def load_every_second(typing: Any, array: Any, index: Any, lanes: Any) -> Any:
    """Return two vectors: elements ``index``, ``index + 2``, ... and ``index + 1``, ..."""
    kind = Vector(array.dtype, lanes.literal_value)
    whole = Vector(array.dtype, 2 * lanes.literal_value)

    def generate(context: Any, builder: Any, sig: Any, args: Any, loc: Any) -> Any:
        place = _pointer(context, builder, sig.args[0], args[0], args[1], whole.lanes, loc)
        both = _read(context, builder, whole, place)
        parts = [_chosen(builder, both, list(range(i, 2 * kind.lanes, 2))) for i in (0, 1)]
        return context.make_tuple(builder, sig.return_type, parts)

    return signature(types.UniTuple(kind, 2), array, types.intp, lanes), generate


@intrinsic
def population(typing: Any, word: Any) -> Any:
    """Return the number of set bits of a uint64."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return signature(types.uint64, types.uint64), generate
