"""Expansion moves of Potts energies [1]_ (section 5) that keep their flows from cut to cut.

The flows are dual variables as in [2]_ (section 3): a cut repairs what the moves before it changed,
as in [3]_. Each edge e = (p, q), p < q, has a flow f_e(l) for each label l, which moves cost from
one end to the other and leaves the energy of every labeling as it is:

    height_p(l) = unary_p(l) + sum of f_e(l) over e = (p, q) - sum of f_e(l) over e = (q, p),
    residual cost of e for labels a != b:  w_e - f_e(a) + f_e(b);    for a = b:  0.

For the current labels x, ``own_p`` is height_p(x_p) plus half of the residual cost of each cut edge
of p. A move to alpha is a minimum cut in which p has the excess own_p - height_p(alpha) (plus the
other halves of its edges to nodes with alpha) and the arcs of an edge have the capacities

    p to q:  top - f_e(alpha),     q to p:  f_e(alpha) - bottom,

with [bottom, top] = [f(x_p) - w, f(x_p) + w] if x_p = x_q, and otherwise
top = floor((w + f(x_p) + f(x_q)) / 2), bottom = top - w. If no node has excess for a label, the
move cannot lower the energy, and no search is needed. Flow that is sent changes f_e(alpha) and is
kept. After a change of labels, only nodes near it can have excess again.

All is exact: ``flow`` (L, E), ``height`` (L, N), ``cap`` (A,) and ``rest`` (N,) are integers of one
dtype, int32 or int64. Arcs are those of `hybridseg.kernels.cuts.maxflow.build_arcs`; ``edge`` (A,)
int32 is the edge of each arc, ``weight`` (A,) and ``own`` (N,) are int64, ``labels`` (N,) int32.

`hybridseg.inference.cuts.flows` calls these kernels. Several of its threads may run `expand_label`
at a time for different labels, without moves.

References
----------
.. [1] Y. Boykov, O. Veksler, R. Zabih, "Fast approximate energy minimization via graph cuts", IEEE
   Transactions on Pattern Analysis and Machine Intelligence 23(11), 2001.
.. [2] N. Komodakis, G. Tziritas, N. Paragios, "Performance vs computational efficiency for
   optimizing single and dynamic MRFs", Computer Vision and Image Understanding 112(1), 2008.
.. [3] P. Kohli, P. H. S. Torr, "Dynamic graph cuts for efficient inference in Markov random
   fields", IEEE Transactions on Pattern Analysis and Machine Intelligence 29(12), 2007.
.. [4] Y. Boykov, V. Kolmogorov, "An experimental comparison of min-cut/max-flow algorithms for
   energy minimization in vision", IEEE Transactions on Pattern Analysis and Machine Intelligence
   26(9), 2004.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel

# The columns of ``tree`` (N, 4) int32, the state of each node in the search.
_STATE = 0
_PARENT = 1  # the arc to the parent; _ROOT: has excess itself; _ORPHAN: waits for a parent
_DISTANCE = 2  # the number of nodes to the root, 1 at a root, at the time _TIME
_TIME = 3  # the number of the augmentation after which the path to the root was last walked
_UNSEEN, _FREE, _IN_TREE = -1, 0, 1  # states
_ROOT, _ORPHAN = -1, -2  # parents

# The rows of ``lists`` (3, N) int32: the nodes seen, and two rings: nodes to scan, and orphans.
_SEEN, _QUEUE, _ORPHANS = 0, 1, 2

# ``counts`` (5,) int64: for each ring its first place and its length, at 2 * ring - 2, and the
# number of augmentations.
_NOW = 4

#: The number of sweeps that carry excess along before the search, and the largest number of nodes
#: per node with excess for which they are made.
_N_SWEEPS = 4
_MAX_NODES_PER_EXCESS = 512


@kernel
def _window(flow, weight, labels, lower, upper, e):
    """Return bottom and top of edge ``e``, and the halves of its cost in ``own`` at both ends."""
    at_lower = np.int64(flow[labels[lower], e])
    if labels[lower] == labels[upper]:
        return at_lower - weight, at_lower + weight, np.int64(0), np.int64(0)
    at_upper = np.int64(flow[labels[upper], e])
    top = (weight + at_lower + at_upper) >> 1
    return top - weight, top, top - at_lower, at_upper + weight - top


@kernel
def _halves(flow, weight, labels, v, w, e):
    """Return the halves of the residual cost of a cut edge at ``v`` and at its neighbor ``w``."""
    if v < w:
        _, _, mine, theirs = _window(flow, weight, labels, v, w, e)
    else:
        _, _, theirs, mine = _window(flow, weight, labels, w, v, e)
    return mine, theirs


@kernel
def own_heights(first, head, edge, weight, flow, height, labels, own, most):
    """Write ``own`` (N,), and ``most`` (N,) int64: excess is at most ``most`` minus height."""
    for v in range(labels.size):
        own[v] = _own(first, head, edge, weight, flow, height, labels, v)
        most[v] = own[v]
        for a in range(first[v], first[v + 1]):
            if labels[head[a]] != labels[v]:
                most[v] += _halves(flow, weight[a], labels, v, np.int64(head[a]), edge[a])[1]


@kernel
def _own(first, head, edge, weight, flow, height, labels, v):
    """Return ``own`` of node ``v``."""
    total = np.int64(height[labels[v], v])
    for a in range(first[v], first[v + 1]):
        if labels[head[a]] != labels[v]:
            total += _halves(flow, weight[a], labels, v, np.int64(head[a]), edge[a])[0]
    return total


@kernel
def _excess(first, head, edge, weight, flow, height, labels, own, v, alpha):
    """Return the excess of ``v`` in a move to ``alpha``; if negative, what it can take."""
    total = own[v] - height[alpha, v]
    for a in range(first[v], first[v + 1]):
        if labels[head[a]] == alpha:  # the move saves the other half as well
            total += _halves(flow, weight[a], labels, v, np.int64(head[a]), edge[a])[1]
    return total


@kernel
def expand_label(
    first, head, rev, edge, weight, flow, height, labels, own,
    alpha, nodes, cap, tree, rest, lists, marked, move,
):  # fmt: skip
    """Make the best move of an expansion: keep the label, or take ``alpha``.

    ``nodes`` (M,) int32 contains all nodes that may have excess, in any order, maybe repeatedly.
    With ``move``, ``labels`` are changed, and flow is kept in ``flow`` and ``height``; call
    `refresh` afterwards. If the energy is equal, a node keeps its label. Returns how many nodes
    changed (``lists[1, :n]``) and how many nodes the search reached.

    Without ``move`` flow is kept, but no label changes, and the nodes that still have excess are
    returned. Only rows ``alpha`` of ``flow`` and ``height`` are written, in places that searches
    for other labels do not read. So several threads can do this at a time, each for its own label
    in its own working space.

    The working space, which is ready for the next move afterwards: ``cap`` and ``rest``, ``tree``
    (all states -1), ``lists``, and ``marked`` (N,) bool (all false).

    A forest grows from the nodes with excess, and flow is sent along its branches. A node that a
    saturated arc cuts off hangs on one of its neighbors then [4]_, so distances are not exact;
    exact ones would require moving many more nodes. The graph is made only where the search comes.
    """
    # Find the nodes with excess; without any, the move cannot lower the energy.
    n_seen = 0
    for k in range(nodes.size):
        v = np.int64(nodes[k])
        if labels[v] == alpha or tree[v, _STATE] != _UNSEEN:
            continue
        if _excess(first, head, edge, weight, flow, height, labels, own, v, alpha) > 0:
            _see(
                first, head, rev, edge, weight, flow, height, labels, own, alpha, cap, tree, rest, v
            )
            lists[_SEEN, n_seen] = v
            n_seen += 1
    if n_seen == 0:
        return 0, 0
    if n_seen * _MAX_NODES_PER_EXCESS >= labels.size:
        for sweep in range(_N_SWEEPS):
            n_seen = _carry(
                first, head, rev, edge, weight, flow, height, labels, own,
                alpha, cap, tree, rest, lists, n_seen, sweep,
            )  # fmt: skip
    n_seen = _search(
        first, head, rev, edge, weight, flow, height, labels, own,
        alpha, cap, tree, rest, lists, marked, n_seen,
    )  # fmt: skip
    # Keep the flow, change the labels of the forest's nodes, and clear the working space.
    seen = lists[_SEEN, :n_seen]
    _keep_flow(first, head, edge, weight, flow, height, labels, alpha, cap, tree, seen)
    n_changed = 0
    for k in range(n_seen):
        v = seen[k]
        if tree[v, _STATE] == _IN_TREE if move else rest[v] > 0:
            labels[v] = alpha if move else labels[v]
            lists[_QUEUE, n_changed] = v
            n_changed += 1
        tree[v, _STATE] = _UNSEEN
    return n_changed, n_seen


@kernel
def _see(first, head, rev, edge, weight, flow, height, labels, own, alpha, cap, tree, rest, v):
    """Make the graph of the move at ``v``: its excess, and its arcs to nodes not seen before."""
    rest[v] = _excess(first, head, edge, weight, flow, height, labels, own, v, alpha)
    for a in range(first[v], first[v + 1]):
        w = np.int64(head[a])
        if labels[w] == alpha:
            cap[a] = 0
        elif tree[w, _STATE] == _UNSEEN:
            e = edge[a]
            bottom, top, _, _ = _window(flow, weight[a], labels, min(v, w), max(v, w), e)
            up, down = top - flow[alpha, e], flow[alpha, e] - bottom
            cap[a] = up if v < w else down
            cap[rev[a]] = down if v < w else up
    tree[v, _STATE] = _FREE
    tree[v, _TIME] = 0


@kernel
def _keep_flow(first, head, edge, weight, flow, height, labels, alpha, cap, tree, seen):
    """Add the flow that was sent between nodes that were seen to ``flow`` and ``height``."""
    for k in range(seen.size):
        v = np.int64(seen[k])
        for a in range(first[v], first[v + 1]):
            w = np.int64(head[a])
            if v < w and labels[w] != alpha and tree[w, _STATE] != _UNSEEN:
                e = edge[a]
                _, top, _, _ = _window(flow, weight[a], labels, v, w, e)
                sent = top - cap[a] - flow[alpha, e]
                flow[alpha, e] += sent
                height[alpha, v] += sent
                height[alpha, w] -= sent


@kernel
def _carry(
    first, head, rev, edge, weight, flow, height, labels, own,
    alpha, cap, tree, rest, lists, n_seen, sweep,
):  # fmt: skip
    """Let each node in turn pass its excess on to nodes that come later in the sweep.

    Even sweeps run forward, odd ones backward. The last two take the arcs in reverse order (down a
    column if the first two went along a row). Most excess meets a deficit without a search in this
    way. Returns how many nodes were seen.
    """
    n_nodes = labels.size
    forward = sweep % 2 == 0
    for step in range(n_nodes):
        v = step if forward else n_nodes - 1 - step
        if tree[v, _STATE] == _UNSEEN or rest[v] <= 0:
            continue
        start, stop = np.int64(first[v]), np.int64(first[v + 1])
        for k in range(stop - start):
            a = start + k if sweep < 2 else stop - 1 - k
            w = np.int64(head[a])
            if (w > v) != forward or cap[a] <= 0:
                continue
            if tree[w, _STATE] == _UNSEEN:
                _see(
                    first, head, rev, edge, weight, flow, height, labels, own,
                    alpha, cap, tree, rest, w,
                )  # fmt: skip
                lists[_SEEN, n_seen] = w
                n_seen += 1
            room = min(cap[a], rest[v])
            cap[a] -= room
            cap[rev[a]] += room
            rest[v] -= room
            rest[w] += room
            if rest[v] == 0:
                break
    return n_seen


@kernel
def _search(
    first, head, rev, edge, weight, flow, height, labels, own,
    alpha, cap, tree, rest, lists, marked, n_seen,
):  # fmt: skip
    """Find the maximum flow; the nodes that remaining excess reaches are left in the forest.

    Returns how many nodes were seen.
    """
    counts = np.zeros(5, np.int64)
    for k in range(n_seen):
        v = np.int64(lists[_SEEN, k])
        if rest[v] > 0:
            tree[v, _STATE] = _IN_TREE
            tree[v, _PARENT] = _ROOT
            tree[v, _DISTANCE] = 1
            _scan_later(lists, counts, marked, v)
    # Scan the nodes of the forest: an open arc leads to a deficit (augment, and try it again), to a
    # free node (it joins the forest), or to a node that may get nearer to a root.
    while counts[1] > 0:
        v = _take(lists, counts, _QUEUE)
        marked[v] = False
        a = np.int64(first[v])
        while a < first[v + 1] and tree[v, _STATE] == _IN_TREE:
            if cap[a] <= 0:
                a += 1
                continue
            w = np.int64(head[a])
            if tree[w, _STATE] == _UNSEEN:
                _see(
                    first, head, rev, edge, weight, flow, height, labels, own,
                    alpha, cap, tree, rest, w,
                )  # fmt: skip
                lists[_SEEN, n_seen] = w
                n_seen += 1
            if rest[w] < 0:
                _augment(first, head, rev, cap, tree, rest, lists, counts, marked, v, a)
                continue
            if tree[w, _STATE] == _FREE:
                tree[w, _STATE] = _IN_TREE
                _hang(tree, w, rev[a], v)
                _scan_later(lists, counts, marked, w)
            elif (
                tree[w, _DISTANCE] > tree[v, _DISTANCE]
                and tree[w, _TIME] <= tree[v, _TIME]
                and tree[w, _PARENT] != _ROOT
            ):
                _hang(tree, w, rev[a], v)  # nearer to a root, as far as is known
            a += 1
    return n_seen


@kernel
def _hang(tree, v, a, parent):
    """Hang ``v`` by its arc ``a`` on ``parent``."""
    tree[v, _PARENT] = a
    tree[v, _TIME] = tree[parent, _TIME]
    tree[v, _DISTANCE] = tree[parent, _DISTANCE] + 1


@kernel
def _put(lists, counts, ring, v):
    """Append ``v`` to a ring of ``lists``."""
    place = counts[2 * ring - 2] + counts[2 * ring - 1]
    n_places = lists.shape[1]
    lists[ring, place if place < n_places else place - n_places] = v
    counts[2 * ring - 1] += 1


@kernel
def _take(lists, counts, ring):
    """Remove the first node of a ring."""
    place = counts[2 * ring - 2]
    counts[2 * ring - 2] = place + 1 if place + 1 < lists.shape[1] else 0
    counts[2 * ring - 1] -= 1
    return np.int64(lists[ring, place])


@kernel
def _scan_later(lists, counts, marked, v):
    """Append ``v`` to the nodes to scan, unless it is there already."""
    if not marked[v]:
        marked[v] = True
        _put(lists, counts, _QUEUE, v)


@kernel
def _augment(first, head, rev, cap, tree, rest, lists, counts, marked, v, bridge):
    """Send the bottleneck from the root of ``v`` along arc ``bridge`` to a deficit, and adopt."""
    w = head[bridge]
    room = min(cap[bridge], -rest[w])
    u = v
    a = np.int64(tree[u, _PARENT])
    while a != _ROOT:
        room = min(room, cap[rev[a]])
        u = np.int64(head[a])
        a = np.int64(tree[u, _PARENT])
    room = min(room, rest[u])
    cap[bridge] -= room
    cap[rev[bridge]] += room
    rest[w] += room
    rest[u] -= room
    u = v
    a = np.int64(tree[u, _PARENT])
    while a != _ROOT:
        cap[a] += room
        cap[rev[a]] -= room
        if cap[rev[a]] <= 0:
            _orphan(tree, lists, counts, u)
        u = np.int64(head[a])
        a = np.int64(tree[u, _PARENT])
    if rest[u] == 0:
        _orphan(tree, lists, counts, u)
    counts[_NOW] += 1
    while counts[3] > 0:
        _adopt(first, head, rev, cap, tree, lists, counts, marked, _take(lists, counts, _ORPHANS))


@kernel
def _orphan(tree, lists, counts, v):
    """Append ``v`` to the nodes that wait for a parent."""
    tree[v, _PARENT] = _ORPHAN
    _put(lists, counts, _ORPHANS, v)


@kernel
def _adopt(first, head, rev, cap, tree, lists, counts, marked, v):
    """Hang ``v`` on the neighbor that is nearest to a root, or set it free.

    If it is set free, its children become orphans, and neighbors that can reach it scan again.
    """
    nearest, parent = np.int64(first.size), np.int64(-1)
    for a in range(first[v], first[v + 1]):
        w = np.int64(head[a])
        if tree[w, _STATE] == _IN_TREE and cap[rev[a]] > 0:
            distance = _distance(head, tree, w, counts[_NOW])
            if 0 < distance < nearest:
                nearest, parent = distance, np.int64(a)
    if parent >= 0:
        tree[v, _PARENT] = parent
        tree[v, _TIME] = counts[_NOW]
        tree[v, _DISTANCE] = nearest + 1
        return
    tree[v, _STATE] = _FREE
    for a in range(first[v], first[v + 1]):
        w = np.int64(head[a])
        if tree[w, _STATE] == _IN_TREE:
            if cap[rev[a]] > 0:  # it may reach ``v`` later
                _scan_later(lists, counts, marked, w)
            if tree[w, _PARENT] == rev[a]:
                _orphan(tree, lists, counts, w)


@kernel
def _distance(head, tree, v, now):
    """Return the distance of ``v`` from its root, from 1, or 0 if its branch hangs on an orphan.

    It is stored at all nodes on the way, so that no node is walked over twice in an augmentation.
    """
    distance, u = np.int64(0), v
    while tree[u, _TIME] != now:
        distance += 1
        a = np.int64(tree[u, _PARENT])
        if a == _ORPHAN:
            return np.int64(0)
        if a == _ROOT:
            tree[u, _TIME] = now
            tree[u, _DISTANCE] = 1
            distance -= 1
            break
        u = np.int64(head[a])
    distance += tree[u, _DISTANCE]
    found, u = distance, v
    while tree[u, _TIME] != now:
        tree[u, _TIME] = now
        tree[u, _DISTANCE] = distance
        distance -= 1
        u = np.int64(head[tree[u, _PARENT]])
    return found


@kernel
def refresh(first, head, edge, weight, flow, height, labels, own, changed, marked, touched):
    """Update ``flow``, ``height`` and ``own`` after the labels of ``changed`` (M,) have changed.

    Flows of their edges are clipped to the new intervals. ``touched`` (N,) int32 receives these
    nodes and their neighbors, once each: all whose excess may have grown for any label. Returns how
    many these are. ``marked`` (N,) bool is all false before and after.
    """
    n_touched = 0
    for k in range(changed.size):
        v = np.int64(changed[k])
        _bring_back(first, head, edge, weight, flow, height, labels, v)
        if not marked[v]:
            marked[v] = True
            touched[n_touched] = v
            n_touched += 1
        for a in range(first[v], first[v + 1]):
            if not marked[head[a]]:
                marked[head[a]] = True
                touched[n_touched] = head[a]
                n_touched += 1
    for k in range(n_touched):
        v = np.int64(touched[k])
        marked[v] = False
        own[v] = _own(first, head, edge, weight, flow, height, labels, v)
    return n_touched


@kernel
def fit_flows(first, head, edge, weight, flow, height, labels):
    """Clip the flows of edges between different labels to their intervals, for any labels.

    For other edges, flows of at most half the weight fit always, and message passing leaves such.
    """
    for v in range(labels.size):
        for a in range(first[v], first[v + 1]):
            w = np.int64(head[a])
            if v < w and labels[v] != labels[w]:
                _fit(flow, height, labels, weight[a], v, w, edge[a])


@kernel
def _bring_back(first, head, edge, weight, flow, height, labels, v):
    """Clip the flows of the edges of ``v`` to their intervals."""
    for a in range(first[v], first[v + 1]):
        w = np.int64(head[a])
        _fit(flow, height, labels, weight[a], min(v, w), max(v, w), edge[a])


@kernel
def _fit(flow, height, labels, weight, lower, upper, e):
    """Clip the flows of edge ``e`` to its interval, and shift the interval to be around 0."""
    bottom, top, _, _ = _window(flow, weight, labels, lower, upper, e)
    middle = (bottom + top) >> 1  # the same for all labels, so no difference of costs changes
    for label in range(flow.shape[0]):
        before = np.int64(flow[label, e])
        after = max(bottom, min(top, before)) - middle
        flow[label, e] = after
        height[label, lower] += after - before
        height[label, upper] -= after - before
