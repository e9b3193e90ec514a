"""Multigrid for Laplacians of image grids, with interpolation that follows the image's edges."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.kernels.random_walker import (
    coarse_links,
    interpolation,
    multiply,
    prolong,
    restrict,
    smooth,
)

#: Below so many points, borders included, a level is solved by its inverse matrix.
_DIRECT = 400
#: Steps of the smoother before and after the coarse correction, and the ratio of the greatest to
#: the least eigenvalue that it damps.
_DEGREE, _SPREAD = 3, 14.0

Offset = tuple[int, ...]


@dataclass(frozen=True)
class Grid:
    """How a grid of pixels lies in flat memory: a border along every axis longer than one.

    A grid of one pixel has a border along its last axis.

    Attributes
    ----------
    shape : tuple of int
        The pixels along each axis.
    """

    shape: tuple[int, ...]

    @property
    def border(self) -> tuple[int, ...]:
        if max(self.shape) == 1:
            return (*(0 for _ in self.shape[1:]), 1)
        return tuple(int(n > 1) for n in self.shape)

    @property
    def bordered(self) -> tuple[int, ...]:
        return tuple(n + 2 * b for n, b in zip(self.shape, self.border, strict=True))

    @property
    def strides(self) -> tuple[int, ...]:
        sizes = self.bordered
        return tuple(int(np.prod(sizes[axis + 1 :])) for axis in range(len(sizes)))

    @property
    def size(self) -> int:
        return int(np.prod(self.bordered))

    @property
    def inside(self) -> tuple[slice, ...]:
        pairs = zip(self.border, self.shape, strict=True)
        return tuple(slice(b, b + n) for b, n in pairs)

    def distance(self, offset: Offset) -> int:
        return sum(step * stride for step, stride in zip(offset, self.strides, strict=True))

    def spread(self, values: NDArray[Any], fill: Any, dtype: Any = None) -> NDArray[Any]:
        """Values ``(*shape, ...)`` in the bordered layout, flat over the grid's axes."""
        rest = values.shape[len(self.shape) :]
        out = np.full((*self.bordered, *rest), fill, dtype or values.dtype)
        out[self.inside] = values
        return out.reshape(self.size, *rest)

    def gather(self, flat: NDArray[Any]) -> NDArray[Any]:
        """The pixels ``(K, *shape)`` of flat rows (K, n)."""
        return flat.reshape(-1, *self.bordered)[(slice(None), *self.inside)]

    def axis_offsets(self) -> tuple[Offset, ...]:
        """To the next pixel along each axis longer than one; at least one."""
        axes = [axis for axis, n in enumerate(self.shape) if n > 1] or [len(self.shape) - 1]
        return tuple(tuple(int(a == axis) for a in range(len(self.shape))) for axis in axes)

    def all_offsets(self) -> tuple[Offset, ...]:
        """Half of the full neighbourhood, diagonals included; at least one."""
        steps = [(-1, 0, 1) if n > 1 else (0,) for n in self.shape]
        zero = (0,) * len(self.shape)
        return tuple(o for o in product(*steps) if o > zero) or self.axis_offsets()

    def distances(self, offsets: tuple[Offset, ...]) -> NDArray[np.int64]:
        return np.array([self.distance(o) for o in offsets], np.int64)


@dataclass(frozen=True, eq=False)
class Operator:
    """A Laplacian on a grid: links to the neighbours at ``offsets``, and to the ground."""

    grid: Grid
    offsets: tuple[Offset, ...]
    links: NDArray[Any]
    ground: NDArray[Any]

    @property
    def diagonal(self) -> NDArray[Any]:
        total = self.ground.copy()
        for links, step in zip(self.links, self.grid.distances(self.offsets), strict=True):
            total += links
            total[step:] += links[:-step]
        return total

    def greatest_eigenvalue(self, diagonal: NDArray[Any]) -> float:
        """Gershgorin's bound for the operator divided by its diagonal; 2 where no link is < 0."""
        if not (self.links < 0).any():
            return 2.0
        total = np.abs(diagonal)
        for links, step in zip(np.abs(self.links), self.grid.distances(self.offsets), strict=True):
            total += links
            total[step:] += links[:-step]
        return float((total / diagonal).max())

    def add_product(
        self, x: NDArray[Any], right: NDArray[Any], sign: float, out: NDArray[Any]
    ) -> NDArray[Any]:
        """Write ``right + sign A x`` to ``out``."""
        steps = self.grid.distances(self.offsets)
        multiply(self.links, steps, self.ground, x, right, sign, out)
        return out

    def matrix(self) -> NDArray[Any]:
        """Written out (n, n)."""
        matrix = np.diag(self.diagonal)
        for links, step in zip(self.links, self.grid.distances(self.offsets), strict=True):
            i = np.flatnonzero(links)
            matrix[i, i + step] = matrix[i + step, i] = -links[i]
        return matrix


