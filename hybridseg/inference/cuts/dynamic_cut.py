"""Repeated minimum cuts of one grid, each starting from the flow of the previous cut."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.inference.cuts.conditions import check_groups, check_range
from hybridseg.inference.cuts.grid_cuts import (
    GridNetwork,
    WholeWeights,
    fits_grid,
    grid_cut_labels,
)
from hybridseg.inference.cuts.solve import GraphCutResult, cut_result
from hybridseg.pairwise.edges import EdgeWeights, edge_groups
from hybridseg.pairwise.labels import as_seeds
from hybridseg.validation import as_costs, as_numbers, check_number

#: The largest fraction of changed pixels for which the search forest is repaired, not rebuilt.
_MAX_CHANGED_FRACTION = 1 / 16


class DynamicCut:
    """Two-label minimum cuts of one grid, with fixed weights and changing costs or seeds.

    The object keeps the flow and the search forest of the last cut and repairs both where costs
    changed [1]_. The labels are identical to those of :func:`hybridseg.inference.graph_cut`. It
    saves most time if few pixels change, for example with scribbles in an interactive tool: the
    same ``unary`` in each call, and more ``seeds``. Then one pass over the costs takes most of the
    time. Video frames, color models that are fitted in turns with cuts, and sweeps over
    ``strength`` [2]_ gain less. Nothing is gained if the new costs are unrelated to the last ones.
    ``python -m benchmarks kernels --only grid_cut`` measures these cases.

    It takes 38 bytes for each pixel and 12 for each of its neighbors, besides the weights, and 28
    more bytes for each pixel during a cut. Do not use one object from several threads at once.

    Parameters
    ----------
    weights : sequence of arrays, or {offset: array}
        The cost >= 0 of cutting each edge, as from :func:`hybridseg.pairwise.grid_weights`: one
        array per axis, shaped like the image less one along that axis, or a mapping with offsets
        of at most one step along each axis. For images (H, W) and volumes (D, H, W). They are
        not copied: do not change them while the object is in use.

    Attributes
    ----------
    shape : tuple of int
        The image's spatial shape.
    n_cuts : int
        The number of cuts that :meth:`solve` has made.

    Raises
    ------
    TypeError, ValueError
        The weights have an unknown form, are not finite or are negative, or an offset is longer.

    See Also
    --------
    graph_cut : a single cut; also region graphs and more than two labels.

    Notes
    -----
    Flows are integers: weights are multiplied by a power of two that brings the largest near 2**60,
    and rounded. So rounding errors do not accumulate when costs change. If some weights are more
    than 2**30 times the median weight, this would be too coarse. Each cut is then computed in
    float64 from scratch. Instead of "infinite" weights, pass weights just above the largest
    possible sum of an object's costs.

    References
    ----------
    .. [1] P. Kohli, P. H. S. Torr, "Dynamic graph cuts for efficient inference in Markov random
       fields", PAMI 29(12), 2007, section 3.
    .. [2] V. Kolmogorov, Y. Boykov, C. Rother, "Applications of parametric maxflow in computer
       vision", ICCV, 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import DynamicCut
    >>> cut = DynamicCut([np.zeros((0, 4)), np.array([[3.0, 1.0, 3.0]])])  # one row of four pixels
    >>> unary = np.array([[[0.0, 1.0], [1.0, 0.0], [0.0, 0.5], [0.0, 0.5]]])
    >>> cut.solve(unary).labels.tolist()
    [[0, 0, 0, 0]]
    >>> cut.solve(unary, seeds=[[1, -1, -1, -1]]).labels.tolist()  # a click on the first pixel
    [[1, 1, 0, 0]]
    >>> cut.solve(unary, strength=0.1).labels.tolist()
    [[0, 1, 0, 0]]
    """

    shape: tuple[int, ...]
    n_cuts: int

    def __init__(self, weights: EdgeWeights) -> None:
        self.shape = _shape_of(weights)
        self._groups = edge_groups(weights, self.shape)
        check_groups(self._groups, self.shape)
        if not fits_grid(self._groups, self.shape):
            raise ValueError(
                f"weights holds the offsets {list(weights)}; expected at most one step along each "
                f"axis: use graph_cut(unary, weights) for longer ones."
            )
        self._whole = WholeWeights.of(self._groups, self.shape)
        if self._whole is not None:
            self._network = GridNetwork.build(self._whole.groups, self.shape, np.int64)
        self._excess: NDArray[np.int64] | None = None
        self.n_cuts = 0

    def solve(
        self, unary: ArrayLike, seeds: ArrayLike | None = None, *, strength: float = 1
    ) -> GraphCutResult:
        """Return the optimal labels for these costs, seeds and strength.

        The next call does not remember any of them.

        Parameters
        ----------
        unary : array-like, (*shape, 2)
            The cost of each label, finite, lower is better. If it and the weights hold integers
            and ``strength`` is 1, the result is exact; otherwise up to rounding in 64 bits.
        seeds : array-like of int, (*shape,), optional
            Labels that are certain, 0 or 1; negative where unknown.
        strength : float, default=1
            A factor of all weights, greater than 0. The costs are divided by it, so that the flow
            of the last cut stays valid.

        Returns
        -------
        GraphCutResult
            If several labelings are optimal, it has the one with the fewest pixels of label 1.

        Raises
        ------
        TypeError, ValueError
            Shapes do not fit, costs are not finite or not of two labels, or a seed is no label.
        """
        costs = as_costs(unary, spatial_shape=self.shape, keep_double=True, keep_integer=True)
        if costs.shape[-1] != 2:
            raise ValueError(
                f"unary has {costs.shape[-1]} labels; expected 2: use graph_cut for more labels."
            )
        check_number(strength, "strength", minimum=0, strict=True)
        check_range(costs, self._groups, max(1, strength))
        fixed = None if seeds is None else as_seeds(seeds, self.shape, 2)
        self.n_cuts += 1
        if self._whole is None:
            scaled = [
                group._replace(weight=strength * group.weight.astype(np.float64))
                for group in self._groups
            ]
            labels = grid_cut_labels(costs, scaled, fixed)
        else:
            excess = self._whole.excess(costs, strength)
            if fixed is not None:
                excess = self._whole.with_seeds(excess, fixed)
            labels = self._cut(excess)
        return cut_result(costs, self._groups, labels, strength)

    def _cut(self, excess: NDArray[np.int64]) -> NDArray[np.int32]:
        before, self._excess = self._excess, excess
        if before is None:
            return self._network.solve(excess, keep=True)
        change = excess - before
        changed = np.flatnonzero(change)
        if changed.size > _MAX_CHANGED_FRACTION * change.size:
            left = self._network.inside(self._network.forest.excess)
            return self._network.solve(left + change, keep=True)
        return self._network.solve_again(change.ravel()[changed], changed)


def _shape_of(weights: EdgeWeights) -> tuple[int, ...]:
    """Return the shape of the image that ``weights`` belong to, from their first array."""
    if not isinstance(weights, Mapping | list | tuple) or len(weights) == 0:
        raise TypeError(
            f"weights is a {type(weights).__name__}; expected one array for each axis of the "
            f"image, or a mapping {{offset: array}} as from hybridseg.pairwise.grid_weights."
            + (" It is empty." if isinstance(weights, Mapping | list | tuple) else "")
        )
    first: tuple[int, ...]
    offset: tuple[int, ...]
    if isinstance(weights, Mapping):
        offset = next(iter(weights))
        first = as_numbers(weights[offset], f"weights[{offset}]").shape
    else:
        offset = (1, *[0] * (len(weights) - 1))
        first = as_numbers(weights[0], "weights[0]").shape
    if len(first) not in (2, 3) or not isinstance(offset, tuple) or len(offset) != len(first):
        raise ValueError(
            f"the first array of weights has shape {first}, and its offset is {offset}; expected "
            f"an array with 2 or 3 axes and an offset with one step for each axis."
        )
    return tuple(n + abs(step) for n, step in zip(first, offset, strict=True))
