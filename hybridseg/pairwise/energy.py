"""The energy of a labeling: the function that all solvers minimize."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.arguments import read_only
from hybridseg.pairwise.compatibility import as_compatibility
from hybridseg.pairwise.dense import (
    DenseKernel,
    dense_kernels,
    dense_widths,
    pair_cost,
    valid_features,
)
from hybridseg.pairwise.edges import EdgeGroup, EdgeTerm, EdgeWeights
from hybridseg.pairwise.higher_order.cliques import Cliques
from hybridseg.pairwise.higher_order.presence import PresenceCosts
from hybridseg.pairwise.labels import as_label_costs, as_label_indices, as_seeds
from hybridseg.pairwise.location import with_unary_costs
from hybridseg.pairwise.sites import Sites
from hybridseg.pairwise.sums import exact_sum, exact_sum_of_products
from hybridseg.pairwise.terms import (
    HasCost,
    HasLabelSetCosts,
    HasUnaryCosts,
    as_terms,
    can,
    has_cliques,
    has_edges,
    is_dense,
    refuse_terms,
    term_cliques,
    term_edges,
)
from hybridseg.space import Width
from hybridseg.validation import (
    IntensityRange,
    as_costs,
    as_image,
    as_label_map,
    as_mask,
    as_numbers,
    check_number,
    only_valid,
)

Spacing = Sequence[float] | float | None


@dataclass(frozen=True, eq=False, repr=False)
class Energy:
    r"""The energy of a labeling problem: costs of sites, terms and labels, checked once.

    .. math:: E(y) = \sum_i u_i(y_i) + \sum_t E_t(y) + \sum_{l\,\text{present}} c_l

    :func:`hybridseg.inference.solve_mean_field` approximates the marginals of the CRF with this
    energy, :func:`hybridseg.inference.solve_cuts` finds one labeling of low energy and a lower
    bound, and :meth:`energy` evaluates any labeling. Label costs are those of [1]_, dense kernels
    those of [2]_. Arrays are not copied: do not change them while the Energy is in use.

    Parameters
    ----------
    unary : array-like, (H, W, L), (D, H, W, L), or (R, L) for regions
        The cost of each label at each site, lower is better. Integers stay integers.
    terms : sequence of terms, default=()
        The costs that depend on several sites: :class:`GridTerm`, :class:`RegionTerm`,
        :class:`EdgeTerm`, the kernels :class:`GaussianKernel`, :class:`BilateralKernel` and
        :class:`FeatureKernel`, :class:`SuperpixelCliques`, :class:`CliqueTerm`,
        :class:`LabelCosts`, :class:`CoOccurrence`, :class:`LocationPrior`, or any objects with one
        of the abilities in :mod:`hybridseg.pairwise.terms`.
    image : array-like, (*spatial[, C]), or Colors, optional
        The image that terms read. Kernels and terms with a contrast need it.
    compatibility : "potts" or array-like, (L, L), default="potts"
        The cost of each pair of labels; it is multiplied by the weight of an edge. See
        :func:`as_compatibility`.
    label_costs : array-like, (L,), optional
        The cost of each label, paid once if the label occurs at any valid site.
    seeds : array-like of int, (*shape,), optional
        Labels that are certain, as indices 0..L-1; negative where unknown. Solvers keep them. They
        do not change the energy of a labeling.
    valid : array-like of bool, (*spatial,), optional
        Where False, a pixel has no cost and influences no other; its costs may be NaN. With
        ``regions``, it belongs to no region; the costs of a region without pixels still count.
    spacing : float or sequence of float, optional
        The distance between neighboring pixels along each axis. Default: 1.
    intensity_range : {"dtype", "image"} or (low, high), default="dtype"
        How the image's values become colors; see :func:`hybridseg.validation.as_colors`. An image
        that is given as :class:`hybridseg.validation.Colors` is not converted.
    regions : array-like of int, (*spatial,), optional
        If ``unary`` is (R, L): the number 0..R-1 of each pixel's region, negative outside of all
        regions. Terms that read the image need it.

    Attributes
    ----------
    unary : ndarray of float32, float64 or int64, (*shape, L)
        C-contiguous; 0 where not valid.
    terms : tuple
    compatibility : "potts", or ndarray of int64 or float64, (L, L)
    label_costs : ndarray of int64 or float64, (L,), or None
    seeds : ndarray of int64, (*shape,), or None
        -1 where unknown and where not valid.
    sites : Sites
        The data that terms may read: shape, colors, spacing, valid pixels, regions.

    Raises
    ------
    TypeError, ValueError
        An argument does not fit its description, or does not fit the others.

    References
    ----------
    .. [1] A. Delong, A. Osokin, H. N. Isack, Y. Boykov, "Fast approximate energy minimization with
       label costs", International Journal of Computer Vision 96, 2012.
    .. [2] P. Krähenbühl, V. Koltun, "Efficient inference in fully connected CRFs with Gaussian
       edge potentials", NIPS, 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.pairwise import Energy, GridTerm
    >>> unary = np.array([[[0, 9], [5, 4], [0, 9]]])  # one row of three pixels
    >>> energy = Energy(unary, [GridTerm(2.0, contrast=None)], label_costs=[1, 3])
    >>> energy.energy([[0, 0, 0]]), energy.energy([[0, 1, 0]])
    (6.0, 12.0)
    """

    unary: Any
    terms: Sequence[Any] = ()
    image: Any = field(default=None, kw_only=True)
    compatibility: Any = field(default="potts", kw_only=True)
    label_costs: Any = field(default=None, kw_only=True)
    seeds: Any = field(default=None, kw_only=True)
    valid: Any = field(default=None, kw_only=True)
    spacing: Spacing = field(default=None, kw_only=True)
    intensity_range: IntensityRange = field(default="dtype", kw_only=True)
    regions: Any = field(default=None, kw_only=True)
    sites: Sites = field(init=False)

    def __post_init__(self) -> None:
        terms = as_terms(self.terms)
        costs = self._checked_costs()
        shape, n_labels = costs.shape[:-1], costs.shape[-1]
        given = self.image, self.intensity_range, self.spacing, self.valid, self.regions
        sites = Sites.of(shape, *given)
        costs_of_labels = self.label_costs
        if costs_of_labels is not None:
            costs_of_labels = as_label_costs(costs_of_labels, n_labels)
        seeds = None if self.seeds is None else as_seeds(self.seeds, shape, n_labels)
        if seeds is not None and sites.counted is not None:
            seeds[~sites.counted] = -1
        checked = {
            "unary": costs,
            "terms": terms,
            "compatibility": _as_matrix(self.compatibility, n_labels),
            "label_costs": costs_of_labels,
            "seeds": seeds,
            "valid": sites.valid,
            "spacing": sites.spacing,
            "regions": sites.regions,
            "sites": sites,
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        what = "regions" if self.regions is not None else "sites"
        size = " x ".join(map(str, self.shape))
        return f"Energy({size} {what}, {self.n_labels} labels, terms={self.terms})"

    def with_terms(self, terms: Sequence[Any]) -> Self:
        """Return the same energy with other terms; both share the colors of the image.

        Raises
        ------
        TypeError
            ``terms`` is not a sequence of terms.
        """
        changed = copy.copy(self)
        for name in ("edges", "presence_costs", "cliques", "total_unary"):
            vars(changed).pop(name, None)
        object.__setattr__(changed, "terms", as_terms(terms))
        return changed

    def _checked_costs(self) -> NDArray[Any]:
        unary = self.unary
        on_pixels = self.regions is None
        if self.valid is not None and on_pixels:
            unary = as_numbers(unary, "unary", expected="real costs (..., L)")
            unary = only_valid(unary, as_mask(self.valid, unary.shape[:-1]))
        costs = as_costs(unary, keep_double=True, keep_integer=True)
        if self.image is None or not on_pixels:
            return costs
        if costs.ndim not in (3, 4):
            raise ValueError(
                f"unary has shape {costs.shape}; expected costs (H, W, L) or (D, H, W, L): reshape "
                f"it to the image's axes and one more for the labels. With costs (R, L) of "
                f"regions, pass regions=map as well as the image."
            )
        shape = as_image(self.image, spatial_ndim=costs.ndim - 1).shape[:-1]
        if costs.shape[:-1] != shape:  # raises the error; the values are checked already
            return as_costs(costs, spatial_shape=shape)
        return costs

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a labeling."""
        return self.sites.shape

    @property
    def n_labels(self) -> int:
        """The number of labels, L."""
        return int(self.unary.shape[-1])

    @property
    def matrix(self) -> NDArray[Any]:
        """The cost of each pair of labels, (L, L), also for Potts."""
        return as_compatibility(self.compatibility, self.n_labels)

    @cached_property
    def edges(self) -> list[EdgeGroup]:
        """The edges of all terms that have edges; those with the same offset are added up."""
        terms = [term for term in self.local_terms if has_edges(term, self.sites)]
        return term_edges(terms, self.sites)

    @property
    def local_terms(self) -> list[Any]:
        """The terms that charge for several sites, but not for the set of labels that occur."""
        apart = HasLabelSetCosts, HasUnaryCosts
        return [term for term in self.terms if not any(can(term, ability) for ability in apart)]

    @cached_property
    def total_unary(self) -> NDArray[Any]:
        """``unary`` and the costs that terms add at each site, (*shape, L)."""
        terms = [term for term in self.terms if can(term, HasUnaryCosts)]
        return with_unary_costs(self.unary, terms, self.sites)

    @cached_property
    def presence_costs(self) -> PresenceCosts | None:
        """The costs of the set of labels that occur: ``label_costs`` and those of all terms."""
        terms = [term for term in self.terms if can(term, HasLabelSetCosts)]
        return PresenceCosts.of(self.label_costs, terms, self.n_labels)

    @cached_property
    def cliques(self) -> Cliques:
        """The cliques of all terms that have cliques, between valid sites."""
        terms = [term for term in self.local_terms if has_cliques(term, self.sites)]
        return term_cliques(terms, self.sites)

    def cheapest(self) -> NDArray[np.int32]:
        """Return the label of least cost at each site, or its seed: a start for solvers."""
        labels = self.total_unary.argmin(axis=-1)
        chosen = labels if self.seeds is None else np.where(self.seeds >= 0, self.seeds, labels)
        return chosen.astype(np.int32)

    def energy(self, labels: ArrayLike) -> float:
        """Return the energy of a labeling, summed in 64 bits, or exactly if all are integers.

        Dense kernels are computed exactly between all pairs of pixels, so the time grows with the
        square of the number of pixels; see :func:`dense_energy`.

        Parameters
        ----------
        labels : array-like of int, (*shape,)
            Indices 0..L-1 at every (valid) site.

        Returns
        -------
        float

        Raises
        ------
        TypeError, ValueError
            The labels do not fit, the sum of floats overflows float64, or a term has neither a
            cost, nor edges, nor cliques.
        """
        indices = self._indices(labels)
        total: int | float = 0
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            for part in self._parts(indices):
                total += part
        if not np.isfinite(float(total)):
            raise ValueError(
                "unary, weights and label_costs hold costs whose sum overflows float64; divide "
                "unary and all weights by a common factor."
            )
        return float(total)

    def cost_of_labels(self, labels: NDArray[Any]) -> int | float:
        """Return the costs of the set of labels that occur in a checked labeling."""
        if self.presence_costs is None:
            return 0
        counted = self.sites.counted
        present = np.unique(labels if counted is None else labels[counted])
        return self.presence_costs.of_set(present)

    def _indices(self, labels: ArrayLike) -> NDArray[np.int64]:
        counted = self.sites.counted
        if counted is None and self.image is None:
            return as_label_indices(labels, self.shape, self.n_labels)
        indices = as_label_map(labels, shape=self.shape)
        chosen = indices if counted is None else indices[counted]
        if chosen.size and not 0 <= chosen.min() <= chosen.max() < self.n_labels:
            raise ValueError(
                f"labels run from {chosen.min()} to {chosen.max()} at valid pixels; expected "
                f"indices 0..{self.n_labels - 1} into the last axis of unary (leave pixels out "
                f"with valid=mask)."
            )
        return indices if counted is None else np.where(counted, indices, 0)

    def _parts(self, indices: NDArray[np.int64]) -> Iterator[int | float]:
        """Yield the costs of the sites, of the edges, of the other terms, and of the labels."""
        sites = self.sites
        telling = [term for term in self.local_terms if can(term, HasCost)]
        rest = [term for term in self.local_terms if not can(term, HasCost)]
        edged = [term for term in rest if has_edges(term, sites)]
        others = [term for term in rest if not has_edges(term, sites)]
        kernels = [term for term in others if is_dense(term, sites)]
        cliqued = [term for term in others if has_cliques(term, sites)]
        refuse_terms(
            [term for term in others if not (is_dense(term, sites) or has_cliques(term, sites))],
            *("energy(labels)", "cost(sites, labels, matrix), edges(sites) or cliques(sites)"),
            "Give its class a method cost.",
        )
        paid = np.take_along_axis(self.total_unary, indices[..., np.newaxis], axis=-1)
        yield exact_sum(paid if sites.counted is None else paid[sites.counted])
        groups = term_edges(edged, sites) if telling else self.edges
        yield sum(self._cost_of_edges(group, indices) for group in groups)
        yield from (self._cost_of_kernel(kernel, indices) for kernel in kernels)
        if cliqued:
            cliques = term_cliques(cliqued, sites) if telling else self.cliques
            yield cliques.cost(indices.ravel(), self.n_labels)
        yield from (self._own_cost(term, indices) for term in telling)
        yield self.cost_of_labels(indices)

    def _own_cost(self, term: Any, indices: NDArray[np.int64]) -> float:
        name = f"the result of {type(term).__name__}.cost(sites, labels, matrix)"
        cost = term.cost(self.sites, read_only(indices), self.matrix)
        return float(check_number(cost, name, largest=float(np.finfo(np.float64).max)))

    def _cost_of_edges(self, group: EdgeGroup, indices: NDArray[np.int64]) -> int | float:
        one, other = indices[group.p], indices[group.q]
        if isinstance(self.compatibility, str):
            return exact_sum(group.weight, where=one != other)
        return exact_sum_of_products(group.weight, self.compatibility[one, other])

    def _cost_of_kernel(self, kernel: DenseKernel, indices: NDArray[np.int64]) -> float:
        valid = self.sites.valid
        features = valid_features(kernel, self.sites.colors, self.spacing, valid)
        chosen = indices.ravel() if valid is None else indices[valid]
        matrix = self.matrix.astype(np.float64)
        return kernel.weight * pair_cost(features.astype(np.float64), chosen, matrix)


