"""Maximal flows along the straight lines of a pixel grid, all lines of a direction at once.

On a line, whose arcs are taken in one direction only, the maximal flow is found by two passes:
against the direction, how much each node and those beyond it can take; along it, how much is sent
on. No excess is left anywhere but where it was, so nothing is spread. What is not vector work is
only the direction along the rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from hybridseg.kernels._compile import inner_kernel, kernel
from hybridseg.kernels.vectors.instruction import instruction

#: The exponent of 1 in a float64, and the bits behind it.
_ONE, _FRACTION = 1023, 52


@kernel
def send_straight(forest, takes, comes, d, halvings, first, width):
    """Send what excess can reach deficits by arcs ``d`` alone.

    Parameters
    ----------
    forest : Forest
        ``cap`` and ``excess`` are changed, no other field is looked at.
    takes, comes : ndarray, (M,)
        Room for as many nodes as are in the band, of the capacities' dtype.
    d : int
        Number of the arc.
    halvings : int
        What a node and those beyond it can take is halved so often before the node before sends it
        there; more than 0 keeps flow near.
    first : int
        The first node of a band of whole rows.
    width : int
        Nodes in a row, border included.
    """
    cap, excess, offset = forest.cap, forest.excess, forest.offsets[d]
    back = forest.offsets.size - 1 - d
    n_rows = takes.size // width
    if abs(offset) == 1:
        for row in range(first, first + n_rows * width, width):
            end = row + width
            _see_along(cap[d, row:end], excess[row:end], takes[:width], offset, halvings)
            _send_along(cap[d, row:end], cap[back, row:end], excess[row:end], takes[:width], offset)
        return
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
    return value >> times if isinstance(value, int | np.integer) else value / 2**times


@instruction(_halved)
def halved(_typing: Any, value: Any, times: Any) -> Any:
    """The value over ``2**times``; whole numbers are rounded down."""

    def generate(_context: Any, builder: Any, _sig: Any, args: Any) -> Any:
        if isinstance(value, types.Integer):
            return builder.ashr(args[0], args[1])
        exponent = builder.sub(ir.Constant(args[1].type, _ONE), args[1])
        bits = builder.shl(exponent, ir.Constant(args[1].type, _FRACTION))
        return builder.fmul(args[0], builder.bitcast(bits, args[0].type))

    return value(value, times), generate


@inner_kernel
def _see(cap, excess, takes, beyond, halvings):
    """What each node of a row and those beyond it can take."""
    kind = takes.dtype.type
    for k in range(takes.size):
        takes[k] = halved(min(cap[k], beyond[k]) - min(excess[k], kind(0)), halvings)


@inner_kernel
def _see_last(excess, takes, halvings):
    kind = takes.dtype.type
    for k in range(takes.size):
        takes[k] = halved(-min(excess[k], kind(0)), halvings)


@inner_kernel
def _send(cap, back, excess, beyond, comes, goes):
    """Send on from a row to the next."""
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
    for k in range(excess.size):
        excess[k] += comes[k]


@inner_kernel
def _see_along(cap, excess, takes, step, halvings):
    """As `_see`, inside a row, against ``step``."""
    kind = takes.dtype.type
    n = cap.size
    beyond = kind(0)
    for k in range(n):
        v = np.uint64(n - 1 - k if step > 0 else k)
        beyond = halved(min(cap[v], beyond) - min(excess[v], kind(0)), halvings)
        takes[v] = beyond


@inner_kernel
def _send_along(cap, back, excess, takes, step):
    """As `_send`, inside a row."""
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
