"""Slow twin of ``kernels.sparse.union_find``, which does not change the forest."""


def find_root(parent, node):
    while parent[node] != node:
        node = parent[node]
    return node
