"""Minimum cut on an implicit pixel grid, by a forest of shortest paths that is mended as it breaks.

The grid is stored in row-major order with a border of one node on every side, so a neighbour is
found by adding an offset and nothing is looked up. Node ``v`` has ``D`` arcs; arc ``d`` points to
``v + offsets[d]`` and its opposite is arc ``D - 1 - d`` of that node. Arcs to and from the border
have capacity 0. Terminals are not nodes: ``excess[v] > 0`` is what the source can still send into
``v``, ``excess[v] < 0`` what ``v`` can still send to the sink.

Every flow that respects the capacities leaves an equal problem with the same minimum cuts. So
where costs outweigh edges, neighbours first balance their excess in a few sweeps over all edges,
which decides most nodes at little cost. Then a forest grows from the nodes with excess, in steps
that double; what deficits it reaches take from it (see ``_grid_forest.py``). When it reaches none
any more the flow is maximal, and the forest is the smallest source side. It is kept: after a
change of some excess only what hangs on it is mended.

References
----------
Goldberg, Hed, Kaplan, Tarjan and Werneck, "Maximum flows by incremental breadth-first search", ESA
2011. Goldberg, Hed, Kaplan, Kohli, Tarjan and Werneck, "Faster and more dynamic maximum flow by
incremental breadth-first search", ESA 2015 (excesses, and the warm start). Tarjan, Ward, Zhang,
Zhou and Mao, "Balancing applied to maximum network flow problems", ESA 2006.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel
from hybridseg.kernels._grid_forest import LOST, ROOT, STEP, grow, make_room, mend, need, orphan

#: Sweeps of balancing before the forest grows.
_SWEEPS = 4

#: Neighbours balance their excess where it is more than this part of the capacities.
_MUCH = 0.1


@kernel
def grid_cut(forest, inner, width):
    """Solve the cut; ``forest`` becomes what the maximal flow leaves.

    Parameters
    ----------
    forest : Forest
        Capacities >= 0, 0 to and from the border; excess, 0 at the border; the rest is written.
    inner : tuple of int
        Where the first row begins and the last one ends that hold pixels.
    width : int
        Nodes in a row, border included.

    Notes
    -----
    The smallest source side of a minimum cut is where ``forest.nodes >= STEP``.
    """
    _balance(forest.cap, forest.excess, forest.offsets, inner[0], inner[1], width)
    _find_open(forest)
    room = make_room(forest.excess.size)
    n_queued = _plant(forest, room)
    level, step = 1, 1
    while n_queued > 0:
        top = min(level + step, forest.excess.size)
        mend(forest, room, grow(forest, room, n_queued, level, top), top)
        n_queued = 0
        for v in range(forest.excess.size):
            if forest.nodes[v] // STEP == top:
                room.now[n_queued] = v
                n_queued += 1
        level, step = top, 2 * step


@kernel
def grid_cut_again(forest, changed):
    """Solve the cut after the excess of the nodes ``changed`` (M,) has changed.

    Parameters
    ----------
    forest : Forest
        As `grid_cut` or this function left it, but for ``excess``.
    changed : ndarray of int64, (M,)
        Each node once.
    """
    excess, nodes = forest.excess, forest.nodes
    room = make_room(excess.size)
    n_queued, n_held = 0, 0
    for v in changed:
        if excess[v] > 0:
            if nodes[v] != STEP + ROOT:
                nodes[v] = STEP + ROOT
                room.now[n_queued] = v
                n_queued += 1
        elif nodes[v] == STEP + ROOT or (nodes[v] >= STEP and excess[v] < 0):
            room.lost[n_held] = v
            n_held += 1
    highest = grow(forest, room, n_queued, 1, excess.size)
    for k in range(n_held):
        v = np.int64(room.lost[k])
        level = np.int64(nodes[v]) // STEP
        if nodes[v] == STEP + ROOT:
            orphan(forest, room, v, level)
        else:
            need(room, v, level)
        highest = max(highest, level)
    mend(forest, room, highest, excess.size)


@kernel
def _find_open(forest):
    """Set the bits of the arcs with capacity."""
    n_arcs = forest.offsets.size
    forest.out[:] = 0
    forest.into[:] = 0
    for d in range(n_arcs):
        offset = forest.offsets[d]
        there, back = np.uint32(1) << np.uint32(d), np.uint32(1) << np.uint32(n_arcs - 1 - d)
        for v in range(max(0, -offset), min(forest.out.size, forest.out.size - offset)):
            if forest.cap[d, v] > 0:
                forest.out[v] |= there
                forest.into[v + offset] |= back


@kernel
def _plant(forest, room):
    """Make roots of all excess; queue those from which a node without excess can be reached."""
    n_nodes = forest.excess.size
    for v in range(n_nodes):
        forest.nodes[v] = STEP + ROOT if forest.excess[v] > 0 else LOST
    n_queued = 0
    for v in range(n_nodes):
        if forest.excess[v] > 0:
            for d in range(forest.offsets.size):
                open_arc = (forest.out[v] >> d) & 1
                if open_arc and forest.nodes[v + forest.offsets[d]] == LOST:
                    room.now[n_queued] = v
                    n_queued += 1
                    break
    return n_queued


@kernel
def _balance(cap, excess, offsets, first, stop, width):
    """Let neighbours share their excess, as far as arcs allow, in a few sweeps."""
    total, room = 0.0, 0.0
    for v in range(first, stop):
        total += abs(excess[v])
    for d in range(offsets.size):
        for v in range(first, stop):
            room += cap[d, v]
    if total <= _MUCH * room:
        return
    for _ in range(_SWEEPS):
        for row in range(first, stop, width):
            for d in range(offsets.size // 2):
                if offsets[d] == 1:
                    _share(cap, excess, d, 1, row + 1, row + width - 2, 2)
                    _share(cap, excess, d, 1, row + 2, row + width - 2, 2)
                else:
                    _share(cap, excess, d, offsets[d], row + 1, row + width - 1, 1)


@kernel
def _share(cap, excess, d, offset, first, stop, step):
    back = cap.shape[0] - 1 - d
    for v in range(first, stop, step):
        w = v + offset
        half = cap.dtype.type(0.5 * (excess[v] - excess[w]))
        sent = min(max(half, -cap[back, w]), cap[d, v])
        cap[d, v] -= sent
        cap[back, w] += sent
        excess[v] -= sent
        excess[w] += sent
