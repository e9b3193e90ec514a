"""The random walker as a refiner: seeds and costs of Scenes to marginals."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hybridseg.base import (
    INTENSITY_RANGE,
    HasMethods,
    ImageList,
    Interval,
    Scene,
    SoftRefiner,
    StrOptions,
)
from hybridseg.inference.random_walk.random_walker import (
    MOST_WEIGHT,
    contrast_scale,
    reached,
    walk,
)
from hybridseg.inference.restraint import Box, Restrained, Restraint, strongest
from hybridseg.inference.scene_parts import decided_by_costs, seed_indices, valid_costs
from hybridseg.scene.costs import proba_from_costs
from hybridseg.scene.deferred import Deferred
from hybridseg.scene.sequences import as_scenes
from hybridseg.space import pixel_sides
from hybridseg.validation import IntensityRange, as_label_map, as_mask

#: What "auto" chooses from: averages over 1/2 to 16 pixels.
_WEIGHTS = (0.25, 1.0, 4.0, 16.0, 64.0, 256.0)


class RandomWalker(Restrained, SoftRefiner):
    r"""Spread seeds and costs over an image by random walks that shun its edges.

    Of each pixel a walker starts, steps to neighbours of a like colour, and ends at the first seed
    that it meets, or, where there are costs, at any pixel, with a label drawn from the
    probabilities there. The marginals are the probabilities of where it ends. They solve a sparse
    linear system, exactly and without labels having to be tried out: of all refiners this one alone
    finds the optimum of its energy for any number of labels,

    .. math:: \frac{1}{\mathrm{weight}} \sum_p |x_p - \mathrm{softmax}(-\mathrm{costs}_p)|^2
              + \sum_{pq} w_{pq} |x_p - x_q|^2

    with :math:`x` held at the seeds, and the :math:`w_{pq}` of :func:`random_walker`.

    Scenes may bring seeds, costs, or both. From a few scribbles alone, in ``Scene(image,
    seeds=scribbles)``, it segments a picture without any training.

    Parameters
    ----------
    estimator : segmenter, optional
        Fitted inside; ``RandomWalker(segmenter)`` equals ``make_pipeline(segmenter,
        RandomWalker())``. Without it, the input is Scenes with costs or seeds.
    beta : float, default=130.0
        How much the walker shuns edges, > 0 or 0 for none; 50 to 500 suit photographs.
    weight : "auto" or float, default="auto"
        How much like neighbours count against the costs, 0 to 1e6: probabilities are averaged over
        about the square root of it in pixels, as far as there is no edge. "auto" is the greatest
        of 0, 1/4, 1, 4, ..., 256 that the costs of each picture allow; see the notes of
        :class:`hybridseg.GraphCut`. ``parameters_for(X)`` tells what it took. Plays no part where
        a Scene has no costs.
    tol : float, default=1e-6
        The estimated error of every probability at which the iterations stop.
    max_iter : int, default=500
        Iterations of the solver at most; 10 to 30 are usual.
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
    hybridseg.inference.random_walker : the same on arrays.

    Notes
    -----
    A Scene with seeds and without costs has the labels that its ``classes`` name, or else those of
    its seeds, and is solved as in Grady 2006; where no seed can be walked to, all labels are
    equally probable. So is one whose costs are the same for all labels everywhere.

    By default it does no harm: a weight is taken only if the result overrules the costs by no more
    than their own doubt, so that costs without noise come out nearly as they went in.

    References
    ----------
    Grady, "Multilabel random walker image segmentation using prior models", CVPR 2005. Grady,
    "Random walks for image segmentation", PAMI 28(11), 2006.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg import RandomWalker, Scene
    >>> image = np.zeros((12, 16), np.uint8)
    >>> image[:, 8:] = 200
    >>> scribbles = np.full((12, 16), -1)
    >>> scribbles[3, :2], scribbles[8, 14:] = 4, 7
    >>> labels = RandomWalker().predict([Scene(image, seeds=scribbles)])[0]
    >>> bool((labels == np.where(image > 0, 7, 4)).all())
    True

    With costs, of which one pixel's are wrong:

    >>> logits = np.where(image[..., np.newaxis] > 0, [0.0, 0.4], [0.4, 0.0])
    >>> logits[5, 3] = [0.0, 0.4]
    >>> labels = RandomWalker().predict([Scene.from_logits(image, logits)])[0]
    >>> bool((labels == (image > 0)).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": [HasMethods(["fit", "transform"]), None],
        "beta": [Interval(Real, 0, None, closed="left")],
        "weight": [StrOptions({"auto"}), Interval(Real, 0, MOST_WEIGHT, closed="both")],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "max_iter": [Interval(Integral, 0, None, closed="left")],
        "intensity_range": [*INTENSITY_RANGE, None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        beta: float = 130.0,
        weight: str | float = "auto",
        tol: float = 1e-6,
        max_iter: int = 500,
        intensity_range: IntensityRange | None = None,
    ) -> None:
        self.estimator = estimator
        self.beta = beta
        self.weight = weight
        self.tol = tol
        self.max_iter = max_iter
        self.intensity_range = intensity_range

    def _incoming(self, X: Any) -> ImageList:
        if self.estimator is None:
            X = ImageList(_of_seeds(scene) for scene in as_scenes(X))
        return super()._incoming(X)

    def _chosen(self, scene: Scene) -> dict[str, float]:
        return {"weight": self._solved(scene)[0]}

    def _marginals(self, scene: Scene) -> NDArray[np.float32]:
        return self._solved(scene)[1].astype(np.float32)

    def _solved(self, scene: Scene) -> tuple[float, NDArray[Any]]:
        """The weight and the marginals."""
        valid = None if scene.valid is None else as_mask(scene.valid, scene.shape)
        costs = valid_costs(scene, valid)
        seeds = seed_indices(scene, valid)
        codes = np.full(scene.shape, -1, np.int32) if seeds is None else seeds.astype(np.int32)
        if valid is not None:
            codes[~valid] = -2
        colors = scene.colors
        scale = contrast_scale(colors, float(self.beta), valid)
        sides = pixel_sides(scene.spacing, len(scene.shape))
        prior = None
        if seeds is None or bool((costs != costs[..., :1]).any()):
            prior = proba_from_costs(costs).astype(np.float64)
            prior /= prior.sum(axis=-1, keepdims=True)
        else:
            codes[~reached(codes)] = -2

        def solve(box: Box, strength: float) -> tuple[NDArray[Any], Any]:
            found = walk(
                colors[box],
                codes[box],
                costs.shape[-1],
                scale,
                sides,
                float(self.tol),
                self.max_iter,
                None if prior is None else prior[box],
                strength,
            )[0]
            return found.argmax(axis=-1), found

        everything = tuple(slice(0, n) for n in scene.shape)
        if prior is None:
            return 0.0, solve(everything, 0.0)[1]
        if not isinstance(self.weight, str):
            return self.weight, solve(everything, float(self.weight))[1]
        counted = decided_by_costs(valid, seeds)
        return strongest(Restraint.of(costs, counted), solve, strengths=_WEIGHTS)


def _of_seeds(scene: Scene) -> Scene:
    """A Scene with seeds and without costs, with classes, and with costs that say nothing."""
    if scene.has_costs or scene.seeds is None:
        return scene
    if scene.classes is None:
        values = as_label_map(scene.seeds, ignore_label=scene.ignore_label, name="seeds")
        if not (values >= 0).any():
            raise ValueError(
                "seeds holds no label >= 0; expected at least one seed, or a Scene with costs."
            )
        scene = scene.replace(classes=np.unique(values[values >= 0]))
    return scene.replace(unary=Deferred(_no_costs, scene))


def _no_costs(scene: Scene) -> NDArray[np.float32]:
    assert scene.classes is not None  # _of_seeds has seen to it
    return np.broadcast_to(np.float32(0), (*scene.shape, len(scene.classes)))
