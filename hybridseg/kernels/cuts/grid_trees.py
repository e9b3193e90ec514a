"""Maximum flow on a pixel grid by two search trees, from the source and from the sink.

This is the algorithm of Boykov and Kolmogorov [1]_: the trees grow until they meet, an augmenting
path is saturated, and the nodes that this cuts off are adopted by another parent or leave their
tree. An orphan takes the neighbor in its tree that is nearest to a root, however far that is, and
keeps its children. A walk checks that the neighbor still hangs on a root, and stamps the nodes on
the way, so that later walks stop there. The arcs need no lists, as in [2]_.

A node's byte in ``own`` is ``tree + code``. The tree is `SOURCE`, `SINK`, or 0 for a node in no
tree. The code is the number of the arc to the parent, `ROOT` for a node with excess or a deficit,
or `LOST` while a parent is looked for. The grid and its arrays are those of
`hybridseg.kernels.cuts.grid_cut`, which calls these kernels: first for each band of the grid, on a
thread of its own, then for the whole grid on one thread. Branches
(`hybridseg.kernels.cuts.grid_pseudoflow`) are faster if paths are long and arcs many.

References
----------
.. [1] Y. Boykov, V. Kolmogorov, "An experimental comparison of min-cut/max-flow algorithms for
   energy minimization in vision", IEEE Transactions on Pattern Analysis and Machine Intelligence
   26(9), 2004.
.. [2] O. Jamriska, D. Sykora, A. Hornung, "Cache-efficient graph cuts on structured grids",
   Conference on Computer Vision and Pattern Recognition (CVPR), 2012.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels._compile import borrowed, inlined_kernel, inner_kernel, kernel
from hybridseg.kernels.cuts.grid_forest import LOST, ROOT
from hybridseg.kernels.vectors.masks import lowest

#: The trees, as bits above those of the codes.
SOURCE, SINK = 32, 64

#: The bits of the code, and of the tree.
_CODE, _TREE = np.uint8(31), np.uint8(SOURCE | SINK)
_LOST = np.uint8(LOST)

#: Up to this number of arcs, a node changes to a new parent also if the old parent is as near to a
#: root. That is faster with 4 arcs at a node and slower with 8: change the number and compare the
#: case "two far seeds" of `python -m benchmarks kernels --only grid_cut`.
_MAX_ARCS_FOR_TIES = 6

#: The largest stamp; after it all stamps are reset.
_LAST_STAMP = 2**31 - 1


class Trees(NamedTuple):
    """The two trees of a grid, and the working lists of the search.

    Attributes
    ----------
    own : ndarray of uint8, (N,)
        ``tree + code``.
    stamp, depth : ndarray of int32, (N,)
        The number of nodes from a node to its root (1 at a root), as it was found after the
        augmentation with the number ``stamp``.
    waiting : ndarray of uint8, (N,)
        Whether the node is in the lists of nodes to explore.
    now, then, path, cut, freed : ndarray of int32, (N,)
        Lists of nodes: those to explore now, those to explore next, the nodes of one path, and the
        nodes that lost their parent because an arc was used up (``cut``) or because the parent
        left the tree (``freed``).
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
    """Return empty trees for ``n_nodes`` nodes."""
    own, waiting = np.zeros((2, n_nodes), np.uint8)
    stamp, depth = np.zeros((2, n_nodes), np.int32)
    return Trees(own, stamp, depth, waiting, *np.empty((5, n_nodes), np.int32))


def part_of_trees(trees, first, stop):
    """Return the same trees, with the parts of the lists for nodes ``first`` to ``stop``."""
    lists = {name: getattr(trees, name)[first:stop] for name in Trees._fields[4:]}
    return trees._replace(**lists)


@kernel
def plant_trees(forest, trees, first, stop):
    """Make all nodes ``first`` to ``stop`` with excess or a deficit roots.

    Roots with an open arc out of their tree are listed in ``now``. Returns how many there are.
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
    """Mark the roots from which their tree can grow along arc ``d``."""
    bit = out.dtype.type(np.uint32(1) << np.uint32(d))
    for k in range(edge.size):
        grows = out[k] if own[k] == SOURCE + ROOT else into[k]
        edge[k] |= (own[k] != 0) & (own[k] != beyond[k]) & (grows & bit != 0)


@kernel
def meet(forest, trees, n_now, time):
    """Grow the trees from the nodes ``trees.now[:n_now]``, and augment until they meet no more.

    ``time`` is the last stamp that was given. Returns the last stamp at the end.
    """
    # The numbers of nodes and arcs are unsigned, because numba tests signed indices for counting
    # from the end of an array. The sum with a negative offset wraps around to the right node.
    cap, excess = borrowed(forest.cap), borrowed(forest.excess)
    own, out, into = borrowed(trees.own), borrowed(forest.out), borrowed(forest.into)
    stamp, depth, waiting = borrowed(trees.stamp), borrowed(trees.depth), borrowed(trees.waiting)
    now, then, path = borrowed(trees.now), borrowed(trees.then), borrowed(trees.path)
    cut, freed = borrowed(trees.cut), borrowed(trees.freed)
    offsets = borrowed(forest.offsets.view(np.uint64))
    one = np.uint64(1)
    last = np.uint64(offsets.size) - one  # without arcs it wraps around and is not used
    gain = 0 if offsets.size <= _MAX_ARCS_FOR_TIES else 1
    at, n_then = 0, 0
    while at < n_now or n_then > 0:
        if at == n_now:
            now, then = then, now
            at, n_now, n_then = 0, n_then, 0

        # Growth: the next node takes its free neighbors into its tree. An arc to the other tree
        # ends it, and the node is visited again after the augmentation.
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

        # Augmentation along the path through this arc, then adoption of the orphans.
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
    """Send the bottleneck of the path through ``arc``, which leads from ``giver`` to the sink tree.

    Returns how many nodes lost their parent; they are listed in ``cut``.
    """
    last = np.uint64(offsets.size - 1)
    taker = giver + offsets[arc]
    # The bottleneck: from the arc up to the source's root, then down to the sink's root.
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
    # Send it; nodes whose arc to the parent is used up, and roots without excess, become orphans.
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
    """Send ``flow`` along the arc from ``tail`` to ``head``; return whether it is used up."""
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
    """Give all orphans new parents, or set them free; return how many nodes are in ``then``."""
    begin, n_freed = 0, 0  # ``freed`` is a ring; it is long enough, as no node is in it twice
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
    """Hang ``u`` on the neighbor in its tree that is nearest to a root; return whether one is."""
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
        # Walk up to a root, to a node that was stamped after this augmentation, or to an orphan.
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
        # The branch hangs on a root: stamp the nodes of the walk with their distance.
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
    """Take ``u`` out of its tree.

    Its children become orphans in ``freed``, a ring that ends at ``end``. Neighbors of the same
    tree from which ``u`` can be reached are listed in ``then``, to explore again. Returns how many
    nodes are in ``freed`` and in ``then``.
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
