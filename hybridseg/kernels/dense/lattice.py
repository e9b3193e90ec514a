"""The permutohedral lattice (Adams, Baek, Davis 2010): a Gaussian filter in any dimension.

Points of R^d are lifted onto the hyperplane of R^(d+1) whose coordinates sum to zero, where the
lattice A*_d tiles space with simplices. A value is spread over the d + 1 corners of its simplex
(*splat*), the corners are smoothed along the d + 1 lattice directions (*blur*), and the result is
read back at the points (*slice*). With features divided by their standard deviations the three
together approximate the sum over all points of exp(-|f_i - f_j|^2 / 2) values_j, up to one
constant factor, in time linear in the number of points.

A corner of remainder k has coordinates ``(d + 1) q_j + k`` with integers q_j that sum to -k, so
that (k, q_0 .. q_(d-1)) names it. These integers are packed in mixed radix into one 64-bit word,
or into as many as a high dimension needs; a step along a lattice direction is then the addition
of a constant to the key.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from hybridseg.kernels._compile import parallel_kernel
from hybridseg.kernels.dense.lattice_build import link_neighbours, place_points

Real = NDArray[np.floating[Any]]
Numbers = NDArray[np.int32]


class Lattice(NamedTuple):
    """The part of a permutohedral lattice that ``n`` points of dimension ``d`` touch.

    Attributes
    ----------
    vertices : (n, d + 1) int32
        The corners of every point's simplex, as indices 0..M-1, from remainder 0 to d: each is one
        step of the lattice on from the one before.
    weights : (n, d + 1) float32 or float64
        Barycentric coordinates: what share of a point's value each corner receives.
    neighbours : (d + 1, M, 2) int32
        The vertices one step forward and one step back along each direction; ``M`` stands for a
        vertex that no point touches, whose value is zero.
    """

    vertices: Numbers
    weights: Real
    neighbours: Numbers

    @property
    def n_vertices(self) -> int:
        """Number of lattice vertices that exist."""
        return len(self.neighbours[0])


def build(features: Real) -> Lattice:
    """Place points in the lattice and find which vertices are neighbours.

    Vertices are numbered in the order in which the points first touch them.

    Parameters
    ----------
    features : (n, d) float32 or float64
        Positions, already divided by the standard deviations of the wanted Gaussian. The caller
        guarantees ``n >= 1``, ``d >= 1``, values within +-1e12 and ``n * (d + 1) < 2**31``.

    Returns
    -------
    Lattice
        With weights of the features' dtype.
    """
    shape = len(features), features.shape[1] + 1
    vertices, weights = np.empty(shape, np.int32), np.empty(shape, features.dtype)
    places = place_points(features, vertices, weights)
    neighbours = np.empty((shape[1], places.n_vertices, 2), np.int32)
    link_neighbours(places, places.n_vertices, 0, neighbours)
    return Lattice(vertices, weights, neighbours)


def apply(lattice: Lattice, values: Real, reverse: bool = False, out: Real | None = None) -> Real:
    """Filter ``values``: the product ``K @ values`` without forming ``K``.

    Parameters
    ----------
    lattice : Lattice
    values : (n, K) float32 or float64
        One row per point, C-contiguous.
    reverse : bool
        Blur the directions from last to first. That is the transpose of ``K``, which differs from
        ``K`` a little where neighbours are missing.
    out : (n, K) array, optional
        The product is added to it; a new array otherwise.

    Returns
    -------
    (n, K) array of the values' dtype
    """
    table = splat(lattice.vertices, lattice.weights, values, lattice.n_vertices, _n_parts(lattice))
    table = blur(lattice.neighbours, table, reverse)
    if out is None:
        out = np.zeros_like(values)
    slice_add(lattice.vertices, lattice.weights, table, out)
    return out


def _n_parts(lattice: Lattice) -> int:
    """How many tables splat fills side by side: few where they are large next to the values.

    It depends on the lattice alone, so that sums do not depend on the number of threads.
    """
    points_per_vertex = len(lattice.vertices) // lattice.n_vertices
    return 8 if points_per_vertex >= 12 else 4 if points_per_vertex >= 4 else 2


@parallel_kernel
def splat(vertices: Numbers, weights: Real, values: Real, n_vertices: int, n_parts: int) -> Real:
    """Spread values over the corners of their simplices.

    Parameters
    ----------
    vertices, weights : (n, d + 1)
    values : (n, K) float, C-contiguous
    n_vertices : int
    n_parts : int
        The points are cut into so many runs, each summed into a table of its own; the sums depend
        on it in their last bits, and not on the number of threads.

    Returns
    -------
    (M + 1, K) of the values' dtype
        Row M is zero: the value of every missing vertex.
    """
    n_points, n_corners = vertices.shape
    n_channels = values.shape[1]
    parts = np.zeros((n_parts, n_vertices + 1, n_channels), values.dtype)
    for part in prange(n_parts):
        for i in range(part * n_points // n_parts, (part + 1) * n_points // n_parts):
            for corner in range(n_corners):
                vertex = vertices[i, corner]
                weight = weights[i, corner]
                for k in range(n_channels):
                    parts[part, vertex, k] += weight * values[i, k]
    for vertex in prange(n_vertices):
        for part in range(1, n_parts):
            for k in range(n_channels):
                parts[0, vertex, k] += parts[part, vertex, k]
    return parts[0]


@parallel_kernel
def blur(neighbours: Numbers, table: Real, reverse: bool) -> Real:
    """Smooth with [1/2, 1, 1/2] along every direction, in order 0..d or the reverse.

    Parameters
    ----------
    neighbours : (d + 1, M, 2) int32
    table : (M + 1, K) float
        Row M is zero. It is used as working memory.
    reverse : bool

    Returns
    -------
    (M + 1, K) of the same dtype
    """
    n_axes, n_vertices, _ = neighbours.shape
    n_channels = table.shape[1]
    half = table.dtype.type(0.5)
    blurred = np.zeros_like(table)
    for step in range(n_axes):
        axis = n_axes - 1 - step if reverse else step
        for vertex in prange(n_vertices):
            ahead = neighbours[axis, vertex, 0]
            behind = neighbours[axis, vertex, 1]
            for k in range(n_channels):
                blurred[vertex, k] = table[vertex, k] + half * (table[ahead, k] + table[behind, k])
        table, blurred = blurred, table
    return table


@parallel_kernel
def slice_add(vertices: Numbers, weights: Real, table: Real, out: Real) -> None:
    """Read the table at the points and add the result to ``out`` (n, K).

    The factor ``1 / (1 + 2^-d)`` makes up for the sum of the blur's taps as in Adams et al.
    """
    n_points, n_corners = vertices.shape
    n_channels = table.shape[1]
    alpha = 1.0 / (1.0 + 2.0 ** (1 - n_corners))
    for i in prange(n_points):
        for corner in range(n_corners):
            vertex = vertices[i, corner]
            weight = table.dtype.type(alpha * weights[i, corner])
            for k in range(n_channels):
                out[i, k] += weight * table[vertex, k]
