"""Connected pieces of a label map as runs, and the merging of small pieces: the end of SLIC.

A *run* is a maximal row segment of equal labels. A label map of superpixels has far fewer runs than
pixels, so components, sums and neighbors are found on runs: two-pass labeling with union-find, then
merging of small pieces in rounds. This is the step that connects the regions after the iterations
of SLIC (Achanta et al., see `slic`); a small piece joins the neighbor of the nearest mean color.

Label maps are int32 (D, H, W), with D = 1 for an image. ``starts`` (n_runs + 1,) is the first pixel
of each run, ``firsts`` (D * H + 1,) the first run of each row. *Marks* are words of 64 bits, one
bit for each pixel of a row. -1 is no piece. A forest ``parent`` (int32) holds a node's parent, and
a root holds itself; the lower number becomes the root where raster order matters.

`hybridseg.features.slic` calls these kernels, `regions.connected_components` calls the first ones.
All of them run on one thread.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import inner_kernel, kernel
from hybridseg.kernels.sparse.union_find import find_root
from hybridseg.kernels.vectors import simd as simd
from hybridseg.kernels.vectors.masks import bits

#: Labels in a vector.
_LANES = 8


@inner_kernel
def _ends(rows, y, begin, vectors):
    """Return the bits of the pixels begin..begin+63 of a row that end a run."""
    width, word = rows.shape[1], np.uint64(0)
    n = min(64, width - begin)
    x = 0
    if vectors is not None:
        flat, first = rows.ravel(), y * width + begin
        # vectors while the next pixels, one further on, lie in the row; then one by one
        while x + _LANES < n or (x + _LANES == n and begin + n < width):
            here, there = simd.load(flat, first + x, _LANES), simd.load(flat, first + x + 1, _LANES)
            other = ~bits(simd.equal(here, there)) & np.uint64(255)
            word |= other << np.uint64(x)
            x += _LANES
    for i in range(x, n):
        last = begin + i + 1 == width
        other = last or rows[y, begin + i] != rows[y, begin + i + 1]
        word |= np.uint64(other) << np.uint64(i)
    return word


@inner_kernel
def _equal(rows, y, other, begin, vectors):
    """Return the bits of the pixels begin..begin+63 in which two rows are equal."""
    width, word = rows.shape[1], np.uint64(0)
    n = min(64, width - begin)
    x = 0
    if vectors is not None:
        flat, first, second = rows.ravel(), y * width + begin, other * width + begin
        while x + _LANES <= n:
            here, there = simd.load(flat, first + x, _LANES), simd.load(flat, second + x, _LANES)
            word |= bits(simd.equal(here, there)) << np.uint64(x)
            x += _LANES
    for i in range(x, n):
        word |= np.uint64(rows[y, begin + i] == rows[other, begin + i]) << np.uint64(i)
    return word


@inner_kernel
def _population(word):
    """Return the number of set bits. LLVM turns this form into the instruction for it, if any."""
    one, two, four = np.uint64(1), np.uint64(2), np.uint64(4)
    word -= (word >> one) & np.uint64(0x5555555555555555)
    low = np.uint64(0x3333333333333333)
    word = (word & low) + ((word >> two) & low)
    word = (word + (word >> four)) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@inner_kernel
def _lowest(word):
    """Return the number of the lowest bit that is set."""
    return _population((word & (~word + np.uint64(1))) - np.uint64(1))


@kernel
def find_runs(labels, vectors=None):
    """Divide the rows of a label map into runs of equal labels.

    Parameters
    ----------
    labels : int32 array (D, H, W), C-contiguous, fewer than 2**31 pixels
    vectors : True or None
        Whether vectors may be used.

    Returns
    -------
    starts : int32 array (n_runs + 1,)
        First pixel of each run, in raster order of the volume; at the end the number of pixels.
    firsts : int64 array (D * H + 1,)
        First run of each row; at the end the number of runs.
    """
    rows = labels.reshape(labels.shape[0] * labels.shape[1], labels.shape[2])
    n_rows, width = rows.shape
    room = np.empty(rows.size + 2, np.int32)  # pages that are never written take no memory
    firsts = np.empty(n_rows + 1, np.int64)
    run = np.uint64(0)  # unsigned, so that numba does not test for negative indices
    for y in range(n_rows):
        firsts[y] = run
        room[run] = y * width
        for begin in range(0, width, 64):
            left = _ends(rows, y, begin, vectors)
            while left:
                run += np.uint64(1)
                room[run] = y * width + begin + 1 + _lowest(left)
                left &= left - np.uint64(1)
    firsts[n_rows] = run
    return room[: run + np.uint64(1)].copy(), firsts


@inner_kernel
def _mark_ends(starts, firsts, width):
    """Return the marks of the last pixels of runs, and how many runs end before each word.

    ``marks`` (n_rows, n_words) is uint64, ``ranks`` (n_rows, n_words) int32.
    """
    n_rows = firsts.size - 1
    marks = np.zeros((n_rows, (width + 63) // 64), np.uint64)
    ranks = np.empty(marks.shape, np.int32)
    for row in range(n_rows):
        for run in range(firsts[row], firsts[row + 1]):
            last = np.uint64(starts[run + 1] - 1 - row * width)
            marks[row, last >> np.uint64(6)] |= np.uint64(1) << (last & np.uint64(63))
        rank = firsts[row]
        for word in range(marks.shape[1]):
            ranks[row, word] = rank
            rank += _population(marks[row, word])
    return marks, ranks


@inner_kernel
def _run_at(marks, ranks, row, x):
    """Return the run that holds pixel x of a row: the number of runs that end before x."""
    x, one = np.uint64(x), np.uint64(1)
    word = x >> np.uint64(6)
    before = marks[row, word] & ((one << (x & np.uint64(63))) - one)
    return ranks[row, word] + _population(before)


@inner_kernel
def _join_rows(rows, marks, ranks, y, other, parent, vectors):
    """Join the runs of equal labels that touch across row ``y`` and the earlier row ``other``."""
    for word in range(marks.shape[1]):
        # a segment in which two runs touch ends where one of the runs ends
        left = marks[y, word] | marks[other, word]
        left &= _equal(rows, y, other, 64 * word, vectors)
        while left:
            x = 64 * word + _lowest(left)
            left &= left - np.uint64(1)
            a = find_root(parent, _run_at(marks, ranks, y, x))
            b = find_root(parent, _run_at(marks, ranks, other, x))
            parent[max(a, b)] = min(a, b)


@kernel
def join_runs(labels, starts, firsts, vectors=None):
    """Find the piece of each run: runs of equal labels that touch by faces belong to one piece.

    Parameters
    ----------
    labels : int32 array (D, H, W), C-contiguous
    starts, firsts
        As returned by `find_runs`.
    vectors : True or None
        Whether vectors may be used.

    Returns
    -------
    pieces : int32 array (n_runs,)
        0..n-1 in raster order of the first pixel, -1 where the label is negative.
    n_pieces : int
    """
    height = labels.shape[1]
    rows = labels.reshape(labels.shape[0] * height, labels.shape[2])
    n_rows, width = rows.shape
    flat, n_runs = rows.ravel(), starts.size - 1
    marks, ranks = _mark_ends(starts, firsts, width)
    parent = np.empty(n_runs, np.int32)
    for run in range(n_runs):
        parent[run] = run
    # first pass: join each row with the row above and with the plane before
    for row in range(n_rows):
        if row % height > 0:
            _join_rows(rows, marks, ranks, row, row - 1, parent, vectors)
        if row >= height:
            _join_rows(rows, marks, ranks, row, row - height, parent, vectors)
    # second pass: number the roots; the root of a run is not after it, so it has its number
    pieces = np.empty(n_runs, np.int32)
    n_pieces = 0
    for run in range(n_runs):
        if flat[starts[run]] < 0:
            pieces[run] = -1
        elif parent[run] == run:
            pieces[run] = n_pieces
            n_pieces += 1
        else:
            pieces[run] = pieces[find_root(parent, run)]
    return pieces, n_pieces


@inner_kernel
def _main_pieces(owners, sizes, n_labels):
    """Return the largest piece of each label; -1 for a label without pieces."""
    main = np.full(n_labels, -1, np.int32)
    for piece in range(sizes.size):
        known = main[owners[piece]]
        if known < 0 or sizes[piece] > sizes[known]:
            main[owners[piece]] = piece
    return main


@kernel
def piece_sums(quads, labels, label_sums, starts, firsts, pieces, n_pieces):
    """Return the sum of the colors and the size of each piece.

    Only the pixels outside the largest piece of each label are read. The largest piece has the rest
    of the label's sum, which SLIC knows.

    Parameters
    ----------
    quads : int16 array (G, D, H, >= W, 4), C-contiguous
    labels : int32 array (D, H, W), C-contiguous
    label_sums : int64 array (n_labels, >= 4 G)
        Sums of the colors of the pixels of each label.
    starts, firsts, pieces, n_pieces
        As returned by `find_runs` and `join_runs`.

    Returns
    -------
    sums : int64 array (n_pieces, 4 G)
    sizes : int64 array (n_pieces,)
    """
    n_quads, n_channels = quads.shape[0], 4 * quads.shape[0]
    rows = quads.reshape(n_quads, quads.shape[1] * quads.shape[2], quads.shape[3], 4)
    flat = labels.ravel()
    sums = np.zeros((n_pieces, n_channels), np.int64)
    sizes = np.zeros(n_pieces, np.int64)
    owners = np.zeros(n_pieces, np.int32)
    for run in range(pieces.size):
        if pieces[run] >= 0:
            sizes[pieces[run]] += starts[run + 1] - starts[run]
            owners[pieces[run]] = flat[starts[run]]
    # the largest piece of each label starts with the sum of the label
    main = _main_pieces(owners, sizes, label_sums.shape[0])
    for label in range(main.size):
        if main[label] >= 0:
            for c in range(n_channels):
                sums[main[label], c] = label_sums[label, c]
    # the colors of other pieces move from there to these
    for row in range(firsts.size - 1):
        origin = starts[firsts[row]]
        for run in range(firsts[row], firsts[row + 1]):
            piece = pieces[run]
            if piece < 0 or main[owners[piece]] == piece:
                continue
            whole = main[owners[piece]]
            for g in range(n_quads):
                for x in range(starts[run] - origin, starts[run + 1] - origin):
                    for c in range(4):
                        value = rows[g, row, x, c]
                        sums[piece, 4 * g + c] += value
                        sums[whole, 4 * g + c] -= value
    return sums, sizes


@inner_kernel
def _mark_small(starts, firsts, width, pieces, sizes, min_size):
    """Return the marks of pixels in pieces smaller than ``min_size``, with a spare word per row."""
    every, n_rows = ~np.uint64(0), firsts.size - 1
    marks = np.zeros((n_rows, width // 64 + 2), np.uint64)
    for row in range(n_rows):
        for run in range(firsts[row], firsts[row + 1]):
            if pieces[run] < 0 or sizes[pieces[run]] >= min_size:
                continue
            begin, end = starts[run] - row * width, starts[run + 1] - row * width
            for word in range(begin // 64, (end + 63) // 64):
                bits = every << np.uint64(max(begin - 64 * word, 0))
                marks[row, word] |= bits & (every >> np.uint64(max(64 * word + 64 - end, 0)))
    return marks


@inner_kernel
def _put_pair(a, b, small, last, pairs, n_pairs):
    """Write a pair at the end, and count it if it is a new one; return the number of pairs.

    ``last`` holds the last neighbor of each small piece. The pair is always written: no branch.
    """
    low, high = min(a, b), max(a, b)
    pairs[n_pairs, 0], pairs[n_pairs, 1] = low, high
    if low < 0:
        return n_pairs
    known, other = (a, b) if small[a] else (b, a)
    new = (last[known] != other) & (a != b)
    last[known] = other
    return n_pairs + new


@kernel
def small_neighbors(starts, firsts, height, pieces, sizes, min_size):
    """Find the pairs of touching pieces in which at least one piece is smaller than ``min_size``.

    Parameters
    ----------
    starts, firsts, pieces
        As returned by `find_runs` and `join_runs`.
    height : int
        Number of rows of a plane.
    sizes : int64 array (n,)
    min_size : float

    Returns
    -------
    int32 array (n_pairs, 2)
        The lower number first. The pairs are in the order of the rows in which they touch; a pair
        may repeat, but not for a small piece twice in a row.
    """
    n_rows, n_pairs, one = firsts.size - 1, 0, np.uint64(1)
    width = np.int64(starts[firsts[1]])
    marks, ranks = _mark_ends(starts, firsts, width)
    near = _mark_small(starts, firsts, width, pieces, sizes, min_size)
    small = sizes < min_size
    last = np.full(sizes.size, -1, np.int32)
    # a run has one next run, and two rows touch in at most as many segments as they have runs; each
    # row is compared with two earlier ones
    pairs = np.empty((5 * pieces.size + 1, 2), np.int32)
    for row in range(n_rows):
        for word in range(marks.shape[1]):
            # ends of runs with a small piece before or after them
            left = near[row, word]
            left |= (left >> one) | (near[row, word + 1] << np.uint64(63))
            left &= marks[row, word]
            while left:
                run = _run_at(marks, ranks, row, 64 * word + _lowest(left))
                left &= left - one
                if run + 1 < firsts[row + 1]:
                    n_pairs = _put_pair(pieces[run], pieces[run + 1], small, last, pairs, n_pairs)
            for step in range(2):  # to the row above, and to the plane before
                other = row - 1 if step == 0 else row - height
                if other < 0 or (step == 0 and row % height == 0):
                    continue
                left = (marks[row, word] | marks[other, word]) & (
                    near[row, word] | near[other, word]
                )
                while left:
                    x = 64 * word + _lowest(left)
                    left &= left - one
                    a, b = _run_at(marks, ranks, row, x), _run_at(marks, ranks, other, x)
                    n_pairs = _put_pair(pieces[a], pieces[b], small, last, pairs, n_pairs)
    return pairs[:n_pairs].copy()


@kernel
def paint_runs(values, starts, pieces):
    """Return the value of each pixel's piece, -1 where there is none.

    Parameters
    ----------
    values : int32 array (n_pieces,)
    starts, pieces
        As returned by `find_runs` and `join_runs`.

    Returns
    -------
    int32 array (n_pixels,)
    """
    n_pixels = starts[pieces.size]
    painted = np.empty(n_pixels + _LANES, np.int32)
    for run in range(pieces.size):
        piece = pieces[run]
        value = values[piece] if piece >= 0 else np.int32(-1)
        # whole vectors are written; the next run overwrites the pixels beyond the end
        for begin in range(starts[run], starts[run + 1], _LANES):
            for pixel in range(_LANES):
                painted[begin + pixel] = value
    return painted[:n_pixels]


@inner_kernel
def _most_similar(edges, n_edges, means, sizes, min_size, partner, least):
    """Find, for each root that is too small, the neighboring root of the nearest mean color.

    ``partner`` (n,) becomes that root, -1 if there is none, and ``least`` (n,) the squared
    distance. Which of two neighbors is nearer is unpredictable, so the loop selects without
    branches.
    """
    partner[:] = -1
    least[:] = np.inf
    for e in range(n_edges):
        a, b = edges[e, 0], edges[e, 1]
        difference = 0.0
        for c in range(means.shape[1]):
            difference += (means[a, c] - means[b, c]) ** 2
        nearer = (sizes[a] < min_size) & (difference < least[a])
        partner[a] = b if nearer else partner[a]
        least[a] = difference if nearer else least[a]
        nearer = (sizes[b] < min_size) & (difference < least[b])
        partner[b] = a if nearer else partner[b]
        least[b] = difference if nearer else least[b]


@inner_kernel
def _carry_out(partner, parent, sums, sizes, min_size):
    """Join each root to its partner unless it has grown enough; ``parent`` then holds the roots."""
    for a in range(sizes.size):
        if partner[a] < 0:
            continue
        small, other = find_root(parent, a), find_root(parent, partner[a])
        if small != other and sizes[small] < min_size:
            parent[small] = other
            sizes[other] += sizes[small]
            for c in range(sums.shape[1]):
                sums[other, c] += sums[small, c]
    for a in range(sizes.size):
        parent[a] = find_root(parent, a)


@inner_kernel
def _keep_active(edges, n_edges, parent, sizes, min_size):
    """Replace ends of edges by roots, keep edges that a small root can use; return their number."""
    n_left = 0
    for e in range(n_edges):
        a, b = parent[edges[e, 0]], parent[edges[e, 1]]
        edges[n_left, 0], edges[n_left, 1] = a, b
        n_left += (a != b) & ((sizes[a] < min_size) | (sizes[b] < min_size))
    return n_left


@kernel
def merge_small(edges, sums, sizes, min_size):
    """Merge every component smaller than ``min_size`` into its neighbor of the nearest mean color.

    It works in rounds. Each small component chooses by the mean colors at the beginning of the
    round. The choices are carried out in ascending order, unless the component has grown enough by
    then. A small component without neighbors stays.

    Parameters
    ----------
    edges : int32 array (E, 2)
        Neighboring components.
    sums : float64 array (n, C)
        Sums of the colors of each component.
    sizes : int64 array (n,), positive
    min_size : float

    Returns
    -------
    int32 array (n,)
        For each component, the component that represents its group.
    """
    sums, sizes, edges = sums.copy(), sizes.copy(), edges.copy()
    parent, partner = np.arange(sizes.size).astype(np.int32), np.empty(sizes.size, np.int32)
    means, least = np.zeros_like(sums), np.empty(sizes.size)
    n_edges = _keep_active(edges, edges.shape[0], parent, sizes, min_size)
    while n_edges > 0:
        for a in range(sizes.size):
            if parent[a] == a:
                for c in range(sums.shape[1]):
                    means[a, c] = sums[a, c] / sizes[a]
        _most_similar(edges, n_edges, means, sizes, min_size, partner, least)
        _carry_out(partner, parent, sums, sizes, min_size)
        n_edges = _keep_active(edges, n_edges, parent, sizes, min_size)
    return parent


@kernel
def number_groups(group):
    """Number groups in the order of their first members; return the number of each member's group.

    Parameters
    ----------
    group : int32 array (n,)
        The member that represents the group of each.
    """
    numbers, known, n = np.empty_like(group), np.full(group.size, -1, np.int32), np.int32(0)
    for i in range(group.size):
        if known[group[i]] < 0:
            known[group[i]] = n
            n += np.int32(1)
        numbers[i] = known[group[i]]
    return numbers
