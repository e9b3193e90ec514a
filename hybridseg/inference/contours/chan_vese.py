"""The Chan-Vese level set: two regions of different mean with a short boundary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from hybridseg.inference.contours.inputs import MAX_VALUE, SQUARE, as_gray, checked_init
from hybridseg.kernels._compile import threads_for
from hybridseg.kernels.contours.chan_vese import N_SUMS, iterate_level_set
from hybridseg.validation import check_magnitude, check_number, check_option, warn_caller

# With costs in place of an image: the time step, and the change of the level set that stops.
_STEP, _TOL = 0.5, 1e-3


@dataclass(frozen=True, eq=False)
class ChanVeseResult:
    """The result of :func:`chan_vese`.

    Attributes
    ----------
    labels : ndarray of int32, (H, W)
        1 where the level set is above zero.
    level_set : ndarray of float, (H, W)
        The final level set.
    n_iter : int
        Iterations made.
    converged : bool
        Whether the level set changed by less than ``tol`` in the last iteration.
    energies : tuple of float
        The energy at the start and after each iteration; empty with ``with_energy=False``.
    means : tuple of float
        The mean intensity of labels 0 and 1, on the scale 0..1 of the image's range.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import chan_vese
    >>> image = np.zeros((20, 30), np.uint8)
    >>> image[5:15, 10:22] = 200
    >>> result = chan_vese(image, tol=0.01)
    >>> result.converged, len(result.energies) == result.n_iter + 1, result.means
    (True, True, (0.0, 1.0))
    """

    labels: NDArray[np.int32]
    level_set: NDArray[Any]
    n_iter: int
    converged: bool
    energies: tuple[float, ...]
    means: tuple[float, float]


def chan_vese(
    image: ArrayLike,
    *,
    mu: float = 0.25,
    lambda1: float = 1.0,
    lambda2: float = 1.0,
    tol: float = 1e-3,
    max_iter: int = 500,
    dt: float = 0.5,
    init: str | ArrayLike = "checkerboard",
    dtype: DTypeLike | None = None,
    with_energy: bool = True,
    n_iter: int | None = None,
) -> ChanVeseResult:
    r"""Divide an image into two regions that differ in their mean, with a short boundary.

    A level set descends the energy of Chan and Vese [1]_,

    .. math:: \mu \int \delta(\phi) |\nabla \phi|
              + \lambda_1 \int (I - c_1)^2 H(\phi) + \lambda_2 \int (I - c_2)^2 (1 - H(\phi)),

    by the semi-implicit scheme of [2]_, equation 22, with all pixels updated at once.

    Parameters
    ----------
    image : array-like, (H, W)
        Gray values; they are scaled from their range to 0..1. For volumes, use
        :func:`morphological_chan_vese`.
    mu : float, default=0.25
        The weight of the boundary's length, usually 0 to 1. Larger values remove small parts.
    lambda1, lambda2 : float, default=1.0
        The weights of squared deviations from the mean where the level set is above zero, and
        elsewhere.
    tol : float, default=1e-3
        Stop when the root mean squared change of the level set is below this; 0 never stops early.
    max_iter : int, default=500
        The largest number of iterations.
    dt : float, default=0.5
        The time step; above 1 it may oscillate.
    init : {"checkerboard", "disk", "small disk"} or array-like of float, default="checkerboard"
        The initial level set. The checkerboard converges fastest.
    dtype : {float32, float64}, optional
        The dtype of the computation. None: float32 for a float32 image, otherwise float64. float32
        takes two thirds of the time; only labels of pixels whose level set is close to 0 may
        differ.
    with_energy : bool, default=True
        Whether to record the energy. It takes half the time of the iteration again and does not
        influence the result.
    n_iter : int, optional
        The former name of ``max_iter``.

    Returns
    -------
    ChanVeseResult

    Raises
    ------
    TypeError, ValueError
        The image is not (H, W) or holds NaN, a number is out of its range, or the dtype is unknown.

    References
    ----------
    .. [1] T. F. Chan, L. A. Vese, "Active contours without edges", IEEE Transactions on Image
       Processing 10(2), 2001.
    .. [2] P. Getreuer, "Chan-Vese segmentation", Image Processing On Line 2, 2012, equations 7
       and 22.

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
    if n_iter is not None:
        warn_caller(f"n_iter={n_iter!r} is now called max_iter.", FutureWarning)
        max_iter = n_iter
    check_number(max_iter, "max_iter", minimum=0, integer=True)
    mu, lambda1, lambda2, dt = float(mu), float(lambda1), float(lambda2), float(dt)
    gray = _unit_range(as_gray(image, "image", 2), dtype)
    phi = np.pad(_initial_level_set(init, gray), 1, mode="edge")
    evolution = _Evolution(gray, phi, mu, (lambda1, lambda2), dt, with_energy)
    done, change = 0, np.inf
    with threads_for(gray.size):
        while done < max_iter and change >= tol:
            change = evolution.iterate()
            done += 1
        means = evolution.means()
        level_set = evolution.phi[1:-1, 1:-1].copy()
        if with_energy:
            evolution.iterate()  # records the energy of the result
    return ChanVeseResult(
        labels=(level_set > 0).astype(np.int32),
        level_set=level_set,
        n_iter=done,
        converged=bool(change < tol),
        energies=tuple(evolution.energies),
        means=(means[1], means[0]),
    )


