"""Roots, the arctangent, the exponential and permutations of lanes for vectors of floats.

A processor has one unit for roots and divisions, which works many cycles on each vector, while
multiply-adds run beside it, two or more vectors in a cycle. So a kernel with several roots at each
pixel is limited by that unit unless some of the roots are computed with multiply-adds, as
`inverse_root` does. The Chan-Vese kernel uses the roots and the arctangent, the random walker the
exponential; multigrid and grid mean field use the permutations. The rules of
`hybridseg.kernels.vectors.simd` hold here as well.
"""

# ruff: noqa: ARG001 (numba fixes the arguments of its hooks)

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.typing.templates import signature
from numba.extending import intrinsic

from hybridseg.kernels.vectors.simd import Vector, _constant, _fma, _llvm

#: By the bits of the type: half of the bits of x, read as an integer, are subtracted from this
#: number to get a first x^(-1/2) within 3.5%. The constants are those of C. Lomont, "Fast inverse
#: square root", technical report, 2003 (32 bits) and of M. Robertson, "A brief history of InvSqrt",
#: University of New Brunswick, 2012 (64 bits).
_MAGIC = {32: 0x5F375A86, 64: 0x5FE6EB50C7B537A9}
#: The coefficients of t^(-1/2) for t from 0.9324 to 1.0692, highest power first: minimax, with
#: errors of 2.5e-5 and 7.5e-7.
_NEAR_ONE = {
    32: (0.3755021730968328, -1.2521002987782897, 1.8765983390860708),
    64: (-0.31305402771176777, 1.3154411307634142, -2.1917206019649575, 2.189332752493948),
}
#: Numerator and denominator of arctan(t) / t as polynomials in t^2 from 0 to 1, highest power
#: first: minimax, with errors of 2.8e-8 and 1.4e-16.
_ABOVE = {
    32: (-0.002883635893209523, 0.08920279915178857, 0.8229943868466691, 0.9999999723435635),
    64: (
        *(0.00252086974959386, 0.07733233544825137, 0.6064823112153174),
        *(1.81910211756247, 2.2765453211003104, 0.9999999999999999),
    ),
}
_BELOW = {
    32: (0.2746885816479968, 1.1563249656645898, 1.0),
    64: (
        *(0.00011257380354588845, 0.012146487034046478, 0.19359901496697002),
        *(1.0570509461052233, 2.4890616690439904, 2.609878654433589, 1.0),
    ),
}


def _of_floats(vector: Any) -> Any:
    """Return the signature of a function of one vector of floats; None for other types."""
    if isinstance(vector, Vector) and vector.dtype in (types.float32, types.float64):
        return signature(vector, vector)
    return None


def _polynomial(builder: Any, kind: Vector, coefficients: tuple[float, ...], x: Any) -> Any:
    """Evaluate a polynomial by Horner's rule; the coefficient of the highest power is first."""
    total = _constant(kind, coefficients[0])
    for coefficient in coefficients[1:]:
        total = _fma(builder, kind, total, x, _constant(kind, coefficient))
    return total


@intrinsic
def square_root(typing: Any, vector: Any) -> Any:
    """Return the square root, correctly rounded, by the instruction of the processor."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        of = ir.FunctionType(_llvm(vector), [_llvm(vector)])
        name = f"llvm.sqrt.v{vector.lanes}f{vector.dtype.bitwidth}"
        return builder.call(cgutils.get_or_insert_function(builder.module, of, name), args)

    of_floats = _of_floats(vector)
    return of_floats and (of_floats, generate)


@intrinsic
def inverse_root(typing: Any, vector: Any) -> Any:
    """Return ``1 / sqrt(x)`` of normal numbers above 0, within 2 units in the last place.

    A shift of the bits halves the exponent, which gives a first guess. One step with a polynomial
    that fits all errors of this guess, and one of Newton's (float32) or Halley's (float64) method
    make it accurate.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _inverse_root(builder, vector, args[0])

    of_floats = _of_floats(vector)
    return of_floats and (of_floats, generate)


