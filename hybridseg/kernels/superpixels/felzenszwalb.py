"""Graph-based segmentation of Felzenszwalb and Huttenlocher: edge costs, sorting, merging.

`edge_costs`, `part_edges` and `merge_edges` are the steps of algorithm 1 of [1]_: edges between
neighboring pixels are visited in ascending order of cost, and a union-find forest holds the
regions. `blur` smooths the image before.

Pixels are numbered in raster order of a volume (D, H, W), with D = 1 for an image. An edge is one
uint64. From the top, its bits are its cost (32 bits: a float32 that is not negative), its first
pixel (28 bits) and its direction (4 bits). Such floats have the order of their bits, so a radix
sort puts edges in order without comparisons. In the forest ``parent`` (int32), a root holds minus
the size of its region, any other pixel holds its parent.

Edges are not sorted all at once. They are divided into groups of rising cost. When the turn of a
group comes, edges within one region are dropped before the sort. They are then still in raster
order, where memory accesses lie close together (filter-Kruskal [2]_). The result is the same.

`hybridseg.features.felzenszwalb` calls these kernels. All of them run on one thread.

References
----------
.. [1] P. F. Felzenszwalb, D. P. Huttenlocher, "Efficient graph-based image segmentation", IJCV
   59(2), 2004, equations (3) and (4), algorithm 1.
.. [2] V. Osipov, P. Sanders, J. Singler, "The filter-Kruskal minimum spanning tree algorithm",
   ALENEX, 2009.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel

#: Bits of an edge below its pixel (the direction), and below its cost (pixel and direction).
_DIRECTION_BITS, _PLACE_BITS = np.uint64(4), np.uint64(32)
#: Groups are made of *coarse costs*, the bits of a cost from this one on: sign, exponent and 4 bits
#: of the mantissa.
_COARSE_SHIFT = np.uint32(19)
#: Number of groups, of about the same number of edges.
_N_GROUPS = 6
#: Maximum number of bits in one pass of the radix sort.
_MAX_DIGIT_BITS = 12
#: Maximum number of pixels, whose indices fit in 28 bits.
MOST_PIXELS = 1 << 28


@kernel
def _row_costs(first, second, costs):
    """Write the distances between the colors of two row segments, (C, n) each, to ``costs``.

    The loops over pixels are innermost, so the compiler vectorizes them.
    """
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
    """Return the color distance between each pixel and its neighbor in each direction.

    Parameters
    ----------
    planes : float32 array (C, D, H, W), C-contiguous, finite
    inside : bool array (D, H, W)
        An edge with an end outside has infinite cost.
    offsets : int64 array (n, 3)
        Step (z, y, x) of each direction, each component -1, 0 or 1.

    Returns
    -------
    float32 array (n, D, H, W)
        Infinite where the neighbor lies beyond the volume.
    """
    _, depth, height, width = planes.shape
    costs = np.empty((offsets.shape[0], depth, height, width), np.float32)
    for k in range(offsets.shape[0]):
        dz, dy, dx = offsets[k]
        # the pixels of a row whose neighbors lie in the row as well
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
def _group_limits(bits, infinite):
    """Return the group of each coarse cost, and each group's size and smallest coarse cost.

    ``bits`` and ``infinite`` are as in `part_edges`. A group ends when its part of all edges is
    reached; empty groups follow at the end if there are few distinct costs.
    """
    # a histogram of the coarse costs
    counts = np.zeros((infinite >> _COARSE_SHIFT) + np.uint32(1), np.int64)
    for k in range(bits.shape[0]):
        for pixel in range(bits.shape[1]):
            counts[bits[k, pixel] >> _COARSE_SHIFT] += 1
    counts[-1] = 0  # infinite costs
    n_edges = counts.sum()
    groups = np.empty(counts.size, np.int64)
    sizes, least = np.zeros(_N_GROUPS, np.int64), np.zeros(_N_GROUPS + 1, np.int64)
    group = seen = 0
    # cut it into groups of about the same number of edges
    for coarse in range(counts.size):
        if seen * _N_GROUPS >= n_edges * (group + 1) and sizes[group] > 0 and group + 1 < _N_GROUPS:
            group += 1
            least[group] = coarse
        groups[coarse] = group
        sizes[group] += counts[coarse]
        seen += counts[coarse]
    least[group + 1 :] = counts.size - 1
    return groups, sizes, least


@kernel
def part_edges(bits):
    """Divide the edges of finite cost into groups of ascending cost.

    Parameters
    ----------
    bits : uint32 array (n, n_pixels), C-contiguous, n <= 16, n_pixels <= MOST_PIXELS
        The costs of `edge_costs`, viewed as integers. Edges of infinite cost are left out.

    Returns
    -------
    edges : uint64 array (n_edges,)
        Cost, pixel and direction of each edge. Within a group the edges are in the order of their
        directions, then of their pixels.
    starts : int64 array (n_groups + 1,)
        First edge of each group, and the number of edges.
    least : int64 array (n_groups + 1,)
        Lower bounds of the costs' bits: those of group g are at least ``least[g]`` and less than
        ``least[g + 1]``.
    """
    infinite = np.uint32(0x7F800000)
    groups, sizes, least = _group_limits(bits, infinite)
    starts = np.zeros(_N_GROUPS + 1, np.int64)
    for group in range(_N_GROUPS):
        starts[group + 1] = starts[group] + sizes[group]
    ends = starts[:-1].copy()
    edges = np.empty(starts[-1], np.uint64)
    for k in range(bits.shape[0]):
        for pixel in range(bits.shape[1]):
            key = bits[k, pixel]
            if key < infinite:
                own = np.uint64(groups[key >> _COARSE_SHIFT])
                place = (np.uint64(pixel) << _DIRECTION_BITS) | np.uint64(k)
                edges[ends[own]] = (np.uint64(key) << _PLACE_BITS) | place
                ends[own] += 1
    return edges, starts, least << np.int64(_COARSE_SHIFT)


@kernel
def _pass(edges, least, shift, n_digits, out):
    """Make one pass of the radix sort, from ``edges`` to ``out``.

    The digit has ``n_digits`` values (a power of two). It is read from bit ``shift`` on of the cost
    less ``least``.
    """
    places = np.zeros(n_digits, np.uint32)
    mask = np.uint32(n_digits - 1)
    for i in range(edges.size):
        places[(np.uint32(edges[i] >> _PLACE_BITS) - least) >> shift & mask] += np.uint32(1)
    # from the counts to the first place of each digit
    total = np.uint32(0)
    for digit in range(n_digits):
        count = places[digit]
        places[digit] = total
        total += count
    for i in range(edges.size):
        digit = (np.uint32(edges[i] >> _PLACE_BITS) - least) >> shift & mask
        out[places[digit]] = edges[i]
        places[digit] += np.uint32(1)


@kernel
def sort_edges(edges, least, limit, spare):
    """Sort edges by cost; edges of equal cost keep their order.

    Parameters
    ----------
    edges : uint64 array (n_edges,), written
    least, limit : int
        The bits of all costs are at least ``least`` and less than ``limit``.
    spare : uint64 array (n_edges,), written

    Returns
    -------
    uint64 array (n_edges,)
        ``edges`` or ``spare``, whichever holds the result.
    """
    # digits of equal width, in as few passes as the bound allows
    n_bits = 0
    while (limit - 1 - least) >> n_bits > 0:
        n_bits += 1
    n_passes = (n_bits + _MAX_DIGIT_BITS - 1) // _MAX_DIGIT_BITS
    width = (n_bits + n_passes - 1) // max(n_passes, 1)
    for i in range(n_passes):
        _pass(edges, np.uint32(least), np.uint32(i * width), 1 << width, spare)
        edges, spare = spare, edges
    return edges


@kernel
def _root(parent, node):
    """Return the root of ``node``, which holds minus its size; halves the path on the way."""
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
    """Join two different roots and return the new root, which is the larger one."""
    if parent[a] > parent[b]:
        a, b = b, a
    parent[a] += parent[b]
    parent[b] = a
    return a


@kernel
def _ends(edge, shifts, parent):
    """Return the roots of the two pixels of an edge.

    ``shifts`` holds the distance to the neighbor in each direction.
    """
    # the low half of an edge: pixel and direction
    place = np.uint32(edge)
    first = np.int64(place >> np.uint32(4))
    return _root(parent, first), _root(parent, first + shifts[place & np.uint32(15)])


@kernel
def _drop_met(edges, shifts, parent):
    """Keep the edges between two regions, at the beginning of ``edges``; return their number.

    Each edge is written, and the end advances only if it is kept, so nothing branches.
    """
    n_left = 0
    for e in range(edges.size):
        a, b = _ends(edges[e], shifts, parent)
        edges[n_left] = edges[e]
        n_left += a != b
    return n_left


@kernel
def _grow(edges, shifts, scale, parent, bound, refused):
    """Merge regions by the paper's predicate; return the number of edges that were refused.

    The refused edges, which join different regions, are written to ``refused`` in order. ``bound``
    holds, for each root, its internal difference plus ``scale`` over its size.
    """
    # the cost of edge e is number 2 e + 1, its upper half (little-endian)
    costs = edges.view(np.float32)
    n_refused = 0
    for e in range(edges.size):
        a, b = _ends(edges[e], shifts, parent)
        if a == b:
            continue
        cost = costs[2 * e + 1]
        if cost < min(bound[a], bound[b]):
            root = _join(parent, a, b)
            bound[root] = cost + scale / np.float32(-parent[root])
        else:
            refused[n_refused] = edges[e]
            n_refused += 1
    return n_refused


@kernel
def _numbers(parent, inside):
    """Return region numbers in the order of the first pixels; -1 where not inside."""
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


@kernel
def merge_edges(edges, starts, least, shifts, scale, min_size, inside):
    """Merge regions along edges of ascending cost, then merge regions that are too small.

    Two regions merge if the cost of the edge is below the internal difference of both, each raised
    by ``scale`` over its size. The internal difference is the cost of the region's last merge ([1]_
    of the module, equations (3) and (4), algorithm 1). The remaining edges are then visited in the
    same order, and an edge merges its regions if one of them has fewer than ``min_size`` pixels.

    Parameters
    ----------
    edges : uint64 array (n_edges,), written
    starts, least : int64 arrays (n_groups + 1,)
        As returned by `part_edges`.
    shifts : int64 array (n,)
        Distance to the neighbor in each direction, in pixels.
    scale : float32
    min_size : int
    inside : bool array (n_pixels,)

    Returns
    -------
    int32 array (n_pixels,)
        0..R-1 in raster order of the first pixel; -1 where not inside.
    """
    parent = np.empty(inside.size, np.int32)
    bound = np.empty(inside.size, np.float32)  # internal difference + scale / size
    for pixel in range(inside.size):
        parent[pixel], bound[pixel] = -1, scale
    longest = 0
    for group in range(starts.size - 1):
        longest = max(longest, starts[group + 1] - starts[group])
    spare = np.empty(longest, np.uint64)
    n_refused = 0  # refused edges overwrite edges that were visited before
    for group in range(starts.size - 1):
        mine = edges[starts[group] : starts[group + 1]]
        if group > 0:
            mine = mine[: _drop_met(mine, shifts, parent)]
        ordered = sort_edges(mine, least[group], least[group + 1], spare[: mine.size])
        n_refused += _grow(ordered, shifts, scale, parent, bound, edges[n_refused:])
    # small regions: only refused edges can still join two regions
    for e in range(n_refused):
        a, b = _ends(edges[e], shifts, parent)
        if a != b and min(-parent[a], -parent[b]) < min_size:
            _join(parent, a, b)
    return _numbers(parent, inside)


@kernel
def _mirrored(i, n):
    """Return the place within 0..n-1 that place i shows if the borders mirror the values."""
    i %= 2 * n
    return min(i, 2 * n - 1 - i)


@kernel
def _add_pair(weight, one, other, out):
    """Add ``weight * (one + other)`` to ``out``."""
    for x in range(out.size):
        out[x] += weight * (one[x] + other[x])


@kernel
def blur(values, taps):
    """Filter along the middle axis with symmetric weights and mirrored borders.

    Parameters
    ----------
    values : float32 array (A, N, B), C-contiguous
    taps : float32 array (radius + 1,)
        The weight of the center, then of the two neighbors at distance 1, 2 and so on.

    Returns
    -------
    float32 array (A, N, B)
    """
    n_outer, length, n_inner = values.shape
    radius = taps.size - 1
    out = np.zeros_like(values)
    half = taps[0] / np.float32(2)
    line = np.empty(length + 2 * radius, np.float32)
    for a in range(n_outer):
        # the last axis of an image: copy the line with mirrored ends, add shifted copies
        if n_inner == 1:
            for i in range(length):
                line[radius + i] = values[a, i, 0]
            for i in range(1, radius + 1):
                line[radius - i] = values[a, _mirrored(-i, length), 0]
                line[radius + length - 1 + i] = values[a, _mirrored(length - 1 + i, length), 0]
            for k in range(radius + 1):
                one = line[radius - k : radius - k + length]
                other = line[radius + k : radius + k + length]
                _add_pair(taps[k] if k > 0 else half, one, other, out[a].ravel())
            continue
        # another axis: add whole rows
        for i in range(length):
            for k in range(radius + 1):
                one = values[a, _mirrored(i - k, length)]
                other = values[a, _mirrored(i + k, length)]
                _add_pair(taps[k] if k > 0 else half, one, other, out[a, i])
    return out
