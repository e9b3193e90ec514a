"""Slow twin of ``kernels.sparse.union_find``: it leaves the forest as it is."""


def find_root(parent, node):
    while parent[node] != node:
        node = parent[node]
    return node
