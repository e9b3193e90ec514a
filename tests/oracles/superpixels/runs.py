"""Slow twins of ``kernels.superpixels.runs``, on whole maps instead of runs."""

from __future__ import annotations

from itertools import groupby

import numpy as np

from tests.oracles.superpixels.regions import connected_components, faces
from tests.oracles.superpixels.slic_centers import channels_of


def find_runs(labels):
    starts, firsts = [0], [0]
    for row in labels.reshape(-1, labels.shape[-1]):
        for _, stretch in groupby(row):
            starts.append(starts[-1] + len(list(stretch)))
        firsts.append(len(starts) - 1)
    return np.array(starts), np.array(firsts)


def join_runs(labels, starts, firsts):
    components, n_components = connected_components(labels)
    return components.ravel()[starts[:-1]], n_components


def piece_sums(quads, components, n_pieces):
    """The sums and sizes of pieces, from a map of components."""
    colors = channels_of(quads)[..., : components.shape[-1]].astype(int)
    masks = [components == piece for piece in range(n_pieces)]
    sums = np.array([colors[:, mask].sum(axis=1) for mask in masks])
    return sums, np.array([mask.sum() for mask in masks])


def small_neighbors(components, sizes, min_size):
    """The keys of contacts of small components, each once, from a map of components."""
    pairs = [(i, j) for i, j in faces(components) if min(sizes[i], sizes[j]) < min_size]
    return np.array(sorted(i * len(sizes) + j for i, j in pairs), int)


def paint_runs(values, components):
    """The value of each pixel's component, from a map of components."""
    return np.array([values[c] if c >= 0 else -1 for c in components.ravel()])


def merge_small(edges, sums, sizes, min_size):
    """Groups as sets of components, merged in the same rounds."""
    groups = {i: {i} for i in range(len(sizes))}
    where = {i: i for i in groups}

    def size(g):
        return sum(sizes[i] for i in groups[g])

    def mean(g):
        return sum(sums[i] for i in groups[g]) / size(g)

    while True:
        choice = {}
        for g in groups:
            if size(g) < min_size:
                touching = {where[b] for a, b in edges if where[a] == g}
                touching |= {where[a] for a, b in edges if where[b] == g}
                touching.discard(g)
                if touching:
                    choice[g] = min(touching, key=lambda h: ((mean(h) - mean(g)) ** 2).sum())
        merged = False
        for g in sorted(choice):
            small, other = where[g], where[choice[g]]
            if small != other and size(small) < min_size:
                groups[other] |= groups.pop(small)
                where.update(dict.fromkeys(groups[other], other))
                merged = True
        if not merged:
            return np.array([where[i] for i in range(len(sizes))])


def number_groups(group):
    order = list(dict.fromkeys(group.tolist()))
    return np.array([order.index(g) for g in group.tolist()])
