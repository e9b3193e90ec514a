"""Pieces of a map of regions: the runs that they consist of, and the merging of small ones.

A *run* is a stretch of equal labels within a row; a picture of superpixels has a tenth as many runs
as pixels, so connected components, sums and neighbours are found on them.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel

#: Pixels that are painted at once.
_BRUSH = 8


@kernel
def find_root(parent, node):
    """Root of ``node`` in a union-find forest; halves the path on the way."""
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@kernel
def find_runs(labels):
    """Cut the rows of a map into runs of equal labels.

    Parameters
    ----------
    labels : int32 array (D, H, W), C-contiguous, fewer than 2**31 pixels

    Returns
    -------
    starts : int32 array (n_runs + 1,)
        First pixel of each run, counted through the volume; at the end the number of pixels.
    firsts : int64 array (D * H + 1,)
        First run of each row; at the end the number of runs.
    """
    rows = labels.reshape(labels.shape[0] * labels.shape[1], labels.shape[2])
    n_rows, width = rows.shape
    room = np.empty(rows.size + 2, np.int32)  # what is not touched takes no memory
    firsts = np.empty(n_rows + 1, np.int64)
    run = np.uint64(0)
    for y in range(n_rows):
        row = rows[y]
        firsts[y] = run
        room[run] = y * width
        run += np.uint64(1)
        for x in range(np.uint64(1), np.uint64(width)):
            room[run] = y * width + np.int64(x)  # kept if it is one: no branch to be guessed wrong
            run += np.uint64(row[x] != row[x - np.uint64(1)])
    room[run] = n_rows * width
    firsts[n_rows] = run
    return room[: run + np.uint64(1)].copy(), firsts


@kernel
def _join_rows(flat, starts, firsts, one, other, parent):
    """Join the runs of equal labels that touch across two rows."""
    i, j = firsts[one], firsts[other]
    shift = starts[j] - starts[i]
    while i < firsts[one + 1] and j < firsts[other + 1]:
        label = flat[starts[i]]
        if label >= 0 and label == flat[starts[j]]:
            a, b = find_root(parent, i), find_root(parent, j)
            parent[max(a, b)] = min(a, b)
        end, other_end = starts[i + 1], starts[j + 1] - shift
        i += end <= other_end
        j += other_end <= end


@kernel
def join_runs(labels, starts, firsts):
    """Find the piece of each run: runs of equal labels that touch by faces are one piece.

    Parameters
    ----------
    labels : int32 array (D, H, W), C-contiguous
    starts, firsts : as from ``find_runs``

    Returns
    -------
    pieces : int32 array (n_runs,)
        0..n-1 in raster order of the first pixel, -1 where the label is negative.
    n_pieces : int
    """
    depth, height, _ = labels.shape
    flat = labels.ravel()
    n_runs = starts.size - 1
    parent = np.empty(n_runs, np.int32)
    for run in range(n_runs):
        parent[run] = run
    for row in range(depth * height):
        if row % height > 0:
            _join_rows(flat, starts, firsts, row - 1, row, parent)
        if row >= height:
            _join_rows(flat, starts, firsts, row - height, row, parent)
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


@kernel
def _main_pieces(owners, sizes, n_labels):
    """The largest piece of each label; -1 where it has none."""
    main = np.full(n_labels, -1, np.int32)
    for piece in range(sizes.size):
        known = main[owners[piece]]
        if known < 0 or sizes[piece] > sizes[known]:
            main[owners[piece]] = piece
    return main


@kernel
def piece_sums(planes, labels, label_sums, starts, firsts, pieces, n_pieces):
    """Sum of the colours of each piece, and its size.

    Only the pixels beside the largest piece of each label are looked at; what they leave of the
    sum of the label is that of the largest piece.

    Parameters
    ----------
    planes : int16 array (C, D, H, >= W), C-contiguous
    labels : int32 array (D, H, W), C-contiguous
    label_sums : int64 array (n_labels, >= C)
        Sums of the colours of the pixels of each label.
    starts, firsts, pieces, n_pieces : as from ``find_runs`` and ``join_runs``

    Returns
    -------
    sums : int64 array (n_pieces, C)
    sizes : int64 array (n_pieces,)
    """
    n_channels = planes.shape[0]
    rows = planes.reshape(n_channels, planes.shape[1] * planes.shape[2], planes.shape[3])
    flat = labels.ravel()
    sums = np.zeros((n_pieces, n_channels), np.int64)
    sizes = np.zeros(n_pieces, np.int64)
    owners = np.zeros(n_pieces, np.int32)
    for run in range(pieces.size):
        if pieces[run] >= 0:
            sizes[pieces[run]] += starts[run + 1] - starts[run]
            owners[pieces[run]] = flat[starts[run]]
    main = _main_pieces(owners, sizes, label_sums.shape[0])
    for label in range(main.size):
        if main[label] >= 0:
            for c in range(n_channels):
                sums[main[label], c] = label_sums[label, c]
    for row in range(firsts.size - 1):
        origin = starts[firsts[row]]
        for run in range(firsts[row], firsts[row + 1]):
            piece = pieces[run]
            if piece < 0 or main[owners[piece]] == piece:
                continue
            for c in range(n_channels):
                total = 0
                for x in range(starts[run] - origin, starts[run + 1] - origin):
                    total += rows[c, row, x]
                sums[piece, c] += total
                sums[main[owners[piece]], c] -= total
    return sums, sizes


@kernel
def _put_key(a, b, either, n_pieces, keys, n_keys):
    """Write the key at the end, and keep it if it is one: no branch to be guessed wrong."""
    keys[n_keys] = np.int64(min(a, b)) * n_pieces + max(a, b)
    return n_keys + (either & (a != b) & (min(a, b) >= 0))


@kernel
def _put_row_keys(starts, firsts, one, other, pieces, small, n_pieces, keys, n_keys):
    i, j = firsts[one], firsts[other]
    shift = starts[j] - starts[i]
    while i < firsts[one + 1] and j < firsts[other + 1]:
        either = small[i] | small[j]
        n_keys = _put_key(pieces[i], pieces[j], either, n_pieces, keys, n_keys)
        end, other_end = starts[i + 1], starts[j + 1] - shift
        i += end <= other_end
        j += other_end <= end
    return n_keys


@kernel
def _pairs_once(keys, n_pieces):
    """The pairs of pieces that the keys stand for, each once, in order of their first places."""
    size = np.uint64(16)
    while size < np.uint64(2 * keys.size):
        size *= np.uint64(2)
    table = np.full(size, np.int64(-1))
    n_kept = 0
    for i in range(keys.size):
        key = keys[i]
        # the upper half of the product is what mixes all bits (Knuth's multiplicative hashing)
        at = ((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & (
            size - np.uint64(1)
        )
        while table[at] >= 0 and table[at] != key:
            at = (at + np.uint64(1)) & (size - np.uint64(1))
        keys[n_kept] = key
        n_kept += table[at] < 0
        table[at] = key
    pairs = np.empty((n_kept, 2), np.int32)
    for i in range(n_kept):
        pairs[i, 0] = keys[i] // n_pieces
        pairs[i, 1] = keys[i] % n_pieces
    return pairs


@kernel
def small_neighbours(starts, firsts, height, pieces, sizes, min_size):
    """Find the pairs of touching pieces of which one at least is below ``min_size``.

    Parameters
    ----------
    starts, firsts, pieces : as from ``find_runs`` and ``join_runs``
    height : int
        Rows of a plane.
    sizes : int64 array (n,)
    min_size : float

    Returns
    -------
    int32 array (n_pairs, 2)
        Each pair once, the lower number first, in order of the first rows that touch.
    """
    n_rows, n_pieces = firsts.size - 1, sizes.size
    small = np.empty(pieces.size, np.bool_)
    for run in range(pieces.size):
        small[run] = pieces[run] >= 0 and sizes[pieces[run]] < min_size
    keys = np.empty(5 * pieces.size + 1, np.int64)  # two rows touch as often as runs end
    n_keys = 0
    for row in range(n_rows):
        for run in range(firsts[row] + 1, firsts[row + 1]):
            either = small[run - 1] | small[run]
            n_keys = _put_key(pieces[run - 1], pieces[run], either, n_pieces, keys, n_keys)
        if row % height > 0:
            n_keys = _put_row_keys(
                starts, firsts, row - 1, row, pieces, small, n_pieces, keys, n_keys
            )
        if row >= height:
            n_keys = _put_row_keys(
                starts, firsts, row - height, row, pieces, small, n_pieces, keys, n_keys
            )
    return _pairs_once(keys[:n_keys], n_pieces)


@kernel
def paint_runs(values, starts, pieces):
    """Give every pixel the value of its run's piece, -1 where there is none.

    Parameters
    ----------
    values : int32 array (n_pieces,)
    starts, pieces : as from ``find_runs`` and ``join_runs``

    Returns
    -------
    int32 array (n_pixels,)
    """
    n_pixels = starts[pieces.size]
    painted = np.empty(n_pixels + _BRUSH, np.int32)
    for run in range(pieces.size):
        piece = pieces[run]
        value = values[piece] if piece >= 0 else np.int32(-1)
        # a whole vector is written at once; the next run paints over what is too much
        for begin in range(starts[run], starts[run + 1], _BRUSH):
            for pixel in range(_BRUSH):
                painted[begin + pixel] = value
    return painted[:n_pixels]


@kernel
def _most_similar(edges, n_edges, means, sizes, min_size, partner, least):
    """For each root that is too small, the neighbouring root of the nearest mean colour."""
    partner[:] = -1
    least[:] = np.inf
    for e in range(n_edges):
        a, b = edges[e, 0], edges[e, 1]
        difference = 0.0
        for c in range(means.shape[1]):
            difference += (means[a, c] - means[b, c]) ** 2
        if sizes[a] < min_size and difference < least[a]:
            partner[a], least[a] = b, difference
        if sizes[b] < min_size and difference < least[b]:
            partner[b], least[b] = a, difference


@kernel
def _keep_active(edges, n_edges, parent, sizes, min_size):
    """Let edges lie between roots, and drop those that no small root can use; how many are left."""
    n_left = 0
    for e in range(n_edges):
        a, b = find_root(parent, edges[e, 0]), find_root(parent, edges[e, 1])
        if a != b and (sizes[a] < min_size or sizes[b] < min_size):
            edges[n_left, 0], edges[n_left, 1] = a, b
            n_left += 1
    return n_left


@kernel
def merge_small(edges, sums, sizes, min_size):
    """Merge every component below ``min_size`` into its neighbour of the nearest mean colour.

    In rounds: each small component chooses by the mean colours at the beginning of the round;
    the choices are carried out in ascending order, unless the chooser has grown enough by then.
    What has no neighbour stays.

    Parameters
    ----------
    edges : int32 array (E, 2)
        Neighbouring components.
    sums : float64 array (n, C)
        Sums of the colours of each component.
    sizes : int64 array (n,), positive
    min_size : float

    Returns
    -------
    int32 array (n,) : for each component, the component that stands for its group
    """
    sums, sizes, edges = sums.copy(), sizes.copy(), edges.copy()
    parent, partner = np.empty(sizes.size, np.int32), np.empty(sizes.size, np.int32)
    means, least = np.empty_like(sums), np.empty(sizes.size)
    for a in range(sizes.size):
        parent[a] = a
        for c in range(sums.shape[1]):
            means[a, c] = sums[a, c] / sizes[a]
    n_edges = _keep_active(edges, edges.shape[0], parent, sizes, min_size)
    while n_edges > 0:
        _most_similar(edges, n_edges, means, sizes, min_size, partner, least)
        for a in range(sizes.size):
            if partner[a] < 0:
                continue
            small, other = find_root(parent, a), find_root(parent, partner[a])
            if small != other and sizes[small] < min_size:
                parent[small] = other
                sizes[other] += sizes[small]
                for c in range(sums.shape[1]):
                    sums[other, c] += sums[small, c]
                    means[other, c] = sums[other, c] / sizes[other]
        n_edges = _keep_active(edges, n_edges, parent, sizes, min_size)
    for a in range(sizes.size):
        parent[a] = find_root(parent, a)
    return parent
