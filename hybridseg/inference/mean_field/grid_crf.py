"""Mean-field inference on the pixel grid or on a region graph, as a function and an estimator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.base import INTENSITY_RANGE, HasMethods, Interval, Scene, SoftRefiner, StrOptions
from hybridseg.inference.mean_field.dense_model import MeanFieldResult
from hybridseg.inference.mean_field.solve import solve_mean_field
from hybridseg.inference.neighbours import NeighbourRefiner
from hybridseg.inference.scene_parts import spread_marginals
from hybridseg.pairwise.dense import DenseKernel
from hybridseg.pairwise.edges import EdgeTerm, EdgeWeights
from hybridseg.pairwise.energy import Energy
from hybridseg.validation import IntensityRange, check_number


def grid_mean_field(
    unary: ArrayLike,
    weights: EdgeWeights,
    *,
    compatibility: str | ArrayLike = "potts",
    n_iter: int = 10,
    tol: float = 0.0,
    damping: float = 0.0,
) -> MeanFieldResult:
    r"""Approximate the marginals of a CRF on a grid or a sparse graph.

    Among all distributions under which the nodes are independent, the one nearest to the CRF has a
    least free energy

    .. math:: F(Q) = \sum_{i,l} Q_i(l) (u_i(l) + \log Q_i(l))
              + \sum_{(i, j)} w_{ij} \sum_{l, m} \mu(l, m) Q_i(l) Q_j(m)

    Each update gives a node its best marginals while its neighbours' are held,

    .. math:: Q_i(l) \propto \exp(-u_i(l) - \sum_j w_{ij} \sum_m \mu(l, m) Q_j(m)).

    Updating all nodes at once lets neighbours swap labels for ever. Here the nodes are coloured so
    that no edge joins two of one colour (a checkerboard on 4 neighbours, four colours on 8, greedy
    colours on any other graph), and updated colour by colour: the free energy falls at every step,
    for any graph, weights and compatibility.

    Parameters
    ----------
    unary : array-like, (*spatial, L), or (R, L) for a region graph
        The cost of each label, finite, lower is better.
    weights : sequence of arrays, {offset: array}, or (i, j, w)
        The weight of each edge, as :func:`hybridseg.inference.graph_cut` takes them; negative ones
        (neighbours that should differ) are allowed. Edges listed twice count twice.
    compatibility : "potts" or array-like, (L, L)
        The cost of each pair of labels; see :func:`hybridseg.pairwise.as_compatibility`.
    n_iter : int
        Sweeps over all nodes at most; 5 to 10 are usual, 0 gives the softmax of the negated unary.
    tol : float
        Stop when no marginal changes by ``tol`` or more in a sweep; 0 makes every sweep.
    damping : float in [0, 1)
        The share of the old marginals that each update keeps. It is not needed for convergence,
        and on photographs hardly changes the labels (mean IoU by less than 0.003).

    Returns
    -------
    MeanFieldResult
        With ``marginals`` of float32, of the shape of ``unary``, and ``changes`` for every sweep.

    Raises
    ------
    TypeError, ValueError
        Shapes that do not fit, values that are not finite, an option outside its range.

    Notes
    -----
    Of an image, each row takes the memory of 32 pixels at least: put a long axis last.

    References
    ----------
    Saul, Jaakkola and Jordan, "Mean field theory for sigmoid belief networks", JAIR 4, 1996.
    Koller and Friedman, "Probabilistic Graphical Models", 2009, algorithm 11.7 and theorem 11.10.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import grid_mean_field
    >>> unary = np.zeros((3, 4, 2))
    >>> unary[..., 1] = 1.0
    >>> unary[1, 1] = [0.5, 0.0]  # would rather have label 1
    >>> found = grid_mean_field(unary, [np.ones((2, 4)), np.ones((3, 3))])
    >>> int(found.marginals.argmax(axis=-1).sum())
    0
    """
    energy = Energy(unary, [EdgeTerm(weights)], compatibility=compatibility)
    check_number(damping, "damping", minimum=0)  # None is for energies of several kinds
    return solve_mean_field(energy, n_iter=n_iter, tol=tol, damping=damping)


class GridCRF(NeighbourRefiner, SoftRefiner):
    """Refine costs with a CRF on neighbouring pixels or superpixels, and give probabilities.

    The energy is that of :class:`hybridseg.GraphCut`, with contrast-sensitive weights (see
    :func:`hybridseg.pairwise.grid_weights`). Mean field answers with marginals instead of the one
    best labelling, takes any compatibility of labels, and its time grows with the number of labels
    and not with the difficulty of the picture. Its reach is short, because only neighbours speak to
    each other: :class:`hybridseg.DenseCRF` joins pixels that are far apart.

    Parameters
    ----------
    estimator : segmenter, optional
        Fitted inside; ``GridCRF(segmenter)`` equals ``make_pipeline(segmenter, GridCRF())``.
        Without it, the input is Scenes with costs.
    weight : "auto" or float, default="auto"
        The cost of cutting an edge between pixels of equal colour, in the unit of the costs
        (nats, where they are negative log-probabilities). Greater is smoother, up to about 10:
        beyond, the first sweeps settle all, and ``connectivity=2`` smooths more. "auto" is the
        greatest of 0 to 16 that the costs of each picture allow; see the notes of
        :class:`hybridseg.GraphCut`. ``parameters_for(X)`` tells what it took.
    contrast : "auto", float or None, default="auto"
        The standard deviation of colour differences on the scale 0..255; "auto" takes it from each
        image, None ignores the colours.
    connectivity : int, default=1
        1 gives 4 (or 6) neighbours, 2 gives 8 (or 18), 3 gives 26. Plays no part with
        ``on="regions"``.
    on : {"pixels", "regions"}, default="pixels"
        What gets a label: pixels, or the Scene's superpixels, which pay for the pixel faces
        between them and answer with costs region by region.
    kernels : tuple or list of kernels, default=()
        With ``on="regions"``, what any two regions pay besides, however far apart, as
        :func:`hybridseg.pairwise.dense_region_weights` has it: ``(BilateralKernel(3, 80, 13),)``
        makes a dense CRF of regions, and ``weight=0`` leaves their neighbourhood out.
    compatibility : "potts" or array-like, (L, L)
        The cost of each pair of labels, in the order of ``classes_``.
    n_iter : int, default=10
        Sweeps at most.
    tol : float, default=0.0
        Stop when no marginal changes by ``tol`` or more.
    damping : float, default=0.0
        The share of the old marginals that each update keeps, below 1.
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
    hybridseg.inference.grid_mean_field : the same on arrays.

    References
    ----------
    Shotton, Winn, Rother and Criminisi, "TextonBoost for image understanding", IJCV 81, 2009 (the
    grid CRF). Koller and Friedman, "Probabilistic Graphical Models", 2009, section 11.5.

    Notes
    -----
    Seeds of the Scene are not used: mean field has no hard constraints.
    :class:`hybridseg.GraphCut` enforces them.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg import GridCRF, Scene
    >>> image = np.zeros((12, 16), np.uint8)
    >>> image[:, 8:] = 200
    >>> logits = np.where(image[..., np.newaxis] > 0, [0.0, 0.4], [0.4, 0.0])
    >>> logits[5, 3] = [0.0, 0.4]  # a wrong pixel
    >>> labels = GridCRF().predict([Scene.from_logits(image, logits)])[0]
    >>> bool((labels == (image > 0)).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": [HasMethods(["fit", "transform"]), None],
        "weight": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "contrast": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither"), None],
        "connectivity": [Interval(Integral, 1, 3, closed="both")],
        "on": [StrOptions({"pixels", "regions"})],
        "kernels": [tuple, list],
        "compatibility": [StrOptions({"potts"}), "array-like"],
        "n_iter": [Interval(Integral, 0, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "damping": [Interval(Real, 0, 1, closed="left")],
        "intensity_range": [*INTENSITY_RANGE, None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        weight: str | float = "auto",
        contrast: str | float | None = "auto",
        connectivity: int = 1,
        on: str = "pixels",
        kernels: Sequence[DenseKernel] = (),
        compatibility: str | ArrayLike = "potts",
        n_iter: int = 10,
        tol: float = 0.0,
        damping: float = 0.0,
        intensity_range: IntensityRange | None = None,
    ) -> None:
        self.estimator = estimator
        self.weight = weight
        self.contrast = contrast
        self.connectivity = connectivity
        self.on = on
        self.kernels = kernels
        self.compatibility = compatibility
        self.n_iter = n_iter
        self.tol = tol
        self.damping = damping
        self.intensity_range = intensity_range

    def _energy(self, scene: Scene, parameters: Mapping[str, float]) -> Energy:
        if self.on == "pixels" and self.kernels:
            raise ValueError(
                f"kernels={self.kernels!r} join regions, but on='pixels'; use on='regions', "
                f"or DenseCRF for pixels."
            )
        return super()._energy(scene, parameters)

    def _solve(self, energy: Energy) -> NDArray[np.float32]:
        found = solve_mean_field(energy, n_iter=self.n_iter, tol=self.tol, damping=self.damping)
        return found.marginals

    def _labels(self, found: NDArray[np.float32]) -> NDArray[np.intp]:
        return found.argmax(axis=-1)

    def _refined_costs(self, scene: Scene) -> Any:
        if self.on == "pixels":
            return super()._refined_costs(scene)
        return spread_marginals(scene, *self._solved(scene))

    def _marginals(self, scene: Scene) -> NDArray[np.float32]:
        marginals: NDArray[np.float32] = self._solved(scene)[1]
        return marginals
