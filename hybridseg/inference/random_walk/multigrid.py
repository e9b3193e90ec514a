"""Multigrid for Laplacians of image grids, with interpolation that follows the image's edges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels.laplacian.multigrid import (
    LINKS,
    MOVES,
    N_COLUMNS,
    N_MOVES,
    N_POINTS,
    N_ROWS,
    POINTS,
    ROWS,
    STEPS,
    WEIGHTS,
    coarse_links,
    cycle,
    interpolation,
    invert,
    prolong,
    restrict,
)
from hybridseg.kernels.laplacian.random_walker import multiply
from hybridseg.kernels.laplacian.stencils import LANES
from hybridseg.kernels.vectors.padding import padded
from hybridseg.kernels.vectors.simd import aligned

#: The largest number of pixels of a level that is solved by its inverse matrix.
_MAX_DIRECT_PIXELS = 100
#: The steps of the smoother before and after the coarse correction, and the ratio of the largest to
#: the smallest eigenvalue that it damps.
_DEGREE, _EIGENVALUE_RATIO = 3, 14.0

Offset = tuple[int, ...]


@dataclass(frozen=True)
class Grid:
    """The layout of a pixel grid in flat memory, with a border along every axis longer than one.

    A grid of one pixel has a border along its last axis. The length of a row is a multiple of
    eight, so that rows are aligned: a vector in two cache lines takes twice the time.

    Attributes
    ----------
    shape : tuple of int
        The pixels along each axis.
    """

    shape: tuple[int, ...]

    @cached_property
    def border(self) -> tuple[int, ...]:
        if max(self.shape) == 1:
            return (*(0 for _ in self.shape[1:]), 1)
        return tuple(int(n > 1) for n in self.shape)

    @cached_property
    def bordered(self) -> tuple[int, ...]:
        sizes = [n + 2 * b for n, b in zip(self.shape, self.border, strict=True)]
        sizes[-1] = padded(sizes[-1], LANES)
        return tuple(sizes)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        sizes = self.bordered
        return tuple(prod(sizes[axis + 1 :]) for axis in range(len(sizes)))

    @cached_property
    def size(self) -> int:
        return prod(self.bordered)

    @property
    def inside(self) -> tuple[slice, ...]:
        pairs = zip(self.border, self.shape, strict=True)
        return tuple(slice(b, b + n) for b, n in pairs)

    def distance(self, offset: Offset) -> int:
        return sum(step * stride for step, stride in zip(offset, self.strides, strict=True))

    def spread(self, values: NDArray[Any], fill: Any, dtype: Any = None) -> NDArray[Any]:
        """Return values ``(*shape, ...)`` in the bordered layout, flat over the grid's axes."""
        rest = values.shape[len(self.shape) :]
        out = np.full((*self.bordered, *rest), fill, dtype or values.dtype)
        out[self.inside] = values
        return out.reshape(self.size, *rest)

    def gather(self, flat: NDArray[Any]) -> NDArray[Any]:
        """Return the pixels ``(K, *shape)`` of flat rows (K, n)."""
        return flat.reshape(-1, *self.bordered)[(slice(None), *self.inside)]

    def axis_offsets(self) -> tuple[Offset, ...]:
        """Return the offset to the next pixel along each axis longer than one; at least one."""
        axes = [axis for axis, n in enumerate(self.shape) if n > 1] or [len(self.shape) - 1]
        return tuple(tuple(int(a == axis) for a in range(len(self.shape))) for axis in axes)

    def all_offsets(self) -> tuple[Offset, ...]:
        """Return half of the full neighborhood, with diagonals; at least one offset."""
        steps = [(-1, 0, 1) if n > 1 else (0,) for n in self.shape]
        zero = (0,) * len(self.shape)
        return tuple(o for o in product(*steps) if o > zero) or self.axis_offsets()

    def distances(self, offsets: tuple[Offset, ...]) -> NDArray[np.int64]:
        return np.array([self.distance(o) for o in offsets], np.int64)


