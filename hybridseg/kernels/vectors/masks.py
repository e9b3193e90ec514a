"""Vectors of truth values as the bits of a 64-bit word, and the lowest set bit of a word.

Lane 0 is the lowest bit. Superpixel and contour kernels pack the results of comparisons into words
and go through the set bits; the cuts keep the open arcs of a grid node in such a word.
"""

# ruff: noqa: ARG001 (numba fixes the arguments of its hooks)

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from hybridseg.kernels.vectors.instruction import instruction
from hybridseg.kernels.vectors.simd import Vector


@intrinsic
def bits(typing: Any, where: Any) -> Any:
    """Return the truth values of at most 64 lanes as a uint64, lane 0 as the lowest bit."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        packed = builder.bitcast(args[0], ir.IntType(where.lanes))
        return packed if where.lanes == 64 else builder.zext(packed, ir.IntType(64))

    return signature(types.uint64, where), generate


@intrinsic(prefer_literal=True)
def truths(typing: Any, word: Any, lanes: Any) -> Any:
    """Return the lowest bits of a uint64 as a vector of ``lanes`` truth values, at most 64."""
    kind = Vector(types.boolean, lanes.literal_value)

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        low = args[0]
        if kind.lanes < 64:
            low = builder.trunc(low, ir.IntType(kind.lanes))
        return builder.bitcast(low, ir.VectorType(ir.IntType(1), kind.lanes))

    return signature(kind, types.uint64, lanes), generate


def _lowest(word: Any) -> Any:
    """Return the result of `lowest` without compilation."""
    return np.uint64((int(word) & -int(word)).bit_length() - 1)


@instruction(_lowest)
def lowest(typing: Any, word: Any) -> Any:
    """Return the number of the lowest set bit of a uint64, as a uint64; undefined for 0."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return signature(types.uint64, types.uint64), generate
