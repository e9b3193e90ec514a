"""Expansion moves that keep their flows: a cut only has to mend what the last moves changed.

Every edge e = (p, q), p < q, carries a flow f_e(l) for each label l, which moves cost between its
ends and changes no labeling's energy:

    height_p(l) = unary_p(l) + the sum of f_e(l) where p < q, of - f_e(l) where p is the upper end;
    what is left of the edge, for labels a != b: w_e - f_e(a) + f_e(b);   for a = b: 0

With respect to the current labels x, ``own_p`` is height_p(x_p) plus half of what is left of each
cut edge of p. A move to label alpha is then a minimum cut in which p holds the excess
own_p - height_p(alpha) and the arcs have the residual capacities

    p to q: top - f_e(alpha),   q to p: f_e(alpha) - bottom

where [bottom, top] is [f(x_p) - w, f(x_p) + w] if x_p = x_q, and otherwise w wide and as far from
w + f(x_q) as from f(x_p) (rounded). So a label of which no node holds excess cannot lower the
energy, and finding that costs nothing; sending flow away changes f_e(alpha), which stays. Only the
nodes around a change of labels can come to hold excess again, and only they are looked at.

All is exact: ``flow`` (L, E) and ``height`` (L, N) are integers of one dtype, int32 or int64. A
move reads two labels at neighboring nodes, so labels come first.

References
----------
Boykov, Veksler and Zabih, "Fast approximate energy minimization via graph cuts", PAMI 23(11), 2001,
section 5. Komodakis, Tziritas and Paragios, "Performance vs computational efficiency for optimizing
single and dynamic MRFs", CVIU 112(1), 2008, section 3 (flows kept from cut to cut as dual
variables). Kohli and Torr, "Dynamic graph cuts for efficient inference in Markov random fields",
PAMI 29(12), 2007. Boykov and Kolmogorov, "An experimental comparison of min-cut/max-flow
algorithms for energy minimization in vision", PAMI 26(9), 2004, section 3 (adoption of orphans).
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel

# ``tree`` (N, 4) int32: what the search knows of each node
_STATE = 0
_PARENT = 1  # the arc to the parent; _ROOT: holds excess itself; _ORPHAN: waits for a parent
_DISTANCE = 2  # to the root, from 1, as it was at _TIME
_TIME = 3  # the number of the augmentation at which the path to the root was last walked
_UNSEEN, _FREE, _IN_TREE = -1, 0, 1  # states
_ROOT, _ORPHAN = -1, -2  # parents

# ``lists`` (3, N) int32: the nodes seen, and two rings: nodes to scan, orphans
_SEEN, _QUEUE, _ORPHANS = 0, 1, 2

# ``counts`` (5,) int64: where each ring begins and how many it holds, at 2 * (ring - 1), and the
# number of augmentations
_NOW = 4

#: Before the search, excess is carried through the nodes in so many sweeps, where at least one node
#: in so many holds excess.
_N_SWEEPS = 4
_FEW = 512


@kernel
def _window(flow, weight, labels, lower, upper, e):
    """The least and the greatest flow of edge ``e`` for a label that neither end has.

    And what of the edge's cost ``own`` holds at the lower and at the upper end.
    """
    at_lower = np.int64(flow[labels[lower], e])
    if labels[lower] == labels[upper]:
        return at_lower - weight, at_lower + weight, np.int64(0), np.int64(0)
    at_upper = np.int64(flow[labels[upper], e])
    top = (weight + at_lower + at_upper) >> 1
    return top - weight, top, top - at_lower, at_upper + weight - top


@kernel
def _halves(flow, weight, labels, v, w, e):
    """What ``own`` holds of a cut edge at ``v`` and at its neighbor ``w``."""
    if v < w:
        _, _, mine, theirs = _window(flow, weight, labels, v, w, e)
    else:
        _, _, theirs, mine = _window(flow, weight, labels, w, v, e)
    return mine, theirs


@kernel
def own_heights(first, head, edge, weight, flow, height, labels, own, most):
    """Write ``own`` (N,) int64, as the module says; no excess is above ``most`` (N,) - height."""
    for v in range(labels.size):
        own[v] = _own(first, head, edge, weight, flow, height, labels, v)
        most[v] = own[v]
        for a in range(first[v], first[v + 1]):
            if labels[head[a]] != labels[v]:
                most[v] += _halves(flow, weight[a], labels, v, np.int64(head[a]), edge[a])[1]


@kernel
def _own(first, head, edge, weight, flow, height, labels, v):
    total = np.int64(height[labels[v], v])
    for a in range(first[v], first[v + 1]):
        if labels[head[a]] != labels[v]:
            total += _halves(flow, weight[a], labels, v, np.int64(head[a]), edge[a])[0]
    return total


@kernel
def _excess(first, head, edge, weight, flow, height, labels, own, v, alpha):
    """The excess of ``v`` in a move to ``alpha``; negative: what it can take."""
    total = own[v] - height[alpha, v]
    for a in range(first[v], first[v + 1]):
        if labels[head[a]] == alpha:  # the other half of the edge is saved as well
            total += _halves(flow, weight[a], labels, v, np.int64(head[a]), edge[a])[1]
    return total


@kernel
def expand_label(
    first, head, rev, edge, weight, flow, height, labels, own,
    alpha, nodes, cap, tree, rest, lists, marked, move,
):  # fmt: skip
    """Make the best move "keep the label or take ``alpha``", where few nodes hold excess.

    ``nodes`` (M,) int32 name, in any order and maybe twice, all that may hold excess. ``labels``
    (N,) are changed, and what is sent is kept in ``flow`` and ``height``; then call `refresh`.
    Where the energy does not decide, a node keeps its label. Returns how many changed (they are
    ``lists[1, :n]``) and how many the search came to.

    If not to ``move``, what is sent is kept, and nothing else: the nodes that still hold excess are
    returned instead. Of ``flow`` and ``height`` only rows of ``alpha`` are written, and there
    only what no search for another label reads, so several threads can do this at a time, each for
    its own label and in its own working space.

    ``cap`` (A,) and ``rest`` (N,) of the dtype of ``flow``, ``tree`` (N, 4) int32, all -1,
    ``lists`` (3, N) int32 and ``marked`` (N,) bool, all false, are working space, and fit for the
    next move afterwards.

    A forest grows from the nodes with excess, and excess is sent along its branches. What a
    saturated arc cuts off is hung on any other branch, near or far from its root: to keep exact
    distances, many times as many nodes would have to be moved. Of the move's graph no more is made
    than the search comes to.
    """
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
    if n_seen * _FEW >= labels.size:
        for sweep in range(_N_SWEEPS):
            n_seen = _carry(
                first, head, rev, edge, weight, flow, height, labels, own,
                alpha, cap, tree, rest, lists, n_seen, sweep,
            )  # fmt: skip
    n_seen = _search(
        first, head, rev, edge, weight, flow, height, labels, own,
        alpha, cap, tree, rest, lists, marked, n_seen,
    )  # fmt: skip
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
    """Write down what the move's graph has at ``v``, which the search has come to."""
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
    """Take over what was sent along arcs between nodes that were seen."""
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

    Even sweeps run forward, odd ones backward; the second two try the arcs in the other order
    (down a column where the first two went along a row). Most excess so meets what takes it,
    bundled, and without a search. Returns how many nodes are seen.
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
    """Send all excess that can be taken; what stays reaches the nodes of the forest."""
    counts = np.zeros(5, np.int64)
    for k in range(n_seen):
        v = np.int64(lists[_SEEN, k])
        if rest[v] > 0:
            tree[v, _STATE] = _IN_TREE
            tree[v, _PARENT] = _ROOT
            tree[v, _DISTANCE] = 1
            _scan_later(lists, counts, marked, v)
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
                _hang(tree, w, rev[a], v)  # nearer to a root, if what is known still holds
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
    """Let ``v`` be scanned (again), unless it waits for that already."""
    if not marked[v]:
        marked[v] = True
        _put(lists, counts, _QUEUE, v)


