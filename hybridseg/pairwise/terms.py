"""What a term can do: four abilities, each a small protocol, and how solvers ask for them.

A term is any object with at least one of them. Solvers and the judge take the first that serves:

=============  =================================================================================
asks           in this order
=============  =================================================================================
the judge      ``cost``; the sum over ``edges``; the sum over all pairs of a dense kernel
mean field     the lattices of a dense kernel; ``edges``; ``messages``
minimum cuts   ``edges``; on regions, a dense kernel's edges between all regions
=============  =================================================================================
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.pairwise.dense import DenseKernel
from hybridseg.pairwise.edges import EdgeGroup, EdgeTerm, EdgeWeights, edge_groups, join_groups
from hybridseg.pairwise.regions import kernel_edges
from hybridseg.pairwise.sites import Sites
from hybridseg.validation import check_number


@runtime_checkable
class HasCost(Protocol):
    """A term that knows what a labelling costs."""

    def cost(self, sites: Sites, labels: NDArray[np.int64], matrix: NDArray[Any]) -> float:
        """The term's part of the energy.

        ``labels`` (*sites.shape,) are indices 0..L-1 where ``sites.counted``; ``matrix`` (L, L)
        is the cost of each pair of labels.
        """


@runtime_checkable
class HasEdges(Protocol):
    """A term that is a sum over edges: a weight times the cost of the two labels at its ends."""

    def edges(self, sites: Sites) -> EdgeWeights:
        """Weights in any form that :func:`hybridseg.pairwise.energy` takes for ``sites.shape``."""


@runtime_checkable
class HasMessages(Protocol):
    """A term that can tell mean field what each label is expected to cost."""

    def messages(self, sites: Sites, marginals: NDArray[np.float32]) -> ArrayLike:
        """What each label at each site costs in expectation, given the marginals of the others.

        Both arrays are (*sites.shape, L). It is the derivative of the term's expected cost by the
        marginal; what all labels of a site have in common does not count.
        """


ABILITIES = (HasCost, HasEdges, DenseKernel, HasMessages)

#: What the protocols ask for, as error messages name it.
SPELLED = {
    HasCost: "cost(sites, labels, matrix)",
    HasEdges: "edges(sites)",
    DenseKernel: "weight and embed(colors, spacing)",
    HasMessages: "messages(sites, marginals)",
}


def as_terms(terms: Any) -> tuple[Any, ...]:
    """Check the terms of an energy: a sequence of objects with at least one ability each.

    Raises
    ------
    TypeError
        A single term, a class instead of an instance, or an object without any ability.
    """
    if isinstance(terms, (str, *ABILITIES)) or not isinstance(terms, Iterable):
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
        if not isinstance(term, ABILITIES):
            raise TypeError(
                f"terms[{position}] is a {type(term).__name__}; expected a term: a GridTerm, a "
                f"RegionTerm, an EdgeTerm, a kernel such as GaussianKernel, or an object with "
                f"{', '.join(SPELLED.values())}."
            )
        if isinstance(term, DenseKernel):
            check_number(term.weight, f"terms[{position}].weight", minimum=0)
    return given


def is_dense(term: Any, sites: Sites) -> bool:
    """Whether a term joins every pixel with every other, so that lattices have to filter it."""
    return isinstance(term, DenseKernel) and len(sites.shape) > 1


def has_edges(term: Any, sites: Sites) -> bool:
    """Whether a term is a sum over edges, or becomes one between regions."""
    return isinstance(term, HasEdges) or (
        isinstance(term, DenseKernel) and sites.regions is not None
    )


def term_edges(terms: Sequence[Any], sites: Sites) -> list[EdgeGroup]:
    """The checked edges of all terms, those with the same offset added up; 0 where not valid.

    Dense kernels are put between all pairs of regions together.
    """
    lists = [_own_edges(term, sites) for term in terms if isinstance(term, HasEdges)]
    kernels = [term for term in terms if not isinstance(term, HasEdges) and term.weight > 0]
    if kernels:
        assert sites.regions is not None  # has_edges has said so
        weights = kernel_edges(kernels, sites.regions, sites.colors, sites.spacing)
        lists.append(edge_groups(weights, sites.shape))
    return join_groups(lists)


def _own_edges(term: Any, sites: Sites) -> list[EdgeGroup]:
    weights = term.edges(sites)
    try:
        groups = edge_groups(weights, sites.shape)
    except (TypeError, ValueError) as error:
        if isinstance(term, EdgeTerm):  # its weights are an argument of the user's
            raise
        raise type(error)(f"{type(term).__name__}.edges(sites): {error}") from error
    counted = sites.counted
    if counted is None:
        return groups
    return [g._replace(weight=g.weight * (counted[g.p] & counted[g.q])) for g in groups]


def refuse_terms(terms: Sequence[Any], asker: str, ability: str, cure: str) -> None:
    """Say which terms lack what a solver or the judge needs, if there are any.

    Raises
    ------
    TypeError
        ``terms`` is not empty.
    """
    if not terms:
        return
    names = ", ".join(dict.fromkeys(type(term).__name__ for term in terms))
    raise TypeError(f"{asker} needs of every term {ability}, which {names} lacks. {cure}")
