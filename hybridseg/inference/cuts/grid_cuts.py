"""Binary cuts of the pixel grid: from costs and weights to the kernel's padded arrays and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels._compile import MIN_ELEMENTS_FOR_THREADS, get_num_threads
from hybridseg.kernels.cuts.grid_cut import grid_cut, grid_cut_again
from hybridseg.kernels.cuts.grid_forest import STEP, Forest
from hybridseg.pairwise.edges import EdgeGroup

#: The largest capacity in bits: the excess of a node is at most twice the sum of its weights.
_MAX_BITS = 60

#: The largest rounding unit, as a fraction of the median weight; see :class:`WholeWeights`.
_MAX_ROUNDING = 1e-9

#: The largest number of nodes for which the kernel's levels fit in 32 bits.
_MAX_NODES = 2**31 // STEP

#: The smallest number of rows or slices for each thread.
_MIN_ROWS_PER_THREAD = 8

#: The largest number of weights in the sample for the median.
_MAX_SAMPLE = 4096


class GridNetwork(NamedTuple):
    """A flow network on the pixel grid with a border of one node; after a flow, the residual one.

    Attributes
    ----------
    forest : Forest
        Capacities (D, N) and excess (N,), int64 or float64, and the state of the kernel.
    shape : tuple of int
        The shape of the image, without the border.
    """

    forest: Forest
    shape: tuple[int, ...]

    @classmethod
    def build(cls, groups: Sequence[EdgeGroup], shape: tuple[int, ...], dtype: Any) -> GridNetwork:
        """Return a network with the capacities of checked weights >= 0, and without excess.

        ``groups`` come from ``edge_groups``. None of them is empty, and offsets have at most one
        step along each axis (see :func:`fits_grid`).
        """
        padded = tuple(n + 2 for n in shape)
        strides = np.cumprod((1, *padded[:0:-1]))[::-1]
        n_nodes, n_arcs = math.prod(padded), 2 * len(groups)
        cap = np.zeros((n_arcs, *padded), dtype)
        offsets = np.zeros(n_arcs, np.int64)
        for d, group in enumerate(groups):
            cap[d][_shifted(group.p)] = group.weight
            cap[n_arcs - 1 - d][_shifted(group.q)] = group.weight
            offsets[d] = np.dot(np.asarray(group.offset), strides)
            offsets[n_arcs - 1 - d] = -offsets[d]
        bits = np.empty((2, n_nodes), np.uint8 if n_arcs <= 8 else np.uint32)
        return cls(
            Forest(
                cap.reshape(n_arcs, n_nodes),
                np.zeros(n_nodes, dtype),
                offsets,
                bits[0],
                bits[1],
                np.empty(n_nodes, np.int32),
            ),
            shape,
        )

    def inside(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return the view (*shape,) of an array (N,) without the border."""
        return values.reshape([n + 2 for n in self.shape])[(slice(1, -1),) * len(self.shape)]

    def solve(self, excess: NDArray[Any], *, keep: bool = False) -> NDArray[np.int32]:
        """Return labels 0 and 1 with the smallest source side; leave the residual network.

        ``keep`` keeps the forest for :meth:`solve_again`.
        """
        self.inside(self.forest.excess)[...] = excess
        grid_cut(self.forest, self._bands(), self.shape[-1] + 2, keep)
        return self.labels()

    def _bands(self) -> NDArray[np.int64]:
        """Return the first node of each thread's rows or slices, and the number of nodes."""
        n_nodes, n_rows = self.forest.excess.size, self.shape[0] + 2
        most = max(1, min(get_num_threads(), n_rows // _MIN_ROWS_PER_THREAD))
        n_bands = 1 if n_nodes < MIN_ELEMENTS_FOR_THREADS else most
        return n_rows * np.arange(n_bands + 1) // n_bands * (n_nodes // n_rows)

    def solve_again(self, change: NDArray[Any], at: NDArray[np.int64]) -> NDArray[np.int32]:
        """Solve again after a ``change`` (M,) of the excess at the pixel numbers ``at`` (M,)."""
        padded = tuple(n + 2 for n in self.shape)
        places = np.unravel_index(at, self.shape)
        nodes = np.ravel_multi_index(tuple(place + 1 for place in places), padded)
        self.forest.excess[nodes] += change
        grid_cut_again(self.forest, nodes)
        return self.labels()

    def labels(self) -> NDArray[np.int32]:
        """Return 1 for the pixels on the source side and 0 for the others."""
        return (self.inside(self.forest.nodes) >= STEP).astype(np.int32)


@dataclass(frozen=True, eq=False)
class WholeWeights:
    """Weights of a grid as integers, so that flows are never rounded.

    The excess of a node is limited to the sum of its edge weights, and the flow into it as well. So
    all numbers stay below twice the sum of a node's weights, and the unit can be about 2**-60 of
    that sum, which is finer than float64. Differences of costs are rounded to the unit once. After
    that every cut is exact, also with ties and from an earlier flow. Integer weights are scaled by
    a power of two and stay exact.

    Attributes
    ----------
    groups : list of EdgeGroup
        Groups with int64 weights; none is empty.
    limit : ndarray of int64, (*shape,)
        One more than the sum of a node's weights: an excess that decides its label.
    bits : int
        The weights are multiplied by ``2**bits``.
    """

    groups: list[EdgeGroup]
    limit: NDArray[np.int64]
    bits: int

    @classmethod
    def of(cls, groups: Sequence[EdgeGroup], shape: tuple[int, ...]) -> WholeWeights | None:
        """Round checked weights; return None if their range is too large for one unit."""
        groups = [group for group in groups if group.weight.size]
        most = max((float(group.weight.max()) for group in groups), default=0.0)
        bits = math.floor(_MAX_BITS - 1 - math.log2(len(groups)) - math.log2(most)) if most else 0
        bits = min(bits, 1000)
        exact = all(group.weight.dtype.kind == "i" for group in groups)
        if exact and (bits >= 0 or sum(group.weight.sum(dtype=float) for group in groups) < 2**62):
            bits = max(bits, 0)
            whole = [group._replace(weight=group.weight << bits) for group in groups]
        else:
            if 2.0**-bits > _MAX_ROUNDING * _usual_weight(groups):
                return None
            whole = [group._replace(weight=_rounded(group.weight, bits)) for group in groups]
        limit = np.ones(shape, np.int64)
        for group in whole:
            limit[group.p] += group.weight
            limit[group.q] += group.weight
        return cls(whole, limit, bits)

    @cached_property
    def _enough(self) -> NDArray[np.int64]:
        """Integer costs beyond which the label of a pixel is certain, before scaling."""
        return (self.limit >> self.bits) + 1

    def excess(self, costs: NDArray[Any], strength: float = 1) -> NDArray[np.int64]:
        """Return the flow from the source to each pixel for costs (*shape, 2) / strength."""
        if strength == 1 and costs.dtype.kind == "i" and 0 <= self.bits < _MAX_BITS:
            difference: NDArray[np.int64] = costs[..., 0] - costs[..., 1]
            np.minimum(difference, self._enough, out=difference)
            np.maximum(difference, -self._enough, out=difference)
            return np.left_shift(difference, self.bits, out=difference)
        with np.errstate(over="ignore"):  # infinity is clipped
            real = np.subtract(costs[..., 0], costs[..., 1], dtype=np.float64)
            np.multiply(real, 2.0**self.bits, out=real)
            np.divide(real, strength, out=real)
        np.clip(np.rint(real, out=real), -(2.0**61), 2.0**61, out=real)
        whole = real.astype(np.int64)
        return np.clip(whole, -self.limit, self.limit, out=whole)

    def with_seeds(self, excess: NDArray[Any], fixed: NDArray[Any]) -> NDArray[np.int64]:
        """Force the label of the pixels where ``fixed`` (*shape,) is 0 or 1."""
        seeded = excess.copy()
        for label, sign in ((0, -1), (1, 1)):
            at = np.flatnonzero(fixed == label)
            seeded.ravel()[at] = sign * self.limit.ravel()[at]
        return seeded


def fits_grid(groups: Sequence[EdgeGroup], shape: tuple[int, ...]) -> bool:
    """Return whether the grid kernel can solve these edges.

    Edges must join pixels at most one step apart along each axis, and the number of nodes is
    bounded.
    """
    if len(shape) < 2 or math.prod(n + 2 for n in shape) >= _MAX_NODES:
        return False
    offsets = [group.offset for group in groups if group.weight.size]
    return all(offset is not None and max(map(abs, offset)) == 1 for offset in offsets)


def grid_cut_labels(
    costs: NDArray[Any], groups: Sequence[EdgeGroup], fixed: NDArray[Any] | None = None
) -> NDArray[np.int32]:
    """Return optimal labels (*spatial,) of costs (*spatial, 2), with the fewest pixels of label 1.

    The result is exact for integer costs and weights. ``fixed`` (*spatial,) holds the labels of
    seeds, negative elsewhere.
    """
    shape = costs.shape[:-1]
    whole = WholeWeights.of(groups, shape)
    if whole is None:
        return _float_labels(costs, groups, fixed)
    excess = whole.excess(costs)
    if fixed is not None:
        excess = whole.with_seeds(excess, fixed)
    return GridNetwork.build(whole.groups, shape, np.int64).solve(excess)


def _float_labels(
    costs: NDArray[Any], groups: Sequence[EdgeGroup], fixed: NDArray[Any] | None
) -> NDArray[np.int32]:
    """Solve in float64, for weights whose range is too large for integers."""
    shape = costs.shape[:-1]
    groups = [group for group in groups if group.weight.size]
    excess = np.subtract(costs[..., 0], costs[..., 1], dtype=np.float64)
    limit = np.ones(shape)
    for group in groups:
        limit[group.p] += 1.001 * group.weight
        limit[group.q] += 1.001 * group.weight
    if fixed is not None:
        excess = np.where(fixed == 1, limit, np.where(fixed == 0, -limit, excess))
    return GridNetwork.build(groups, shape, np.float64).solve(np.clip(excess, -limit, limit))


def grid_energy(
    labels: NDArray[np.int32], costs: NDArray[Any], groups: Sequence[EdgeGroup], strength: Any = 1
) -> int | float:
    """Return the energy of labels 0 and 1 in 64 bits; ``strength`` multiplies the weights."""
    exact = all(values.dtype.kind == "i" for values in (costs, *(g.weight for g in groups)))
    dtype: Any = np.int64 if exact else np.float64
    ones = labels.astype(bool)
    total = np.where(ones, costs[..., 1], costs[..., 0]).sum(dtype=dtype)
    cut = [group.weight[ones[group.p] ^ ones[group.q]].sum(dtype=dtype) for group in groups]
    total += strength * sum(cut)
    return int(total) if exact and isinstance(strength, int) else float(total)


def _usual_weight(groups: Sequence[EdgeGroup]) -> float:
    """Return the median of the positive weights in a sample; 0 if there are none."""
    sample = [group.weight.ravel()[:: 1 + group.weight.size // _MAX_SAMPLE] for group in groups]
    weights = np.concatenate(sample)
    weights = weights[weights > 0]
    return float(np.median(weights)) if weights.size else 0.0


def _rounded(weights: NDArray[Any], bits: int) -> NDArray[np.int64]:
    scaled = np.multiply(weights, 2.0**bits, dtype=np.float64)
    return np.rint(scaled, out=scaled).astype(np.int64)


def _shifted(place: tuple[slice, ...]) -> tuple[slice, ...]:
    return tuple(slice(s.start + 1, s.stop + 1) for s in place)
