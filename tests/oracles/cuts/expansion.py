"""Moves by trying every one of them, flows by their definition, messages with NumPy rows."""

from itertools import product

import numpy as np


def send_messages(first, head, edge, weight, unary, messages, forward):
    """The messages after one TRW-S pass, with the full (L, L) minimum-convolution."""
    messages = messages.copy()
    n_nodes, width = unary.shape
    potts = 1 - np.eye(width, dtype=np.float32)
    for v in range(n_nodes) if forward else range(n_nodes - 1, -1, -1):
        arcs = np.arange(first[v], first[v + 1])
        ahead = (head[arcs] > v) == forward
        share = np.float32(1) / np.float32(max(ahead.sum(), (~ahead).sum(), 1))
        costs = (unary[v] + messages[edge[arcs]].sum(axis=0)) * share
        for a in arcs[ahead]:
            rise = costs - messages[edge[a]]
            sent = (rise[:, None] + weight[a] * potts).min(axis=0)
            messages[edge[a]] = sent - sent.min()
    return messages


def settle_flows(first, head, edge, weight, unary, messages, n_labels, height):
    """What the kernel writes and returns: bound, height, flow, labels."""
    height, flow = height.copy(), np.zeros(messages.shape, height.dtype)
    labels, bound = np.zeros(len(height), np.int32), 0
    for v in range(len(height)):
        arcs = np.arange(first[v], first[v + 1])
        ahead, behind = arcs[head[arcs] > v], arcs[head[arcs] < v]
        reached = messages[edge[ahead]].sum(axis=0)
        merit = unary[v] + reached
        for a in behind:
            merit[labels[head[a]]] -= weight[a]
        labels[v] = merit[:n_labels].argmin()
        costs = (height[v] + reached) / max(len(ahead) + 1, len(behind))
        for a in ahead:
            rise = costs - messages[edge[a]]
            rise = np.minimum(rise - rise.min(), weight[a]).astype(np.int64)
            flow[edge[a]] = weight[a] // 2 - rise
            height[v] += flow[edge[a]]
            height[head[a]] -= flow[edge[a]]
        bound += height[v, :n_labels].min()
    return bound, height, flow, labels


def messages_bound(first, head, edge, weight, unary, messages, forward):
    """What a pass that leaves ``messages`` says, from what each node and each edge cannot save."""
    before = messages.copy()
    bound = 0.0
    nodes = range(len(unary)) if forward else range(len(unary) - 1, -1, -1)
    for v in nodes:
        arcs = np.arange(first[v], first[v + 1])
        ahead = (head[arcs] > v) == forward
        total = unary[v] + before[edge[arcs]].sum(axis=0, dtype=np.float64)
        share = (total - total.min()) / max(ahead.sum(), (~ahead).sum(), 1)
        bound += total.min() + sum((share - before[edge[a]]).min() for a in arcs[ahead])
        for a in arcs[ahead]:
            rise = share - before[edge[a]]
            before[edge[a]] = np.minimum(rise - rise.min(), weight[a])
    return bound


def cost_limits(first, weight, unary):
    """Each node's least cost, twice the weights of its edges, and how far costs can reach."""
    around = [float(weight[first[v] : first[v + 1]].sum()) for v in range(len(unary))]
    limit = 2 * np.array(around)
    spread = unary.max(axis=1).astype(float) - unary.min(axis=1).astype(float)
    return unary.min(axis=1), limit, (np.minimum(spread, limit) + limit).max(initial=0)


def shift_costs(unary, least, limit, bits):
    """Costs above the least, none more than 1 above the limit, times ``2**bits``."""
    return np.minimum(unary - least[:, None], np.ceil(limit)[:, None] + 1).astype(np.int64) << bits


def round_costs(unary, least, limit, bits):
    """Costs above the least in parts of ``2**-bits``, none more than a part above the limit."""
    over = unary.astype(np.float64) - least[:, None]
    top = limit + 2.0**-bits
    return np.ceil(np.minimum(over, top[:, None]) * 2.0**bits).astype(np.int64)


def reparametrised_energy(first, head, edge, weight, flow, height, labels):
    """The energy out of heights and of what is left of the edges; equals that of the costs."""
    total = sum(int(height[labels[v], v]) for v in range(len(labels)))
    for v in range(len(labels)):
        for a in range(first[v], first[v + 1]):
            w, e = head[a], edge[a]
            if v < w and labels[v] != labels[w]:
                total += int(weight[a]) - int(flow[labels[v], e]) + int(flow[labels[w], e])
    return total


def own_heights(first, head, edge, weight, flow, height, labels):
    """Each node's height at its label, and its half of what is left of each cut edge (rounded).

    And the most that it can gain: the other halves as well.
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
    """Flow and height once each cut edge's row is cut off at its window, and shifted by its middle.

    The window is ``weight`` wide and centred between the flows of the two labels.
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
    """The best expansion of ``alpha`` by trying all; of several that with the fewest changes."""
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
    """The nodes that are looked at again: those that changed, and their neighbours."""
    near = set(changed.tolist())
    for v in changed:
        near |= set(head[first[v] : first[v + 1]].tolist())
    return near


def move_graph(first, head, weight, labels, proposal, cost, unary, taken):
    """What the move that takes the proposal at ``taken`` costs, from the definition."""
    moved = np.where(taken, proposal, labels)
    total = unary[np.arange(len(labels)), moved].sum()
    for v in range(len(labels)):
        for a in range(first[v], first[v + 1]):
            if v < head[a]:
                total += weight[a] * cost[moved[v], moved[head[a]]]
    return total
