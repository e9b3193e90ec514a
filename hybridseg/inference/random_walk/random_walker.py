"""The random walker: labels of a few seeds, or probabilities, spread over an image."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from hybridseg.inference.random_walk.deflated_cg import Islands, conjugate_gradients
from hybridseg.inference.random_walk.multigrid import Grid, Multigrid, Operator
from hybridseg.kernels._compile import get_num_threads
from hybridseg.kernels.laplacian.random_walker import contrast_weights, ground_seeds
from hybridseg.kernels.vectors.simd import aligned
from hybridseg.space import pixel_sides
from hybridseg.validation import (
    COLOR_SCALE,
    Colors,
    IntensityRange,
    as_colors,
    as_label_map,
    as_mask,
    as_numbers,
    check_number,
    check_proba,
    only_valid,
)

#: The smallest link between neighbors, so that any contrast leaves all pixels connected.
_MIN_LINK = 1e-10
#: Links below the first number separate islands, which are solved for separately; the second is
#: the largest number of islands.
_WEAK_LINK, _MAX_ISLANDS = 0.1, 20_000
#: The largest weight beside a prior (averages over a thousand pixels), and the smallest weight that
#: changes the solution within its precision.
MAX_WEIGHT, _MIN_WEIGHT = 1e6, 1e-9


@dataclass(frozen=True, eq=False)
class RandomWalkerResult:
    """The result of :func:`random_walker`.

    Attributes
    ----------
    labels : ndarray of int64, (*spatial,)
        The most probable label, as a value of the seeds; -1 where ``valid`` is False and
        where no seed can be reached.
    proba : ndarray of float32, (*spatial, L)
        The probability that a walker meets a seed of each label first, in the order of ``classes``.
        It is one for the label of a seed, and equal for all labels where no seed can be reached
        and where pixels are not valid. The probabilities sum to one at each pixel.
    classes : ndarray of int64, (L,)
        The labels of the seeds, sorted.
    n_iter : int
        The largest number of conjugate-gradient iterations of any label.
    residual : float
        The largest residual norm of any label's system, relative to its right side, computed from
        the solution in float64.
    converged : bool
        Whether the estimated error of every probability fell to ``tol``.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import random_walker
    >>> found = random_walker(np.zeros((1, 5)), [[3, -1, -1, -1, 8]])
    >>> found.classes.tolist(), found.converged
    ([3, 8], True)
    >>> found.proba[0, :, 1].round(2).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """

    labels: NDArray[np.int64]
    proba: NDArray[np.float32]
    classes: NDArray[np.int64]
    n_iter: int
    residual: float
    converged: bool


def random_walker(
    image: ArrayLike | Colors,
    seeds: ArrayLike | None,
    *,
    beta: float = 130.0,
    prior: ArrayLike | None = None,
    weight: float = 1.0,
    spacing: Sequence[float] | float | None = None,
    tol: float = 1e-6,
    max_iter: int = 500,
    intensity_range: IntensityRange = "dtype",
    valid: ArrayLike | None = None,
) -> RandomWalkerResult:
    r"""Label each pixel by the first seed that an edge-avoiding random walker meets [1]_.

    The walker steps to a neighbor (4, or 6 in a volume) with a probability proportional to

    .. math:: w_{pq} = \exp\left(-\frac{\beta}{10\, \sigma \sqrt{C}}
              \frac{\|c_p - c_q\|^2}{\mathrm{dist}(p, q)^2}\right) + 10^{-10}

    with colors on the scale 0..1, sigma their standard deviation over the whole image, C channels,
    and dist in pixels of the finest axis, so that the unit of ``spacing`` does not matter. The
    probabilities solve one linear system for each label but the last.

    With a ``prior`` [2]_, the walker may also stop at any pixel, with a label drawn from the prior
    there. The probabilities x of each label then minimize

    .. math:: \frac{1}{\mathrm{weight}} \sum_p (x_p - \mathrm{prior}_p)^2
              + \sum_{pq} w_{pq} (x_p - x_q)^2

    Parameters
    ----------
    image : array-like, (H, W[, C]) or (D, H, W[, C]), or Colors
        Any real dtype. The number of axes of ``seeds`` decides whether the image is two- or
        three-dimensional.
    seeds : array-like of int, (*spatial,), or None with a ``prior``
        Labels >= 0 where they are certain, negative where unknown: the convention of this package.
        (scikit-image marks unknown pixels by 0; pass ``labels - 1`` for its seeds.)
    beta : float, default=130.0
        How strongly the walker avoids edges, >= 0; 0 ignores them. 50 to 500 suit photographs. With
        larger values, weaker edges stop the walk and more iterations are needed.
    prior : array-like of float, (*spatial, L), optional
        Probabilities of the labels 0..L-1 before the walk, such as a classifier's; they sum to
        one at each pixel. Seeds are then optional, and below L.
    weight : float, default=1.0
        The weight of agreement between neighbors relative to the prior, 0 to 1e6: the inverse of
        gamma in [2]_. The prior is averaged over a distance of about the square root of this number
        in pixels, if no edge lies between. It has no effect without a prior.
    spacing : float or sequence of float, optional
        The distance between neighboring pixels along each axis, in any unit. Color differences
        are divided by the spacing relative to the smallest one. Default: 1.
    tol : float, default=1e-6
        Stop when the estimated error of every probability is at most this. The estimate is the
        largest entry of the preconditioned residual.
    max_iter : int, default=500
        The largest number of iterations; 10 to 30 are usual.
    intensity_range : {"dtype", "image"} or (low, high), default="dtype"
        How pixel values become colors; see :func:`hybridseg.validation.as_colors`.
    valid : array-like of bool, (*spatial,), optional
        Where False, the walker cannot enter, and the pixel's color and seed are ignored.

    Returns
    -------
    RandomWalkerResult

    Raises
    ------
    TypeError, ValueError
        An argument does not fit its description, or there is neither a seed on a valid pixel nor a
        prior.

    Notes
    -----
    The definition is that of ``skimage.segmentation.random_walker`` (for ``data`` on the scale
    0..1), so results agree up to the tolerances, with two exceptions: sigma here is that of the
    valid pixels, and scikit-image does not divide ``spacing`` by its smallest value. The systems of
    the labels are distributed over numba's threads. Each is solved by conjugate gradients in
    float64. The preconditioner is a multigrid V-cycle [3]_ in float32, with deflation [4]_ of
    islands: parts that only weak links join to the rest. With ``beta`` in the thousands most pixels
    are such islands, and more iterations are needed.

    References
    ----------
    .. [1] L. Grady, "Random walks for image segmentation", PAMI 28(11), 2006, equations 1, 8
       and 10.
    .. [2] L. Grady, "Multilabel random walker image segmentation using prior models", CVPR, 2005.
    .. [3] J. E. Dendy, "Black box multigrid", Journal of Computational Physics 48, 1982.
    .. [4] J. M. Tang, R. Nabben, C. Vuik, Y. A. Erlangga, "Comparison of two-level preconditioners
       derived from deflation, domain decomposition and multigrid methods", Journal of Scientific
       Computing 39, 2009 (A-DEF2).

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import random_walker
    >>> image = np.zeros((6, 8), np.uint8)
    >>> image[:, 4:] = 200
    >>> seeds = np.full((6, 8), -1)
    >>> seeds[2, 0], seeds[3, 7] = 0, 1
    >>> found = random_walker(image, seeds)
    >>> bool((found.labels == (image > 0)).all())
    True
    """
    if seeds is None and prior is None:
        raise ValueError("seeds=None and prior=None; expected at least one of them.")
    before = None if prior is None else as_numbers(prior, "prior", expected="probabilities")
    if seeds is None:
        assert before is not None
        known = np.full(before.shape[:-1], -1, np.int64)
    else:
        known = as_label_map(seeds, name="seeds")
    shape = known.shape
    mask = None if valid is None else as_mask(valid, shape)
    colors = as_colors(image, spatial_ndim=len(shape), intensity_range=intensity_range, valid=mask)
    as_label_map(known, shape=colors.shape[:-1], name="seeds" if seeds is not None else "prior")
    check_number(beta, "beta", minimum=0)
    check_number(weight, "weight", minimum=0, maximum=MAX_WEIGHT)
    check_number(tol, "tol", minimum=0, strict=True)
    check_number(max_iter, "max_iter", minimum=0, integer=True)
    sides = pixel_sides(spacing, len(shape))
    if mask is not None:
        known[~mask] = -1
    if before is None:
        classes, codes = _codes(known)
    else:
        before = _checked_prior(before, known, mask)
        classes, codes = np.arange(before.shape[-1]), known.astype(np.int32)
    if mask is not None:
        codes[~mask] = -2
        if before is None:
            codes[~reached(codes)] = -2
    scale = contrast_scale(colors, float(beta), mask)
    proba, n_iter, residual, converged = walk(
        colors, codes, len(classes), scale, sides, float(tol), max_iter, before, float(weight)
    )
    labels = np.where(codes == -2, -1, classes[proba.argmax(axis=-1)])
    return RandomWalkerResult(labels, proba, classes, n_iter, residual, converged)


def _checked_prior(
    prior: NDArray[Any], known: NDArray[np.int64], mask: NDArray[np.bool_] | None
) -> NDArray[np.float64]:
    """Return checked probabilities (*spatial, L) in float64; equal ones where not valid."""
    if prior.shape[:-1] != known.shape or prior.shape[-1] == 0:
        wanted = ", ".join(map(str, known.shape))
        raise ValueError(
            f"prior has shape {prior.shape}; expected ({wanted}, L), the seeds' shape and one "
            f"probability for each label."
        )
    n_labels = prior.shape[-1]
    values = only_valid(prior, mask, instead=1 / n_labels, name="prior").astype(np.float64)
    check_proba(values, "prior")
    if known.max() >= n_labels:
        raise ValueError(
            f"seeds holds the label {known.max()}, but prior has labels 0..{n_labels - 1}: drop "
            f"the seed, or add the label to prior."
        )
    values = np.maximum(values, 0)
    return np.asarray(values / values.sum(axis=-1, keepdims=True))


def _codes(known: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the labels that occur, and each pixel's index into them, -1 where unknown."""
    seeded = known >= 0
    if not seeded.any():
        raise ValueError(
            "seeds holds no label >= 0 on a valid pixel; expected at least one seed (negative "
            "numbers mean unknown: pass labels - 1 for the convention of scikit-image)."
        )
    classes, inverse = np.unique(known[seeded], return_inverse=True)
    codes = np.full(known.shape, -1, np.int32)
    codes[seeded] = inverse
    return classes, codes