def _inverse_root(builder: Any, kind: Vector, x: Any) -> Any:
    bits = kind.dtype.bitwidth
    whole = Vector(types.int32 if bits == 32 else types.int64, kind.lanes)
    half = builder.lshr(builder.bitcast(x, _llvm(whole)), _constant(whole, 1))
    y = builder.bitcast(builder.sub(_constant(whole, _MAGIC[bits]), half), _llvm(kind))
    square = builder.fmul(builder.fmul(x, y), y)
    y = builder.fmul(y, _polynomial(builder, kind, _NEAR_ONE[bits], square))
    excess = _fma(builder, kind, builder.fmul(x, y), y, _constant(kind, -1.0))
    if bits == 32:
        factor = _constant(kind, -0.5)
    else:
        factor = _fma(builder, kind, excess, _constant(kind, 0.375), _constant(kind, -0.5))
    return _fma(builder, kind, builder.fmul(y, excess), factor, y)


#: The coefficients of exp(r) for |r| <= ln(2) / 2, highest power first: the Taylor series, with an
#: error of 2e-16.
_EXPONENTIAL = tuple(1 / math.factorial(k) for k in range(13, -1, -1))
#: ln 2 as a sum of two numbers. The first has few bits, so that its multiples are exact.
_LN2 = (0.693145751953125, 1.42860682030941723212e-06)


@intrinsic
def exponential(typing: Any, vector: Any) -> Any:
    """Return the exponential of float64 numbers, within 3 units in the last place.

    Numbers outside of -700 to 700 are set to these bounds first; NaN stays NaN.
    """
    if vector.dtype != types.float64:
        return None

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _exponential(builder, vector, args[0])

    return signature(vector, vector), generate


def _exponential(builder: Any, kind: Vector, x: Any) -> Any:
    whole = Vector(types.int64, kind.lanes)
    for sign, bound in (("<", -700.0), (">", 700.0)):
        outside = builder.fcmp_ordered(sign, x, _constant(kind, bound))
        x = builder.select(outside, _constant(kind, bound), x)
    # Adding 1.5 * 2**52 rounds to an integer, which then is in the lowest bits of the float.
    magic = _constant(kind, 1.5 * 2.0**52)
    shifted = _fma(builder, kind, x, _constant(kind, 1 / math.log(2)), magic)
    power = builder.fsub(shifted, magic)
    for part in _LN2:
        x = _fma(builder, kind, power, _constant(kind, -part), x)
    total = _polynomial(builder, kind, _EXPONENTIAL, x)
    # The shift moves the integer to the bits of the exponent; the other bits of the sum fall off.
    bits = builder.shl(builder.bitcast(shifted, _llvm(whole)), _constant(whole, 52))
    scaled = builder.add(builder.bitcast(total, _llvm(whole)), bits)
    return builder.bitcast(scaled, _llvm(kind))


@intrinsic
def arctangent_ratio(typing: Any, vector: Any) -> Any:
    """Return ``arctan(t) / t`` for squares t^2 from 0 to 1, within 3 units in the last place."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        bits = vector.dtype.bitwidth
        above = _polynomial(builder, vector, _ABOVE[bits], args[0])
        return builder.fdiv(above, _polynomial(builder, vector, _BELOW[bits], args[0]))

    of_floats = _of_floats(vector)
    return of_floats and (of_floats, generate)


def _shuffle(name: str, description: str, places_of: Any) -> Any:
    """Make an intrinsic that picks lanes of ``a`` followed by ``b``.

    ``places_of`` returns the picked places for a number of lanes.
    """

    def operation(typing: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            places = places_of(a.lanes)
            chosen = ir.Constant(ir.VectorType(ir.IntType(32), a.lanes), list(places))
            return builder.shuffle_vector(*args, chosen)

        return (signature(a, a, a), generate) if isinstance(a, Vector) and a == b else None

    operation.__name__, operation.__doc__ = name, description
    return intrinsic(operation)


evens = _shuffle(
    "evens",
    "Return the numbers at the even places of ``a`` followed by ``b``.",
    lambda lanes: range(0, 2 * lanes, 2),
)
zip_low = _shuffle(
    "zip_low",
    "Return a0, b0, a1, b1, ... of the lower halves.",
    lambda lanes: [i // 2 + lanes * (i % 2) for i in range(lanes)],
)
zip_high = _shuffle(
    "zip_high",
    "Return the same of the upper halves.",
    lambda lanes: [(lanes + i) // 2 + lanes * (i % 2) for i in range(lanes)],
)
after_first = _shuffle(
    "after_first",
    "Return a1, a2, ..., b0: a shift by one lane if ``b`` follows ``a`` in memory.",
    lambda lanes: range(1, lanes + 1),
)
before_last = _shuffle(
    "before_last",
    "Return the last of ``a``, then b0, b1, ...: a shift of ``b`` the other way.",
    lambda lanes: range(lanes - 1, 2 * lanes - 1),
)
