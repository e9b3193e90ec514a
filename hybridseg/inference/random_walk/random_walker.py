"""Labels of a few seeds spread over an image by random walks."""

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

#: Keeps every pixel within reach of its neighbours, however great the contrast.
_LEAST_WEIGHT = 1e-10
#: Weights below this bound an island, which is solved for apart, if there are not more than these.
_WEAK, _MOST_ISLANDS = 0.1, 20_000
#: Weights beside a prior: no averages over more than a thousand pixels; less than the least does
#: nothing within the precision of the solution.
MOST_WEIGHT, _LEAST_SHARE = 1e6, 1e-9


@dataclass(frozen=True, eq=False)
class RandomWalkerResult:
    """What :func:`random_walker` found.

    Attributes
    ----------
    labels : ndarray of int64, (*spatial,)
        The most probable seed label, in the values of the seeds; -1 where ``valid`` is False and
        where no seed can be reached.
    proba : ndarray of float64, (*spatial, L)
        The probability that a walker meets a seed of each label first, in the order of ``classes``.
        One at the label of a seed; equal for all labels where no seed can be reached and where not
        valid. Each pixel's sum to one.
    classes : ndarray of int64, (L,)
        The labels of the seeds, sorted.
    n_iter : int
        Iterations of conjugate gradients, of the label that took the most.
    residual : float
        The greatest norm of the residual of any label's system, relative to its right side,
        computed anew from the solution in 64 bits.
    converged : bool
        Whether the estimated error of every probability fell to ``tol``.
    """

    labels: NDArray[np.int64]
    proba: NDArray[np.float64]
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
    r"""Label each pixel by the seed that a random walker, who shuns edges, would meet first.

    The walker steps to a neighbour (4, or 6 in a volume) with probability in proportion to

    .. math:: w_{pq} = \exp\left(-\frac{\beta}{10\, \sigma \sqrt{C}}
              \frac{\|c_p - c_q\|^2}{\mathrm{dist}(p, q)^2}\right) + 10^{-10}

    with colours on the scale 0..1, sigma their standard deviation over the whole image, C channels,
    and dist in pixels of the finest axis, so that the unit of ``spacing`` does not matter. The
    probabilities solve one linear system for each label but the last.

    With a ``prior``, the walker may also leave at any pixel, for the labels with the probabilities
    that the prior has there. The probabilities x of each label then are those of the least

    .. math:: \frac{1}{\mathrm{weight}} \sum_p (x_p - \mathrm{prior}_p)^2
              + \sum_{pq} w_{pq} (x_p - x_q)^2

    Parameters
    ----------
    image : array-like, (H, W[, C]) or (D, H, W[, C]), or Colors
        Any real dtype. The rank of ``seeds`` tells whether it is a picture or a volume.
    seeds : array-like of int, (*spatial,), or None with a ``prior``
        Labels >= 0 where they are certain, negative where unknown: the convention of this package.
        (scikit-image marks unknown pixels by 0; pass ``labels - 1`` for its seeds.)
    beta : float, default=130.0
        How much the walker shuns edges, > 0 or 0 for none. 50 to 500 suit photographs; greater
        lets weaker edges stop the walk, and takes more iterations.
    prior : array-like of float, (*spatial, L), optional
        Probabilities of the labels 0..L-1 before the walk, such as a classifier's; each pixel's sum
        to one. Seeds are then optional, and below L.
    weight : float, default=1.0
        How much equal probabilities of neighbours of one colour count against the prior, 0 to 1e6:
        the inverse of Grady's gamma. The prior is averaged over about the square root of this
        number of pixels, as far as no edge is in the way. Plays no part without a prior.
    spacing : float or sequence of float, optional
        The distance between neighbouring pixels along each axis, in any unit; in multiples of the
        least it divides differences of colours. Default: 1.
    tol : float, default=1e-6
        Stop when the estimated error of every probability is at most this. The estimate is the
        greatest entry of the preconditioned residual.
    max_iter : int, default=500
        Iterations at most; 10 to 30 are usual.
    intensity_range : {"dtype", "image"} or (low, high)
        What the scale 0..1 stands for; see :func:`hybridseg.validation.as_colors`.
    valid : array-like of bool, (*spatial,), optional
        Where False, nobody walks, the pixel's colour is not looked at, and a seed does not count.

    Returns
    -------
    RandomWalkerResult

    Raises
    ------
    TypeError, ValueError
        Arguments outside of the above, or neither a seed on a valid pixel nor a prior.

    Notes
    -----
    The definition is that of ``skimage.segmentation.random_walker`` (whose ``data`` are on the
    scale 0..1, too), so that results agree, up to the tolerances; where ``valid`` is given, sigma
    here is that of the valid pixels, and scikit-image's ``spacing`` is not divided by its least.
    The labels are shared among numba's threads. The system is
    never written out: conjugate gradients in 64 bits are preconditioned by a multigrid V-cycle in
    32 bits and by the exact solution among the constants of islands that only weak links join to
    the rest.
    With ``beta`` in the thousands most pixels are such islands; more iterations are then needed.

    References
    ----------
    Grady, "Random walks for image segmentation", PAMI 28(11), 2006, equations 1, 8 and 10. Grady,
    "Multilabel random walker image segmentation using prior models", CVPR 2005 (with a prior).
    Dendy, "Black box multigrid", Journal of Computational Physics 48, 1982. Tang, Nabben, Vuik and
    Erlangga, "Comparison of two-level preconditioners derived from deflation, domain decomposition
    and multigrid methods", Journal of Scientific Computing 39, 2009 (A-DEF2).

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
    check_number(weight, "weight", minimum=0, maximum=MOST_WEIGHT)
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
    """Probabilities (*spatial, L) in 64 bits; equal ones where nothing is valid."""
    if prior.shape[:-1] != known.shape or prior.shape[-1] == 0:
        raise ValueError(
            f"prior has shape {prior.shape}; expected {(*known.shape, 'L')}, the seeds' shape and "
            f"one probability for each label."
        )
    n_labels = prior.shape[-1]
    values = only_valid(prior, mask, instead=1 / n_labels, name="prior").astype(np.float64)
    check_proba(values, "prior")
    if known.max() >= n_labels:
        raise ValueError(
            f"seeds holds the label {known.max()}, but prior has labels 0..{n_labels - 1}."
        )
    values = np.maximum(values, 0)
    return np.asarray(values / values.sum(axis=-1, keepdims=True))


def _codes(known: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The labels that occur, and for each pixel the index of its label, -1 where unknown."""
    seeded = known >= 0
    if not seeded.any():
        raise ValueError(
            "seeds holds no label >= 0 on a valid pixel; expected at least one seed (negative "
            "numbers mark the unknown; labels in the style of scikit-image need labels - 1)."
        )
    classes, inverse = np.unique(known[seeded], return_inverse=True)
    codes = np.full(known.shape, -1, np.int32)
    codes[seeded] = inverse
    return classes, codes


