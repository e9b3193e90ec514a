"""Expansion moves that keep their flows: a cut only has to mend what the last moves changed.

Every edge e = (p, q), p < q, carries a flow f_e(l) for each label l, which moves cost between its
ends and changes no labelling's energy:

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
move reads two labels at neighbouring nodes, so labels come first.

References
----------
Boykov, Veksler and Zabih, "Fast approximate energy minimization via graph cuts", PAMI 23(11), 2001,
section 5. Komodakis, Tziritas and Paragios, "Performance vs computational efficiency for optimizing
single and dynamic MRFs", CVIU 112(1), 2008, section 3 (flows kept from cut to cut as dual
variables). Kohli and Torr, "Dynamic graph cuts for efficient inference in Markov random fields",
PAMI 29(12), 2007.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel

# ``tree`` (N, 4) int32: what the search knows of each node
_LEVEL = 0  # the distance from a node with excess, from 1; 0: free; _UNSEEN: not yet come to
_PARENT = 1  # the arc to the parent; _ROOT: holds excess itself
_LINK = 2  # the next orphan of the same level, -1 at the end; _NOT_ORPHAN otherwise
_QUEUED = 3  # the level for which the node was queued last
_UNSEEN = -1
_ROOT = -1
_NOT_ORPHAN = -2

# ``lists`` (5, N + 3) int32: the nodes seen, the two queues, the first orphan of each level (-1:
# none), the orphans that found no parent
_SEEN = 0
_QUEUE = 1
_BUCKET = 3
_LOST = 4

# ``counts`` (5,) int64: the nodes in the two queues, the queue that is scanned, the orphans that
# wait, the level that is scanned
_SCANNED = 2
_ORPHANS = 3
_EDGE = 4


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
    """What ``own`` holds of a cut edge at ``v`` and at its neighbour ``w``."""
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
    first, head, rev, edge, weight, flow, height, labels, own, alpha, nodes, cap, tree, rest, lists
):
    """Make the best move "keep the label or take ``alpha``", where few nodes hold excess.

    ``nodes`` (M,) int32 name, in any order and maybe twice, all that may hold excess. ``labels``
    (N,) are changed, and what is sent is kept in ``flow`` and ``height``; then call `refresh`.
    Where the energy does not decide, a node keeps its label. Returns how many changed (they are
    ``lists[1, :n]``) and how many the search came to.

    ``cap`` (A,) int64, ``tree`` (N, 4) int32, all -1, ``rest`` (N,) int64 and ``lists`` (5, N + 3)
    int32, all -1, are working space, and fit for the next move afterwards.

    The search is that of `hybridseg.kernels.maxflow` with a forest from the excess only, and of
    the move's graph no more is made than it comes to.
    """
    n_seen = 0
    for k in range(nodes.size):
        v = np.int64(nodes[k])
        if labels[v] == alpha or tree[v, _LEVEL] != _UNSEEN:
            continue
        if _excess(first, head, edge, weight, flow, height, labels, own, v, alpha) > 0:
            _see(
                first, head, rev, edge, weight, flow, height, labels, own, alpha, cap, tree, rest, v
            )
            tree[v, _LEVEL] = tree[v, _QUEUED] = 1
            lists[_SEEN, n_seen] = lists[_QUEUE, n_seen] = v
            n_seen += 1
    if n_seen == 0:
        return 0, 0
    n_seen = _search(
        first,
        head,
        rev,
        edge,
        weight,
        flow,
        height,
        labels,
        own,
        alpha,
        cap,
        tree,
        rest,
        lists,
        n_seen,
    )
    seen = lists[_SEEN, :n_seen]
    _keep_flow(first, head, edge, weight, flow, height, labels, alpha, cap, tree, seen)
    n_changed = 0
    for k in range(n_seen):
        v = seen[k]
        if tree[v, _LEVEL] > 0:
            labels[v] = alpha
            lists[_QUEUE, n_changed] = v
            n_changed += 1
        tree[v, _LEVEL] = _UNSEEN
    return n_changed, n_seen


@kernel
def _see(first, head, rev, edge, weight, flow, height, labels, own, alpha, cap, tree, rest, v):
    """Write down what the move's graph has at ``v``, which the search has come to."""
    rest[v] = _excess(first, head, edge, weight, flow, height, labels, own, v, alpha)
    for a in range(first[v], first[v + 1]):
        w = np.int64(head[a])
        if labels[w] == alpha:
            cap[a] = 0
        elif tree[w, _LEVEL] == _UNSEEN:
            e = edge[a]
            bottom, top, _, _ = _window(flow, weight[a], labels, min(v, w), max(v, w), e)
            up, down = top - flow[alpha, e], flow[alpha, e] - bottom
            cap[a] = up if v < w else down
            cap[rev[a]] = down if v < w else up
    tree[v, _LEVEL] = 0
    tree[v, _PARENT] = _ROOT
    tree[v, _LINK] = _NOT_ORPHAN
    tree[v, _QUEUED] = 0


