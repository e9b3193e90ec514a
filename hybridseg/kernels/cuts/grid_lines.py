"""Maximum flows along the straight lines of a pixel grid, all lines of a direction at once.

`hybridseg.kernels.cuts.grid_cut` calls `send_straight` for each arc of the grid before its search,
because much of the excess has a deficit on the same row, column or diagonal. If only the arcs of
one direction are used, two passes find the maximum flow of a line: the first, against the
direction, sums up how much each node and the nodes after it can take; the second, along the
direction, sends that much. Excess that finds no deficit stays at its node.

Rows are processed as a whole, so that the compiler makes vectors of the loops; only lines along the
rows themselves are processed node by node. The grid and its arrays are those of
`hybridseg.kernels.cuts.grid_cut`; each band of the grid runs on a thread of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from hybridseg.kernels._compile import inner_kernel, kernel
from hybridseg.kernels.vectors.instruction import instruction

#: The exponent field of 1.0 in a float64, and the number of bits of the fraction.
_ONE, _FRACTION = 1023, 52


@kernel
def send_straight(forest, takes, comes, d, halvings, first, width):
    """Find the maximum flow from excess to deficits that uses only arcs ``d``.

    Parameters
    ----------
    forest : Forest
        ``cap`` and ``excess`` are changed; of the other fields only ``offsets`` is used.
    takes, comes : ndarray, (M,)
        Working space for the M nodes of the band, in the dtype of the capacities.
    d : int
        The number of the arc.
    halvings : int
        How often the amount that a node can take is halved on its way to each earlier node. With 0
        the flow is a maximum; with more, less flow goes to deficits that are far away.
    first : int
        The first node of a band of whole rows.
    width : int
        The number of nodes in a row, with the border.
    """
    cap, excess, offset = forest.cap, forest.excess, forest.offsets[d]
    back = forest.offsets.size - 1 - d
    n_rows = takes.size // width
    # Lines along the rows: both passes of a row, node by node.
    if abs(offset) == 1:
        for row in range(first, first + n_rows * width, width):
            end = row + width
            _see_along(cap[d, row:end], excess[row:end], takes[:width], offset, halvings)
            _send_along(cap[d, row:end], cap[back, row:end], excess[row:end], takes[:width], offset)
        return
    # Other lines, first pass: from the last row of the direction to the first.
    takes[:] = 0
    comes[:] = 0
    for k in range(n_rows):
        row = first + (n_rows - 1 - k if offset > 0 else k) * width
        here, beyond = row - first, row + offset - first
        if beyond >= 0 and beyond + width <= takes.size:
            _see(
                cap[d, row : row + width],
                excess[row : row + width],
                takes[here : here + width],
                takes[beyond : beyond + width],
                halvings,
            )
        else:
            _see_last(excess[row : row + width], takes[here : here + width], halvings)
    # Second pass: from the first row of the direction to the last.
    for k in range(n_rows):
        row = first + (k if offset > 0 else n_rows - 1 - k) * width
        here, beyond = row - first, row + offset - first
        if beyond >= 0 and beyond + width <= takes.size:
            _send(
                cap[d, row : row + width],
                cap[back, row + offset : row + offset + width],
                excess[row : row + width],
                takes[beyond : beyond + width],
                comes[here : here + width],
                comes[beyond : beyond + width],
            )
        else:
            _keep(excess[row : row + width], comes[here : here + width])


def _halved(value: Any, times: int) -> Any:
    """Return the result of `halved` without compilation."""
    return value >> times if isinstance(value, int | np.integer) else value / 2**times


@instruction(_halved)
def halved(_typing: Any, value: Any, times: Any) -> Any:
    """Return the value divided by ``2**times``; integers are rounded down."""

    def generate(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        if isinstance(value, types.Integer):
            return builder.ashr(args[0], args[1])
        # The float64 2**-times, made from its exponent.
        exponent = builder.sub(ir.Constant(args[1].type, _ONE), args[1])
        bits = builder.shl(exponent, ir.Constant(args[1].type, _FRACTION))
        return builder.fmul(args[0], builder.bitcast(bits, args[0].type))

    return value(value, times), generate


@inner_kernel
def _see(cap, excess, takes, beyond, halvings):
    """Write how much each node of a row and the nodes after it can take."""
    kind = takes.dtype.type
    for k in range(takes.size):
        takes[k] = halved(min(cap[k], beyond[k]) - min(excess[k], kind(0)), halvings)


@inner_kernel
def _see_last(excess, takes, halvings):
    """Write the same for a row with no row after it."""
    kind = takes.dtype.type
    for k in range(takes.size):
        takes[k] = halved(-min(excess[k], kind(0)), halvings)


@inner_kernel
def _send(cap, back, excess, beyond, comes, goes):
    """Send flow from a row to the next; what arrives there is written to ``goes``."""
    kind = excess.dtype.type
    for k in range(excess.size):
        has = excess[k] + comes[k]
        sent = max(min(min(cap[k], beyond[k]), has), kind(0))
        excess[k] = has - sent
        goes[k] = sent
        cap[k] -= sent
        back[k] += sent


@inner_kernel
def _keep(excess, comes):
    """Add what arrives at a row with no row after it to its excess."""
    for k in range(excess.size):
        excess[k] += comes[k]


@inner_kernel
def _see_along(cap, excess, takes, step, halvings):
    """Do the work of `_see` for a line along a row; ``step`` is the direction, 1 or -1."""
    kind = takes.dtype.type
    n = cap.size
    beyond = kind(0)
    for k in range(n):
        v = np.uint64(n - 1 - k if step > 0 else k)
        beyond = halved(min(cap[v], beyond) - min(excess[v], kind(0)), halvings)
        takes[v] = beyond


@inner_kernel
def _send_along(cap, back, excess, takes, step):
    """Do the work of `_send` for a line along a row.

    The last node is left out: it belongs to the border, so nothing arrives there.
    """
    kind = excess.dtype.type
    n = cap.size
    comes = kind(0)
    for k in range(n - 1):
        v = np.uint64(k if step > 0 else n - 1 - k)
        w = v + np.uint64(step)
        has = excess[v] + comes
        comes = max(min(min(cap[v], takes[w]), has), kind(0))
        excess[v] = has - comes
        cap[v] -= comes
        back[w] += comes
