"""Two trees on a pixel grid, from the source and from the sink, that meet in augmenting paths.

A node that loses its parent keeps its children when it finds another, however far that one is from
a terminal: it is only asked whether the new parent still hangs on a terminal, by a walk that later
walks stop at. The forest of `_grid_forest` keeps distances exact instead, and hangs all children
anew; it sends what many deficits need at once, which pays where paths are long and arcs many.

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

from typing import Any, NamedTuple

import numpy as np
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from hybridseg.kernels._compile import kernel
from hybridseg.kernels._grid_forest import LOST, ROOT, lowest_bit

#: The trees, above the codes.
SOURCE, SINK = 32, 64

#: The bits of a code.
_CODE = 31

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


@intrinsic
def _borrowed(_typing: Any, array: Any) -> Any:
    """The same array without its owner, who has to outlive it.

    Where arrays are passed on, their owners are counted up and down, which would take longer here
    than what is done with them.
    """

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        view = context.make_array(sig.args[0])(context, builder, args[0])
        view.meminfo = cgutils.get_null_value(view.meminfo.type)
        view.parent = cgutils.get_null_value(view.parent.type)
        return view._getvalue()

    return array(array), generate


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


@kernel
def _mark_edge(edge, own, beyond, out, into, d):
    """Mark the roots whose arc ``d`` is open, as their tree grows, and leaves it."""
    for k in range(edge.size):
        grows = out[k] if own[k] == SOURCE + ROOT else into[k]
        leaves = (own[k] != 0) & (own[k] != beyond[k])
        edge[k] |= np.uint8(leaves) & np.uint8((grows >> np.uint8(d)) & np.uint8(1))


@kernel
def meet(forest, trees, n_now, time):
    """Augment until the trees, grown from the nodes ``trees.now[:n_now]``, meet no more.

    ``time`` is the last stamp that was given; returns what it is then.
    """
    cap, excess = _borrowed(forest.cap), _borrowed(forest.excess)
    offsets, own = _borrowed(forest.offsets), _borrowed(trees.own)
    out, into = _borrowed(forest.out), _borrowed(forest.into)
    stamp, depth, waiting = _borrowed(trees.stamp), _borrowed(trees.depth), _borrowed(trees.waiting)
    now, then, path = _borrowed(trees.now), _borrowed(trees.then), _borrowed(trees.path)
    cut, freed = _borrowed(trees.cut), _borrowed(trees.freed)
    last = offsets.size - 1
    one = np.uint64(1)
    gain = 0 if offsets.size <= _FEW_ARCS else 1
    at, n_then = 0, 0
    while at < n_now or n_then > 0:
        if at == n_now:
            now, then = then, now
            at, n_now, n_then = 0, n_then, 0

        # Take the free neighbours of the next node into its tree, up to an arc to the other tree.
        v = np.int64(now[at])
        tree = np.int64(own[v]) & ~_CODE
        bits = np.uint64(0)
        if tree == SOURCE:
            bits = np.uint64(out[v])
        elif tree == SINK:
            bits = np.uint64(into[v])
        found = np.int64(-1)
        while bits:
            d = lowest_bit(bits)
            bits &= bits - one
            w = v + offsets[d]
            other = np.int64(own[w]) & ~_CODE
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
            own[w] = tree + last - d
            stamp[w] = stamp[v]
            depth[w] = depth[v] + 1
        if found < 0:
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


@kernel
def _augment(cap, excess, offsets, out, into, own, path, cut, giver, arc):
    """Send what goes through ``arc`` from one tree to the other.

    Returns how many nodes are now in ``cut``.
    """
    last = offsets.size - 1
    one = np.uint64(1)
    taker = giver + offsets[arc]
    flow = cap[arc, giver]
    n_path, source, sink = 0, giver, taker
    while True:
        code = np.int64(own[source]) & _CODE
        if code == ROOT:
            break
        path[n_path] = source
        n_path += 1
        source += offsets[code]
        flow = min(flow, cap[last - code, source])
    n_up = n_path
    while True:
        code = np.int64(own[sink]) & _CODE
        if code == ROOT:
            break
        path[n_path] = sink
        n_path += 1
        flow = min(flow, cap[code, sink])
        sink += offsets[code]
    flow = min(flow, min(excess[source], -excess[sink]))
    excess[source] -= flow
    excess[sink] += flow
    n_cut = 0
    for k in range(-1, n_path):
        u, tail, d = taker, giver, arc
        if k >= 0:
            u = np.int64(path[k])
            code = np.int64(own[u]) & _CODE
            tail, d = (u + offsets[code], last - code) if k < n_up else (u, code)
        head, back = tail + offsets[d], last - d
        if cap[back, head] == 0:
            out[head] |= one << np.uint64(back)
            into[tail] |= one << np.uint64(d)
        cap[back, head] += flow
        left = cap[d, tail] - flow
        cap[d, tail] = left
        if left == 0:
            out[tail] &= ~(one << np.uint64(d))
            into[head] &= ~(one << np.uint64(back))
            if k >= 0:
                own[u] |= LOST
                cut[n_cut] = u
                n_cut += 1
    for u in (source, sink):
        if excess[u] == 0:
            own[u] |= LOST
            cut[n_cut] = u
            n_cut += 1
    return n_cut


@kernel
def _adopt_all(
    offsets, out, into, own, stamp, depth, waiting, path, cut, freed, n_cut, time, then, n_then
):
    """Find all orphans parents, or set them free; returns how many nodes are now in ``then``."""
    begin, n_freed = 0, 0  # a ring: no node is in it twice
    while n_cut + n_freed > 0:
        if n_cut > 0:
            n_cut -= 1
            u = np.int64(cut[n_cut])
        else:
            u = np.int64(freed[begin])
            begin = begin + 1 if begin + 1 < freed.size else 0
            n_freed -= 1
        if not _adopt(offsets, out, into, own, stamp, depth, path, u, time):
            end = begin + n_freed
            n_freed, n_then = _set_free(
                offsets, out, into, own, waiting, freed, end, n_freed, then, n_then, u
            )
    return n_then


@kernel
def _adopt(offsets, out, into, own, stamp, depth, path, u, time):
    """Hang ``u`` on the neighbour in its tree that is nearest to a terminal, if there is one."""
    one = np.uint64(1)
    tree = np.int64(own[u]) & ~_CODE
    bits = np.uint64(into[u]) if tree == SOURCE else np.uint64(out[u])
    nearest, arc = np.int64(_LAST_STAMP), np.int64(-1)
    while bits:
        d = lowest_bit(bits)
        bits &= bits - one
        x = u + offsets[d]
        if np.int64(own[x]) & ~_CODE != tree:
            continue
        n_path, code = 0, np.int64(0)
        while stamp[x] != time:
            code = np.int64(own[x]) & _CODE
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
            stamp[path[k]] = time
            depth[path[k]] = far - k
        if far < nearest:
            nearest, arc = far, d
    if arc < 0:
        return False
    own[u] = tree + arc
    stamp[u] = time
    depth[u] = nearest + 1
    return True


@kernel
def _set_free(offsets, out, into, own, waiting, freed, end, n_freed, then, n_then, u):
    """Let ``u`` leave its tree; its children become orphans, and who can reach it waits.

    Returns how many nodes are now in ``freed``, a ring with its end at ``end``, and in ``then``.
    """
    last = offsets.size - 1
    one = np.uint64(1)
    tree = np.int64(own[u]) & ~_CODE
    reach = np.uint64(into[u]) if tree == SOURCE else np.uint64(out[u])
    for d in range(last + 1):
        w = u + offsets[d]
        if np.int64(own[w]) & ~_CODE != tree:
            continue
        if (reach >> np.uint64(d)) & one and not waiting[w]:
            waiting[w] = 1
            then[n_then] = w
            n_then += 1
        if np.int64(own[w]) & _CODE == last - d:
            own[w] = tree + LOST
            freed[end if end < freed.size else end - freed.size] = w
            end += 1
            n_freed += 1
    own[u] = 0
    return n_freed, n_then
