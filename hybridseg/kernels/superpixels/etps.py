"""ETPS superpixels: coarse-to-fine refinement of regions, and merging of the cheapest pairs.

`refine_blocks` is algorithm 1 of [1]_ on one level: blocks (on the last level, pixels) at a
boundary move to a neighboring region while that lowers the energy. `merge_cheapest` is Ward's
method [2]_ on the graph of touching regions. `block_sums` builds a coarser level from a finer one,
`region_contacts` builds the graph.

All arrays of blocks are flat and padded: the blocks in raster order, with a rim of one block on
both sides of each axis (no rim along the first axis if it has one block), so that each neighbor is
at a constant offset. ``labels`` is -1 in the rim and where a block has no pixels.

`hybridseg.features.etps` calls these kernels. They run on one thread.

References
----------
.. [1] J. Yao, M. Boben, S. Fidler, R. Urtasun, "Real-time coarse-to-fine topologically preserving
   segmentation", CVPR, 2015, equations (1) to (5) and algorithm 1.
.. [2] J. H. Ward, "Hierarchical grouping to optimize an objective function", Journal of the
   American Statistical Association 58(301), 1963.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel
from hybridseg.kernels.sparse.union_find import find_root

#: A move must lower the energy by more than this fraction of the terms that it compares. Otherwise
#: rounding errors could move a block back and forth.
_MIN_FALL = 1e-6


@kernel
def block_sums(sums, sizes, places, starts, n_blocks):
    """Add up the features and the sizes of the blocks of one level to those of a coarser level.

    Parameters
    ----------
    sums : float32 array (P, F), C-contiguous
        Sums of the features over each block of the finer level.
    sizes : float32 array (P,)
        Number of pixels of each block; 0 if it has none.
    places : three int64 arrays (n_a,)
        For each index of the finer grid along an axis, its contribution to the flat index in the
        coarser grid.
    starts : int64 array (4,)
        Flat index of the finer grid's first block, and the steps along its axes.
    n_blocks : int
        Length of the coarser level's flat arrays.

    Returns
    -------
    sums : float32 array (n_blocks, F)
    sizes : float32 array (n_blocks,)
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
    """Return the sums of the features (R, F) and the sizes (R,) of all regions, float64."""
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
    """Return the squared distance of a block's mean, its sums times ``share``, from a region's."""
    distance = 0.0
    for f in range(mean.shape[1]):
        difference = sums[block, f] * share - mean[region, f]
        distance += difference * difference
    return distance


@kernel
def _faces_connected(inside, adjacency, n_faces):
    """Return whether the face neighbors among some blocks of the ring are connected within these.

    ``inside`` has a bit for each block of the ring that counts, the face neighbors first. False if
    no face neighbor counts.
    """
    # grow from the lowest face neighbor until all are reached or nothing is added
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
    """Return whether a region stays connected around a block that leaves it.

    ``known`` holds the answers for all 256 sets of the 8 blocks around one in an image.
    """
    inside = 0
    for i in range(ring.size):
        inside |= int(labels[block + ring[i]] == labels[block]) << i
    if ring.size == 8:
        return known[inside]
    return _faces_connected(inside, adjacency, 6)


@kernel
def _at_boundary(labels, block, ring, n_faces):
    """Return whether a face neighbor of a block belongs to another region."""
    region = labels[block]
    for i in range(n_faces):
        other = labels[block + ring[i]]
        if other >= 0 and other != region:
            return True
    return False


