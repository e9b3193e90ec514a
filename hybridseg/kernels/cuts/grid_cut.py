"""Minimum cut on a pixel grid: local flows, then a search by trees or by branches.

The grid (image or volume) is stored in row-major order with a border of one node on every side, so
an arc is an offset and needs no lists. Arc ``d`` of node ``v`` leads to ``v + offsets[d]``; the
opposite arc is arc ``D - 1 - d`` of that node. Arcs to and from the border have capacity 0. Source
and sink are not nodes: ``excess[v] > 0`` is the capacity that the source has left to ``v``, and
``excess[v] < 0`` (a deficit) the capacity that ``v`` has left to the sink. All of this is in one
record, `hybridseg.kernels.cuts.grid_forest.Forest`.

Every flow leaves a residual problem with the same minimum cuts, so flows are found in steps:

1. If costs outweigh edges, neighbors balance their excess in a few sweeps [1]_.
2. Straight lines carry what they can (`hybridseg.kernels.cuts.grid_lines`).
3. A search finds the rest. With few arcs at a node, a tree from the source and one from the sink
   meet in augmenting paths [2]_ (`hybridseg.kernels.cuts.grid_trees`). With many arcs, or with few
   nodes that have excess or deficits, excess runs down branches to deficits
   (`hybridseg.kernels.cuts.grid_pseudoflow`). In between it depends on the excess that is left.
4. If the caller will cut the same grid again with other costs, a forest is kept and later repaired
   (`hybridseg.kernels.cuts.grid_forest`).

Threads are Python's: each first cuts a band of rows without the arcs between bands, and one thread
finds the rest of the flow ([3]_, [4]_). The flow depends on the bands, but every maximum flow has
the same smallest source side, which is the result.

`hybridseg.inference.cuts.grid_cuts` calls `grid_cut` and `grid_cut_again` for two labels.

References
----------
.. [1] R. Tarjan, J. Ward, B. Zhang, Y. Zhou, J. Mao, "Balancing applied to maximum network flow
   problems", European Symposium on Algorithms (ESA), 2006.
.. [2] Y. Boykov, V. Kolmogorov, "An experimental comparison of min-cut/max-flow algorithms for
   energy minimization in vision", IEEE Transactions on Pattern Analysis and Machine Intelligence
   26(9), 2004.
.. [3] P. Strandmark, F. Kahl, "Parallel and distributed graph cuts by dual decomposition",
   Conference on Computer Vision and Pattern Recognition (CVPR), 2010.
.. [4] J. Liu, J. Sun, "Parallel graph-cuts by adaptive bottom-up merging", Conference on Computer
   Vision and Pattern Recognition (CVPR), 2010.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hybridseg.kernels._compile import inner_kernel, kernel
from hybridseg.kernels.cuts.grid_forest import LOST, ROOT, STEP, grow, make_room, mend, need, orphan
from hybridseg.kernels.cuts.grid_lines import halved, send_straight
from hybridseg.kernels.cuts.grid_pseudoflow import MIN_DENSE, drain, make_branches, part_of_branches
from hybridseg.kernels.cuts.grid_trees import (
    SINK,
    SOURCE,
    make_trees,
    meet,
    part_of_trees,
    plant_trees,
)
from hybridseg.kernels.vectors.masks import lowest

#: The number of balancing sweeps, and how many of them come first to see whether more are useful.
_N_SWEEPS, _N_FIRST_SWEEPS = 12, 4

#: The step of the sample from which the mean size of values is estimated.
_SAMPLE_STEP = 8

#: Neighbors balance their excess if its mean is more than this fraction of the mean sum of a node's
#: capacities.
_MIN_EXCESS_FRACTION = 0.1

#: If a larger fraction of the excess is left, costs decide most nodes, and most of the excess will
#: stay. Then balancing ends, and trees also search with more than `_ARCS_FOR_TREES` arcs.
_MAX_LEFT = 0.5

#: Trees search with at most the first number of arcs at a node, unless excess or deficits are few;
#: branches search with more than the second number. `python -m benchmarks cut_ways` compares both.
_ARCS_FOR_TREES, _MAX_ARCS_FOR_TREES = 6, 8

#: With this number of arcs at a node, that of volumes, straight lines take longer than they save.
_ARCS_WITHOUT_LINES = 6

#: The halvings of `send_straight`, pass by pass, so that flow goes to near deficits first. After
#: balancing only the last pass is made.
_HALVINGS = (2, 1, 0)


def grid_cut(forest, bands, width, keep=False):
    """Find a minimum cut; ``forest`` becomes the residual network of a maximum flow.

    Parameters
    ----------
    forest : Forest
        ``cap`` holds the capacities, at least 0, and 0 to and from the border. ``excess`` is 0 at
        the border. ``out``, ``into`` and ``nodes`` are overwritten.
    bands : ndarray of int64, (B + 1,)
        The first node of each band of whole rows, and the number of nodes at the end. Each band
        gets a thread of its own and is longer than the longest offset.
    width : int
        The number of nodes in a row, with the border.
    keep : bool, default=False
        Whether to grow the forest that `grid_cut_again` repairs.

    Notes
    -----
    The nodes with ``forest.nodes >= STEP`` are the smallest source side of a minimum cut.
    """
    forest.out[:] = 0
    forest.into[:] = 0
    n_nodes, n_arcs = forest.excess.size, forest.offsets.size
    few = _are_few(forest.excess)
    # Local flows; they are of no use between few nodes that are far apart.
    if few:
        bands, left = bands[[0, -1]], 0.0  # flow between far seeds crosses all bands
    else:
        left = np.mean(_on_threads(lambda band: _send_near(forest, bands, band, width), bands))
    # Trees, first in each band, then across the seams.
    if _by_trees(n_arcs, left):
        trees = make_trees(n_nodes)
        times = _on_threads(lambda band: _meet_within(forest, trees, bands, band), bands)
        if bands.size > 2:
            meet(forest, trees, _wake_seams(forest, trees, bands), max(times))
        _note_side(forest, trees)
        if keep:
            _grow_forest(forest)
        return
    # Branches in each band. Little flow remains between the bands; trees find it.
    branches = make_branches(n_nodes, bands.size - 1)
    _on_threads(lambda band: _drain_within(forest, branches, bands, band, few), bands)
    _find_open(forest, 0, n_nodes)
    if bands.size > 2:
        trees = make_trees(n_nodes)
        meet(forest, trees, plant_trees(forest, trees, 0, n_nodes), 0)
        _note_side(forest, trees)
    elif not keep:
        _flood(forest, branches.after)
    if keep:
        _grow_forest(forest)


def _by_trees(n_arcs, left):
    """Return whether trees are faster than branches.

    ``left`` is the fraction of the excess that is left, or 0 if excess is few and far apart.
    """
    return left > (_MAX_LEFT if n_arcs > _ARCS_FOR_TREES else 0) and n_arcs <= _MAX_ARCS_FOR_TREES


@kernel
def _are_few(excess):
    """Return whether nodes with excess, or with deficits, are few and so mostly far apart."""
    n_sources, n_sinks = 0, 0
    for v in range(excess.size):
        n_sources += excess[v] > 0
        n_sinks += excess[v] < 0
    return min(n_sources, n_sinks) < MIN_DENSE * excess.size


def _on_threads(cut, bands):
    """Call ``cut`` for each band, each on its own thread, and return the results."""
    n_bands = bands.size - 1
    cut = np.errstate(over="ignore")(cut)  # node numbers wrap around; NumPy warns
    if n_bands == 1:
        return [cut(0)]
    # Kernels hold no interpreter lock, so Python's threads run them at the same time. A parallel
    # loop would compile its body three times.
    with ThreadPoolExecutor(n_bands) as pool:
        return list(pool.map(cut, range(n_bands)))


@kernel
def grid_cut_again(forest, changed):
    """Find a minimum cut after the excess of some nodes has changed, by repair of the forest.

    Parameters
    ----------
    forest : Forest
        As `grid_cut` (with ``keep``) or this function left it, except for ``excess``.
    changed : ndarray of int64, (M,)
        The nodes whose excess has changed, each once.
    """
    excess, nodes = forest.excess, forest.nodes
    room = make_room(excess.size)
    n_queued, n_held = 0, 0
    # Nodes that now have excess become roots; nodes that lost it, or need flow, wait in ``lost``.
    for v in changed:
        if excess[v] > 0:
            if nodes[v] != STEP + ROOT:
                nodes[v] = STEP + ROOT
                room.now[n_queued] = v
                n_queued += 1
        elif nodes[v] == STEP + ROOT or (nodes[v] >= STEP and excess[v] < 0):
            room.lost[n_held] = v
            n_held += 1
    highest = grow(forest, room, n_queued, 1, excess.size)
    # Those that had excess become orphans; those with deficits join the deficits that `grow` found.
    for k in range(n_held):
        v = np.int64(room.lost[k])
        level = np.int64(nodes[v]) // STEP
        if nodes[v] == STEP + ROOT:
            orphan(forest, room, v, level)
        else:
            need(room, v, level)
        highest = max(highest, level)
    mend(forest, room, highest, excess.size)


@kernel
def _send_near(forest, bands, band, width):
    """Make the local flows inside a band; return the fraction of the excess that is left."""
    first, stop = bands[band], bands[band + 1]
    before = _size(forest.excess[first:stop])
    begin = len(_HALVINGS) - 1 if _balance(forest, first, stop, width) else 0
    last = forest.offsets.size - 1
    if last + 1 != _ARCS_WITHOUT_LINES:
        takes, comes = np.empty((2, stop - first), forest.cap.dtype)
        for k in range(begin, len(_HALVINGS)):
            for d in range((last + 1) // 2):
                send_straight(forest, takes, comes, d, _HALVINGS[k], first, width)
                send_straight(forest, takes, comes, last - d, _HALVINGS[k], first, width)
    return _size(forest.excess[first:stop]) / before if before > 0 else 1.0


@inner_kernel
def _size(values):
    """Return about the mean absolute value, from a sample."""
    total = 0.0
    for k in range(0, values.size, _SAMPLE_STEP):
        total += abs(values[k])
    return total / (1 + values.size // _SAMPLE_STEP)


def _meet_within(forest, trees, bands, band):
    """Find a maximum flow inside a band by trees; return their last stamp."""
    first, stop = int(bands[band]), int(bands[band + 1])
    _find_open(forest, first, stop)
    trees = part_of_trees(trees, first, stop)
    return meet(forest, trees, plant_trees(forest, trees, first, stop), 0)


def _drain_within(forest, branches, bands, band, afresh):
    """Find a maximum flow inside a band by branches; ``out`` and ``into`` are 0 afterwards.

    If there is more excess than deficit, the network is reversed, so that less has to run.
    """
    first, stop = int(bands[band]), int(bands[band + 1])
    branches = part_of_branches(branches, first, stop, band)
    _find_open(forest, first, stop)
    turned = _is_less_needed(forest.excess[first:stop])
    if turned:
        _turn(forest, first, stop)
        drain(forest._replace(out=forest.into), branches, first, stop, afresh)
        _turn(forest, first, stop)
    else:
        drain(forest, branches, first, stop, afresh)
    forest.out[first:stop] = 0
    forest.into[first:stop] = 0


@kernel
def _is_less_needed(excess):
    """Return whether the sum of all deficits is smaller than the sum of all excess."""
    total = 0.0
    for v in range(excess.size):
        total += excess[v]
    return total > 0


@kernel
def _turn(forest, first, stop):
    """Reverse the arcs between nodes ``first`` to ``stop``, and exchange excess and deficits."""
    cap, excess, offsets = forest.cap, forest.excess, forest.offsets
    last = offsets.size - 1
    for d in range(offsets.size // 2):
        low, high = first + max(0, -offsets[d]), stop - max(0, offsets[d])
        _exchange(cap[d, low:high], cap[last - d, low + offsets[d] : high + offsets[d]])
    for v in range(first, stop):
        excess[v] = -excess[v]


@inner_kernel
def _exchange(one, other):
    """Exchange the numbers of two arrays."""
    for k in range(one.size):
        one[k], other[k] = other[k], one[k]


@kernel
def _flood(forest, queue):
    """Write to ``nodes`` which nodes can be reached from excess, by breadth-first search."""
    nodes, offsets = forest.nodes, forest.offsets
    n_seen = 0
    for v in range(nodes.size):
        nodes[v] = LOST
        if forest.excess[v] > 0:
            nodes[v] = STEP + ROOT
            queue[n_seen] = v
            n_seen += 1
    at = 0
    while at < n_seen:
        u = np.int64(queue[at])
        at += 1
        bits = np.uint64(forest.out[u])
        while bits:
            d = lowest(bits)
            bits &= bits - np.uint64(1)
            w = u + offsets[d]
            if nodes[w] == LOST:
                nodes[w] = STEP + ROOT
                queue[n_seen] = w
                n_seen += 1


@kernel
def _wake_seams(forest, trees, bands):
    """Open the arcs between bands, and list the tree nodes near them in ``trees.now``.

    Returns how many nodes are in the list.
    """
    _open_seams(forest, bands)
    n_now, reach = 0, 0
    for offset in forest.offsets:
        reach = max(reach, offset)
    for seam in bands[1:-1]:
        for v in range(seam - reach, seam + reach):
            if trees.own[v] > 0 and not trees.waiting[v]:
                trees.waiting[v] = 1
                trees.now[n_now] = v
                n_now += 1
    return n_now


@kernel
def _note_side(forest, trees):
    """Write to ``nodes`` which nodes are in the tree of the source: the smallest source side."""
    for v in range(forest.nodes.size):
        forest.nodes[v] = STEP + ROOT if SOURCE <= trees.own[v] < SINK else LOST


@kernel
def _grow_forest(forest):
    """Grow the forest of a maximum flow."""
    n_nodes = forest.excess.size
    room = make_room(n_nodes)
    grow(forest, room, _plant(forest, room, 0, n_nodes), 1, n_nodes)


@inner_kernel
def _plant(forest, room, first, stop):
    """Make all nodes with excess roots, and queue those with an open arc to another node.

    Returns the length of the queue.
    """
    for v in range(first, stop):
        forest.nodes[v] = STEP + ROOT if forest.excess[v] > 0 else LOST
    n_queued = 0
    for v in range(first, stop):
        if forest.excess[v] > 0:
            for d in range(forest.offsets.size):
                open_arc = (forest.out[v] >> d) & 1
                if open_arc and forest.nodes[v + forest.offsets[d]] == LOST:
                    room.now[n_queued] = v
                    n_queued += 1
                    break
    return n_queued


@kernel
def _find_open(forest, first, stop):
    """Set the bits of all arcs with capacity between nodes ``first`` to ``stop``."""
    cap, offsets = forest.cap, forest.offsets
    last = offsets.size - 1
    for d in range(offsets.size):
        low, high = first + max(0, -offsets[d]), stop - max(0, offsets[d])
        _mark(forest.out[low:high], cap[d, low:high], d)
        _mark(forest.into[low + offsets[d] : high + offsets[d]], cap[d, low:high], last - d)


@inner_kernel
def _mark(bits, cap, d):
    """Set bit ``d`` where ``cap`` is above 0."""
    bit = bits.dtype.type(np.uint32(1) << np.uint32(d))
    for k in range(cap.size):
        bits[k] |= bit if cap[k] > 0 else bits.dtype.type(0)


@inner_kernel
def _open_seams(forest, bands):
    """Set the bits of all arcs with capacity between bands."""
    last = forest.offsets.size - 1
    one = np.uint32(1)
    for seam in bands[1:-1]:
        for d in range(last + 1):
            offset = forest.offsets[d]
            for v in range(seam - max(offset, 0), seam - min(offset, 0)):
                if forest.cap[d, v] > 0:
                    forest.out[v] |= one << np.uint32(d)
                    forest.into[v + offset] |= one << np.uint32(last - d)


@inner_kernel
def _balance(forest, first, stop, width):
    """Balance the excess of neighbors in a few sweeps if it is large; return whether it was."""
    cap, excess, offsets = forest.cap, forest.excess, forest.offsets
    before, room = _size(excess[first:stop]), 0.0
    for d in range(offsets.size):
        room += _size(cap[d, first:stop])
    if before <= _MIN_EXCESS_FRACTION * room:
        return False
    _sweep(forest, first, stop, width, _N_FIRST_SWEEPS)
    if _size(excess[first:stop]) < _MAX_LEFT * before:
        _sweep(forest, first, stop, width, _N_SWEEPS - _N_FIRST_SWEEPS)
    return True


@inner_kernel
def _sweep(forest, first, stop, width, n_sweeps):
    """Balance the excess of all neighbors, ``n_sweeps`` times.

    Each sweep follows the sweep before at a distance of ``lag`` rows, the least that the arcs
    allow, so that all sweeps pass over a row while it is in the cache.
    """
    sent = np.empty(width, forest.cap.dtype)
    n_rows, lag = (stop - first) // width, 1 + (forest.offsets.max() + 1) // width
    for k in range(n_rows + lag * (n_sweeps - 1)):
        for row in range(k, k - lag * n_sweeps, -lag):
            if 0 <= row < n_rows:
                _balance_row(forest, first, stop, first + row * width, width, sent)


@inner_kernel
def _balance_row(forest, first, stop, row, width, sent):
    """Balance the nodes of a row with their neighbors, one offset after the other."""
    cap, excess, offsets = forest.cap, forest.excess, forest.offsets
    last = offsets.size - 1
    begin, end = row + 1, row + width - 1
    for d in range(offsets.size // 2):
        low, high = begin + offsets[d], end + offsets[d]
        forward, backward = cap[d, begin:end], cap[last - d, low:high]
        if offsets[d] == 1:
            _share_along(forward, backward, excess[begin : end + 1], sent)
        elif first <= low and high <= stop:
            _share(forward, backward, excess[begin:end], excess[low:high])


@inner_kernel
def _share(forward, backward, here, there):
    """Balance two rows; each node is in one pair, so the loop becomes vectors."""
    for k in range(here.size):
        sent = min(max(halved(here[k] - there[k], 1), -backward[k]), forward[k])
        forward[k] -= sent
        backward[k] += sent
        here[k] -= sent
        there[k] += sent


@inner_kernel
def _share_along(forward, backward, excess, sent):
    """Balance the pairs of a row, all from the excess before, so that the loops become vectors."""
    # Each node is in two pairs, so a pair sends 5/16 of its difference; 1/2 would oscillate.
    n_pairs = forward.size
    for k in range(n_pairs):
        difference = excess[k] - excess[k + 1]
        part = halved(difference, 2) + halved(difference, 4)
        sent[k] = min(max(part, -backward[k]), forward[k])
    for k in range(n_pairs):
        forward[k] -= sent[k]
        backward[k] += sent[k]
    for k in range(n_pairs):
        excess[k] -= sent[k]
    for k in range(n_pairs):
        excess[k + 1] += sent[k]
