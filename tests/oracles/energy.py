"""Energies pixel by pixel, and optima by exhaustive search."""

from itertools import product

import numpy as np


def grid_edges(weights, shape):
    """Edges (p, q, w) with index tuples p and q, from {offset: array} or an array per axis."""
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
    """The energy, term by term; ``edges`` are (p, q, w)."""
    labels, unary = np.asarray(labels), np.asarray(unary)
    total = sum(unary[(*p, labels[p])].item() for p in np.ndindex(*labels.shape))
    for p, q, w in edges:
        a, b = labels[p], labels[q]
        total += np.asarray(w).item() * (a != b if compatibility is None else compatibility[a][b])
    if label_costs is not None:
        total += sum(label_costs[label] for label in set(labels.ravel().tolist()))
    return total


def minimum(unary, edges, allowed=None):
    """The least energy, and all labelings that have it; ``allowed(labels)``
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


def label_cost_messages(marginals, label_costs):
    """Each label's cost times the probability that no other site has the label, for each site."""
    told = np.zeros(marginals.shape)
    for i in range(len(marginals)):
        others = np.delete(np.asarray(marginals, np.float64), i, axis=0)
        told[i] = label_costs * (1 - others).prod(axis=0)
    return told


def mean_field_update(marginals, unary, edges, kernels, matrix, label_costs):
    """The right side of the mean-field equations, for all sites at once.

    ``unary`` is (N, L), ``edges`` are (i, j, w), and ``kernels`` are pairs (weight, matrix (N, N)),
    in which each site is its own neighbor.
    """
    scores = -np.asarray(unary, np.float64)
    for i, j, w in edges:
        scores[i] -= w * (matrix @ marginals[j])
        scores[j] -= w * (matrix @ marginals[i])
    for weight, kernel in kernels:
        scores -= weight * (kernel @ marginals) @ matrix
    if label_costs is not None:
        scores -= label_cost_messages(marginals, label_costs)
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def cost_of_set(labels, costs):
    """The costs (L, L) of the labels that occur (the diagonal), and of their pairs."""
    present = sorted({int(label) for label in np.ravel(labels)})
    return sum(costs[a][b] for k, a in enumerate(present) for b in present[k:])


def every_labeling(shape, n_labels):
    """All labelings, (L^N, *shape)."""
    n_sites = int(np.prod(shape))
    return np.array(list(product(range(n_labels), repeat=n_sites))).reshape(-1, *shape)


def energies(labelings, unary, edges, compatibility=None, label_costs=None, counted=None):
    """The energies of many labelings (M, *shape), one term of the sum after the other."""
    n_labels = unary.shape[-1]
    pays = 1 - np.eye(n_labels, dtype=int) if compatibility is None else np.asarray(compatibility)
    totals = np.take_along_axis(unary[np.newaxis], labelings[..., np.newaxis], axis=-1)
    totals = totals.reshape(len(labelings), -1).sum(axis=1)
    for p, q, w in edges:
        totals = totals + w * pays[labelings[(slice(None), *p)], labelings[(slice(None), *q)]]
    if label_costs is not None:
        seen = labelings.reshape(len(labelings), -1)
        seen = seen if counted is None else seen[:, np.ravel(counted)]
        for label, cost in enumerate(label_costs):
            totals = totals + cost * (seen == label).any(axis=1)
    return totals


def free_energy(marginals, labelings, energies):
    """The expected energy of independent sites minus their entropy."""
    q = np.asarray(marginals, np.float64)
    q = (q / q.sum(axis=-1, keepdims=True)).reshape(-1, q.shape[-1])
    flat = labelings.reshape(len(labelings), -1)
    chances = q[np.arange(len(q)), flat].prod(axis=1)
    entropy = -(q * np.log(np.maximum(q, 1e-300))).sum()
    return chances @ energies - entropy


def log_partition(energies):
    least = energies.min()
    return np.log(np.exp(least - energies).sum()) - least
