"""The forest of all grid nodes that the source reaches, and its repair after a change of excess.

The forest makes a second cut of the same grid cheap (a warm start): `grow` builds it and `mend`
repairs it. It follows the incremental breadth-first search of Goldberg et al. [1]_, whose later
version also starts from excesses and from an earlier flow [2]_.

`Forest` also is the record of the flow network for all grid kernels of this folder. A node's entry
in ``nodes`` is ``32 * level + code``. The level counts the nodes of a residual path from a node
with excess, which has level 1. The code is the number of the arc to the parent, `ROOT` for a node
with excess, or `LOST`. A node that is not reached has level 0 and the code `LOST`. Bit ``d`` of
``out[v]`` is set if arc ``d`` of node ``v`` has capacity left, and bit ``d`` of ``into[v]`` if the
arc opposite to it has. So a search reads bits and levels, but no capacities.

`mend` sends flow up to the deficits that the forest reaches: each takes from its parent, the parent
takes from its own parent, and so on to a root. All nodes of a level come before those of the next
lower level, so that the demands of many deficits go up together. If the arc from the parent is used
up, a node takes another parent of the same level, or it is lost together with all nodes below that
find no other parent. Lost nodes get new parents only after all of them are known, nearest first:
otherwise a part that is cut off could hang on its own nodes, one level higher each time.

`hybridseg.kernels.cuts.grid_cut` calls these kernels, on one thread.

References
----------
.. [1] A. V. Goldberg, S. Hed, H. Kaplan, R. E. Tarjan, R. F. Werneck, "Maximum flows by incremental
   breadth-first search", European Symposium on Algorithms (ESA), 2011.
.. [2] A. V. Goldberg, S. Hed, H. Kaplan, P. Kohli, R. E. Tarjan, R. F. Werneck, "Faster and more
   dynamic maximum flow by incremental breadth-first search", European Symposium on Algorithms
   (ESA), 2015.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels._compile import inner_kernel
from hybridseg.kernels.vectors.masks import lowest

#: The codes of nodes without a parent. The numbers of arcs, 0 to 25 at most, are smaller.
ROOT, LOST = 30, 31

#: The step between levels in an entry of ``nodes``.
STEP = 32


class Forest(NamedTuple):
    """The residual flow network of a grid with D arcs at each of N nodes, and the forest on it.

    Attributes
    ----------
    cap : ndarray of int64 or float64, (D, N)
        The residual capacity of arc ``d`` of each node.
    excess : ndarray, (N,)
        In the dtype of ``cap``: the capacity that the source has left to the node; if negative,
        the capacity that the node has left to the sink.
    offsets : ndarray of int64, (D,)
        Arc ``d`` of node ``v`` leads to ``v + offsets[d]``. The opposite arc has the number
        ``D - 1 - d``, so ``offsets[D - 1 - d] == -offsets[d]``.
    out, into : ndarray of uint8 or uint32, (N,)
        Bit ``d``: whether the arc ``d`` from the node, or the arc opposite to it, has capacity
        left. Bytes if D <= 8.
    nodes : ndarray of int32, (N,)
        ``32 * level + code``.
    """

    cap: NDArray[Any]
    excess: NDArray[Any]
    offsets: NDArray[np.int64]
    out: NDArray[Any]
    into: NDArray[Any]
    nodes: NDArray[np.int32]


class Room(NamedTuple):
    """The working lists of a search; between searches all heads are -1.

    Attributes
    ----------
    needy, orphan : ndarray of int32, (N + 3,)
        By level, the first node of a linked list of deficits that the forest reaches, and of
        nodes that lost their parent; -1 if the list is empty.
    needy_next, orphan_next : ndarray of int32, (N,)
        The next node in the list; -1 at the end.
    now, then, lost : ndarray of int32, (N,)
        Queues of the nodes of this level, of the next level, and of the lost nodes.
    """

    needy: NDArray[np.int32]
    orphan: NDArray[np.int32]
    needy_next: NDArray[np.int32]
    orphan_next: NDArray[np.int32]
    now: NDArray[np.int32]
    then: NDArray[np.int32]
    lost: NDArray[np.int32]


@inner_kernel
def make_room(n_nodes):
    """Return empty lists for a forest of ``n_nodes`` nodes."""
    heads = np.full((2, n_nodes + 3), -1, np.int32)
    links = np.empty((5, n_nodes), np.int32)
    return Room(heads[0], heads[1], links[0], links[1], links[2], links[3], links[4])


@inner_kernel
def grow(forest, room, n_queued, level, top):
    """Extend the forest from the nodes ``room.now[:n_queued]`` of ``level`` up to level ``top``.

    It is a breadth-first search along open arcs. A node that has a level already keeps it unless
    the search reaches it on a lower level. Deficits that are newly reached wait in ``room.needy``.
    Returns the highest level with such a deficit, or 0.
    """
    offsets, nodes, out = forest.offsets, forest.nodes, forest.out
    last = offsets.size - 1
    now, then = room.now, room.then
    highest = 0
    while n_queued > 0 and level < top:
        level += 1
        entry = level * STEP
        n_next = 0
        for k in range(n_queued):
            v = np.int64(now[k])
            bits = np.uint64(out[v])
            while bits:
                d = np.int64(lowest(bits))
                bits &= bits - np.uint64(1)
                w = v + offsets[d]
                old = np.int64(nodes[w])
                if old < STEP or old >= entry + STEP:
                    nodes[w] = entry + last - d
                    then[n_next] = w
                    n_next += 1
                    if old < STEP and forest.excess[w] < 0:
                        need(room, w, level)
                        highest = level
        now, then = then, now
        n_queued = n_next
    return highest


@inner_kernel
def mend(forest, room, highest, top):
    """Satisfy the deficits that the forest reaches, and hang the nodes that this cuts off again.

    ``highest`` is the highest level with a node in ``room.needy`` or ``room.orphan``, ``top`` the
    highest level at which nodes are hung.
    """
    while highest > 0:
        # Demands go up from the highest level, so those of all children are known at a parent.
        for level in range(highest, 1, -1):
            v = np.int64(room.needy[level])
            room.needy[level] = -1
            while v >= 0:
                following = np.int64(room.needy_next[v])
                _take(forest, room, v, level)
                v = following
        # Nodes that were cut off get other parents, and those with deficits start the next round.
        n_lost, highest = _lose(forest, room, highest)
        highest = max(highest, _hang(forest, room, n_lost, top))


@inner_kernel
def need(room, v, level):
    """Put ``v``, a node with a deficit, into the list of ``level`` for `mend`."""
    room.needy_next[v] = room.needy[level]
    room.needy[level] = v


@inner_kernel
def orphan(forest, room, v, level):
    """Mark ``v`` as a node without parent or excess; `mend` looks for another parent."""
    forest.nodes[v] = level * STEP + LOST
    room.orphan_next[v] = room.orphan[level]
    room.orphan[level] = v


@inner_kernel
def _take(forest, room, v, level):
    """Send ``v`` what it needs from its parent, and then from other parents of that level."""
    cap, excess, nodes = forest.cap, forest.excess, forest.nodes
    last = forest.offsets.size - 1
    one = np.uint32(1)
    wanted = -excess[v]
    d = np.int64(nodes[v]) & (STEP - 1)
    while wanted > 0:
        parent = v + forest.offsets[d]
        left = cap[last - d, parent]
        taken = min(wanted, left)
        cap[last - d, parent] = left - taken
        if cap[d, v] == 0:
            forest.out[v] |= one << np.uint32(d)
            forest.into[parent] |= one << np.uint32(last - d)
        cap[d, v] += taken
        wanted -= taken
        # The parent now needs flow itself, or if it is a root, its excess may be used up.
        before = excess[parent]
        excess[parent] = before - taken
        code = np.int64(nodes[parent]) & (STEP - 1)
        if code == ROOT:
            if before <= taken:
                orphan(forest, room, parent, 1)
        elif code != LOST and before == 0:
            need(room, parent, level - 1)
        if taken == left:
            forest.out[parent] &= ~(one << np.uint32(last - d))
            forest.into[v] &= ~(one << np.uint32(d))
            d = _parent(forest, v, level)
            if d < 0:
                orphan(forest, room, v, level)
                break
            nodes[v] = level * STEP + d
    excess[v] = -wanted


@inner_kernel
def _parent(forest, v, level):
    """Return the arc of ``v`` to a parent in the next lower level, or -1 if there is none."""
    bits = np.uint64(forest.into[v])
    entry = (level - 1) * STEP
    while bits:
        d = np.int64(lowest(bits))
        bits &= bits - np.uint64(1)
        if entry <= forest.nodes[v + forest.offsets[d]] < entry + LOST:
            return d
    return np.int64(-1)


@inner_kernel
def _lose(forest, room, highest):
    """Give orphans another parent on the same level; a node that finds none is lost.

    Returns how many nodes are now in ``room.lost``, and the highest level at which a node with a
    deficit got a parent, or 0.
    """
    offsets, nodes = forest.offsets, forest.nodes
    last = offsets.size - 1
    now, then = room.now, room.then
    n_lost, n_now, level, needy = 0, 0, 1, 0
    while level <= highest or n_now > 0:
        v = np.int64(room.orphan[level])
        room.orphan[level] = -1
        while v >= 0:
            now[n_now] = v
            n_now += 1
            v = np.int64(room.orphan_next[v])
        n_then = 0
        for k in range(n_now):
            v = np.int64(now[k])
            d = _parent(forest, v, level) if level > 1 else np.int64(-1)
            if d >= 0:
                nodes[v] = level * STEP + d
                if forest.excess[v] < 0:
                    need(room, v, level)
                    needy = level
                continue
            # The node is lost, and its children become orphans of the next level.
            nodes[v] = LOST
            room.lost[n_lost] = v
            n_lost += 1
            bits = np.uint64(forest.out[v])
            entry = (level + 1) * STEP
            while bits:
                d = np.int64(lowest(bits))
                bits &= bits - np.uint64(1)
                w = v + offsets[d]
                if nodes[w] == entry + last - d:
                    nodes[w] = entry + LOST
                    then[n_then] = w
                    n_then += 1
        now, then = then, now
        n_now = n_then
        level += 1
    return n_lost, needy


@inner_kernel
def _hang(forest, room, n_lost, top):
    """Give lost nodes new parents, nearest to a root first, up to level ``top``.

    Returns the highest level at which a node with a deficit got a parent, or 0.
    """
    offsets, nodes = forest.offsets, forest.nodes
    last = offsets.size - 1
    arcs = room.needy_next  # its memory is free: a lost node is in no list of deficits
    n_waiting, level = 0, top
    # Sort the lost nodes that have a neighbor in the forest by the level that they can get.
    for k in range(n_lost):
        v = np.int64(room.lost[k])
        bits = np.uint64(forest.into[v])
        best, arc = np.int64(top), np.int64(-1)
        while bits:
            d = np.int64(lowest(bits))
            bits &= bits - np.uint64(1)
            above = np.int64(nodes[v + offsets[d]]) // STEP
            if 0 < above < best:
                best, arc = above, d
        if arc >= 0:
            arcs[v] = arc
            room.orphan_next[v] = room.orphan[best + 1]
            room.orphan[best + 1] = v
            level = min(level, best + 1)
            n_waiting += 1
    # Level by level, hang these nodes and the lost nodes that the level before reached.
    now, then = room.now, room.then
    n_now, needy = 0, 0
    while n_now + n_waiting > 0 and level <= top:
        v = np.int64(room.orphan[level])
        room.orphan[level] = -1
        while v >= 0:
            n_waiting -= 1
            if nodes[v] == LOST:
                nodes[v] = level * STEP + arcs[v]
                now[n_now] = v
                n_now += 1
            v = np.int64(room.orphan_next[v])
        n_then = 0
        entry = (level + 1) * STEP
        for k in range(n_now):
            v = np.int64(now[k])
            if forest.excess[v] < 0:
                need(room, v, level)
                needy = level
            if level == top:
                continue
            bits = np.uint64(forest.out[v])
            while bits:
                d = np.int64(lowest(bits))
                bits &= bits - np.uint64(1)
                w = v + offsets[d]
                if nodes[w] == LOST:
                    nodes[w] = entry + last - d
                    then[n_then] = w
                    n_then += 1
        now, then = then, now
        n_now = n_then
        level += 1
    return needy
