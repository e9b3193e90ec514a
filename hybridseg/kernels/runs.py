"""Pieces of a map of regions: the runs that they consist of, and the merging of small ones.

A *run* is a stretch of equal labels within a row; a picture of superpixels has a tenth as many runs
as pixels, so connected components, sums and neighbours are found on them.
"""

from __future__ import annotations

import numpy as np

from hybridseg.kernels._compile import kernel


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
    n_runs = n_rows
    for y in range(n_rows):
        row = rows[y]
        for x in range(1, width):
            n_runs += row[x] != row[x - 1]
    starts = np.empty(n_runs + 1, np.int32)
    firsts = np.empty(n_rows + 1, np.int64)
    run = 0
    for y in range(n_rows):
        row = rows[y]
        firsts[y] = run
        starts[run] = y * width
        run += 1
        for x in range(1, width):
            if row[x] != row[x - 1]:
                starts[run] = y * width + x
                run += 1
    starts[run] = n_rows * width
    firsts[n_rows] = run
    return starts, firsts


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
def piece_sums(planes, starts, firsts, pieces, n_pieces):
    """Sum of the colours of each piece, and its size.

    Parameters
    ----------
    planes : int16 array (C, D, H, >= W), C-contiguous
    starts, firsts, pieces, n_pieces : as from ``find_runs`` and ``join_runs``

    Returns
    -------
    sums : int64 array (n_pieces, C)
    sizes : int64 array (n_pieces,)
    """
    n_channels = planes.shape[0]
    rows = planes.reshape(n_channels, planes.shape[1] * planes.shape[2], planes.shape[3])
    sums = np.zeros((n_pieces, n_channels), np.int64)
    sizes = np.zeros(n_pieces, np.int64)
    for row in range(firsts.size - 1):
        origin = starts[firsts[row]]
        for run in range(firsts[row], firsts[row + 1]):
            piece = pieces[run]
            if piece < 0:
                continue
            begin, end = starts[run] - origin, starts[run + 1] - origin
            sizes[piece] += end - begin
            for c in range(n_channels):
                stretch = rows[c, row, begin:end]
                total = 0
                for i in range(stretch.size):
                    total += stretch[i]
                sums[piece, c] += total
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
def small_neighbours(starts, firsts, height, pieces, sizes, min_size):
    """Keys ``i * n + j``, i < j, of touching pieces of which one at least is below ``min_size``.

    Parameters
    ----------
    starts, firsts, pieces : as from ``find_runs`` and ``join_runs``
    height : int
        Rows of a plane.
    sizes : int64 array (n,)
    min_size : float

    Returns
    -------
    int64 array (n_keys,), the same key as often as runs touch
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
    return keys[:n_keys]


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
    painted = np.empty(starts[pieces.size], np.int32)
    for run in range(pieces.size):
        piece = pieces[run]
        value = values[piece] if piece >= 0 else np.int32(-1)
        for pixel in range(starts[run], starts[run + 1]):
            painted[pixel] = value
    return painted


@kernel
def _squared_difference(sums, sizes, a, b):
    total = 0.0
    for c in range(sums.shape[1]):
        total += (sums[a, c] / sizes[a] - sums[b, c] / sizes[b]) ** 2
    return total


@kernel
def _most_similar(edges, parent, sums, sizes, min_size):
    """For each root that is too small, the neighbouring root of the nearest mean colour."""
    partner = np.empty(sizes.size, np.int32)
    least = np.empty(sizes.size)
    for a in range(sizes.size):
        partner[a], least[a] = -1, np.inf
    for e in range(edges.shape[0]):
        a, b = find_root(parent, edges[e, 0]), find_root(parent, edges[e, 1])
        if a == b or (sizes[a] >= min_size and sizes[b] >= min_size):
            continue
        difference = _squared_difference(sums, sizes, a, b)
        if sizes[a] < min_size and difference < least[a]:
            partner[a], least[a] = b, difference
        if sizes[b] < min_size and difference < least[b]:
            partner[b], least[b] = a, difference
    return partner


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
    sums, sizes = sums.copy(), sizes.copy()
    parent = np.empty(sizes.size, np.int32)
    for a in range(sizes.size):
        parent[a] = a
    merging = True
    while merging:
        merging = False
        partner = _most_similar(edges, parent, sums, sizes, min_size)
        for a in range(sizes.size):
            if partner[a] < 0:
                continue
            small, other = find_root(parent, a), find_root(parent, partner[a])
            if small != other and sizes[small] < min_size:
                parent[small] = other
                sizes[other] += sizes[small]
                for c in range(sums.shape[1]):
                    sums[other, c] += sums[small, c]
                merging = True
    for a in range(sizes.size):
        parent[a] = find_root(parent, a)
    return parent