def length_and_costs(
    difference: NDArray[Any], mu: float, n_iter: int, held: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    r"""Return where a label wins that costs ``difference`` more than the other label.

    The level set starts from the cheaper labels and descends, by the scheme of :func:`chan_vese`,

    .. math:: \mu \int \delta(\phi) |\nabla \phi| + \int \mathrm{difference}\, H(\phi)

    Parameters
    ----------
    difference : ndarray of float, (H, W)
        The cost of the label minus the cost of the other label.
    mu : float
        The cost of a pixel of boundary, in the unit of the costs.
    n_iter : int
        The largest number of iterations.
    held : ndarray of bool, (2, H, W), optional
        The pixels that are held at the other label, and at the label.

    Returns
    -------
    ndarray of bool, (H, W)

    Notes
    -----
    With means -c and c and lambdas 1 / (4 c), the difference of the two squared deviations is the
    intensity itself. So the step of :func:`chan_vese` applies, with the negated difference of the
    costs in place of the image.
    """
    gain = -np.asarray(difference, np.float64)
    level = max(float(abs(gain).max()), 1.0)
    phi = np.pad(np.clip(gain, -1, 1), 1, mode="edge")
    weight = 1 / (4 * level)
    evolution = _Evolution(gain, phi, mu, (weight, weight), _STEP, False, (level, -level))
    evolution.hold(held)
    with threads_for(gain.size):
        for _ in range(n_iter):
            change = evolution.iterate()
            evolution.hold(held)
            if change <= _TOL:
                break
    return evolution.phi[1:-1, 1:-1] > 0


class _Evolution:
    """The state of the iteration: the level set, and sums over its two sides."""

    def __init__(
        self,
        gray: NDArray[Any],
        phi: NDArray[Any],
        mu: float,
        weights: tuple[float, float],
        dt: float,
        with_energy: bool,
        fixed_means: tuple[float, float] | None = None,
    ) -> None:
        self.gray, self.phi, self.spare = gray, phi, np.empty_like(phi)
        self.fixed_means = fixed_means
        self.options = (float(mu), np.array(weights, np.float64), float(dt), bool(with_energy))
        self.sums = np.zeros((len(gray), N_SUMS))
        self.total = float(gray.sum(dtype=np.float64))
        self.squares = float(np.einsum("ij,ij->", gray, gray, dtype=np.float64))
        above = phi[1:-1, 1:-1] > 0
        self.inside = (int(above.sum()), float(gray.sum(dtype=np.float64, where=above)))
        self.energies: list[float] = []

    def means(self) -> tuple[float, float]:
        """Return the means of the pixels above zero and of the others; 0 if there are none."""
        if self.fixed_means is not None:
            return self.fixed_means
        n, total = self.inside
        rest = self.gray.size - n
        return total / max(n, 1), (self.total - total) / max(rest, 1) if rest else 0.0

    def hold(self, held: NDArray[np.bool_] | None) -> None:
        """Set the level set at seeds: -1 for the other label, 1 for the label."""
        if held is None:
            return
        inner = self.phi[1:-1, 1:-1]
        inner[held[0]], inner[held[1]] = -1, 1
        self.phi[...] = np.pad(inner, 1, mode="edge")

    def iterate(self) -> float:
        """Make one step; return the root mean squared change of the level set."""
        mu, weights, dt, with_energy = self.options
        iterate_level_set(
            self.gray,
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
        return float(np.sqrt(sums[2] / self.gray.size))

    def _energy(self, step: float, first: float, second: float, length: float) -> float:
        """Return the energy from sums of the smooth step, times intensity and times its square."""
        mu, weights, _, _ = self.options
        energy = mu * length
        beside = (self.gray.size - step, self.total - first, self.squares - second)
        for weight, (n, s, q) in zip(weights, ((step, first, second), beside), strict=True):
            energy += float(weight) * max(q - s * s / n, 0.0) if n > 0 else 0.0
        return energy


def _unit_range(gray: NDArray[Any], dtype: DTypeLike | None) -> NDArray[Any]:
    if dtype is not None:
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise ValueError(f"dtype={dtype!r}; expected float32, float64 or None.")
        gray = gray.astype(dtype, copy=False)
    gray = gray - gray.min()
    largest = gray.max()
    return gray / largest if largest > 0 else gray


def _initial_level_set(init: str | ArrayLike, gray: NDArray[Any]) -> NDArray[Any]:
    shape, dtype = gray.shape, gray.dtype
    if not isinstance(init, str):
        given = checked_init(init, shape)
        check_magnitude(given, "init", largest=MAX_VALUE[dtype.itemsize])
        return np.ascontiguousarray(given, dtype)
    check_option(init, "init", ("checkerboard", "disk", "small disk"))
    if init == "checkerboard":
        # float64 first: the signs on the lines between squares depend on it
        rows, columns = (np.sin(np.arange(n) * (np.pi / SQUARE)) for n in shape)
        return (rows[:, np.newaxis] * columns).astype(dtype)
    center = [(n - 1) // 2 for n in shape]
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    distance = np.hypot(rows - center[0], columns - center[1])
    radius = max(float(min(center)), 1.0)
    if init == "disk":
        return ((radius - distance) / radius).astype(dtype)
    return ((radius / 2 - distance) / (radius / 2 * 3)).astype(dtype)
