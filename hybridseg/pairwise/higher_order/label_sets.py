"""Costs of the set of labels that occur in an image: label costs and co-occurrence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.pairwise.higher_order.presence import (
    PresenceCosts,
    as_presence_costs,
    presence_gradient,
    presence_messages,
)
from hybridseg.pairwise.indexed_maps import indexed_maps
from hybridseg.pairwise.labels import as_label_costs
from hybridseg.pairwise.sites import Sites
from hybridseg.validation import check_magnitude, check_number

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]


class _Messages:
    """The messages of a term with ``label_set_costs(n_labels)``."""

    def label_set_costs(self, n_labels: int) -> NDArray[Any]:
        """Return the costs of labels and pairs, (L, L)."""
        raise TypeError(f"{type(self).__name__} lacks label_set_costs(n_labels).")

    def messages(self, sites: Sites, marginals: NDArray[np.float32]) -> Singles:
        """Return the derivative of the expected cost by the marginals, (*sites.shape, L)."""
        return self._of_rows(sites, presence_messages, marginals)

    def messages_gradient(
        self, sites: Sites, marginals: NDArray[np.float32], slopes: NDArray[Any]
    ) -> Singles:
        """Return the derivative of ``sum(slopes * messages)`` by the marginals."""
        return self._of_rows(sites, presence_gradient, marginals, slopes)

    def _of_rows(
        self, sites: Sites, compute: Callable[..., Singles], *arrays: NDArray[Any]
    ) -> Singles:
        """Compute from the rows of sites that count; 0 elsewhere."""
        n_labels = arrays[0].shape[-1]
        costs = PresenceCosts.of(None, [self], n_labels)
        seen = slice(None) if sites.counted is None else sites.counted
        found = np.zeros(arrays[0].shape, np.float32)
        rows = compute(*(array[seen].reshape(-1, n_labels) for array in arrays), costs)
        found[seen] = rows.reshape(found[seen].shape)
        return found


@dataclass(frozen=True, eq=False)
class CoOccurrence(_Messages):
    r"""A term that charges for the labels that occur in an image, and for their pairs.

    .. math:: E(y) = \text{weight} \Big( \sum_{l \in S(y)} c_{ll}
              + \sum_{\{l, m\} \subseteq S(y),\, l \ne m} c_{lm} \Big)

    where S(y) is the set of labels that occur at any valid site [1]_. Each cost is paid once for an
    image, no matter how many sites have the label. The term removes labels that few sites want, and
    labels that do not belong beside the others: no cow in a kitchen. All solvers take it.

    Parameters
    ----------
    costs : array-like, (L, L)
        Symmetric. Entry (l, m) is paid if the labels l and m both occur, and entry (l, l) if the
        label l occurs. Cuts need costs >= 0. :meth:`from_label_maps` estimates them.
    weight : float, default=1.0
        The factor of all costs. Costs of sites are summed over the pixels of an image, and errors
        of neighboring pixels are not independent, so that costs learned as log-probabilities need a
        large weight: about the number of pixels of a wrong region that one unit of cost shall
        remove, divided by the mean margin of its costs. Try 10 to 10000 on held-out images.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    See Also
    --------
    LabelCosts : The same without pairs.

    Notes
    -----
    Mean field [2]_ takes the occurrences of two labels as independent events, so that the expected
    cost is a sum of products of probabilities:

    .. math:: P_l = 1 - \prod_i (1 - Q_i(l)), \qquad
              \mathbb{E} = \sum_l c_{ll} P_l + \sum_{l < m} c_{lm} P_l P_m

    Two labels compete for sites, so they occur together less often than that: for costs >= 0, it is
    an upper bound. A message is small as long as several other sites may have the label. Mean field
    therefore removes labels that are nearly gone, and cuts remove larger ones.

    The set of labels is a property of the whole image. ``CRF(learn=...)`` with the setting
    ``max_pixels`` of its Learner sees windows of large images, and in a window fewer labels
    occur. A weight that is learned there is then too small for whole images; learn on whole images
    (``max_pixels`` at least their size) or on regions.

    References
    ----------
    .. [1] L. Ladicky, C. Russell, P. Kohli, P. H. S. Torr, "Graph cut based inference with
       co-occurrence statistics", ECCV, 2010.
    .. [2] V. Vineet, J. Warrell, P. H. S. Torr, "Filter-based mean-field inference for random
       fields with higher-order terms and product label-spaces", IJCV 110, 2014, section 3.2.

    Examples
    --------
    Label 2 is the cheapest at one pixel, but it does not occur beside label 0:

    >>> import numpy as np
    >>> from hybridseg.inference import solve_cuts
    >>> from hybridseg.pairwise import CoOccurrence, Energy
    >>> unary = np.array([[[0, 9, 9], [0, 9, 9], [9, 3, 1]]])  # one row of three pixels
    >>> solve_cuts(Energy(unary)).labels.tolist()
    [[0, 0, 2]]
    >>> apart = CoOccurrence([[0, 0, 5], [0, 0, 0], [5, 0, 0]])
    >>> solve_cuts(Energy(unary, [apart])).labels.tolist()
    [[0, 0, 1]]
    """

    costs: ArrayLike
    weight: float = 1.0

    def __post_init__(self) -> None:
        as_presence_costs(self.costs, "costs")
        check_number(self.weight, "weight", minimum=0)

    @classmethod
    def from_label_maps(
        cls,
        y: Any,
        classes: ArrayLike,
        *,
        weight: float = 1.0,
        prior: float = 1.0,
        label_costs: bool = True,
        ignore_label: int | None = None,
    ) -> Self:
        r"""Estimate the costs from label maps, as negative logarithms of frequencies.

        With n images, of which :math:`n_l` hold label l and :math:`n_{lm}` hold both l and m, and
        with the prior a,

        .. math:: c_{ll} = -\log \frac{n_l + a}{n + a}, \qquad
                  c_{lm} = \max\left(0,\, -\log \frac{n_{lm} + a}{n_l n_m / n + a}\right)

        The second fraction compares the number of images that hold both labels with the number
        expected of independent labels. Pairs that occur together more often than that cost nothing,
        because cuts need costs >= 0.

        Parameters
        ----------
        y : sequence of label maps or paths
            One for each image; negative values are void. They may differ in size.
        classes : array-like of int, (L,)
            The label values, such as ``classes_`` of a segmenter. The costs are in their sorted
            order.
        weight : float, default=1.0
            That of the term. The costs are in nats for each image: between 0 and
            log(1 + n / prior).
        prior : float, default=1.0
            The number of images that is added to both counts, > 0. The larger it is, the weaker are
            costs that few images support.
        label_costs : bool, default=True
            Whether single labels have costs. If not, the diagonal is 0; add :class:`LabelCosts` for
            a weight of its own.
        ignore_label : int, optional
            One more value that means void, such as 255.

        Returns
        -------
        CoOccurrence

        Raises
        ------
        TypeError, ValueError
            An argument is not as described, or a map holds a value that is not in ``classes``.

        Examples
        --------
        >>> import numpy as np
        >>> from hybridseg.pairwise import CoOccurrence
        >>> maps = [np.array([[0, 1]])] * 6 + [np.array([[2, 1]])] * 3
        >>> CoOccurrence.from_label_maps(maps, classes=[0, 1, 2]).label_set_costs(3).round(2)
        array([[0.36, 0.  , 1.1 ],
               [0.  , 0.  , 0.  ],
               [1.1 , 0.  , 0.92]])
        """
        check_number(prior, "prior", minimum=0, strict=True)
        present = label_presence(y, classes, ignore_label=ignore_label).astype(np.float64)
        own = present.sum(axis=0)
        both = present.T @ present
        expected = np.outer(own, own) / max(1, len(present))
        costs = np.maximum(0.0, np.log((expected + prior) / (both + prior)))
        np.fill_diagonal(costs, _costs_of_presence(present, prior) if label_costs else 0.0)
        return cls(costs, weight)

    def label_set_costs(self, n_labels: int) -> NDArray[Any]:
        """Return weight times costs, (L, L); integers if the weight is a whole number."""
        return _times(as_presence_costs(self.costs, "costs", n_labels), self.weight)


@dataclass(frozen=True, eq=False)
class LabelCosts(_Messages):
    """A term that charges for each label that occurs in an image, once [1]_.

    It equals ``label_costs`` of :class:`Energy`, with a weight that can be learned, and
    :class:`CoOccurrence` with a diagonal matrix; see there for the weight and for the limits of
    learning on windows. All solvers take it.

    Parameters
    ----------
    costs : array-like, (L,)
        The cost of each label, paid once if the label occurs at any valid site. Cuts need costs
        >= 0.
    weight : float, default=1.0
        The factor of all costs.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    References
    ----------
    .. [1] A. Delong, A. Osokin, H. N. Isack, Y. Boykov, "Fast approximate energy minimization with
       label costs", International Journal of Computer Vision 96, 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import solve_cuts
    >>> from hybridseg.pairwise import Energy, LabelCosts
    >>> unary = np.array([[[0, 9], [0, 9], [2, 1]]])  # one row of three pixels
    >>> solve_cuts(Energy(unary, [LabelCosts([0, 5])])).labels.tolist()
    [[0, 0, 0]]
    """

    costs: ArrayLike
    weight: float = 1.0

    def __post_init__(self) -> None:
        as_label_costs(self.costs, np.size(self.costs), name="costs")
        check_number(self.weight, "weight", minimum=0)

    @classmethod
    def from_label_maps(
        cls,
        y: Any,
        classes: ArrayLike,
        *,
        weight: float = 1.0,
        prior: float = 1.0,
        ignore_label: int | None = None,
    ) -> Self:
        """Estimate the costs from label maps, as :meth:`CoOccurrence.from_label_maps` does.

        Parameters
        ----------
        y, classes, weight, prior, ignore_label
            As there.

        Returns
        -------
        LabelCosts

        Raises
        ------
        TypeError, ValueError
            An argument is not as described, or a map holds a value that is not in ``classes``.

        Examples
        --------
        >>> import numpy as np
        >>> from hybridseg.pairwise import LabelCosts
        >>> maps = [np.array([[0, 1]])] * 6 + [np.array([[2, 1]])] * 3
        >>> LabelCosts.from_label_maps(maps, classes=[0, 1, 2]).costs.round(2)
        array([0.36, 0.  , 0.92])
        """
        check_number(prior, "prior", minimum=0, strict=True)
        present = label_presence(y, classes, ignore_label=ignore_label).astype(np.float64)
        return cls(_costs_of_presence(present, prior), weight)

    def label_set_costs(self, n_labels: int) -> NDArray[Any]:
        """Return weight times costs as a diagonal, (L, L); integers if the weight is whole."""
        return _times(np.diag(as_label_costs(self.costs, n_labels, name="costs")), self.weight)


def label_presence(
    y: Any, classes: ArrayLike, *, ignore_label: int | None = None
) -> NDArray[np.bool_]:
    """Return which label occurs in which label map, (N, L); reads one map at a time.

    Raises
    ------
    TypeError, ValueError
        ``y`` is not a sequence of label maps, or a map holds a value that is not in ``classes``.
    """
    n_maps, n_labels, maps = indexed_maps(y, classes, ignore_label=ignore_label)
    present = np.zeros((n_maps, n_labels), bool)
    for i, labels in enumerate(maps):
        present[i, np.unique(labels[labels >= 0])] = True
    return present


def _costs_of_presence(present: Doubles, prior: float) -> Doubles:
    costs: Doubles = np.log((len(present) + prior) / (present.sum(axis=0) + prior))
    return costs


def _times(costs: NDArray[Any], weight: float) -> NDArray[Any]:
    """Return the product; whole weights keep integers, unless int64 overflows."""
    if costs.dtype.kind == "i" and float(weight).is_integer():
        largest = max(-int(costs.min()), int(costs.max()))
        if largest * int(weight) < 2**63:
            return costs * int(weight)
    with np.errstate(over="ignore"):  # refused below
        product = costs * float(weight)
    check_magnitude(product, "weight * costs", largest=np.finfo(np.float64).max)
    return product
