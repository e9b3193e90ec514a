"""Mean-field inference in the fully connected CRF, as a function and as an estimator."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.base import (
    INTENSITY_RANGE,
    HasMethods,
    Interval,
    Scene,
    SoftRefiner,
    StrOptions,
)
from hybridseg.kernels._compile import threads_for
from hybridseg.kernels.lattice import Lattice, apply, build
from hybridseg.kernels.mean_field import update_marginals
from hybridseg.pairwise.compatibility import as_compatibility, is_potts
from hybridseg.pairwise.dense import (
    DenseKernel,
    Spacing,
    costs_of_image,
    dense_kernels,
    valid_features,
)
from hybridseg.validation import (
    IntensityRange,
    as_colors,
    as_mask,
    as_spacing,
    check_number,
)


@dataclass(frozen=True, eq=False)
class MeanFieldResult:
    """What :func:`mean_field` found.

    Attributes
    ----------
    marginals : ndarray of float32, (*spatial, L)
        The probability of each label at each pixel; each pixel's sum to one.
    n_iter : int
        Iterations made.
    converged : bool
        Whether the last change was below ``tol``.
    changes : tuple of float
        The largest change of any marginal, iteration by iteration.
    """

    marginals: NDArray[np.float32]
    n_iter: int
    converged: bool
    changes: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class DenseModel:
    """The kernels of one picture, in the form that every iteration needs.

    Each lattice's weights carry the symmetric normalisation and the root of the kernel's weight,
    once in splat and once in slice: ``w N^-1/2 K N^-1/2`` costs no pass of its own.
    """

    lattices: tuple[Lattice, ...]

    @classmethod
    def build(
        cls,
        kernels: Iterable[DenseKernel],
        colors: NDArray[np.float32],
        spacing: Spacing = None,
        valid: NDArray[np.bool_] | None = None,
    ) -> Self:
        """Embed the (valid) pixels of colours ``(*spatial, C)`` in one lattice per kernel."""
        return cls(
            tuple(
                _normalised(build(valid_features(kernel, colors, spacing, valid)), kernel.weight)
                for kernel in kernels
            )
        )

    def add_messages(self, marginals: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Add the sum of all kernels' filtered ``marginals`` (n, L) to ``out`` (n, L)."""
        for lattice in self.lattices:
            apply(lattice, marginals, out=out)


def _normalised(lattice: Lattice, weight: float) -> Lattice:
    ones = np.ones((len(lattice.vertices), 1), lattice.weights.dtype)
    scale = np.sqrt(ones.dtype.type(weight) / apply(lattice, ones))
    return lattice._replace(weights=lattice.weights * scale)


