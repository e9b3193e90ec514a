"""Graph-based segmentation of Felzenszwalb and Huttenlocher: costs, their order, the merging.

An edge is one 64-bit number: the bits of its cost, a float32 that is not negative, above the number
of its first pixel (28 bits) and of its direction (4 bits). As the bits of such floats have their
order, a radix sort puts the edges in order, without comparisons.

Edges are not sorted all at once: they are parted into groups of rising cost, and when the turn of a
group comes, the edges whose ends have met by then are dropped, unsorted and in raster order, where
memory is near (filter-Kruskal, Osipov, Sanders and Singler 2009). The result is the same.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel

#: Bits of an edge below its cost: those of the direction, and with those of the pixel.
_DIRECTION, _PLACE = np.uint64(4), np.uint64(32)
#: Costs are counted, and parted into groups, by their bits from here on: 4 bits of the mantissa.
_COARSE = np.uint32(19)
#: Groups of about equally many edges.
_GROUPS = 6
#: Bits of one pass of the sort, at most.
_DIGIT = 12
#: Pixels that an edge's bits can number.
MOST_PIXELS = 1 << 28


@kernel
def _row_costs(first, second, costs):
    """Euclidean distances of the colors of two stretches of rows, (C, n) each."""
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
    """Distance in color between every pixel and its neighbors in some directions.

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
        Infinite where the neighbor would lie beyond the volume.
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
def _group_limits(bits, infinite):
    """The group of each coarse cost, how many edges each group has, and its least coarse cost."""
    counts = np.zeros((infinite >> _COARSE) + np.uint32(1), np.int64)
    for k in range(bits.shape[0]):
        for pixel in range(bits.shape[1]):
            counts[bits[k, pixel] >> _COARSE] += 1
    counts[-1] = 0  # what is infinite
    n_edges = counts.sum()
    groups = np.empty(counts.size, np.int64)
    sizes, least = np.zeros(_GROUPS, np.int64), np.zeros(_GROUPS + 1, np.int64)
    group = seen = 0
    for coarse in range(counts.size):
        if seen * _GROUPS >= n_edges * (group + 1) and sizes[group] > 0 and group + 1 < _GROUPS:
            group += 1
            least[group] = coarse
        groups[coarse] = group
        sizes[group] += counts[coarse]
        seen += counts[coarse]
    least[group + 1 :] = counts.size - 1
    return groups, sizes, least


@kernel
def part_edges(bits):
    """Put the edges of finite cost into groups of ascending cost.

    Parameters
    ----------
    bits : uint32 array (n, n_pixels), C-contiguous, n <= 16, n_pixels <= MOST_PIXELS
        The bits of the costs of ``edge_costs``, not negative; infinite ones are left out.

    Returns
    -------
    edges : uint64 array (n_edges,)
        Bits of the cost, of the pixel and of the direction, from the top. Within a group by
        direction, then by pixel.
    starts : int64 array (n_groups + 1,)
        First edge of each group, and the number of edges.
    least : int64 array (n_groups + 1,)
        Bits of the cost that no edge of a group is below and every edge of those before is.
    """
    infinite = np.uint32(0x7F800000)
    groups, sizes, least = _group_limits(bits, infinite)
    starts = np.zeros(_GROUPS + 1, np.int64)
    for group in range(_GROUPS):
        starts[group + 1] = starts[group] + sizes[group]
    ends = starts[:-1].copy()
    edges = np.empty(starts[-1], np.uint64)
    for k in range(bits.shape[0]):
        for pixel in range(bits.shape[1]):
            key = bits[k, pixel]
            if key < infinite:
                own = np.uint64(groups[key >> _COARSE])
                place = (np.uint64(pixel) << _DIRECTION) | np.uint64(k)
                edges[ends[own]] = (np.uint64(key) << _PLACE) | place
                ends[own] += 1
    return edges, starts, least << np.int64(_COARSE)


@kernel
def _pass(edges, least, shift, n_digits, out):
    """One pass of the sort, by the digit of the cost above ``least`` from bit ``shift`` on."""
    places = np.zeros(n_digits, np.uint32)
    mask = np.uint32(n_digits - 1)
    for i in range(edges.size):
        places[(np.uint32(edges[i] >> _PLACE) - least) >> shift & mask] += np.uint32(1)
    total = np.uint32(0)
    for digit in range(n_digits):
        count = places[digit]
        places[digit] = total
        total += count
    for i in range(edges.size):
        digit = (np.uint32(edges[i] >> _PLACE) - least) >> shift & mask
        out[places[digit]] = edges[i]
        places[digit] += np.uint32(1)


