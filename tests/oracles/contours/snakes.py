"""Slow twins of ``kernels.contours.snakes``: whole arrays, one definition after the other."""

from __future__ import annotations

import math
from itertools import product

import numpy as np

BOX = list(product((-1, 0, 1), repeat=3))
#: Normals of the planes through a pixel; in an image, of the lines.
NORMALS = [(1, 0, 0), (1, 1, 0), (1, -1, 0), (1, 0, 1), (1, 0, -1)]
FLAT_NORMALS = [(0, 1, 0), (0, 0, 1), (0, 1, 1), (0, 1, -1)]


def shifted(labels, offset):
    """The label of the neighbor at ``offset`` of each pixel; 0 outside."""
    padded = np.pad(labels, 1)
    return padded[tuple(slice(1 + o, 1 + o + n) for o, n in zip(offset, labels.shape, strict=True))]


def elements(flat):
    for normal in FLAT_NORMALS if flat else NORMALS + FLAT_NORMALS:
        yield [o for o in BOX if np.dot(o, normal) == 0 and not (flat and o[0])]


def sup_inf(labels, flat):
    return np.max([np.min([shifted(labels, o) for o in e], axis=0) for e in elements(flat)], axis=0)


def inf_sup(labels, flat):
    return np.min([np.max([shifted(labels, o) for o in e], axis=0) for e in elements(flat)], axis=0)


def smooth(labels, flat, passes, flip):
    for _ in range(passes):
        first, second = (sup_inf, inf_sup) if flip else (inf_sup, sup_inf)
        labels = second(first(labels, flat), flat)
        flip = not flip
    return labels, flip


def slopes(values):
    """Central differences along each axis; 0 along an axis of one pixel."""
    if values.dtype.kind != "f":
        values = values.astype(float)
    return [
        np.gradient(values, axis=axis) if n > 1 else np.zeros_like(values)
        for axis, n in enumerate(values.shape)
    ]


def repeat(step, labels, n_iter, smoothing):
    """Do all iterations; return the number after which the labels first repeated."""
    back = 1 + smoothing % 2
    history = [labels.copy()]
    flip = False
    for _ in range(n_iter):
        new, flip = step(history[-1].copy(), flip)
        history.append(new)
    labels[...] = history[-1]
    for t in range(back, n_iter + 1):
        if np.array_equal(history[t], history[t - back]):
            return t, True
    return n_iter, False


def evolve_regions(image, labels, flat, n_iter, smoothing, weights):
    def step(u, flip):
        outer, inner = (
            image.dtype.type(math.fsum(image[u == label].tolist()) / ((u == label).sum() + 1e-8))
            for label in (0, 1)
        )
        frontier = np.abs(slopes(u)).sum(axis=0) > 0
        force = weights[1] * (image - inner) ** 2 - weights[0] * (image - outer) ** 2
        u[frontier & (force < 0)] = 1
        u[frontier & (force > 0)] = 0
        return smooth(u, flat, smoothing, flip)

    return repeat(step, labels, n_iter, smoothing)


def evolve_contour(edges, force, weight, grows, balloon, held, labels, flat, n_iter, smoothing):
    reach = [o for o in BOX if not (flat and o[0])]

    def step(u, flip):
        if balloon:
            extreme = np.max if balloon > 0 else np.min
            moved = extreme([shifted(u, o) for o in reach], axis=0)
            u[grows > 0] = moved[grows > 0]
        pull = np.zeros_like(edges)
        along = slopes(u)
        if weight:
            for of_edges, of_labels in zip(slopes(edges), along, strict=True):
                pull += of_edges * of_labels
        if len(force):
            pull = weight * pull.astype(float) - force.reshape(u.shape) * np.abs(along).sum(axis=0)
            pull = pull.astype(edges.dtype)
        u[pull > 0] = 1
        u[pull < 0] = 0
        u, flip = smooth(u, flat, smoothing, flip)
        if held.shape[1:] == u.shape:
            u[held[0] > 0] = 0
            u[held[1] > 0] = 1
        return u, flip

    return repeat(step, labels, n_iter, smoothing)
