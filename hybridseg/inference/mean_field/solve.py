"""Mean field for any energy: approximate marginals of its CRF."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.arguments import read_only
from hybridseg.inference.mean_field.dense_model import (
    DenseModel,
    MeanFieldResult,
    Request,
    Trace,
    check_strengths,
    embedded,
)
from hybridseg.inference.mean_field.free_energy import FreeEnergy
from hybridseg.inference.mean_field.mixed import CliqueMessages, mixed_sweeps
from hybridseg.inference.mean_field.sweeps import sweeps_over
from hybridseg.kernels._compile import threads_for
from hybridseg.pairwise.compatibility import is_potts
from hybridseg.pairwise.edges import EdgeGroup
from hybridseg.pairwise.energy import Energy
from hybridseg.pairwise.higher_order.presence import presence_messages
from hybridseg.pairwise.terms import (
    SPELLED,
    HasMessages,
    can,
    has_cliques,
    has_edges,
    is_dense,
    refuse_terms,
    term_edges,
)
from hybridseg.validation import (
    LARGEST,
    as_costs,
    as_numbers,
    as_soft_costs,
    check_magnitude,
    check_number,
    only_valid,
)

Singles = NDArray[np.float32]

#: The largest sum of messages at a node, within float32.
_MAX_MESSAGE_SUM = 1e38

#: The same where there are seeds: messages stay small against the costs that keep a seed.
_MAX_MESSAGE_SUM_AT_SEEDS = LARGEST / 10

#: The default damping for terms of several kinds.
_MIXED_DAMPING = 0.5


def solve_mean_field(
    energy: Energy,
    *,
    n_iter: int = 10,
    tol: float = 0.0,
    damping: float | None = None,
    init: ArrayLike | None = None,
    prune: float | None = None,
    model: DenseModel | None = None,
    with_energy: bool = False,
) -> MeanFieldResult:
    r"""Approximate the marginals of the CRF with this energy.

    Mean field [2]_ looks for the distribution with independent sites that is nearest to the CRF
    :math:`p(y) \propto e^{-E(y)}`. It solves the mean-field equations

    .. math:: Q_i(l) \propto \exp\left(-\frac{\partial\, \mathbb{E}_Q E}{\partial Q_i(l)}\right)

    Each term is used by the first of these abilities that it has: ``label_set_costs(n_labels)`` are
    added to the label costs, and ``unary_costs(sites, n_labels)`` to the unary costs; a dense
    kernel is filtered on permutohedral lattices [1]_; edges send messages; cliques have an
    auxiliary variable each, which tells the expected cost of each label [4]_;
    ``messages(sites, marginals)`` computes expected costs [3]_. An energy of dense kernels alone is
    solved as in :func:`mean_field`, with all pixels updated at once. An energy of edges alone is
    solved as in :func:`grid_mean_field`, one color of nodes at a time. With several kinds of terms,
    or with label costs, each iteration makes one sweep over the edges while the expected costs of
    all other terms stay fixed.

    Parameters
    ----------
    energy : Energy
        Seeds are kept: their marginals are 0 and 1.
    n_iter : int, default=10
        The largest number of iterations; 0 gives the softmax of the negated unary.
    tol : float, default=0.0
        Stop when no marginal changes by ``tol`` or more; 0 never stops early.
    damping : float in [0, 1), optional
        The fraction of the old marginals that each update keeps. Default: 0 for dense kernels or
        edges and cliques without other terms, and 0.5 for several kinds of terms, which prevents
        oscillation.
    init : array-like, (*shape, L), optional
        Marginals to start from instead of the softmax of the negated unary.
    prune : float, optional
        For dense kernels alone: leave out labels whose marginals provably stay at or below this;
        see :func:`mean_field`.
    model : DenseModel, optional
        The result of :meth:`DenseModel.of_energy` for this energy, or for one that differs only in
        costs and weights. It saves the time of embedding, which takes about as long as a few
        iterations.
    with_energy : bool, default=False
        Whether to record the free energy of each iteration. It does not influence the result, but
        it takes several times as long as the iterations.

    Returns
    -------
    MeanFieldResult
        Sites that are not valid have uniform marginals.

    Raises
    ------
    TypeError
        A term has none of these abilities.
    ValueError
        An option is out of its range, or weights exceed float32.

    Notes
    -----
    As in the published implementation of dense CRFs, a pixel counts as its own neighbor in the
    filter of a dense kernel. :meth:`Energy.energy` does not count it.

    References
    ----------
    .. [1] P. Krähenbühl, V. Koltun, "Efficient inference in fully connected CRFs with Gaussian
       edge potentials", NIPS, 2011.
    .. [2] D. Koller, N. Friedman, "Probabilistic Graphical Models", MIT Press, 2009, section 11.5.
    .. [3] V. Vineet, J. Warrell, P. H. S. Torr, "Filter-based mean-field inference for random
       fields with higher-order terms and product label-spaces", IJCV 110, 2014.
    .. [4] A. Arnab, S. Jayasumana, S. Zheng, P. H. S. Torr, "Higher order conditional random fields
       in deep neural networks", ECCV, 2016.

    Examples
    --------
    Edges between neighbors and a bilateral kernel together correct a wrong pixel:

    >>> import numpy as np
    >>> from hybridseg.inference import solve_mean_field
    >>> from hybridseg.pairwise import BilateralKernel, Energy, GridTerm
    >>> image = np.zeros((12, 16), np.uint8)
    >>> image[:, 8:] = 200
    >>> wanted = (image > 0).astype(int)
    >>> unary = np.where(np.eye(2, dtype=bool)[wanted], 0.3, 0.7)
    >>> unary[5, 3] = [0.7, 0.3]  # a wrong pixel
    >>> energy = Energy(unary, [GridTerm(1.0), BilateralKernel(3.0, 40.0, 13.0)], image=image)
    >>> labels = solve_mean_field(energy).marginals.argmax(axis=-1)
    >>> bool((labels == wanted).all()), energy.energy(labels) < energy.energy(energy.cheapest())
    (True, True)
    """
    kernels, edged, cliqued, messaging = _by_ability(energy)
    trace = None
    if with_energy:
        objective = FreeEnergy.of(energy, model)
        model, trace = objective.model or model, Trace(objective)
    costs = _soft_costs(energy)
    start = init
    if init is not None and energy.sites.counted is not None:
        start = only_valid(init, energy.sites.counted, instead=1.0, name="init")
    request = Request.of(costs, energy.compatibility, n_iter, tol, start, prune, trace)
    if request.init is not None and energy.seeds is not None:
        request = replace(request, init=_with_seeds(request.init, energy.seeds))
    _check_presence_costs(energy)
    check_strengths(_weights(kernels), request.matrix, _largest_message(energy))
    if damping is not None and not check_number(damping, "damping", minimum=0) < 1:
        raise ValueError(
            f"damping={damping!r}; expected a number >= 0 and < 1: at 1, no marginal changes."
        )
    several = bool(messaging) or energy.presence_costs is not None
    several = several or (bool(kernels) and bool(edged or cliqued))
    if not several and not edged and not cliqued and not damping:
        return embedded(energy, model).solve(costs, _weights(kernels), request)
    if prune is not None:
        raise ValueError(
            f"prune={prune!r}; expected None, because this energy has terms other than dense "
            f"kernels, or damping is not 0."
        )
    groups = _message_groups(energy, edged, request.matrix)
    if several or not edged or cliqued:
        dense = embedded(energy, model) if kernels else None
        usual = _MIXED_DAMPING if several else 0.0
        kept = usual if damping is None else float(damping)
        others = dense, kernels, _clique_messages(energy), messaging
        return _mixed(energy, costs, groups, request, others, kept)
    return _on_edges(energy, costs, groups, request, damping or 0.0)


def _by_ability(energy: Energy) -> tuple[list[Any], list[Any], list[Any], list[Any]]:
    """Return the dense kernels, and the terms with edges, with cliques, and with messages only."""
    sites = energy.sites
    kernels = [term for term in energy.local_terms if is_dense(term, sites)]
    rest = [term for term in energy.local_terms if not is_dense(term, sites)]
    edged = [term for term in rest if has_edges(term, sites)]
    cliqued = [term for term in rest if has_cliques(term, sites)]
    messaging = [t for t in rest if not (has_edges(t, sites) or has_cliques(t, sites))]
    lacking = [term for term in messaging if not can(term, HasMessages)]
    abilities = f"edges(sites), cliques(sites) or {SPELLED[HasMessages]}"
    refuse_terms(lacking, "solve_mean_field", abilities, "Give its class one of these methods.")
    return kernels, edged, cliqued, messaging


def _clique_messages(energy: Energy) -> CliqueMessages | None:
    """Return the messages of all cliques; refuse those whose sums may exceed float32."""
    if not len(energy.cliques):
        return None
    found = CliqueMessages.of(energy.cliques, math.prod(energy.shape))
    largest, limit = found.largest, _largest_message(energy)
    if not largest <= limit:
        raise ValueError(
            f"cliques have slopes and weights whose sum at a site is {largest:g}; expected at most "
            f"{limit:g}. Divide unary and all costs by a common factor."
        )
    return found


def _check_presence_costs(energy: Energy) -> None:
    """Refuse costs of labels, and sums over the pairs of a label, that messages cannot hold."""
    costs, largest = energy.presence_costs, _largest_message(energy)
    if costs is None:
        return
    if energy.label_costs is not None:
        check_magnitude(energy.label_costs, "label_costs", largest=largest)
    most = np.abs(costs.single.astype(np.float64))
    if costs.joint is not None:
        most = most + np.abs(costs.joint.astype(np.float64)).sum(axis=1)
    check_magnitude(most, "label_set_costs(n_labels) of all terms", largest=largest)


def _largest_message(energy: Energy) -> float:
    return LARGEST if energy.seeds is None else _MAX_MESSAGE_SUM_AT_SEEDS


def _soft_costs(energy: Energy) -> Singles:
    """Return costs in float32; at a seed, all other labels get a prohibitive cost."""
    costs = energy.total_unary
    if costs.dtype != np.float32:
        costs = as_costs(costs)
    costs = as_soft_costs(costs)
    if energy.seeds is None:
        return costs
    certain = energy.seeds >= 0
    costs = costs.copy()
    costs[certain] = LARGEST
    costs[(*np.nonzero(certain), energy.seeds[certain])] = 0
    return costs


def _with_seeds(marginals: Singles, seeds: NDArray[np.int64]) -> Singles:
    """Return marginals that are 0 and 1 at the seeds."""
    certain = np.eye(marginals.shape[-1], dtype=np.float32)[np.maximum(seeds, 0)]
    return np.where(seeds[..., np.newaxis] >= 0, certain, marginals)


def _weights(kernels: Sequence[Any]) -> Singles:
    return np.array([kernel.weight for kernel in kernels], np.float32)


def _message_groups(
    energy: Energy, edged: Sequence[Any], matrix: NDArray[np.float64]
) -> list[EdgeGroup]:
    """Return the edges; refuse weights whose sums of messages may exceed float32."""
    if not edged:
        return []
    every = [term for term in energy.local_terms if has_edges(term, energy.sites)]
    groups = energy.edges if len(every) == len(edged) else term_edges(edged, energy.sites)
    largest = max((float(abs(g.weight).max()) for g in groups if g.weight.size), default=0.0)
    n_edges = sum(2 if g.offset is not None else g.weight.size for g in groups)
    limit = _MAX_MESSAGE_SUM if energy.seeds is None else _MAX_MESSAGE_SUM_AT_SEEDS
    if largest * n_edges * max(1.0, float(abs(matrix).max())) > limit:
        why = "fit float32" if energy.seeds is None else "do not overrule seeds"
        raise ValueError(
            f"weights holds {largest:g}; expected sums of messages up to {limit:g}, which {why}. "
            f"Divide unary and weights by a common factor."
        )
    return groups


def _pairs(matrix: NDArray[np.float64]) -> Singles:
    return np.zeros((0, 0), np.float32) if is_potts(matrix) else matrix.astype(np.float32)


def _on_edges(
    energy: Energy,
    costs: Singles,
    groups: Sequence[EdgeGroup],
    request: Request,
    damping: float,
) -> MeanFieldResult:
    """Sweep over the edges, several sweeps at a time if ``tol`` is 0."""
    rows = costs.reshape(-1, energy.n_labels)
    changes: list[float] = []
    with threads_for(rows.size):
        sweeps = sweeps_over(rows, groups, energy.shape, _pairs(request.matrix), damping)
        if request.init is not None:
            sweeps.start_from(request.init.reshape(rows.shape))
        trace = request.trace
        if trace is not None:
            trace.record(sweeps.marginals().reshape(costs.shape))
        together = request.n_iter if request.tol == 0 and trace is None else 1
        while len(changes) < request.n_iter and not (changes and changes[-1] < request.tol):
            changes += sweeps.run(together)
            if trace is not None:
                trace.record(sweeps.marginals().reshape(costs.shape))
        marginals = sweeps.marginals()
    return _result(marginals, costs.shape, changes, request)


def _mixed(
    energy: Energy,
    costs: Singles,
    groups: Sequence[EdgeGroup],
    request: Request,
    others: tuple[DenseModel | None, Sequence[Any], CliqueMessages | None, Sequence[Any]],
    damping: float,
) -> MeanFieldResult:
    dense, kernels, cliques, messaging = others
    shape, n_labels, counted = costs.shape, energy.n_labels, energy.sites.counted
    matrix, weights = request.matrix.astype(np.float32), _weights(kernels)
    seen = slice(None) if counted is None else counted.ravel()

    def expected(rows: Singles) -> Singles:
        """Return the expected cost of each label, except for unary costs and edges."""
        marginals = rows.reshape(shape)
        flat = np.zeros_like(rows) if cliques is None else cliques.send(rows)
        total = flat.reshape(shape)
        if dense is not None:
            total += dense.messages(marginals, weights) @ matrix
        for term in messaging:
            total += _messages_of(term, energy, marginals)
        if energy.presence_costs is not None:
            flat[seen] += presence_messages(rows[seen], energy.presence_costs)
        return flat

    rows = costs.reshape(-1, n_labels)
    start = None if request.init is None else request.init.reshape(rows.shape)
    with threads_for(rows.size):
        marginals, changes = mixed_sweeps(
            *(rows, groups, energy.shape, _pairs(request.matrix), expected),
            record=None if request.trace is None else request.trace.record,
            n_iter=request.n_iter,
            tol=request.tol,
            damping=damping,
            start=start,
        )
    return _result(marginals, shape, changes, request)


def _messages_of(term: Any, energy: Energy, marginals: Singles) -> Singles:
    """Return the checked messages of a term; 0 where sites are not valid."""
    name = f"{type(term).__name__}.messages(sites, marginals)"
    messages = as_numbers(term.messages(energy.sites, read_only(marginals)), name)
    if messages.shape != marginals.shape:
        raise ValueError(
            f"{name} has shape {messages.shape}; expected that of the marginals, {marginals.shape}."
        )
    check_magnitude(messages, name, largest=_largest_message(energy))
    counted = energy.sites.counted
    return messages.astype(np.float32) * (1 if counted is None else counted[..., np.newaxis])


def _result(
    marginals: Singles, shape: tuple[int, ...], changes: Sequence[float], request: Request
) -> MeanFieldResult:
    return MeanFieldResult(
        marginals=marginals.reshape(shape),
        n_iter=len(changes),
        converged=bool(changes) and changes[-1] < request.tol,
        changes=tuple(changes),
        energies=request.energies,
    )
