"""Processor instructions that numba does not offer, with Python functions that replace them.

`hybridseg.kernels.vectors.masks`, `hybridseg.kernels.cuts.grid_lines` and other kernels declare
such instructions with `instruction`. In compiled code each becomes one or a few instructions of
the processor; under ``NUMBA_DISABLE_JIT`` a plain function with the same result takes its place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import config
from numba.extending import intrinsic


def instruction(plain: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Return a decorator that makes an intrinsic of numba, or ``plain`` without compilation.

    It is for instructions outside of the vector paths of kernels, which also run under
    ``NUMBA_DISABLE_JIT``. Vectors need no such replacement: they exist in compiled code only (see
    `hybridseg.kernels.vectors.simd.ENABLED`).

    Parameters
    ----------
    plain : callable
        The Python function that takes the place of the intrinsic under ``NUMBA_DISABLE_JIT``. It
        takes the arguments that kernels pass, without numba's typing context.
    """
    return lambda function: plain if config.DISABLE_JIT else intrinsic(function)
