"""The forest as levels (N,), 0 for nodes that are not in it, and lists as Python's."""

from collections import defaultdict

import numpy as np

from tests.oracles.cuts.grid_cut import grid_cut


def make_room(n_nodes):
    """By level: the nodes that wait, last come first."""
    return defaultdict(list)


def need(waiting, v, level):
    waiting[level].insert(0, v)


def orphan(levels, waiting, v, level):
    """The node keeps its level until a parent is found, or not."""
    levels[v] = level
    waiting[level].insert(0, v)


def grow(cap, excess, offsets, levels, queue, level, top):
    """Levels by breadth-first search from ``queue``, all of one level, up to ``top``.

    And the deficits that came to have a level, {level: nodes}.
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
    """What the forest holds in the end: all that the source reaches once the flow is maximal."""
    return grid_cut(cap, excess, offsets)[0]
