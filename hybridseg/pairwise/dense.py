"""Dense Gaussian terms, in which every pixel is a neighbor of every other pixel.

The pairwise cost of a labeling x under M kernels is

    sum over pairs i < j of  mu(x_i, x_j)  sum_m w_m k_m(f_i, f_j) / sqrt(n_i n_j),

with ``k(f, g) = exp(-|f - g|^2 / 2)``, the features f divided by their standard deviations, and
``n_i = sum_j k(f_i, f_j)`` (i = j included). With the normalization by n, a kernel's weight has the
same effect in the middle of the image and at its border. The cost is equation 3 of [1]_, the
symmetric normalization that of [2]_.

References
----------
.. [1] P. Krähenbühl, V. Koltun, "Efficient inference in fully connected CRFs with Gaussian edge
   potentials", NIPS, 2011.
.. [2] P. Krähenbühl, V. Koltun, "Parameter learning and convergent inference for dense random
   fields", ICML, 2013.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.distance import cdist

from hybridseg.arguments import read_only
from hybridseg.space import settled, width_in_unit
from hybridseg.validation import as_numbers, as_singles, as_spacing, check_number

#: The widths that "auto" means, in pixels of the finest axis.
SPATIAL_PIXELS, BILATERAL_PIXELS = 3.0, 80.0

Features = NDArray[np.float32]
Spacing = Sequence[float] | float | None

#: The largest feature. Lattice coordinates are rounded float64, exact only far below 2**53.
_MAX_FEATURE = 1e12

#: The largest block of kernel rows that dense_energy holds at once, in bytes.
_MAX_BLOCK_BYTES = 2**26


@runtime_checkable
class DenseKernel(Protocol):
    """The protocol of a dense kernel: a weight, and the features that its Gaussian compares.

    Any class with these two members can be used like the three kernels below.
    """

    @property
    def weight(self) -> float:
        """The cost of incompatible labels at two pixels with equal features, at least 0."""

    def embed(self, colors: NDArray[np.float32], spacing: Spacing = None) -> Features:
        """Return features (N, d) of colors (*spatial, C), divided by their standard deviations."""


@dataclass(frozen=True)
class GaussianKernel:
    """A dense kernel under which nearby pixels should agree: a Gaussian of their distance.

    Parameters
    ----------
    weight : float
        At least 0. A larger weight removes larger isolated regions; 1 to 5 is usual.
    width : float
        Standard deviation of the distance, in the unit of ``spacing`` (pixels without one);
        larger than 0. Choose the size of the specks to remove, 1 to 5 pixels.

    Raises
    ------
    TypeError, ValueError
        A parameter is not a number or out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.pairwise import GaussianKernel
    >>> GaussianKernel(3.0, width=2.0).embed(np.zeros((1, 3, 1), np.float32))
    array([[0. , 0. ],
           [0.5, 0. ],
           [1. , 0. ]], dtype=float32)
    """

    weight: float
    width: float

    def __post_init__(self) -> None:
        check_number(self.weight, "weight", minimum=0)
        check_number(self.width, "width", minimum=0, strict=True)

    def embed(self, colors: NDArray[np.float32], spacing: Spacing = None) -> Features:
        """Return positions divided by the width, (N, n_axes), the last image axis first."""
        colors = _as_colors(colors)
        shape = colors.shape[:-1]
        features = np.empty((*shape, len(shape)), np.float32)
        _write_positions(features, spacing, self.width)
        return features.reshape(-1, len(shape))


@dataclass(frozen=True)
class BilateralKernel:
    """A dense kernel under which nearby pixels of similar color should agree.

    It is a Gaussian of position and color.

    Parameters
    ----------
    weight : float
        At least 0; 3 to 10 is usual.
    width : float
        Standard deviation of the distance, in the unit of ``spacing``; larger than 0. A tenth to
        a quarter of the image is usual, so that the kernel reaches across a whole object.
    color : float
        Standard deviation of each color channel on the scale 0..255; larger than 0. With smaller
        values, labels follow fainter edges (and noise); 3 to 20 is usual.

    Raises
    ------
    TypeError, ValueError
        A parameter is not a number or out of its range.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.pairwise import BilateralKernel
    >>> colors = np.array([[[0], [130]]], np.float32)
    >>> BilateralKernel(10.0, width=2.0, color=13.0).embed(colors)
    array([[ 0. ,  0. ,  0. ],
           [ 0.5,  0. , 10. ]], dtype=float32)
    """

    weight: float
    width: float
    color: float

    def __post_init__(self) -> None:
        check_number(self.weight, "weight", minimum=0)
        check_number(self.width, "width", minimum=0, strict=True)
        check_number(self.color, "color", minimum=0, strict=True)

    def embed(self, colors: NDArray[np.float32], spacing: Spacing = None) -> Features:
        """Return positions / width, then colors / color, (N, n_axes + C)."""
        colors = _as_colors(colors)
        shape = colors.shape[:-1]
        features = np.empty((*shape, len(shape) + colors.shape[-1]), np.float32)
        _write_positions(features, spacing, self.width)
        reach = float(np.abs(colors).max()) / float(self.color)
        if not reach <= float(np.finfo(np.float32).max) or np.float32(self.color) == 0:
            _refuse_overflow("BilateralKernel")
        np.divide(colors, np.float32(self.color), out=features[..., len(shape) :])
        return features.reshape(-1, features.shape[-1])


@dataclass(frozen=True, eq=False)
class FeatureKernel:
    """A dense kernel under which pixels with similar features, of any kind, should agree.

    Parameters
    ----------
    weight : float
        At least 0.
    features : array-like (*spatial, F), or callable
        The features of each pixel, divided by the kernel's standard deviation for each of them.
        Or a function ``features(colors, spacing)`` that computes them from the colors
        ``(*spatial, C)`` on the scale 0..255; the kernel then fits images of any size. Append
        ``position / width`` for a kernel that is local. With more than about ten features,
        pixels have few neighbors in the lattice, and the approximation becomes coarse:
        :class:`hybridseg.deep.NetworkFeatures` reduces the features of a network.

    Raises
    ------
    TypeError, ValueError
        ``weight`` is not a number or negative. ``features`` are checked when they are used.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.pairwise import FeatureKernel
    >>> depth = np.array([[1.0, 1.1, 4.0]])
    >>> FeatureKernel(2.0, depth[..., np.newaxis] / 0.5).embed(np.zeros((1, 3, 1), np.float32))
    array([[2. ],
           [2.2],
           [8. ]], dtype=float32)
    """

    weight: float
    features: ArrayLike | Callable[[NDArray[np.float32], tuple[float, ...]], ArrayLike]

    def __post_init__(self) -> None:
        check_number(self.weight, "weight", minimum=0)

    def embed(self, colors: NDArray[np.float32], spacing: Spacing = None) -> Features:
        """Return the features of every pixel, (N, F).

        Raises
        ------
        TypeError, ValueError
            The function ``features`` fails, or the features do not have the shape (*spatial, F).
        """
        colors = _as_colors(colors)
        shape = colors.shape[:-1]
        given = self.features
        if callable(given) and not isinstance(given, type):
            try:
                given = given(colors, as_spacing(spacing, len(shape)))
            except TypeError as error:  # the function may take other arguments
                raise TypeError(f"features(colors, spacing) fails: {error}") from error
        array = as_numbers(given, "features")
        if array.ndim == 0 or array.shape[:-1] != shape or array.shape[-1] == 0:
            raise ValueError(
                f"features has shape {array.shape}; expected {(*shape, 'F')}: F >= 1 features "
                f"for each pixel of the image."
            )
        rows = array.reshape(-1, array.shape[-1])
        with np.errstate(over="ignore"):  # _check_extent refuses overflow
            return np.array(rows, dtype=np.float32, order="C")


def _as_colors(colors: Any) -> NDArray[np.float32]:
    """Check colors (*spatial, C); float32 colors of an image were checked before."""
    array = as_numbers(colors, "colors", expected="colors (*spatial, C) on the scale 0..255")
    if array.ndim < 2 or array.size == 0:
        raise ValueError(
            f"colors has shape {array.shape}; expected colors (*spatial, C) on the scale 0..255."
        )
    if array.dtype == np.float32:
        return array
    return as_singles(array, "colors")


def _write_positions(features: Features, spacing: Spacing, width: float) -> None:
    """Write index x spacing / width of every pixel to the first of (*spatial, F) features.

    The order is x, y, z. The approximation by the lattice depends on the order of the features;
    this is the order of the published code, so that results can be compared number by number.
    """
    shape = features.shape[:-1]
    steps = as_spacing(spacing, len(shape))
    for axis, (n, step) in enumerate(zip(shape, steps, strict=True)):
        along = [1] * len(shape)
        along[axis] = n
        if n * step / float(width) > float(np.finfo(np.float32).max):
            _refuse_overflow(
                "BilateralKernel" if features.shape[-1] > len(shape) else "GaussianKernel"
            )
        positions = np.arange(n) * settled(step / float(width))
        features[..., len(shape) - 1 - axis] = positions.reshape(along)


def dense_widths(
    spatial_width: Any, bilateral_width: Any, spacing: Spacing, spatial_ndim: int
) -> tuple[Any, Any]:
    """Return both kernels' widths in the unit of ``spacing``, with "auto" resolved."""
    return (
        width_in_unit(spatial_width, "spatial_width", spacing, spatial_ndim, auto=SPATIAL_PIXELS),
        width_in_unit(
            bilateral_width, "bilateral_width", spacing, spatial_ndim, auto=BILATERAL_PIXELS
        ),
    )


