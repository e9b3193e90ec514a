"""What a move needs beside the maximum flow: its graph, and the energy that it lowers."""

from __future__ import annotations

from hybridseg.kernels._compile import kernel


@kernel
def expansion_graph(first, head, weight, unary, labels, alpha, cap, excess):
    """Write the graph whose minimum cut is the best move "keep the label or take ``alpha``".

    Source side = take ``alpha``. A pair of nodes with different labels costs w, w, w, 0 for
    (keep, keep), (keep, take), (take, keep), (take, take): as w - w x_q + w (1 - x_p) x_q it needs
    no auxiliary node (Kolmogorov & Zabih 2004, section 4.1). Nodes that carry ``alpha`` take no
    part.

    ``first`` (N + 1,), ``head`` (A,), ``weight`` (A,) are arcs as from
    `cuts.maxflow.build_arcs`, ``unary`` (N, L), ``labels`` (N,) int32. ``cap`` (A,)
    and ``excess`` (N,), of one dtype, are overwritten.
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
    """Sum of the unary costs and of the weights of cut edges, in the dtype of ``weight``.

    The arguments are those of `expansion_graph`.
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
    """Write the graph whose minimum cut is the best move "keep the label or take the proposed one".

    Source side = take ``proposal`` (N,); nodes that carry it take no part. The edges cost weight
    times ``cost`` (L, L), which is symmetric; for the proposals of an expansion it has to obey the
    triangle inequality, for those of a swap to be non-negative off its diagonal of zeros, so that
    no capacity is negative (Kolmogorov & Zabih 2004, theorem 4.1). The other arguments are those of
    `expansion_graph`.
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
            there, offered = labels[w], proposal[w]
            if there == offered or v > w:
                gain += weight[a] * (cost[kept, there] - cost[taken, there])
            else:
                gain += weight[a] * (cost[kept, offered] - cost[taken, offered])
                bend = cost[taken, there] + cost[kept, offered]
                bend -= cost[kept, there] + cost[taken, offered]
                cap[a] = max(weight[a] * bend, 0 * weight[a])  # below 0 by rounding only
        excess[v] = gain if kept != taken else 0 * gain
