"""Instructions that numba has no word for, and what stands for them where nothing is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import config
from numba.extending import intrinsic


def instruction(plain: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Make what writes code an intrinsic of numba, or ``plain`` under ``NUMBA_DISABLE_JIT``.

    For what kernels call outside of their vector paths. Vectors themselves exist in compiled code
    alone, as `hybridseg.kernels.vectors.simd.ENABLED` says.
    """
    return lambda function: plain if config.DISABLE_JIT else intrinsic(function)
