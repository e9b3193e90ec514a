"""How Python tells a kernel whether it may use vectors, so that one way alone is compiled."""

# ruff: noqa: ARG001 (numba fixes the arguments of its hooks)

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import NativeValue, models, register_model, typeof_impl, unbox

from hybridseg.kernels.vectors import simd as simd


class _Way:
    """What stands for the use of vectors where a kernel's argument says so; None for none."""


class _WayType(types.Opaque):
    """Numba drops ``if vectors is None`` before it compiles only where a type says it is no None.

    For a truth value it would compile the plain twins too, which nobody runs.
    """

    def __init__(self) -> None:
        super().__init__(name="VectorWay")

    @property
    def literal_type(self) -> Any:
        """What numba asks a type for that can never be None."""
        return self


register_model(_WayType)(models.OpaqueModel)


@typeof_impl.register(_Way)
def _typeof_way(value: Any, context: Any) -> Any:
    return _WayType()


@unbox(_WayType)
def _unbox_way(kind: Any, value: Any, c: Any) -> Any:
    return NativeValue(c.context.get_dummy_value())


_VECTORS = _Way()


def way() -> Any:
    """The argument ``vectors`` of a kernel that is called from Python."""
    return _VECTORS if simd.ENABLED else None
