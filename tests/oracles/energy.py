"""Energies pixel by pixel, optima by trying everything."""

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
