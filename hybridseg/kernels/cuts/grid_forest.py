"""The forest of what the source reaches on a pixel grid, and how it is mended when it breaks.

A node's entry in ``nodes`` is ``32 * level + code``: ``level`` counts the nodes of a residual path
from a node with excess, which has level 1, and ``code`` is the number of the arc to the parent,
`ROOT` at a node with excess, or `LOST`. A node that is not reached has level 0 and is `LOST`. Bit
``d`` of ``out[v]`` says that arc ``d`` of node ``v`` has capacity left, bit ``d`` of ``into[v]``
that the arc opposite to it has; so a search looks at bits and levels, never at flows.

A deficit that the forest reaches takes from its parent, the parent from its own, and so on to a
root, all nodes of one level before those of the next lower one, so that what many deficits need
goes up together. A node whose arc from its parent is used up takes another parent of the same
level or is lost, and with it the nodes below that find no other parent. Then the lost nodes are
hung anew, nearest first. None is hung before all are known: otherwise a part that is cut off would
hang itself on its own nodes, one level higher each time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels._compile import inner_kernel
from hybridseg.kernels.vectors.masks import lowest

#: Codes of nodes without a parent; the numbers of arcs, at most 26, lie below.
ROOT, LOST = 30, 31

#: What one level counts for in an entry of ``nodes``.
STEP = 32


class Forest(NamedTuple):
    """What a flow has left of a network, and the forest on it.

    Attributes
    ----------
    cap : ndarray of int64 or float64, (D, N)
        Residual capacity of each node's arc in each direction.
    excess : ndarray, (N,)
        What the source can still send into the node; negative: what it can send to the sink.
    offsets : ndarray of int64, (D,)
        From a node to its neighbors; ``offsets[D - 1 - d] == -offsets[d]``.
    out, into : ndarray of uint8 or uint32, (N,)
        Which arcs from the node, and to it, have capacity left.
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
    """Lists that the search works with; outside of it all heads are -1.

    Attributes
    ----------
    needy, orphan : ndarray of int32, (N + 3,)
        By level, the first node of a linked list; -1 where it is empty.
    needy_next, orphan_next : ndarray of int32, (N,)
        The node after this one in its list; -1 at the end.
    now, then, lost : ndarray of int32, (N,)
        Queues.
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
    """Empty lists for a forest of ``n_nodes``."""
    heads = np.full((2, n_nodes + 3), -1, np.int32)
    links = np.empty((5, n_nodes), np.int32)
    return Room(heads[0], heads[1], links[0], links[1], links[2], links[3], links[4])


@inner_kernel
def grow(forest, room, n_queued, level, top):
    """Reach on from the nodes ``room.now[:n_queued]`` of ``level`` until level ``top``.

    Nodes that have a level already keep it, unless it is more than one above. The deficits that
    are reached wait in ``room.needy``; returns the highest level where there is one, or 0.
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
    """Bring the deficits what they need, and hang what breaks off up to level ``top``.

    ``highest`` is the highest level of ``room.needy`` and ``room.orphan``.
    """
    while highest > 0:
        for level in range(highest, 1, -1):
            v = np.int64(room.needy[level])
            room.needy[level] = -1
            while v >= 0:
                following = np.int64(room.needy_next[v])
                _take(forest, room, v, level)
                v = following
        n_lost, highest = _lose(forest, room, highest)
        highest = max(highest, _hang(forest, room, n_lost, top))


@inner_kernel
def need(room, v, level):
    """Let the deficit at ``v`` wait for `mend`."""
    room.needy_next[v] = room.needy[level]
    room.needy[level] = v


@inner_kernel
def orphan(forest, room, v, level):
    """Take the parent, or the excess that it lived on, from ``v``; `mend` finds it another."""
    forest.nodes[v] = level * STEP + LOST
    room.orphan_next[v] = room.orphan[level]
    room.orphan[level] = v


@inner_kernel
def _take(forest, room, v, level):
    """Let ``v`` take what it needs from its parent, and then from others of that level."""
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
    """The arc of ``v`` to a node of the next lower level that is not lost; -1 where none is."""
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
    """Find the orphans other parents of the same level; those who get none are lost.

    Returns how many are now in ``room.lost``, and the highest level where one waits that has a
    deficit and a parent, or 0.
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
    """Hang lost nodes anew up to level ``top``, nearest first; the highest one that needs, or 0."""
    offsets, nodes = forest.offsets, forest.nodes
    last = offsets.size - 1
    arcs = room.needy_next  # a lost node is in no other list
    n_waiting, level = 0, top
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