@kernel
def _best_region(labels, block, sums, size, shares, mean, count, weight, ring, n_faces):
    """Return the neighboring region to which a block's move lowers the energy most, and the change.

    They are the block's own region and 0 if no move lowers the energy enough.
    """
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
        # area of the faces to this region, unless an earlier face led to it
        gained, seen = 0.0, False
        for j in range(n_faces):
            if labels[block + ring[j]] == other:
                seen |= j < i
                gained += shares[row, j >> 1]
        if seen:
            continue
        # the terms of the own region are computed once, when a first candidate needs them
        if stay < 0:
            stay = _distance(sums, block, share, mean, own)
            stay *= size * count[own] / (count[own] - size)
            for j in range(n_faces):
                if labels[block + ring[j]] == own:
                    held += shares[row, j >> 1]
        join = _distance(sums, block, share, mean, other)
        join *= size * count[other] / (count[other] + size)
        lower = join - stay + weight * (held - gained)
        if lower < change and lower < -_MIN_FALL * (join + stay + weight * (held + gained)):
            best, change = other, lower
    return best, change


@kernel
def refine_blocks(
    labels, sums, sizes, shares, ring, adjacency, n_regions, weight, min_size, n_iter
):
    """Move blocks at boundaries to neighboring regions while that lowers the energy.

    The energy of a partition is

        E = sum_b sum_{p in b} |x_p - m_s(b)|^2 + weight * (area of faces between different regions)

    with m the mean of the features x over a region. If block b moves from A to B and both means are
    updated, the energy changes by

        n_B n_b / (n_B + n_b) |m_b - m_B|^2 - n_A n_b / (n_A - n_b) |m_b - m_A|^2 + weight * ...

    A block moves only if that is negative, if A keeps ``min_size`` pixels, and if A's blocks around
    it are connected without it, so that each region stays connected.

    Parameters
    ----------
    labels : int32 array (P,), changed in place
        Region of each block; negative in the rim and where there are no pixels.
    sums : float32 array (P, F), C-contiguous
        Sums of the features over the pixels of each block.
    sizes : float32 array (P,)
        Number of pixels; positive where ``labels`` is not negative.
    shares : float32 array (P or 1, 3)
        Area of a block's face across the last, the middle and the first axis; one row for all
        blocks if they are equal.
    ring : int64 array (8 or 26,)
        Offsets to the blocks around one. The faces come first, in pairs of opposite ones: along the
        last axis, the middle one and, if there are 26, the first.
    adjacency : int64 array (8 or 26,)
        For each block of the ring, the bits of the blocks of the ring that share a face with it.
    n_regions : int
    weight : float
        Cost of one unit of area between two regions.
    min_size : float
        Minimum number of pixels that a region keeps.
    n_iter : int
        Maximum number of rounds. The first round visits all blocks at boundaries, each other round
        the neighbors of the blocks that moved in the round before.

    Returns
    -------
    n_moves : int
    fall : float
        Decrease of the energy.
    """
    n_faces = 4 if ring.size == 8 else 6
    total, count = _region_sums(labels, sums, sizes, n_regions)
    mean = np.empty_like(total)
    for region in range(n_regions):
        for f in range(total.shape[1]):
            mean[region, f] = total[region, f] / max(count[region], 1.0)
    # in an image, all 256 sets of blocks around one are decided beforehand
    known = np.zeros(256 if ring.size == 8 else 0, np.bool_)
    for inside in range(known.size):
        known[inside] = _faces_connected(inside, adjacency, 4)
    # the blocks of this round and of the next; ``queued`` marks the latter
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
    """List the faces between regions, with one entry for each pair of neighboring blocks.

    Parameters
    ----------
    labels, shares, ring
        As in :func:`refine_blocks`.

    Returns
    -------
    pairs : int64 array (E, 2)
        The two regions of each face, in raster order of the blocks; pairs may repeat.
    areas : float64 array (E,)
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
    """Return the rise of the energy if regions merge whose face costs ``saved``."""
    distance = 0.0
    for f in range(total.shape[1]):
        difference = total[a, f] / count[a] - total[b, f] / count[b]
        distance += difference * difference
    return distance * count[a] * count[b] / (count[a] + count[b]) - saved


@kernel
def _sift_up(heap, place, cost, at):
    """Move the edge at place ``at`` of the heap up until its parent is not more expensive."""
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
    """Move the edge at place ``at`` of the heap down until no child is cheaper."""
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
    """Keep one edge to each neighbor in a region's list; return the last half edge that is kept.

    Edge e is in the lists of its two regions as the half edges 2 e and 2 e + 1. ``first`` is the
    head of each region's list, ``following`` links the half edges, -1 ends a list. The edge that is
    kept takes over the areas of its parallel edges; dropped edges get infinite cost and sink in the
    heap. ``seen`` and ``kept`` hold, for each neighbor, the turn in which it was last met and the
    edge.
    """
    half, last = first[region], -1
    first[region] = -1
    while half >= 0:
        edge, after = half >> 1, following[half]
        other = find_root(group, pairs[edge, 1 - (half & 1)])
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
    """Merge the touching regions that raise the energy least, until ``n_left`` regions are left.

    This is Ward's method on the graph of the regions, with the boundary length in the energy.

    Parameters
    ----------
    pairs : int64 array (E, 2)
        Regions that touch; a pair may be repeated.
    areas : float64 array (E,)
        Area of the face of each pair.
    total : float64 array (R, F)
        Sums of the features over each region.
    count : float64 array (R,)
        Number of pixels of each region, at least one.
    weight : float
        As in :func:`refine_blocks`.
    n_left : int
        The result has more regions if the graph has more components.

    Returns
    -------
    group : int64 array (R,)
        A representative of the group of each region: one of its members.
    rise : float
        Increase of the energy.
    """
    n_regions, n_edges = count.size, areas.size
    total, count, areas = total.copy(), count.copy(), areas.copy()
    group, kept, seen = np.arange(n_regions), np.zeros(n_regions, np.int64), np.full(n_regions, -1)
    first, end = np.full(n_regions, -1), np.full(n_regions, -1)
    following = np.full(2 * n_edges, -1)
    cost = np.zeros(n_edges)
    heap, place, size = np.empty(n_edges, np.int64), np.full(n_edges, -1), 0
    # lists of the half edges of each region, without parallel edges
    for half in range(2 * n_edges - 1, -1, -1):
        region = pairs[half >> 1, half & 1]
        following[half] = first[region]
        first[region] = half
    for r in range(n_regions):
        end[r] = _thin_out(
            r, r, first, following, pairs, areas, cost, group, kept, seen, heap, place, size
        )
    # a heap of the remaining edges, the cheapest at the top; ``place`` is -1 for others
    for edge in range(n_edges):
        if cost[edge] < np.inf:
            saved = weight * areas[edge]
            cost[edge] = _rise(total, count, pairs[edge, 0], pairs[edge, 1], saved)
            heap[size] = edge
            _sift_up(heap, place, cost, size)
            size += 1
    turn, rise = n_regions, 0.0
    while turn < 2 * n_regions - n_left and size > 0 and cost[heap[0]] < np.inf:
        # merge the regions of the cheapest edge: b becomes part of a
        edge = heap[0]
        a, b = find_root(group, pairs[edge, 0]), find_root(group, pairs[edge, 1])
        a, b = min(a, b), max(a, b)
        rise += cost[edge]
        group[b] = a
        count[a] += count[b]
        for f in range(total.shape[1]):
            total[a, f] += total[b, f]
        # join the lists of half edges, then drop inner and parallel edges
        following[end[a]] = first[b]
        end[a] = _thin_out(
            a, turn, first, following, pairs, areas, cost, group, kept, seen, heap, place, size
        )
        # the costs of all edges of the merged region change
        half = first[a]
        while half >= 0:
            edge = half >> 1
            other = find_root(group, pairs[edge, 1 - (half & 1)])
            cost[edge] = _rise(total, count, a, other, weight * areas[edge])
            _sift_up(heap, place, cost, place[edge])
            _sift_down(heap, place, cost, place[edge], size)
            half = following[half]
        turn += 1
    for r in range(n_regions):
        group[r] = find_root(group, r)
    return group, rise
