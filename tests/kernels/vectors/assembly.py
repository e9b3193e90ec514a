"""The machine code of a kernel, to see that its loops are packed."""

import platform
import re

import pytest
from numba import njit

from hybridseg.kernels.vectors import simd as simd

on_x86 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not simd.ENABLED,
    reason="reads x86 assembly of explicit vectors",
)


def assembly_of(kernel, *arguments):
    """Compile the kernel anew (numba does not show what it took from its cache) and call it."""
    options = {"nogil": True, "boundscheck": False, "error_model": "numpy"}
    compiled = njit(kernel.py_func, **options)
    compiled(*arguments)
    return "\n".join(compiled.inspect_asm().values())


def products(code):
    """Packed and scalar products of float32 numbers in the loops of some machine code."""
    packed = len(re.findall(r"\bv?(?:fmadd\w+ps|mulps)\b", code))
    return packed, len(re.findall(r"\bv?(?:fmadd\w+ss|mulss)\b", code))
