"""Auxiliary nodes of moves: for costs that depend on more than two sites."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from hybridseg.pairwise.higher_order.cliques import Cliques


class Arcs(Protocol):
    """The arcs of a graph, as the kernel ``build_arcs`` makes them."""

    @property
    def first(self) -> NDArray[np.int32]:
        """The first arc of each node, (N + 1,)."""

    @property
    def head(self) -> NDArray[np.int32]:
        """The node to which each arc leads, (A,)."""

    @property
    def rev(self) -> NDArray[np.int32]:
        """The opposite arc, (A,)."""


class Network(NamedTuple):
    """The arcs of a graph with auxiliary nodes."""

    first: NDArray[np.int32]
    head: NDArray[np.int32]
    rev: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class CliqueNodes:
    """Two auxiliary nodes for each clique, with arcs to and from its members.

    Attributes
    ----------
    cliques : Cliques
        Their caps leave at most one label below the cap: see `as_cut_cliques`.
    network : Network
        The graph's nodes, then one node for each clique, then another one for each clique.
    own : ndarray of int64, (A,)
        The positions of the graph's own arcs in the network.
    to_member, to_node : ndarray of int64, (M,)
        The arcs from a clique's first node to each member, and from each member to its second node.
    """

    cliques: Cliques
    network: Network
    own: NDArray[np.int64]
    to_member: NDArray[np.int64]
    to_node: NDArray[np.int64]

    @classmethod
    def of(cls, graph: Arcs, cliques: Cliques) -> Self:
        """Add the nodes to a graph."""
        n_nodes, n_cliques, site = len(graph.first) - 1, len(cliques), cliques.site
        members, sizes = np.arange(len(site)), np.diff(cliques.first)
        shares = np.bincount(site, minlength=n_nodes)  # the number of cliques of each node
        degrees = np.concatenate([np.diff(graph.first) + 2 * shares, sizes, sizes])
        first = np.concatenate([[0], np.cumsum(degrees)])
        # A node's own arcs come first, then two arcs for each of its cliques.
        before = np.repeat(first[:n_nodes] - graph.first[:-1], np.diff(graph.first))
        own = np.arange(len(graph.head)) + before
        by_site = np.argsort(site, kind="stable")
        rank = np.empty(len(site), np.int64)
        rank[by_site] = members - np.repeat(np.cumsum(shares) - shares, shares)
        base = first[site] + np.diff(graph.first)[site] + 2 * rank
        head, rev = np.empty((2, first[-1]), np.int32)
        head[own], rev[own] = graph.head, own[graph.rev]
        for k in range(2):
            there, back = base + k, first[n_nodes + k * n_cliques] + members
            head[there], rev[there] = n_nodes + k * n_cliques + cliques.clique, back
            head[back], rev[back] = site, there
        network = Network(first.astype(np.int32), head, rev)
        return cls(cliques, network, own, first[n_nodes] + members, base + 1)

    @property
    def largest_changes(self) -> NDArray[np.float64]:
        """The most that the cost of all cliques changes if one site changes its label, (n,)."""
        cliques = self.cliques
        n_sites = len(self.network.first) - 1 - 2 * len(cliques)
        sums = np.bincount(cliques.site, self.strengths, n_sites)
        return sums.astype(np.float64)

    @cached_property
    def strengths(self) -> NDArray[Any]:
        """The slope times the weight of each member, (M,)."""
        cliques = self.cliques
        strengths: NDArray[Any] = cliques.slope[cliques.clique] * cliques.weight
        return strengths

    def joined(
        self,
        labels: NDArray[np.int32],
        proposal: NDArray[np.int32],
        n_labels: int,
        cap: NDArray[Any],
        excess: NDArray[Any],
    ) -> tuple[Network, NDArray[Any], NDArray[Any]]:
        r"""Return the graph of a move with the costs of the cliques.

        Nodes of which ``proposal`` differs from ``labels`` are free; all of them are proposed the
        same label a. After a move, free nodes with a (x_p = 1, the source side) agree with a, and
        free nodes of the most frequent label d that stay agree with d. The cap is at most half of
        the cost of the whole clique, so that only a and d can cost less than the cap K, and never
        both [1]_:

            min(K, A, D) = min(K, A) + min(K, D) - K,
            min(K, A) = A0 + min over z of  (K - A0) (1 - z) + sum_p s_p z (1 - x_p),
            min(K, D) = D0 + min over z of  (K - D0) z + sum_p s_p (1 - z) x_p,

        where A0 and D0 are the costs of nodes that are not free or have other labels, and s_p is
        the slope times the weight of p. The source sends K - A0 to the first node, which has an arc
        of capacity s_p to each free p. The second node sends K - D0 to the sink, and each free p of
        d has an arc of capacity s_p to it.

        References
        ----------
        .. [1] P. Kohli, L. Ladicky, P. H. S. Torr, "Robust higher order potentials for enforcing
           label consistency", International Journal of Computer Vision 82, 2009, section 4.
        """
        cliques, clique = self.cliques, self.cliques.clique
        free = (proposal != labels)[cliques.site]
        own = labels[cliques.site]
        moved = cliques.site[free]
        proposed = proposal[moved[0]] if len(moved) else -1
        counts = cliques.agreement(labels, n_labels)
        frequent = counts.argmax(axis=1)
        at_least = cliques.slope * (cliques.sizes - counts.max(axis=1))
        second = np.where(frequent == proposed, 0, np.maximum(cliques.cap - at_least, 0))
        fixed = np.where(free | (own == proposed), 0, cliques.weight)
        fixed = np.bincount(clique, fixed, len(cliques)).astype(cliques.weight.dtype)
        ahead = np.maximum(cliques.cap - cliques.slope * fixed, 0)
        wider = np.zeros(len(self.network.head), cap.dtype)
        wider[self.own] = cap
        wider[self.to_member] = self.strengths * (free & (ahead > 0)[clique])
        leaves = free & (own == frequent[clique]) & (second > 0)[clique]
        wider[self.to_node] = self.strengths * leaves
        return self.network, wider, np.concatenate([excess, ahead, -second]).astype(excess.dtype)


def as_cut_cliques(cliques: Cliques, n_labels: int) -> Cliques:
    """Return cliques whose moves are cuts: at most one label costs less than the cap.

    With two labels, the least frequent one has at most half of a clique, so that the cap may be
    lowered.

    Raises
    ------
    ValueError
        There are more labels, and a cap is more than half of the cost of the whole clique.
    """
    whole = cliques.sizes * cliques.slope
    if n_labels <= 2:
        half = cliques.sizes // 2 if cliques.weight.dtype.kind == "i" else cliques.sizes / 2
        cap = np.minimum(cliques.cap, cliques.slope * half)
        return Cliques(cliques.first, cliques.site, cliques.slope, cap, cliques.weight)
    wrong = cliques.cap > 0.5 * whole * (1 + (0 if cliques.exact else 1e-9))
    if wrong.any():
        c = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"a clique of {np.diff(cliques.first)[c]} valid sites has the cap {cliques.cap[c]:g}, "
            f"more than half of its slope times its weights, {whole[c]:g}. With more than two "
            f"labels, moves of such cliques are no minimum cuts: lower the cap (for "
            f"SuperpixelCliques, truncation=0.5 or less), or use solve_mean_field."
        )
    return cliques


def with_leaving_costs(
    graph: Arcs,
    labels: NDArray[np.int32],
    alpha: int,
    counted: NDArray[np.bool_],
    label_costs: NDArray[Any],
    cap: NDArray[Any],
    excess: NDArray[Any],
) -> tuple[Network, NDArray[Any], NDArray[Any]]:
    """Return the graph of an expansion with one auxiliary node for the cost of each label.

    The cost c_l of label l is paid unless all its nodes P take ``alpha`` (the source side):

        c_l (1 - prod_(p in P) x_p) = min over z of  c_l (1 - z) + sum_(p in P) c_l z (1 - x_p).

    The source sends c_l to the auxiliary node z, which has an arc of capacity c_l to each p
    (section 3.1 of [1]_). If ``alpha`` does not occur yet, every move pays its cost, except the
    move that changes nothing. The comparison with the energy before accounts for it. The graph may
    have other auxiliary nodes behind the nodes of ``labels``.

    References
    ----------
    .. [1] A. Delong, A. Osokin, H. N. Isack, Y. Boykov, "Fast approximate energy minimization with
       label costs", International Journal of Computer Vision 96, 2012.
    """
    n_nodes, n_labels = len(excess), len(label_costs)
    joins = np.zeros(n_nodes, bool)
    joins[: len(labels)] = counted & (labels != alpha)
    nodes = np.flatnonzero(joins).astype(np.int32)
    by_label = np.argsort(labels[nodes], kind="stable")
    sizes = np.bincount(labels[nodes], minlength=n_labels)
    degrees = np.concatenate([np.diff(graph.first) + joins, sizes])
    first = np.concatenate([[0], np.cumsum(degrees)]).astype(np.int32)
    # A node's own arcs come first, then the arc to the node of its label.
    own = np.arange(len(graph.head)) + np.repeat(np.cumsum(joins) - joins, np.diff(graph.first))
    to_label, from_label = first[nodes + 1] - 1, first[n_nodes] + np.arange(len(nodes))
    head, rev = np.empty((2, first[-1]), np.int32)
    wider = np.zeros(first[-1], cap.dtype)
    head[own], rev[own], wider[own] = graph.head, own[graph.rev], cap
    head[to_label], rev[to_label[by_label]] = n_nodes + labels[nodes], from_label
    head[from_label], rev[from_label] = nodes[by_label], to_label[by_label]
    wider[from_label] = label_costs[labels[nodes[by_label]]]
    sent = np.concatenate([excess, np.where(sizes > 0, label_costs, 0)])
    return Network(first, head, rev), wider, sent.astype(excess.dtype)
