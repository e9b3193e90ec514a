"""Features of pixels: colors, and Gaussian derivatives of every channel at several widths."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from hybridseg.features.boxes import Box
from hybridseg.features.gaussians import radius_of, smooth
from hybridseg.kernels._compile import threads_for
from hybridseg.kernels.superpixels.color import srgb_to_lab
from hybridseg.space import pixel_sides, widths_in_pixels
from hybridseg.validation import Colors, as_colors, as_image, as_numbers, check_magnitude

Plane = NDArray[Any]  # float32, (*spatial,)

# Gaussians are cut off at this many standard deviations; 0.3 % of the weight lies beyond.
_TRUNCATE = 3.0
# The minimum width in pixels, whose Gaussian covers one pixel; its inverse is the maximum.
_MIN_SIGMA = 2.0**-40
# The sigmas that "auto" means, in pixels of the finest axis.
_DEFAULT_SIGMAS = (1.0, 2.0, 4.0, 8.0)
#: The largest color. Colors should be in 0..255, and squares of larger values must fit float32.
_MAX_COLOR = 1e12


class PixelFeatures(BaseEstimator):
    """Features of every pixel, for a classifier of pixels.

    Three channels are taken as sRGB and become CIELAB, one channel becomes L*, and other numbers
    of channels are used unchanged. The features are

    - the value of each channel;
    - for each channel and width: the smoothed value, the gradient magnitude and the eigenvalues
      of the Hessian;
    - for each width: the square roots of the eigenvalues of the structure tensor, summed over
      channels [2]_, which describe the texture around the pixel.

    Derivatives are multiplied by the width once per order, so that their sizes are comparable
    between widths [1]_.

    Parameters
    ----------
    sigmas : "auto" or sequence of float, default="auto"
        Widths of the Gaussians (standard deviations, in the unit of ``spacing``). "auto" is 1, 2,
        4 and 8 pixels of the finest axis. The largest width determines how much context a feature
        describes: use 8 pixels for objects of at least 20 pixels in photographs, and add 16 if a
        class is recognized only by its wider context. A Gaussian wider than twice the image is
        replaced by the mean.
    intensity : bool, default=True
        Whether to include the channels, unchanged and smoothed.
    edges : bool, default=True
        Whether to include the gradient magnitudes.
    texture : bool, default=True
        Whether to include the eigenvalues of the Hessian, in descending order, and the square
        roots of the eigenvalues of the structure tensor.
    position : bool, default=False
        Whether to include the position, 0..1 along each axis. It helps if scribbles on an image
        are used to segment the same image. It misleads the classifier if objects are at other
        positions in other images.

    References
    ----------
    .. [1] T. Lindeberg, "Feature detection with automatic scale selection", IJCV 30(2), 1998.
    .. [2] S. Di Zenzo, "A note on the gradient of a multi-image", CVGIP 33(1), 1986.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.features import PixelFeatures
    >>> colors = np.zeros((12, 16, 3), np.float32)
    >>> PixelFeatures(sigmas=(1.0, 2.0))(colors).shape  # 3 + 2 * (3 * 4 + 2)
    (12, 16, 31)
    """

    def __init__(
        self,
        *,
        sigmas: str | Sequence[float] = "auto",
        intensity: bool = True,
        edges: bool = True,
        texture: bool = True,
        position: bool = False,
    ) -> None:
        self.sigmas = sigmas
        self.intensity = intensity
        self.edges = edges
        self.texture = texture
        self.position = position

    def __call__(
        self, colors: ArrayLike | Colors, spacing: Sequence[float] | float | None = None
    ) -> NDArray[np.float32]:
        """Features of every pixel of one image.

        The result holds F planes of float32, and about twelve more are in memory during the
        computation. For a large image, compute one :meth:`part` at a time.

        Parameters
        ----------
        colors : array-like, (H, W, C) or (D, H, W, C), or Colors
            Colors on the scale 0..255; see :func:`hybridseg.validation.as_colors`.
        spacing : float or sequence of float, optional
            Distance between neighboring pixels along each axis; ones if None.

        Returns
        -------
        ndarray of float32, (*spatial, F)
            Finite. F depends on C, the number of axes and the parameters only.

        Raises
        ------
        ValueError
            A parameter or an argument is not as described.
        """
        return self.part(colors, (), spacing)

    def part(
        self,
        colors: ArrayLike | Colors,
        box: Sequence[slice],
        spacing: Sequence[float] | float | None = None,
    ) -> NDArray[np.float32]:
        """Features of the pixels in a box, equal to their features in the whole image.

        Only the box and the pixels within reach of the filters are read, so memory and time
        depend on the size of the box. The sides of a box should be longer than the reach, which is
        three times the greatest width and a few pixels.

        Parameters
        ----------
        colors : array-like, (H, W, C) or (D, H, W, C), or Colors
            Colors of the whole image, on the scale 0..255.
        box : sequence of slices
            One slice without a step for each axis. An axis without a slice is taken whole.
        spacing : float or sequence of float, optional
            Distance between neighboring pixels along each axis; ones if None.

        Returns
        -------
        ndarray of float32, (*shape of the box, F)
            ``self(colors, spacing)[box]``, up to float32 rounding.

        Raises
        ------
        ValueError
            A parameter or an argument is not as described.

        Examples
        --------
        >>> import numpy as np
        >>> from hybridseg.features import PixelFeatures
        >>> colors = np.zeros((90, 120, 3), np.float32)
        >>> PixelFeatures().part(colors, np.s_[10:20, 30:]).shape
        (10, 90, 59)
        """
        known = isinstance(colors, Colors)
        colors = as_numbers(colors, "colors")
        _check_axes(colors)
        shape = colors.shape[:-1]
        sides = pixel_sides(spacing, len(shape))
        sigmas = widths_in_pixels(self.sigmas, "sigmas", spacing, len(shape), auto=_DEFAULT_SIGMAS)
        n_features = self._count(len(sigmas), colors.shape[-1], len(shape))
        inner = whole_box(box, shape)
        outer = _widened(inner, _reach(sigmas, sides), shape)
        around = colors[outer]
        channels = perceptual_colors(as_scaled_colors(Colors(around) if known else around))
        kept = tuple(
            slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True)
        )
        planes = (plane[kept] for plane in self._planes(channels, sigmas, sides))
        places = pixel_positions(shape, inner) if self.position else ()
        features = np.empty((*channels[kept].shape[:-1], n_features), np.float32)
        for f, plane in enumerate(chain(planes, places)):
            features[..., f] = plane
        return features

    def _count(self, n_sigmas: int, n_channels: int, n_axes: int) -> int:
        per_channel = bool(self.intensity) + bool(self.edges) + n_axes * bool(self.texture)
        per_width = n_channels * per_channel + n_axes * bool(self.texture)
        count = n_channels * bool(self.intensity) + n_sigmas * per_width
        count += n_axes * bool(self.position)
        if count == 0:
            raise ValueError(
                "PixelFeatures has nothing to compute; pass intensity=True or position=True, or "
                "sigmas with edges or texture."
            )
        return count

    def _planes(
        self, channels: Plane, sigmas: tuple[float, ...], sides: tuple[float, ...]
    ) -> Iterator[Plane]:
        planes = [np.ascontiguousarray(channels[..., c]) for c in range(channels.shape[-1])]
        for plane in planes:
            if self.intensity:
                yield plane
            for sigma in sigmas:
                yield from self._responses(gaussian_response(plane, sigma, sides))
        if self.texture and sigmas:
            yield from _structure_eigenvalues(planes, sigmas, sides)

    def _responses(self, response: GaussianResponse) -> Iterator[Plane]:
        if self.intensity:
            yield response.smooth
        if self.edges:
            yield response.gradient_magnitude()
        if self.texture:
            yield from response.hessian_eigenvalues()


def _reach(sigmas: tuple[float, ...], sides: tuple[float, ...]) -> list[int]:
    """Return the distance in pixels along each axis within which pixels affect a feature."""
    if not sigmas:
        return [0] * len(sides)
    ends = (min(sigmas), max(sigmas))
    least, greatest = ([radius_of(sigma / side, _TRUNCATE) for side in sides] for sigma in ends)
    # of the Hessian at the greatest width, and of the structure tensor
    return [max(wide + 2, wide + 1 + narrow) for narrow, wide in zip(least, greatest, strict=True)]


@dataclass(frozen=True, eq=False)
class GaussianResponse:
    """One channel smoothed by a Gaussian, and its scale-normalized derivatives.

    Attributes
    ----------
    smooth : ndarray of float32, (*spatial,)
    steps : tuple of float
        Distance of neighboring pixels along each axis in units of the Gaussian's width. A
        derivative in this unit equals the width times the derivative with respect to position.
    """

    smooth: Plane
    steps: tuple[float, ...]

    def gradient(self) -> list[Plane]:
        """First derivatives along each axis, central differences."""
        return [derivative(self.smooth, axis, step) for axis, step in enumerate(self.steps)]

    def gradient_magnitude(self) -> Plane:
        """Length of the gradient."""
        return np.sqrt(np.sum([along * along for along in self.gradient()], axis=0))

    def laplacian(self) -> Plane:
        """Sum of the second derivatives."""
        second = [derivative(g, axis, self.steps[axis]) for axis, g in enumerate(self.gradient())]
        return np.sum(second, axis=0)

    def hessian_eigenvalues(self) -> list[Plane]:
        """Eigenvalues of the matrix of second derivatives, in descending order."""
        first = self.gradient()
        pairs = combinations_with_replacement(range(len(first)), 2)
        return symmetric_eigenvalues([derivative(first[i], j, self.steps[j]) for i, j in pairs])


def gaussian_response(plane: Plane, sigma: float, spacing: tuple[float, ...]) -> GaussianResponse:
    """Smooth one channel, (*spatial,), by a Gaussian of width ``sigma`` in spacing's unit."""
    sigma = min(max(sigma, _MIN_SIGMA), 1 / _MIN_SIGMA)  # the inverses fit float32
    steps = tuple(step / sigma for step in spacing)
    widths = [sigma / step for step in spacing]
    return GaussianResponse(smooth(plane, widths, truncate=_TRUNCATE), steps)


