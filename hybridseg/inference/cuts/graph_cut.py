"""Minimum cuts of Potts energies, as a function and as an estimator."""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.base import INTENSITY_RANGE, HardRefiner, HasMethods, Interval, Scene, StrOptions
from hybridseg.inference.cuts.moves import CUTS
from hybridseg.inference.cuts.solve import MOVES, GraphCutResult, solve_cuts
from hybridseg.inference.neighbours import NeighbourRefiner
from hybridseg.inference.scene_parts import spread_labels
from hybridseg.pairwise.edges import EdgeTerm, EdgeWeights
from hybridseg.pairwise.energy import Energy
from hybridseg.validation import IntensityRange


def graph_cut(
    unary: ArrayLike,
    weights: EdgeWeights,
    *,
    compatibility: str | ArrayLike = "potts",
    moves: str = "expansion",
    solver: str = "numba",
    init: ArrayLike | None = None,
    seeds: ArrayLike | None = None,
    max_iter: int = 20,
    bound_iter: int | None = None,
) -> GraphCutResult:
    r"""Minimise an energy by minimum cuts: exactly for two labels, by moves for more.

    .. math:: E(y) = \sum_i u_i(y_i) + \sum_{(i, j)} w_{ij}\, \mu(y_i, y_j)

    Two labels take one minimum cut; where several labellings are optimal, the one with the fewest
    pixels of label 1 is returned. More labels take moves: an expansion is the best of all
    labellings in which every pixel keeps its label or takes label alpha, a swap the best of those
    in which the pixels of two labels share them out anew. After expansions with Potts costs the
    energy is within a factor of two of the optimum, and in practice within a few percent, which
    ``lower_bound`` tells.

    With Potts costs, message passing first makes a labelling to start from, a bound, and flows
    that each expansion only mends; the time grows with the strength of the weights.

    Parameters
    ----------
    unary : array-like, (*spatial, L), or (R, L) for a region graph
        The cost of each label, finite, lower is better. If it and ``weights`` hold integers, all
        is computed exactly in int64; otherwise in float64.
    weights : sequence of arrays, {offset: array}, or (i, j, w)
        The cost >= 0 of cutting each edge, as from :func:`hybridseg.pairwise.grid_weights` or
        :func:`hybridseg.pairwise.region_weights`: one array per axis, shaped like the image less
        one along that axis; a mapping for diagonal neighbourhoods; an edge list for a region graph.
    compatibility : "potts" or array-like, (L, L), default="potts"
        What a pair of labels costs, times the weight: symmetric, with a diagonal of zeros and no
        negative entry. Integers keep integer input exact. Other costs than Potts take several
        times longer, and their bound is the sum of the least costs.
    moves : {"expansion", "swap"}, default="expansion"
        Expansions need costs that obey the triangle inequality, and find the lower energies then,
        faster. Swaps take any, such as truncated squares of label differences.
    solver : {"numba", "pymaxflow"}, default="numba"
        What computes the cuts: our own solvers, or the package PyMaxflow, which is GPL and has to
        be installed (``pip install hybridseg[pymaxflow]``).
    init : array-like of int, optional
        Where moves start, but for the seeds. Default: what message passing found, or, where weights
        are strong, what a move on cells of pixels found; the cheapest label of each pixel where
        ``compatibility`` is not Potts. One cut finds the optimum of two labels from anywhere.
    seeds : array-like of int, optional
        Labels that are certain, as indices 0..L-1; negative where unknown.
    max_iter : int, default=20
        Sweeps of moves at most; 3 to 6 are usual.
    bound_iter : int, optional
        Sweeps of message passing (TRW-S) before the moves, for three or more labels and Potts
        costs; memory is 12 to 24 bytes for each edge and label. More of them tighten
        ``lower_bound``, and the energy mostly falls; 0 leaves a weak bound. Default: as many as
        save more time in the moves than they take, 15 to 60 where neighbours matter, 100 at most.

    Returns
    -------
    GraphCutResult

    Raises
    ------
    TypeError, ValueError
        Shapes that do not fit, values that are not finite, negative weights, unknown labels.
    ImportError
        ``solver="pymaxflow"`` without the package.

    References
    ----------
    Boykov, Veksler and Zabih, "Fast approximate energy minimization via graph cuts", PAMI 23(11),
    2001, sections 5 and 6. Kolmogorov and Zabih, "What energy functions can be minimized via graph
    cuts?", PAMI 26(2), 2004, theorem 4.1. Boykov and Kolmogorov, "An experimental comparison of
    min-cut/max-flow algorithms for energy minimization in vision", PAMI 26(9), 2004. Kolmogorov,
    "Convergent tree-reweighted message passing for energy minimization", PAMI 28(10), 2006.
    Hochbaum, "The pseudoflow algorithm: a new algorithm for the maximum-flow problem", Operations
    Research 56(4), 2008.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import graph_cut
    >>> unary = np.array([[[0, 9], [5, 4], [0, 9]]])  # one row of three pixels
    >>> result = graph_cut(unary, [np.zeros((0, 3), int), np.array([[2, 2]])])
    >>> result.labels.tolist(), result.energy, result.lower_bound
    ([[0, 0, 0]], 5.0, 5.0)
    """
    energy = Energy(unary, [EdgeTerm(weights)], compatibility=compatibility, seeds=seeds)
    return solve_cuts(
        energy,
        moves=moves,
        solver=solver,
        max_iter=max_iter,
        bound_iter=bound_iter,
        init=init,
    )


