"""The machine code of a kernel, to check that its loops are packed."""

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
    """Compile the kernel again (numba shows no code from its cache) and call it."""
    options = {"nogil": True, "boundscheck": False, "error_model": "numpy"}
    compiled = njit(kernel.py_func, **options)
    compiled(*arguments)
    return "\n".join(compiled.inspect_asm().values())


def products(code):
    """The numbers of packed and scalar float32 products in the loops of machine code."""
    packed = len(re.findall(r"\bv?(?:fmadd\w+ps|mulps)\b", code))
    return packed, len(re.findall(r"\bv?(?:fmadd\w+ss|mulss)\b", code))
