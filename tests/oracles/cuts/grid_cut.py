"""The textbook's minimum cut on a padded grid, one shortest path at a time."""

import numpy as np

from tests.oracles.cuts import maxflow as general


def residual_of(cap, excess, offsets, first=0, stop=None):
    """The value of the maximal flow between the nodes of a band, and its residual."""
    stop = len(excess) if stop is None else stop
    tail, arc = np.nonzero(np.asarray(cap).T)
    inside = (tail >= first) & (tail < stop)
    inside &= (tail + offsets[arc] >= first) & (tail + offsets[arc] < stop)
    tail, arc = tail[inside], arc[inside]
    places = np.arange(len(excess))
    ours = np.where((places >= first) & (places < stop), excess, 0)
    starts = np.searchsorted(tail, np.arange(len(excess) + 1))
    return general.maxflow(starts, tail + offsets[arc], cap[arc, tail], ours)


def grid_cut(cap, excess, offsets):
    """The smallest source side (N,) bool, and the value of the flow; ``cap`` is (D, N)."""
    flow, residual = residual_of(cap, excess, offsets)
    return general.source_side(residual), flow


def grid_cut_again(cap, excess, offsets, changes):
    """The result of `grid_cut` after changes {node: change} of the excess of the first problem."""
    excess = np.array(excess)
    for node, change in changes.items():
        excess[node] += change
    return grid_cut(cap, excess, offsets)
