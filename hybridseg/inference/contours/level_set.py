"""Level sets as a refiner: regions that compete for pixels by their costs."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hybridseg.base import (
    INTENSITY_RANGE,
    HardRefiner,
    HasMethods,
    Interval,
    Scene,
    StrOptions,
)
from hybridseg.features.gaussians import smooth
from hybridseg.features.pixels import derivative
from hybridseg.inference.restraint import Box, Restrained, Restraint, strongest
from hybridseg.inference.scene_parts import decided_by_costs, seed_indices
from hybridseg.kernels.contours.snakes import evolve_contour
from hybridseg.space import Width, nearest_valid, pixel_sides, width_in_pixels
from hybridseg.validation import IntensityRange, as_costs, as_mask, as_spacing

# Gaussians end at this many standard deviations.
_TRUNCATE = 4.0
# The width of edges where none is given, in pixels of the finest axis.
_EDGE_SIGMA = 1.0


class Force(NamedTuple):
    """What moves the contours; sigma in pixels of the finest axis."""

    n_iter: int
    smoothing: int
    sigma: float
    edge_weight: float


#: What "auto" chooses from, in ascending order; the first moves nothing.
_FORCES = (
    Force(0, 0, 0.0, 0.0),
    Force(1, 1, 0.0, 0.0),
    Force(1, 1, 0.5, 5.0),
    Force(1, 1, 1.0, 20.0),
    Force(1, 2, 2.0, 50.0),
)


class LevelSet(Restrained, HardRefiner):
    """Refine costs with contours that move: each pixel at a boundary joins the cheaper side.

    In each iteration the pixels at a contour join the label whose cost is less there, and then the
    contour is smoothed, by the morphological scheme of :func:`morphological_chan_vese` with the
    difference of the costs in place of that of the means. What smoothing wears away, such as a
    speck of wrong labels, does not come back, because only pixels at a contour are looked at.

    Two labels are one contour. With more, the region of every label evolves against the cheapest
    of the others; a pixel that several claim, or none, gets the cheapest of these.

    Parameters
    ----------
    estimator : segmenter, optional
        Fitted inside; ``LevelSet(segmenter)`` equals ``make_pipeline(segmenter, LevelSet())``.
        Without it, the input is Scenes with costs.
    n_iter : int, default=30
        Iterations at most; it ends sooner where the labels repeat.
    smoothing : "auto" or int, default="auto"
        Smoothing steps in an iteration; 1 keeps thin parts, 4 gives smooth outlines. See the
        notes for "auto".
    sigma : "auto" or float, default="auto"
        Costs are first averaged with a Gaussian of this standard deviation, in the unit of
        ``spacing``: pixels that a classifier judged one by one are a poor guide one by one. 0
        takes the costs as they are, which suits those of a network or of superpixels.
    edge_weight : "auto" or float, default="auto"
        How much image edges draw the contour, in the unit of the costs: 5 to 200 where these are
        negative log-probabilities. 0 does not look at the image, and then ``sigma`` rounds off
        whatever is not much larger.
    edge_sigma : "auto" or float, default="auto"
        Edges are those of the image smoothed by this, in the unit of ``spacing``; "auto" takes 1
        pixel of the finest axis.
    intensity_range : {"dtype", "image"} or (low, high), optional
        How pixel values become colours. Default: as the Scene says.

    Attributes
    ----------
    classes_ : ndarray of int, (L,)
        The label values, once fitted.
    estimator_ : segmenter
        The fitted inner segmenter, where ``estimator`` was given.

    See Also
    --------
    GraphCut : minimises an energy, mostly with better boundaries, in more time.

    Notes
    -----
    "auto" means to do no harm: (smoothing, sigma in pixels of the finest axis, edge_weight) are the
    strongest of (2, 2, 50), (1, 1, 20), (1, 0.5, 5) and (1, 0, 0) whose result the costs of the
    picture allow, as the notes of :class:`hybridseg.GraphCut` tell. Where they allow none, each
    pixel keeps its cheapest label. What is given as a number stays. ``parameters_for(X)``
    tells what "auto" took.

    Seeds of the Scene are held; pixels that are not valid take costs and colours of the nearest
    valid one, by the distance in ``spacing``. Smoothing treats the neighbours along all axes alike,
    whatever the spacing.

    References
    ----------
    Marquez-Neila, Baumela and Alvarez, "A morphological approach to curvature-based evolution of
    curves and surfaces", PAMI 36(1), 2014. Zhu and Yuille, "Region competition", PAMI 18(9),
    1996. Paragios and Deriche, "Geodesic active regions", IJCV 46(3), 2002 (with edges).

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg import LevelSet, Scene
    >>> image = np.zeros((24, 32), np.uint8)
    >>> image[:, 16:] = 200
    >>> logits = np.where(image[..., np.newaxis] > 0, [0.0, 0.4], [0.4, 0.0])
    >>> logits[5, 3] = [0.0, 0.4]  # a wrong pixel
    >>> labels = LevelSet().predict([Scene.from_logits(image, logits)])[0]
    >>> bool((labels == (image > 0)).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": [HasMethods(["fit", "transform"]), None],
        "n_iter": [Interval(Integral, 0, None, closed="left")],
        "smoothing": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "sigma": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "edge_weight": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "edge_sigma": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "intensity_range": [*INTENSITY_RANGE, None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        n_iter: int = 30,
        smoothing: str | int = "auto",
        sigma: Width = "auto",
        edge_weight: str | float = "auto",
        edge_sigma: Width = "auto",
        intensity_range: IntensityRange | None = None,
    ) -> None:
        self.estimator = estimator
        self.n_iter = n_iter
        self.smoothing = smoothing
        self.sigma = sigma
        self.edge_weight = edge_weight
        self.edge_sigma = edge_sigma
        self.intensity_range = intensity_range

    def _chosen(self, scene: Scene) -> dict[str, float]:
        force = self._solved(scene)[0]
        sigma = force.sigma * min(as_spacing(scene.spacing, len(scene.shape)))
        return {**force._asdict(), "sigma": sigma}

    def _label_indices(self, scene: Scene) -> NDArray[np.integer[Any]]:
        return self._solved(scene)[1]

    def _solved(self, scene: Scene) -> tuple[Force, NDArray[np.int32]]:
        valid = None if scene.valid is None else as_mask(scene.valid, scene.shape)
        rank = len(scene.shape)
        forces = [self._force(auto, scene.spacing, rank) for auto in _FORCES]
        if valid is not None and not valid.any():
            return forces[0], np.zeros(scene.shape, np.int32)
        seeds = seed_indices(scene, valid)
        unary = scene.unary
        nearest = None if valid is None else nearest_valid(valid, scene.spacing)
        if nearest is not None:
            unary = np.asarray(unary)[nearest]
        costs = as_costs(unary, spatial_shape=scene.shape)
        sides = pixel_sides(scene.spacing, rank)
        edges = None
        if any(force.edge_weight > 0 for force in forces):
            colors = scene.colors if nearest is None else scene.colors[nearest]
            width = width_in_pixels(
                self.edge_sigma, "edge_sigma", scene.spacing, rank, auto=_EDGE_SIGMA
            )
            edges = _edges(colors, width, sides)

        def solve(box: Box, strength: float) -> tuple[NDArray[Any], Any]:
            force = forces[int(strength)]
            seen = costs[box]
            if force.sigma > 0:
                seen = smooth(seen, [force.sigma / side for side in sides], truncate=_TRUNCATE)
            drawn = edges[box] if edges is not None and force.edge_weight > 0 else None
            labels = self._compete(seen, drawn, None if seeds is None else seeds[box], force)
            return labels, labels

        if forces[0] == forces[-1]:  # all were given
            everything = tuple(slice(0, n) for n in scene.shape)
            return forces[0], solve(everything, 0)[1]
        restraint = Restraint.of(costs, decided_by_costs(valid, seeds))
        strength, labels = strongest(restraint, solve, strengths=range(1, len(forces)))
        return forces[int(strength)], labels

    def _force(self, auto: Force, spacing: Any, rank: int) -> Force:
        """Put what was given in the place of "auto"."""
        sigma = width_in_pixels(self.sigma, "sigma", spacing, rank, auto=auto.sigma)
        given = (self.smoothing, self.edge_weight)
        smoothing, edge_weight = (
            own if isinstance(value, str) else value
            for value, own in zip(given, (auto.smoothing, auto.edge_weight), strict=True)
        )
        n_iter = self.n_iter if auto.n_iter or "auto" not in (*given, self.sigma) else 0
        return Force(int(n_iter), int(smoothing), sigma, float(edge_weight))

    def _compete(
        self,
        costs: NDArray[np.float32],
        edges: NDArray[np.float32] | None,
        seeds: NDArray[np.int64] | None,
        force: Force,
    ) -> NDArray[np.int32]:
        shape, n_labels = costs.shape[:-1], costs.shape[-1]
        if n_labels == 1:
            return np.zeros(shape, np.int32)
        # Outside of the picture all labels read as 0, so smoothing would gnaw at its corners.
        rim = 2 * force.smoothing + 1
        inside = (slice(rim, -rim),) * len(shape)
        costs = np.pad(costs, [*[(rim, rim)] * len(shape), (0, 0)], mode="edge")
        edges = None if edges is None else np.pad(edges, rim, mode="edge")
        seeds = None if seeds is None else np.pad(seeds, rim, mode="edge")
        return np.ascontiguousarray(_labels(costs, edges, seeds, force)[inside])


def _labels(
    costs: NDArray[np.float32],
    edges: NDArray[np.float32] | None,
    seeds: NDArray[np.int64] | None,
    force: Force,
) -> NDArray[np.int32]:
    n_labels = costs.shape[-1]
    if n_labels == 2:
        return _claim(costs, 1, edges, seeds, force).astype(np.int32)
    claims = np.stack([_claim(costs, k, edges, seeds, force) for k in range(n_labels)], axis=-1)
    claims[~claims.any(axis=-1)] = True
    labels = np.where(claims, costs, np.inf).argmin(axis=-1).astype(np.int32)
    return labels if seeds is None else np.where(seeds >= 0, seeds, labels).astype(np.int32)


def _claim(
    costs: NDArray[np.float32],
    label: int,
    edges: NDArray[np.float32] | None,
    seeds: NDArray[np.int64] | None,
    force: Force,
) -> NDArray[np.bool_]:
    """Where ``label`` ends up, in a competition with the cheapest of the other labels."""
    shape = costs.shape[:-1]
    space = (1,) * (3 - len(shape)) + shape
    rest = np.delete(costs, label, axis=-1).min(axis=-1)
    ahead = np.ascontiguousarray(costs[..., label] - rest)
    labels = (costs.argmin(axis=-1) == label).astype(np.uint8)
    held = np.zeros((2, 1, 1, 1), np.uint8)
    if seeds is not None:
        held = np.stack([(seeds >= 0) & (seeds != label), seeds == label])
        labels[held[0]], labels[held[1]] = 0, 1
        held = held.astype(np.uint8).reshape(2, *space)
    evolve_contour(
        (ahead if edges is None else edges).reshape(space),
        ahead.reshape(-1),
        np.float32(0 if edges is None else force.edge_weight),
        np.zeros((1, 1, 1), np.uint8),
        0,
        held,
        labels.reshape(space),
        len(shape) == 2,
        force.n_iter,
        force.smoothing,
    )
    return labels.view(np.bool_)


def _edges(
    colors: NDArray[np.float32], sigma: float, sides: tuple[float, ...]
) -> NDArray[np.float32]:
    """1 / (1 + |gradient|^2 / its mean): low at edges, whatever the picture's contrast."""
    widths = [sigma / side for side in sides]
    squares = np.zeros(colors.shape[:-1], np.float32)
    for channel in np.moveaxis(colors, -1, 0):
        seen = smooth(channel, widths, truncate=_TRUNCATE)
        for axis, side in enumerate(sides):
            squares += derivative(seen, axis, side) ** 2
    mean = squares.mean(dtype=np.float64)
    edges = 1 / (1 + squares / np.float32(mean)) if mean > 0 else np.ones_like(squares)
    return np.ascontiguousarray(edges, np.float32)
