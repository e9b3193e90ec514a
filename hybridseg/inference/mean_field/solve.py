"""Mean field: from an energy to the marginals of the distribution nearest to its CRF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.inference.mean_field.dense_model import DenseModel, MeanFieldResult, Request
from hybridseg.inference.mean_field.mixed import label_cost_messages, mixed_sweeps
from hybridseg.inference.mean_field.sweeps import sweeps_over
from hybridseg.kernels._compile import threads_for
from hybridseg.pairwise.compatibility import is_potts
from hybridseg.pairwise.edges import EdgeGroup
from hybridseg.pairwise.energy import Energy
from hybridseg.pairwise.terms import (
    SPELLED,
    HasMessages,
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

#: What messages may add up to at a node, within float32.
_MOST = 1e38

#: The share of the old marginals that stays where terms of several kinds act together.
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
) -> MeanFieldResult:
    r"""Approximate the marginals of the CRF with this energy.

    Among all distributions under which the sites are independent, the one nearest to the CRF
    :math:`p(y) \propto e^{-E(y)}` has a least free energy, and obeys the mean-field equations

    .. math:: Q_i(l) \propto \exp\left(-\frac{\partial\, \mathbb{E}_Q E}{\partial Q_i(l)}\right)

    Terms enter by what they can do, in this order: a dense kernel is filtered on permutohedral
    lattices; edges send messages; ``messages(sites, marginals)`` says itself what is expected. An
    energy of dense kernels alone is solved as in :func:`mean_field`, all pixels at once; one of
    edges alone as in :func:`grid_mean_field`, colour by colour. Where several kinds act together,
    and with label costs, each iteration holds what all but the edges are expected to cost, and
    makes one sweep over the edges.

    Parameters
    ----------
    energy : Energy
        Its seeds are kept: their marginals are 0 and 1.
    n_iter : int, default=10
        Iterations at most; 0 gives the softmax of the negated unary.
    tol : float, default=0.0
        Stop when no marginal changes by ``tol`` or more; 0 makes every iteration.
    damping : float in [0, 1), optional
        The share of the old marginals that each update keeps. Default: 0 for dense kernels or
        edges alone, 0.5 where several kinds act together, which settles what they swap to and fro.
    init : array-like, (*shape, L), optional
        Marginals to start from instead of the softmax of the negated unary.
    prune : float, optional
        For dense kernels alone: leave out labels whose marginals provably stay below this; see
        :func:`mean_field`.
    model : DenseModel, optional
        The energy's dense kernels as :meth:`DenseModel.of_energy` embedded them, of this energy or
        of one that differs from it in costs and weights only: embedding takes about as long as a
        few iterations.

    Returns
    -------
    MeanFieldResult
        Sites that are not valid have uniform marginals.

    Raises
    ------
    TypeError
        A term has none of the three abilities.
    ValueError
        An option is out of its range, or weights are beyond float32.

    Notes
    -----
    As in the published implementation of dense CRFs, a pixel counts as its own neighbour in the
    filter of a dense kernel. :meth:`Energy.energy` does not count it.

    References
    ----------
    Krähenbühl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge
    potentials", NIPS 2011. Koller and Friedman, "Probabilistic Graphical Models", 2009, section
    11.5. Vineet, Warrell and Torr, "Filter-based mean-field inference for random fields with
    higher-order terms and product label-spaces", IJCV 110, 2014 (terms beyond pairs).

    Examples
    --------
    A smooth background, whose contrast-sensitive neighbourhood and far-reaching colours agree:

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
    costs = _soft_costs(energy)
    start = init
    if init is not None and energy.sites.counted is not None:
        start = only_valid(init, energy.sites.counted, instead=1.0, name="init")
    request = Request.of(costs, energy.compatibility, n_iter, tol, start, prune)
    if damping is not None and not check_number(damping, "damping", minimum=0) < 1:
        raise ValueError(f"damping={damping!r}; expected a number >= 0 and < 1, which would stand.")
    kernels, edged, telling = _by_ability(energy)
    several = bool(telling) or energy.label_costs is not None or (bool(kernels) and bool(edged))
    if not several and not edged and not damping:
        return _embedded(energy, kernels, model).solve(costs, _weights(kernels), request)
    if prune is not None:
        raise ValueError(
            f"prune={prune!r} is for energies of dense kernels alone, without damping; leave it "
            f"out here."
        )
    groups = _message_groups(energy, edged, request.matrix)
    if several or not edged:
        dense = _embedded(energy, kernels, model) if kernels else None
        share = _MIXED_DAMPING if damping is None else float(damping)
        return _mixed(energy, costs, groups, request, (dense, kernels, telling), share)
    return _on_edges(energy, costs, groups, request, damping or 0.0)


