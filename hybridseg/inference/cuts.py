"""Binary cuts of the pixel grid: from costs and weights to the kernel's padded arrays and back."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.kernels.grid_cut import grid_cut
from hybridseg.pairwise.edges import EdgeGroup
from hybridseg.validation import as_label_map

#: What is left at a node never exceeds twice its weights; this much of them fits in 64 bits.
_ROOM_BITS = 60

#: Weights below this part of the usual one may vanish in rounding; see `WholeWeights`.
_FINE = 1e-9

#: How many weights are looked at to find the usual one.
_SAMPLE = 4096


class GridNetwork(NamedTuple):
    """A network on the pixel grid with a border of one node, or what a flow has left of it.

    Attributes
    ----------
    cap : ndarray of int64 or float64, (N, D)
        Residual capacity of each node's arc in each direction.
    excess : ndarray, (N,)
        What the source can still send into the node; negative: what it can send to the sink.
    offsets : ndarray of int64, (D,)
        From a node to its neighbours; ``offsets[D - 1 - d] == -offsets[d]``.
    inside : ndarray of bool, (N,)
        False at the border.
    """

    cap: NDArray[Any]
    excess: NDArray[Any]
    offsets: NDArray[np.int64]
    inside: NDArray[np.bool_]

    @classmethod
    def build(cls, groups: Sequence[EdgeGroup], shape: tuple[int, ...], dtype: Any) -> GridNetwork:
        """Capacities from checked weights >= 0 of an image of ``shape``; no excess yet.

        ``groups`` are as from ``edge_groups``, none empty, with offsets of at most one step along
        each axis (see `fits_grid`).
        """
        padded = tuple(n + 2 for n in shape)
        strides = np.cumprod((1, *padded[:0:-1]))[::-1]
        n_groups = len(groups)
        n_nodes = int(np.prod(padded))
        cap = np.zeros((*padded, 2 * n_groups), dtype)
        offsets = np.zeros(2 * n_groups, np.int64)
        for d, group in enumerate(groups):
            cap[..., d][_shifted(group.p)] = group.weight
            cap[..., 2 * n_groups - 1 - d][_shifted(group.q)] = group.weight
            offsets[d] = np.dot(_step(group), strides)
            offsets[2 * n_groups - 1 - d] = -offsets[d]
        inside = np.zeros(padded, bool)
        inside[_inner(shape)] = True
        return cls(
            cap.reshape(n_nodes, -1), np.zeros(n_nodes, dtype), offsets, inside.reshape(n_nodes)
        )

    def add(self, change: NDArray[Any], shape: tuple[int, ...]) -> None:
        """Add ``change`` (*shape,) to the excess; a flow sent so far stays sent."""
        self.excess.reshape([n + 2 for n in shape])[_inner(shape)] += change

    def solve(self, shape: tuple[int, ...]) -> NDArray[np.int32]:
        """The smallest source side as labels 0 and 1; the network becomes the residual one."""
        side = grid_cut(self.cap, self.excess, self.offsets)
        return side.reshape([n + 2 for n in shape])[_inner(shape)].astype(np.int32)


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

    def excess(self, costs: NDArray[Any], strength: float = 1) -> NDArray[np.int64]:
        """What the source sends into each pixel (*shape,) for costs (*shape, 2) / strength."""
        if strength == 1 and costs.dtype.kind == "i" and 0 <= self.bits < _ROOM_BITS:
            difference = costs[..., 0] - costs[..., 1]
            enough = (self.limit >> self.bits) + 1
            return np.clip(difference, -enough, enough) << self.bits
        with np.errstate(over="ignore"):  # infinity is cut off
            real = np.subtract(costs[..., 0], costs[..., 1], dtype=np.float64)
            np.multiply(real, 2.0**self.bits, out=real)
            np.divide(real, strength, out=real)
        np.clip(np.rint(real, out=real), -(2.0**61), 2.0**61, out=real)
        whole = real.astype(np.int64)
        return np.clip(whole, -self.limit, self.limit, out=whole)

    def with_seeds(self, excess: NDArray[Any], fixed: NDArray[Any]) -> NDArray[np.int64]:
        """Let the pixels where ``fixed`` (*shape,) is 0 or 1 have that label."""
        seeded = np.where(fixed == 1, self.limit, excess)
        return np.where(fixed == 0, -self.limit, seeded)


def fits_grid(groups: Sequence[EdgeGroup], shape: tuple[int, ...]) -> bool:
    """Whether the edges join neighbours of an image, at most one step along each axis.

    And whether nodes can be counted in 32 bits.
    """
    if len(shape) < 2 or math.prod(n + 2 for n in shape) >= 2**31:
        return False
    return all(group.weight.size == 0 or max(map(abs, _step(group))) == 1 for group in groups)


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
    network = GridNetwork.build(whole.groups, shape, np.int64)
    network.add(excess, shape)
    return network.solve(shape)


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
    network = GridNetwork.build(groups, shape, np.float64)
    network.add(np.clip(excess, -limit, limit), shape)
    return network.solve(shape)


def grid_energy(
    labels: NDArray[np.int32], costs: NDArray[Any], groups: Sequence[EdgeGroup], strength: Any = 1
) -> int | float:
    """Energy of labels 0 and 1 in 64 bits; ``strength`` multiplies the weights."""
    exact = all(values.dtype.kind == "i" for values in (costs, *(g.weight for g in groups)))
    dtype: Any = np.int64 if exact else np.float64
    total = np.where(labels == 1, costs[..., 1], costs[..., 0]).sum(dtype=dtype)
    cut = [group.weight[labels[group.p] != labels[group.q]].sum(dtype=dtype) for group in groups]
    total += strength * sum(cut)
    return int(total) if exact and isinstance(strength, int) else float(total)


def check_range(costs: NDArray[Any], groups: Sequence[EdgeGroup], largest: int = 1) -> None:
    """Refuse integers whose sums would wrap around."""
    if any(array.dtype.kind != "i" for array in (costs, *(group.weight for group in groups))):
        return
    greatest = np.abs(costs.astype(np.float64)).max(axis=-1).sum()
    strengths = sum(float(group.weight.sum(dtype=np.float64)) for group in groups)
    total = 2.0 * float(greatest) + 2.1 * largest * strengths
    if total >= 2.0**63:
        raise ValueError(
            f"unary and weights hold integers whose sum may reach {total:.3g}, beyond int64; pass "
            f"floats, or divide by a common factor."
        )


def as_seeds(seeds: ArrayLike, shape: tuple[int, ...], n_labels: int) -> NDArray[np.int64]:
    """Check seeds: label indices (*shape,), negative where unknown."""
    fixed = as_label_map(seeds, shape=shape, name="seeds")
    if fixed.size and fixed.max() >= n_labels:
        raise ValueError(
            f"seeds holds {fixed.max()}; expected label indices 0..{n_labels - 1}, negative where "
            f"unknown."
        )
    return fixed


def _usual_weight(groups: Sequence[EdgeGroup]) -> float:
    """The median of the positive ones among a sample of the weights; 0 where there is none."""
    sample = [group.weight.ravel()[:: 1 + group.weight.size // _SAMPLE] for group in groups]
    weights = np.concatenate(sample)
    weights = weights[weights > 0]
    return float(np.median(weights)) if weights.size else 0.0


def _rounded(weights: NDArray[Any], bits: int) -> NDArray[np.int64]:
    scaled = np.multiply(weights, 2.0**bits, dtype=np.float64)
    return np.rint(scaled, out=scaled).astype(np.int64)


def _step(group: EdgeGroup) -> list[int]:
    return [q.start - p.start for p, q in zip(group.p, group.q, strict=True)]


def _shifted(place: tuple[slice, ...]) -> tuple[slice, ...]:
    return tuple(slice(s.start + 1, s.stop + 1) for s in place)


def _inner(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return (slice(1, -1),) * len(shape)
