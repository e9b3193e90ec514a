"""Level sets: contours that move until they part a picture in two.

Two families. The *morphological* ones keep a binary map and move it with dilations, erosions and
their compositions, which smooth it: no time step, pictures and volumes, very fast.
:func:`chan_vese` solves the partial differential equation itself, and knows its energy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from hybridseg.kernels._compile import threads_for
from hybridseg.kernels.contours.chan_vese import N_SUMS, iterate_level_set
from hybridseg.kernels.contours.ranks import N_INTERVALS, around_rank
from hybridseg.kernels.contours.snakes import evolve_contour, evolve_regions
from hybridseg.validation import as_image, as_numbers, check_magnitude, check_number, check_option

_SQUARE = 5  # pixels along a side of a checkerboard

#: Squares of numbers up to these, by the bytes of a float, can be added up.
_LARGEST = {4: 1e15, 8: 1e150}


@dataclass(frozen=True, eq=False)
class SnakeResult:
    """What a morphological snake found.

    Attributes
    ----------
    labels : ndarray of uint8, (*spatial,)
        1 inside the contour, 0 outside.
    n_iter : int
        Iterations that were computed.
    converged : bool
        The labels began to repeat, from one iteration to the next, or in turns of two with an odd
        ``smoothing``. What further iterations would give is then known, so these were left out:
        ``labels`` are those of the last iteration asked for.
    """

    labels: NDArray[np.uint8]
    n_iter: int
    converged: bool


@dataclass(frozen=True, eq=False)
class ChanVeseResult:
    """What :func:`chan_vese` found.

    Attributes
    ----------
    labels : ndarray of uint8, (H, W)
        1 where the level set is above zero.
    level_set : ndarray of float, (H, W)
    n_iter : int
    converged : bool
        The level set changed by no more than ``tol`` in the last iteration.
    energies : tuple of float
        Of the initial level set and after each iteration; empty with ``with_energy=False``.
    means : tuple of float
        Mean intensity where the label is 0 and 1, on the scale 0..1 of the picture's range.
    """

    labels: NDArray[np.uint8]
    level_set: NDArray[Any]
    n_iter: int
    converged: bool
    energies: tuple[float, ...]
    means: tuple[float, float]


def morphological_chan_vese(
    image: ArrayLike,
    n_iter: int,
    init: str | ArrayLike = "checkerboard",
    *,
    smoothing: int = 1,
    lambda1: float = 1.0,
    lambda2: float = 1.0,
    spatial_ndim: int | None = None,
) -> SnakeResult:
    """Part a picture into two regions that differ in their mean (active contours without edges).

    In each iteration the pixels at the contour join the region whose mean is nearer, weighted by
    the lambdas, and then the contour is smoothed. Labels equal those of scikit-image's function of
    this name after every iteration, bit by bit.

    Parameters
    ----------
    image : array-like, (H, W) or (D, H, W)
        Grey values. float32 is computed in float32, all else in float64.
    n_iter : int
        Iterations at most; 30 to 100 are usual. It ends sooner where the labels repeat.
    init : {"checkerboard", "disk"} or array-like, default="checkerboard"
        Where to start: squares of 5 pixels find many objects at once; a disk (of 3/8 of the least
        side) grows or shrinks as one; an array of the image's shape is 1 where it is above zero.
    smoothing : int, default=1
        Smoothing steps in an iteration, 0 to 4; greater is smoother.
    lambda1, lambda2 : float, default=1.0
        How much deviations from the mean count inside (label 1) and outside. A region with a
        smaller weight takes in a wider range of values.
    spatial_ndim : {2, 3}, optional
        Say 3 for a volume whose last axis is 4 or shorter, which else is taken for channels.

    Returns
    -------
    SnakeResult

    Raises
    ------
    TypeError, ValueError
        A picture with channels, or NaN; an ``init`` of another shape; negative numbers.

    Notes
    -----
    Along an axis of one pixel the labels have no slope (scikit-image refuses such arrays). The
    regions' means are sums of floats in NumPy's order, so that no comparison turns out otherwise.
    Neighbours count alike along all axes, whatever the spacing of a volume.

    References
    ----------
    Marquez-Neila, Baumela and Alvarez, "A morphological approach to curvature-based evolution of
    curves and surfaces", PAMI 36(1), 2014, section 4.2. Chan and Vese, "Active contours without
    edges", IEEE Trans. Image Processing 10(2), 2001.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import morphological_chan_vese
    >>> image = np.zeros((40, 60), np.uint8)
    >>> image[10:30, 20:45] = 200
    >>> result = morphological_chan_vese(image, 50)
    >>> result.converged, bool(((result.labels == 1) == (image > 0)).mean() > 0.98)
    (True, True)
    """
    picture = _as_grey(image, "image", spatial_ndim)
    check_number(n_iter, "n_iter", minimum=0, integer=True)
    check_number(smoothing, "smoothing", minimum=0, integer=True)
    weights = [check_number(lambda2, "lambda2", minimum=0)]
    weights.append(check_number(lambda1, "lambda1", minimum=0))
    labels = _start(init, picture.shape)
    done, converged = evolve_regions(
        _in_space(picture),
        _in_space(labels),
        picture.ndim == 2,
        int(n_iter),
        int(smoothing),
        np.array(weights, picture.dtype),
    )
    return SnakeResult(labels, done, converged)


def morphological_geodesic_active_contour(
    gimage: ArrayLike,
    n_iter: int,
    init: str | ArrayLike = "disk",
    *,
    smoothing: int = 1,
    threshold: str | float = "auto",
    balloon: float = 0.0,
    spatial_ndim: int | None = None,
) -> SnakeResult:
    """Move a contour until it rests on edges (geodesic active contours).

    In each iteration the balloon moves the contour by one pixel where there is no edge, then the
    contour steps down the slope of ``gimage``, then it is smoothed. Labels equal those of
    scikit-image's function of this name after every iteration, bit by bit.

    Parameters
    ----------
    gimage : array-like, (H, W) or (D, H, W)
        Small at edges and great elsewhere, as from
        :func:`skimage.segmentation.inverse_gaussian_gradient`. Not the picture itself.
    n_iter : int
        Iterations at most. A balloon moves one pixel in each, so take as many as the contour has
        pixels to go. It ends sooner where the labels repeat.
    init : {"disk", "checkerboard"} or array-like, default="disk"
        Where to start; best a region around (or, with a positive balloon, inside) the object.
    smoothing : int, default=1
        Smoothing steps in an iteration, 0 to 4; greater is smoother.
    threshold : "auto" or float, default="auto"
        The balloon acts where ``gimage > threshold / abs(balloon)``. "auto" is the 40th percentile.
    balloon : float, default=0.0
        Positive grows the region and negative shrinks it; only edges and smoothing act at 0.
    spatial_ndim : {2, 3}, optional
        Say 3 for a volume whose last axis is 4 or shorter, which else is taken for channels.

    Returns
    -------
    SnakeResult

    Raises
    ------
    TypeError, ValueError
        A picture with channels, or NaN; an ``init`` of another shape; an unknown option.

    References
    ----------
    Marquez-Neila, Baumela and Alvarez, "A morphological approach to curvature-based evolution of
    curves and surfaces", PAMI 36(1), 2014, section 4.1. Caselles, Kimmel and Sapiro, "Geodesic
    active contours", IJCV 22(1), 1997.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import morphological_geodesic_active_contour
    >>> rows, columns = np.mgrid[:60, :80]
    >>> distance = np.hypot(rows - 30, columns - 40)
    >>> edges = 1 - np.exp(-((distance - 15) ** 2) / 8)  # low on a circle
    >>> start = distance < 25
    >>> result = morphological_geodesic_active_contour(edges, 40, start, balloon=-1)
    >>> bool(abs(result.labels.sum() / (np.pi * 15**2) - 1) < 0.1)
    True
    """
    field = _as_grey(gimage, "gimage", spatial_ndim)
    check_number(n_iter, "n_iter", minimum=0, integer=True)
    check_number(smoothing, "smoothing", minimum=0, integer=True)
    check_number(balloon, "balloon")
    if isinstance(threshold, str):
        check_option(threshold, "threshold", ("auto",))
    else:
        check_number(threshold, "threshold")
    labels = _start(init, field.shape)
    grows = np.zeros((1, 1, 1), np.uint8)
    if balloon != 0:
        limit = _percentile(field, 40) if isinstance(threshold, str) else threshold
        grows = _in_space((field > limit / np.abs(balloon)).view(np.uint8))
    done, converged = evolve_contour(
        _in_space(field),
        np.empty(0, field.dtype),
        field.dtype.type(1),
        grows,
        int(np.sign(balloon)),
        np.zeros((2, 1, 1, 1), np.uint8),
        _in_space(labels),
        field.ndim == 2,
        int(n_iter),
        int(smoothing),
    )
    return SnakeResult(labels, done, converged)


def chan_vese(
    image: ArrayLike,
    *,
    mu: float = 0.25,
    lambda1: float = 1.0,
    lambda2: float = 1.0,
    tol: float = 1e-3,
    n_iter: int = 500,
    dt: float = 0.5,
    init: str | ArrayLike = "checkerboard",
    dtype: DTypeLike | None = None,
    with_energy: bool = True,
) -> ChanVeseResult:
    r"""Part a picture into two regions that differ in their mean, with a short boundary.

    Descends, by the semi-implicit scheme of Getreuer's equation 22 with all pixels at once,

    .. math:: \mu \int \delta(\phi) |\nabla \phi|
              + \lambda_1 \int (I - c_1)^2 H(\phi) + \lambda_2 \int (I - c_2)^2 (1 - H(\phi))

    Parameters
    ----------
    image : array-like, (H, W)
        Grey values; they are brought to 0..1 by their own range. For volumes there is
        :func:`morphological_chan_vese`.
    mu : float, default=0.25
        The price of the boundary's length: 0 to 1; greater drops small parts.
    lambda1, lambda2 : float, default=1.0
        How much deviations from the mean count where the level set is above zero, and elsewhere.
    tol : float, default=1e-3
        Stop when the root mean squared change of the level set is no greater.
    n_iter : int, default=500
        Iterations at most.
    dt : float, default=0.5
        The time step; above 1 it may oscillate.
    init : {"checkerboard", "disk", "small disk"} or array-like of float, default="checkerboard"
        The initial level set. The checkerboard converges soonest.
    dtype : {float32, float64}, optional
        What is computed in. None: float32 for a float32 picture, else float64. float32 takes
        two thirds of the time and gives the same labels but for pixels whose level set is within
        rounding of 0.
    with_energy : bool, default=True
        The energy costs half as much again as the iteration (an arctangent for each pixel), and
        decides nothing; False leaves it out.

    Returns
    -------
    ChanVeseResult

    Raises
    ------
    TypeError, ValueError
        An image that is not (H, W), NaN, a number out of its range, another dtype.

    References
    ----------
    Chan and Vese, "Active contours without edges", IEEE Trans. Image Processing 10(2), 2001.
    Getreuer, "Chan-Vese segmentation", Image Processing On Line 2, 2012, equations 7 and 22.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import chan_vese
    >>> image = np.zeros((40, 60), np.uint8)
    >>> image[10:30, 20:45] = 200
    >>> result = chan_vese(image)
    >>> inside = result.labels == result.labels[20, 30]
    >>> bool((inside == (image > 0)).all()), result.energies[-1] < result.energies[0]
    (True, True)
    """
    for value, name in ((mu, "mu"), (lambda1, "lambda1"), (lambda2, "lambda2"), (tol, "tol")):
        check_number(value, name, minimum=0)
    check_number(dt, "dt", minimum=0, strict=True)
    check_number(n_iter, "n_iter", minimum=0, integer=True)
    mu, lambda1, lambda2, dt = float(mu), float(lambda1), float(lambda2), float(dt)
    picture = _unit_range(_as_grey(image, "image", 2), dtype)
    phi = np.pad(_initial_level_set(init, picture), 1, mode="edge")
    evolution = _Evolution(picture, phi, mu, (lambda1, lambda2), dt, with_energy)
    done, change = 0, np.inf
    with threads_for(picture.size):
        while done < n_iter and change > tol:
            change = evolution.iterate()
            done += 1
        means = evolution.means()
        level_set = evolution.phi[1:-1, 1:-1].copy()
        if with_energy:
            evolution.iterate()  # for the energy of what was found
    return ChanVeseResult(
        labels=(level_set > 0).view(np.uint8),
        level_set=level_set,
        n_iter=done,
        converged=bool(change <= tol),
        energies=tuple(evolution.energies),
        means=(means[1], means[0]),
    )


class _Evolution:
    """A level set on its way, and the sums that belong to it."""

    def __init__(
        self,
        picture: NDArray[Any],
        phi: NDArray[Any],
        mu: float,
        weights: tuple[float, float],
        dt: float,
        with_energy: bool,
    ) -> None:
        self.picture, self.phi, self.spare = picture, phi, np.empty_like(phi)
        self.options = (float(mu), np.array(weights, np.float64), float(dt), bool(with_energy))
        self.sums = np.zeros((len(picture), N_SUMS))
        self.total = float(picture.sum(dtype=np.float64))
        self.squares = float(np.einsum("ij,ij->", picture, picture, dtype=np.float64))
        above = phi[1:-1, 1:-1] > 0
        self.inside = (int(above.sum()), float(picture.sum(dtype=np.float64, where=above)))
        self.energies: list[float] = []

    def means(self) -> tuple[float, float]:
        """Of the pixels above zero, and of the others; 0 where there are none."""
        n, total = self.inside
        rest = self.picture.size - n
        return total / max(n, 1), (self.total - total) / max(rest, 1) if rest else 0.0

    def iterate(self) -> float:
        """Go one step; say how much the level set changed."""
        mu, weights, dt, with_energy = self.options
        iterate_level_set(
            self.picture,
            self.phi,
            self.spare,
            np.array(self.means()),
            mu,
            weights,
            dt,
            with_energy,
            self.sums,
        )
        self.phi, self.spare = self.spare, self.phi
        sums = self.sums.sum(axis=0).tolist()
        self.inside = (round(sums[0]), sums[1])
        if with_energy:
            self.energies.append(self._energy(sums[3], sums[4], sums[5], sums[6]))
        return float(np.sqrt(sums[2] / self.picture.size))

    def _energy(self, step: float, first: float, second: float, length: float) -> float:
        """From the moments of the intensity under the smooth step, and beside it."""
        mu, weights, _, _ = self.options
        energy = mu * length
        beside = (self.picture.size - step, self.total - first, self.squares - second)
        for weight, (n, s, q) in zip(weights, ((step, first, second), beside), strict=True):
            energy += float(weight) * max(q - s * s / n, 0.0) if n > 0 else 0.0
        return energy


def _as_grey(image: ArrayLike, name: str, spatial_ndim: int | None) -> NDArray[Any]:
    """A picture (H, W) or a volume (D, H, W), contiguous, float32 or float64, all finite."""
    image = as_numbers(image, name)
    shape = image.shape
    if spatial_ndim is not None:
        check_number(spatial_ndim, "spatial_ndim", minimum=2, maximum=3, integer=True)
    channels = len(shape) == 3 and spatial_ndim is None and shape[-1] <= 4
    if len(shape) != (spatial_ndim or len(shape)) or len(shape) not in (2, 3) or channels:
        expected = {2: "(H, W)", 3: "(D, H, W)"}.get(spatial_ndim or 0, "(H, W) or (D, H, W)")
        raise ValueError(
            f"{name} has shape {shape}; expected grey values {expected}. Bring a picture with "
            f"channels to one value a pixel, as by skimage.color.rgb2gray; a thin volume needs "
            f"spatial_ndim=3."
        )
    array = as_image(image, spatial_ndim=len(shape), name=name)[..., 0]
    small = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    check_magnitude(array, name, largest=_LARGEST[4 if small else 8], cure="fill them before")
    return np.ascontiguousarray(array, np.float32 if small else np.float64)


def _percentile(field: NDArray[Any], percent: int) -> Any:
    """Equal to ``np.percentile`` to the last bit, in half the time for float64."""
    values = field.reshape(-1)
    least, spread = values.min(), np.ptp(values)
    # two numbers to go between, and differences that neither overflow nor underflow
    if values.dtype != np.float64 or values.size < 2 or not 1e-200 < spread < 1e200:
        return np.percentile(field, percent)
    place = (values.size - 1) * (percent / 100)
    rank = min(int(place), values.size - 2)
    found, before = around_rank(values, least, (N_INTERVALS - 1) / spread, rank)
    one, other = np.partition(found, (rank - before, rank - before + 1))[rank - before :][:2]
    weight = place - rank
    if weight >= 0.5:
        return other - (other - one) * (1 - weight)
    return one + (other - one) * weight


def _in_space(array: NDArray[Any]) -> NDArray[Any]:
    """The same memory as (D, H, W)."""
    return array.reshape((1,) * (3 - array.ndim) + array.shape)


def _start(init: str | ArrayLike, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """The binary map to start from, new memory."""
    if not isinstance(init, str):
        return np.ascontiguousarray(_checked_init(init, shape) > 0).view(np.uint8)
    check_option(init, "init", ("checkerboard", "disk"))
    places = np.ogrid[tuple(slice(n) for n in shape)]
    if init == "checkerboard":
        odd = sum(place // _SQUARE for place in places) % 2
        return np.ascontiguousarray(np.broadcast_to(odd, shape), np.uint8)
    squares = sum((place - n // 2) ** 2 for place, n in zip(places, shape, strict=True))
    radius = min(shape) * 3.0 / 8.0
    return np.ascontiguousarray(np.sqrt(squares) < radius).view(np.uint8)


def _checked_init(init: ArrayLike, shape: tuple[int, ...]) -> NDArray[Any]:
    array = as_numbers(init, "init")
    if array.shape != shape:
        raise ValueError(
            f"init has shape {array.shape} and dtype {array.dtype}; expected numbers of the "
            f"image's shape {shape}, or the name of a start."
        )
    if array.dtype.kind == "f" and not bool(np.isfinite(array).all()):
        raise ValueError("init holds NaN or infinite values; expected a level set of numbers.")
    return array


def _unit_range(picture: NDArray[Any], dtype: DTypeLike | None) -> NDArray[Any]:
    if dtype is not None:
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype={dtype!r}; expected float32, float64 or None.")
        picture = picture.astype(dtype, copy=False)
    picture = picture - picture.min()
    greatest = picture.max()
    return picture / greatest if greatest > 0 else picture


def _initial_level_set(init: str | ArrayLike, picture: NDArray[Any]) -> NDArray[Any]:
    shape, dtype = picture.shape, picture.dtype
    if not isinstance(init, str):
        given = _checked_init(init, shape)
        check_magnitude(given, "init", largest=_LARGEST[dtype.itemsize])
        return np.ascontiguousarray(given, dtype)
    check_option(init, "init", ("checkerboard", "disk", "small disk"))
    if init == "checkerboard":
        # in 64 bits first: the signs of the lines between the squares hang on it
        rows, columns = (np.sin(np.arange(n) * (np.pi / _SQUARE)) for n in shape)
        return (rows[:, np.newaxis] * columns).astype(dtype)
    centre = [(n - 1) // 2 for n in shape]
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    distance = np.hypot(rows - centre[0], columns - centre[1])
    radius = max(float(min(centre)), 1.0)
    if init == "disk":
        return ((radius - distance) / radius).astype(dtype)
    return ((radius / 2 - distance) / (radius / 2 * 3)).astype(dtype)
