"""The argument by which Python tells a kernel whether to use vectors.

Superpixel, contour, random-walk and mean-field kernels take it as their argument ``vectors``.
"""

from __future__ import annotations

from hybridseg.kernels.vectors import simd as simd


def way() -> bool | None:
    """Return the argument ``vectors`` of kernels: True for vectors, None for plain loops.

    Kernels test ``vectors is not None``. Numba decides that from the type of the argument and
    compiles only one branch, so the test costs nothing when the kernel runs.
    """
    return True if simd.ENABLED else None
