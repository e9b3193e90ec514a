"""Coarse-to-fine refinement of superpixels: blocks, then pixels, change sides at the boundaries.

Every array of blocks is flat and padded: the grid of blocks, in raster order, with a rim of one
block on each side of each axis (none along the first axis where it holds one block), so that a
neighbor is a constant offset away. ``labels`` is -1 in the rim and where there is nothing.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel

#: A move must lower the energy by more than this share of the terms that it compares, so that
#: rounding never makes a block go to and fro.
_LEAST_FALL = 1e-6


@kernel
def block_sums(sums, sizes, places, starts, n_blocks):
    """Add up the features and the sizes of the blocks of one level to those of a coarser level.

    Parameters
    ----------
    sums : float32 array (P, F), C-contiguous
        Sums of the features over each block of the finer level.
    sizes : float32 array (P,)
        Number of pixels of each; zero where there are none.
    places : three int64 arrays (n_a,)
        For each index of the finer grid along an axis, what to add to the flat index of the
        coarser grid.
    starts : int64 array (4,)
        Flat index of the finer grid's first block, and the steps along its axes.
    n_blocks : int
        Length of the coarser level's flat arrays.

    Returns
    -------
    float32 array (n_blocks, F), float32 array (n_blocks,)
    """
    n_features = sums.shape[1]
    total = np.zeros((n_blocks, n_features), np.float32)
    count = np.zeros(n_blocks, np.float32)
    for z in range(places[0].size):
        for y in range(places[1].size):
            first = starts[0] + z * starts[1] + y * starts[2]
            across = places[0][z] + places[1][y]
            for x in range(places[2].size):
                block = across + places[2][x]
                if sizes[first + x] > 0:
                    count[block] += sizes[first + x]
                    for f in range(n_features):
                        total[block, f] += sums[first + x, f]
    return total, count


@kernel
def _region_sums(labels, sums, sizes, n_regions):
    total = np.zeros((n_regions, sums.shape[1]))
    count = np.zeros(n_regions)
    for block in range(labels.size):
        region = labels[block]
        if region >= 0:
            count[region] += sizes[block]
            for f in range(sums.shape[1]):
                total[region, f] += sums[block, f]
    return total, count


@kernel
def _distance(sums, block, share, mean, region):
    """Squared distance between the mean of a block, its sums times ``share``, and a region's."""
    distance = 0.0
    for f in range(mean.shape[1]):
        difference = sums[block, f] * share - mean[region, f]
        distance += difference * difference
    return distance


@kernel
def _hang_together(inside, adjacency, n_faces):
    """Whether the faces among some blocks of the ring, given as bits, are connected by these."""
    faces = inside & ((1 << n_faces) - 1)
    reached = faces & -faces
    while reached & faces != faces:
        grown = reached
        for i in range(adjacency.size):
            if (reached >> i) & 1:
                grown |= adjacency[i] & inside
        if grown == reached:
            return False
        reached = grown
    return faces != 0


@kernel
def _stays_connected(labels, block, ring, adjacency, known):
    """Whether the faces that a block shares with its region hang together without the block."""
    inside = 0
    for i in range(ring.size):
        inside |= int(labels[block + ring[i]] == labels[block]) << i
    if ring.size == 8:
        return known[inside]
    return _hang_together(inside, adjacency, 6)


@kernel
def _at_boundary(labels, block, ring, n_faces):
    region = labels[block]
    for i in range(n_faces):
        other = labels[block + ring[i]]
        if other >= 0 and other != region:
            return True
    return False


@kernel
def _best_region(labels, block, sums, size, shares, mean, count, weight, ring, n_faces):
    """The neighboring region that a block had best go to, and by how much the energy changes."""
    own = labels[block]
    row = block if shares.shape[0] > 1 else 0
    share = 1.0 / size
    stay = -1.0
    held = 0.0
    best, change = own, 0.0
    for i in range(n_faces):
        other = labels[block + ring[i]]
        if other < 0 or other == own:
            continue
        gained, seen = 0.0, False
        for j in range(n_faces):
            if labels[block + ring[j]] == other:
                seen |= j < i
                gained += shares[row, j >> 1]
        if seen:
            continue
        if stay < 0:
            stay = _distance(sums, block, share, mean, own)
            stay *= size * count[own] / (count[own] - size)
            for j in range(n_faces):
                if labels[block + ring[j]] == own:
                    held += shares[row, j >> 1]
        join = _distance(sums, block, share, mean, other)
        join *= size * count[other] / (count[other] + size)
        lower = join - stay + weight * (held - gained)
        if lower < change and lower < -_LEAST_FALL * (join + stay + weight * (held + gained)):
            best, change = other, lower
    return best, change


