"""The graphs of expansion and swap moves, and the energy that these moves lower.

The moves are those of Boykov et al. [1]_; their graphs follow Kolmogorov and Zabih [2]_, who need
no auxiliary nodes. A graph is written into ``cap`` and ``excess``, and
`hybridseg.kernels.cuts.maxflow` cuts it; a node on the source side changes its label.

Arcs are those of `hybridseg.kernels.cuts.maxflow.build_arcs`: ``first`` (N + 1,) int32, ``head``
(A,) int32, ``weight`` (A,), both directions of each edge. ``unary`` is (N, L), ``labels`` (N,)
int32, indices 0..L-1. ``weight``, ``cap`` and ``excess`` share one dtype, int64 or float64.

`hybridseg.inference.cuts.moves` calls these kernels. Each runs on one thread.

References
----------
.. [1] Y. Boykov, O. Veksler, R. Zabih, "Fast approximate energy minimization via graph cuts", IEEE
   Transactions on Pattern Analysis and Machine Intelligence 23(11), 2001.
.. [2] V. Kolmogorov, R. Zabih, "What energy functions can be minimized via graph cuts?", IEEE
   Transactions on Pattern Analysis and Machine Intelligence 26(2), 2004.
"""

from __future__ import annotations

from hybridseg.kernels._compile import kernel


@kernel
def expansion_graph(first, head, weight, unary, labels, alpha, cap, excess):
    """Write the graph of an expansion of a Potts energy: keep the label, or take ``alpha``.

    The minimum cut is the best move; the source side (x = 1) takes ``alpha``. A pair p, q of nodes
    with different labels costs w, w, w, 0 for (keep, keep), (keep, take), (take, keep),
    (take, take). That is w - w x_q + w (1 - x_p) x_q, which needs no auxiliary node (Kolmogorov and
    Zabih 2004, section 4.1); q is the node with the higher number. Nodes with the label ``alpha``
    already are left out.

    ``cap`` (A,) and ``excess`` (N,) are overwritten. The module describes the arrays.
    """
    for v in range(labels.size):
        kept = labels[v]
        gain = excess.dtype.type(0)
        if kept != alpha:
            gain += unary[v, kept]
            gain -= unary[v, alpha]
        for a in range(first[v], first[v + 1]):
            other = labels[head[a]]
            cap[a] = 0
            if kept != alpha:
                # The other end has ``alpha``: taking it saves the edge. Equal labels: the edge is
                # cut if one end alone takes ``alpha``. Different labels: see the formula above.
                if other == alpha:
                    gain += weight[a]
                elif other == kept:
                    cap[a] = weight[a]
                elif v > head[a]:
                    gain += weight[a]
                    cap[a] = weight[a]
        excess[v] = gain


@kernel
def potts_energy(first, head, weight, unary, labels):
    """Return the sum of the unary costs and of the weights of cut edges, each edge once.

    The sum has the dtype of ``weight``. The module describes the arrays.
    """
    total = weight.dtype.type(0)
    for v in range(labels.size):
        total += unary[v, labels[v]]
        for a in range(first[v], first[v + 1]):
            if head[a] > v and labels[head[a]] != labels[v]:
                total += weight[a]
    return total


@kernel
def move_graph(first, head, weight, unary, labels, proposal, cost, cap, excess):
    """Write the graph of a move with any proposal: keep the label, or take the proposed one.

    The minimum cut is the best move; the source side takes ``proposal`` (N,) int32. Nodes whose
    label is the proposed one already are left out. An edge costs its weight times ``cost`` (L, L),
    which is symmetric. So that no capacity is negative (Kolmogorov and Zabih 2004, theorem 4.1),
    ``cost`` must satisfy the triangle inequality if the proposals are those of an expansion; for
    a swap it must have a diagonal of zeros and no negative entries.

    ``cap`` (A,) and ``excess`` (N,) are overwritten. The module describes the arrays.
    """
    for v in range(labels.size):
        kept, taken = labels[v], proposal[v]
        gain = excess.dtype.type(0)
        gain += unary[v, kept]
        gain -= unary[v, taken]
        for a in range(first[v], first[v + 1]):
            w = head[a]
            cap[a] = 0
            if kept == taken:
                continue
            # A, B, C, D are the costs of (keep, keep), (keep, take), (take, keep), (take, take),
            # the node with the lower number first. By taking, it gains B - D, or A - C if the other
            # node has no choice, and the other one gains A - B. The arc from the lower to the
            # higher number carries B + C - A - D.
            there, offered = labels[w], proposal[w]
            if there == offered or v > w:
                gain += weight[a] * (cost[kept, there] - cost[taken, there])
            else:
                gain += weight[a] * (cost[kept, offered] - cost[taken, offered])
                bend = cost[taken, there] + cost[kept, offered]
                bend -= cost[kept, there] + cost[taken, offered]
                cap[a] = max(weight[a] * bend, 0 * weight[a])  # below 0 only by rounding
        excess[v] = gain if kept != taken else 0 * gain
