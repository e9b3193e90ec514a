"""Cells by their definition, with dictionaries and NumPy's sums."""

import numpy as np


def pair_nodes(first, head, weight):
    """The cell of each node; in turn, each node joins the free neighbor with the strongest edge."""
    cell = [-1] * (len(first) - 1)
    n_cells = 0
    for v in range(len(cell)):
        if cell[v] < 0:
            arcs = range(first[v], first[v + 1])
            free = [a for a in arcs if cell[head[a]] < 0 and weight[a] > 0]
            cell[v] = n_cells
            if free:
                cell[head[max(free, key=lambda a: weight[a])]] = n_cells  # the first of equal ones
            n_cells += 1
    return np.array(cell), n_cells


def merge_edges(first, head, weight, cell, n_cells):
    """The weights between cells as {(i, j): weight}, i < j."""
    merged = {}
    for v in range(len(cell)):
        for a in range(first[v], first[v + 1]):
            ends = (int(cell[v]), int(cell[head[a]]))
            if ends[0] < ends[1]:
                merged[ends] = merged.get(ends, 0.0) + float(weight[a])
    return merged


def merge_costs(unary, cell, n_cells, n_labels):
    return np.array([unary[cell == c, :n_labels].sum(axis=0) for c in range(n_cells)])


def cells_bound(height, cell, n_cells, n_labels):
    return sum(height[cell == c, :n_labels].sum(axis=0).min() for c in range(n_cells))
