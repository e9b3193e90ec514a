"""Region competition: labels compete for pixels by their costs, with contours that move."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridseg.features.gaussians import smooth
from hybridseg.features.pixels import derivative
from hybridseg.inference.contours.chan_vese import length_and_costs
from hybridseg.kernels.contours.snakes import evolve_contour

# The radius of Gaussians, in standard deviations.
TRUNCATE = 4.0


class MorphologicalContour(NamedTuple):
    """A morphological contour: costs and edges move it, and smoothing makes it shorter.

    Attributes
    ----------
    n_iter, smoothing : int
        The largest number of iterations, and the steps of smoothing in each.
    sigma : float
        Standard deviation of the Gaussian over the costs, in pixels of the finest axis.
    edge_weight : float
        The weight of image edges, in the unit of the costs.
    """

    n_iter: int
    smoothing: int
    sigma: float
    edge_weight: float

    @property
    def rim(self) -> int:
        """The number of pixels by which the image is padded.

        Labels outside of the image are 0, so without padding smoothing would erode its corners.
        """
        return 2 * self.smoothing + 1

    def moved(
        self,
        difference: NDArray[np.float32],
        edges: NDArray[np.float32] | None,
        held: NDArray[np.bool_] | None,
    ) -> NDArray[np.bool_]:
        """Return where a label wins that costs ``difference`` more than the cheapest other one."""
        labels = (difference < 0).astype(np.uint8)
        space = (1,) * (3 - difference.ndim) + difference.shape
        fixed = np.zeros((2, 1, 1, 1), np.uint8)
        if held is not None:
            labels[held[0]], labels[held[1]] = 0, 1
            fixed = held.astype(np.uint8).reshape(2, *space)
        evolve_contour(
            (difference if edges is None else edges).reshape(space),
            difference.reshape(-1),
            np.float32(0 if edges is None else self.edge_weight),
            np.zeros((1, 1, 1), np.uint8),
            0,
            fixed,
            labels.reshape(space),
            difference.ndim == 2,
            self.n_iter,
            self.smoothing,
        )
        return labels.view(np.bool_)


class ChanVeseContour(NamedTuple):
    """A Chan-Vese level set: costs move it, and its length has a cost.

    Attributes
    ----------
    n_iter : int
        The largest number of iterations.
    sigma : float
        Standard deviation of the Gaussian over the costs, in pixels.
    mu : float
        The cost of a pixel of the contour's length.
    """

    n_iter: int
    sigma: float
    mu: float

    @property
    def edge_weight(self) -> float:
        """Zero: this contour does not use image edges."""
        return 0.0

    @property
    def rim(self) -> int:
        """Zero: the scheme has its own boundary condition and needs no padding."""
        return 0

    def moved(
        self,
        difference: NDArray[np.float32],
        edges: NDArray[np.float32] | None,
        held: NDArray[np.bool_] | None,
    ) -> NDArray[np.bool_]:
        """Return where a label wins that costs ``difference`` more than the cheapest other one."""
        return length_and_costs(difference, self.mu, self.n_iter, held)


def compete(
    costs: NDArray[np.float32],
    edges: NDArray[np.float32] | None,
    seeds: NDArray[np.int64] | None,
    contour: MorphologicalContour | ChanVeseContour,
    sides: tuple[float, ...],
) -> NDArray[np.int32]:
    """Return labels (*spatial,) for costs (*spatial, L).

    For two labels, one contour evolves. For more, one contour for each label evolves against the
    cheapest other label. A pixel inside several contours gets the cheapest of these labels, a pixel
    inside none the cheapest of all.

    Parameters
    ----------
    costs : ndarray of float32, (*spatial, L)
    edges : ndarray of float32, (*spatial,), or None
        The result of :func:`edges_of`.
    seeds : ndarray of int, (*spatial,), or None
        Labels that are fixed, -1 where unknown.
    contour : MorphologicalContour or ChanVeseContour
    sides : tuple of float
        The sides of a pixel, in units of the shortest side.
    """
    shape, rim = costs.shape[:-1], contour.rim
    if costs.shape[-1] == 1:
        return np.zeros(shape, np.int32)
    if contour.sigma > 0:
        costs = smooth(costs, [contour.sigma / side for side in sides], truncate=TRUNCATE)
    if rim > 0:
        costs = np.pad(costs, [*[(rim, rim)] * len(shape), (0, 0)], mode="edge")
        edges = None if edges is None else np.pad(edges, rim, mode="edge")
        seeds = None if seeds is None else np.pad(seeds, rim, mode="edge")
    inside = tuple(slice(rim, rim + size) for size in shape)
    return np.ascontiguousarray(_labels(costs, edges, seeds, contour)[inside])


def _labels(
    costs: NDArray[np.float32],
    edges: NDArray[np.float32] | None,
    seeds: NDArray[np.int64] | None,
    contour: MorphologicalContour | ChanVeseContour,
) -> NDArray[np.int32]:
    def claim(label: int) -> NDArray[np.bool_]:
        rest = np.delete(costs, label, axis=-1).min(axis=-1)
        difference = np.ascontiguousarray(costs[..., label] - rest)
        held = None
        if seeds is not None:
            held = np.stack([(seeds >= 0) & (seeds != label), seeds == label])
        return contour.moved(difference, edges, held)

    n_labels = costs.shape[-1]
    if n_labels == 2:
        return claim(1).astype(np.int32)
    claims = np.stack([claim(label) for label in range(n_labels)], axis=-1)
    claims[~claims.any(axis=-1)] = True
    labels = np.where(claims, costs, np.inf).argmin(axis=-1).astype(np.int32)
    return labels if seeds is None else np.where(seeds >= 0, seeds, labels).astype(np.int32)


def edges_of(
    colors: NDArray[np.float32], sigma: float, sides: tuple[float, ...]
) -> NDArray[np.float32]:
    """Return 1 / (1 + |gradient|^2 / its mean): low at edges, for any contrast of the image.

    Parameters
    ----------
    colors : ndarray of float32, (*spatial, C)
    sigma : float
        Standard deviation of the smoothing before the gradient, in pixels of the finest axis.
    sides : tuple of float
        The sides of a pixel, in units of the shortest side.

    Returns
    -------
    ndarray of float32, (*spatial,)
    """
    widths = [sigma / side for side in sides]
    squares = np.zeros(colors.shape[:-1], np.float32)
    for channel in np.moveaxis(colors, -1, 0):
        seen = smooth(channel, widths, truncate=TRUNCATE)
        for axis, side in enumerate(sides):
            squares += derivative(seen, axis, side) ** 2
    mean = squares.mean(dtype=np.float64)
    edges = 1 / (1 + squares / np.float32(mean)) if mean > 0 else np.ones_like(squares)
    return np.ascontiguousarray(edges, np.float32)
