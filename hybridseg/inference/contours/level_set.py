"""The refiner LevelSet: contours that move until costs and boundaries are in balance."""

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
from hybridseg.features.boxes import Box
from hybridseg.inference.contours.region_competition import (
    ChanVeseContour,
    MorphologicalContour,
    compete,
    edges_of,
)
from hybridseg.inference.restraint import STRENGTHS, Restrained, Restraint, strongest
from hybridseg.inference.scene_energy import decided_by_costs, seed_indices
from hybridseg.space import Width, nearest_valid, pixel_sides, width_in_pixels
from hybridseg.validation import IntensityRange, as_costs, as_mask, as_spacing

# The edge_sigma that "auto" means, in pixels of the finest axis.
_EDGE_SIGMA = 1.0


#: The contours from which "auto" chooses, weakest first; the first one does not move.
_AUTO_CONTOURS = (
    MorphologicalContour(0, 0, 0.0, 0.0),
    MorphologicalContour(1, 1, 0.0, 0.0),
    MorphologicalContour(1, 1, 0.5, 5.0),
    MorphologicalContour(1, 1, 1.0, 20.0),
    MorphologicalContour(1, 2, 2.0, 50.0),
)


class LevelSet(Restrained, HardRefiner):
    """Refine costs with contours that move until costs and boundaries are in balance.

    ``method="region_competition"`` [2]_ [3]_: in each iteration the pixels at a contour join the
    label of lower cost, and then the contour is smoothed. It is the morphological scheme [1]_ of
    :func:`morphological_chan_vese` with costs in place of deviations from the means. A speck that
    smoothing has removed does not come back, because only pixels at a contour change.

    ``method="chan_vese"`` [4]_ [5]_: a level set descends the sum of the costs plus ``mu`` times
    the length of the contour. This is the energy of :func:`chan_vese` with costs in place of
    squared deviations. All pixels move, so new regions can appear where their costs are low. It
    needs two-dimensional images of square pixels.

    For two labels, one contour evolves. For more, one contour for each label evolves against the
    cheapest other label. A pixel inside several contours gets the cheapest of these labels, a pixel
    inside none the cheapest of all.

    Parameters
    ----------
    estimator : segmenter, optional
        Fitted inside; ``LevelSet(segmenter)`` equals ``make_pipeline(segmenter, LevelSet())``.
        Without it, the input is Scenes with costs.
    method : {"region_competition", "chan_vese"}, default="region_competition"
        How contours move. Region competition also uses image edges, accepts volumes and is
        faster. Chan-Vese has an energy, a single parameter (``mu``), and outlines that do not
        follow the pixel grid.
    n_iter : int, default=30
        The largest number of iterations; it stops earlier when the contour rests. For large
        uncertain regions, "chan_vese" needs about 100.
    smoothing : "auto" or int, default="auto"
        Smoothing steps in an iteration; 1 keeps thin parts, 4 gives smooth outlines. See the
        notes for "auto". "chan_vese" ignores it, and also ``edge_weight`` and ``edge_sigma``.
    mu : "auto" or float, default="auto"
        The cost of a pixel of the contour's length with "chan_vese", in the unit of the costs.
        Larger values give smoother contours and remove larger specks. "auto" is the largest value
        from 0 to 16 that the costs of each image allow. "region_competition" ignores it.
    sigma : "auto" or float, default="auto"
        Standard deviation of the Gaussian that smooths the costs first, in the unit of
        ``spacing``. It helps where a classifier has judged each pixel on its own. 0 leaves the
        costs as they are, which suits costs of a network or of superpixels.
    edge_weight : "auto" or float, default="auto"
        How strongly image edges attract the contour, in the unit of the costs: 5 to 200 where
        these are negative log-probabilities. 0 ignores the image; ``sigma`` then rounds off all
        parts that are not much larger than itself.
    edge_sigma : "auto" or float, default="auto"
        Standard deviation of the smoothing before edges are computed, in the unit of ``spacing``;
        "auto" is 1 pixel of the finest axis.
    intensity_range : {"dtype", "image"} or (low, high), optional
        How pixel values become colors. Default: as the Scene says.

    Attributes
    ----------
    classes_ : ndarray of int, (L,)
        The label values, once fitted.
    estimator_ : segmenter
        The fitted inner segmenter, where ``estimator`` was given.

    See Also
    --------
    GraphCut : minimizes an energy; mostly better boundaries, but slower.
    hybridseg.inference.morphological_chan_vese, hybridseg.inference.chan_vese,
    hybridseg.inference.morphological_geodesic_active_contour : the same for images without costs.

    Notes
    -----
    The functions for images are not methods of this class, because they do not use costs. To refine
    a prediction with one of them, pass it as the initial map:
    ``morphological_chan_vese(gray, 30, init=prediction == 1)``.

    "auto" is chosen to do no harm, as described in the notes of :class:`hybridseg.GraphCut`:
    (smoothing, sigma in pixels of the finest axis, edge_weight) are the strongest of (2, 2, 50),
    (1, 1, 20), (1, 0.5, 5) and (1, 0, 0) whose result the costs of the image allow. If they allow
    none, each pixel keeps its cheapest label. Parameters that are numbers stay as they are.
    ``parameters_for(X)`` returns the values that "auto" chose.

    Seeds of the Scene are fixed. Pixels that are not valid take the costs and colors of the nearest
    valid pixel, by the distance in ``spacing``. Smoothing treats neighbors along all axes alike,
    for any spacing.

    References
    ----------
    .. [1] P. Marquez-Neila, L. Baumela, L. Alvarez, "A morphological approach to curvature-based
       evolution of curves and surfaces", PAMI 36(1), 2014.
    .. [2] S. C. Zhu, A. Yuille, "Region competition", PAMI 18(9), 1996.
    .. [3] N. Paragios, R. Deriche, "Geodesic active regions and level set methods for supervised
       texture segmentation", IJCV 46(3), 2002 (with edges).
    .. [4] T. F. Chan, L. A. Vese, "Active contours without edges", IEEE Transactions on Image
       Processing 10(2), 2001, equation 9.
    .. [5] D. Cremers, M. Rousson, R. Deriche, "A review of statistical approaches to level set
       segmentation", IJCV 72(2), 2007 (log-likelihoods in place of squared deviations).

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

    method: str = "region_competition"  # for models saved before this parameter existed
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

    def _solved(
        self, scene: Scene
    ) -> tuple[MorphologicalContour | ChanVeseContour, NDArray[np.int32]]:
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

        if contours[0] == contours[-1]:  # no parameter is "auto"
            everything = tuple(slice(0, n) for n in scene.shape)
            return contours[0], solve(everything, 0)[1]
        restraint = Restraint.of(costs, decided_by_costs(valid, seeds))
        strength, labels = strongest(restraint, solve, strengths=range(1, len(contours)))
        return contours[int(strength)], labels

    def _contours(self, scene: Scene) -> Sequence[MorphologicalContour | ChanVeseContour]:
        """Return the contours from which "auto" chooses; all equal without "auto"."""
        rank = len(scene.shape)
        if self.method == "region_competition":
            return [self._with_given(auto, scene.spacing, rank) for auto in _AUTO_CONTOURS]
        if rank != 2:
            raise ValueError(
                f"method='chan_vese' needs images (H, W), but a Scene has the shape "
                f"{scene.shape}; use method='region_competition' for volumes."
            )
        if max(pixel_sides(scene.spacing, rank)) > 1:
            raise ValueError(
                f"method='chan_vese' measures lengths in square pixels, but a Scene has "
                f"spacing={scene.spacing!r}; use "
                f"method='region_competition' for pixels of other shapes."
            )
        sigma = width_in_pixels(self.sigma, "sigma", scene.spacing, rank, auto=0.0)
        if isinstance(self.mu, str):
            longer = [ChanVeseContour(self.n_iter, sigma, mu) for mu in STRENGTHS]
            return [ChanVeseContour(0, sigma, 0.0), *longer]
        return [ChanVeseContour(self.n_iter, sigma, float(self.mu))]

    def _with_given(
        self, auto: MorphologicalContour, spacing: Any, rank: int
    ) -> MorphologicalContour:
        """Replace the values of an "auto" contour by the parameters that are given."""
        sigma = width_in_pixels(self.sigma, "sigma", spacing, rank, auto=auto.sigma)
        given = (self.smoothing, self.edge_weight)
        smoothing, edge_weight = (
            own if isinstance(value, str) else value
            for value, own in zip(given, (auto.smoothing, auto.edge_weight), strict=True)
        )
        n_iter = self.n_iter if auto.n_iter or "auto" not in (*given, self.sigma) else 0
        return MorphologicalContour(int(n_iter), int(smoothing), sigma, float(edge_weight))
