"""Maximum flow and minimum cut on a sparse graph, by Hochbaum's pseudoflow algorithm.

The graph is stored in forward-star arrays: the arcs that leave node ``v`` are ``first[v]`` to
``first[v + 1] - 1``; arc ``a`` leads to ``head[a]``, has the residual capacity ``cap[a]`` and the
opposite arc ``rev[a]``. ``first`` (N + 1,), ``head`` (A,) and ``rev`` (A,) are int32. Source and
sink are not nodes: ``excess[v] > 0`` is the capacity that the source has left to ``v``, and
``excess[v] < 0`` (a deficit) the capacity that ``v`` has left to the sink.

The nodes form trees, called branches, whose roots hold all excess and deficits.
`hybridseg.kernels.cuts.grid_pseudoflow` explains how excess runs from branch to branch and cites
the papers; it is the same algorithm on pixel grids, which need no lists of arcs. At the end no
deficit can be reached from any excess that is left. That excess may be at another node than before:
the residual problem has the same minimum cuts.

`hybridseg.inference.cuts.moves` calls `build_arcs`, `maxflow` and `source_side` for region graphs
and for moves that are cut from scratch. Each runs on one thread.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import borrowed, inlined_kernel, inner_kernel, kernel
from hybridseg.kernels.cuts.grid_pseudoflow import MIN_DENSE, NEVER

# The arrays of the search, passed one by one because numba counts references to a tuple of arrays
# at every call:
#   parent (N,) uint32   the arc to the parent, or _ROOT
#   label (N,) int32     a lower bound on the number of arcs to the nearest deficit, or NEVER
#   arc (N,) uint32      the first arc that may lead to a node with the next lower label
#   child (N,) uint32    the first arc that may lead to a child that was not visited yet
#   after (N,) int32     the next root in the list of roots with the same label; -1 at the end
#   heads (N + 2,) int32 by label, the first root with excess in its list, or -1
#   count (N + 2,) int32 by label, the number of nodes
_ROOT = np.uint32(2**32 - 1)


@kernel
def build_arcs(n_nodes, i, j, weight):
    """Return the forward-star arrays of an edge list, made by a counting sort.

    ``i`` and ``j`` (E,) int32 are the ends of the edges, with ``0 <= i, j < n_nodes`` and
    ``i != j``, and ``weight`` (E,) their weights. The result is ``first`` (n_nodes + 1,), ``head``
    (2E,) and ``rev`` (2E,), all int32, and the weight of each arc (2E,). The caller guarantees
    ``2 * E < 2**31``.
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
    """Find a maximum flow; ``cap`` and ``excess`` become the residual capacities and excesses.

    ``cap`` (A,) >= 0 and ``excess`` (N,) share one dtype: int64 (exact) or float64 (float32 works
    and rounds more). The result is the flow between nodes with excess and nodes with deficits; flow
    from the source through a single node to the sink is not represented here.
    """
    before = _sums(excess)[0]
    _send_to_neighbors(first, head, rev, cap, excess)
    _, total, n_sources, n_sinks = _sums(excess)
    afresh = min(n_sources, n_sinks) < MIN_DENSE * excess.size
    # Deficits are smaller than excess in sum: the flow in the reversed network has less to search.
    if total > 0:
        _turn(rev, cap, excess)
        _drain(first, head, rev, cap, excess, afresh)
        _turn(rev, cap, excess)
    else:
        _drain(first, head, rev, cap, excess, afresh)
    return before - _sums(excess)[0]


@kernel
def source_side(first, head, cap, excess):
    """Return the smallest source side of a minimum cut, (N,) bool: what the source reaches.

    ``cap`` and ``excess`` are those that `maxflow` left. The source side of every minimum cut
    contains this one.
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
    """Send flow along paths of one arc, which needs no search."""
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
    """Return the sum of excess, excess minus deficits, and the numbers of nodes with either."""
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
    """Reverse the network: exchange the capacities of opposite arcs, and excess and deficits."""
    for a in range(cap.size):
        if a < rev[a]:
            cap[a], cap[rev[a]] = cap[rev[a]], cap[a]
    for v in range(excess.size):
        excess[v] = -excess[v]


@kernel
def _drain(first, head, rev, cap, excess, afresh):
    """Let all excess run that can reach a deficit; return how often a node was lifted.

    ``afresh``: whether to search for all labels again each time N nodes were lifted.
    """
    n_nodes = excess.size
    # Indices are unsigned, because numba tests signed ones for counting from the end of an array.
    first, head = borrowed(first.view(np.uint32)), borrowed(head.view(np.uint32))
    rev, cap, excess = borrowed(rev.view(np.uint32)), borrowed(cap), borrowed(excess)
    parent, arc, child = np.empty((3, n_nodes), np.uint32)
    label, after = np.empty((2, n_nodes), np.int32)
    heads, count = np.empty((2, n_nodes + 2), np.int32)
    highest = _label(first, head, rev, cap, excess, parent, label, arc, child, after, heads, count)
    lifted, search_at = 0, n_nodes
    # Take the root with the highest label until no root with excess is left.
    while highest >= 0:
        root = heads[highest]
        if root < 0:
            highest -= 1
            continue
        heads[highest] = after[root]
        u = np.uint32(root)
        # A gap: no node has the next lower label, so this branch cannot reach a deficit.
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
        # Labels fall behind the distances as arcs are used up; a search makes them exact again.
        if afresh and lifted > search_at:
            search_at = lifted + n_nodes
            highest = _label(
                first, head, rev, cap, excess, parent, label, arc, child, after, heads, count
            )
    return lifted


@inner_kernel
def _label(first, head, rev, cap, excess, parent, label, arc, child, after, heads, count):
    """Make every node a branch, labeled by its distance to the nearest deficit.

    Returns the highest label of a node with excess, or -1.
    """
    queue = after  # the lists of roots are not in use during the search
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
    # Breadth-first search from all deficits, along open arcs backwards.
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
    for v in range(excess.size):  # after the search: the queue and the lists share memory
        if excess[v] > 0 and label[v] != NEVER:
            highest = max(highest, int(label[v]))
            after[v] = heads[label[v]]
            heads[label[v]] = v
    return highest


@inlined_kernel
def _hang(first, head, rev, cap, parent, label, arc, child, count, root):
    """Hang the branch of ``root`` on a node with the next lower label.

    Returns whether an open arc leads there, and how many nodes were lifted. If there is none, all
    nodes of the branch with the label of the root have been lifted by one.
    """
    level = np.int64(label[root])
    u, n_lifted = root, 0
    # Depth-first search for the open arc among the nodes of the branch with the root's label.
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
        # Neither an arc nor a child is left: lift the node and go back to its parent.
        count[level] -= 1
        count[level + 1] += 1
        label[u] = level + 1
        arc[u] = child[u] = first[u]
        n_lifted += 1
        if u == root:
            return False, n_lifted
        u = head[parent[u]]
    # Reverse the path from the node found to the root, so that the branch hangs by this node.
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
    """Let the excess of ``root`` run to the root of the branch on which it hangs now.

    Where an arc has less capacity, the rest stays behind: its node becomes a root with excess.
    """
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
    # The root at the end enters its list if it has excess only now.
    had = excess[v]
    excess[v] = had + runs
    if had <= 0 and had + runs > 0:
        after[v] = heads[label[v]]
        heads[label[v]] = v


@inner_kernel
def _give_up(first, head, rev, parent, label, child, count, root):
    """Give all nodes of the branch of ``root`` the label NEVER: it reaches no deficit."""
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
