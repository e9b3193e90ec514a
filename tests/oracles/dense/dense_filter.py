"""All lattices as one filter, slowly: in float64, with tables (rows, K), point by point."""

from __future__ import annotations

import numpy as np

from hybridseg.kernels.dense.dense_filter import DenseFilter, Tables
from tests.oracles import lattice


def embed(features, n_points):
    """Corners side by side, numbered consecutively; weights over the root of the row sums."""
    lattices = [lattice.build(each) for each in features]
    n_rows = sum(each.n_vertices for each in lattices) + 1
    vertices, weights = np.zeros((n_points, 0), int), np.zeros((n_points, 0))
    links, sections, first = np.zeros((0, 2), int), [], 0
    for each in lattices:
        sums = lattice.apply(each, np.ones((n_points, 1)))
        alpha = 1 / (1 + 2.0 ** (1 - each.vertices.shape[1]))
        sections.append((first, each.n_vertices, len(each.neighbors), len(links)))
        vertices = np.hstack([vertices, each.vertices + first])
        weights = np.hstack([weights, each.weights * np.sqrt(alpha / sums)])
        missing = each.neighbors == each.n_vertices
        rows = np.where(missing, n_rows - 1, each.neighbors + first)
        links = np.vstack([links, rows.reshape(-1, 2)])
        first += each.n_vertices
    return DenseFilter(vertices, weights, links, np.array(sections, int).reshape(-1, 4))


def tables_for(dense, n_channels):
    """A table of zeros; two or more channels are padded to a multiple of eight."""
    width = next(n for n in (1, *range(8, 1000, 8)) if n >= n_channels)
    shape = (dense.n_rows, width)
    return Tables(np.zeros((dense.n_parts, *shape)), np.zeros(shape), np.zeros(shape))


def spread(dense, values):
    """The sum of all parts, (rows, K), of values (n, K)."""
    table = np.zeros((dense.n_rows, values.shape[1]))
    for i in range(len(values)):
        for vertex, weight in zip(dense.vertices[i], dense.weights[i], strict=True):
            table[vertex] += weight * values[i]
    return table


def spread_one(values, vertices, weights):
    table = np.zeros(vertices.max(initial=0) + 1)
    np.add.at(table, vertices, weights * values[:, np.newaxis])
    return table


def read_one(vertices, weights, table):
    return (weights * table[vertices]).sum(axis=1)


def add_parts(dense, scales, parts):
    """The sum of parts (n_parts, rows, K), scaled for each section."""
    table = parts.astype(np.float64).sum(axis=0)
    for (first, size, *_), scale in zip(dense.sections, scales, strict=True):
        table[first : first + size] *= scale
    return table


def blur(dense, table):
    """Smooth each section of (rows, K), direction by direction."""
    table = table.copy()
    for first, size, n_axes, place in dense.sections:
        own = slice(first, first + size)
        for axis in range(n_axes):
            ahead, behind = dense.links[place + axis * size : place + (axis + 1) * size].T
            table[own] = table[own] + 0.5 * (table[ahead] + table[behind])
    return table


def smooth(dense, scales, table):
    """Scale and smooth each section of (rows, K)."""
    return blur(dense, add_parts(dense, scales, table[np.newaxis]))


def filtered(dense, scales, values):
    """``sum_m scales_m N_m^-1/2 K_m N_m^-1/2`` times values (n, K)."""
    table = smooth(dense, scales, spread(dense, values))
    return (dense.weights[..., np.newaxis] * table[dense.vertices]).sum(axis=1)


def total_weights(dense, scales):
    return filtered(dense, scales, np.ones((len(dense.vertices), 1)))[:, 0]
