"""Coarsening of graphs: pairs of nodes that strong edges join, and the smaller graph of such cells.

`pair_nodes` is heavy-edge matching [1]_. A labeling that is constant on cells is a labeling of the
smaller graph with the same energy: edges within a cell are never cut, parallel edges add up, and so
do costs.

Graphs are arcs as `hybridseg.kernels.cuts.maxflow.build_arcs` makes them: the arcs of node v are
``first[v]`` to ``first[v + 1] - 1``, ``head`` is the node that an arc leads to, ``weight`` its
weight, and each edge is two arcs. ``cell`` (N,) int32 is the cell of each node, numbered 0..C-1 in
the order of their first nodes. ``unary`` (N, L) holds costs; ``height`` (L, N), with labels first,
holds costs after message passing.

`hybridseg.inference.cuts.flows` calls these kernels to find a start of expansion moves. They run on
one thread.

References
----------
.. [1] G. Karypis, V. Kumar, "A fast and high quality multilevel scheme for partitioning irregular
   graphs", SIAM Journal on Scientific Computing 20(1), 1998, section 3.1.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel


@kernel
def pair_nodes(first, head, weight):
    """Pair each node in turn with the unpaired neighbor that the strongest edge joins to it.

    ``first`` (N + 1,), ``head`` (A,) and ``weight`` (A,) are arcs. Returns the cell of each node,
    (N,) int32, and the number of cells. A node stays alone if no unpaired neighbor has a positive
    weight. Of equal weights the first arc counts.
    """
    n_nodes = first.size - 1
    cell = np.full(n_nodes, -1, np.int32)
    n_cells = 0
    for v in range(n_nodes):
        if cell[v] >= 0:
            continue
        partner, strongest = np.int64(v), weight.dtype.type(0)
        for a in range(first[v], first[v + 1]):
            if weight[a] > strongest and cell[head[a]] < 0:
                partner, strongest = np.int64(head[a]), weight[a]
        cell[v] = cell[partner] = n_cells
        n_cells += 1
    return cell, n_cells


@kernel
def merge_edges(first, head, weight, cell, n_cells):
    """Return the edges between cells: ends ``i`` < ``j`` (E,) int32 and weights (E,) float64."""
    members, start = _members(cell, n_cells)
    i, j = np.empty(head.size, np.int32), np.empty(head.size, np.int32)
    total = np.empty(head.size, np.float64)
    place = np.full(n_cells, -1, np.int64)  # the last edge to each cell
    n_edges = 0
    for c in range(n_cells):
        begin = n_edges
        for k in range(start[c], start[c + 1]):
            v = members[k]
            for a in range(first[v], first[v + 1]):
                other = cell[head[a]]
                if other <= c:
                    continue
                if place[other] < begin:
                    place[other] = n_edges
                    i[n_edges], j[n_edges], total[n_edges] = c, other, 0
                    n_edges += 1
                total[place[other]] += weight[a]
    return i[:n_edges].copy(), j[:n_edges].copy(), total[:n_edges].copy()


@kernel
def _members(cell, n_cells):
    """Return the nodes sorted by cell, (N,), and the first of each cell, (n_cells + 1,)."""
    start = np.zeros(n_cells + 1, np.int64)
    for v in range(cell.size):
        start[cell[v] + 1] += 1
    for c in range(n_cells):
        start[c + 1] += start[c]
    free = start[:-1].copy()
    members = np.empty(cell.size, np.int32)
    for v in range(cell.size):
        members[free[cell[v]]] = v
        free[cell[v]] += 1
    return members, start


@kernel
def merge_costs(unary, cell, n_cells, n_labels):
    """Return sums of the first ``n_labels`` costs over each cell, (n_cells, n_labels) float32."""
    total = np.zeros((n_cells, n_labels), np.float32)
    for v in range(cell.size):
        for label in range(n_labels):
            total[cell[v], label] += unary[v, label]
    return total


@kernel
def cells_bound(height, cell, n_cells):
    """Return the sum, over cells of at most two nodes, of the smallest sum of the nodes' heights.

    ``height`` (L, N) holds integers. The sum is a lower bound on the energy of all labelings that
    are constant on the cells.
    """
    n_labels = height.shape[0]
    other = np.full(n_cells, -1, np.int64)
    bound = np.int64(0)
    # pairs: the first node of a cell waits in ``other`` for the second
    for v in range(cell.size):
        u = other[cell[v]]
        if u < 0:
            other[cell[v]] = v
        else:
            other[cell[v]] = -1
            least = np.int64(height[0, u]) + height[0, v]
            for label in range(1, n_labels):
                least = min(least, np.int64(height[label, u]) + height[label, v])
            bound += least
    # nodes that stayed alone
    for c in range(n_cells):
        if other[c] >= 0:
            least = np.int64(height[0, other[c]])
            for label in range(1, n_labels):
                least = min(least, np.int64(height[label, other[c]]))
            bound += least
    return bound
