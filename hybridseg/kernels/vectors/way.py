"""How Python tells a kernel whether it may use vectors."""

from __future__ import annotations

from hybridseg.kernels.vectors import simd as simd


def way() -> bool | None:
    """The argument ``vectors`` of a kernel that is called from Python: None for plain loops.

    Kernels ask ``vectors is not None``, which numba knows from the argument's type, so that no
    kernel asks it while it runs.
    """
    return True if simd.ENABLED else None