def derivative(plane: Plane, axis: int, step: float) -> Plane:
    """Central differences along one axis, one-sided at the ends; 0 along an axis of one pixel."""
    if plane.shape[axis] == 1:
        return np.zeros_like(plane)
    return np.gradient(plane, step, axis=axis)


def symmetric_eigenvalues(entries: list[Plane]) -> list[Plane]:
    """Eigenvalues, descending, of the symmetric matrix of each pixel.

    Parameters
    ----------
    entries : list of 3 or 6 ndarrays of float32
        The upper triangle row by row: (00, 01, 11), or (00, 01, 02, 11, 12, 22).
    """
    return _eigenvalues_2(*entries) if len(entries) == 3 else _eigenvalues_3(*entries)


def _eigenvalues_2(a: Plane, b: Plane, d: Plane) -> list[Plane]:
    middle = (a + d) / 2
    radius = np.hypot((a - d) / 2, b)
    return [middle + radius, middle - radius]


def _eigenvalues_3(a: Plane, b: Plane, c: Plane, d: Plane, e: Plane, f: Plane) -> list[Plane]:
    """Solve the characteristic polynomial by the trigonometric formula.

    The matrix is first reduced by its mean eigenvalue and scaled, so that nothing overflows.
    """
    middle = (a + d + f) / 3
    a, d, f = a - middle, d - middle, f - middle
    radius = np.sqrt((a * a + d * d + f * f + 2 * (b * b + c * c + e * e)) / 6)
    size = np.maximum(radius, np.finfo(np.float32).tiny ** 0.25)
    a, b, c, d, e, f = (entry / size for entry in (a, b, c, d, e, f))
    half_determinant = (a * (d * f - e * e) - b * (b * f - e * c) + c * (b * e - d * c)) / 2
    angle = np.arccos(np.clip(half_determinant, -1, 1)) / 3
    greatest = 2 * radius * np.cos(angle)
    least = 2 * radius * np.cos(angle + np.float32(2 * math.pi / 3))
    return [middle + greatest, middle - greatest - least, middle + least]


