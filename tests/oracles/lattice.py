"""The permutohedral lattice as one filter (Adams, Baek and Davis 2010), in float64.

A value is spread over the corners of its point's simplex (*splat*), the corners are smoothed along
the lattice directions (*blur*), and the result is read back at the points (*slice*).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hybridseg.kernels.dense import lattice_build as kernels
from tests.oracles.dense.lattice_build import link_neighbors, place_points


class Lattice(NamedTuple):
    """Corners (n, d + 1), their shares (n, d + 1), neighbors (d + 1, M, 2); M stands for none."""

    vertices: np.ndarray
    weights: np.ndarray
    neighbors: np.ndarray

    @property
    def n_vertices(self):
        return len(self.neighbors[0])


def build(features):
    vertices, weights, vertex_keys = place_points(features)
    return Lattice(vertices, weights, link_neighbors(vertex_keys))


def build_by_kernels(features):
    """The same lattice, for more points than the slow placement can handle."""
    shape = len(features), features.shape[1] + 1
    vertices, weights = np.empty(shape, np.int32), np.empty(shape)
    places = kernels.place_points(np.asarray(features, np.float64), vertices, weights)
    neighbors = np.empty((shape[1], places.n_vertices, 2), np.int32)
    kernels.link_neighbors(places, places.n_vertices, 0, neighbors)
    return Lattice(vertices, weights, neighbors)


def splat(vertices, weights, values, n_vertices):
    table = np.zeros((n_vertices + 1, values.shape[1]))
    np.add.at(table, vertices, weights[..., np.newaxis] * values[:, np.newaxis])
    return table


def blur(neighbors, table, reverse=False):
    table = table.copy()
    for along in neighbors[::-1] if reverse else neighbors:
        table[:-1] += 0.5 * (table[along[:, 0]] + table[along[:, 1]])
    return table


def slice_add(vertices, weights, table, out):
    alpha = 1 / (1 + 2.0 ** (1 - vertices.shape[1]))
    out += alpha * (weights[..., np.newaxis] * table[vertices]).sum(axis=1)


def apply(lattice, values, reverse=False):
    table = splat(lattice.vertices, lattice.weights, values, lattice.n_vertices)
    out = np.zeros(values.shape)
    table = blur(lattice.neighbors, table, reverse)
    slice_add(lattice.vertices, lattice.weights, table, out)
    return out
