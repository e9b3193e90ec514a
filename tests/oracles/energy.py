"""Energies pixel by pixel, optima by trying everything, messages by the definition."""

from itertools import product

import numpy as np


def grid_edges(weights, shape):
    """``(p, q, w)`` of every edge, p and q index tuples, from {offset: array} or one per axis."""
    if not isinstance(weights, dict):
        offsets = [tuple(row) for row in np.eye(len(shape), dtype=int).tolist()]
        weights = dict(zip(offsets, weights, strict=True))
    edges = []
    for offset, array in weights.items():
        places = iter(np.asarray(array).ravel())
        for p in np.ndindex(*shape):
            q = tuple(np.add(p, offset).tolist())
            if all(0 <= x < n for x, n in zip(q, shape, strict=True)):
                edges.append((p, q, next(places)))
    return edges


def energy(labels, unary, edges, compatibility=None, label_costs=None):
    """The sum, term by term; ``edges`` are (p, q, w)."""
    labels, unary = np.asarray(labels), np.asarray(unary)
    total = sum(unary[(*p, labels[p])].item() for p in np.ndindex(*labels.shape))
    for p, q, w in edges:
        a, b = labels[p], labels[q]
        total += np.asarray(w).item() * (a != b if compatibility is None else compatibility[a][b])
    if label_costs is not None:
        total += sum(label_costs[label] for label in set(labels.ravel().tolist()))
    return total


def minimum(unary, edges, allowed=None):
    """The least energy, and all labellings that have it; ``allowed(labels)``
    (n, *shape) -> (n,) bool restricts them."""
    shape, n_labels = unary.shape[:-1], unary.shape[-1]
    every = np.array(list(product(range(n_labels), repeat=int(np.prod(shape)))))
    flat = unary.reshape(-1, n_labels)
    totals = flat[np.arange(len(flat)), every].sum(axis=1)
    for p, q, w in edges:
        ends = (np.ravel_multi_index(p, shape), np.ravel_multi_index(q, shape))
        totals = totals + w * (every[:, ends[0]] != every[:, ends[1]])
    if allowed is not None:
        kept = allowed(every.reshape(-1, *shape))
        every, totals = every[kept], totals[kept]
    best = totals.min()
    return best, every[totals == best].reshape(-1, *shape)


def potts_energy(first, head, weight, unary, labels):
    """The energy of flat labels on forward-star arcs, each edge seen from both ends."""
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
            continue  # each edge once, at the arc that leads back
        kept_kept = weight[a] * (labels[p] != labels[q])
        kept_taken = weight[a] * (labels[p] != alpha)
        taken_kept = weight[a] * (labels[q] != alpha)
        excess[p] -= taken_kept - kept_kept
        excess[q] -= 0 - taken_kept
        cap[a] = kept_taken + taken_kept - kept_kept
    return cap, excess


def edge_numbers(first, head, rev):
    """Number the edges by their earlier arc."""
    numbers = np.full(len(head), -1)
    tail = np.repeat(np.arange(len(first) - 1), np.diff(first))
    earlier = np.flatnonzero(tail < head)
    numbers[earlier] = np.arange(len(earlier))
    numbers[rev[earlier]] = np.arange(len(earlier))
    return numbers