def _structure_eigenvalues(
    planes: list[Plane], sigmas: Sequence[float], spacing: tuple[float, ...]
) -> Iterator[Plane]:
    """Square roots of the eigenvalues of the structure tensor, smoothed at each width.

    The tensor is sum_c grad c grad c^T (Di Zenzo), with gradients at the smallest width.
    """
    pairs = list(combinations_with_replacement(range(planes[0].ndim), 2))
    products = [np.zeros_like(planes[0]) for _ in pairs]
    for plane in planes:
        gradient = gaussian_response(plane, min(sigmas), spacing).gradient()
        for product, (i, j) in zip(products, pairs, strict=True):
            product += gradient[i] * gradient[j]
    for sigma in sigmas:
        tensor = [gaussian_response(product, sigma, spacing).smooth for product in products]
        for eigenvalue in symmetric_eigenvalues(tensor):
            yield np.sqrt(np.maximum(eigenvalue, 0))


def pixel_positions(shape: tuple[int, ...], box: Box) -> Iterator[Plane]:
    """Return the positions 0..1 of a box's pixels along each axis, which broadcast to the box."""
    for axis, (size, cut) in enumerate(zip(shape, box, strict=True)):
        places = ((np.arange(cut.start, cut.stop) + 0.5) / size).astype(np.float32)
        yield places.reshape([-1 if a == axis else 1 for a in range(len(shape))])