def dense_kernels(
    spatial_weight: float,
    spatial_width: float,
    bilateral_weight: float,
    bilateral_width: float,
    bilateral_color: float,
    kernels: Iterable[DenseKernel] = (),
) -> list[DenseKernel]:
    """Return the kernels for the dense CRF's parameters; a weight of 0 leaves its kernel out.

    Raises
    ------
    TypeError, ValueError
        A parameter is not a number or out of its range, or an item of ``kernels`` is not a kernel.
    """
    check_number(spatial_weight, "spatial_weight", minimum=0)
    check_number(spatial_width, "spatial_width", minimum=0, strict=True)
    check_number(bilateral_weight, "bilateral_weight", minimum=0)
    check_number(bilateral_width, "bilateral_width", minimum=0, strict=True)
    check_number(bilateral_color, "bilateral_color", minimum=0, strict=True)
    if isinstance(kernels, str | DenseKernel) or not isinstance(kernels, Iterable):
        raise TypeError(
            f"kernels is a {type(kernels).__name__}; expected a sequence of kernels, such as "
            f"[GaussianKernel(3.0, width=2.0)]."
        )
    kernels = tuple(kernels)
    for position, kernel in enumerate(kernels):
        if not isinstance(kernel, DenseKernel):
            raise TypeError(
                f"kernels[{position}] is a {type(kernel).__name__}; expected a GaussianKernel, a "
                f"BilateralKernel or a FeatureKernel."
            )
        check_number(kernel.weight, f"kernels[{position}].weight", minimum=0)
    every: list[DenseKernel] = [
        GaussianKernel(spatial_weight, spatial_width),
        BilateralKernel(bilateral_weight, bilateral_width, bilateral_color),
        *kernels,
    ]
    return [kernel for kernel in every if kernel.weight > 0]


