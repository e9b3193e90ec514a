"""Maximum flow and minimum cut on a sparse graph, by Hochbaum's pseudoflow algorithm.

The graph lies in forward-star arrays: the arcs that leave node ``v`` are ``first[v]`` to
``first[v + 1] - 1``; arc ``a`` points to ``head[a]``, has the residual capacity ``cap[a]`` and the
opposite arc ``rev[a]``. Terminals are not nodes: ``excess[v] > 0`` is what the source can still
send into ``v``, ``excess[v] < 0`` what ``v`` can still send to the sink.

The nodes form trees, the branches, whose roots hold all excess and deficits; how excess runs down
from branch to branch is told in ``_grid_pseudoflow.py``, which does the same on pixel grids, where
arcs need no lists. What stays is excess from which no deficit can be reached, maybe at another
node than before: a residual problem with the same minimum cuts. Its references hold here.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import borrowed, inlined_kernel, inner_kernel, kernel
from hybridseg.kernels.cuts.grid_pseudoflow import MANY, NEVER

# Arrays are passed one by one: a tuple of arrays costs numba a reference count at every call.
# Those of the search, by node: ``parent``, the arc to the parent or _ROOT; ``label``, at most so
# many arcs lead to a deficit; ``arc`` and ``child``, the first arc that may lead to a lower label,
# and to a child that was not looked at yet; ``after``, the root after this one in the list of its
# label, -1 at the end. By label: ``heads``, the first root in its list or -1, and ``count``, nodes.
_ROOT = np.uint32(2**32 - 1)


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
    source to sink is the caller's constant).
    """
    before = _sums(excess)[0]
    _send_to_neighbors(first, head, rev, cap, excess)
    _, total, n_sources, n_sinks = _sums(excess)
    afresh = min(n_sources, n_sinks) < MANY * excess.size
    if total > 0:  # less is wanted than there is
        _turn(rev, cap, excess)
        _drain(first, head, rev, cap, excess, afresh)
        _turn(rev, cap, excess)
    else:
        _drain(first, head, rev, cap, excess, afresh)
    return before - _sums(excess)[0]


@kernel
def source_side(first, head, cap, excess):
    """The smallest minimum cut: the nodes that the source reaches, (N,) bool.

    ``cap`` and ``excess`` are what `maxflow` left. Every minimum cut's source side contains it.
    """
    reached = excess > 0
    queue = np.empty(excess.size, np.int32)
    n_queued, position = 0, 0
    for v in range(excess.size):
        if reached[v]:
            queue[n_queued] = v
            n_queued += 1
    while position < n_queued:
        v = queue[position]
        position += 1
        for a in range(first[v], first[v + 1]):
            w = head[a]
            if not reached[w] and cap[a] > 0:
                reached[w] = True
                queue[n_queued] = w
                n_queued += 1
    return reached


@inner_kernel
def _send_to_neighbors(first, head, rev, cap, excess):
    """Send along every path of one arc, which needs no search."""
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


@inner_kernel
def _sums(excess):
    """All excess, what it exceeds the deficits by, and how many nodes have excess, or a deficit."""
    nothing = excess.dtype.type(0)
    positive, total, n_sources, n_sinks = nothing, nothing, 0, 0
    for v in range(excess.size):
        positive += max(excess[v], nothing)
        total += excess[v]
        n_sources += excess[v] > 0
        n_sinks += excess[v] < 0
    return positive, total, n_sources, n_sinks


@inner_kernel
def _turn(rev, cap, excess):
    """Turn all arcs round, and excess into deficits."""
    for a in range(cap.size):
        if a < rev[a]:
            cap[a], cap[rev[a]] = cap[rev[a]], cap[a]
    for v in range(excess.size):
        excess[v] = -excess[v]


@kernel
def _drain(first, head, rev, cap, excess, afresh):
    """Let all excess run that can reach a deficit; returns how many nodes were lifted, all told.

    ``afresh`` searches for labels again whenever as many nodes were lifted as there are.
    """
    n_nodes = excess.size
    # Unsigned numbers are never asked whether they count from an array's end.
    first, head = borrowed(first.view(np.uint32)), borrowed(head.view(np.uint32))
    rev, cap, excess = borrowed(rev.view(np.uint32)), borrowed(cap), borrowed(excess)
    parent, arc, child = np.empty((3, n_nodes), np.uint32)
    label, after = np.empty((2, n_nodes), np.int32)
    heads, count = np.empty((2, n_nodes + 2), np.int32)
    highest = _label(first, head, rev, cap, excess, parent, label, arc, child, after, heads, count)
    lifted, search_at = 0, n_nodes
    while highest >= 0:
        root = heads[highest]
        if root < 0:
            highest -= 1
            continue
        heads[highest] = after[root]
        u = np.uint32(root)
        if highest > 0 and count[highest - 1] == 0:
            _give_up(first, head, rev, parent, label, child, count, u)
            continue
        hangs, n_lifted = _hang(first, head, rev, cap, parent, label, arc, child, count, u)
        lifted += n_lifted
        if hangs:
            _run_down(head, rev, cap, excess, parent, label, after, heads, u)
        elif count[highest] == 0:
            _give_up(first, head, rev, parent, label, child, count, u)
        else:
            highest += 1
            after[u] = heads[highest]
            heads[highest] = root
        if afresh and lifted > search_at:
            search_at = lifted + n_nodes
            highest = _label(
                first, head, rev, cap, excess, parent, label, arc, child, after, heads, count
            )
    return lifted


