"""Graph-based segmentation of Felzenszwalb and Huttenlocher: costs, their order, the merging.

An edge is one 64-bit number: the bits of its cost, a float32 that is not negative, above the number
of its first pixel (28 bits) and of its direction (4 bits). As the bits of such floats have their
order, a radix sort in three passes puts the edges in order, without comparisons.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel

#: Bits of an edge below its cost: those of the direction, and with those of the pixel.
_DIRECTION, _PLACE = np.uint64(4), np.uint64(32)
#: Bits of the passes of the sort, from the lowest; the sign is always 0.
_LOW, _MIDDLE, _HIGH = 11, 10, 10
#: Pixels that an edge's bits can number.
MOST_PIXELS = 1 << 28


@kernel
def _row_costs(first, second, costs):
    """Euclidean distances of the colours of two stretches of rows, (C, n) each."""
    for x in range(costs.size):
        costs[x] = np.float32(0)
    for c in range(first.shape[0]):
        a, b = first[c], second[c]
        for x in range(costs.size):
            difference = a[x] - b[x]
            costs[x] += difference * difference
    for x in range(costs.size):
        costs[x] = np.sqrt(costs[x])


@kernel
def edge_costs(planes, inside, offsets):
    """Distance in colour between every pixel and its neighbours in some directions.

    Parameters
    ----------
    planes : float32 array (C, D, H, W), C-contiguous, finite
    inside : bool array (D, H, W)
        An edge of which one end is outside has infinite cost.
    offsets : int64 array (n, 3)
        Step (z, y, x) of each direction, each -1, 0 or 1.

    Returns
    -------
    float32 array (n, D, H, W)
        Infinite where the neighbour would lie beyond the volume.
    """
    _, depth, height, width = planes.shape
    costs = np.empty((offsets.shape[0], depth, height, width), np.float32)
    for k in range(offsets.shape[0]):
        dz, dy, dx = offsets[k]
        left, right = max(0, -dx), max(min(width, width - dx), 0)
        for z in range(depth):
            for y in range(height):
                row = costs[k, z, y]
                if not (0 <= z + dz < depth and 0 <= y + dy < height) or right <= left:
                    row[:] = np.float32(np.inf)
                    continue
                first = planes[:, z, y, left:right]
                second = planes[:, z + dz, y + dy, left + dx : right + dx]
                _row_costs(first, second, row[left:right])
                row[:left] = np.float32(np.inf)
                row[right:] = np.float32(np.inf)
                here, there = inside[z, y], inside[z + dz, y + dy]
                for x in range(left, right):
                    if not (here[x] and there[x + dx]):
                        row[x] = np.float32(np.inf)
    return costs


@kernel
def _scatter(edges, shift, mask, places, out):
    """One pass of the sort: each edge goes to the next free place of its digit."""
    for i in range(edges.size):
        digit = np.uint32(edges[i] >> shift) & mask
        out[places[digit]] = edges[i]
        places[digit] += np.uint32(1)


@kernel
def _begin_places(counts):
    """Where each digit's edges begin, from how many there are, in place."""
    total = np.uint32(0)
    for digit in range(counts.size):
        count = counts[digit]
        counts[digit] = total
        total += count


@kernel
def sort_edges(bits):
    """Put the edges of finite cost in ascending order of cost.

    Parameters
    ----------
    bits : uint32 array (n, n_pixels), C-contiguous, n <= 16, n_pixels <= MOST_PIXELS
        The bits of the costs of ``edge_costs``, not negative; infinite ones are left out.

    Returns
    -------
    uint64 array (n_edges,)
        Bits of the cost, of the pixel and of the direction, from the top. Edges of equal cost
        keep their order: by direction, then by pixel.
    """
    infinite = np.uint32(0x7F800000)
    low = np.zeros(1 << _LOW, np.uint32)
    middle = np.zeros(1 << _MIDDLE, np.uint32)
    high = np.zeros(1 << _HIGH, np.uint32)
    low_mask, middle_mask = np.uint32((1 << _LOW) - 1), np.uint32((1 << _MIDDLE) - 1)
    high_mask = np.uint32((1 << _HIGH) - 1)
    n_edges = 0
    edges = np.empty(bits.size, np.uint64)
    for k in range(bits.shape[0]):
        for pixel in range(bits.shape[1]):
            key = bits[k, pixel]
            place = (np.uint64(pixel) << _DIRECTION) | np.uint64(k)
            edges[n_edges] = (np.uint64(key) << _PLACE) | place
            if key < infinite:
                low[key & low_mask] += np.uint32(1)
                middle[(key >> np.uint32(_LOW)) & middle_mask] += np.uint32(1)
                high[(key >> np.uint32(_LOW + _MIDDLE)) & high_mask] += np.uint32(1)
                n_edges += 1
    edges = edges[:n_edges]
    other = np.empty(n_edges, np.uint64)
    _begin_places(low)
    _begin_places(middle)
    _begin_places(high)
    _scatter(edges, np.uint64(32), low_mask, low, other)
    _scatter(other, np.uint64(32 + _LOW), middle_mask, middle, edges)
    _scatter(edges, np.uint64(32 + _LOW + _MIDDLE), high_mask, high, other)
    return other


