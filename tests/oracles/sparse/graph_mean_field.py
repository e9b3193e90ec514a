"""Mean field on sparse graphs, node by node, in float64."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from tests.oracles.dense.mean_field import softmax


def matrix_of(compatibility, n_labels):
    return 1.0 - np.eye(n_labels) if len(compatibility) == 0 else np.asarray(compatibility, float)


def updated(unary, edges, nodes, compatibility, damping, marginals):
    """New marginals after ``nodes`` change together; ``edges`` is a list of (i, j, w)."""
    unary, old = np.asarray(unary, float), np.asarray(marginals, float)
    matrix = matrix_of(compatibility, unary.shape[1])
    new = old.copy()
    for node in nodes:
        message = np.zeros(unary.shape[1])
        for i, j, w in edges:
            if i == node:
                message += w * old[j]
            if j == node:
                message += w * old[i]
        best = softmax(-unary[node] - matrix @ message)
        new[node] = (1 - damping) * best + damping * old[node]
    return new, np.abs(new - old).max(initial=0)


def sweep_graph(graph, n_sweeps, marginals):
    """New marginals and the largest change of each sweep; padding of rows is ignored."""
    n_labels = len(graph.compatibility) or int((graph.costs[0] < 1e38).sum())
    tails = np.repeat(np.arange(len(graph.first) - 1), np.diff(graph.first))
    edges = [
        (i, j, w) for i, j, w in zip(tails, graph.neighbors, graph.weights, strict=True) if i < j
    ]
    unary, matrix = graph.costs[:, :n_labels], graph.compatibility[:, :n_labels]
    new, changes = np.array(marginals, float), []
    for _ in range(n_sweeps):
        largest = 0.0
        for start, stop in pairwise(graph.starts):
            new[:, :n_labels], change = updated(
                *(unary, edges, graph.nodes[start:stop], matrix, graph.damping),
                new[:, :n_labels],
            )
            largest = max(largest, change)
        changes.append(largest)
    return new, changes


def color_graph(first, neighbors):
    colors = []
    for i in range(len(first) - 1):
        near = neighbors[first[i] : first[i + 1]]
        taken = {colors[j] for j in near if j < i}
        colors.append(min(set(range(len(near) + 1)) - taken))
    return np.array(colors, int)


def free_energy(marginals, unary, edges, compatibility):
    """The negative of equation 11.54 of Koller and Friedman (2009)."""
    q, unary = np.asarray(marginals, float), np.asarray(unary, float)
    total = (q * unary).sum() + (q * np.log(np.maximum(q, 1e-300))).sum()
    matrix = matrix_of(compatibility, q.shape[1])
    return total + sum(w * (q[i] @ matrix @ q[j]) for i, j, w in edges)
