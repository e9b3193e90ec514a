"""A lower bound on every Potts energy, by sequential tree-reweighted message passing.

References
----------
Kolmogorov, "Convergent tree-reweighted message passing for energy minimization", PAMI 28(10),
2006: figure 3 (TRW-S on monotonic chains) and section 4.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel


@kernel
def edge_numbers(first, head, rev):
    """The number 0..E-1 of the edge that each arc belongs to, (2E,) int32."""
    numbers = np.empty(head.size, np.int32)
    n_edges = 0
    for v in range(first.size - 1):
        for a in range(first[v], first[v + 1]):
            if head[a] > v:
                numbers[a] = numbers[rev[a]] = n_edges
                n_edges += 1
    return numbers


@kernel
def potts_pass(first, head, weight, numbers, unary, messages, forward):
    """One pass over the nodes, in rising (``forward``) or falling order; returns a lower bound.

    Each edge keeps one message in ``messages`` (E, L) float64, towards its later node after a
    forward pass and towards its earlier one after a backward pass; any content gives a valid
    bound. A node's reparametrised costs are shared out evenly among the chains that pass it: each
    edge ahead gets a share, and turns it into its message by the Potts minimum-convolution
    min(h(l), min h + w) in O(L). What chains that end here hold goes into the bound.

    ``first``, ``head``, ``weight`` and ``unary`` (N, L) are as in
    `hybridseg.kernels.expansion.expansion_graph`, ``numbers`` as from `edge_numbers`.
    """
    n_nodes, n_labels = unary.shape
    costs = np.empty(n_labels, np.float64)
    bound, carried = 0.0, 0.0  # compensated: the terms are many and of both signs
    for step in range(n_nodes):
        v = step if forward else n_nodes - 1 - step
        n_ahead = 0
        for label in range(n_labels):
            costs[label] = unary[v, label]
        for a in range(first[v], first[v + 1]):
            n_ahead += (head[a] > v) == forward
            message = messages[numbers[a]]
            for label in range(n_labels):
                costs[label] += message[label]
        n_behind = first[v + 1] - first[v] - n_ahead
        n_chains = max(n_ahead, n_behind, 1)
        here = (n_chains - n_ahead) * costs.min() / n_chains
        for a in range(first[v], first[v + 1]):
            if (head[a] > v) == forward:
                here += _pass_on(costs, n_chains, weight[a], messages[numbers[a]])
        before = bound
        bound += here - carried
        carried = (bound - before) - (here - carried)
    return bound


@kernel
def _pass_on(costs, n_chains, weight, message):
    """Replace ``message`` (L,) by the one in the other direction, its least entry made 0."""
    least = np.inf
    for label in range(message.size):
        message[label] = costs[label] / n_chains - message[label]
        least = min(least, message[label])
    for label in range(message.size):
        message[label] = min(message[label] - least, weight)
    return least