def energy(
    labels: ArrayLike,
    unary: ArrayLike,
    weights: EdgeWeights,
    *,
    compatibility: str | ArrayLike = "potts",
    label_costs: ArrayLike | None = None,
) -> float:
    r"""Return the energy of a labeling, summed in 64 bits, or exactly if all are integers.

    .. math:: E(y) = \sum_i u_i(y_i) + \sum_{(i, j)} w_{ij}\, \mu(y_i, y_j)
              + \sum_{l\,\text{present}} c_l

    Parameters
    ----------
    labels : array-like of int, (*spatial,) or (R,)
        The index 0..L-1 of the label of each pixel or region.
    unary : array-like, (*spatial, L), or (R, L) for a region graph
        The cost of each label, lower is better.
    weights : sequence of arrays, {offset: array}, or (i, j, w)
        The weight of each edge; each edge counts once. For an image, one array per axis, shaped
        like the image but one shorter along that axis; or, for diagonal neighbors, a mapping such
        as :func:`hybridseg.pairwise.grid_weights` returns. For a region graph, an edge list.
    compatibility : "potts" or array-like, (L, L)
        The cost of each pair of labels, multiplied by the edge's weight; "potts" is 1 for two
        different labels.
    label_costs : array-like, (L,), optional
        The cost of each label, paid once if the label occurs.

    Returns
    -------
    float
        Integers are summed exactly; the sum is then rounded to a float.

    Raises
    ------
    TypeError, ValueError
        The shapes do not fit, a value is not finite, a label is outside 0..L-1, or the sum of
        floats overflows float64.

    Examples
    --------
    >>> from hybridseg.pairwise import energy
    >>> unary = [[0, 4], [3, 1]]  # two regions, two labels
    >>> energy([0, 1], unary, ([0], [1], [2]))
    3.0
    >>> energy([0, 0], unary, ([0], [1], [2]))
    3.0
    """
    return Energy(
        unary, [EdgeTerm(weights)], compatibility=compatibility, label_costs=label_costs
    ).energy(labels)


