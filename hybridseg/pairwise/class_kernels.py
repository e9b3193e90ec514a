"""Gaussian kernels of each class: thin things get short kernels, large ones long kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt

from hybridseg.kernels._compile import threads_for
from hybridseg.kernels.dense.adjoint import transposed
from hybridseg.kernels.dense.columns import filter_column
from hybridseg.kernels.dense.dense_filter import (
    DenseFilter,
    embed,
    tables_for,
)
from hybridseg.pairwise.dense import (
    BilateralKernel,
    DenseKernel,
    GaussianKernel,
    pair_cost,
    valid_features,
)
from hybridseg.pairwise.indexed_maps import indexed_maps
from hybridseg.pairwise.sites import Sites
from hybridseg.validation import as_numbers, check_number

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]

#: The filters of images in use, by width and color.
_FILTERS: WeakKeyDictionary[Sites, dict[tuple[float, float | None], DenseFilter]] = (
    WeakKeyDictionary()
)

#: A stripe of thickness t has the mean distance t / 4 to its border.
_THICKNESS_PER_DISTANCE = 4.0


@dataclass(frozen=True, eq=False)
class ClassKernels:
    r"""A term with a Gaussian kernel for each class, between all pairs of pixels.

    .. math:: E(y) = \text{weight} \sum_{i < j} [y_i \ne y_j]\,
              \frac{w_{y_i} k_{y_i}(f_i, f_j) + w_{y_j} k_{y_j}(f_i, f_j)}{2}

    Each kernel :math:`k_l` is normalized as those of :class:`hybridseg.DenseCRF`. Class-conditional
    kernels are those of [1]_. A pole that is four pixels wide is smoothed over few pixels and the
    road over many, so that more of the pole remains than under one kernel of the mean width. The
    pole is protected in part only, because a pair of pixels pays the mean of the prices of both
    labels; ``kept_labels`` of the refiners protects it entirely. Compare with one short kernel for
    all labels, which is quicker and often as good.

    Mean field takes it, and ``CRF(learn=...)`` learns its weight. Cuts cannot, because the price of
    an edge depends on the labels in another way at each edge. The compatibility of the energy is
    not used. Labels with equal widths share a lattice.

    Parameters
    ----------
    widths : array-like, (L,)
        Standard deviation of the distance for each label, in the unit of ``spacing`` (pixels
        without one), in the order of ``classes_``. :meth:`from_label_maps` estimates them.
    colors : array-like, (L,), optional
        Standard deviation of each color on the scale 0..255, for each label. None: kernels of
        positions alone.
    weights : array-like, (L,), optional
        The price of each label, at least 0. Default: 1 for all.
    weight : float, default=1.0
        A factor of all prices, at least 0.

    Raises
    ------
    TypeError, ValueError
        An argument is not as described.

    Notes
    -----
    As for other dense kernels, mean field counts a pixel as its own neighbor, and
    :meth:`hybridseg.pairwise.Energy.energy` does not.

    References
    ----------
    .. [1] V. Vineet, J. Warrell, P. Sturgess, P. H. S. Torr, "Improved initialisation and Gaussian
       mixture pairwise terms for dense random fields with mean-field inference", BMVC, 2012.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import solve_mean_field
    >>> from hybridseg.pairwise import ClassKernels, Energy
    >>> image = np.zeros((9, 12), np.uint8)
    >>> unary = np.tile(np.float32([0.0, 1.0]), (9, 12, 1))
    >>> unary[4, 6] = [1.0, 0.0]  # a speck
    >>> kernels = ClassKernels([3.0, 1.0], weight=4.0)
    >>> energy = Energy(unary, [kernels], image=image)
    >>> int(solve_mean_field(energy).marginals.argmax(axis=-1).sum())
    0
    """

    widths: ArrayLike
    colors: ArrayLike | None = None
    weights: ArrayLike | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        n_labels = len(_positive(self.widths, "widths", None))
        if self.colors is not None:
            _positive(self.colors, "colors", n_labels)
        if self.weights is not None:
            _positive(self.weights, "weights", n_labels, strict=False)
        check_number(self.weight, "weight", minimum=0)

    @classmethod
    def from_label_maps(
        cls,
        y: Any,
        classes: ArrayLike,
        *,
        reach: float = 0.5,
        longest: float = 40.0,
        color: float | None = 10.0,
        weight: float = 3.0,
        ignore_label: int | None = None,
    ) -> Self:
        """Estimate the widths from the thickness of the things in label maps.

        The thickness of a label is four times the mean distance of its pixels to the nearest pixel
        of another label, which is exact for a long stripe.

        Parameters
        ----------
        y : sequence of label maps or paths
            One for each image, of the resolution of the images to refine; negative values are void.
        classes : array-like of int, (L,)
            The label values, such as ``classes_`` of a segmenter. The widths are in their sorted
            order.
        reach : float, default=0.5
            The width as a fraction of the thickness.
        longest : float, default=40.0
            The largest width, in pixels. The smallest is one pixel.
        color : float, optional
            The standard deviation of each color, for all labels. None: positions alone.
        weight : float, default=3.0
            That of the term.
        ignore_label : int, optional
            One more value that means void, such as 255.

        Returns
        -------
        ClassKernels
            A label that does not occur, or that fills all maps in which it occurs, gets the median
            width of the others.

        Raises
        ------
        TypeError, ValueError
            An argument is not as described, or a map holds a value that is not in ``classes``.

        Examples
        --------
        >>> import numpy as np
        >>> from hybridseg.pairwise import ClassKernels
        >>> labels = np.zeros((60, 80), int)
        >>> labels[:, 40:44] = 1  # a pole
        >>> ClassKernels.from_label_maps([labels], classes=[0, 1]).widths.round(1)
        array([39.1,  3. ])
        """
        check_number(reach, "reach", minimum=0, strict=True)
        check_number(longest, "longest", minimum=1)
        _, n_labels, maps = indexed_maps(y, classes, ignore_label=ignore_label)
        sums = np.zeros((2, n_labels))
        for labels in maps:
            for label in np.unique(labels[labels >= 0]):
                inside = labels == label
                if (inside | (labels < 0)).all():  # there is no border to measure from
                    continue
                own = distance_transform_edt(inside | (labels < 0))[inside]
                sums[:, label] += own.sum(), own.size
        seen = sums[1] > 0
        thickness = np.full(n_labels, np.nan)
        thickness[seen] = _THICKNESS_PER_DISTANCE * sums[0][seen] / sums[1][seen]
        thickness[~seen] = np.median(thickness[seen]) if seen.any() else 2 / reach
        widths = np.clip(reach * thickness, 1.0, longest)
        return cls(widths, None if color is None else np.full(n_labels, float(color)), None, weight)

    def cost(self, sites: Sites, labels: NDArray[np.int64], matrix: NDArray[Any]) -> float:
        """Return the exact cost of a labeling, over all pairs of pixels."""
        self._check(sites, len(matrix))
        chosen = labels.ravel() if sites.valid is None else labels[sites.valid]
        potts, total = 1.0 - np.eye(2), 0.0
        for label, price in enumerate(self._prices()):
            if price > 0 and (chosen == label).any():
                features = _features(self._kernel(label), sites).astype(np.float64)
                own = (chosen == label).astype(np.int64)
                total += price / 2 * pair_cost(features, own, potts)
        return total

    def messages(self, sites: Sites, marginals: NDArray[np.float32]) -> Singles:
        """Return ``sum_j w_l k_l(i, j) (1/2 - Q_j(l))``, (*shape, L).

        This is the derivative of the expected cost, up to a constant at each site.
        """
        return self._filtered(sites, 0.5 - np.asarray(marginals, np.float32), backwards=False)

    def messages_gradient(
        self, sites: Sites, marginals: NDArray[np.float32], slopes: NDArray[Any]
    ) -> Singles:
        """Return the gradient by the marginals, given that by the messages."""
        return self._filtered(sites, -np.asarray(slopes, np.float32), backwards=True)

    def _filtered(self, sites: Sites, values: Singles, *, backwards: bool) -> Singles:
        """Filter each label's values with its own kernel, times its price."""
        self._check(sites, values.shape[-1])
        found = np.zeros(values.shape, np.float32)
        rows = values.reshape(-1, values.shape[-1]) if sites.valid is None else values[sites.valid]
        if not len(rows):
            return found
        out = np.zeros(rows.shape, np.float32)
        one, unit = np.empty(len(rows), np.float32), np.ones(1, np.float32)
        with threads_for(rows.size):
            for label, price in enumerate(self._prices()):
                if price == 0:
                    continue
                dense = self._filter(sites, label)
                dense = transposed(dense) if backwards else dense
                filter_column(dense, rows[:, label], unit, tables_for(dense, 1), one)
                out[:, label] = np.float32(price) * one
        if sites.valid is None:
            return out.reshape(values.shape)
        found[sites.valid] = out
        return found

    def _prices(self) -> Doubles:
        own = np.ones(np.shape(self.widths)) if self.weights is None else self.weights
        return float(self.weight) * np.asarray(own, np.float64)

    def _kernel(self, label: int) -> DenseKernel:
        width = float(np.asarray(self.widths)[label])
        if self.colors is None:
            return GaussianKernel(1.0, width)
        return BilateralKernel(1.0, width, float(np.asarray(self.colors)[label]))

    def _filter(self, sites: Sites, label: int) -> DenseFilter:
        """Return the lattice of a label, from the lattices of this image or built now."""
        known = _FILTERS.setdefault(sites, {})
        color = None if self.colors is None else float(np.asarray(self.colors)[label])
        key = float(np.asarray(self.widths)[label]), color
        if key not in known:
            features = _features(self._kernel(label), sites)
            known[key] = embed([features], len(features))
        return known[key]

    def _check(self, sites: Sites, n_labels: int) -> None:
        if np.shape(self.widths) != (n_labels,):
            raise ValueError(
                f"ClassKernels has {np.size(self.widths)} widths for an energy of {n_labels} "
                f"labels; expected one for each label."
            )
        if sites.regions is not None or len(sites.shape) not in (2, 3):
            raise ValueError(
                "ClassKernels joins pixels, but this energy is of regions; use RegionTerm or a "
                "BilateralKernel for regions."
            )


def _features(kernel: DenseKernel, sites: Sites) -> NDArray[np.float32]:
    return valid_features(kernel, sites.colors, sites.spacing, sites.valid)


def _positive(
    values: ArrayLike, name: str, n_labels: int | None, *, strict: bool = True
) -> Doubles:
    """Return checked numbers (L,), above 0 or at least 0."""
    array = np.asarray(as_numbers(values, name), np.float64)
    shape = f"({'L' if n_labels is None else n_labels},)"
    if array.ndim != 1 or not array.size or n_labels not in (None, len(array)):
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}: one for each label.")
    bad = ~np.isfinite(array) | (array <= 0 if strict else array < 0)
    if bad.any():
        bound = "above 0" if strict else "at least 0"
        raise ValueError(f"{name} holds {array[bad][0]:g}; expected finite numbers {bound}.")
    return array
