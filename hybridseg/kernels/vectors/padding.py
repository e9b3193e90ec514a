"""How much room vectors need: the one rule for the ends of rows, in Python and in kernels.

A vector is read and written whole. A row that vectors pass over therefore either has *room*, space
behind its numbers that belongs to it and to nobody else, or its last numbers are left to be done
one by one. No kernel may count on what lies behind a row by chance: it may be the next row, another
thread's, or another array.

* Vectors at multiples of their length, from the row's first number on: `padded`.
* Vectors that may begin at any number of the row: `room_for`.
* No room: vectors for the first `whole` numbers alone.

In the checked build (see `_checked`) each vector is compared with the size of its array.
"""

from __future__ import annotations

from typing import Any

from numba.extending import register_jitable

# into each caller, before anything is compiled: vectors' loops are sensitive to a call
_in_callers = register_jitable(inline="always")


@_in_callers
def padded(n: Any, lanes: Any) -> Any:
    """The least multiple of ``lanes`` that is not below ``n``."""
    return (n + lanes - 1) // lanes * lanes


@_in_callers
def room_for(n: Any, lanes: Any, anywhere: Any) -> Any:
    """The room of a row of ``n`` numbers in which vectors of ``anywhere`` may begin anywhere.

    It is a multiple of ``lanes``, so that longer vectors may pass over it from its beginning.
    """
    return padded(n + anywhere - 1, lanes)


@_in_callers
def whole(n: Any, lanes: Any) -> Any:
    """How many of ``n`` numbers fill vectors; the others are done one by one."""
    return n // lanes * lanes
