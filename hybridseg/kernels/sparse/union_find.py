"""Union-find: the root of a node in a forest of merged nodes.

A forest ``parent`` (n,) of integers holds the parent of each node; a root is its own parent. Two
nodes belong to one set if they have the same root, and a set joins another when its root gets a new
parent. Each search halves the path that it walks (path halving [1]_), so that later searches are
short.

Superpixels (`runs`, `etps`) and the parts of a grid Laplacian (`deflated_cg`) use it;
`felzenszwalb` has a forest of its own, which keeps the size of a set at its root. Threads must not
share a forest.

References
----------
.. [1] R. E. Tarjan, J. van Leeuwen, "Worst-case analysis of set union algorithms", Journal of the
   ACM 31(2), 1984.
"""

from __future__ import annotations

from hybridseg.kernels._compile import kernel


@kernel
def find_root(parent, node):
    """Return the root of ``node``; halve the path to it on the way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node