def valid_features(
    kernel: DenseKernel,
    colors: NDArray[np.float32],
    spacing: Spacing,
    valid: NDArray[np.bool_] | None,
) -> Features:
    """Features of the valid pixels, (n, d) and C-contiguous, checked to be fit for a lattice."""
    name = type(kernel).__name__
    with np.errstate(all="ignore"):  # what overflows is refused below
        given = kernel.embed(read_only(colors), spacing)
    try:
        features = as_numbers(given, "features")
    except TypeError as error:
        raise TypeError(
            f"{name} returns features of dtype {getattr(given, 'dtype', object)}; expected real "
            f"numbers."
        ) from error
    n_pixels = int(np.prod(colors.shape[:-1]))
    if features.ndim != 2 or len(features) != n_pixels or features.shape[1] == 0:
        raise ValueError(
            f"{name} returns features of shape {features.shape}; expected ({n_pixels}, d) with "
            f"d >= 1: a row for each pixel of the image, in row-major order."
        )
    n_valid = n_pixels if valid is None else int(np.count_nonzero(valid))
    if n_valid * (features.shape[1] + 1) >= 2**31:
        raise ValueError(
            f"{name} returns d={features.shape[1]} features at {n_valid} pixels; expected "
            f"(d + 1) * pixels < 2**31, because the lattice counts vertices in 32 bits. Cut the "
            f"image into parts."
        )
    if valid is not None:
        features = features[valid.ravel()]
    with np.errstate(over="ignore"):
        features = np.ascontiguousarray(features, dtype=np.float32)
    _check_extent(features, name)
    return features