def mean_field(
    unary: ArrayLike,
    image: ArrayLike,
    *,
    spatial_weight: float = 3.0,
    spatial_width: float = 3.0,
    bilateral_weight: float = 10.0,
    bilateral_width: float = 80.0,
    bilateral_color: float = 13.0,
    compatibility: str | ArrayLike = "potts",
    kernels: Iterable[DenseKernel] = (),
    n_iter: int = 10,
    tol: float = 0.0,
    intensity_range: IntensityRange = "dtype",
    spacing: Spacing = None,
    valid: ArrayLike | None = None,
) -> MeanFieldResult:
    """Approximate the marginals of a fully connected CRF with Gaussian pairwise terms.

    Every iteration filters the marginals with each kernel on a permutohedral lattice and sets

        Q_i(l)  proportional to  exp(-unary_i(l) - sum_l' mu(l, l') sum_m w_m (K_m Q(l'))_i),

    for all pixels at once, starting from the softmax of the negated unary costs. ``K_m`` is the
    Gaussian kernel matrix divided by ``sqrt(n_i n_j)``, with n its row sums. As in the published
    implementation, a pixel counts as its own neighbour in ``K_m``; where many pixels are alike its
    share is small. The updates run in parallel, so the energy is not bound to fall at every one.

    Parameters
    ----------
    unary : array-like, (H, W, L) or (D, H, W, L)
        The cost of each label at each pixel, lower is better: ``-log`` of a probability, or minus
        a logit. Its rank tells whether the image is a picture or a volume.
    image : array-like, (H, W[, C]) or (D, H, W[, C])
        Any real dtype and any number of channels.
    spatial_weight, spatial_width : float
        Weight and standard deviation (in the unit of ``spacing``; pixels without one) of the
        kernel that only knows positions. It removes specks: raise the width to remove larger ones.
    bilateral_weight, bilateral_width, bilateral_color : float
        Weight, standard deviation of the distance, and standard deviation of each colour on the
        scale 0..255, of the kernel that joins pixels of similar colour. Set the width to a tenth
        to a quarter of the picture, the colour to the contrast of the faintest edge to be kept
        (3 to 20), and the weight in proportion to the spread of the unary costs.
    compatibility : "potts" or array-like, (L, L)
        The cost of each pair of labels; see :func:`hybridseg.pairwise.as_compatibility`.
    kernels : iterable of kernels
        Further kernels, such as :class:`hybridseg.pairwise.FeatureKernel`.
    n_iter : int
        Iterations at most; 5 is often enough, 0 gives the softmax of the negated unary.
    tol : float
        Stop when no marginal changes by ``tol`` or more; 0 makes every iteration.
    intensity_range : {"dtype", "image"} or (low, high)
        How pixel values become colours on the scale 0..255.
    spacing : float or sequence of float, optional
        The distance between neighbouring pixels along each axis. Default: 1.
    valid : array-like of bool, (*spatial,), optional
        Where False, a pixel influences no other and its marginals are uniform.

    Returns
    -------
    MeanFieldResult

    Raises
    ------
    TypeError, ValueError
        An argument is out of its form or range, or image and unary differ in shape.

    Notes
    -----
    The lattice approximates the Gaussian. Measured on forty problems (four photographs at 24 x 32
    pixels, costs with as much noise as signal, default parameters): rows of the normalised kernels
    differ from the exact ones by 9% (positions) and 14 to 16% (colours) of their sum, the
    marginals by 0.004 to 0.043 in the mean (median 0.02), and 92 to 99.6% of the pixels (median
    96%) get the same label. Results do not depend on the number of threads.

    References
    ----------
    Krähenbühl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge
    potentials", NIPS 2011, algorithm 1. Adams, Baek and Davis, "Fast high-dimensional filtering
    using the permutohedral lattice", Eurographics 2010.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import mean_field
    >>> image = np.zeros((12, 16), np.uint8)
    >>> image[:, 8:] = 200
    >>> wanted = (image > 0).astype(int)
    >>> unary = np.where(np.eye(2, dtype=bool)[wanted], 0.3, 0.7)
    >>> unary[5, 3] = [0.7, 0.3]  # a wrong pixel
    >>> result = mean_field(unary, image)
    >>> bool((result.marginals.argmax(axis=-1) == wanted).all())
    True
    """
    costs = costs_of_image(unary, image)
    shape, n_labels = costs.shape[:-1], costs.shape[-1]
    mask = None if valid is None else as_mask(valid, shape)
    colors = as_colors(image, spatial_ndim=len(shape), intensity_range=intensity_range, valid=mask)
    matrix = as_compatibility(compatibility, n_labels)
    steps = as_spacing(spacing, len(shape))
    check_number(n_iter, "n_iter", minimum=0, integer=True)
    check_number(tol, "tol", minimum=0)
    terms = dense_kernels(
        spatial_weight, spatial_width, bilateral_weight, bilateral_width, bilateral_color, kernels
    )
    rows = costs.reshape(-1, n_labels) if mask is None else costs[mask]
    if len(rows) == 0:
        return MeanFieldResult(np.full_like(costs, 1 / n_labels), 0, False, ())
    with threads_for(rows.size):
        model = DenseModel.build(terms, colors, steps, mask)
        marginals, changes = _iterate(model, rows, matrix, n_iter, tol)
    return MeanFieldResult(
        marginals=_spread(marginals, mask, costs.shape),
        n_iter=len(changes),
        converged=bool(changes) and changes[-1] < tol,
        changes=tuple(changes),
    )


def _iterate(
    model: DenseModel,
    unary: NDArray[np.float32],
    compatibility: NDArray[np.float64],
    n_iter: int,
    tol: float,
) -> tuple[NDArray[np.float32], list[float]]:
    """Algorithm 1 of Krähenbühl and Koltun (2011) on rows of costs (n, L)."""
    scores, marginals = -unary, np.zeros_like(unary)
    update_marginals(scores, marginals)
    changes: list[float] = []
    while len(changes) < n_iter and not (changes and changes[-1] < tol):
        np.negative(unary, out=scores)
        _add_agreement(model, marginals, compatibility, scores)
        changes.append(float(update_marginals(scores, marginals)))
    return marginals, changes


def _add_agreement(
    model: DenseModel,
    marginals: NDArray[np.float32],
    compatibility: NDArray[np.float64],
    scores: NDArray[np.float32],
) -> None:
    """Subtract what the neighbours ask for each label from the scores."""
    if is_potts(compatibility):
        # sum over l' != l of m(l') is a constant less m(l), and the softmax drops the constant
        model.add_messages(marginals, scores)
    else:
        messages = np.zeros_like(scores)
        model.add_messages(marginals, messages)
        scores -= messages @ compatibility.astype(scores.dtype)


