"""Minimum cut on an implicit pixel grid, by two trees or by branches down which excess runs.

The grid is stored in row-major order with a border of one node on every side, so a neighbor is
found by adding an offset and nothing is looked up. Node ``v`` has ``D`` arcs; arc ``d`` points to
``v + offsets[d]`` and its opposite is arc ``D - 1 - d`` of that node. Arcs to and from the border
have capacity 0. Terminals are not nodes: ``excess[v] > 0`` is what the source can still send into
``v``, ``excess[v] < 0`` what ``v`` can still send to the sink.

Every flow that respects the capacities leaves an equal problem with the same minimum cuts. So
where costs outweigh edges, neighbors first balance their excess in a few sweeps over all edges,
which decides most nodes at little cost. Then straight lines carry what they can, some of it near
before the rest goes far (see ``_grid_lines.py``).

Where most of the excess is left then, it will stay, as costs decide most nodes. There a tree from
the source and one from the sink meet in augmenting paths until there are none (see
``_grid_trees.py``): the flow is maximal, and what the source's tree reaches is the smallest source
side. Where little is left, or arcs are many, excess runs down branches until no deficit can be
reached any more (see ``_grid_pseudoflow.py``). A forest of shortest paths from nodes with excess
can be kept; after a change of some excess only what hangs on it is mended (see
``_grid_forest.py``).

Threads first cut one band of rows each, without the arcs between bands. That is a flow as well,
most of it if costs are local; one thread finds the rest. The flow depends on the bands, but every
maximal flow has the same smallest source side.

References
----------
Boykov and Kolmogorov, "An experimental comparison of min-cut/max-flow algorithms for energy
minimization in vision", PAMI 26(9), 2004 (trees). Hochbaum, "The pseudoflow algorithm", Operations
Research 56(4), 2008 (branches). Goldberg, Hed, Kaplan, Tarjan and Werneck, "Maximum flows by
incremental breadth-first search", ESA 2011. Goldberg, Hed, Kaplan, Kohli, Tarjan
and Werneck, "Faster and more dynamic maximum flow by incremental breadth-first search", ESA 2015
(excesses, and the warm start). Tarjan, Ward, Zhang, Zhou and Mao, "Balancing applied to maximum
network flow problems", ESA 2006. Strandmark and Kahl, "Parallel and distributed graph cuts by dual
decomposition", CVPR 2010, and Liu and Sun, "Parallel graph-cuts by adaptive bottom-up merging",
CVPR 2010 (bands; trees are kept where they join).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from hybridseg.kernels._compile import inner_kernel, kernel
from hybridseg.kernels.cuts.grid_forest import LOST, ROOT, STEP, grow, make_room, mend, need, orphan
from hybridseg.kernels.cuts.grid_lines import halved, send_straight
from hybridseg.kernels.cuts.grid_pseudoflow import MANY, drain, make_branches, part_of_branches
from hybridseg.kernels.cuts.grid_trees import (
    SINK,
    SOURCE,
    make_trees,
    meet,
    part_of_trees,
    plant_trees,
)
from hybridseg.kernels.vectors.masks import lowest

#: Sweeps of balancing, and how many come first to see whether more pay.
_SWEEPS, _FIRST_SWEEPS = 12, 4

#: Of so many values one is looked at to know their size.
_SAMPLE = 8

#: Neighbors balance their excess where it is more than this part of the capacities.
_MUCH = 0.1

#: Where more of the excess than this is left, most of it will stay, and need not be looked at: then
#: balancing ends, and trees are grown.
_MOST = 0.5

#: With so many arcs of a node trees pay unless excess is few, and with more than so many never.
_FEW_ARCS, _MANY_ARCS = 6, 8

#: With so many arcs of a node, in volumes, straight lines take longer than they save.
_VOLUME_ARCS = 6

#: How often the flow to straight lines' further nodes is halved, pass by pass; nearest first. After
#: balancing only the last one.
_HALVINGS = (2, 1, 0)


def grid_cut(forest, bands, width, keep=False):
    """Solve the cut; ``forest`` becomes what the maximal flow leaves.

    Parameters
    ----------
    forest : Forest
        Capacities >= 0, 0 to and from the border; excess, 0 at the border; the rest is written.
    bands : ndarray of int64, (B + 1,)
        Where bands of whole rows begin that are cut side by side, each on a thread of its own,
        from 0 to the number of nodes; each longer than the longest offset.
    width : int
        Nodes in a row, border included.
    keep : bool, default=False
        Whether to grow the forest that `grid_cut_again` mends.

    Notes
    -----
    The smallest source side of a minimum cut is where ``forest.nodes >= STEP``.
    """
    forest.out[:] = 0
    forest.into[:] = 0
    n_nodes, n_arcs = forest.excess.size, forest.offsets.size
    few = _are_few(forest.excess)
    if few:
        bands, left = bands[[0, -1]], 0.0  # flow between far seeds crosses all bands
    else:
        left = np.mean(_on_threads(lambda band: _send_near(forest, bands, band, width), bands))
    if _by_trees(n_arcs, left):
        trees = make_trees(n_nodes)
        times = _on_threads(lambda band: _meet_within(forest, trees, bands, band), bands)
        if bands.size > 2:
            meet(forest, trees, _wake_seams(forest, trees, bands), max(times))
        _note_side(forest, trees)
        if keep:
            _grow_forest(forest)
        return
    branches = make_branches(n_nodes, bands.size - 1)
    _on_threads(lambda band: _drain_within(forest, branches, bands, band, few), bands)
    _find_open(forest, 0, n_nodes)
    if bands.size > 2:  # by trees, as little is left
        trees = make_trees(n_nodes)
        meet(forest, trees, plant_trees(forest, trees, 0, n_nodes), 0)
        _note_side(forest, trees)
    elif not keep:
        _flood(forest, branches.after)
    if keep:
        _grow_forest(forest)


def _by_trees(n_arcs, left):
    """Whether trees find faster what is left, a part of all excess; 0 where that is few and far."""
    return left > (_MOST if n_arcs > _FEW_ARCS else 0) and n_arcs <= _MANY_ARCS


@kernel
def _are_few(excess):
    """Whether there are so few sources, or sinks, that most lie far from each other."""
    n_sources, n_sinks = 0, 0
    for v in range(excess.size):
        n_sources += excess[v] > 0
        n_sinks += excess[v] < 0
    return min(n_sources, n_sinks) < MANY * excess.size


def _on_threads(cut, bands):
    """What ``cut`` returns for each band."""
    n_bands = bands.size - 1
    cut = np.errstate(over="ignore")(cut)  # numbers of nodes wrap, as NumPy alone would say
    if n_bands == 1:
        return [cut(0)]
    # Threads of Python, as kernels hold no lock: a parallel loop compiles its body three times.
    with ThreadPoolExecutor(n_bands) as pool:
        return list(pool.map(cut, range(n_bands)))


@kernel
def grid_cut_again(forest, changed):
    """Solve the cut after the excess of the nodes ``changed`` (M,) has changed.

    Parameters
    ----------
    forest : Forest
        As `grid_cut` or this function left it, but for ``excess``.
    changed : ndarray of int64, (M,)
        Each node once.
    """
    excess, nodes = forest.excess, forest.nodes
    room = make_room(excess.size)
    n_queued, n_held = 0, 0
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
    """Send inside a band what need not be searched for; the part of the excess that is left."""
    first, stop = bands[band], bands[band + 1]
    before = _size(forest.excess[first:stop])
    begin = len(_HALVINGS) - 1 if _balance(forest, first, stop, width) else 0
    last = forest.offsets.size - 1
    if last + 1 != _VOLUME_ARCS:
        takes, comes = np.empty((2, stop - first), forest.cap.dtype)
        for k in range(begin, len(_HALVINGS)):
            for d in range((last + 1) // 2):
                send_straight(forest, takes, comes, d, _HALVINGS[k], first, width)
                send_straight(forest, takes, comes, last - d, _HALVINGS[k], first, width)
    return _size(forest.excess[first:stop]) / before if before > 0 else 1.0


@inner_kernel
def _size(values):
    """The mean size of a sample of the values."""
    total = 0.0
    for k in range(0, values.size, _SAMPLE):
        total += abs(values[k])
    return total / (1 + values.size // _SAMPLE)


def _meet_within(forest, trees, bands, band):
    """Send what can be sent inside a band, by trees; returns their last stamp."""
    first, stop = int(bands[band]), int(bands[band + 1])
    _find_open(forest, first, stop)
    trees = part_of_trees(trees, first, stop)
    return meet(forest, trees, plant_trees(forest, trees, first, stop), 0)


def _drain_within(forest, branches, bands, band, afresh):
    """Send what can be sent inside a band, down branches; ``out`` and ``into`` are 0 afterwards."""
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
    """Whether all deficits together are less than all excess."""
    total = 0.0
    for v in range(excess.size):
        total += excess[v]
    return total > 0


@kernel
def _turn(forest, first, stop):
    """Turn all arcs between nodes ``first`` and ``stop`` round, and excess into deficits."""
    cap, excess, offsets = forest.cap, forest.excess, forest.offsets
    last = offsets.size - 1
    for d in range(offsets.size // 2):
        low, high = first + max(0, -offsets[d]), stop - max(0, offsets[d])
        _exchange(cap[d, low:high], cap[last - d, low + offsets[d] : high + offsets[d]])
    for v in range(first, stop):
        excess[v] = -excess[v]


@inner_kernel
def _exchange(one, other):
    for k in range(one.size):
        one[k], other[k] = other[k], one[k]


@kernel
def _flood(forest, queue):
    """Write to ``nodes`` what excess can reach."""
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
    """Open the arcs between bands; returns how many nodes are now in ``trees.now``."""
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
    """Write the source's tree to ``nodes``."""
    for v in range(forest.nodes.size):
        forest.nodes[v] = STEP + ROOT if SOURCE <= trees.own[v] < SINK else LOST