@kernel
def _augment(first, head, rev, cap, tree, rest, lists, counts, marked, v, bridge):
    """Send the bottleneck from the root of ``v`` over ``bridge``, whose head can take it."""
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
    """Let ``v`` wait for a parent."""
    tree[v, _PARENT] = _ORPHAN
    _put(lists, counts, _ORPHANS, v)


@kernel
def _adopt(first, head, rev, cap, tree, lists, counts, marked, v):
    """Hang ``v`` on the neighbor that is nearest to a root, or set it and its children free."""
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
            if cap[rev[a]] > 0:  # it may come to reach ``v`` again
                _scan_later(lists, counts, marked, w)
            if tree[w, _PARENT] == rev[a]:
                _orphan(tree, lists, counts, w)


@kernel
def _distance(head, tree, v, now):
    """How far the root of ``v`` is, from 1, or 0 where its branch hangs on an orphan.

    What is found is written to all nodes on the way, so that each is walked over once at a time.
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
    """Put ``flow``, ``height`` and ``own`` right after the labels of ``changed`` (M,) changed.

    Flows of their edges that no longer fit are brought back into the new windows. ``touched`` (N,)
    int32 is filled with those nodes and their neighbors, once each: all whose excess may have
    grown, for any label. Returns how many they are. ``marked`` (N,) bool is false before and after.
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
    """Bring the flows of edges between different labels into their windows, for any labels.

    Flows within half the weight of 0, as message passing leaves them, fit all other edges.
    """
    for v in range(labels.size):
        for a in range(first[v], first[v + 1]):
            w = np.int64(head[a])
            if v < w and labels[v] != labels[w]:
                _fit(flow, height, labels, weight[a], v, w, edge[a])


@kernel
def _bring_back(first, head, edge, weight, flow, height, labels, v):
    """Fit the flows of the edges of ``v`` into their windows."""
    for a in range(first[v], first[v + 1]):
        w = np.int64(head[a])
        _fit(flow, height, labels, weight[a], min(v, w), max(v, w), edge[a])


@kernel
def _fit(flow, height, labels, weight, lower, upper, e):
    """Cut the row of flows of edge ``e`` off at its window, and shift it towards 0."""
    bottom, top, _, _ = _window(flow, weight, labels, lower, upper, e)
    middle = (bottom + top) >> 1  # off a whole row: it changes no difference of labels
    for label in range(flow.shape[0]):
        before = np.int64(flow[label, e])
        after = max(bottom, min(top, before)) - middle
        flow[label, e] = after
        height[label, lower] += after - before
        height[label, upper] -= after - before
