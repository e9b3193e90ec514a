"""Level sets as a refiner: regions that compete for pixels by their costs."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

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
from hybridseg.inference.contours.competition import Force, Length, compete, edges_of
from hybridseg.inference.restraint import STRENGTHS, Box, Restrained, Restraint, strongest
from hybridseg.inference.scene_parts import decided_by_costs, seed_indices
from hybridseg.space import Width, nearest_valid, pixel_sides, width_in_pixels
from hybridseg.validation import IntensityRange, as_costs, as_mask, as_spacing

# The width of edges where none is given, in pixels of the finest axis.
_EDGE_SIGMA = 1.0


#: What "auto" chooses from, in ascending order; the first moves nothing.
_FORCES = (
    Force(0, 0, 0.0, 0.0),
    Force(1, 1, 0.0, 0.0),
    Force(1, 1, 0.5, 5.0),
    Force(1, 1, 1.0, 20.0),
    Force(1, 2, 2.0, 50.0),
)


class LevelSet(Restrained, HardRefiner):
    """Refine costs with contours that move until costs and boundaries are in balance.

    ``method="region_competition"``: in each iteration the pixels at a contour join the label whose
    cost is less there, and then the contour is smoothed, by the morphological scheme of
    :func:`morphological_chan_vese` with the difference of the costs in place of that of the means.
    What smoothing wears away, such as a speck of wrong labels, does not come back, because only
    pixels at a contour are looked at.

    ``method="chan_vese"``: a level set descends the energy of :func:`chan_vese`, in which the costs
    take the place of the squared deviations from the means: the sum of the costs and ``mu`` times
    the length of the contour. All pixels move, so that new regions can appear where costs want
    them. It is for pictures of square pixels.

    Two labels are one contour. With more, the region of every label evolves against the cheapest
    of the others; a pixel that several claim, or none, gets the cheapest of these.

    Parameters
    ----------
    estimator : segmenter, optional
        Fitted inside; ``LevelSet(segmenter)`` equals ``make_pipeline(segmenter, LevelSet())``.
        Without it, the input is Scenes with costs.
    method : {"region_competition", "chan_vese"}, default="region_competition"
        How contours move. Region competition looks at image edges as well, takes volumes, and is
        faster; Chan-Vese has an energy, one number to set (``mu``), and outlines that do not
        follow the pixel grid.
    n_iter : int, default=30
        Iterations at most; it ends sooner where nothing moves any more. Large regions of doubt
        take "chan_vese" 100.
    smoothing : "auto" or int, default="auto"
        Smoothing steps in an iteration; 1 keeps thin parts, 4 gives smooth outlines. See the
        notes for "auto". Plays no part with "chan_vese", as ``edge_weight`` and ``edge_sigma``.
    mu : "auto" or float, default="auto"
        What a pixel of the contour's length costs with "chan_vese", in the unit of the costs;
        greater is smoother and drops larger specks. "auto" is the greatest of 0 to 16 that the
        costs of each picture allow. Plays no part with "region_competition".
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
    hybridseg.inference.morphological_chan_vese, hybridseg.inference.chan_vese,
    hybridseg.inference.morphological_geodesic_active_contour : On a picture, without costs.

    Notes
    -----
    The functions for pictures are no methods of this class, because they would not refine the costs
    but forget them after the first iteration: start them from a prediction, as by
    ``morphological_chan_vese(grey, 30, init=prediction == 1)``. With the costs in the place of the
    picture, the morphological Chan-Vese is region competition, whose ``edge_weight`` is the force
    of a geodesic contour.

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
    1996. Paragios and Deriche, "Geodesic active regions", IJCV 46(3), 2002 (with edges). Chan and
    Vese, "Active contours without edges", IEEE Trans. Image Processing 10(2), 2001, equation 9;
    Cremers, Rousson and Deriche, "A review of statistical approaches to level set segmentation",
    IJCV 72(2), 2007 (log-likelihoods in the place of squared deviations).

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
        "method": [StrOptions({"region_competition", "chan_vese"})],
        "n_iter": [Interval(Integral, 0, None, closed="left")],
        "smoothing": [StrOptions({"auto"}), Interval(Integral, 0, None, closed="left")],
        "mu": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "sigma": [Interval(Real, 0, None, closed="left"), StrOptions({"auto"})],
        "edge_weight": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "edge_sigma": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "intensity_range": [*INTENSITY_RANGE, None],
    }

    method: str = "region_competition"  # of models saved before there was a choice
    mu: str | float = "auto"

    def __init__(
        self,
        estimator: Any = None,
        *,
        method: str = "region_competition",
        n_iter: int = 30,
        smoothing: str | int = "auto",
        mu: str | float = "auto",
        sigma: Width = "auto",
        edge_weight: str | float = "auto",
        edge_sigma: Width = "auto",
        intensity_range: IntensityRange | None = None,
    ) -> None:
        self.estimator = estimator
        self.method = method
        self.n_iter = n_iter
        self.smoothing = smoothing
        self.mu = mu
        self.sigma = sigma
        self.edge_weight = edge_weight
        self.edge_sigma = edge_sigma
        self.intensity_range = intensity_range

    def _chosen(self, scene: Scene) -> dict[str, float]:
        contour = self._solved(scene)[0]
        sigma = contour.sigma * min(as_spacing(scene.spacing, len(scene.shape)))
        return {**contour._asdict(), "sigma": sigma}

    def _label_indices(self, scene: Scene) -> NDArray[np.integer[Any]]:
        return self._solved(scene)[1]

    def _solved(self, scene: Scene) -> tuple[Force | Length, NDArray[np.int32]]:
        valid = None if scene.valid is None else as_mask(scene.valid, scene.shape)
        rank = len(scene.shape)
        contours = self._contours(scene)
        if valid is not None and not valid.any():
            return contours[0], np.zeros(scene.shape, np.int32)
        seeds = seed_indices(scene, valid)
        unary = scene.unary
        nearest = None if valid is None else nearest_valid(valid, scene.spacing)
        if nearest is not None:
            unary = np.asarray(unary)[nearest]
        costs = as_costs(unary, spatial_shape=scene.shape)
        sides = pixel_sides(scene.spacing, rank)
        edges = None
        if any(contour.edge_weight > 0 for contour in contours):
            colors = scene.colors if nearest is None else scene.colors[nearest]
            width = width_in_pixels(
                self.edge_sigma, "edge_sigma", scene.spacing, rank, auto=_EDGE_SIGMA
            )
            edges = edges_of(colors, width, sides)

        def solve(box: Box, strength: float) -> tuple[NDArray[Any], Any]:
            contour = contours[int(strength)]
            drawn = edges[box] if edges is not None and contour.edge_weight > 0 else None
            held = None if seeds is None else seeds[box]
            labels = compete(costs[box], drawn, held, contour, sides)
            return labels, labels

        if contours[0] == contours[-1]:  # all were given
            everything = tuple(slice(0, n) for n in scene.shape)
            return contours[0], solve(everything, 0)[1]
        restraint = Restraint.of(costs, decided_by_costs(valid, seeds))
        strength, labels = strongest(restraint, solve, strengths=range(1, len(contours)))
        return contours[int(strength)], labels

    def _contours(self, scene: Scene) -> Sequence[Force | Length]:
        """What "auto" chooses from, in ascending order; equal ones where all was given."""
        rank = len(scene.shape)
        if self.method == "region_competition":
            return [self._force(auto, scene.spacing, rank) for auto in _FORCES]
        if rank != 2:
            raise ValueError(
                f"method='chan_vese' is for pictures (H, W), but a Scene has the shape "
                f"{scene.shape}; volumes need method='region_competition'."
            )
        if max(pixel_sides(scene.spacing, rank)) > 1:
            raise ValueError(
                f"method='chan_vese' measures lengths in square pixels, but a Scene has "
                f"spacing={scene.spacing!r}; pixels of other shapes need "
                f"method='region_competition'."
            )
        sigma = width_in_pixels(self.sigma, "sigma", scene.spacing, rank, auto=0.0)
        if isinstance(self.mu, str):
            longer = [Length(self.n_iter, sigma, mu) for mu in STRENGTHS]
            return [Length(0, sigma, 0.0), *longer]
        return [Length(self.n_iter, sigma, float(self.mu))]

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