class GraphCut(NeighbourRefiner, HardRefiner):
    """Refine costs with a minimum cut: boundaries become short and follow the image's contrast.

    The neighbours' costs are contrast-sensitive Potts weights; see
    :func:`hybridseg.pairwise.grid_weights`. Seeds of the Scene are hard constraints; pixels that
    are not valid influence no others.

    Parameters
    ----------
    estimator : segmenter, optional
        Fitted inside; ``GraphCut(segmenter)`` equals ``make_pipeline(segmenter, GraphCut())``.
        Without it, the input is Scenes with costs.
    weight : "auto" or float, default="auto"
        The cost of cutting an edge between pixels of equal colour, in the unit of the costs
        (nats, where they are negative log-probabilities). Greater is smoother; 2 keeps thin
        parts, 50 leaves few large segments. "auto" is the greatest of 0 to 16 that the costs of
        each picture allow; see the notes.
    contrast : "auto", float or None, default="auto"
        The standard deviation of colour differences on the scale 0..255; "auto" takes it from each
        image, None ignores the colours.
    connectivity : int, default=1
        1 gives 4 (or 6) neighbours, 2 gives 8 (or 18), 3 gives 26. Plays no part with
        ``on="regions"``.
    on : {"pixels", "regions"}, default="pixels"
        What gets a label: pixels, or the Scene's superpixels, which is much faster and keeps their
        boundaries. Regions pay for the pixel faces between them.
    moves : {"expansion", "swap"}, default="expansion"
        How three or more labels are improved; expansions are faster and mostly find less energy.
    solver : {"numba", "pymaxflow"}, default="numba"
        What computes the cuts; PyMaxflow is GPL and has to be installed.
    max_iter : int, default=20
        Sweeps of moves at most, for three or more labels.
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
    graph_cut : the same on arrays, with the energy and a bound on it.

    Notes
    -----
    "auto" means to do no harm. Costs that are negative log-probabilities tell by how much the true
    labels are expected to cost more than the cheapest ones. The weight is the greatest with which
    the result costs no more than a share of that, in the whole picture and in every class. The
    share is small where neighbours make the same errors, as superpixels and networks do, and large
    where each pixel errs on its own. A search over weights on labelled pictures of your own mostly
    finds a better one, often 5 to 20 for large objects. ``parameters_for(X)`` tells what it took.

    References
    ----------
    Boykov and Jolly, "Interactive graph cuts for optimal boundary and region segmentation of
    objects in N-D images", ICCV 2001. Boykov, Veksler and Zabih, "Fast approximate energy
    minimization via graph cuts", PAMI 23(11), 2001.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg import GraphCut, Scene
    >>> image = np.zeros((12, 16), np.uint8)
    >>> image[:, 8:] = 200
    >>> logits = np.where(image[..., np.newaxis] > 0, [0.0, 0.4], [0.4, 0.0])
    >>> logits[5, 3] = [0.0, 0.4]  # a wrong pixel
    >>> labels = GraphCut().predict([Scene.from_logits(image, logits)])[0]
    >>> bool((labels == (image > 0)).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": [HasMethods(["fit", "transform"]), None],
        "weight": [StrOptions({"auto"}), Interval(Real, 0, None, closed="left")],
        "contrast": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither"), None],
        "connectivity": [Interval(Integral, 1, 3, closed="both")],
        "on": [StrOptions({"pixels", "regions"})],
        "moves": [StrOptions(set(MOVES))],
        "solver": [StrOptions(set(CUTS))],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
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
        moves: str = "expansion",
        solver: str = "numba",
        max_iter: int = 20,
        intensity_range: IntensityRange | None = None,
    ) -> None:
        self.estimator = estimator
        self.weight = weight
        self.contrast = contrast
        self.connectivity = connectivity
        self.on = on
        self.moves = moves
        self.solver = solver
        self.max_iter = max_iter
        self.intensity_range = intensity_range

    _seeded = True

    def _solve(self, energy: Energy) -> NDArray[np.int32]:
        found = solve_cuts(energy, moves=self.moves, solver=self.solver, max_iter=self.max_iter)
        return found.labels

    def _label_indices(self, scene: Scene) -> NDArray[np.integer[Any]]:
        regions, labels = self._solved(scene)
        return labels if self.on == "pixels" else spread_labels(scene, regions, labels)