def _by_ability(energy: Energy) -> tuple[list[Any], list[Any], list[Any]]:
    """Dense kernels; terms with edges; terms that only tell what they expect."""
    sites = energy.sites
    kernels = [term for term in energy.terms if is_dense(term, sites)]
    rest = [term for term in energy.terms if not is_dense(term, sites)]
    edged = [term for term in rest if has_edges(term, sites)]
    telling = [term for term in rest if not has_edges(term, sites)]
    lacking = [term for term in telling if not isinstance(term, HasMessages)]
    abilities = f"edges(sites) or {SPELLED[HasMessages]}"
    refuse_terms(lacking, "solve_mean_field", abilities, "Give its class one of the two methods.")
    return kernels, edged, telling


def _soft_costs(energy: Energy) -> Singles:
    """Costs in float32; of a seed, every other label is out of the question."""
    costs = energy.unary
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


def _embedded(energy: Energy, kernels: Sequence[Any], model: DenseModel | None) -> DenseModel:
    sites = energy.sites
    if model is None:
        if not kernels:
            return DenseModel.build((), np.zeros((*energy.shape, 1), np.float32), None, sites.valid)
        return DenseModel.of_energy(energy)
    if model.shape != energy.shape or len(model.weights) != len(kernels):
        raise ValueError(
            f"model has {len(model.weights)} kernels on {model.shape} pixels, but energy has "
            f"{len(kernels)} on {energy.shape}; make it with DenseModel.of_energy(energy)."
        )
    return model


def _weights(kernels: Sequence[Any]) -> Singles:
    return np.array([kernel.weight for kernel in kernels], np.float32)


def _message_groups(
    energy: Energy, edged: Sequence[Any], matrix: NDArray[np.float64]
) -> list[EdgeGroup]:
    """The edges; refuses weights whose messages, added up at a node, might be beyond float32."""
    if not edged:
        return []
    every = [term for term in energy.terms if has_edges(term, energy.sites)]
    groups = energy.edges if len(every) == len(edged) else term_edges(edged, energy.sites)
    largest = max((float(abs(g.weight).max()) for g in groups if g.weight.size), default=0.0)
    n_edges = sum(2 if g.offset is not None else g.weight.size for g in groups)
    if largest * n_edges * max(1.0, float(abs(matrix).max())) > _MOST:
        raise ValueError(
            f"weights holds {largest:g}; messages are added up in float32, which ends at 3.4e38. "
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
    """Coloured sweeps, several at a time where nobody asks for changes in between."""
    rows = costs.reshape(-1, energy.n_labels)
    changes: list[float] = []
    with threads_for(rows.size):
        sweeps = sweeps_over(rows, groups, energy.shape, _pairs(request.matrix), damping)
        if request.init is not None:
            sweeps.start_from(request.init.reshape(rows.shape))
        together = 1 if request.tol > 0 else request.n_iter
        while len(changes) < request.n_iter and not (changes and changes[-1] < request.tol):
            changes += sweeps.run(together)
        marginals = sweeps.marginals()
    return _result(marginals, costs.shape, changes, request.tol)


def _mixed(
    energy: Energy,
    costs: Singles,
    groups: Sequence[EdgeGroup],
    request: Request,
    others: tuple[DenseModel | None, Sequence[Any], Sequence[Any]],
    damping: float,
) -> MeanFieldResult:
    dense, kernels, telling = others
    shape, n_labels, counted = costs.shape, energy.n_labels, energy.sites.counted
    matrix, weights = request.matrix.astype(np.float32), _weights(kernels)
    seen = slice(None) if counted is None else counted.ravel()

    def expected(rows: Singles) -> Singles:
        """What each label is expected to cost, but for its own costs and the edges."""
        marginals, total = rows.reshape(shape), np.zeros(shape, np.float32)
        if dense is not None:
            total += dense.messages(marginals, weights) @ matrix
        for term in telling:
            total += _told(term, energy, marginals)
        flat: Singles = total.reshape(rows.shape)
        if energy.label_costs is not None:
            flat[seen] += label_cost_messages(rows[seen], energy.label_costs)
        return flat

    rows = costs.reshape(-1, n_labels)
    start = None if request.init is None else request.init.reshape(rows.shape)
    with threads_for(rows.size):
        marginals, changes = mixed_sweeps(
            *(rows, groups, energy.shape, _pairs(request.matrix), expected),
            n_iter=request.n_iter,
            tol=request.tol,
            damping=damping,
            start=start,
        )
    return _result(marginals, shape, changes, request.tol)


def _told(term: Any, energy: Energy, marginals: Singles) -> Singles:
    """What a term says, checked; nothing where not valid."""
    name = f"{type(term).__name__}.messages(sites, marginals)"
    told = as_numbers(term.messages(energy.sites, marginals), name)
    if told.shape != marginals.shape:
        raise ValueError(
            f"{name} has shape {told.shape}; expected that of the marginals, {marginals.shape}."
        )
    check_magnitude(told, name, largest=LARGEST)
    counted = energy.sites.counted
    return told.astype(np.float32) * (1 if counted is None else counted[..., np.newaxis])


def _result(
    marginals: Singles, shape: tuple[int, ...], changes: Sequence[float], tol: float
) -> MeanFieldResult:
    return MeanFieldResult(
        marginals=marginals.reshape(shape),
        n_iter=len(changes),
        converged=bool(changes) and changes[-1] < tol,
        changes=tuple(changes),
    )