@kernel
def _grow_forest(forest):
    """Grow the forest of a maximal flow."""
    n_nodes = forest.excess.size
    room = make_room(n_nodes)
    grow(forest, room, _plant(forest, room, 0, n_nodes), 1, n_nodes)


@inner_kernel
def _plant(forest, room, first, stop):
    """Make roots of all excess; queue those from which a node without excess can be reached."""
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
    """Set the bits of the arcs with capacity between nodes from ``first`` to ``stop``."""
    cap, offsets = forest.cap, forest.offsets
    last = offsets.size - 1
    for d in range(offsets.size):
        low, high = first + max(0, -offsets[d]), stop - max(0, offsets[d])
        _mark(forest.out[low:high], cap[d, low:high], d)
        _mark(forest.into[low + offsets[d] : high + offsets[d]], cap[d, low:high], last - d)


@inner_kernel
def _mark(bits, cap, d):
    bit = bits.dtype.type(np.uint32(1) << np.uint32(d))
    for k in range(cap.size):
        bits[k] |= bit if cap[k] > 0 else bits.dtype.type(0)


@inner_kernel
def _open_seams(forest, bands):
    """Set the bits of the arcs with capacity between bands."""
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
    """Let neighbors share excess in a few sweeps, where there is much; whether there was."""
    cap, excess, offsets = forest.cap, forest.excess, forest.offsets
    before, room = _size(excess[first:stop]), 0.0
    for d in range(offsets.size):
        room += _size(cap[d, first:stop])
    if before <= _MUCH * room:
        return False
    _sweep(forest, first, stop, width, _FIRST_SWEEPS)
    if _size(excess[first:stop]) < _MOST * before:
        _sweep(forest, first, stop, width, _SWEEPS - _FIRST_SWEEPS)
    return True


