"""Maximum flow and minimum cut on a sparse graph, by incremental breadth-first search.

The graph lies in forward-star arrays: the arcs that leave node ``v`` are ``first[v]`` to
``first[v + 1] - 1``; arc ``a`` points to ``head[a]``, has the residual capacity ``cap[a]`` and the
opposite arc ``rev[a]``. Terminals are not nodes: ``excess[v] > 0`` is what the source can still
send into ``v``, ``excess[v] < 0`` what ``v`` can still send to the sink.

Two forests grow level by level, one from the nodes with excess (S), one from the nodes with deficit
(T). Where they touch, flow is sent along the tree path; nodes whose tree arc is saturated become
orphans and look for a new parent at the same distance. What has none is taken off the forest with
all that hangs on it alone, and put back by a breadth-first search from what is left, so that a
part that the terminal cannot reach any more costs one visit and does not count up level by level.
``level[v]`` is the distance from the source (positive: v in S), from the sink (negative: v in T),
or 0 (free).

References
----------
Goldberg, Hed, Kaplan, Tarjan and Werneck, "Maximum flows by incremental breadth-first search",
ESA 2011: sections 3 (the algorithm) and 3.1 (current arcs). Ramalingam and Reps, "An incremental
algorithm for a generalization of the shortest-path problem", Journal of Algorithms 21(2), 1996,
section 3 (the repair of distances after deletions).
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel

# Arrays are passed one by one: a tuple of arrays costs numba a reference count at every call.
#
# ``tree`` (N, 4) int32: what the search knows of each node
_LEVEL = 0
_PARENT = 1  # the arc to the parent; _ROOT: hangs on the terminal itself
_LINK = 2  # the next orphan of the same level, -1 at the end; _NOT_ORPHAN otherwise
_QUEUED = 3  # the level for which the node was queued last
_ROOT = -1
_NOT_ORPHAN = -2

# ``counts`` (13,) int64: scalars that several kernels change, each but the last for two forests:
# the queue sizes at 2 * forest + slot, the slot that is "now", the level that is scanned now, the
# greatest level, the nodes scanned, orphaned or lost so far; and the orphans that wait
_NOW = 4
_EDGE = 6
_DEPTH = 8
_WORK = 10
_ORPHANS = 12

# ``bucket`` (N + 3,) int32 holds the first orphan of each level; ``lost`` (N,) int32 the orphans
# that found no parent; ``queues`` (2, 2, N) int32 the nodes that wait to be scanned, by forest and
# slot.


@kernel
def build_arcs(n_nodes, i, j, weight):
    """Forward-star arrays of an edge list, in one counting sort.

    Parameters are the edges ``i``, ``j`` (E,) int32 with ``0 <= i, j < n_nodes`` and ``i != j``,
    and their weights (E,). Returns ``first`` (n_nodes + 1,), ``head`` (2E,), ``rev`` (2E,) int32
    and the weight of each arc (2E,). The caller guarantees ``2 * E < 2**31``.
    """
    n_edges = i.size
    first = np.zeros(n_nodes + 1, np.int32)
    for e in range(n_edges):
        first[i[e] + 1] += 1
        first[j[e] + 1] += 1
    for v in range(n_nodes):
        first[v + 1] += first[v]
    free = first[:-1].copy()
    head = np.empty(2 * n_edges, np.int32)
    rev = np.empty(2 * n_edges, np.int32)
    arc_weight = np.empty(2 * n_edges, weight.dtype)
    for e in range(n_edges):
        a, b = free[i[e]], free[j[e]]
        free[i[e]] += 1
        free[j[e]] += 1
        head[a], head[b] = j[e], i[e]
        rev[a], rev[b] = b, a
        arc_weight[a] = arc_weight[b] = weight[e]
    return first, head, rev, arc_weight


@kernel
def maxflow(first, head, rev, cap, excess):
    """Send as much flow as possible; ``cap`` and ``excess`` become the residual ones.

    ``cap`` (A,) >= 0 and ``excess`` (N,) share one dtype: int64 (exact) or float64 (float32 works
    and rounds). Returns the flow between nodes of different sign (what a node sends straight from
    source to sink is the caller's constant) and ``level`` (N,) int32 as described above.
    """
    flow, level, _ = _search(first, head, rev, cap, excess)
    return flow, level


@kernel
def _search(first, head, rev, cap, excess):
    """As `maxflow`, and the number of nodes that were scanned, orphaned or lost, all told."""
    n_nodes = excess.size
    tree = np.zeros((n_nodes, 4), np.int32)
    bucket = np.full(n_nodes + 3, -1, np.int32)
    lost = np.empty(n_nodes, np.int32)
    queues = np.empty((2, 2, n_nodes), np.int32)  # a node enters each queue once a pass
    counts = np.zeros(13, np.int64)
    flow = _send_to_neighbours(first, head, rev, cap, excess)
    _plant(excess, tree, queues, counts)
    while True:
        # sharing the work out keeps both forests shallow where orphans are costly, and leaves a
        # forest alone whose next level is large where they are not
        cost_s = counts[_WORK] + counts[counts[_NOW]]
        cost_t = counts[_WORK + 1] + counts[2 + counts[_NOW + 1]]
        side = 1 if cost_s <= cost_t else -1
        n_scanned, sent = _grow(
            first, head, rev, cap, excess, tree, bucket, lost, queues, counts, side
        )
        flow += sent
        if n_scanned == 0:
            return flow, tree[:, _LEVEL].copy(), counts[_WORK] + counts[_WORK + 1]


@kernel
def source_side(first, head, cap, level):
    """The smallest minimum cut: the nodes that the source reaches, (N,) bool.

    ``cap`` and ``level`` are what `maxflow` left. Every minimum cut's source side contains it.
    """
    return _reach(first, head, head, cap, level, 1)


@kernel
def sink_side(first, head, rev, cap, level):
    """The nodes that reach the sink, (N,) bool; all others form the largest source side."""
    return _reach(first, head, rev, cap, level, -1)


@kernel
def _reach(first, head, rev, cap, level, side):
    """Breadth-first search along (side 1) or against (side -1) the residual arcs."""
    n_nodes = level.size
    reached = np.zeros(n_nodes, np.bool_)
    queue = np.empty(n_nodes, np.int32)
    n_queued = 0
    for v in range(n_nodes):
        if level[v] * side > 0:
            reached[v] = True
            queue[n_queued] = v
            n_queued += 1
    position = 0
    while position < n_queued:
        v = queue[position]
        position += 1
        for a in range(first[v], first[v + 1]):
            w = head[a]
            if not reached[w] and (cap[a] if side > 0 else cap[rev[a]]) > 0:
                reached[w] = True
                queue[n_queued] = w
                n_queued += 1
    return reached


@kernel
def _send_to_neighbours(first, head, rev, cap, excess):
    """Send along every path of one arc, which needs no search."""
    flow = excess.dtype.type(0)
    for v in range(excess.size):
        for a in range(first[v], first[v + 1]):
            if excess[v] <= 0:
                break
            w = head[a]
            if excess[w] < 0 and cap[a] > 0:
                sent = min(excess[v], -excess[w], cap[a])
                cap[a] -= sent
                cap[rev[a]] += sent
                excess[v] -= sent
                excess[w] += sent
                flow += sent
    return flow


@kernel
def _plant(excess, tree, queues, counts):
    """Both forests at level 1: every node with excess or deficit is a root."""
    counts[_EDGE:_WORK] = 1
    for v in range(excess.size):
        tree[v, _PARENT] = _ROOT
        tree[v, _LINK] = _NOT_ORPHAN
        if excess[v] != 0:
            tree[v, _LEVEL] = 1 if excess[v] > 0 else -1
            _enqueue(tree, queues, counts, v, 0)


@kernel
def _enqueue(tree, queues, counts, v, slot):
    """Put ``v`` into the queue of its forest unless it waits there at its level already."""
    level = tree[v, _LEVEL]
    if tree[v, _QUEUED] != level:
        tree[v, _QUEUED] = level
        forest = 0 if level > 0 else 1
        queues[forest, slot, counts[2 * forest + slot]] = v
        counts[2 * forest + slot] += 1


@kernel
def _grow(first, head, rev, cap, excess, tree, bucket, lost, queues, counts, side):
    """Add one level to the forest of ``side`` (1: S, -1: T), augmenting where the forests meet.

    Returns the number of nodes that were scanned (0: the forest is complete, the flow maximal) and
    the flow that was sent.
    """
    forest = 0 if side > 0 else 1
    now = counts[_NOW + forest]
    edge = counts[_EDGE + forest]
    counts[_DEPTH + forest] = edge + 1
    n_scanned = 0
    flow = excess.dtype.type(0)
    position = 0
    while position < counts[2 * forest + now]:  # the queue may lengthen meanwhile
        v = queues[forest, now, position]
        position += 1
        if tree[v, _LEVEL] == side * edge:
            n_scanned += 1
            counts[_WORK + forest] += 1
            flow += _scan(
                first, head, rev, cap, excess, tree, bucket, lost, queues, counts, side, v
            )
    counts[2 * forest + now] = 0
    counts[_NOW + forest] = 1 - now
    counts[_EDGE + forest] = edge + 1
    return n_scanned, flow


@kernel
def _scan(first, head, rev, cap, excess, tree, bucket, lost, queues, counts, side, v):
    """Extend the forest from ``v``: adopt free neighbours, augment at neighbours of the other."""
    flow = excess.dtype.type(0)
    next_slot = 1 - counts[_NOW + (0 if side > 0 else 1)]
    level = tree[v, _LEVEL]
    a = np.int64(first[v])  # one type with the arcs of rev: compiled once
    while a < first[v + 1] and tree[v, _LEVEL] == level:
        w = head[a]
        bridge = a if side > 0 else rev[a]
        if tree[w, _LEVEL] * side > 0 or cap[bridge] <= 0:
            a += 1
        elif tree[w, _LEVEL] == 0:
            tree[w, _LEVEL] = level + side
            tree[w, _PARENT] = rev[a]
            _enqueue(tree, queues, counts, w, next_slot)
            a += 1
        else:
            flow += _augment(
                first, head, rev, cap, excess, tree, bucket, lost, queues, counts, bridge
            )
    return flow


@kernel
def _augment(first, head, rev, cap, excess, tree, bucket, lost, queues, counts, bridge):
    """Send the bottleneck from a root of S over the arc ``bridge`` to a root of T."""
    v = head[rev[bridge]]
    w = head[bridge]
    room, root_s = _room(head, rev, cap, tree, v, cap[bridge], 1)
    room, root_t = _room(head, rev, cap, tree, w, room, -1)
    sent = min(room, excess[root_s], -excess[root_t])
    cap[bridge] -= sent
    cap[rev[bridge]] += sent
    excess[root_s] -= sent
    excess[root_t] += sent
    lowest = _send(head, rev, cap, excess, tree, bucket, counts, v, sent, 1)
    _adopt_orphans(first, head, rev, cap, tree, bucket, lost, queues, counts, lowest, 1)
    lowest = _send(head, rev, cap, excess, tree, bucket, counts, w, sent, -1)
    _adopt_orphans(first, head, rev, cap, tree, bucket, lost, queues, counts, lowest, -1)
    return sent


@kernel
def _room(head, rev, cap, tree, v, room, side):
    """The least of ``room`` and the capacities between ``v`` and its root, and that root."""
    a = tree[v, _PARENT]
    while a != _ROOT:
        room = min(room, cap[rev[a] if side > 0 else a])
        v = head[a]
        a = tree[v, _PARENT]
    return room, v


@kernel
def _send(head, rev, cap, excess, tree, bucket, counts, v, sent, side):
    """Send along the tree path of ``v``; nodes behind saturated arcs become orphans.

    Returns the least level of an orphan.
    """
    lowest = abs(tree[v, _LEVEL])
    a = tree[v, _PARENT]
    while a != _ROOT:
        onward = rev[a] if side > 0 else a
        cap[onward] -= sent
        cap[rev[onward]] += sent
        if cap[onward] <= 0:
            lowest = abs(tree[v, _LEVEL])
            _orphan(tree, bucket, counts, v)
        v = head[a]
        a = tree[v, _PARENT]
    if excess[v] == 0:
        lowest = 1
        _orphan(tree, bucket, counts, v)
    return lowest


@kernel
def _orphan(tree, bucket, counts, v):
    """Let ``v`` wait for a parent; its last parent arc stays as the current arc."""
    if tree[v, _LINK] == _NOT_ORPHAN:
        height = abs(tree[v, _LEVEL])
        tree[v, _LINK] = bucket[height]
        bucket[height] = v
        counts[_ORPHANS] += 1


@kernel
def _pop(tree, bucket, counts, height):
    """Take a node that waits at ``height``; -1 where none does."""
    v = bucket[height]
    if v >= 0:
        bucket[height] = tree[v, _LINK]
        tree[v, _LINK] = _NOT_ORPHAN
        counts[_ORPHANS] -= 1
    return v


@kernel
def _adopt_orphans(first, head, rev, cap, tree, bucket, lost, queues, counts, height, side):
    """Find parents for all orphans, beginning at ``height``.

    Level by level, what finds no parent at its old distance is lost, and so are its children
    unless they find one. The lost are then hung on what is left of the forest, nearest first. A
    node is so looked at a fixed number of times, however far its level rises.
    """
    n_lost = 0
    forest = 0 if side > 0 else 1
    while counts[_ORPHANS] > 0:
        v = _pop(tree, bucket, counts, height)
        if v < 0:
            height += 1
            continue
        counts[_WORK + forest] += 1
        if not _reattach(first, head, rev, cap, tree, v, side):
            _lose(first, head, rev, tree, bucket, counts, v, side)
            lost[n_lost] = v
            n_lost += 1
    counts[_WORK + forest] += n_lost
    if n_lost > 0:
        _hang(first, head, rev, cap, tree, bucket, lost, queues, counts, n_lost, side)


@kernel
def _reattach(first, head, rev, cap, tree, v, side):
    """Hang ``v`` on another node one level nearer the terminal, its own level unchanged.

    The search goes on from the arc that was the parent, because those before it mostly are
    unusable until the level of ``v`` changes (the current-arc rule).
    """
    wanted = tree[v, _LEVEL] - side
    if wanted == 0:
        return False
    start = tree[v, _PARENT]
    for step in range(first[v + 1] - first[v]):
        a = start + step
        if a >= first[v + 1]:
            a -= first[v + 1] - first[v]
        if tree[head[a], _LEVEL] == wanted and cap[rev[a] if side > 0 else a] > 0:
            tree[v, _PARENT] = a
            return True
    return False


@kernel
def _lose(first, head, rev, tree, bucket, counts, v, side):
    """Set ``v`` free; its children become orphans."""
    for a in range(first[v], first[v + 1]):
        w = head[a]
        if tree[w, _LEVEL] * side > 0 and tree[w, _PARENT] == rev[a]:
            _orphan(tree, bucket, counts, w)
    tree[v, _LEVEL] = 0
    tree[v, _PARENT] = _ROOT


@kernel
def _hang(first, head, rev, cap, tree, bucket, lost, queues, counts, n_lost, side):
    """Breadth-first search that begins at every lost node's nearest neighbour in the forest.

    ``lost`` becomes the queue of the search. What it does not reach stays free.
    """
    depth = counts[_DEPTH + (0 if side > 0 else 1)]
    height = depth + 1
    for k in range(n_lost):
        v = lost[k]
        nearest = _nearest(first, head, rev, cap, tree, v, depth, side)
        if nearest < depth:
            tree[v, _LINK] = bucket[nearest + 1]
            bucket[nearest + 1] = v
            counts[_ORPHANS] += 1
            height = min(height, nearest + 1)
    position, n_hung = 0, 0
    while counts[_ORPHANS] > 0 or position < n_hung:
        v = _pop(tree, bucket, counts, height)
        while v >= 0:
            if tree[v, _LEVEL] == 0:
                tree[v, _LEVEL] = side * height
                lost[n_hung] = v
                n_hung += 1
            v = _pop(tree, bucket, counts, height)
        stop = n_hung
        while position < stop:
            v = lost[position]
            position += 1
            _requeue(tree, queues, counts, v)
            if height < depth and n_hung < n_lost:
                n_hung = _take_along(first, head, rev, cap, tree, lost, n_hung, v, side)
        height += 1


@kernel
def _nearest(first, head, rev, cap, tree, v, depth, side):
    """The least level of a usable parent of ``v``, which is made its parent; or ``depth``."""
    nearest = depth  # no parent may be at the greatest level
    for a in range(first[v], first[v + 1]):
        height = tree[head[a], _LEVEL] * side
        if 0 < height < nearest and cap[rev[a] if side > 0 else a] > 0:
            nearest = height
            tree[v, _PARENT] = a
    return nearest


@kernel
def _take_along(first, head, rev, cap, tree, lost, n_hung, v, side):
    """Hang the free neighbours of ``v`` on it and append them to the queue."""
    for a in range(first[v], first[v + 1]):
        w = head[a]
        if tree[w, _LEVEL] == 0 and (cap[a] if side > 0 else cap[rev[a]]) > 0:
            tree[w, _LEVEL] = tree[v, _LEVEL] + side
            tree[w, _PARENT] = rev[a]
            lost[n_hung] = w
            n_hung += 1
    return n_hung


@kernel
def _requeue(tree, queues, counts, v):
    """A relabelled node is scanned (again) when it has come to the edge of its forest."""
    height = abs(tree[v, _LEVEL])
    forest = 0 if tree[v, _LEVEL] > 0 else 1
    now = counts[_NOW + forest]
    if height == counts[_EDGE + forest]:
        _enqueue(tree, queues, counts, v, now)
    elif height == counts[_DEPTH + forest]:
        _enqueue(tree, queues, counts, v, 1 - now)
