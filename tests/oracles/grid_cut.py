"""The textbook's minimum cut on a padded grid, one shortest path at a time."""

import numpy as np

from tests.oracles import maxflow as general


def grid_cut(cap, excess, offsets):
    """The smallest source side (N,) bool, and the value of the flow."""
    n_nodes = len(cap)
    tail, arc = np.nonzero(cap)
    first = np.searchsorted(tail, np.arange(n_nodes + 1))
    flow, residual = general.maxflow(first, tail + offsets[arc], cap[tail, arc], excess)
    return general.source_side(residual), flow
