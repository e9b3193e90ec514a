"""The protocols of terms, and how solvers choose between them.

A term is any object with at least one of five abilities. All arrays that it receives are read-only.
The energy and the solvers use the first ability that they find, in this order:

=============  =================================================================================
user           abilities, first to last
=============  =================================================================================
the energy     ``cost``; the sum over ``edges``; over all pairs of a dense kernel; ``cliques``
mean field     the lattices of a dense kernel; ``edges``; ``cliques``; ``messages``
minimum cuts   ``edges``; on regions, a dense kernel's edges between all regions; ``cliques``
learning       as mean field, but ``messages`` need ``messages_gradient`` as well
=============  =================================================================================

``label_set_costs`` and ``unary_costs`` come before all of these: whoever uses a term adds them to
the energy's label costs and to its unary costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.pairwise.class_kernels import ClassKernels
from hybridseg.pairwise.contours import ContourTerm
from hybridseg.pairwise.dense import BilateralKernel, DenseKernel, FeatureKernel, GaussianKernel
from hybridseg.pairwise.edges import (
    EdgeGroup,
    EdgeTerm,
    EdgeWeights,
    edge_groups,
    join_groups,
    scaled_edges,
)
from hybridseg.pairwise.grid import GridTerm
from hybridseg.pairwise.higher_order.cliques import Cliques, CliqueTerm, join_cliques
from hybridseg.pairwise.higher_order.label_sets import CoOccurrence, LabelCosts
from hybridseg.pairwise.higher_order.superpixel_cliques import SuperpixelCliques
from hybridseg.pairwise.location import LocationPrior
from hybridseg.pairwise.regions import RegionTerm, kernel_edges
from hybridseg.pairwise.sites import Sites
from hybridseg.validation import check_number


@runtime_checkable
class HasCost(Protocol):
    """A term that computes its cost for a labeling."""

    def cost(self, sites: Sites, labels: NDArray[np.int64], matrix: NDArray[Any]) -> float:
        """Return the term's contribution to the energy.

        ``labels`` (*sites.shape,) are indices 0..L-1 where ``sites.counted``; ``matrix`` (L, L)
        is the cost of each pair of labels.
        """


@runtime_checkable
class HasEdges(Protocol):
    """A term that is a sum over edges of weight times compatibility of the labels at both ends."""

    def edges(self, sites: Sites) -> EdgeWeights:
        """Return weights in any form that :func:`hybridseg.pairwise.energy` takes."""


@runtime_checkable
class HasMessages(Protocol):
    """A term that computes the expected cost of each label, for mean field."""

    def messages(self, sites: Sites, marginals: NDArray[np.float32]) -> ArrayLike:
        """Return the expected cost of each label at each site, given the other sites' marginals.

        Both arrays are (*sites.shape, L). The result is the derivative of the term's expected cost
        with respect to the marginals. A constant added to all labels of a site has no effect.
        """


@runtime_checkable
class HasLabelSetCosts(Protocol):
    """A term that charges for the set of labels that occur, and for nothing else."""

    def label_set_costs(self, n_labels: int) -> ArrayLike:
        """Return the cost of each pair of labels that both occur, and of each label, (L, L).

        The matrix is symmetric; the costs of single labels are on the diagonal.
        """


@runtime_checkable
class HasUnaryCosts(Protocol):
    """A term that charges for the label of each site, and for nothing else."""

    def unary_costs(self, sites: Sites, n_labels: int) -> ArrayLike:
        """Return the costs (*sites.shape, L)."""


@runtime_checkable
class HasMessageGradient(HasMessages, Protocol):
    """A term whose messages can be differentiated, so that its factor can be learned."""

    def messages_gradient(
        self, sites: Sites, marginals: NDArray[np.float32], slopes: NDArray[np.float32]
    ) -> ArrayLike:
        """Return the gradient of a loss by the marginals, given that by the messages.

        All arrays are (*sites.shape, L). The result is the transposed Jacobian of ``messages`` at
        these marginals, applied to ``slopes``; it is 0 if the messages do not depend on the
        marginals. While learning, the sites may be those of a window of an image.
        """


@runtime_checkable
class HasCliques(Protocol):
    """A term that is a sum over sets of sites that should agree."""

    def cliques(self, sites: Sites) -> Cliques:
        """Return the cliques; their members are positions of pixels or numbers of regions."""


ABILITIES = (
    *(HasLabelSetCosts, HasUnaryCosts, HasCost, HasEdges, DenseKernel),
    *(HasMessages, HasMessageGradient, HasCliques),
)

#: The members of each protocol, as error messages spell them.
SPELLED = {
    HasLabelSetCosts: "label_set_costs(n_labels)",
    HasUnaryCosts: "unary_costs(sites, n_labels)",
    HasCost: "cost(sites, labels, matrix)",
    HasEdges: "edges(sites)",
    DenseKernel: "weight and embed(colors, spacing)",
    HasMessages: "messages(sites, marginals)",
    HasMessageGradient: "messages_gradient(sites, marginals, slopes)",
    HasCliques: "cliques(sites)",
}

_MEMBERS: dict[Any, tuple[str, ...]] = {
    HasLabelSetCosts: ("label_set_costs",),
    HasUnaryCosts: ("unary_costs",),
    HasCost: ("cost",),
    HasEdges: ("edges",),
    DenseKernel: ("weight", "embed"),
    HasMessages: ("messages",),
    HasMessageGradient: ("messages", "messages_gradient"),
    HasCliques: ("cliques",),
}


def can(term: Any, ability: Any) -> bool:
    """Return whether a term has an ability.

    The result is that of ``isinstance(term, ability)``. That call takes 20 microseconds for a
    protocol, which is longer than all other checks of a small energy together.
    """
    return all(hasattr(term, member) for member in _MEMBERS[ability])


def as_terms(terms: Any) -> tuple[Any, ...]:
    """Check the terms of an energy: a sequence of objects with at least one ability each.

    Raises
    ------
    TypeError
        ``terms`` is a single term, or an item is a class or has none of the abilities.
    """
    single = isinstance(terms, str) or any(can(terms, ability) for ability in ABILITIES)
    if single or not isinstance(terms, Iterable):
        raise TypeError(
            f"terms is a {type(terms).__name__}; expected a sequence of terms, such as "
            f"[GridTerm(2.0)]."
        )
    given = tuple(terms)
    for position, term in enumerate(given):
        if isinstance(term, type):
            raise TypeError(
                f"terms[{position}] is the class {term.__name__}; expected one of its instances, "
                f"such as {term.__name__}(...)."
            )
        if not any(can(term, ability) for ability in ABILITIES):
            raise TypeError(
                f"terms[{position}] is a {type(term).__name__}; expected a term: a GridTerm, a "
                f"RegionTerm, an EdgeTerm, a SuperpixelCliques, a kernel such as GaussianKernel, "
                f"or an object with "
                f"{', '.join(SPELLED.values())}."
            )
        if can(term, DenseKernel):
            check_number(term.weight, f"terms[{position}].weight", minimum=0)
    return given


def is_dense(term: Any, sites: Sites) -> bool:
    """Return whether a term joins all pairs of pixels, so that it needs a lattice filter."""
    return can(term, DenseKernel) and len(sites.shape) > 1


def has_edges(term: Any, sites: Sites) -> bool:
    """Return whether a term is a sum over edges; between regions, dense kernels are such sums."""
    return can(term, HasEdges) or (can(term, DenseKernel) and sites.regions is not None)


def has_cliques(term: Any, sites: Sites) -> bool:
    """Return whether a term is a sum over cliques, and neither over edges nor over all pairs."""
    return can(term, HasCliques) and not (has_edges(term, sites) or is_dense(term, sites))


def term_cliques(terms: Sequence[Any], sites: Sites) -> Cliques:
    """Return the checked cliques of all terms, without members that are not valid.

    Raises
    ------
    TypeError, ValueError
        A term has no :class:`Cliques`, or their members are no sites.
    """
    found = []
    for term in terms:
        own = term.cliques(sites)
        name = f"{type(term).__name__}.cliques(sites)"
        if not isinstance(own, Cliques):
            raise TypeError(f"{name} is a {type(own).__name__}; expected Cliques(...).")
        try:
            found.append(own.on(math.prod(sites.shape), sites.counted))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
    return join_cliques(found)


def term_edges(terms: Sequence[Any], sites: Sites) -> list[EdgeGroup]:
    """Return the checked edges of all terms; weights are 0 at pixels that are not valid.

    Edges with the same offset are added up. Dense kernels together make one list of edges between
    all pairs of regions.
    """
    lists = [_own_edges(term, sites) for term in terms if can(term, HasEdges)]
    kernels = [term for term in terms if not can(term, HasEdges) and term.weight > 0]
    if kernels:
        assert sites.regions is not None  # has_edges was true
        weights = kernel_edges(kernels, sites.regions, sites.colors, sites.spacing)
        lists.append(edge_groups(weights, sites.shape))
    return join_groups(lists)


def _own_edges(term: Any, sites: Sites) -> list[EdgeGroup]:
    weights = term.edges(sites)
    try:
        groups = edge_groups(weights, sites.shape)
    except (TypeError, ValueError) as error:
        if isinstance(term, EdgeTerm):  # the user passed its weights
            raise
        raise type(error)(f"{type(term).__name__}.edges(sites): {error}") from error
    counted = sites.counted
    if counted is None:
        return groups
    return [g._replace(weight=g.weight * (counted[g.p] & counted[g.q])) for g in groups]


def refuse_terms(terms: Sequence[Any], asker: str, ability: str, cure: str) -> None:
    """Raise an error that names the terms without the ability that is needed.

    Raises
    ------
    TypeError
        ``terms`` is not empty.
    """
    if not terms:
        return
    names = list(dict.fromkeys(type(term).__name__ for term in terms))
    lack = f"{names[0]} has none" if len(names) == 1 else f"{' and '.join(names)} have none"
    raise TypeError(f"{asker} needs {ability} of every term, but {lack}. {cure}")


#: What a scaled term has if its term has it.
_SCALED = {member for members in _MEMBERS.values() for member in members}


@dataclass(frozen=True, eq=False)
class ScaledTerm:
    """A term of any class times a factor; it has the abilities of that term.

    Attributes
    ----------
    term : Any
    factor : float
        At least 0.
    """

    term: Any
    factor: float

    def __getattr__(self, name: str) -> Any:
        if name not in _SCALED:
            raise AttributeError(f"ScaledTerm has no attribute {name!r}.")
        own = getattr(self.term, name)
        if name == "embed":
            return own
        if name == "weight":
            return self.factor * float(own)
        if name == "edges":
            return lambda sites: scaled_edges(own(sites), self.factor)
        if name == "cliques":
            return lambda sites: own(sites).scaled(self.factor)
        return lambda *args: self.factor * np.asarray(own(*args))


#: The terms whose costs are proportional to their parameter ``weight``.
_WEIGHTED = (
    *(GridTerm, RegionTerm, ContourTerm, SuperpixelCliques, CoOccurrence, LabelCosts),
    *(LocationPrior, ClassKernels),
    *(GaussianKernel, BilateralKernel, FeatureKernel),
)


def scaled(term: Any, factor: float) -> Any:
    """Return the term whose cost is ``factor`` times that of the given one."""
    factor = float(factor)
    if isinstance(term, _WEIGHTED):
        return replace(term, weight=factor * float(term.weight))
    if isinstance(term, CliqueTerm):
        return CliqueTerm(term.of.scaled(factor))
    if isinstance(term, EdgeTerm):
        return EdgeTerm(scaled_edges(term.weights, factor))
    if isinstance(term, ScaledTerm):
        return ScaledTerm(term.term, factor * term.factor)
    return ScaledTerm(term, factor)
