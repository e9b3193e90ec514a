"""Minimum cuts of one grid again and again, each from the flow of the one before."""

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

#: Where more than this part of the pixels changed, the forest is grown anew; the flow is kept.
_MANY = 1 / 16


class DynamicCut:
    """Two-label minimum cuts of one grid whose weights stay while the costs or seeds change.

    Keeps the flow of the last cut and the forest of what the source reaches, and mends both where
    costs changed, which gives the result of :func:`hybridseg.inference.graph_cut`, label for label.
    It pays where few pixels change, as by scribbles in an interactive tool: the same ``unary`` each
    time, more ``seeds``; what is left there is mostly one pass over the costs. Video frames, colour
    models that are fitted in turns with cuts, and sweeps over ``strength`` gain less, and nothing
    where the costs have little to do with the last ones; ``python -m benchmarks kernels --only
    grid_cut`` has such rows.

    Memory is 38 bytes for each pixel and 12 for each of its directions, beside the weights, and 28
    bytes more a pixel during a cut. One object serves one thread at a time.

    Parameters
    ----------
    weights : sequence of arrays, or {offset: array}
        The cost >= 0 of cutting each edge, as from :func:`hybridseg.pairwise.grid_weights`: one
        array per axis, shaped like the image less one along that axis, or a mapping with offsets
        of at most one step along each axis. Images (H, W) and volumes (D, H, W). Left alone, and
        not to be changed as long as the object lives.

    Attributes
    ----------
    shape : tuple of int
        The image's spatial shape.
    n_cuts : int
        How often `solve` has cut.

    Raises
    ------
    TypeError, ValueError
        Weights of an unknown form, not finite or negative, or with longer offsets.

    See Also
    --------
    graph_cut : one cut, region graphs, and more than two labels.

    Notes
    -----
    Flows are held in whole numbers: weights are multiplied by a power of two that brings the
    largest near 2**60 and rounded, so no rounding piles up however often the costs change. Where
    some weights are more than 2**30 times the usual ones this would be too coarse; the cuts are
    then made in float64, each from the beginning. Instead of "infinite" weights, pass weights just
    above what the costs of an object can add up to.

    References
    ----------
    Kohli and Torr, "Dynamic graph cuts for efficient inference in Markov random fields", PAMI
    29(12), 2007, section 3. Kolmogorov, Boykov and Rother, "Applications of parametric maxflow in
    computer vision", ICCV 2007 (sweeps over the strength).

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
                f"axis. graph_cut(unary, weights) takes longer ones."
            )
        self._whole = WholeWeights.of(self._groups, self.shape)
        if self._whole is not None:
            self._network = GridNetwork.build(self._whole.groups, self.shape, np.int64)
        self._excess: NDArray[np.int64] | None = None
        self.n_cuts = 0

    def solve(
        self, unary: ArrayLike, seeds: ArrayLike | None = None, *, strength: float = 1
    ) -> GraphCutResult:
        """Cut with these costs, seeds and strength; none is remembered for the next call.

        Parameters
        ----------
        unary : array-like, (*shape, 2)
            The cost of each label, finite, lower is better. If it and the weights hold integers
            and ``strength`` is 1, the result is exact; otherwise up to rounding in 64 bits.
        seeds : array-like of int, (*shape,), optional
            Labels that are certain, 0 or 1; negative where unknown.
        strength : float, default=1
            Multiplies all weights, greater than 0. The flow goes on from one strength to another
            by dividing the costs.

        Returns
        -------
        GraphCutResult
            Where several labellings are optimal, the one with the fewest pixels of label 1.

        Raises
        ------
        TypeError, ValueError
            Shapes that do not fit, costs that are not finite or not of two labels, unknown labels.
        """
        costs = as_costs(unary, spatial_shape=self.shape, keep_double=True, keep_integer=True)
        if costs.shape[-1] != 2:
            raise ValueError(
                f"unary has {costs.shape[-1]} labels; expected 2. graph_cut takes more of them."
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
        if changed.size > _MANY * change.size:
            left = self._network.inside(self._network.forest.excess)
            return self._network.solve(left + change, keep=True)
        return self._network.solve_again(change.ravel()[changed], changed)


def _shape_of(weights: EdgeWeights) -> tuple[int, ...]:
    """The shape of the image that ``weights`` belong to, told by the first array."""
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
            f"weights begins with an array of shape {first} for the offset {offset}; expected 2 or "
            f"3 axes, and an array or an offset's step for each."
        )
    return tuple(n + abs(step) for n, step in zip(first, offset, strict=True))