@dataclass(frozen=True, eq=False)
class Transfer:
    """From a grid to the grid of every second of its pixels, and back."""

    base: NDArray[np.int64]
    coarse: NDArray[np.int64]
    moves: NDArray[np.int64]
    weights: NDArray[Any]


@dataclass(frozen=True, eq=False)
class Level:
    """A grid of the hierarchy, with what its smoother needs, in 32 bits."""

    operator: Operator
    inverse: NDArray[np.float32]
    greatest: float
    transfer: Transfer
    rooms: dict[str, NDArray[np.float32]]

    def room(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """An array to work in, whose border is zero and stays so."""
        if name not in self.rooms or self.rooms[name].shape != shape:
            self.rooms[name] = np.zeros(shape, np.float32)
        return self.rooms[name]


@dataclass(frozen=True, eq=False)
class Multigrid:
    """A symmetric V-cycle: an approximate inverse of an operator, at the cost of a few products.

    Interpolation is that of black-box multigrid: a pixel between coarse ones takes their mean,
    weighted by its links to them, so that nothing is carried across an edge of the image. Coarse
    operators are Galerkin products.

    References
    ----------
    Dendy, "Black box multigrid", Journal of Computational Physics 48, 1982. Adams, Brezina, Hu and
    Tuminaro, "Parallel multigrid smoothing: polynomial versus Gauss-Seidel", Journal of
    Computational Physics 188, 2003 (the Chebyshev smoother).
    """

    levels: tuple[Level, ...]
    inverse: NDArray[np.float32]

    @classmethod
    def build(cls, operator: Operator) -> Multigrid:
        levels = []
        while operator.grid.size > _DIRECT:
            diagonal = operator.diagonal
            transfer, coarse = _coarsen(operator, diagonal)
            levels.append(
                Level(
                    _single(operator),
                    (1 / diagonal).astype(np.float32),
                    operator.greatest_eigenvalue(diagonal),
                    transfer,
                    {},
                )
            )
            operator = coarse
        return cls(tuple(levels), np.linalg.inv(operator.matrix()).astype(np.float32))

    def __call__(self, right: NDArray[np.float32], depth: int = 0) -> NDArray[np.float32]:
        """About ``A^-1 right``, for each row of ``right`` (K, n); the next call overwrites it."""
        if depth == len(self.levels):
            return right @ self.inverse
        level = self.levels[depth]
        x, other = level.room("x", right.shape), level.room("other", right.shape)
        x, other = _chebyshev(level, right, x, other, from_zero=True)
        rest = level.operator.add_product(x, right, -1.0, level.room("rest", right.shape))
        t = level.transfer
        below = level.room("below", (len(x), t.weights.shape[1]))
        restrict(t.base, t.coarse, t.moves, t.weights, rest, below)
        prolong(t.base, t.coarse, t.moves, t.weights, self(below, depth + 1), x)
        return _chebyshev(level, right, x, other, from_zero=False)[0]


def _chebyshev(
    level: Level,
    right: NDArray[np.float32],
    x: NDArray[np.float32],
    other: NDArray[np.float32],
    *,
    from_zero: bool,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Damp the upper part of the spectrum; returns where the result is, and the room left."""
    operator = level.operator
    steps = operator.grid.distances(operator.offsets)
    high, low = level.greatest, level.greatest / _SPREAD
    middle, half = (high + low) / 2, (high - low) / 2
    rho = half / middle
    keep, gain = 0.0, 1 / middle
    step = level.room("step", right.shape)
    for turn in range(_DEGREE):
        if turn:
            following = 1 / (2 * middle / half - rho)
            keep, gain, rho = following * rho, 2 * following / half, following
        if turn == 0 and from_zero:
            np.multiply(right, level.inverse * np.float32(gain), out=step)
            x[:] = step
            continue
        system = (operator.links, steps, operator.ground, level.inverse)
        smooth(*system, x, right, step, keep, gain, other)
        x, other = other, x
    return x, other


def _single(operator: Operator) -> Operator:
    links, ground = operator.links.astype(np.float32), operator.ground.astype(np.float32)
    return Operator(operator.grid, operator.offsets, links, ground)


def _rows(fine: Grid, coarse: Grid) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Where each row of coarse points starts, among the fine points and the coarse ones."""
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
    return base, np.ascontiguousarray(np.asarray(to, np.int64)[:, np.newaxis]), n_rows


def _signed(operator: Operator) -> list[tuple[Offset, int, int]]:
    """Every neighbour's offset, the row of its link, and how far back that is stored."""
    out = []
    for row, offset in enumerate(operator.offsets):
        out.append((offset, row, 0))
        out.append((tuple(-step for step in offset), row, operator.grid.distance(offset)))
    return out


def _coarsen(operator: Operator, diagonal: NDArray[Any]) -> tuple[Transfer, Operator]:
    fine = operator.grid
    coarse = Grid(tuple((n + 1) // 2 for n in fine.shape))
    around = [(-1, 0, 1) if n > 1 else (0,) for n in fine.shape]
    near = sorted(product(*around), key=lambda s: (sum(map(abs, s)), s))
    position = {s: number for number, s in enumerate(near)}
    moves = np.array([fine.distance(s) for s in near], np.int64)
    base, to, _ = _rows(fine, coarse)
    first, table = _interpolation_table(operator, near, position)
    weights = np.zeros((len(near), coarse.size))
    interpolation(operator.links, operator.ground, base, to, moves, first, table, weights)
    offsets = coarse.all_offsets()
    links = np.zeros((len(offsets), coarse.size))
    sums = _product_table(operator, coarse, near, position, offsets)
    coarse_links(operator.links, diagonal, base, to, moves, weights, sums, links)
    ground = _coarse_ground(operator, coarse, base, to, moves, weights)
    transfer = Transfer(base, to, moves, weights.astype(np.float32))
    return transfer, Operator(coarse, offsets, links, ground)


def _interpolation_table(
    operator: Operator, near: list[Offset], position: dict[Offset, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first, table = [0], []
    for s in near:
        for offset, row, back in _signed(operator):
            # a link along the other axes alone is folded into the pixel itself
            folded = tuple(t if a else 0 for t, a in zip(offset, s, strict=True))
            if any(folded):
                leads = tuple(a + t for a, t in zip(s, folded, strict=True))
                table.append((row, back, position.get(leads, -1)))
        first.append(len(table))
    return np.array(first, np.int64), np.array(table or [(0, 0, -1)], np.int64).reshape(-1, 3)


def _product_table(
    operator: Operator,
    coarse: Grid,
    near: list[Offset],
    position: dict[Offset, int],
    offsets: tuple[Offset, ...],
) -> NDArray[np.int64]:
    zero = (0,) * len(coarse.shape)
    table = []
    for s in near:
        for t, row, back in [*_signed(operator), (zero, -1, 0)]:
            for target, far in enumerate(offsets):
                leads = tuple(a + b - 2 * c for a, b, c in zip(s, t, far, strict=True))
                if leads in position:
                    at = coarse.distance(far)
                    table.append((position[s], row, back, position[leads], at, target))
    return np.array(table or np.zeros((0, 6)), np.int64).reshape(-1, 6)


def _coarse_ground(
    operator: Operator,
    coarse: Grid,
    base: NDArray[np.int64],
    to: NDArray[np.int64],
    moves: NDArray[np.int64],
    weights: NDArray[Any],
) -> NDArray[Any]:
    """The row sums ``P^T A P 1``, from differences, so that what is next to nothing stays so."""
    ones = coarse.spread(np.ones(coarse.shape), 0.0)[np.newaxis]
    reach = np.zeros((1, operator.grid.size))
    prolong(base, to, moves, weights, ones, reach)
    pulled = operator.add_product(reach, np.zeros_like(reach), 1.0, np.zeros_like(reach))
    ground = np.ones((1, coarse.size))
    restrict(base, to, moves, weights, pulled, ground)
    return ground[0]