@kernel
def refine_blocks(
    labels, sums, sizes, shares, ring, adjacency, n_regions, weight, min_size, n_iter
):
    """Let blocks at the boundaries change to a neighboring region while that lowers the energy.

    The energy of a partition is

        E = sum_b sum_{p in b} |x_p - m_s(b)|^2 + weight * (faces between different regions)

    with m the mean of the features x over a region; a move changes it by

        n_B n_b / (n_B + n_b) |m_b - m_B|^2 - n_A n_b / (n_A - n_b) |m_b - m_A|^2 + weight * ...

    when block b goes from A to B and both means follow. A block goes only where that is negative,
    where A keeps ``min_size`` pixels, and where A's blocks around it hang together without it, so
    that each region stays in one piece.

    Parameters
    ----------
    labels : int32 array (P,), changed in place
        Region of each block; negative in the rim and where there are no pixels.
    sums : float32 array (P, F), C-contiguous
        Sums of the features over the pixels of each block.
    sizes : float32 array (P,)
        Number of pixels; positive where ``labels`` is not negative.
    shares : float32 array (P or 1, 3)
        Area of a block's face across the last, the middle and the first axis; one row for all.
    ring : int64 array (8 or 26,)
        Offsets of the blocks around one. The faces come first, in pairs: along the last axis, the
        middle one and, where there are 26, the first.
    adjacency : int64 array (8 or 26,)
        Bits of the blocks of the ring that share a face with each block of the ring.
    n_regions : int
    weight : float
        Cost of one unit of area between two regions.
    min_size : float
        Pixels that a region keeps, at least.
    n_iter : int
        Rounds, at most. A round visits the blocks next to which the last one moved something.

    Returns
    -------
    n_moves : int
    fall : float
        By how much the energy fell.
    """
    n_faces = 4 if ring.size == 8 else 6
    total, count = _region_sums(labels, sums, sizes, n_regions)
    mean = np.empty_like(total)
    for region in range(n_regions):
        for f in range(total.shape[1]):
            mean[region, f] = total[region, f] / max(count[region], 1.0)
    known = np.zeros(256 if ring.size == 8 else 0, np.bool_)
    for inside in range(known.size):
        known[inside] = _hang_together(inside, adjacency, 4)
    waiting = np.empty(labels.size, np.int64)
    following = np.empty(labels.size, np.int64)
    queued = np.zeros(labels.size, np.bool_)
    n_waiting = 0
    for block in range(labels.size):
        if labels[block] >= 0 and _at_boundary(labels, block, ring, n_faces):
            waiting[n_waiting] = block
            n_waiting += 1
    n_moves, fall = 0, 0.0
    for _ in range(n_iter):
        n_following = 0
        for k in range(n_waiting):
            queued[waiting[k]] = False
        for k in range(n_waiting):
            block = waiting[k]
            own, size = labels[block], sizes[block]
            if count[own] - size < min_size or count[own] <= size:
                continue
            best, change = _best_region(
                labels, block, sums, size, shares,
                mean, count, weight, ring, n_faces,
            )  # fmt: skip
            if best == own or not _stays_connected(labels, block, ring, adjacency, known):
                continue
            labels[block] = best
            count[own] -= size
            count[best] += size
            own_share, best_share = 1.0 / count[own], 1.0 / count[best]
            for f in range(sums.shape[1]):
                total[own, f] -= sums[block, f]
                total[best, f] += sums[block, f]
                mean[own, f] = total[own, f] * own_share
                mean[best, f] = total[best, f] * best_share
            n_moves += 1
            fall -= change
            for i in range(n_faces):
                other = block + ring[i]
                if labels[other] >= 0 and not queued[other]:
                    queued[other] = True
                    following[n_following] = other
                    n_following += 1
        waiting, following = following, waiting
        n_waiting = n_following
        if n_waiting == 0:
            break
    return n_moves, fall


@kernel
def region_contacts(labels, shares, ring):
    """Pairs of regions that share a face, as often as they do, and the area of each face.

    Parameters
    ----------
    labels, shares, ring
        As in :func:`refine_blocks`.

    Returns
    -------
    int64 array (E, 2), float64 array (E,)
        In raster order of the blocks.
    """
    n_axes = 2 if ring.size == 8 else 3
    n_found = 0
    for block in range(labels.size):
        if labels[block] >= 0:
            for a in range(n_axes):
                other = labels[block + abs(ring[2 * a])]
                n_found += other >= 0 and other != labels[block]
    pairs = np.empty((n_found, 2), np.int64)
    areas = np.empty(n_found)
    n_found = 0
    for block in range(labels.size):
        if labels[block] < 0:
            continue
        row = block if shares.shape[0] > 1 else 0
        for a in range(n_axes):
            other = labels[block + abs(ring[2 * a])]
            if other >= 0 and other != labels[block]:
                pairs[n_found, 0] = labels[block]
                pairs[n_found, 1] = other
                areas[n_found] = shares[row, a]
                n_found += 1
    return pairs, areas


@kernel
def _rise(total, count, a, b, saved):
    """By how much the energy rises when two regions become one."""
    distance = 0.0
    for f in range(total.shape[1]):
        difference = total[a, f] / count[a] - total[b, f] / count[b]
        distance += difference * difference
    return distance * count[a] * count[b] / (count[a] + count[b]) - saved


@kernel
def _root(group, region):
    """What a region is part of by now; halves the path on the way."""
    while group[region] != region:
        group[region] = group[group[region]]
        region = group[region]
    return region