#: The parameter of each kernel that overflows its features, with its names in the solvers.
_WIDTHS = {
    "GaussianKernel": "its width (spatial_width)",
    "BilateralKernel": "its width or color (bilateral_width, bilateral_color)",
}


def _refuse_overflow(name: str) -> NoReturn:
    raise ValueError(
        f"{name} returns NaN or infinite features: they overflow float32. Raise {_WIDTHS[name]}."
    )


def _check_extent(features: Features, name: str) -> None:
    largest = float(max(-features.min(initial=0), features.max(initial=0)))  # NaN where one is
    if not math.isfinite(largest):
        raise ValueError(
            f"{name} returns NaN or infinite features; fill them, or exclude their pixels by "
            f"valid, or raise {_WIDTHS.get(name, 'its widths')} if finite numbers overflow."
        )
    if largest > _MAX_FEATURE:
        raise ValueError(
            f"{name} returns features up to {largest:g}; expected at most {_MAX_FEATURE:g} "
            f"standard deviations: raise {_WIDTHS.get(name, 'its width or color')}, which is tiny "
            f"compared with the extent of the image."
        )


def pair_cost(
    features: NDArray[np.float64], labels: NDArray[np.int64], matrix: NDArray[np.float64]
) -> float:
    """Return the sum over pairs i < j of mu(x_i, x_j) k(f_i, f_j) / sqrt(n_i n_j)."""
    norm = np.empty(len(features))
    for rows, kernel in _kernel_rows(features):
        norm[rows] = 1.0 / np.sqrt(kernel.sum(axis=1))
    by_label = np.zeros((len(labels), len(matrix)))
    by_label[np.arange(len(labels)), labels] = norm
    agreeing = float(matrix[labels, labels] @ norm**2)  # pairs i = j have k = 1
    ordered = sum(
        float(((kernel @ by_label) * matrix[labels[rows]]).sum(axis=1) @ norm[rows])
        for rows, kernel in _kernel_rows(features)
    )
    return (ordered - agreeing) / 2


def _kernel_rows(features: NDArray[np.float64]) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """Yield the rows of the Gaussian kernel matrix in blocks of bounded memory."""
    n_rows = max(1, _MAX_BLOCK_BYTES // (8 * max(1, len(features))))
    for start in range(0, len(features), n_rows):
        rows = slice(start, start + n_rows)
        yield rows, np.exp(-0.5 * cdist(features[rows], features, "sqeuclidean"))
