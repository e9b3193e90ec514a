"""Edge weights in three forms, checked and brought to one form; the term that holds them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.pairwise.sites import Sites
from hybridseg.validation import as_numbers, check_magnitude

#: One array per image axis, a mapping from offset to array, or an edge list (i, j, w).
EdgeWeights = Sequence[ArrayLike] | Mapping[tuple[int, ...], ArrayLike]


class EdgeGroup(NamedTuple):
    """Edges with one index expression for each end: ``values[p]`` and ``values[q]``.

    Attributes
    ----------
    p, q : tuple of slice, or ndarray of int
        Index expressions into an array of the image's spatial shape (or of the regions).
    weight : ndarray, of the shape of ``values[p]``
        int64, float32 or float64.
    """

    p: Any
    q: Any
    weight: NDArray[Any]

    @property
    def offset(self) -> tuple[int, ...] | None:
        """The step from a pixel p to its neighbor q; None for edges from a list."""
        if not (isinstance(self.p, tuple) and isinstance(self.p[0], slice)):
            return None
        return tuple(q.start - p.start for p, q in zip(self.p, self.q, strict=True))


@dataclass(frozen=True, eq=False)
class EdgeTerm:
    """A term of given edges: each costs its weight times the compatibility of its two labels.

    Parameters
    ----------
    weights : sequence of arrays, {offset: array}, or (i, j, w)
        As in :func:`hybridseg.pairwise.energy`: one array per axis of the image, shaped like the
        image but one shorter along that axis; a mapping from offset to array; or an edge list of
        node numbers ``i``, ``j`` (E,) and weights ``w`` (E,). Node numbers are region numbers, or
        positions of pixels in row-major order.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.pairwise import EdgeTerm, Energy
    >>> energy = Energy([[0, 4], [3, 1]], [EdgeTerm(([0], [1], [2]))])
    >>> energy.energy([0, 1]), energy.energy([0, 0])
    (3.0, 3.0)
    """

    weights: EdgeWeights

    def edges(self, sites: Sites) -> EdgeWeights:
        """Return the weights; Energy checks that they fit."""
        return self.weights


def edge_groups(weights: EdgeWeights, shape: tuple[int, ...]) -> list[EdgeGroup]:
    """Check edge weights and return them as groups with index expressions of their ends.

    Parameters
    ----------
    weights : sequence of arrays, mapping, or (i, j, w)
        For an image, one array per axis, shaped like the image but one shorter along that axis; or
        ``{offset: array}``, where the array has the image's shape minus ``abs(offset)`` and holds
        a weight for each pixel p whose neighbor p + offset lies in the image. For a region graph
        (``len(shape) == 1``), an edge list: node numbers ``i``, ``j`` (E,) and weights ``w`` (E,).
        An edge list is valid for an image, too; its nodes are the pixels in row-major order.
    shape : tuple of int
        The image's spatial shape, or (R,).

    Returns
    -------
    list of EdgeGroup

    Raises
    ------
    TypeError
        ``weights`` has none of the three forms, or does not hold real numbers.
    ValueError
        An array has a wrong shape, an offset occurs twice, a node is out of range, or a weight is
        NaN or infinite.
    """
    if len(shape) == 1:
        return [_listed_edges(weights, shape[0])]
    if _is_list(weights):
        listed = _listed_edges(weights, math.prod(shape))
        p, q = (np.unravel_index(end, shape) for end in (listed.p, listed.q))
        return [EdgeGroup(p, q, listed.weight)]
    if isinstance(weights, Mapping):
        if not weights:
            raise ValueError(
                "weights is an empty mapping; expected {offset: array} for at least one offset. "
                "For no edges, pass an array of zeros."
            )
        _check_offsets(weights, len(shape))
        return [_grid_edges(tuple(offset), weights[offset], shape) for offset in weights]
    if not isinstance(weights, list | tuple) or len(weights) != len(shape):
        is_list = isinstance(weights, list | tuple)
        came = f"{len(weights)} items" if is_list else f"a {type(weights).__name__}"
        raise TypeError(
            f"weights holds {came}; expected a list of {len(shape)} arrays, one for each axis of "
            f"the image {shape}, or {{offset: array}} as from hybridseg.pairwise.grid_weights."
        )
    offsets = [tuple(row) for row in np.eye(len(shape), dtype=int).tolist()]
    return [_grid_edges(o, w, shape) for o, w in zip(offsets, weights, strict=True)]


def join_groups(lists: Sequence[list[EdgeGroup]]) -> list[EdgeGroup]:
    """Join the groups of several terms; weights of the same offset are added up."""
    groups = [group for each in lists for group in each]
    if len(lists) < 2:
        return groups
    by_offset: dict[tuple[int, ...], EdgeGroup] = {}
    listed = []
    for group in groups:
        offset = group.offset
        if offset is None:
            listed.append(group)
            continue
        if offset < (0,) * len(offset):  # the same edges, from their other ends
            offset = tuple(-step for step in offset)
            group = EdgeGroup(group.q, group.p, group.weight)
        if (there := by_offset.get(offset)) is not None:
            group = group._replace(weight=_added(there.weight, group.weight))
        by_offset[offset] = group
    return [*by_offset.values(), *listed]


def _added(one: NDArray[Any], other: NDArray[Any]) -> NDArray[Any]:
    """Return the sum of two terms' weights: of integers exactly, else in 64 bits.

    Raises
    ------
    ValueError
        The integers have a sum that overflows int64.
    """
    if not one.dtype.kind == other.dtype.kind == "i":
        return np.add(one, other, dtype=np.float64)
    if one.size:
        ends = (int(one.min()) + int(other.min()), int(one.max()) + int(other.max()))
        limits = np.iinfo(np.int64)
        if ends[0] < limits.min or ends[1] > limits.max:
            raise ValueError(
                f"terms hold integer weights of the same edges, whose sums range from {ends[0]} to "
                f"{ends[1]} and overflow int64: pass floats, or divide all costs by a common "
                f"factor."
            )
    return np.add(one, other, dtype=np.int64)


def edge_list(
    groups: Sequence[EdgeGroup], shape: tuple[int, ...]
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[Any]]:
    """Return checked groups as flat node numbers ``i``, ``j`` (E,) and weights (E,)."""
    index = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    i = np.concatenate([index[group.p].ravel() for group in groups])
    j = np.concatenate([index[group.q].ravel() for group in groups])
    return i, j, np.concatenate([group.weight.ravel() for group in groups])


def scaled_edges(weights: EdgeWeights, factor: float) -> EdgeWeights:
    """Return edge weights, in the form in which they came, times a factor."""
    if isinstance(weights, Mapping):
        return {offset: np.multiply(weight, factor) for offset, weight in weights.items()}
    if _is_list(weights):
        i, j, weight = weights
        return i, j, np.multiply(weight, factor)
    return [np.multiply(weight, factor) for weight in weights]


def edges_in(
    groups: Sequence[EdgeGroup], shape: tuple[int, ...], box: tuple[slice, ...]
) -> EdgeWeights:
    """Return the checked edges of one term whose ends both lie in a box of the image.

    Parameters
    ----------
    groups : sequence of EdgeGroup
        Groups with offsets, or one list of edges.
    shape : tuple of int
        That of the image, or (R,).
    box : tuple of slice
        One slice with both ends for each axis.

    Returns
    -------
    {offset: array}, or (i, j, w) for edges from a list
        For the sites of the box.
    """
    offsets = [group.offset for group in groups]
    if not groups or None in offsets:
        none: Any = np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.float32)
        i, j, weight = edge_list(groups, shape) if groups else none
        numbers = np.full(shape, -1, np.int32)
        sides = [side.stop - side.start for side in box]
        numbers[box] = np.arange(math.prod(sides), dtype=np.int32).reshape(sides)
        i, j = numbers.ravel()[i], numbers.ravel()[j]
        inside = (i >= 0) & (j >= 0)
        return i[inside], j[inside], weight[inside]
    found = {}
    for group, offset in zip(groups, offsets, strict=True):
        assert offset is not None  # a group of a list was treated above
        own = [
            slice(side.start, max(side.start, side.stop - abs(step)))
            for side, step in zip(box, offset, strict=True)
        ]
        found[offset] = group.weight[tuple(own)]
    return found


def _is_list(weights: EdgeWeights) -> bool:
    """Return whether weights of an image are (i, j, w): three arrays of one axis each."""
    if not isinstance(weights, list | tuple) or len(weights) != 3:
        return False
    try:
        return all(np.ndim(each) == 1 for each in weights)
    except ValueError:  # ragged rows, which the checks below refuse
        return False


def _check_offsets(weights: Mapping[Any, Any], ndim: int) -> None:
    for offset in weights:
        whole = isinstance(offset, tuple) and all(isinstance(s, Integral) for s in offset)
        if not whole or len(offset) != ndim or not any(offset):
            raise ValueError(
                f"weights has the key {offset!r}; expected an offset: a tuple of {ndim} integers, "
                f"not all zero, such as {(0,) * (ndim - 1) + (1,)}."
            )
        opposite = tuple(-step for step in offset)
        if opposite in weights:
            raise ValueError(
                f"weights holds both {offset} and {opposite}, which are the same edges; each edge "
                f"counts once, so remove one."
            )


def _grid_edges(offset: tuple[int, ...], weight: ArrayLike, shape: tuple[int, ...]) -> EdgeGroup:
    array = _as_weight(weight, f"weights[{offset}]")
    expected = tuple(max(0, n - abs(step)) for n, step in zip(shape, offset, strict=True))
    if array.shape != expected:
        raise ValueError(
            f"weights[{offset}] has shape {array.shape}; expected {expected}, the image's {shape} "
            f"less the offset: one weight for each pair of pixels."
        )
    ends = zip(shape, offset, strict=True)
    p = [slice(max(0, -step), max(0, n - max(0, step))) for n, step in ends]
    q = [
        slice(s.start + step, max(s.start, s.stop) + step)
        for s, step in zip(p, offset, strict=True)
    ]
    return EdgeGroup(tuple(p), tuple(q), array)


def _listed_edges(weights: EdgeWeights, n_nodes: int) -> EdgeGroup:
    if not isinstance(weights, list | tuple) or len(weights) != 3:
        raise TypeError(
            f"weights is a {type(weights).__name__}; expected an edge list (i, j, w), because "
            f"unary (R, L) belongs to a region graph. For an image, pass unary (H, W, L)."
        )
    i, j = (as_numbers(end, "weights", expected="integer node numbers") for end in weights[:2])
    array = _as_weight(weights[2], "weights[2]")
    if not (i.ndim == 1 and i.shape == j.shape == array.shape):
        raise ValueError(
            f"weights has shapes {i.shape}, {j.shape}, {array.shape}; expected three arrays (E,)."
        )
    if i.size == 0:
        i, j = i.astype(np.int32), j.astype(np.int32)
    if i.dtype.kind not in "ui" or j.dtype.kind not in "ui":
        raise TypeError(f"weights has ends of dtype {i.dtype} and {j.dtype}; expected integers.")
    if i.size and (min(i.min(), j.min()) < 0 or max(i.max(), j.max()) >= n_nodes):
        raise ValueError(
            f"weights joins nodes {min(i.min(), j.min())} to {max(i.max(), j.max())}; expected "
            f"numbers from 0 to {n_nodes - 1}, the rows of unary."
        )
    if bool((i == j).any()):
        node = int(i[i == j][0])
        raise ValueError(f"weights joins node {node} to itself; remove such edges.")
    return EdgeGroup(i, j, array)


def _as_weight(weight: ArrayLike, name: str) -> NDArray[Any]:
    array = as_numbers(weight, name)
    if array.dtype.kind in "bui":
        if array.dtype == np.uint64 and array.size and int(array.max()) > np.iinfo(np.int64).max:
            raise ValueError(
                f"{name} holds {array.max()}, which overflows int64: pass floats, or divide "
                f"all costs by a common factor."
            )
        return array.astype(np.int64, copy=False)
    wide = array.dtype.itemsize >= 8
    dtype = np.float64 if wide else np.float32
    if not bool(np.isfinite(array).all()):
        raise ValueError(f"{name} holds NaN or infinite weights; expected finite costs.")
    check_magnitude(array, name, largest=float(np.finfo(dtype).max))
    return array.astype(dtype, copy=False)
