"""The padding that rows need so that vectors never leave them, for Python and for kernels.

A vector is read and written whole. A row whose length is not a multiple of the vector's length
therefore needs either *padding*, elements after its last number that belong to this row only, or a
scalar loop for its last numbers. A kernel must not use what happens to lie after a row: it may be
the next row, memory of another thread, or another array.

* `padded`: the padded length if vectors begin at multiples of their length.
* `room_for`: the padded length if vectors may begin at any number of the row.
* `whole`: without padding, the count of numbers that full vectors cover; a scalar loop does the
  rest.

The checked build (see `hybridseg.kernels._checked`) compares each vector with the size of its
array.
"""

from __future__ import annotations

from typing import Any

from numba.extending import register_jitable

# Numba inlines these functions before it compiles the caller: a call inside a loop over vectors
# would slow it down.
_in_callers = register_jitable(inline="always")


@_in_callers
def padded(n: Any, lanes: Any) -> Any:
    """Return the smallest multiple of ``lanes`` that is at least ``n``."""
    return (n + lanes - 1) // lanes * lanes


@_in_callers
def room_for(n: Any, lanes: Any, anywhere: Any) -> Any:
    """Return the length of a row of ``n`` numbers in which a vector may begin at any number.

    ``anywhere`` is the length of those vectors. The result is a multiple of ``lanes``, the length
    of other vectors, which begin at multiples of their length.
    """
    return padded(n + anywhere - 1, lanes)


@_in_callers
def whole(n: Any, lanes: Any) -> Any:
    """Return how many of ``n`` numbers fill whole vectors; a scalar loop does the others."""
    return n // lanes * lanes