@kernel
def _sift_up(heap, place, cost, at):
    """Let an edge of the heap rise to where no cheaper one is below it."""
    edge = heap[at]
    while at > 0:
        above = (at - 1) >> 1
        if not cost[edge] < cost[heap[above]]:
            break
        heap[at] = heap[above]
        place[heap[at]] = at
        at = above
    heap[at] = edge
    place[edge] = at


@kernel
def _sift_down(heap, place, cost, at, size):
    """Let an edge of the heap sink to where no dearer one is above it."""
    edge = heap[at]
    while True:
        below = 2 * at + 1
        if below >= size:
            break
        if below + 1 < size and cost[heap[below + 1]] < cost[heap[below]]:
            below += 1
        if not cost[heap[below]] < cost[edge]:
            break
        heap[at] = heap[below]
        place[heap[at]] = at
        at = below
    heap[at] = edge
    place[edge] = at


@kernel
def _thin_out(
    region, turn, first, following, pairs, areas, cost, group, kept, seen, heap, place, size
):
    """Keep one edge to each neighbor in a region's list, with the area of all; its last place.

    Edge e is in the lists of its two regions as 2 e and 2 e + 1; ``group`` says what the regions
    of ``pairs`` are part of by now. An edge that is dropped gets the cost infinity. ``seen`` and
    ``kept`` hold the turn in which a neighbor was last met, and by which edge.
    """
    half, last = first[region], -1
    first[region] = -1
    while half >= 0:
        edge, after = half >> 1, following[half]
        other = _root(group, pairs[edge, 1 - (half & 1)])
        if cost[edge] < np.inf and other != region and seen[other] != turn:
            seen[other], kept[other] = turn, edge
            if last < 0:
                first[region] = half
            else:
                following[last] = half
            following[half] = -1
            last = half
        elif cost[edge] < np.inf:
            if other != region:
                areas[kept[other]] += areas[edge]
            cost[edge] = np.inf
            if place[edge] >= 0:
                _sift_down(heap, place, cost, place[edge], size)
        half = after
    return last


@kernel
def merge_cheapest(pairs, areas, total, count, weight, n_left):
    """Merge touching regions, the two that raise the energy least first, down to ``n_left``.

    That is Ward's method on the graph of the regions, with the boundary in the energy.

    Parameters
    ----------
    pairs : int64 array (E, 2)
        Regions that touch; a pair may come more than once.
    areas : float64 array (E,)
        Area that each holds between its regions.
    total : float64 array (R, F)
        Sums of the features over each region.
    count : float64 array (R,)
        Pixels of each, at least one.
    weight : float
        As in :func:`refine_blocks`.
    n_left : int
        More regions are left where the graph has more parts.

    Returns
    -------
    group : int64 array (R,)
        One region of those that each was merged with, itself included.
    rise : float
        By how much the energy rose.
    """
    n_regions, n_edges = count.size, areas.size
    total, count, areas = total.copy(), count.copy(), areas.copy()
    group, kept, seen = np.arange(n_regions), np.zeros(n_regions, np.int64), np.full(n_regions, -1)
    first, end = np.full(n_regions, -1), np.full(n_regions, -1)
    following = np.full(2 * n_edges, -1)
    cost = np.zeros(n_edges)
    heap, place, size = np.empty(n_edges, np.int64), np.full(n_edges, -1), 0
    for half in range(2 * n_edges - 1, -1, -1):
        region = pairs[half >> 1, half & 1]
        following[half] = first[region]
        first[region] = half
    for r in range(n_regions):
        end[r] = _thin_out(
            r, r, first, following, pairs, areas, cost, group, kept, seen, heap, place, size
        )
    for edge in range(n_edges):
        if cost[edge] < np.inf:
            saved = weight * areas[edge]
            cost[edge] = _rise(total, count, pairs[edge, 0], pairs[edge, 1], saved)
            heap[size] = edge
            _sift_up(heap, place, cost, size)
            size += 1
    turn, rise = n_regions, 0.0
    while turn < 2 * n_regions - n_left and size > 0 and cost[heap[0]] < np.inf:
        edge = heap[0]
        a, b = _root(group, pairs[edge, 0]), _root(group, pairs[edge, 1])
        a, b = min(a, b), max(a, b)
        rise += cost[edge]
        group[b] = a
        count[a] += count[b]
        for f in range(total.shape[1]):
            total[a, f] += total[b, f]
        following[end[a]] = first[b]
        end[a] = _thin_out(
            a, turn, first, following, pairs, areas, cost, group, kept, seen, heap, place, size
        )
        half = first[a]
        while half >= 0:
            edge = half >> 1
            other = _root(group, pairs[edge, 1 - (half & 1)])
            cost[edge] = _rise(total, count, a, other, weight * areas[edge])
            _sift_up(heap, place, cost, place[edge])
            _sift_down(heap, place, cost, place[edge], size)
            half = following[half]
        turn += 1
    for r in range(n_regions):
        group[r] = _root(group, r)
    return group, rise