@kernel
def _root(parent, node):
    """Root of a forest in which a root holds minus its size; halves the path on the way."""
    up = parent[node]
    while up >= 0:
        higher = parent[up]
        if higher < 0:
            return up
        parent[node] = higher
        node = higher
        up = parent[node]
    return node


@kernel
def _join(parent, a, b):
    """Join two roots; the larger becomes the root."""
    if parent[a] > parent[b]:
        a, b = b, a
    parent[a] += parent[b]
    parent[b] = a
    return a


@kernel
def _grow(edges, shifts, costs, scale, parent):
    """Merge by the paper's predicate; the edges between what it kept apart come first, in order."""
    bound = np.empty(parent.size, np.float32)  # internal difference and what the size allows
    for pixel in range(parent.size):
        bound[pixel] = scale
    n_left = 0
    for e in range(edges.size):
        place = np.uint32(edges[e])
        first = np.int64(place >> np.uint32(4))
        a = _root(parent, first)
        b = _root(parent, first + shifts[place & np.uint32(15)])
        if a == b:
            continue
        cost = costs[2 * e + 1]
        if cost < min(bound[a], bound[b]):
            root = _join(parent, a, b)
            bound[root] = cost + scale / np.float32(-parent[root])
        else:
            edges[n_left] = edges[e]
            n_left += 1
    return n_left


@kernel
def merge_edges(edges, costs, shifts, scale, min_size, inside):
    """Grow regions along edges of ascending cost, then merge those that are too small.

    Two regions merge where the cost is below the internal difference of both, each raised by
    ``scale`` over its size; the internal difference is the cost of the last merge (Felzenszwalb
    and Huttenlocher 2004, equations 3 and 4, algorithm 1). After that, in the same order, an edge
    merges its ends where one of them has fewer than ``min_size`` pixels.

    Parameters
    ----------
    edges : uint64 array (n_edges,), in order, as from ``sort_edges``; written
    costs : float32 array (2 * n_edges,)
        The same memory, read as floats; an edge's cost is the second of each two.
    shifts : int64 array (n,)
        How far the neighbour in each direction is, in pixels.
    scale : float32
    min_size : int
    inside : bool array (n_pixels,)

    Returns
    -------
    int32 array (n_pixels,)
        0..R-1 in raster order of the first pixel; -1 where not inside.
    """
    parent = np.empty(inside.size, np.int32)
    for pixel in range(inside.size):
        parent[pixel] = -1
    n_left = _grow(edges, shifts, costs, scale, parent)
    for e in range(n_left):
        place = np.uint32(edges[e])
        first = np.int64(place >> np.uint32(4))
        a = _root(parent, first)
        b = _root(parent, first + shifts[place & np.uint32(15)])
        if a != b and min(-parent[a], -parent[b]) < min_size:
            _join(parent, a, b)
    numbers = np.empty(inside.size, np.int32)
    for pixel in range(inside.size):
        numbers[pixel] = -1
    regions = np.empty(inside.size, np.int32)
    n_regions = 0
    for pixel in range(inside.size):
        regions[pixel] = -1
        if inside[pixel]:
            root = _root(parent, pixel)
            if numbers[root] < 0:
                numbers[root] = n_regions
                n_regions += 1
            regions[pixel] = numbers[root]
    return regions
