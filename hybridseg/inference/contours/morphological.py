"""Morphological snakes: contours of a binary map that dilations and erosions move and smooth.

There is no time step, images and volumes are treated alike, and it is fast.
:func:`hybridseg.inference.chan_vese` solves the partial differential equation itself and computes
the energy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.inference.contours.inputs import SQUARE, as_gray, checked_init
from hybridseg.kernels.contours.ranks import N_INTERVALS, around_rank
from hybridseg.kernels.contours.snakes import evolve_contour, evolve_regions
from hybridseg.validation import check_number, check_option


@dataclass(frozen=True, eq=False)
class SnakeResult:
    """The result of a morphological snake.

    Attributes
    ----------
    labels : ndarray of int32, (*spatial,)
        1 inside the contour, 0 outside.
    n_iter : int
        Iterations made.
    converged : bool
        Whether the labels began to repeat: every iteration, or every second one with an odd
        ``smoothing``. The remaining iterations were then skipped, and ``labels`` are those that
        the last of them would give.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import morphological_chan_vese
    >>> image = np.zeros((20, 30), np.uint8)
    >>> image[5:15, 10:22] = 200
    >>> result = morphological_chan_vese(image, 100)
    >>> result.converged, result.n_iter < 100
    (True, True)
    """

    labels: NDArray[np.int32]
    n_iter: int
    converged: bool


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
    """Divide an image into two regions that differ in their mean (active contours without edges).

    In each iteration the pixels at the contour join the region whose mean is nearer, weighted by
    the lambdas, and then the contour is smoothed [1]_. The energy is that of [2]_. After every
    iteration the labels are identical to those of scikit-image's function of this name.

    Parameters
    ----------
    image : array-like, (H, W) or (D, H, W)
        Gray values. The computation is in float32 for a float32 image, otherwise in float64.
    n_iter : int
        The largest number of iterations; 30 to 100 are usual. It stops earlier when the labels
        repeat.
    init : {"checkerboard", "disk"} or array-like, default="checkerboard"
        The initial labels. A checkerboard (squares of 5 pixels) finds many objects at once. A disk
        (its radius is 3/8 of the shortest side) grows or shrinks as one region. An array of the
        image's shape is label 1 where it is above zero.
    smoothing : int, default=1
        Smoothing steps in an iteration, usually 0 to 4.
    lambda1, lambda2 : float, default=1.0
        The weights of squared deviations from the mean inside (label 1) and outside. A region
        with a smaller weight accepts a wider range of values.
    spatial_ndim : {2, 3}, optional
        Pass 3 for a volume whose last axis is 4 or shorter; otherwise that axis means channels.

    Returns
    -------
    SnakeResult

    Raises
    ------
    TypeError, ValueError
        The image has channels or NaN, ``init`` has another shape, or a number is negative.

    Notes
    -----
    Along an axis of one pixel the gradient of the labels is 0 (scikit-image raises an error for
    such arrays). Means are computed in float64; scikit-image uses the image's own dtype.
    Neighbors count alike along all axes, whatever the spacing of a volume.

    References
    ----------
    .. [1] P. Marquez-Neila, L. Baumela, L. Alvarez, "A morphological approach to curvature-based
       evolution of curves and surfaces", PAMI 36(1), 2014, section 4.2.
    .. [2] T. F. Chan, L. A. Vese, "Active contours without edges", IEEE Transactions on Image
       Processing 10(2), 2001.

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
    gray = as_gray(image, "image", spatial_ndim)
    check_number(n_iter, "n_iter", minimum=0, integer=True)
    check_number(smoothing, "smoothing", minimum=0, integer=True)
    weights = [check_number(lambda2, "lambda2", minimum=0)]
    weights.append(check_number(lambda1, "lambda1", minimum=0))
    labels = _start(init, gray.shape)
    done, converged = evolve_regions(
        _in_space(gray),
        _in_space(labels),
        gray.ndim == 2,
        int(n_iter),
        int(smoothing),
        np.array(weights, gray.dtype),
    )
    return SnakeResult(labels.astype(np.int32), done, converged)


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
    contour moves towards lower values of ``gimage``, then it is smoothed [1]_ [2]_. After every
    iteration the labels are identical to those of scikit-image's function of this name.

    Parameters
    ----------
    gimage : array-like, (H, W) or (D, H, W)
        Small at edges and large elsewhere, as from
        :func:`skimage.segmentation.inverse_gaussian_gradient`. Do not pass the image itself.
    n_iter : int
        The largest number of iterations. A balloon moves the contour by one pixel in each, so
        allow at least the distance to the object in pixels. It stops earlier when the labels
        repeat.
    init : {"disk", "checkerboard"} or array-like, default="disk"
        The initial labels; best a region around the object, or inside it with a positive balloon.
    smoothing : int, default=1
        Smoothing steps in an iteration, usually 0 to 4.
    threshold : "auto" or float, default="auto"
        The balloon acts where ``gimage > threshold / abs(balloon)``. "auto" is the 40th percentile.
    balloon : float, default=0.0
        A positive number grows the region, a negative one shrinks it. With 0, only edges and
        smoothing act.
    spatial_ndim : {2, 3}, optional
        Pass 3 for a volume whose last axis is 4 or shorter; otherwise that axis means channels.

    Returns
    -------
    SnakeResult

    Raises
    ------
    TypeError, ValueError
        The image has channels or NaN, ``init`` has another shape, or an option is unknown.

    References
    ----------
    .. [1] P. Marquez-Neila, L. Baumela, L. Alvarez, "A morphological approach to curvature-based
       evolution of curves and surfaces", PAMI 36(1), 2014, section 4.1.
    .. [2] V. Caselles, R. Kimmel, G. Sapiro, "Geodesic active contours", IJCV 22(1), 1997.

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
    field = as_gray(gimage, "gimage", spatial_ndim)
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
    return SnakeResult(labels.astype(np.int32), done, converged)


def _percentile(field: NDArray[Any], percent: int) -> Any:
    """Return exactly what ``np.percentile`` returns; for float64 in half the time."""
    values = field.reshape(-1)
    least, spread = values.min(), np.ptp(values)
    # the fast way needs two values, and differences that neither overflow nor underflow
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
    """Return a view of shape (D, H, W)."""
    return array.reshape((1,) * (3 - array.ndim) + array.shape)


def _start(init: str | ArrayLike, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return the initial binary map in new memory."""
    if not isinstance(init, str):
        return np.ascontiguousarray(checked_init(init, shape) > 0).view(np.uint8)
    check_option(init, "init", ("checkerboard", "disk"))
    places = np.ogrid[tuple(slice(n) for n in shape)]
    if init == "checkerboard":
        odd = sum(place // SQUARE for place in places) % 2
        return np.ascontiguousarray(np.broadcast_to(odd, shape), np.uint8)
    squares = sum((place - n // 2) ** 2 for place, n in zip(places, shape, strict=True))
    radius = min(shape) * 3.0 / 8.0
    return np.ascontiguousarray(np.sqrt(squares) < radius).view(np.uint8)