@dataclass(frozen=True, eq=False)
class Operator:
    """A Laplacian on a grid: links to the neighbors at ``offsets``, and to the ground."""

    grid: Grid
    offsets: tuple[Offset, ...]
    links: NDArray[Any]
    ground: NDArray[Any]

    @cached_property
    def steps(self) -> NDArray[np.int64]:
        """The distances to the neighbors in memory."""
        return self.grid.distances(self.offsets)

    @cached_property
    def strides(self) -> tuple[int, ...]:
        """The steps as a tuple, whose length is known when kernels are compiled."""
        return tuple(self.steps.tolist())

    @property
    def diagonal(self) -> NDArray[np.float64]:
        total = self.ground.astype(np.float64)
        for links, step in zip(self.links, self.steps, strict=True):
            total += links
            total[step:] += links[:-step]
        return total

    def greatest_eigenvalue(self, diagonal: NDArray[Any]) -> float:
        """Return Gershgorin's bound for the operator over its diagonal; 2 if no link is < 0."""
        if not (self.links < 0).any():
            return 2.0
        total = np.abs(diagonal)
        for links, step in zip(np.abs(self.links), self.steps, strict=True):
            total += links
            total[step:] += links[:-step]
        return float((total / diagonal).max())

    def add_product(
        self, x: NDArray[Any], right: NDArray[Any], sign: float, out: NDArray[Any]
    ) -> NDArray[Any]:
        """Write ``right + sign A x`` to ``out``, all (n,)."""
        multiply(self.links, self.strides, self.ground, x, right, sign, out)
        return out

    def matrix(self) -> NDArray[Any]:
        """Return the dense matrix (n, n)."""
        matrix = np.diag(self.diagonal)
        for links, step in zip(self.links, self.steps, strict=True):
            i = np.flatnonzero(links)
            matrix[i, i + step] = matrix[i + step, i] = -links[i]
        return matrix


@dataclass(frozen=True, eq=False)
class Transfer:
    """Interpolation and restriction between a grid and the grid of every second pixel."""

    base: NDArray[np.int64]
    coarse: NDArray[np.int64]
    moves: NDArray[np.int64]
    weights: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Level:
    """A level of the hierarchy: operator, diagonal, and transfer to the next level."""

    operator: Operator
    diagonal: NDArray[Any]
    transfer: Transfer

    def smoother(self) -> tuple[list[float], list[float]]:
        """Return the fraction of the last step that each Chebyshev step keeps, and its gain."""
        high = self.operator.greatest_eigenvalue(self.diagonal)
        low = high / _EIGENVALUE_RATIO
        middle, half = (high + low) / 2, (high - low) / 2
        rho = half / middle
        keeps, gains = [0.0], [1 / middle]
        for _ in range(1, _DEGREE):
            following = 1 / (2 * middle / half - rho)
            keeps.append(following * rho)
            gains.append(2 * following / half)
            rho = following
        return keeps, gains


@dataclass(frozen=True, eq=False)
class Multigrid:
    """A symmetric V-cycle: an approximate inverse of an operator in the time of a few products.

    Interpolation is that of black-box multigrid [1]_: a pixel between coarse pixels takes their
    mean, weighted by its links to them, so that values do not cross edges of the image. Coarse
    operators are Galerkin products. The smoother is a Chebyshev iteration [2]_.

    Attributes
    ----------
    size : int
        The number of points of the finest grid, borders included.
    hierarchy : tuple of arrays
        All levels, in float32; see :func:`hybridseg.kernels.laplacian.multigrid.cycle`.
    keeps, gains : ndarray of float64, (levels, degree)
        The coefficients of the smoothers.

    References
    ----------
    .. [1] J. E. Dendy, "Black box multigrid", Journal of Computational Physics 48, 1982.
    .. [2] M. Adams, M. Brezina, J. Hu, R. Tuminaro, "Parallel multigrid smoothing: polynomial
       versus Gauss-Seidel", Journal of Computational Physics 188, 2003.
    """

    size: int
    hierarchy: tuple[Any, ...]
    keeps: NDArray[np.float64]
    gains: NDArray[np.float64]

    @classmethod
    def build(cls, operator: Operator) -> Multigrid:
        size, levels = operator.grid.size, []
        while prod(operator.grid.shape) > _MAX_DIRECT_PIXELS:
            diagonal = operator.diagonal
            transfer, coarse = _coarsen(operator, diagonal)
            levels.append(Level(operator, diagonal, transfer))
            operator = coarse
        smoothers = [level.smoother() for level in levels]
        keeps, gains = (
            np.array([pair[which] for pair in smoothers]).reshape(-1, _DEGREE) for which in (0, 1)
        )
        return cls(size, _hierarchy(levels, operator), keeps, gains)

    def workspace(self) -> NDArray[np.float32]:
        """Return working memory for :meth:`apply`; each thread needs its own."""
        plan = self.hierarchy[0]
        return aligned((5, plan[-1, POINTS] + plan[-1, N_POINTS]), np.float32)

    def apply(self, workspace: NDArray[np.float32]) -> NDArray[np.float32]:
        """Approximate ``A^-1 r`` for r = ``workspace[0, :n]`` (a view until the next call)."""
        row = cycle(self.hierarchy, workspace, self.keeps, self.gains)
        return workspace[row, : self.size]


