"""Excess runs down branches of a pixel grid to deficits, by Hochbaum's pseudoflow algorithm.

The nodes form trees, the branches: each has one root, which holds all of the branch's excess or
deficit. A node's label is at most the number of arcs that lead from it to the nearest deficit, and
no lower than its parent's. A branch whose root holds excess looks for an open arc from a node of
the root's label to one of the next lower label. If there is one, the branch is hung on it there,
and the excess runs through the other branch to its root; where an arc takes less, the rest stays
behind as the root of a branch of its own. If there is none, the nodes of that label are lifted by
one. The branch with the highest label is always next. When no node has some label any more, no
node above it can reach a deficit.

A path is walked once for each excess that comes along, not once for each augmentation, and no walk
asks where a node hangs: so this pays where arcs are many, or excess and deficits few and far apart.

References
----------
Hochbaum, "The pseudoflow algorithm: a new algorithm for the maximum-flow problem", Operations
Research 56(4), 2008. Chandran and Hochbaum, "A computational study of the pseudoflow and
push-relabel algorithms for the maximum flow problem", Operations Research 57(2), 2009. Cherkassky
and Goldberg, "On implementing the push-relabel method for the maximum flow problem", Algorithmica
19(4), 1997 (labels from a search, and gaps between them).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels._compile import borrowed, inlined_kernel, inner_kernel, kernel
from hybridseg.kernels.cuts.grid_forest import ROOT
from hybridseg.kernels.vectors.masks import lowest

#: The label of a node that reaches no deficit.
NEVER = np.int32(2**31 - 1)

#: Where less than this part of the nodes have excess, or deficits, most lie far from each other;
#: labels are searched for anew then, time and again.
MANY = 1 / 64


class Branches(NamedTuple):
    """The trees of nodes, and the roots with excess by their labels.

    Attributes
    ----------
    parent : ndarray of uint8, (N,)
        The number of the arc to the parent, or `ROOT`.
    label : ndarray of int32, (N,)
        At most so many arcs lead to a deficit.
    arc, child : ndarray of uint8, (N,)
        The first arc that may lead to a lower label, and to a child that was not looked at yet.
    after : ndarray of int32, (N,)
        The root after this one in the list of its label; -1 at the end.
    first, number : ndarray of int32, (N + 2 B,) for B bands
        By label, the first root in its list or -1, and the number of nodes.
    """

    parent: NDArray[np.uint8]
    label: NDArray[np.int32]
    arc: NDArray[np.uint8]
    child: NDArray[np.uint8]
    after: NDArray[np.int32]
    first: NDArray[np.int32]
    number: NDArray[np.int32]


def make_branches(n_nodes, n_bands=1):
    """Room for the branches of ``n_nodes``, in one band or ``n_bands``."""
    # No node of another band, whose turn has not come yet, may seem to hang on one of this band.
    parent, arc, child = np.full((3, n_nodes), ROOT, np.uint8)
    label, after = np.empty((2, n_nodes), np.int32)
    first, number = np.empty((2, n_nodes + 2 * n_bands), np.int32)
    return Branches(parent, label, arc, child, after, first, number)


def part_of_branches(branches, first, stop, band):
    """The lists by label of one band, of the nodes from ``first`` to ``stop``."""
    part = slice(first + 2 * band, stop + 2 * band + 2)
    return branches._replace(first=branches.first[part], number=branches.number[part])


@kernel
def drain(forest, branches, first, stop, afresh=False):
    """Let all excess between nodes ``first`` and ``stop`` run that can reach a deficit.

    Parameters
    ----------
    forest : Forest
        ``out`` holds the open arcs between these nodes; ``into`` and ``nodes`` are not looked at.
    branches : Branches
    first, stop : int
        Nodes of whole rows.
    afresh : bool, default=False
        Whether labels are searched for again, and all branches parted, whenever as many nodes were
        lifted as there are. Between scribbles a cut takes half of the time then, where most excess
        has a deficit near half as much again.

    Returns
    -------
    int
        How many nodes were lifted, all told.
    """
    cap, excess, out = borrowed(forest.cap), borrowed(forest.excess), borrowed(forest.out)
    offsets = borrowed(forest.offsets.view(np.uint64))
    parent, label = borrowed(branches.parent), borrowed(branches.label)
    arc, child = borrowed(branches.arc), borrowed(branches.child)
    after, heads = borrowed(branches.after), borrowed(branches.first)
    count = borrowed(branches.number)
    highest = _label(forest, branches, first, stop)
    lifted, search_at = 0, stop - first
    while highest >= 0:
        root = np.int64(heads[highest])
        if root < 0:
            highest -= 1
            continue
        heads[highest] = after[root]
        u = np.uint64(root)
        if highest > 0 and count[highest - 1] == 0:
            _give_up(offsets, parent, label, child, count, u)
            continue
        hangs, n_lifted = _hang(offsets, out, parent, label, arc, child, count, u)
        lifted += n_lifted
        if hangs:
            _run_down(cap, excess, offsets, out, parent, label, after, heads, u)
        elif count[highest] == 0:
            _give_up(offsets, parent, label, child, count, u)
        else:
            highest += 1
            after[u] = heads[highest]
            heads[highest] = root
        if afresh and lifted > search_at:
            search_at = lifted + stop - first
            highest = _label(forest, branches, first, stop)
    return lifted


@inner_kernel
def _label(forest, branches, first, stop):
    """Make every node a branch, labeled by its distance to a deficit; the highest with excess."""
    offsets, excess, out = forest.offsets, forest.excess, forest.out
    label, queue, heads, count = branches.label, branches.after, branches.first, branches.number
    last = offsets.size - 1
    heads[:] = -1
    count[:] = 0
    n_seen = first
    for v in range(first, stop):
        branches.parent[v] = ROOT
        branches.arc[v] = 0
        branches.child[v] = 0
        label[v] = NEVER
        if excess[v] < 0:
            label[v] = 0
            queue[n_seen] = v
            n_seen += 1
    at = first
    while at < n_seen:
        u = np.int64(queue[at])
        at += 1
        further = label[u] + 1
        count[further - 1] += 1
        for d in range(last + 1):
            w = u + offsets[d]
            if (out[w] >> np.uint32(last - d)) & 1 and label[w] == NEVER:
                label[w] = further
                queue[n_seen] = w
                n_seen += 1
    highest = -1
    for v in range(first, stop):  # only now, as the queue lay where the lists are
        if excess[v] > 0 and label[v] != NEVER:
            highest = max(highest, int(label[v]))
            branches.after[v] = heads[label[v]]
            heads[label[v]] = v
    return highest


@inlined_kernel
def _hang(offsets, out, parent, label, arc, child, count, root):
    """Hang the branch of ``root`` on a node of the next lower label, turned round.

    Returns False where no arc leads there, the nodes of the root's label are all lifted then; and
    how many nodes were lifted.
    """
    one = np.uint64(1)
    none = np.uint64(offsets.size)
    last = none - one
    level = np.int64(label[root])
    u, n_lifted = root, 0
    while True:
        found = none
        bits = np.uint64(out[u]) >> np.uint64(arc[u]) << np.uint64(arc[u])
        while bits:
            d = lowest(bits)
            bits &= bits - one
            if label[u + offsets[d]] == level - 1:
                found = d
                break
        arc[u] = found
        if found != none:
            break
        below = _next_child(offsets, parent, label, child, u, level)
        if below != u:
            u = below
            continue
        count[level] -= 1
        count[level + 1] += 1
        label[u] = level + 1
        arc[u] = 0
        child[u] = 0
        n_lifted += 1
        if u == root:
            return False, n_lifted
        u += offsets[parent[u]]
    to_parent = found
    while True:
        before = np.uint64(parent[u])
        parent[u] = to_parent
        child[u] = 0
        if u == root:
            return True, n_lifted
        to_parent = last - before
        u += offsets[before]


@inlined_kernel
def _next_child(offsets, parent, label, child, u, level):
    """The next child of ``u`` with the label ``level``; ``u`` itself where there is none left."""
    last = offsets.size - 1
    for d in range(np.int64(child[u]), offsets.size):
        w = u + offsets[np.uint64(d)]
        if parent[w] == last - d and label[w] == level:
            child[u] = d + 1
            return w
    return u


@inlined_kernel
def _run_down(cap, excess, offsets, out, parent, label, after, heads, root):
    """Let the excess of ``root`` run to the root of the branch on which it hangs now."""
    one = np.uint64(1)
    last = np.uint64(offsets.size) - one
    v = root
    runs = excess[v]
    excess[v] = 0
    while parent[v] != ROOT:
        d = np.uint64(parent[v])
        w = v + offsets[d]
        room = cap[d, v]
        stays = max(runs - room, 0)
        if room <= runs:
            runs = room
            out[v] &= ~(one << d)
        if runs > 0:
            if cap[last - d, w] == 0:
                out[w] |= one << (last - d)
            cap[last - d, w] += runs
        cap[d, v] = room - runs
        if stays > 0:
            parent[v] = ROOT
            excess[v] = stays
            after[v] = heads[label[v]]
            heads[label[v]] = v
            if runs == 0:
                return
        v = w
    had = excess[v]
    excess[v] = had + runs
    if had <= 0 and had + runs > 0:
        after[v] = heads[label[v]]
        heads[label[v]] = v


@inner_kernel
def _give_up(offsets, parent, label, child, count, root):
    """Label the branch of ``root`` as one that reaches no deficit."""
    last = offsets.size - 1
    u = root
    child[u] = 0
    while True:
        below = u
        for d in range(np.int64(child[u]), offsets.size):
            w = u + offsets[np.uint64(d)]
            if parent[w] == last - d:
                child[u] = d + 1
                below = w
                break
        if below != u:
            u = below
            child[u] = 0
            continue
        count[label[u]] -= 1
        label[u] = NEVER
        if u == root:
            return
        u += offsets[parent[u]]
