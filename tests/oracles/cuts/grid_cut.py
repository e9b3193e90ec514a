"""The textbook's minimum cut on a padded grid, one shortest path at a time."""

import numpy as np

from tests.oracles.cuts import maxflow as general


def grid_cut(cap, excess, offsets):
    """The smallest source side (N,) bool, and the value of the flow; ``cap`` is (D, N)."""
    cap = np.asarray(cap).T
    n_nodes = len(cap)
    tail, arc = np.nonzero(cap)
    first = np.searchsorted(tail, np.arange(n_nodes + 1))
    flow, residual = general.maxflow(first, tail + offsets[arc], cap[tail, arc], excess)
    return general.source_side(residual), flow


def grid_cut_again(cap, excess, offsets, changes):
    """As `grid_cut`, after changes {node: change} of the excess of the first problem."""
    excess = np.array(excess)
    for node, change in changes.items():
        excess[node] += change
    return grid_cut(cap, excess, offsets)
