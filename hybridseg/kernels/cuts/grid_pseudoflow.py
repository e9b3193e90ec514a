"""Maximum flow on a pixel grid by Hochbaum's pseudoflow algorithm [1]_: excess runs down branches.

The nodes form trees, called branches. The root of a branch holds all of its excess or deficit. The
label of a node is a lower bound on the number of arcs from it to the nearest deficit, and it is at
least the label of its parent. The root with excess and the highest label is next [2]_. Its branch
looks for an open arc from a node with the root's label to a node with the next lower label:

* If there is one, the branch is hung on that node, and the excess runs through the other branch to
  its root. Where an arc has less capacity, the rest stays behind as the root of a new branch.
* If there is none, the nodes with the root's label are lifted by one.

If no node has a certain label, no node with a higher one can reach a deficit; searches make labels
exact again (both as in [3]_). A path is walked once for each excess, not once for each augmentation
as in `hybridseg.kernels.cuts.grid_trees`. That is faster if nodes have many arcs, or if excess and
deficits are few and far apart.

The grid and its arrays are those of `hybridseg.kernels.cuts.grid_cut`, which calls `drain`: arcs
have numbers 0 to D - 1, and `ROOT` is the arc number of a root. Each band of the grid is drained by
its own thread, in its own part of `Branches`.

References
----------
.. [1] D. S. Hochbaum, "The pseudoflow algorithm: a new algorithm for the maximum-flow problem",
   Operations Research 56(4), 2008.
.. [2] B. G. Chandran, D. S. Hochbaum, "A computational study of the pseudoflow and push-relabel
   algorithms for the maximum flow problem", Operations Research 57(2), 2009.
.. [3] B. V. Cherkassky, A. V. Goldberg, "On implementing the push-relabel method for the maximum
   flow problem", Algorithmica 19(4), 1997.
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

#: If a smaller fraction of the nodes has excess, or deficits, they are few and mostly far from each
#: other. Then the search for labels is repeated from time to time.
MIN_DENSE = 1 / 64


class Branches(NamedTuple):
    """The branches of a grid, and lists of their roots with excess by label.

    Attributes
    ----------
    parent : ndarray of uint8, (N,)
        The number of the arc to the parent, or `ROOT`.
    label : ndarray of int32, (N,)
        A lower bound on the number of arcs to the nearest deficit, or `NEVER`.
    arc, child : ndarray of uint8, (N,)
        The first arc that may lead to a lower label, and the first that may lead to a child that
        was not visited yet.
    after : ndarray of int32, (N,)
        The next root in the list of roots with the same label; -1 at the end.
    first, number : ndarray of int32, (N + 2 B,) for B bands
        By label, the first root in its list or -1, and the number of nodes. Each band has a part
        of its own, with two entries more than it has nodes.
    """

    parent: NDArray[np.uint8]
    label: NDArray[np.int32]
    arc: NDArray[np.uint8]
    child: NDArray[np.uint8]
    after: NDArray[np.int32]
    first: NDArray[np.int32]
    number: NDArray[np.int32]


def make_branches(n_nodes, n_bands=1):
    """Return arrays for the branches of ``n_nodes`` nodes in ``n_bands`` bands."""
    # A band looks at its neighbors' nodes: before they are initialized, none may seem to have a
    # parent in this band.
    parent, arc, child = np.full((3, n_nodes), ROOT, np.uint8)
    label, after = np.empty((2, n_nodes), np.int32)
    first, number = np.empty((2, n_nodes + 2 * n_bands), np.int32)
    return Branches(parent, label, arc, child, after, first, number)


def part_of_branches(branches, first, stop, band):
    """Return the branches with the lists by label of one band, nodes ``first`` to ``stop``."""
    part = slice(first + 2 * band, stop + 2 * band + 2)
    return branches._replace(first=branches.first[part], number=branches.number[part])


@kernel
def drain(forest, branches, first, stop, afresh=False):
    """Let all excess of the nodes ``first`` to ``stop`` run that can reach a deficit among them.

    Parameters
    ----------
    forest : Forest
        ``out`` holds the open arcs between these nodes; ``cap``, ``excess`` and ``out`` are
        changed, ``into`` and ``nodes`` are not used.
    branches : Branches
    first, stop : int
        The first node of a band of whole rows, and the first node after it.
    afresh : bool, default=False
        Whether to search for all labels again, and to take all branches apart, each time as many
        nodes were lifted as the band has. That is faster between scribbles, which are few and far
        apart, and slower if most excess has a deficit nearby.

    Returns
    -------
    int
        How often a node was lifted.
    """
    # Node numbers and offsets are unsigned, so that numba does not test for negative indices; the
    # sum with a negative offset wraps around to the right node.
    cap, excess, out = borrowed(forest.cap), borrowed(forest.excess), borrowed(forest.out)
    offsets = borrowed(forest.offsets.view(np.uint64))
    parent, label = borrowed(branches.parent), borrowed(branches.label)
    arc, child = borrowed(branches.arc), borrowed(branches.child)
    after, heads = borrowed(branches.after), borrowed(branches.first)
    count = borrowed(branches.number)
    highest = _label(forest, branches, first, stop)
    lifted, search_at = 0, stop - first
    # Take the root with the highest label until no root with excess is left.
    while highest >= 0:
        root = np.int64(heads[highest])
        if root < 0:
            highest -= 1
            continue
        heads[highest] = after[root]
        u = np.uint64(root)
        # A gap: no node has the next lower label, so this branch cannot reach a deficit.
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
    """Make every node a branch, labeled by its distance to the nearest deficit.

    Returns the highest label of a node with excess, or -1.
    """
    offsets, excess, out = forest.offsets, forest.excess, forest.out
    # The queue uses the memory of the lists of roots, which are made after the search.
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
    # Breadth-first search from all deficits, along open arcs backwards.
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
    for v in range(first, stop):  # after the search: the queue and the lists share memory
        if excess[v] > 0 and label[v] != NEVER:
            highest = max(highest, int(label[v]))
            branches.after[v] = heads[label[v]]
            heads[label[v]] = v
    return highest


@inlined_kernel
def _hang(offsets, out, parent, label, arc, child, count, root):
    """Hang the branch of ``root`` on a node with the next lower label.

    Returns whether an open arc leads there, and how many nodes were lifted. If there is none, all
    nodes of the branch with the label of the root have been lifted by one.
    """
    one = np.uint64(1)
    none = np.uint64(offsets.size)
    last = none - one
    level = np.int64(label[root])
    u, n_lifted = root, 0
    # Depth-first search for the open arc among the nodes of the branch with the root's label.
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
        # Neither an arc nor a child is left: lift the node and go back to its parent.
        count[level] -= 1
        count[level + 1] += 1
        label[u] = level + 1
        arc[u] = 0
        child[u] = 0
        n_lifted += 1
        if u == root:
            return False, n_lifted
        u += offsets[parent[u]]
    # Reverse the path from the node found to the root, so that the branch hangs by this node.
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
    """Return the next child of ``u`` with the label ``level``, or ``u`` if none is left."""
    last = offsets.size - 1
    for d in range(np.int64(child[u]), offsets.size):
        w = u + offsets[np.uint64(d)]
        if parent[w] == last - d and label[w] == level:
            child[u] = d + 1
            return w
    return u


@inlined_kernel
def _run_down(cap, excess, offsets, out, parent, label, after, heads, root):
    """Let the excess of ``root`` run to the root of the branch on which it hangs now.

    Where an arc has less capacity, the rest stays behind: its node becomes a root with excess.
    """
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
    # The root at the end enters its list if it has excess only now.
    had = excess[v]
    excess[v] = had + runs
    if had <= 0 and had + runs > 0:
        after[v] = heads[label[v]]
        heads[label[v]] = v


@inner_kernel
def _give_up(offsets, parent, label, child, count, root):
    """Give all nodes of the branch of ``root`` the label `NEVER`: it reaches no deficit."""
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