def whole_box(box: Sequence[slice], shape: tuple[int, ...]) -> Box:
    """Complete a box: one slice for each axis, with both ends.

    Raises
    ------
    ValueError
        The box has too many slices, or a slice has a step.
    """
    if len(box) > len(shape) or any(cut.step not in (None, 1) for cut in box):
        raise ValueError(
            f"box={tuple(box)}; expected at most {len(shape)} slices without steps, one for each "
            f"spatial axis, such as np.s_[100:200, 50:]."
        )
    rest = (slice(None),) * (len(shape) - len(box))
    ends = [cut.indices(size) for cut, size in zip((*box, *rest), shape, strict=True)]
    return tuple(slice(start, max(start, stop)) for start, stop, _ in ends)


def _widened(box: Box, reach: list[int], shape: tuple[int, ...]) -> Box:
    """A box enlarged by the reach, within the image."""
    return tuple(
        slice(max(0, cut.start - far), min(size, cut.stop + far))
        for cut, far, size in zip(box, reach, shape, strict=True)
    )


def perceptual_colors(colors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Convert three channels (sRGB) to CIELAB and one (gray) to L*; return others unchanged.

    Parameters
    ----------
    colors : ndarray of float32, (*spatial, C)
        On the scale 0..255.

    Returns
    -------
    ndarray of float32, (*spatial, C)
    """
    if colors.shape[-1] not in (1, 3):
        return colors
    return np.ascontiguousarray(np.moveaxis(perceptual_planes(colors), 0, -1))


def perceptual_planes(colors: NDArray[np.float32]) -> NDArray[np.float32]:
    """As :func:`perceptual_colors`, with the channels first: (C, *spatial), C-contiguous."""
    n_channels = colors.shape[-1]
    if n_channels not in (1, 3):
        return np.ascontiguousarray(np.moveaxis(colors, -1, 0))
    flat = np.ascontiguousarray(colors, np.float32).reshape(-1, n_channels)
    with threads_for(flat.size):
        return srgb_to_lab(flat).reshape(n_channels, *colors.shape[:-1])


def as_scaled_colors(
    colors: ArrayLike | Colors, *, spatial_ndim: int | None = None
) -> NDArray[np.float32]:
    """Check colors that are already on the scale 0..255 and make them C-contiguous float32.

    Parameters
    ----------
    colors : array-like, (*spatial, C)
        Colors are returned unchanged and unchecked.
    spatial_ndim : {2, 3}, optional
        The number of spatial axes; with None, all axes except the last.

    Raises
    ------
    TypeError, ValueError
        The colors are not real numbers, not finite or too large, or have a wrong shape.
    """
    if isinstance(colors, Colors):
        return as_colors(colors, spatial_ndim=spatial_ndim, name="colors")
    if spatial_ndim is None:
        _check_axes(colors)
        spatial_ndim = np.ndim(colors) - 1
    array = as_image(colors, spatial_ndim=spatial_ndim, name="colors")
    check_magnitude(array, "colors", largest=_MAX_COLOR, cure="fill them, or mask their pixels")
    if array.dtype.kind in "ui" and max(-int(array.min()), int(array.max())) > _MAX_COLOR:
        raise ValueError(
            f"colors holds {array.max()}; expected colors on the scale 0..255: pass "
            f"hybridseg.validation.as_colors(image)."
        )
    return np.ascontiguousarray(array, np.float32)


def _check_axes(colors: ArrayLike) -> None:
    colors = as_numbers(colors, "colors")
    if np.ndim(colors) not in (3, 4):
        raise ValueError(
            f"colors has shape {np.shape(colors)}; expected (H, W, C) or (D, H, W, C)."
        )