def reached(codes: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Where some seed can be walked to; codes are as :func:`walk` takes them."""
    parts, n_parts = ndimage.label(codes != -2)
    has_seed = np.zeros(n_parts + 1, bool)
    has_seed[parts[codes >= 0]] = True
    return has_seed[parts]


def contrast_scale(
    colors: NDArray[np.float32], beta: float, mask: NDArray[np.bool_] | None
) -> float:
    """Beta / (10 sigma sqrt(C)), for squared differences of colours on the scale 0..255."""
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
) -> tuple[NDArray[np.float64], int, float, bool]:
    """Solve the systems of :func:`random_walker`, whose arguments are checked.

    Parameters
    ----------
    colors : ndarray of float32, (*spatial, C)
    codes : ndarray of int32, (*spatial,)
        The index of a seed's label, -1 where unknown, -2 where nobody walks.
    n_labels : int
    scale : float
        As from :func:`contrast_scale`.
    sides : tuple of float
        Of a pixel, in units of the shortest.
    tol, max_iter, weight
        As in :func:`random_walker`.
    prior : ndarray of float64, (*spatial, L), optional

    Returns
    -------
    proba : ndarray of float64, (*spatial, L)
    n_iter : int
    residual : float
    converged : bool
    """
    n_iter, residual, converged = 0, 0.0, True
    unknown = codes == -1
    if n_labels == 1 or not unknown.any():
        solution: NDArray[Any] = np.zeros((n_labels - 1, *codes.shape))
    elif prior is not None and weight < _LEAST_SHARE:
        solution = np.moveaxis(prior[..., :-1], -1, 0)
    else:
        system = _system(colors, codes, n_labels, scale, sides)
        if prior is not None:
            _let_leave(system, np.where(unknown, 1 / weight, 0), prior)
        solution, n_iter, residual, converged = _solved(system, tol, max_iter)
    proba = _proba(solution, codes, n_labels)
    return np.ascontiguousarray(np.moveaxis(proba, 0, -1)), n_iter, residual, converged


class _System(NamedTuple):
    """The operator, and the right side (K, n) of all labels but the last."""

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
    contrast_weights(planes, distances, scale / lengths**2, _LEAST_WEIGHT, links)
    ground = aligned((grid.size,), np.float32)
    right = np.zeros((n_labels - 1, grid.size))
    ground_seeds(links, distances, grid.spread(codes, -2), ground, right)
    return _System(Operator(grid, offsets, links, ground), right)


def _let_leave(system: _System, rate: NDArray[Any], prior: NDArray[np.float64]) -> None:
    """Let walkers leave at each pixel at a rate, for the labels of the prior."""
    grid = system.operator.grid
    system.operator.ground[...] += grid.spread(rate, 0)
    for k, row in enumerate(system.right):
        row += grid.spread(rate * prior[..., k], 0)


def _solved(
    system: _System, tol: float, max_iter: int
) -> tuple[NDArray[np.float64], int, float, bool]:
    """Probabilities (K, *spatial) of all labels but the last, where there are unknowns."""
    operator, right = system

    def solve(row: NDArray[np.float64]) -> tuple[NDArray[np.float64], int, float]:
        return conjugate_gradients(operator, solver, islands, row, tol, max_iter)

    if get_num_threads() == 1:
        solver = Multigrid.build(operator)
        islands = Islands.build(operator, _WEAK, _MOST_ISLANDS)
        found = list(map(solve, right))
    else:
        with ThreadPoolExecutor(get_num_threads()) as pool:
            parted = pool.submit(Islands.build, operator, _WEAK, _MOST_ISLANDS)
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
    """All labels' probabilities (L, *spatial), seeds and unreached pixels included."""
    proba = np.empty((n_labels, *codes.shape))
    np.clip(solution, 0, 1, out=proba[:-1])
    np.subtract(1, proba[:-1].sum(axis=0), out=proba[-1])
    np.maximum(proba[-1], 0, out=proba[-1])
    proba /= proba.sum(axis=0)
    seeded = codes >= 0
    proba[:, seeded] = np.eye(n_labels)[:, codes[seeded]]
    proba[:, codes == -2] = 1 / n_labels
    return proba
