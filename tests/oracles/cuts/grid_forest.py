"""The forest as levels (N,), which are 0 for nodes outside it, and as Python's lists."""

from collections import defaultdict

import numpy as np

from tests.oracles.cuts.grid_cut import grid_cut


def make_room(n_nodes):
    """The waiting nodes by level, the latest first."""
    return defaultdict(list)


def need(waiting, v, level):
    waiting[level].insert(0, v)


def orphan(levels, waiting, v, level):
    """Put a node without a parent in the list of its level, which it keeps while it waits."""
    levels[v] = level
    waiting[level].insert(0, v)


def grow(cap, excess, offsets, levels, queue, level, top):
    """Levels up to ``top`` by breadth-first search from ``queue``, whose nodes have one level.

    The second result holds the deficits that got a level, {level: nodes}.
    """
    levels, needy = np.array(levels), defaultdict(set)
    while queue and level < top:
        level += 1
        found = []
        for v in queue:
            for d in np.flatnonzero(cap[:, v] > 0):
                w = v + offsets[d]
                if levels[w] == 0 or levels[w] > level:
                    if levels[w] == 0 and excess[w] < 0:
                        needy[level].add(w)
                    levels[w] = level
                    found.append(w)
        queue = found
    return levels, needy


def mend(cap, excess, offsets):
    """The nodes of the final forest: all that the source reaches after a maximal flow."""
    return grid_cut(cap, excess, offsets)[0]
