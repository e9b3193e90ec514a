"""The lattice's vertices, slowly: in float64, with tuples of coordinates numbered by a dict."""

from __future__ import annotations

import numpy as np


def elevate(feature):
    """Lift a point of R^d into the plane of zero sum: E f of Adams et al. (2010), section 3.1.

    The unit is d + 1, so that lattice points of remainder 0 have integer coordinates.
    """
    d = len(feature)
    scaled = [float(feature[j]) * np.sqrt(2 / 3 / ((j + 1) * (j + 2))) for j in range(d)]
    lifted = np.zeros(d + 1)
    later = 0.0
    for j in range(d, 0, -1):
        lifted[j] = later - j * scaled[j - 1]
        later += scaled[j - 1]
    lifted[0] = later
    return lifted


def falling_order(rest):
    """Indices that sort in descending order; of equal values the first comes first."""
    return np.argsort(-rest, kind="stable")


def simplices(features):
    """Corners (n, d + 1, d + 1) as integer coordinates, and barycentric weights (n, d + 1)."""
    n, d = features.shape
    corners = np.zeros((n, d + 1, d + 1), dtype=int)
    weights = np.zeros((n, d + 1))
    for i in range(n):
        lifted = elevate(features[i])
        origin = np.rint(lifted).astype(int)
        order = falling_order(lifted - origin)
        excess = origin.sum()
        if excess > 0:
            origin[order[-excess:]] -= 1
        elif excess < 0:
            origin[order[:-excess]] += 1
        order = np.roll(order, excess)
        rest = lifted - origin
        assert origin.sum() == 0
        for k in range(d + 1):
            corners[i, k] = (d + 1) * origin + k
            corners[i, k, order[d + 1 - k :]] -= d + 1
        falling = rest[order]
        weights[i, 0] = 1 - (falling[0] - falling[d])
        for k in range(1, d + 1):
            weights[i, k] = falling[d - k] - falling[d - k + 1]
    return corners, weights


def number_vertices(keys):
    """Numbers (n, d + 1) of the distinct last-axis rows, in the order of first appearance."""
    seen = {}
    numbers = [
        [seen.setdefault(tuple(key), len(seen)) for key in corners] for corners in keys.tolist()
    ]
    return np.array(numbers), np.array(list(seen))


def link_neighbors(vertex_keys):
    """Numbers (d + 1, M, 2) of the vertices one step ahead and one step back; M for none.

    ``vertex_keys`` are coordinates (M, d + 1); a step subtracts d from one and adds 1 to the rest.
    """
    n_vertices, n_axes = vertex_keys.shape
    seen = {tuple(key): number for number, key in enumerate(vertex_keys.tolist())}
    neighbors = np.full((n_axes, n_vertices, 2), n_vertices)
    for axis in range(n_axes):
        step = np.ones(n_axes, dtype=int)
        step[axis] = 1 - n_axes
        for number, key in enumerate(vertex_keys):
            neighbors[axis, number, 0] = seen.get(tuple((key + step).tolist()), n_vertices)
            neighbors[axis, number, 1] = seen.get(tuple((key - step).tolist()), n_vertices)
    return neighbors


def place_points(features):
    """Numbers and weights of the corners (n, d + 1), and coordinates (M, d + 1) of the vertices."""
    corners, weights = simplices(features)
    vertices, vertex_keys = number_vertices(corners)
    return vertices, weights, vertex_keys