@kernel
def _keep_flow(first, head, edge, weight, flow, height, labels, alpha, cap, tree, seen):
    """Take over what was sent along arcs between nodes that were seen."""
    for k in range(seen.size):
        v = np.int64(seen[k])
        for a in range(first[v], first[v + 1]):
            w = np.int64(head[a])
            if v < w and labels[w] != alpha and tree[w, _LEVEL] != _UNSEEN:
                e = edge[a]
                _, top, _, _ = _window(flow, weight[a], labels, v, w, e)
                sent = top - cap[a] - flow[alpha, e]
                flow[alpha, e] += sent
                height[alpha, v] += sent
                height[alpha, w] -= sent


@kernel
def _search(
    first, head, rev, edge, weight, flow, height, labels, own, alpha, cap, tree, rest, lists, n_seen
):
    """Send all excess that can be taken; what stays reaches the nodes of positive level."""
    counts = np.zeros(5, np.int64)
    counts[0] = n_seen
    depth, slot = 1, 0
    while counts[slot] > 0:
        counts[_EDGE] = depth
        counts[_SCANNED] = slot
        position = 0
        while position < counts[slot]:  # the queue may lengthen meanwhile
            v = np.int64(lists[_QUEUE + slot, position])
            position += 1
            a = np.int64(first[v])
            while a < first[v + 1] and tree[v, _LEVEL] == depth:
                if cap[a] <= 0:
                    a += 1
                    continue
                w = np.int64(head[a])
                if tree[w, _LEVEL] == _UNSEEN:
                    _see(
                        first,
                        head,
                        rev,
                        edge,
                        weight,
                        flow,
                        height,
                        labels,
                        own,
                        alpha,
                        cap,
                        tree,
                        rest,
                        w,
                    )
                    lists[_SEEN, n_seen] = w
                    n_seen += 1
                if rest[w] < 0:
                    _augment(first, head, rev, cap, tree, rest, lists, counts, v, a)
                    continue
                if tree[w, _LEVEL] == 0:
                    tree[w, _LEVEL] = depth + 1
                    tree[w, _PARENT] = rev[a]
                    _enqueue(tree, lists, counts, w, 1 - slot)
                a += 1
        counts[slot] = 0
        slot = 1 - slot
        depth += 1
    return n_seen


@kernel
def _enqueue(tree, lists, counts, v, slot):
    """Put ``v`` into a queue unless it waits there at its level already."""
    if tree[v, _QUEUED] != tree[v, _LEVEL]:
        tree[v, _QUEUED] = tree[v, _LEVEL]
        lists[_QUEUE + slot, counts[slot]] = v
        counts[slot] += 1


@kernel
def _augment(first, head, rev, cap, tree, rest, lists, counts, v, bridge):
    """Send the bottleneck from the root of ``v`` over ``bridge``, whose head can take it."""
    w = head[bridge]
    room = min(cap[bridge], -rest[w])
    u = v
    a = tree[u, _PARENT]
    while a != _ROOT:
        room = min(room, cap[rev[a]])
        u = np.int64(head[a])
        a = tree[u, _PARENT]
    room = min(room, rest[u])
    cap[bridge] -= room
    cap[rev[bridge]] += room
    rest[w] += room
    rest[u] -= room
    lowest = tree[v, _LEVEL]
    u = v
    a = tree[u, _PARENT]
    while a != _ROOT:
        cap[a] += room
        cap[rev[a]] -= room
        if cap[rev[a]] <= 0:
            lowest = tree[u, _LEVEL]
            _orphan(tree, lists, counts, u)
        u = np.int64(head[a])
        a = tree[u, _PARENT]
    if rest[u] == 0:
        lowest = 1
        _orphan(tree, lists, counts, u)
    if counts[_ORPHANS] > 0:
        n_lost = _adopt_orphans(first, head, rev, cap, tree, lists, counts, lowest)
        if n_lost > 0:
            _hang(first, head, rev, cap, tree, rest, lists, counts, n_lost)


@kernel
def _orphan(tree, lists, counts, v):
    """Let ``v`` wait for a parent."""
    if tree[v, _LINK] == _NOT_ORPHAN:
        height = tree[v, _LEVEL]
        tree[v, _LINK] = lists[_BUCKET, height]
        lists[_BUCKET, height] = v
        counts[_ORPHANS] += 1


@kernel
def _pop(tree, lists, counts, height):
    """Take a node that waits at ``height``; -1 where none does."""
    v = np.int64(lists[_BUCKET, height])
    if v >= 0:
        lists[_BUCKET, height] = tree[v, _LINK]
        tree[v, _LINK] = _NOT_ORPHAN
        counts[_ORPHANS] -= 1
    return v


