"""Slow twins of ``kernels.superpixels.etps``, with every energy computed from the whole map."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def block_sums(sums, sizes, places, starts, n_blocks):
    total, count = np.zeros((n_blocks, sums.shape[1])), np.zeros(n_blocks)
    for z, y, x in np.ndindex(*(len(p) for p in places)):
        fine = starts[0] + z * starts[1] + y * starts[2] + x * starts[3]
        coarse = places[0][z] + places[1][y] + places[2][x]
        if sizes[fine] > 0:
            total[coarse] += sums[fine]
            count[coarse] += sizes[fine]
    return total, count


def region_contacts(labels, shares, ring):
    pairs, areas = [], []
    for block in np.flatnonzero(labels >= 0):
        for axis, offset in enumerate(np.abs(ring[: 4 if len(ring) == 8 else 6 : 2])):
            other = labels[block + offset]
            if other >= 0 and other != labels[block]:
                pairs.append((labels[block], other))
                areas.append(shares[block if len(shares) > 1 else 0, axis])
    return np.array(pairs, np.int64).reshape(-1, 2), np.array(areas, float)


def energy(labels, sums, sizes, shares, ring, weight):
    """The scatter of block means about region means plus the cost of the boundary."""
    scatter = 0.0
    for region in np.unique(labels[labels >= 0]):
        own = labels == region
        n = sizes[own].astype(float)[:, None]
        means = sums[own].astype(float) / n
        scatter += (n * (means - (n * means).sum(axis=0) / n.sum()) ** 2).sum()
    return scatter + weight * region_contacts(labels, shares, ring)[1].sum()


def in_one_piece(labels, region, shape):
    return ndimage.label((labels == region).reshape(shape))[1] == 1


def locally_in_one_piece(labels, block, ring, shape):
    """Whether a block's face neighbors in the region are connected within the blocks around it."""
    around = np.zeros(shape, bool)
    around.flat[block + ring] = (labels == labels[block])[block + ring]
    pieces = ndimage.label(around)[0]
    faces = ring[: 4 if len(ring) == 8 else 6]
    return len(set(pieces.flat[block + faces].tolist()) - {0}) == 1


def refine_blocks(labels, sums, sizes, shares, ring, n_regions, weight, min_size, n_iter, shape):
    """The kernel's moves by brute force; asserts that no move cuts a region in two."""
    faces = ring[: 4 if len(ring) == 8 else 6]

    def others(block):
        found = labels[block + faces]
        return list(dict.fromkeys(found[(found >= 0) & (found != labels[block])].tolist()))

    waiting = [b for b in np.flatnonzero(labels >= 0) if others(b)]
    now = start = energy(labels, sums, sizes, shares, ring, weight)
    n_moves = 0
    for _ in range(n_iter):
        following = []
        for block in waiting:
            own = labels[block]
            left = sizes[labels == own].sum() - sizes[block]
            if left <= 0 or left < min_size:
                continue
            costs = {}
            for other in others(block):
                labels[block] = other
                costs[other] = energy(labels, sums, sizes, shares, ring, weight)
                labels[block] = own
            best = min(costs, key=costs.get, default=own)
            if not costs or costs[best] >= now - 1e-9 * max(now, 1.0):
                continue
            if not locally_in_one_piece(labels, block, ring, shape):
                continue
            labels[block] = best
            assert in_one_piece(labels, own, shape)
            assert in_one_piece(labels, best, shape)
            assert costs[best] < now
            now, n_moves = costs[best], n_moves + 1
            following += [b for b in block + faces if labels[b] >= 0 and b not in following]
        waiting = following
    return n_moves, start - now


def merge_cheapest(pairs, areas, total, count, weight, n_left):
    """Groups as sets of regions; every round compares all pairs."""
    groups = {r: {r} for r in range(len(count))}
    rise = 0.0

    def parts(g):
        own = list(groups[g])
        return total[own].sum(axis=0), count[own].sum()

    while len(groups) > n_left:
        where = {r: g for g, members in groups.items() for r in members}
        held = {}
        for (a, b), area in zip(pairs.tolist(), areas, strict=True):
            key = tuple(sorted((where[a], where[b])))
            if key[0] != key[1]:
                held[key] = held.get(key, 0.0) + area
        costs = {}
        for (a, b), area in held.items():
            (sum_a, n_a), (sum_b, n_b) = parts(a), parts(b)
            gap = ((sum_a / n_a - sum_b / n_b) ** 2).sum()
            costs[a, b] = n_a * n_b / (n_a + n_b) * gap - weight * area
        if not costs:
            break
        a, b = min(costs, key=costs.get)
        rise += costs[a, b]
        groups[a] |= groups.pop(b)
    return np.array(
        [min(next(g for g in groups.values() if r in g)) for r in range(len(count))]
    ), rise