def reached(codes: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Return where a seed can be reached, for codes as in :func:`walk`."""
    parts, n_parts = ndimage.label(codes != -2)
    has_seed = np.zeros(n_parts + 1, bool)
    has_seed[parts[codes >= 0]] = True
    return has_seed[parts]


def contrast_scale(
    colors: NDArray[np.float32], beta: float, mask: NDArray[np.bool_] | None
) -> float:
    """Return beta / (10 sigma sqrt(C)) for squared differences of colors on 0..255."""
    seen = colors if mask is None else colors[mask]
    deviation = float(seen.std(dtype=np.float64)) / COLOR_SCALE if seen.size else 0.0
    if deviation == 0:
        return 0.0
    return float(beta / (10 * deviation * np.sqrt(colors.shape[-1])) / COLOR_SCALE**2)


def walk(
    colors: NDArray[np.float32],
    codes: NDArray[np.int32],
    n_labels: int,
    scale: float,
    sides: tuple[float, ...],
    tol: float,
    max_iter: int,
    prior: NDArray[np.float64] | None = None,
    weight: float = 1.0,
) -> tuple[NDArray[np.float32], int, float, bool]:
    """Solve the systems of :func:`random_walker` for checked arguments.

    Parameters
    ----------
    colors : ndarray of float32, (*spatial, C)
    codes : ndarray of int32, (*spatial,)
        The index of a seed's label, -1 where unknown, -2 where the walker cannot enter.
    n_labels : int
    scale : float
        The result of :func:`contrast_scale`.
    sides : tuple of float
        The sides of a pixel, in units of the shortest side.
    tol, max_iter, weight
        As in :func:`random_walker`.
    prior : ndarray of float64, (*spatial, L), optional

    Returns
    -------
    proba : ndarray of float32, (*spatial, L)
    n_iter : int
    residual : float
    converged : bool
    """
    n_iter, residual, converged = 0, 0.0, True
    unknown = codes == -1
    if n_labels == 1 or not unknown.any():
        solution: NDArray[Any] = np.zeros((n_labels - 1, *codes.shape))
    elif prior is not None and weight < _MIN_WEIGHT:
        solution = np.moveaxis(prior[..., :-1], -1, 0)
    else:
        system = _system(colors, codes, n_labels, scale, sides)
        if prior is not None:
            _add_prior(system, np.where(unknown, 1 / weight, 0), prior)
        solution, n_iter, residual, converged = _solved(system, tol, max_iter)
    proba = _proba(solution, codes, n_labels)
    return np.moveaxis(proba, 0, -1).astype(np.float32, order="C"), n_iter, residual, converged


class _System(NamedTuple):
    """The operator, and the right sides (K, n) for all labels except the last."""

    operator: Operator
    right: NDArray[np.float64]


def _system(
    colors: NDArray[np.float32],
    codes: NDArray[np.int32],
    n_labels: int,
    scale: float,
    sides: tuple[float, ...],
) -> _System:
    grid = Grid(codes.shape)
    offsets = grid.axis_offsets()
    distances = grid.distances(offsets)
    lengths = np.array([np.hypot.reduce(np.multiply(o, sides)) for o in offsets])
    links = aligned((len(offsets), grid.size), np.float32)
    planes = np.stack([grid.spread(colors[..., c], 0) for c in range(colors.shape[-1])])
    contrast_weights(planes, distances, scale / lengths**2, _MIN_LINK, links)
    ground = aligned((grid.size,), np.float32)
    right = np.zeros((n_labels - 1, grid.size))
    ground_seeds(links, distances, grid.spread(codes, -2), ground, right)
    return _System(Operator(grid, offsets, links, ground), right)


def _add_prior(system: _System, rate: NDArray[Any], prior: NDArray[np.float64]) -> None:
    """Let walkers stop at each pixel at a rate, with labels drawn from the prior."""
    grid = system.operator.grid
    system.operator.ground[...] += grid.spread(rate, 0)
    for k, row in enumerate(system.right):
        row += grid.spread(rate * prior[..., k], 0)


def _solved(
    system: _System, tol: float, max_iter: int
) -> tuple[NDArray[np.float64], int, float, bool]:
    """Return probabilities (K, *spatial) of all labels except the last, at unknown pixels."""
    operator, right = system

    def solve(row: NDArray[np.float64]) -> tuple[NDArray[np.float64], int, float]:
        return conjugate_gradients(operator, solver, islands, row, tol, max_iter)

    if get_num_threads() == 1:
        solver = Multigrid.build(operator)
        islands = Islands.build(operator, _WEAK_LINK, _MAX_ISLANDS)
        found = list(map(solve, right))
    else:
        with ThreadPoolExecutor(get_num_threads()) as pool:
            parted = pool.submit(Islands.build, operator, _WEAK_LINK, _MAX_ISLANDS)
            solver = Multigrid.build(operator)
            islands = parted.result()
            found = list(pool.map(solve, right))
    x = np.stack([solution for solution, _, _ in found])
    rest = np.zeros_like(x)
    for row, solution, out in zip(right, x, rest, strict=True):
        operator.add_product(solution, row, -1.0, out)
    norms = np.linalg.norm(right, axis=1)
    residual = float((np.linalg.norm(rest, axis=1) / np.where(norms > 0, norms, 1)).max())
    converged = all(error <= tol for _, _, error in found)
    return operator.grid.gather(x), max(n_iter for _, n_iter, _ in found), residual, converged


def _proba(solution: NDArray[np.float64], codes: NDArray[np.int32], n_labels: int) -> Any:
    """Return probabilities (L, *spatial) of all labels, also at seeds and unreached pixels."""
    proba = np.empty((n_labels, *codes.shape))
    np.clip(solution, 0, 1, out=proba[:-1])
    np.subtract(1, proba[:-1].sum(axis=0), out=proba[-1])
    np.maximum(proba[-1], 0, out=proba[-1])
    proba /= proba.sum(axis=0)
    seeded = codes >= 0
    proba[:, seeded] = np.eye(n_labels)[:, codes[seeded]]
    proba[:, codes == -2] = 1 / n_labels
    return proba