@kernel
def sort_edges(edges, least, limit, spare):
    """Put edges in ascending order of cost; those of equal cost keep their order.

    Parameters
    ----------
    edges : uint64 array (n_edges,), written
    least, limit : int
        The bits of all costs are from the one to below the other.
    spare : uint64 array (n_edges,), written

    Returns
    -------
    uint64 array (n_edges,)
        One of the two arrays.
    """
    n_bits = 0
    while (limit - 1 - least) >> n_bits > 0:
        n_bits += 1
    n_passes = (n_bits + _DIGIT - 1) // _DIGIT
    width = (n_bits + n_passes - 1) // max(n_passes, 1)
    for i in range(n_passes):
        _pass(edges, np.uint32(least), np.uint32(i * width), 1 << width, spare)
        edges, spare = spare, edges
    return edges


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
def _ends(edge, shifts, parent):
    """Roots of the two pixels of an edge."""
    place = np.uint32(edge)
    first = np.int64(place >> np.uint32(4))
    return _root(parent, first), _root(parent, first + shifts[place & np.uint32(15)])


@kernel
def _drop_met(edges, shifts, parent):
    """Keep, at the beginning, the edges between two regions; how many there are."""
    n_left = 0
    for e in range(edges.size):
        a, b = _ends(edges[e], shifts, parent)
        edges[n_left] = edges[e]
        n_left += a != b
    return n_left


@kernel
def _grow(edges, shifts, scale, parent, bound, refused):
    """Merge by the paper's predicate; the edges between what it kept apart, in order."""
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
    """Number the regions by their first pixels; -1 where not inside."""
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
    """Grow regions along edges of ascending cost, then merge those that are too small.

    Two regions merge where the cost is below the internal difference of both, each raised by
    ``scale`` over its size; the internal difference is the cost of the last merge (Felzenszwalb
    and Huttenlocher 2004, equations 3 and 4, algorithm 1). After that, in the same order, an edge
    merges its ends where one of them has fewer than ``min_size`` pixels.

    Parameters
    ----------
    edges : uint64 array (n_edges,), written
    starts, least : int64 arrays (n_groups + 1,)
        As from ``part_edges``.
    shifts : int64 array (n,)
        How far the neighbor in each direction is, in pixels.
    scale : float32
    min_size : int
    inside : bool array (n_pixels,)

    Returns
    -------
    int32 array (n_pixels,)
        0..R-1 in raster order of the first pixel; -1 where not inside.
    """
    parent = np.empty(inside.size, np.int32)
    bound = np.empty(inside.size, np.float32)  # internal difference and what the size allows
    for pixel in range(inside.size):
        parent[pixel], bound[pixel] = -1, scale
    longest = 0
    for group in range(starts.size - 1):
        longest = max(longest, starts[group + 1] - starts[group])
    spare = np.empty(longest, np.uint64)
    n_refused = 0  # they take the places of edges that had their turn
    for group in range(starts.size - 1):
        mine = edges[starts[group] : starts[group + 1]]
        if group > 0:
            mine = mine[: _drop_met(mine, shifts, parent)]
        ordered = sort_edges(mine, least[group], least[group + 1], spare[: mine.size])
        n_refused += _grow(ordered, shifts, scale, parent, bound, edges[n_refused:])
    for e in range(n_refused):
        a, b = _ends(edges[e], shifts, parent)
        if a != b and min(-parent[a], -parent[b]) < min_size:
            _join(parent, a, b)
    return _numbers(parent, inside)


@kernel
def _mirrored(i, n):
    """The place within 0..n-1 whose value a mirrored border shows at i."""
    i %= 2 * n
    return min(i, 2 * n - 1 - i)


@kernel
def _add_pair(weight, one, other, out):
    for x in range(out.size):
        out[x] += weight * (one[x] + other[x])


@kernel
def blur(values, taps):
    """Filter along the middle axis by symmetric weights, with mirrored borders.

    Parameters
    ----------
    values : float32 array (A, N, B), C-contiguous
    taps : float32 array (radius + 1,)
        The weight of the middle, then of the neighbors at distance 1, 2 and so on.

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
        for i in range(length):
            for k in range(radius + 1):
                one = values[a, _mirrored(i - k, length)]
                other = values[a, _mirrored(i + k, length)]
                _add_pair(taps[k] if k > 0 else half, one, other, out[a, i])
    return out
