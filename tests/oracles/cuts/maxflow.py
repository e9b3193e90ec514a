"""Maximum flow by the textbook: shortest augmenting paths on a dense matrix."""

import numpy as np


def build_arcs(n_nodes, i, j, weight):
    """Forward-star arrays, built arc by arc; each edge gives an arc at both ends."""
    arcs = [[] for _ in range(n_nodes)]
    for e, (p, q) in enumerate(zip(i, j, strict=True)):
        arcs[p].append((e, q))
        arcs[q].append((e, p))
    order = [(v, e) for v in range(n_nodes) for e, _ in arcs[v]]
    place = {arc: a for a, arc in enumerate(order)}
    first = np.cumsum([0] + [len(out) for out in arcs])
    head = np.array([w for out in arcs for _, w in out], int)
    rev = np.array([place[w, e] for out in arcs for e, w in out], int)
    return first, head, rev, np.array([weight[e] for _, e in order], np.asarray(weight).dtype)


def capacity_matrix(first, head, cap, excess):
    """Capacities between all nodes, the source (last but one) and the sink (last) included."""
    n = len(excess)
    matrix = np.zeros((n + 2, n + 2), cap.dtype)
    for v in range(n):
        for a in range(first[v], first[v + 1]):
            matrix[v, head[a]] += cap[a]
    matrix[n, :n] = np.maximum(excess, 0)
    matrix[:n, n + 1] = np.maximum(-excess, 0)
    return matrix


def maxflow(first, head, cap, excess):
    """The flow's value and the residual matrix (Edmonds & Karp)."""
    residual = capacity_matrix(first, head, cap, excess)
    source, sink = len(excess), len(excess) + 1
    flow = residual.dtype.type(0)
    while True:
        before = {source: source}
        queue = [source]
        for v in queue:
            for w in np.flatnonzero(residual[v] > 0):
                if w not in before:
                    before[w] = v
                    queue.append(w)
        if sink not in before:
            return flow, residual
        path = [sink]
        while path[-1] != source:
            path.append(before[path[-1]])
        steps = list(zip(path[1:], path[:-1], strict=True))
        sent = min(residual[step] for step in steps)
        for v, w in steps:
            residual[v, w] -= sent
            residual[w, v] += sent
        flow += sent


def source_side(residual):
    """The nodes that the source reaches."""
    return _reached(residual, len(residual) - 2)


def sink_side(residual):
    """The nodes that reach the sink."""
    return _reached(residual.T, len(residual) - 1)


def _reached(residual, start):
    reached = np.zeros(len(residual), bool)
    reached[start] = True
    for _ in residual:
        reached |= (residual[reached] > 0).any(axis=0)
    return reached[:-2]


def cut_capacity(first, head, cap, excess, side):
    """The capacity between the nodes of ``side`` and the others, with terminal arcs."""
    matrix = capacity_matrix(first, head, cap, excess)
    inside = np.concatenate([side, [True, False]])
    return matrix[np.ix_(inside, ~inside)].sum()
