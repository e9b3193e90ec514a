"""The refiner RandomWalker: from seeds and costs of Scenes to marginals."""

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
from hybridseg.features.boxes import Box
from hybridseg.inference.random_walk.random_walker import (
    MAX_WEIGHT,
    contrast_scale,
    reached,
    walk,
)
from hybridseg.inference.restraint import Restrained, Restraint, strongest
from hybridseg.inference.scene_energy import decided_by_costs, seed_indices, valid_costs
from hybridseg.scene.costs import proba_from_costs
from hybridseg.scene.deferred import Deferred
from hybridseg.scene.sequences import as_scenes
from hybridseg.space import pixel_sides
from hybridseg.validation import IntensityRange, as_label_map, as_mask

#: The weights from which "auto" chooses: averages over 1/2 to 16 pixels.
_WEIGHTS = (0.25, 1.0, 4.0, 16.0, 64.0, 256.0)


class RandomWalker(Restrained, SoftRefiner):
    r"""Spread seeds and costs over an image by random walks that avoid its edges.

    A walker starts at each pixel and steps to neighbors, preferably of similar color. It stops at
    the first seed that it meets. If there are costs, it may also stop at any pixel, with a label
    drawn from the probabilities there [1]_. The marginals are the probabilities of the label at
    which it stops. They solve a sparse linear system, so this refiner finds the optimum of its
    energy for any number of labels. The energy is

    .. math:: \frac{1}{\mathrm{weight}} \sum_p |x_p - \mathrm{softmax}(-\mathrm{costs}_p)|^2
              + \sum_{pq} w_{pq} |x_p - x_q|^2

    with :math:`x` held at the seeds, and the :math:`w_{pq}` of :func:`random_walker`.

    Scenes may have seeds, costs, or both. With a few scribbles, ``Scene(image, seeds=scribbles)``,
    it segments an image without training [2]_.

    Parameters
    ----------
    estimator : segmenter, optional
        Fitted inside; ``RandomWalker(segmenter)`` equals ``make_pipeline(segmenter,
        RandomWalker())``. Without it, the input is Scenes with costs or seeds.
    beta : float, default=130.0
        How strongly the walker avoids edges, >= 0; 0 ignores them. 50 to 500 suit photographs.
    weight : "auto" or float, default="auto"
        The weight of agreement between neighbors relative to the costs, 0 to 1e6. Probabilities are
        averaged over a distance of about its square root in pixels, if no edge lies between. "auto"
        is the largest of 0, 1/4, 1, 4, ..., 256 that the costs of each image allow; see the notes
        of :class:`hybridseg.GraphCut`. ``parameters_for(X)`` returns it. It has no effect if a
        Scene has no costs.
    tol : float, default=1e-6
        Stop when the estimated error of every probability is at most this.
    max_iter : int, default=500
        The largest number of iterations; 10 to 30 are usual.
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
    hybridseg.inference.random_walker : the same on arrays.

    Notes
    -----
    The labels of a Scene without costs are its ``classes``, or without these the labels of its
    seeds. It is solved as in [2]_. Where no seed can be reached, all labels are equally probable. A
    Scene with seeds whose costs are the same for all labels everywhere is solved in the same way.

    The default weight is chosen to do no harm: the result may differ from the cheapest labels only
    within the uncertainty of the costs. Costs without noise hardly change.

    References
    ----------
    .. [1] L. Grady, "Multilabel random walker image segmentation using prior models", CVPR, 2005.
    .. [2] L. Grady, "Random walks for image segmentation", PAMI 28(11), 2006.

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

    With costs, one of them at a wrong pixel:

    >>> logits = np.where(image[..., np.newaxis] > 0, [0.0, 0.4], [0.4, 0.0])
    >>> logits[5, 3] = [0.0, 0.4]
    >>> labels = RandomWalker().predict([Scene.from_logits(image, logits)])[0]
    >>> bool((labels == (image > 0)).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": [HasMethods(["fit", "transform"]), None],
        "beta": [Interval(Real, 0, None, closed="left")],
        "weight": [StrOptions({"auto"}), Interval(Real, 0, MAX_WEIGHT, closed="both")],
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
            X = ImageList(_with_uniform_costs(scene) for scene in as_scenes(X))
        return super()._incoming(X)

    def _chosen(self, scene: Scene) -> dict[str, float]:
        return {"weight": self._solved(scene)[0]}

    def _marginals(self, scene: Scene) -> NDArray[np.float32]:
        return self._solved(scene)[1]

    def _solved(self, scene: Scene) -> tuple[float, NDArray[Any]]:
        """Return the weight and the marginals."""
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


def _with_uniform_costs(scene: Scene) -> Scene:
    """Give a Scene with seeds but without costs its classes, and costs that are all 0."""
    if scene.has_costs or scene.seeds is None:
        return scene
    if scene.classes is None:
        values = as_label_map(scene.seeds, ignore_label=scene.ignore_label, name="seeds")
        if not (values >= 0).any():
            raise ValueError(
                "seeds holds no label >= 0; expected at least one seed, or a Scene with costs."
            )
        scene = scene.replace(classes=np.unique(values[values >= 0]))
    return scene.replace(unary=Deferred(_zero_costs, scene))


def _zero_costs(scene: Scene) -> NDArray[np.float32]:
    assert scene.classes is not None  # set by _with_uniform_costs
    return np.broadcast_to(np.float32(0), (*scene.shape, len(scene.classes)))
