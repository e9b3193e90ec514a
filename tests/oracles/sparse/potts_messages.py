"""Messages as NumPy's rows, each by the minimum over all pairs of labels."""

import numpy as np


def edge_numbers(first, head, rev):
    """Edge numbers in the order of the earlier arcs."""
    numbers = np.full(len(head), -1)
    tail = np.repeat(np.arange(len(first) - 1), np.diff(first))
    earlier = np.flatnonzero(tail < head)
    numbers[earlier] = np.arange(len(earlier))
    numbers[rev[earlier]] = np.arange(len(earlier))
    return numbers


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
    """The kernel's results: bound, height, flow and labels."""
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
    """The bound of a pass that ends with ``messages``: the least costs of all nodes and edges."""
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