@kernel
def _adopt_orphans(first, head, rev, cap, tree, lists, counts, height):
    """Find parents at the old distance, level by level from ``height``; what finds none is lost.

    Returns how many nodes are lost; they are free, and listed.
    """
    n_lost = 0
    while counts[_ORPHANS] > 0:
        v = _pop(tree, lists, counts, height)
        if v < 0:
            height += 1
        elif not _reattach(first, head, rev, cap, tree, v):
            for a in range(first[v], first[v + 1]):
                w = np.int64(head[a])
                if tree[w, _LEVEL] > 0 and tree[w, _PARENT] == rev[a]:
                    _orphan(tree, lists, counts, w)
            tree[v, _LEVEL] = 0
            tree[v, _PARENT] = _ROOT
            lists[_LOST, n_lost] = v
            n_lost += 1
    return n_lost


@kernel
def _reattach(first, head, rev, cap, tree, v):
    """Hang ``v`` on another node one level nearer the excess, its own level unchanged."""
    wanted = tree[v, _LEVEL] - 1
    if wanted > 0:
        for a in range(first[v], first[v + 1]):
            if tree[head[a], _LEVEL] == wanted and cap[rev[a]] > 0:
                tree[v, _PARENT] = a
                return True
    return False


@kernel
def _nearest(first, head, rev, cap, tree, v, depth):
    """The least level of a usable parent of ``v``, which is made its parent; or ``depth``."""
    nearest = depth
    for a in range(first[v], first[v + 1]):
        height = tree[head[a], _LEVEL]
        if 0 < height < nearest and cap[rev[a]] > 0:
            nearest = height
            tree[v, _PARENT] = a
    return nearest


@kernel
def _hang(first, head, rev, cap, tree, rest, lists, counts, n_lost):
    """Breadth-first search from every lost node's nearest neighbour in the forest.

    The list of the lost becomes the queue of the search. What it does not reach stays free.
    """
    lost = lists[_LOST]
    depth = counts[_EDGE] + 1
    height = depth + 1
    for k in range(n_lost):
        v = np.int64(lost[k])
        nearest = _nearest(first, head, rev, cap, tree, v, depth)
        if nearest < depth:
            tree[v, _LINK] = lists[_BUCKET, nearest + 1]
            lists[_BUCKET, nearest + 1] = v
            counts[_ORPHANS] += 1
            height = min(height, nearest + 1)
    position, n_hung = 0, 0
    while counts[_ORPHANS] > 0 or position < n_hung:
        v = _pop(tree, lists, counts, height)
        while v >= 0:
            if tree[v, _LEVEL] == 0:
                tree[v, _LEVEL] = height
                lost[n_hung] = v
                n_hung += 1
            v = _pop(tree, lists, counts, height)
        stop = n_hung
        while position < stop:
            v = np.int64(lost[position])
            position += 1
            if height >= depth - 1:  # at the edge of the forest: to be scanned (again)
                slot = counts[_SCANNED]
                _enqueue(tree, lists, counts, v, slot if height < depth else 1 - slot)
            if height < depth and n_hung < n_lost:
                n_hung = _take_along(first, head, rev, cap, tree, rest, lost, n_hung, v)
        height += 1


@kernel
def _take_along(first, head, rev, cap, tree, rest, lost, n_hung, v):
    """Hang the free neighbours of ``v`` on it and append them to the queue."""
    for a in range(first[v], first[v + 1]):
        w = np.int64(head[a])
        if tree[w, _LEVEL] == 0 and rest[w] >= 0 and cap[a] > 0:
            tree[w, _LEVEL] = tree[v, _LEVEL] + 1
            tree[w, _PARENT] = rev[a]
            lost[n_hung] = w
            n_hung += 1
    return n_hung


@kernel
def refresh(first, head, edge, weight, flow, height, labels, own, changed, marked, touched):
    """Put ``flow``, ``height`` and ``own`` right after the labels of ``changed`` (M,) changed.

    Flows of their edges that no longer fit are brought back into the new windows. ``touched`` (N,)
    int32 is filled with those nodes and their neighbours, once each: all whose excess may have
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
def _bring_back(first, head, edge, weight, flow, height, labels, v):
    """Fit the flows of the edges of ``v`` into their windows, and shift each row towards 0."""
    for a in range(first[v], first[v + 1]):
        w = np.int64(head[a])
        e = edge[a]
        lower, upper = min(v, w), max(v, w)
        bottom, top, _, _ = _window(flow, weight[a], labels, lower, upper, e)
        middle = (bottom + top) >> 1  # off a whole row: it changes no difference of labels
        for label in range(flow.shape[0]):
            before = np.int64(flow[label, e])
            after = max(bottom, min(top, before)) - middle
            flow[label, e] = after
            height[label, lower] += after - before
            height[label, upper] -= after - before
