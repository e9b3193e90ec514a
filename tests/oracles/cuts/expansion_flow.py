"""Optimal moves by exhaustive search, and flows by their definition."""

from itertools import product

import numpy as np


def reparametrized_energy(first, head, edge, weight, flow, height, labels):
    """The energy from heights and residual weights of edges; it equals that of the costs."""
    total = sum(int(height[labels[v], v]) for v in range(len(labels)))
    for v in range(len(labels)):
        for a in range(first[v], first[v + 1]):
            w, e = head[a], edge[a]
            if v < w and labels[v] != labels[w]:
                total += int(weight[a]) - int(flow[labels[v], e]) + int(flow[labels[w], e])
    return total


def own_heights(first, head, edge, weight, flow, height, labels):
    """Each node's height at its label plus half of the residual weight of its cut edges (rounded).

    The second result is the most that the node can gain, with the full residual weights.
    """
    own = np.array([height[labels[v], v] for v in range(len(labels))], np.int64)
    most = own.copy()
    for v in range(len(labels)):
        for a in range(first[v], first[v + 1]):
            w, e = head[a], edge[a]
            if v < w and labels[v] != labels[w]:
                left = int(weight[a]) - int(flow[labels[v], e]) + int(flow[labels[w], e])
                own[v] += left // 2
                own[w] += left - left // 2
                most[[v, w]] += left
    return own, most


def fit_flows(first, head, edge, weight, flow, height, labels):
    """Flow and height after each cut edge's row is clipped to its window and shifted by its middle.

    The window is ``weight`` wide and centered between the flows of the two labels.
    """
    flow, height = flow.astype(np.int64), height.astype(np.int64)
    for v in range(len(labels)):
        for a in range(first[v], first[v + 1]):
            w, e = head[a], edge[a]
            if v < w and labels[v] != labels[w]:
                top = int(weight[a] + flow[labels[v], e] + flow[labels[w], e]) // 2
                bottom = top - int(weight[a])
                fitted = flow[:, e].clip(bottom, top) - (bottom + top) // 2
                height[:, v] += fitted - flow[:, e]
                height[:, w] -= fitted - flow[:, e]
                flow[:, e] = fitted
    return flow, height


def expand_label(energy, labels, alpha):
    """The best expansion of ``alpha`` by exhaustive search; of equal ones, the fewest changes."""
    free = np.flatnonzero(labels != alpha)
    best, found = energy(labels), [labels]
    for taken in product([False, True], repeat=len(free)):
        moved = labels.copy()
        moved[free[list(taken)]] = alpha
        now = energy(moved)
        if now < best:
            best, found = now, []
        if now == best:
            found.append(moved)
    changed = np.logical_and.reduce([moved != labels for moved in found])
    return np.where(changed, alpha, labels)


def refresh(first, head, changed):
    """The nodes to visit again: the changed nodes and their neighbors."""
    near = set(changed.tolist())
    for v in changed:
        near |= set(head[first[v] : first[v + 1]].tolist())
    return near