def _hierarchy(levels: list[Level], coarsest: Operator) -> tuple[Any, ...]:
    """Return the concatenated arrays of all levels, after a table of where each begins."""
    strides = [level.operator.strides for level in levels] or [(1,)]
    # Pad all coarse levels to the same number of neighbors, which is compiled into the kernel.
    most = max(map(len, strides[1:]), default=len(strides[0]))
    strides[1:] = [(*steps, *(1,) * (most - len(steps))) for steps in strides[1:]]
    links = [level.operator.links for level in levels]
    links[1:] = [np.pad(rows, ((0, most - len(rows)), (0, 0))) for rows in links[1:]]
    ground = [level.operator.ground for level in levels]
    weights = [level.transfer.weights.ravel() for level in levels]
    moves = [level.transfer.moves for level in levels]
    bases = [level.transfer.base for level in levels]
    sizes = [*map(len, ground), coarsest.grid.size]
    plan = np.zeros((len(sizes), N_COLUMNS), np.int64)
    plan[:, N_POINTS], plan[1:, POINTS] = sizes, np.cumsum(sizes[:-1])
    for start, length, parts in (
        (LINKS, None, [rows.ravel() for rows in links]),
        (STEPS, None, strides[: len(levels)]),
        (WEIGHTS, None, weights),
        (MOVES, N_MOVES, moves),
        (ROWS, N_ROWS, bases),
    ):
        lengths = [len(part) for part in parts]
        plan[1:, start] = np.cumsum(lengths)
        if length is not None:
            plan[:-1, length] = lengths
    inverse = [1 / level.diagonal for level in levels]
    places = np.flatnonzero(coarsest.grid.spread(np.ones(coarsest.grid.shape, bool), False))
    matrix = coarsest.matrix()[np.ix_(places, places)]
    invert(matrix)
    return (
        plan,
        *(_joined(parts, np.float32) for parts in (links, ground, inverse, weights)),
        *(_joined(parts, np.int64) for parts in (strides, moves)),
        np.concatenate([np.zeros((0, 3), np.int64), *bases]),
        np.concatenate([np.zeros((0, 1), np.int64), *(v.transfer.coarse for v in levels)]),
        matrix.astype(np.float32),
        places,
        strides[0],
        strides[-1] if len(levels) > 1 else strides[0],
    )


def _joined(parts: Sequence[Any], dtype: Any) -> NDArray[Any]:
    """Return the concatenated numbers of all parts."""
    out = aligned((sum(map(np.size, parts)),), dtype)
    start = 0
    for part in parts:
        out[start : start + np.size(part)] = np.ravel(part)
        start += np.size(part)
    return out


