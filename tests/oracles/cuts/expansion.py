"""The energy of a labeling and of its moves, by the definition."""

import numpy as np


def move_graph(first, head, weight, labels, proposal, cost, unary, taken):
    """The energy after the move that takes the proposal at ``taken``, by the definition."""
    moved = np.where(taken, proposal, labels)
    total = unary[np.arange(len(labels)), moved].sum()
    for v in range(len(labels)):
        for a in range(first[v], first[v + 1]):
            if v < head[a]:
                total += weight[a] * cost[moved[v], moved[head[a]]]
    return total


def potts_energy(first, head, weight, unary, labels):
    """The energy of flat labels on forward-star arcs, which hold each edge twice."""
    tail = np.repeat(np.arange(len(labels)), np.diff(first))
    cut = weight[labels[tail] != labels[head]].sum()
    return unary[np.arange(len(labels)), labels].sum() + cut / 2


def expansion_graph(first, head, weight, unary, labels, alpha):
    """Capacities and excess of a move, from the four costs of each edge (Kolmogorov & Zabih)."""
    n_nodes = len(labels)
    excess = np.zeros(n_nodes, weight.dtype)
    cap = np.zeros(len(head), weight.dtype)
    tail = np.repeat(np.arange(n_nodes), np.diff(first))
    for v in range(n_nodes):
        excess[v] = unary[v, labels[v]] - unary[v, alpha]
    for a in range(len(head)):
        p, q = head[a], tail[a]
        if p > q:
            continue  # each edge once, by its backward arc
        kept_kept = weight[a] * (labels[p] != labels[q])
        kept_taken = weight[a] * (labels[p] != alpha)
        taken_kept = weight[a] * (labels[q] != alpha)
        excess[p] -= taken_kept - kept_kept
        excess[q] -= 0 - taken_kept
        cap[a] = kept_taken + taken_kept - kept_kept
    return cap, excess
