"""Location priors: costs of labels that depend on the relative position in the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.kernels.superpixels.regions import sums_and_counts
from hybridseg.pairwise.indexed_maps import indexed_maps
from hybridseg.pairwise.sites import Sites
from hybridseg.validation import LARGEST, as_numbers, check_magnitude, check_number

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]
Box = tuple[slice, ...]

#: The number of cells along each axis by default, for 2-D and 3-D.
GRIDS = {2: (12, 16), 3: (6, 8, 8)}


@dataclass(frozen=True, eq=False)
class LocationPrior:
    r"""A term that charges for labels at unusual positions, such as the sky at the bottom.

    .. math:: E(y) = \text{weight} \sum_i c_{y_i}(p_i)

    where :math:`p_i` is the relative position of pixel i in the image, from 0 to 1 along each axis,
    and c a table of costs that is interpolated linearly. It is the location potential of [1]_. A
    region pays for all its pixels. All solvers take it, and ``CRF(learn=...)`` learns its weight.

    It suits images that were all taken in the same way: from a car, under a microscope stage with a
    holder, as scans of the same body part. Where objects may be anywhere, it does harm.

    Parameters
    ----------
    costs : array-like, (*grid, L)
        The costs at the centers of the cells of a grid that covers the image, (rows, columns, L) or
        (slices, rows, columns, L), in the order of ``classes_``. :meth:`from_label_maps` estimates
        them. The number of cells does not depend on the size of the images.
    weight : float, default=1.0
        At least 0. The costs of a segmenter know the position already if its features do; then
        a small weight is best. Choose it on held-out images, or learn it.

    Raises
    ------
    TypeError, ValueError
        An argument is not as described.

    References
    ----------
    .. [1] J. Shotton, J. Winn, C. Rother, A. Criminisi, "TextonBoost for image understanding", IJCV
       81, 2009, section 3.2.

    Examples
    --------
    The upper half is mostly sky (label 1):

    >>> import numpy as np
    >>> from hybridseg.inference import solve_cuts
    >>> from hybridseg.pairwise import Energy, LocationPrior
    >>> prior = LocationPrior.from_label_maps([[[1, 1], [0, 0]]] * 9, classes=[0, 1], grid=(2, 1))
    >>> solve_cuts(Energy(np.zeros((4, 3, 2)), [prior])).labels.tolist()
    [[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]]
    """

    costs: ArrayLike
    weight: float = 1.0
    window: tuple[tuple[int, ...], Box] | None = field(default=None, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        table = as_numbers(self.costs, "costs", expected="real costs (*grid, L)")
        if table.ndim not in (3, 4) or not table.size:
            raise ValueError(
                f"costs has shape {table.shape}; expected (rows, columns, L) or (slices, rows, "
                f"columns, L): a cost for each cell of a grid and each label."
            )
        if not np.isfinite(table).all():
            raise ValueError("costs holds values that are not finite; expected finite costs.")
        check_number(self.weight, "weight", minimum=0)

    @classmethod
    def from_label_maps(
        cls,
        y: Any,
        classes: ArrayLike,
        *,
        grid: Sequence[int] | None = None,
        weight: float = 1.0,
        prior: float = 3.0,
        ignore_label: int | None = None,
    ) -> Self:
        r"""Estimate the costs from label maps, as negative logarithms of relative frequencies.

        With the fraction :math:`n_l(p)` of label l in a cell p, summed over the maps, its overall
        fraction :math:`f_l`, and the prior a,

        .. math:: c_l(p) = -\log \frac{n_l(p) + a}{n(p) f_l + a}

        A label that is as frequent in a cell as everywhere costs nothing there, and so does a label
        that never occurs. More frequent labels have negative costs.

        Parameters
        ----------
        y : sequence of label maps or paths
            One for each image; negative values are void. They may differ in size.
        classes : array-like of int, (L,)
            The label values, such as ``classes_`` of a segmenter. The costs are in their sorted
            order.
        grid : sequence of int, optional
            The number of cells along each axis. Default: (12, 16), or (6, 8, 8) for volumes.
        weight : float, default=1.0
            That of the term. The costs are in nats for each pixel, as those of segmenters.
        prior : float, default=3.0
            The number of maps that is added to both counts, > 0. The larger it is, the weaker are
            costs that few maps support. Frames of one video count as few maps: use a large prior.
        ignore_label : int, optional
            One more value that means void, such as 255.

        Returns
        -------
        LocationPrior

        Raises
        ------
        TypeError, ValueError
            An argument is not as described, or a map holds a value that is not in ``classes``.

        Examples
        --------
        >>> from hybridseg.pairwise import LocationPrior
        >>> maps = [[[1, 1], [0, 0]]] * 9
        >>> prior = LocationPrior.from_label_maps(maps, classes=[0, 1], grid=(2, 1))
        >>> prior.costs[:, 0].round(2)
        array([[ 0.92, -0.47],
               [-0.47,  0.92]])
        """
        check_number(prior, "prior", minimum=0, strict=True)
        _, n_labels, maps = indexed_maps(y, classes, ignore_label=ignore_label)
        sums: Doubles | None = None
        for i, labels in enumerate(maps):
            cells = _cells(grid, labels.ndim) if sums is None else sums.shape[:-1]
            if len(cells) != labels.ndim:
                raise ValueError(
                    f"y[{i}] has shape {labels.shape}, but the grid has {len(cells)} axes; "
                    f"expected maps with as many axes as the grid, {cells}."
                )
            found = _fractions(labels, cells, n_labels)
            sums = found if sums is None else sums + found
        assert sums is not None  # there is a map
        known = sums.sum(axis=-1, keepdims=True)
        overall = sums.reshape(-1, n_labels).sum(axis=0) / max(float(known.sum()), 1e-300)
        return cls(-np.log((sums + prior) / (known * overall + prior)), weight)

    def unary_costs(self, sites: Sites, n_labels: int) -> NDArray[Any]:
        """Return the costs of all sites, (*shape, L); 0 where not valid.

        Raises
        ------
        ValueError
            The table is for another number of labels or axes.
        """
        table = np.asarray(self.costs, np.float64)
        shape = sites.spatial_shape
        if table.shape[-1] != n_labels or table.ndim - 1 != len(shape):
            raise ValueError(
                f"LocationPrior has costs of shape {table.shape} for an energy of {n_labels} "
                f"labels on {len(shape)} axes; expected (*grid, {n_labels}) with a grid of "
                f"{len(shape)} axes."
            )
        whole, box = self.window or (shape, tuple(slice(0, side) for side in shape))
        for axis, (side, part) in enumerate(zip(whole, box, strict=True)):
            rows = _interpolation(side, table.shape[axis])[part]
            table = np.moveaxis(np.tensordot(rows, table, axes=(1, axis)), 0, axis)
        costs = float(self.weight) * table
        if sites.valid is not None:
            costs[~sites.valid] = 0
        if sites.regions is None:
            return costs
        numbers = sites.regions.ravel().astype(np.int32)
        return sums_and_counts(costs.reshape(-1, n_labels), numbers, sites.shape[0])[0]

    def messages(self, sites: Sites, marginals: NDArray[np.float32]) -> Singles:
        """Return the costs of all sites; they do not depend on the marginals."""
        return self.unary_costs(sites, marginals.shape[-1]).astype(np.float32)

    def messages_gradient(
        self,
        sites: Sites,
        marginals: NDArray[np.float32],
        slopes: NDArray[Any],
    ) -> Singles:
        """Return zeros: the messages do not depend on the marginals."""
        return np.zeros(marginals.shape, np.float32)

    def in_box(self, shape: tuple[int, ...], box: Box) -> Self:
        """Return the term for a box of an image of this shape, with the same costs there."""
        return replace(self, window=(shape, box))


def with_unary_costs(unary: NDArray[Any], terms: Sequence[Any], sites: Sites) -> NDArray[Any]:
    """Return costs plus those that terms add at each site; the same array if there are no terms.

    Raises
    ------
    ValueError
        The costs of a term have another shape, are not finite, or exceed float32.
    """
    total = unary
    for term in terms:
        name = f"{type(term).__name__}.unary_costs(sites, n_labels)"
        costs = as_numbers(term.unary_costs(sites, unary.shape[-1]), name)
        if costs.shape != unary.shape:
            raise ValueError(f"{name} has shape {costs.shape}; expected {unary.shape}.")
        if sites.counted is not None:
            costs = np.where(sites.counted[..., np.newaxis], costs, 0)
        check_magnitude(costs, name, largest=LARGEST)
        total = total + costs
    if total.dtype.kind == "f" and unary.dtype == np.float32:
        total = total.astype(np.float32, copy=False)
    return total


def _cells(grid: Sequence[int] | None, n_axes: int) -> tuple[int, ...]:
    cells = GRIDS[n_axes] if grid is None else tuple(grid)
    for axis, n_cells in enumerate(cells):
        check_number(n_cells, f"grid[{axis}]", minimum=1, integer=True)
    return tuple(int(n_cells) for n_cells in cells)


def _fractions(labels: NDArray[np.int64], cells: tuple[int, ...], n_labels: int) -> Doubles:
    """Return the fraction of the pixels of each cell with each label, (*cells, L)."""
    numbers = np.zeros(labels.shape, np.int64)
    sizes = np.ones(())
    for axis, (side, n_cells) in enumerate(zip(labels.shape, cells, strict=True)):
        own = np.arange(side) * n_cells // side
        along = (-1, *(1,) * (labels.ndim - axis - 1))
        numbers = numbers * n_cells + own.reshape(along)
        sizes = np.multiply.outer(sizes, np.bincount(own, minlength=n_cells))
    known = labels >= 0
    n_all = int(np.prod(cells)) * n_labels
    counts = np.bincount(numbers[known] * n_labels + labels[known], minlength=n_all)
    found: Doubles = counts.reshape(*cells, n_labels) / np.maximum(sizes, 1)[..., np.newaxis]
    return found


def _interpolation(side: int, n_cells: int) -> Doubles:
    """Return the weights (side, n_cells) of linear interpolation between centers of cells."""
    position = np.clip((np.arange(side) + 0.5) / side * n_cells - 0.5, 0, n_cells - 1)
    low = np.minimum(position.astype(int), max(0, n_cells - 2))
    weights = np.zeros((side, n_cells))
    part = position - low
    weights[np.arange(side), low] = 1 - part
    if n_cells > 1:
        weights[np.arange(side), low + 1] += part
    return weights