@inner_kernel
def _label(first, head, rev, cap, excess, parent, label, arc, child, after, heads, count):
    """Make every node a branch, labeled by its distance to a deficit; the highest with excess."""
    queue = after
    heads[:] = -1
    count[:] = 0
    n_seen, at = 0, 0
    for v in range(excess.size):
        parent[v] = _ROOT
        arc[v] = child[v] = first[v]
        label[v] = NEVER
        if excess[v] < 0:
            label[v] = 0
            queue[n_seen] = v
            n_seen += 1
    while at < n_seen:
        u = np.uint64(queue[at])
        at += 1
        further = label[u] + 1
        count[further - 1] += 1
        for a in range(first[u], first[u + np.uint64(1)]):
            w = head[a]
            if label[w] == NEVER and cap[rev[a]] > 0:
                label[w] = further
                queue[n_seen] = w
                n_seen += 1
    highest = -1
    for v in range(excess.size):  # only now, as the queue lay where the lists are
        if excess[v] > 0 and label[v] != NEVER:
            highest = max(highest, int(label[v]))
            after[v] = heads[label[v]]
            heads[label[v]] = v
    return highest


@inlined_kernel
def _hang(first, head, rev, cap, parent, label, arc, child, count, root):
    """Hang the branch of ``root`` on a node of the next lower label, turned round.

    Returns False where no arc leads there, the nodes of the root's label are all lifted then; and
    how many nodes were lifted.
    """
    level = np.int64(label[root])
    u, n_lifted = root, 0
    while True:
        stop = first[u + np.uint32(1)]
        a = arc[u]
        while a < stop and not (cap[a] > 0 and label[head[a]] == level - 1):
            a = np.uint32(a + np.uint32(1))
        arc[u] = a
        if a < stop:
            break
        a = child[u]
        while a < stop and not (parent[head[a]] == rev[a] and label[head[a]] == level):
            a = np.uint32(a + np.uint32(1))
        if a < stop:
            child[u] = a + np.uint32(1)
            u = head[a]
            continue
        count[level] -= 1
        count[level + 1] += 1
        label[u] = level + 1
        arc[u] = child[u] = first[u]
        n_lifted += 1
        if u == root:
            return False, n_lifted
        u = head[parent[u]]
    to_parent = a
    while True:
        before = parent[u]
        parent[u] = to_parent
        child[u] = first[u]
        if u == root:
            return True, n_lifted
        to_parent = rev[before]
        u = head[before]


@inlined_kernel
def _run_down(head, rev, cap, excess, parent, label, after, heads, root):
    """Let the excess of ``root`` run to the root of the branch on which it hangs now."""
    nothing = excess.dtype.type(0)
    v = root
    runs = excess[v]
    excess[v] = nothing
    while parent[v] != _ROOT:
        a = parent[v]
        room = cap[a]
        stays = max(runs - room, nothing)
        runs = min(runs, room)
        cap[a] = room - runs
        cap[rev[a]] += runs
        if stays > 0:
            parent[v] = _ROOT
            excess[v] = stays
            after[v] = heads[label[v]]
            heads[label[v]] = v
            if runs == 0:
                return
        v = head[a]
    had = excess[v]
    excess[v] = had + runs
    if had <= 0 and had + runs > 0:
        after[v] = heads[label[v]]
        heads[label[v]] = v


@inner_kernel
def _give_up(first, head, rev, parent, label, child, count, root):
    """Label the branch of ``root`` as one that reaches no deficit."""
    u = root
    child[u] = first[u]
    while True:
        stop = first[u + np.uint32(1)]
        a = child[u]
        while a < stop and parent[head[a]] != rev[a]:
            a = np.uint32(a + np.uint32(1))
        if a < stop:
            child[u] = a + np.uint32(1)
            u = head[a]
            child[u] = first[u]
            continue
        count[label[u]] -= 1
        label[u] = NEVER
        if u == root:
            return
        u = head[parent[u]]