def _rows(fine: Grid, coarse: Grid) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where each row of coarse points starts, in the fine and in the coarse layout."""
    factors = [1 if n == 1 else 2 for n in fine.shape]
    places = np.indices((*coarse.shape[:-1], 1)).reshape(len(coarse.shape), -1)
    from_ = sum(
        (place * f + b) * s
        for place, f, b, s in zip(places, factors, fine.border, fine.strides, strict=True)
    )
    to = sum(
        (place + b) * s for place, b, s in zip(places, coarse.border, coarse.strides, strict=True)
    )
    n_rows = places.shape[1]
    base = np.empty((n_rows, 3), np.int64)
    base[:, 0], base[:, 1], base[:, 2] = from_, factors[-1], coarse.shape[-1]
    return base, np.ascontiguousarray(np.asarray(to, np.int64)[:, np.newaxis])


@dataclass(frozen=True, eq=False)
class Stencil:
    """The links that make up a coarse grid; the same for all points and sizes of grids.

    Attributes
    ----------
    near : ndarray of int64, (S, d)
        Offsets from a coarse point to its fine neighbors, the point itself first.
    first, links, backs : ndarray of int64, (S + 1,), (E, 2) and (E, d)
        For each link in the interpolation: its row and the neighbor to which it leads; the offset
        back to the pixel where it is stored.
    products, product_backs, far : ndarray of int64, (P, 4), (P, d) and (P, d)
        For each product in the coarse links: the neighbor, the link's row (-1 for the diagonal),
        the other coarse point's neighbor, the coarse link's row; the offset back to the pixel where
        the link is stored; the offset to the other coarse point.
    """

    near: NDArray[np.int64]
    first: NDArray[np.int64]
    links: NDArray[np.int64]
    backs: NDArray[np.int64]
    products: NDArray[np.int64]
    product_backs: NDArray[np.int64]
    far: NDArray[np.int64]

    def interpolation_table(self, fine: Grid) -> NDArray[np.int64]:
        """Return the table for :func:`hybridseg.kernels.laplacian.multigrid.interpolation`."""
        return np.insert(self.links, 1, self.backs @ fine.strides, axis=1)

    def product_table(self, fine: Grid, coarse: Grid) -> NDArray[np.int64]:
        """Return the table for :func:`hybridseg.kernels.laplacian.multigrid.coarse_links`."""
        s, row, other, target = self.products.T
        backs, far = self.product_backs @ fine.strides, self.far @ coarse.strides
        return np.stack([s, row, backs, other, far, target], axis=1)


@lru_cache(maxsize=64)
def _stencil(
    offsets: tuple[Offset, ...], wide: tuple[bool, ...], coarse_offsets: tuple[Offset, ...]
) -> Stencil:
    """Return the stencil for a fine grid whose ``wide`` axes are longer than one."""
    zero = (0,) * len(wide)
    near = list(product(*((-1, 0, 1) if w else (0,) for w in wide)))
    near.sort(key=lambda s: (sum(map(abs, s)), s))
    position = {s: number for number, s in enumerate(near)}
    targets = {far: row for row, far in enumerate(coarse_offsets)}
    signed = [(o, row, zero) for row, o in enumerate(offsets)]
    signed += [(tuple(-step for step in o), row, o) for row, o in enumerate(offsets)]
    first, links, products = [0], [], []
    for s in near:
        for offset, row, back in signed:
            # A link along only the other axes is folded into the pixel itself.
            folded = tuple(t if a else 0 for t, a in zip(offset, s, strict=True))
            if any(folded):
                leads = tuple(a + t for a, t in zip(s, folded, strict=True))
                links.append((row, position.get(leads, -1), *back))
        first.append(len(links))
        for offset, row, back in [*signed, (zero, -1, zero)]:
            for far, other in _parents(tuple(a + b for a, b in zip(s, offset, strict=True))):
                if far in targets and other in position:
                    numbers = (position[s], row, position[other], targets[far])
                    products.append((*numbers, *back, *far))
    axes = len(wide)
    link_rows = np.array(links or [(0, -1, *zero)], np.int64)
    product_rows = np.array(products, np.int64).reshape(-1, 4 + 2 * axes)
    return Stencil(
        np.array(near, np.int64),
        np.array(first, np.int64),
        *np.split(link_rows, [2], axis=1),
        *np.split(product_rows, [4, 4 + axes], axis=1),
    )


@cache
def _parents(place: Offset) -> tuple[tuple[Offset, Offset], ...]:
    """Return the coarse points next to a fine one, each with the offset to the fine one."""
    choices = [(a // 2,) if a % 2 == 0 else (a // 2, a // 2 + 1) for a in place]
    return tuple(
        (far, tuple(a - 2 * c for a, c in zip(place, far, strict=True)))
        for far in product(*choices)
    )


def _coarsen(operator: Operator, diagonal: NDArray[Any]) -> tuple[Transfer, Operator]:
    fine = operator.grid
    coarse = Grid(tuple((n + 1) // 2 for n in fine.shape))
    offsets = coarse.all_offsets()
    stencil = _stencil(operator.offsets, tuple(n > 1 for n in fine.shape), offsets)
    moves = stencil.near @ fine.strides
    base, to = _rows(fine, coarse)
    weights = aligned((len(moves), coarse.size), np.float64)
    table = stencil.interpolation_table(fine)
    interpolation(operator.links, operator.ground, base, to, moves, stencil.first, table, weights)
    links = aligned((len(offsets), coarse.size), np.float64)
    sums = stencil.product_table(fine, coarse)
    coarse_links(operator.links, diagonal, base, to, moves, weights, sums, links)
    ground = _coarse_ground(operator, coarse, base, to, moves, weights)
    transfer = Transfer(base, to, moves, weights.astype(np.float32))
    return transfer, Operator(coarse, offsets, links, ground)


def _coarse_ground(
    operator: Operator,
    coarse: Grid,
    base: NDArray[np.int64],
    to: NDArray[np.int64],
    moves: NDArray[np.int64],
    weights: NDArray[Any],
) -> NDArray[Any]:
    """Return the row sums ``P^T A P 1``, from differences, so that tiny ones stay accurate."""
    ones = coarse.spread(np.ones(coarse.shape), 0.0)
    reach = np.zeros(operator.grid.size)
    prolong(base, to, moves, weights, ones, reach)
    pulled = operator.add_product(reach, np.zeros_like(reach), 1.0, np.zeros_like(reach))
    ground = np.ones(coarse.size)
    restrict(base, to, moves, weights, pulled, ground)
    return ground