@inner_kernel
def _sweep(forest, first, stop, width, n_sweeps):
    """Let all neighbors share, ``n_sweeps`` times.

    A sweep follows the one before as closely as the arcs allow, while rows are in the cache.
    """
    sent = np.empty(width, forest.cap.dtype)
    n_rows, lag = (stop - first) // width, 1 + (forest.offsets.max() + 1) // width
    for k in range(n_rows + lag * (n_sweeps - 1)):
        for row in range(k, k - lag * n_sweeps, -lag):
            if 0 <= row < n_rows:
                _balance_row(forest, first, stop, first + row * width, width, sent)


@inner_kernel
def _balance_row(forest, first, stop, row, width, sent):
    """Let the nodes of a row share with their neighbors."""
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
    """Share between two rows; vectors, as each node is in one pair."""
    for k in range(here.size):
        sent = min(max(halved(here[k] - there[k], 1), -backward[k]), forward[k])
        forward[k] -= sent
        backward[k] += sent
        here[k] -= sent
        there[k] += sent


@inner_kernel
def _share_along(forward, backward, excess, sent):
    """Share inside a row, from what all had before, as pairs after pairs would not be vectors."""
    n_pairs = forward.size
    for k in range(n_pairs):
        difference = excess[k] - excess[k + 1]
        part = halved(difference, 2) + halved(difference, 4)  # a half and more would swing
        sent[k] = min(max(part, -backward[k]), forward[k])
    for k in range(n_pairs):
        forward[k] -= sent[k]
        backward[k] += sent[k]
    for k in range(n_pairs):
        excess[k] -= sent[k]
    for k in range(n_pairs):
        excess[k + 1] += sent[k]