def _spread(
    marginals: NDArray[np.float32], mask: NDArray[np.bool_] | None, shape: tuple[int, ...]
) -> NDArray[np.float32]:
    if mask is None:
        return marginals.reshape(shape)
    everywhere = np.full(shape, 1 / shape[-1], dtype=np.float32)
    everywhere[mask] = marginals
    return everywhere


class DenseCRF(SoftRefiner):
    """Refine costs with a fully connected CRF: boundaries move to where the colours change.

    Parameters
    ----------
    estimator : segmenter, optional
        Fitted inside; ``DenseCRF(segmenter)`` equals ``make_pipeline(segmenter, DenseCRF())``.
        Without it, the input is Scenes with costs.
    spatial_weight, spatial_width : float
        Weight and standard deviation, in the unit of the Scene's ``spacing`` (pixels without
        one), of the kernel that only knows positions.
    bilateral_weight, bilateral_width, bilateral_color : float
        Weight, standard deviation of the distance and of each colour (on the scale 0..255) of the
        kernel that joins pixels of similar colour.
    compatibility : "potts" or array-like, (L, L)
        The cost of each pair of labels, in the order of ``classes_``.
    kernels : tuple or list of kernels
        Further kernels; a :class:`hybridseg.pairwise.FeatureKernel` with a callable serves
        images of any size.
    n_iter : int
        Mean-field iterations at most.
    tol : float
        Stop when no marginal changes by ``tol`` or more.
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
    hybridseg.inference.mean_field : the same on arrays, with advice on the parameters.

    References
    ----------
    Krähenbühl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge
    potentials", NIPS 2011.

    Notes
    -----
    Seeds of the Scene are not used: mean field has no hard constraints.
    :class:`hybridseg.GraphCut` enforces them.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg import DenseCRF, Scene
    >>> image = np.zeros((12, 16), np.uint8)
    >>> image[:, 8:] = 200
    >>> logits = np.where(image[..., np.newaxis] > 0, [0.0, 0.4], [0.4, 0.0])
    >>> logits[5, 3] = [0.0, 0.4]  # a wrong pixel
    >>> labels = DenseCRF().predict([Scene.from_logits(image, logits)])[0]
    >>> bool((labels == (image > 0)).all())
    True
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": [HasMethods(["fit", "transform"]), None],
        "spatial_weight": [Interval(Real, 0, None, closed="left")],
        "spatial_width": [Interval(Real, 0, None, closed="neither")],
        "bilateral_weight": [Interval(Real, 0, None, closed="left")],
        "bilateral_width": [Interval(Real, 0, None, closed="neither")],
        "bilateral_color": [Interval(Real, 0, None, closed="neither")],
        "compatibility": [StrOptions({"potts"}), "array-like"],
        "kernels": [tuple, list],
        "n_iter": [Interval(Integral, 0, None, closed="left")],
        "tol": [Interval(Real, 0, None, closed="left")],
        "intensity_range": [*INTENSITY_RANGE, None],
    }

    def __init__(
        self,
        estimator: Any = None,
        *,
        spatial_weight: float = 3.0,
        spatial_width: float = 3.0,
        bilateral_weight: float = 10.0,
        bilateral_width: float = 80.0,
        bilateral_color: float = 13.0,
        compatibility: str | ArrayLike = "potts",
        kernels: Iterable[DenseKernel] = (),
        n_iter: int = 10,
        tol: float = 0.0,
        intensity_range: IntensityRange | None = None,
    ) -> None:
        self.estimator = estimator
        self.spatial_weight = spatial_weight
        self.spatial_width = spatial_width
        self.bilateral_weight = bilateral_weight
        self.bilateral_width = bilateral_width
        self.bilateral_color = bilateral_color
        self.compatibility = compatibility
        self.kernels = kernels
        self.n_iter = n_iter
        self.tol = tol
        self.intensity_range = intensity_range

    def _marginals(self, scene: Scene) -> NDArray[np.float32]:
        return mean_field(
            scene.unary,
            scene.image,
            spatial_weight=self.spatial_weight,
            spatial_width=self.spatial_width,
            bilateral_weight=self.bilateral_weight,
            bilateral_width=self.bilateral_width,
            bilateral_color=self.bilateral_color,
            compatibility=self.compatibility,
            kernels=self.kernels,
            n_iter=self.n_iter,
            tol=self.tol,
            intensity_range=scene.intensity_range or "dtype",
            spacing=scene.spacing,
            valid=scene.valid,
        ).marginals