def dense_energy(
    labels: ArrayLike,
    unary: ArrayLike,
    image: ArrayLike,
    *,
    spatial_weight: float = 3.0,
    spatial_width: Width = "auto",
    bilateral_weight: float = 10.0,
    bilateral_width: Width = "auto",
    bilateral_color: float = 13.0,
    compatibility: str | ArrayLike = "potts",
    kernels: Iterable[DenseKernel] = (),
    intensity_range: IntensityRange = "dtype",
    spacing: Spacing = None,
    valid: ArrayLike | None = None,
) -> float:
    """Return the exact energy of a labeling under the fully connected CRF, in 64 bits.

    Use it to evaluate results of :func:`hybridseg.inference.mean_field`. The Gaussian kernels [1]_
    have the same normalization, but are computed exactly, without a lattice. Every pair of pixels
    is visited twice (once for the normalization), so the time grows with the square of the number
    of pixels: about 2 seconds for 64 x 64 pixels with the two default kernels, and minutes for
    200 x 200. Crop or shrink large images. Memory stays below 300 MB plus 8 bytes per pixel and
    label.

    Parameters
    ----------
    labels : array-like of int, (*spatial,)
        Indices 0..L-1 into the last axis of ``unary``, at every valid pixel.
    unary : array-like, (*spatial, L)
        The cost of each label at each pixel.
    image : array-like, (*spatial[, C])
        The image whose colors the bilateral kernel compares.
    spatial_weight, spatial_width, bilateral_weight, bilateral_width, bilateral_color, \
compatibility, kernels, intensity_range, spacing, valid
        As in :func:`hybridseg.inference.mean_field`.

    Returns
    -------
    float
        ``sum_i unary_i(x_i) + sum_(i<j) mu(x_i, x_j) sum_m w_m k_m(f_i, f_j) / sqrt(n_i n_j)``

    Raises
    ------
    TypeError, ValueError
        A label lies outside 0..L-1 at a valid pixel, or another argument does not fit.

    References
    ----------
    .. [1] P. Krähenbühl, V. Koltun, "Efficient inference in fully connected CRFs with Gaussian
       edge potentials", NIPS, 2011, equations 1 to 3.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.pairwise import dense_energy
    >>> image = np.zeros((4, 5), np.uint8)
    >>> unary = np.zeros((4, 5, 2))
    >>> smooth = np.zeros((4, 5), int)
    >>> checked = np.indices((4, 5)).sum(axis=0) % 2
    >>> dense_energy(smooth, unary, image) < dense_energy(checked, unary, image)
    True
    """
    energy = Energy(
        unary,
        image=image,
        compatibility=compatibility,
        valid=valid,
        spacing=spacing,
        intensity_range=intensity_range,
    )
    widths = dense_widths(spatial_width, bilateral_width, spacing, len(energy.shape))
    terms = dense_kernels(
        spatial_weight, widths[0], bilateral_weight, widths[1], bilateral_color, kernels
    )
    return energy.with_terms(terms).energy(labels)


def _as_matrix(compatibility: str | ArrayLike, n_labels: int) -> Any:
    """Check the compatibility; a matrix of integers becomes int64, so that sums stay exact."""
    matrix = as_compatibility(compatibility, n_labels)
    if isinstance(compatibility, str):
        return compatibility
    exact = np.asarray(compatibility).dtype.kind in "bui"
    return matrix.astype(np.int64) if exact else matrix
