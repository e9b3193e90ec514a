"""Binary cuts of the pixel grid: from costs and weights to the kernel's padded arrays and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels._compile import SMALL, get_num_threads
from hybridseg.kernels.cuts.grid_cut import grid_cut, grid_cut_again
from hybridseg.kernels.cuts.grid_forest import STEP, Forest
from hybridseg.pairwise.edges import EdgeGroup

#: What is left at a node never exceeds twice its weights; this much of them fits in 64 bits.
_ROOM_BITS = 60

#: Weights below this part of the usual one may vanish in rounding; see `WholeWeights`.
_FINE = 1e-9

#: Above this, the kernel's levels might not fit.
_MOST_NODES = 2**31 // STEP

#: A thread gets at least so many rows or slices.
_BAND = 8

#: How many weights are looked at to find the usual one.
_SAMPLE = 4096


class GridNetwork(NamedTuple):
    """A network on the pixel grid with a border of one node, or what a flow has left of it.

    Attributes
    ----------
    forest : Forest
        Capacities (D, N) and excess (N,), int64 or float64, and what the kernel keeps.
    shape : tuple of int
        The image's, without the border.
    """

    forest: Forest
    shape: tuple[int, ...]

    @classmethod
    def build(cls, groups: Sequence[EdgeGroup], shape: tuple[int, ...], dtype: Any) -> GridNetwork:
        """Capacities from checked weights >= 0 of an image of ``shape``; no excess yet.

        ``groups`` are as from ``edge_groups``, none empty, with offsets of at most one step along
        each axis (see `fits_grid`).
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
        """The part (*shape,) of an array (N,) that is not border, as a view."""
        return values.reshape([n + 2 for n in self.shape])[(slice(1, -1),) * len(self.shape)]

    def solve(self, excess: NDArray[Any], *, keep: bool = False) -> NDArray[np.int32]:
        """The smallest source side as labels 0 and 1; the network becomes the residual one.

        ``keep`` for `solve_again`.
        """
        self.inside(self.forest.excess)[...] = excess
        grid_cut(self.forest, self._bands(), self.shape[-1] + 2, keep)
        return self.labels()

    def _bands(self) -> NDArray[np.int64]:
        """Where the node numbers of each thread's rows, or slices, begin, and the end."""
        n_nodes, n_rows = self.forest.excess.size, self.shape[0] + 2
        n_bands = 1 if n_nodes < SMALL else max(1, min(get_num_threads(), n_rows // _BAND))
        return n_rows * np.arange(n_bands + 1) // n_bands * (n_nodes // n_rows)

    def solve_again(self, change: NDArray[Any], at: NDArray[np.int64]) -> NDArray[np.int32]:
        """As `solve`, after a ``change`` (M,) of the excess of the pixels numbered ``at`` (M,)."""
        padded = tuple(n + 2 for n in self.shape)
        places = np.unravel_index(at, self.shape)
        nodes = np.ravel_multi_index(tuple(place + 1 for place in places), padded)
        self.forest.excess[nodes] += change
        grid_cut_again(self.forest, nodes)
        return self.labels()

    def labels(self) -> NDArray[np.int32]:
        """Where the source reaches, as 1 and 0."""
        return (self.inside(self.forest.nodes) >= STEP).astype(np.int32)


@dataclass(frozen=True, eq=False)
class WholeWeights:
    """Weights of a grid as whole numbers, in which no flow is ever rounded.

    A node's excess counts for no more than all its edges, and what flows in is no more than that:
    so everything stays below twice the sum of a node's weights, and the unit can be that sum over
    2**60 or so, finer than what float64 can add to it. Differences of costs are rounded to the
    unit once, and after that a cut, cold or warm, is exact, ties included. Integer weights are
    scaled by a power of two and stay exact.

    Attributes
    ----------
    groups : list of EdgeGroup
        Of int64 weights, none empty.
    limit : ndarray of int64, (*shape,)
        An excess beyond the node's edges, which decides its label by itself.
    bits : int
        Weights were multiplied by ``2**bits``.
    """

    groups: list[EdgeGroup]
    limit: NDArray[np.int64]
    bits: int

    @classmethod
    def of(cls, groups: Sequence[EdgeGroup], shape: tuple[int, ...]) -> WholeWeights | None:
        """Round checked weights; None where they lie so far apart that usual ones would suffer."""
        groups = [group for group in groups if group.weight.size]
        most = max((float(group.weight.max()) for group in groups), default=0.0)
        bits = math.floor(_ROOM_BITS - 1 - math.log2(len(groups)) - math.log2(most)) if most else 0
        bits = min(bits, 1000)
        exact = all(group.weight.dtype.kind == "i" for group in groups)
        if exact and (bits >= 0 or sum(group.weight.sum(dtype=float) for group in groups) < 2**62):
            bits = max(bits, 0)
            whole = [group._replace(weight=group.weight << bits) for group in groups]
        else:
            if 2.0**-bits > _FINE * _usual_weight(groups):
                return None
            whole = [group._replace(weight=_rounded(group.weight, bits)) for group in groups]
        limit = np.ones(shape, np.int64)
        for group in whole:
            limit[group.p] += group.weight
            limit[group.q] += group.weight
        return cls(whole, limit, bits)

    @cached_property
    def _enough(self) -> NDArray[np.int64]:
        """Whole costs beyond which a pixel is certain, before the shift."""
        return (self.limit >> self.bits) + 1

    def excess(self, costs: NDArray[Any], strength: float = 1) -> NDArray[np.int64]:
        """What the source sends into each pixel (*shape,) for costs (*shape, 2) / strength."""
        if strength == 1 and costs.dtype.kind == "i" and 0 <= self.bits < _ROOM_BITS:
            difference: NDArray[np.int64] = costs[..., 0] - costs[..., 1]
            np.minimum(difference, self._enough, out=difference)
            np.maximum(difference, -self._enough, out=difference)
            return np.left_shift(difference, self.bits, out=difference)
        with np.errstate(over="ignore"):  # infinity is cut off
            real = np.subtract(costs[..., 0], costs[..., 1], dtype=np.float64)
            np.multiply(real, 2.0**self.bits, out=real)
            np.divide(real, strength, out=real)
        np.clip(np.rint(real, out=real), -(2.0**61), 2.0**61, out=real)
        whole = real.astype(np.int64)
        return np.clip(whole, -self.limit, self.limit, out=whole)

    def with_seeds(self, excess: NDArray[Any], fixed: NDArray[Any]) -> NDArray[np.int64]:
        """Let the pixels where ``fixed`` (*shape,) is 0 or 1 have that label."""
        seeded = excess.copy()
        for label, sign in ((0, -1), (1, 1)):
            at = np.flatnonzero(fixed == label)
            seeded.ravel()[at] = sign * self.limit.ravel()[at]
        return seeded


def fits_grid(groups: Sequence[EdgeGroup], shape: tuple[int, ...]) -> bool:
    """Whether the edges join neighbours of an image, at most one step along each axis.

    And whether the kernel can count the nodes.
    """
    if len(shape) < 2 or math.prod(n + 2 for n in shape) >= _MOST_NODES:
        return False
    offsets = [group.offset for group in groups if group.weight.size]
    return all(offset is not None and max(map(abs, offset)) == 1 for offset in offsets)


def grid_cut_labels(
    costs: NDArray[Any], groups: Sequence[EdgeGroup], fixed: NDArray[Any] | None = None
) -> NDArray[np.int32]:
    """The optimal labels (*spatial,) of costs (*spatial, 2); as few pixels of label 1 as possible.

    Integer costs with integer weights are solved exactly. ``fixed`` (*spatial,) holds the labels
    that are certain, negative where there is none.
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
    """As `grid_cut_labels`, where no unit is fine enough for all weights."""
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
    """Energy of labels 0 and 1 in 64 bits; ``strength`` multiplies the weights."""
    exact = all(values.dtype.kind == "i" for values in (costs, *(g.weight for g in groups)))
    dtype: Any = np.int64 if exact else np.float64
    ones = labels.astype(bool)
    total = np.where(ones, costs[..., 1], costs[..., 0]).sum(dtype=dtype)
    cut = [group.weight[ones[group.p] ^ ones[group.q]].sum(dtype=dtype) for group in groups]
    total += strength * sum(cut)
    return int(total) if exact and isinstance(strength, int) else float(total)


def _usual_weight(groups: Sequence[EdgeGroup]) -> float:
    """The median of the positive ones among a sample of the weights; 0 where there is none."""
    sample = [group.weight.ravel()[:: 1 + group.weight.size // _SAMPLE] for group in groups]
    weights = np.concatenate(sample)
    weights = weights[weights > 0]
    return float(np.median(weights)) if weights.size else 0.0


def _rounded(weights: NDArray[Any], bits: int) -> NDArray[np.int64]:
    scaled = np.multiply(weights, 2.0**bits, dtype=np.float64)
    return np.rint(scaled, out=scaled).astype(np.int64)


def _shifted(place: tuple[slice, ...]) -> tuple[slice, ...]:
    return tuple(slice(s.start + 1, s.stop + 1) for s in place)
