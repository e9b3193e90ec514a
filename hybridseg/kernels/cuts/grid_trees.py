"""Two trees on a pixel grid, from the source and from the sink, that meet in augmenting paths.

A node that loses its parent keeps its children when it finds another, however far that one is from
a terminal: it is only asked whether the new parent still hangs on a terminal, by a walk that later
walks stop at. The branches of `_grid_pseudoflow` carry what many deficits need at once, which pays
where paths are long and arcs many.

A node's byte in ``own`` is ``tree + code``: the tree is `SOURCE`, `SINK` or 0 for a node that is in
neither, the code the number of the arc to the parent, or `ROOT` at a node with excess or deficit,
or `LOST` while a parent is looked for.

References
----------
Boykov and Kolmogorov, "An experimental comparison of min-cut/max-flow algorithms for energy
minimization in vision", PAMI 26(9), 2004. Jamriska, Sykora and Hornung, "Cache-efficient graph cuts
on structured grids", CVPR 2012 (arcs without lists).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels._compile import borrowed, inlined_kernel, inner_kernel, kernel
from hybridseg.kernels.cuts.grid_forest import LOST, ROOT
from hybridseg.kernels.vectors.masks import lowest

#: The trees, above the codes.
SOURCE, SINK = 32, 64

#: The bits of a code, and of a tree.
_CODE, _TREE = np.uint8(31), np.uint8(SOURCE | SINK)
_LOST = np.uint8(LOST)

#: With so many arcs of a node, one moves to a new parent also where that is as near as the old one.
#: Between two far seeds this takes 0.6 of the time with 4 arcs, and 1.6 times as much with 8.
_FEW_ARCS = 6

#: Stamps begin anew after this one.
_LAST_STAMP = 2**31 - 1


class Trees(NamedTuple):
    """The trees, and lists that the search works with.

    Attributes
    ----------
    own : ndarray of uint8, (N,)
        ``tree + code``.
    stamp, depth : ndarray of int32, (N,)
        How far from its terminal a node was, in nodes, and after which augmentation.
    waiting : ndarray of uint8, (N,)
        Whether the node is in the list of those to explore next.
    now, then, path, cut, freed : ndarray of int32, (N,)
        Lists of nodes: to explore now and next; of one path; of those that lost their parents, by
        an arc that was used up and by a parent that left the tree.
    """

    own: NDArray[np.uint8]
    stamp: NDArray[np.int32]
    depth: NDArray[np.int32]
    waiting: NDArray[np.uint8]
    now: NDArray[np.int32]
    then: NDArray[np.int32]
    path: NDArray[np.int32]
    cut: NDArray[np.int32]
    freed: NDArray[np.int32]


def make_trees(n_nodes):
    """Trees of nothing."""
    own, waiting = np.zeros((2, n_nodes), np.uint8)
    stamp, depth = np.zeros((2, n_nodes), np.int32)
    return Trees(own, stamp, depth, waiting, *np.empty((5, n_nodes), np.int32))


def part_of_trees(trees, first, stop):
    """The same trees, with lists for the nodes from ``first`` to ``stop``."""
    lists = {name: getattr(trees, name)[first:stop] for name in Trees._fields[4:]}
    return trees._replace(**lists)


@kernel
def plant_trees(forest, trees, first, stop):
    """Make roots of all nodes with excess or deficit.

    Returns how many are now in ``now``: those with an open arc out of their tree.
    """
    excess, offsets = forest.excess, forest.offsets
    own, waiting = trees.own, trees.waiting
    for v in range(first, stop):
        tree = SOURCE if excess[v] > 0 else SINK
        own[v] = tree + ROOT if excess[v] != 0 else 0
        trees.depth[v] = 1
    for d in range(offsets.size):
        low, high = first + max(0, -offsets[d]), stop - max(0, offsets[d])
        _mark_edge(
            waiting[low:high],
            own[low:high],
            own[low + offsets[d] : high + offsets[d]],
            forest.out[low:high],
            forest.into[low:high],
            d,
        )
    n_now = 0
    for v in range(first, stop):
        if waiting[v]:
            trees.now[n_now] = v
            n_now += 1
    return n_now


@inner_kernel
def _mark_edge(edge, own, beyond, out, into, d):
    """Mark the roots whose arc ``d`` is open, as their tree grows, and leaves it."""
    bit = out.dtype.type(np.uint32(1) << np.uint32(d))
    for k in range(edge.size):
        grows = out[k] if own[k] == SOURCE + ROOT else into[k]
        edge[k] |= (own[k] != 0) & (own[k] != beyond[k]) & (grows & bit != 0)


@kernel
def meet(forest, trees, n_now, time):
    """Augment until the trees, grown from the nodes ``trees.now[:n_now]``, meet no more.

    ``time`` is the last stamp that was given; returns what it is then.
    """
    # Numbers of nodes and arcs are unsigned: those of signed ones may count from an array's end,
    # and asking whether they do took a third of the time.
    cap, excess = borrowed(forest.cap), borrowed(forest.excess)
    own, out, into = borrowed(trees.own), borrowed(forest.out), borrowed(forest.into)
    stamp, depth, waiting = borrowed(trees.stamp), borrowed(trees.depth), borrowed(trees.waiting)
    now, then, path = borrowed(trees.now), borrowed(trees.then), borrowed(trees.path)
    cut, freed = borrowed(trees.cut), borrowed(trees.freed)
    offsets = borrowed(forest.offsets.view(np.uint64))
    one = np.uint64(1)
    last = np.uint64(offsets.size) - one  # of no arcs, of which nothing comes, it wraps
    gain = 0 if offsets.size <= _FEW_ARCS else 1
    at, n_then = 0, 0
    while at < n_now or n_then > 0:
        if at == n_now:
            now, then = then, now
            at, n_now, n_then = 0, n_then, 0

        # Take the free neighbors of the next node into its tree, up to an arc to the other tree.
        v = np.uint64(now[at])
        tree = own[v] & _TREE
        bits = np.uint64(0)
        if tree == SOURCE:
            bits = np.uint64(out[v])
        elif tree == SINK:
            bits = np.uint64(into[v])
        found = last + one
        while bits:
            d = lowest(bits)
            bits &= bits - one
            w = v + offsets[d]
            other = own[w] & _TREE
            if other == 0:
                if not waiting[w]:
                    waiting[w] = 1
                    then[n_then] = w
                    n_then += 1
            elif other != tree:
                found = d
                break
            elif stamp[w] > stamp[v] or depth[w] <= depth[v] + gain:
                continue
            own[w] = tree | np.uint8(last - d)
            stamp[w] = stamp[v]
            depth[w] = depth[v] + 1
        if found > last:
            waiting[v] = 0
            at += 1
            continue

        arc = found if tree == SOURCE else last - found
        giver = v if tree == SOURCE else v + offsets[found]
        n_cut = _augment(cap, excess, offsets, out, into, own, path, cut, giver, arc)
        if time == _LAST_STAMP:
            stamp[:] = 0
            time = 0
        time += 1
        n_then = _adopt_all(
            offsets,
            out,
            into,
            own,
            stamp,
            depth,
            waiting,
            path,
            cut,
            freed,
            n_cut,
            time,
            then,
            n_then,
        )
    return time


@inner_kernel
def _augment(cap, excess, offsets, out, into, own, path, cut, giver, arc):
    """Send what goes through ``arc`` from one tree to the other.

    Returns how many nodes are now in ``cut``.
    """
    last = np.uint64(offsets.size - 1)
    taker = giver + offsets[arc]
    flow = cap[arc, giver]
    n_path, source, sink = 0, giver, taker
    while True:
        code = np.uint64(own[source] & _CODE)
        if code == ROOT:
            break
        path[n_path] = source
        n_path += 1
        source += offsets[code]
        flow = min(flow, cap[last - code, source])
    n_up = n_path
    while True:
        code = np.uint64(own[sink] & _CODE)
        if code == ROOT:
            break
        path[n_path] = sink
        n_path += 1
        flow = min(flow, cap[code, sink])
        sink += offsets[code]
    flow = min(flow, min(excess[source], -excess[sink]))
    excess[source] -= flow
    excess[sink] += flow
    _send(cap, out, into, giver, taker, arc, last - arc, flow)
    n_cut = 0
    for k in range(n_path):
        u = np.uint64(path[k])
        code = np.uint64(own[u] & _CODE)
        above = u + offsets[code]
        if k < n_up:
            used_up = _send(cap, out, into, above, u, last - code, code, flow)
        else:
            used_up = _send(cap, out, into, u, above, code, last - code, flow)
        if used_up:
            own[u] |= _LOST
            cut[n_cut] = u
            n_cut += 1
    for u in (source, sink):
        if excess[u] == 0:
            own[u] |= _LOST
            cut[n_cut] = u
            n_cut += 1
    return n_cut


@inlined_kernel
def _send(cap, out, into, tail, head, arc, back, flow):
    """Send ``flow`` by the arc from ``tail`` to ``head``; whether it is used up."""
    one = np.uint64(1)
    if cap[back, head] == 0:
        out[head] |= one << back
        into[tail] |= one << arc
    cap[back, head] += flow
    left = cap[arc, tail] - flow
    cap[arc, tail] = left
    if left != 0:
        return False
    out[tail] &= ~(one << arc)
    into[head] &= ~(one << back)
    return True


@inner_kernel
def _adopt_all(
    offsets, out, into, own, stamp, depth, waiting, path, cut, freed, n_cut, time, then, n_then
):
    """Find all orphans parents, or set them free; returns how many nodes are now in ``then``."""
    begin, n_freed = 0, 0  # a ring: no node is in it twice
    while n_cut + n_freed > 0:
        if n_cut > 0:
            n_cut -= 1
            u = np.uint64(cut[n_cut])
        else:
            u = np.uint64(freed[begin])
            begin = begin + 1 if begin + 1 < freed.size else 0
            n_freed -= 1
        if not _adopt(offsets, out, into, own, stamp, depth, path, u, time):
            end = begin + n_freed
            n_freed, n_then = _set_free(
                offsets, out, into, own, waiting, freed, end, n_freed, then, n_then, u
            )
    return n_then


@inlined_kernel
def _adopt(offsets, out, into, own, stamp, depth, path, u, time):
    """Hang ``u`` on the neighbor in its tree that is nearest to a terminal, if there is one."""
    one = np.uint64(1)
    tree = own[u] & _TREE
    bits = np.uint64(into[u]) if tree == SOURCE else np.uint64(out[u])
    nearest, arc = np.int64(_LAST_STAMP), _LOST
    while bits:
        d = lowest(bits)
        bits &= bits - one
        x = u + offsets[d]
        if own[x] & _TREE != tree:
            continue
        n_path, code = 0, np.uint64(0)
        while stamp[x] != time:
            code = np.uint64(own[x] & _CODE)
            if code >= ROOT:
                break
            path[n_path] = x
            n_path += 1
            x += offsets[code]
        if code == LOST:
            continue
        if code == ROOT:
            stamp[x] = time
            depth[x] = 1
        far = n_path + np.int64(depth[x])
        for k in range(n_path):
            y = np.uint64(path[k])
            stamp[y] = time
            depth[y] = far - k
        if far < nearest:
            nearest, arc = far, np.uint8(d)
    if arc == _LOST:
        return False
    own[u] = tree | arc
    stamp[u] = time
    depth[u] = nearest + 1
    return True


@inlined_kernel
def _set_free(offsets, out, into, own, waiting, freed, end, n_freed, then, n_then, u):
    """Let ``u`` leave its tree; its children become orphans, and who can reach it waits.

    Returns how many nodes are now in ``freed``, a ring with its end at ``end``, and in ``then``.
    """
    last = np.uint64(offsets.size - 1)
    one = np.uint64(1)
    tree = own[u] & _TREE
    reach = np.uint64(into[u]) if tree == SOURCE else np.uint64(out[u])
    for k in range(offsets.size):
        d = np.uint64(k)
        w = u + offsets[d]
        if own[w] & _TREE != tree:
            continue
        if (reach >> d) & one and not waiting[w]:
            waiting[w] = 1
            then[n_then] = w
            n_then += 1
        if own[w] == tree | np.uint8(last - d):
            own[w] = tree | _LOST
            freed[end if end < freed.size else end - freed.size] = w
            end += 1
            n_freed += 1
    own[u] = 0
    return n_freed, n_then
