"""Minimum cut on an implicit pixel grid, by waves of pushes along exact distances.

The grid is stored in row-major order with a border of one node on every side, so a neighbour is
found by adding an offset and nothing is looked up. Node ``v`` has ``D`` arcs; arc ``d`` points to
``v + offsets[d]`` and its opposite is arc ``D - 1 - d`` of that node. Arcs to and from the border
have capacity 0. Terminals are not nodes: ``excess[v] > 0`` is what the source can still send into
``v``, ``excess[v] < 0`` what ``v`` can still send to the sink.

A breadth-first search from the deficits gives each node its distance to the sink. Then all excess
moves, farthest first, to nodes that are one step nearer; what is stuck is relabelled and pushed
on, or waits for the next search. When no excess reaches a deficit any more, the flow is maximal.
Every push leaves an equal problem with the same minimum cuts, so adding to ``excess`` and solving
again is a warm start.

References
----------
Goldberg and Tarjan, "A new approach to the maximum-flow problem", JACM 35(4), 1988. Cherkassky and
Goldberg, "On implementing the push-relabel method for the maximum flow problem", Algorithmica 19,
1997, section 3 (global relabelling). Kohli and Torr, "Dynamic graph cuts for efficient inference in
Markov random fields", PAMI 29(12), 2007, section 3 (the warm start).
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel

#: How often a stuck node is relabelled before it waits for the next search.
_RELABELS = 4


@kernel
def grid_cut(cap, excess, offsets):
    """Solve the cut; ``cap`` and ``excess`` become the residual ones.

    Parameters
    ----------
    cap : ndarray, (N, D), int64 or float64
        Capacities >= 0 of the arcs of the N nodes, border included; 0 to and from the border.
    excess : ndarray, (N,), of the same dtype
        0 at the border.
    offsets : ndarray of int64, (D,)
        ``offsets[D - 1 - d] == -offsets[d]``.

    Returns
    -------
    side : ndarray of bool, (N,)
        The smallest source side of a minimum cut: what the source still reaches.
    """
    n_nodes = excess.size
    level = np.empty(n_nodes, np.int32)
    queue = np.empty(n_nodes, np.int32)
    roots = np.empty(n_nodes, np.int32)
    n_roots = 0
    for v in range(n_nodes):
        if excess[v] < 0:
            roots[n_roots] = v
            n_roots += 1
    while True:
        n_roots = _keep_open(cap, excess, offsets, roots, n_roots)
        n_queued, n_found = _search(cap, excess, offsets, level, queue, roots, n_roots)
        if n_found == 0:
            return _reached(cap, excess, offsets, queue)
        for k in range(n_queued - 1, -1, -1):
            node = np.int64(queue[k])
            if excess[node] > 0:
                _discharge(cap, excess, offsets, level, node)


@kernel
def _keep_open(cap, excess, offsets, roots, n_roots):
    """Drop the deficits that are met or can be reached by no arc: they stay so."""
    n_arcs = offsets.size
    n_kept = 0
    for k in range(n_roots):
        v = np.int64(roots[k])
        if excess[v] < 0:
            for d in range(n_arcs):
                if cap[v + offsets[d], n_arcs - 1 - d] > 0:
                    roots[n_kept] = v
                    n_kept += 1
                    break
    return n_kept


@kernel
def _search(cap, excess, offsets, level, queue, roots, n_roots):
    """Distances to the sink, 0 where there is no way; how many nodes have one, and hold excess."""
    n_arcs = offsets.size
    level[:] = 0
    for k in range(n_roots):
        queue[k] = roots[k]
        level[roots[k]] = 1
    position, n_queued, n_found = 0, n_roots, 0
    while position < n_queued:
        v = np.int64(queue[position])
        position += 1
        for d in range(n_arcs):
            w = v + offsets[d]
            if level[w] == 0 and cap[w, n_arcs - 1 - d] > 0:
                level[w] = level[v] + 1
                queue[n_queued] = w
                n_queued += 1
                if excess[w] > 0:
                    n_found += 1
    return n_queued, n_found


@kernel
def _discharge(cap, excess, offsets, level, v):
    """Push the excess of ``v`` one step nearer to the sink, raising its level when it is stuck."""
    n_arcs = offsets.size
    left = excess[v]
    for _ in range(_RELABELS):
        lowest = np.int32(2**31 - 1)
        for d in range(n_arcs):
            if cap[v, d] > 0:
                w = v + offsets[d]
                height = level[w]
                if height == level[v] - 1 and height > 0:
                    sent = min(left, cap[v, d])
                    cap[v, d] -= sent
                    cap[w, n_arcs - 1 - d] += sent
                    excess[w] += sent
                    left -= sent
                    if left == 0:
                        excess[v] = 0
                        return
                if cap[v, d] > 0 and 0 < height < lowest:
                    lowest = height
        if lowest == 2**31 - 1:
            break
        level[v] = lowest + 1
    excess[v] = left


@kernel
def _reached(cap, excess, offsets, queue):
    """What the excess that is left reaches."""
    n_nodes = excess.size
    reached = np.zeros(n_nodes, np.bool_)
    n_queued = 0
    for v in range(n_nodes):
        if excess[v] > 0:
            reached[v] = True
            queue[n_queued] = v
            n_queued += 1
    position = 0
    while position < n_queued:
        node = np.int64(queue[position])
        position += 1
        for d in range(offsets.size):
            w = node + offsets[d]
            if cap[node, d] > 0 and not reached[w]:
                reached[w] = True
                queue[n_queued] = w
                n_queued += 1
    return reached
