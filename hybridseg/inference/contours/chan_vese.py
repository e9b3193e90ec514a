"""Chan-Vese: a level set that descends an energy of two regions and of their boundary's length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from hybridseg.inference.contours.starts import LARGEST, SQUARE, as_grey, checked_init
from hybridseg.kernels._compile import threads_for
from hybridseg.kernels.contours.chan_vese import N_SUMS, iterate_level_set
from hybridseg.validation import check_magnitude, check_number, check_option

# The time step where costs move the contour, and the change of the level set that ends it.
_STEP, _STILL = 0.5, 1e-3


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
    picture = _unit_range(as_grey(image, "image", 2), dtype)
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


def length_and_costs(
    ahead: NDArray[Any], mu: float, n_iter: int, held: NDArray[np.bool_] | None = None
) -> NDArray[np.bool_]:
    r"""Where a label ends up that costs ``ahead`` more than the other, with a short boundary.

    Descends, by the scheme of :func:`chan_vese` and from the cheaper labels,

    .. math:: \mu \int \delta(\phi) |\nabla \phi| + \int a H(\phi)

    Parameters
    ----------
    ahead : ndarray of float, (H, W)
        What the label costs more than the other.
    mu : float
        The price of a pixel of boundary, in the unit of the costs.
    n_iter : int
        Iterations at most.
    held : ndarray of bool, (2, H, W), optional
        Seeds of the other label, and of the label.

    Returns
    -------
    ndarray of bool, (H, W)

    Notes
    -----
    With means of -c and c, and lambdas of 1 / (4 c), the two squares of Chan and Vese's force
    differ by the intensity itself, so the same step serves, with the costs as the picture.
    """
    gain = -np.asarray(ahead, np.float64)
    level = max(float(abs(gain).max()), 1.0)
    phi = np.pad(np.clip(gain, -1, 1), 1, mode="edge")
    weight = 1 / (4 * level)
    evolution = _Evolution(gain, phi, mu, (weight, weight), _STEP, False, (level, -level))
    evolution.hold(held)
    with threads_for(gain.size):
        for _ in range(n_iter):
            change = evolution.iterate()
            evolution.hold(held)
            if change <= _STILL:
                break
    return evolution.phi[1:-1, 1:-1] > 0


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
        fixed_means: tuple[float, float] | None = None,
    ) -> None:
        self.picture, self.phi, self.spare = picture, phi, np.empty_like(phi)
        self.fixed_means = fixed_means
        self.options = (float(mu), np.array(weights, np.float64), float(dt), bool(with_energy))
        self.sums = np.zeros((len(picture), N_SUMS))
        self.total = float(picture.sum(dtype=np.float64))
        self.squares = float(np.einsum("ij,ij->", picture, picture, dtype=np.float64))
        above = phi[1:-1, 1:-1] > 0
        self.inside = (int(above.sum()), float(picture.sum(dtype=np.float64, where=above)))
        self.energies: list[float] = []

    def means(self) -> tuple[float, float]:
        """Of the pixels above zero, and of the others; 0 where there are none."""
        if self.fixed_means is not None:
            return self.fixed_means
        n, total = self.inside
        rest = self.picture.size - n
        return total / max(n, 1), (self.total - total) / max(rest, 1) if rest else 0.0

    def hold(self, held: NDArray[np.bool_] | None) -> None:
        """Put seeds on their sides: those of the other label, and those of the label."""
        if held is None:
            return
        inner = self.phi[1:-1, 1:-1]
        inner[held[0]], inner[held[1]] = -1, 1
        self.phi[...] = np.pad(inner, 1, mode="edge")

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
        given = checked_init(init, shape)
        check_magnitude(given, "init", largest=LARGEST[dtype.itemsize])
        return np.ascontiguousarray(given, dtype)
    check_option(init, "init", ("checkerboard", "disk", "small disk"))
    if init == "checkerboard":
        # in 64 bits first: the signs of the lines between the squares hang on it
        rows, columns = (np.sin(np.arange(n) * (np.pi / SQUARE)) for n in shape)
        return (rows[:, np.newaxis] * columns).astype(dtype)
    centre = [(n - 1) // 2 for n in shape]
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    distance = np.hypot(rows - centre[0], columns - centre[1])
    radius = max(float(min(centre)), 1.0)
    if init == "disk":
        return ((radius - distance) / radius).astype(dtype)
    return ((radius / 2 - distance) / (radius / 2 * 3)).astype(dtype)
