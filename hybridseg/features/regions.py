"""Properties of the regions of a map: neighbors, sums and means, features, majority labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from hybridseg.features.pixels import (
    as_scaled_colors,
    gaussian_response,
    perceptual_colors,
)
from hybridseg.kernels.superpixels.regions import (
    face_keys,
    neighbor_means,
    region_statistics,
    sums_and_counts,
)
from hybridseg.space import pixel_sides, widths_in_pixels
from hybridseg.validation import Colors, as_image, as_label_map, check_magnitude, check_number

#: The maximum number of cells of a table of counts, which then takes two gigabytes.
_MAX_TABLE_CELLS = 2**28

#: The maximum number of regions, whose numbers have 32 bits.
_MAX_REGIONS = 2**31 - 1

# The sigmas that "auto" means, in pixels of the finest axis.
_DEFAULT_SIGMAS = (1.0, 2.0)

# Ranges of the color histograms: L*, a* and b* of the colors in sRGB.
_LAB_RANGES = ((0.0, 100.0), (-60.0, 60.0), (-60.0, 60.0))


@dataclass(frozen=True, eq=False)
class RegionGraph:
    """The pairs of regions that touch, and the number of pixel faces between them.

    Attributes
    ----------
    edges : ndarray of int32, (E, 2)
        Pairs i < j of neighboring regions, sorted, each pair once.
    lengths : ndarray of float32, (E,)
        Number of pixel faces between the two regions of each pair.
    n_regions : int
        Number of regions, including those without neighbors.

    Examples
    --------
    >>> from hybridseg.features import region_graph
    >>> graph = region_graph([[0, 0, 1], [2, 2, 1]])
    >>> graph.edges.tolist()
    [[0, 1], [0, 2], [1, 2]]
    >>> graph.lengths.tolist(), graph.n_regions  # regions 0 and 2 touch along two faces
    ([1.0, 2.0, 1.0], 3)
    """

    edges: NDArray[np.int32]
    lengths: NDArray[np.float32]
    n_regions: int


def region_graph(regions: ArrayLike) -> RegionGraph:
    """Neighborhood graph of a region map: two regions are neighbors if their pixels share a face.

    Parameters
    ----------
    regions : array-like of int, (H, W) or (D, H, W)
        Region numbers 0..R-1, such as the result of :func:`hybridseg.features.slic`; a pixel with
        a negative number belongs to no region.

    Returns
    -------
    RegionGraph

    Raises
    ------
    TypeError, ValueError
        ``regions`` is not a map of integers with two or three axes.

    Examples
    --------
    >>> from hybridseg.features import region_graph
    >>> graph = region_graph([[0, 0, 1], [2, 2, 1]])
    >>> graph.edges.tolist(), graph.lengths.tolist(), graph.n_regions
    ([[0, 1], [0, 2], [1, 2]], [1.0, 2.0, 1.0], 3)
    """
    regions, n_regions = _as_regions(regions)
    volume = regions.reshape((1,) * (3 - regions.ndim) + regions.shape)
    keys, lengths = np.unique(face_keys(volume, n_regions), return_counts=True)
    edges = np.stack(np.divmod(keys, max(n_regions, 1)), axis=1).astype(np.int32)
    return RegionGraph(edges, lengths.astype(np.float32), n_regions)


def region_means(colors: ArrayLike, regions: ArrayLike) -> NDArray[np.float32]:
    """Mean of each channel over the pixels of each region.

    Parameters
    ----------
    colors : array-like, (*spatial[, C])
        Any real values, one or several at each pixel.
    regions : array-like of int, (*spatial,)
        Region numbers 0..R-1 without gaps; negative pixels are left out.

    Returns
    -------
    ndarray of float32, (R, C)

    Raises
    ------
    TypeError, ValueError
        The shapes do not fit, a region has no pixel, or a value in a region is not finite or
        beyond 1e30.

    Examples
    --------
    >>> from hybridseg.features import region_means
    >>> region_means([[2, 4, 9], [2, 4, 7]], [[0, 0, 1], [0, 0, 1]]).tolist()
    [[3.0], [8.0]]
    """
    sums, counts = _summed(colors, regions, "colors")
    return (sums / counts[:, None]).astype(np.float32)


def region_sums(values: ArrayLike, regions: ArrayLike) -> NDArray[np.float32]:
    """Sum of each channel over the pixels of each region, such as the costs of each label.

    Parameters
    ----------
    values : array-like, (*spatial, C)
        Any real values, such as the cost of each label.
    regions : array-like of int, (*spatial,)
        Region numbers 0..R-1 without gaps; negative pixels are left out.

    Returns
    -------
    ndarray of float32, (R, C)
        Integers beyond 2^24 are rounded. Sums of costs are the ``unary`` of
        :func:`hybridseg.inference.graph_cut` and :func:`hybridseg.inference.grid_mean_field` on a
        region graph.

    Raises
    ------
    TypeError, ValueError
        The shapes do not fit, a region has no pixel, or a value in a region is not finite or
        beyond 1e30.

    Examples
    --------
    >>> from hybridseg.features import region_sums
    >>> costs = [[[0.0, 2.0], [0.5, 1.0], [3.0, 0.0]]]  # one row of three pixels, two labels
    >>> region_sums(costs, [[0, 0, 1]]).tolist()
    [[0.5, 3.0], [3.0, 0.0]]
    """
    return _summed(values, regions, "values")[0].astype(np.float32)


def _summed(
    values: ArrayLike, regions: ArrayLike, name: str
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    labels, n_regions = _as_regions(regions, gaps=False)
    array = as_image(values, spatial_ndim=labels.ndim, name=name)
    _check_same_shape(array, labels, name)
    inside = labels >= 0
    check_magnitude(array if inside.all() else array[inside], name)
    with np.errstate(over="ignore"):  # outside of all regions
        flat = np.ascontiguousarray(array, np.float32).reshape(labels.size, -1)
    return sums_and_counts(flat, labels.ravel(), n_regions)


def region_labels(
    regions: ArrayLike, labels: ArrayLike, n_regions: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Majority label of the labeled pixels of each region; the smallest of several.

    Parameters
    ----------
    regions : array-like of int, (*spatial,)
        Region numbers 0..n_regions-1; negative pixels are left out.
    labels : array-like of int, (*spatial,)
        Labels, such as scribbles; every negative value means "not labeled".
    n_regions : int
        Number of regions R.

    Returns
    -------
    labels : ndarray of int64, (R,)
        The majority label; -1 for a region without a labeled pixel.
    weights : ndarray of int64, (R,)
        The number of pixels of the region with that label, which can serve as a sample weight.

    Raises
    ------
    TypeError, ValueError
        A map does not hold integers, the shapes differ, or a region number is not below
        ``n_regions``.

    Examples
    --------
    >>> from hybridseg.features import region_labels
    >>> labels, weights = region_labels([[0, 0, 0, 1]], [[7, 4, 7, -1]], 2)
    >>> labels.tolist(), weights.tolist()
    ([7, -1], [2, 0])
    """
    check_number(n_regions, "n_regions", minimum=0, maximum=_MAX_TABLE_CELLS, integer=True)
    regions, n_found = _as_regions(regions)
    if n_found > n_regions:
        raise ValueError(
            f"regions holds the number {n_found - 1}, but n_regions={n_regions}; pass "
            f"n_regions=regions.max() + 1 or more."
        )
    given = as_label_map(labels, shape=regions.shape)
    labeled = (given >= 0) & (regions >= 0)
    values, index = np.unique(given[labeled], return_inverse=True)
    if not values.size:
        return np.full(n_regions, -1), np.zeros(n_regions, np.int64)
    if n_regions * values.size > _MAX_TABLE_CELLS:
        raise ValueError(
            f"labels holds {values.size} different labels in n_regions={n_regions} regions; "
            f"expected at most {_MAX_TABLE_CELLS} pairs of label and region, whose counts fit in "
            f"memory. Check n_regions, and that labels and regions are not swapped."
        )
    cells = regions[labeled].astype(np.int64) * values.size + index
    table = np.bincount(cells, minlength=n_regions * values.size).reshape(n_regions, -1)
    weights = table.max(axis=1)
    return np.where(weights > 0, values[table.argmax(axis=1)], -1), weights


class RegionFeatures(BaseEstimator):
    """Features of regions: statistics of color and texture, of the region and its neighbors.

    Three channels are taken as sRGB and become CIELAB, one channel becomes L*, and other numbers
    of channels are used unchanged. The features of a region are

    - mean and standard deviation of each channel, and of its Gaussian gradient magnitude and
      Laplacian at each width;
    - a histogram of each channel;
    - the logarithm of the size;
    - the mean of all of these over the neighboring regions [1]_, weighted by the length of the
      common boundary. This step is applied ``context`` times, each time to the previous result.

    Parameters
    ----------
    n_bins : int, default=8
        Number of bins of each color histogram; 0 for none.
    sigmas : "auto" or sequence of float, default="auto"
        Widths of the Gaussian derivatives (standard deviations, in the unit of ``spacing``).
        "auto" is 1 and 2 pixels of the finest axis. Choose them by the scale of the texture: about
        1 pixel for fine grain, 4 for leaves and gravel. An empty sequence computes none.
    context : int, default=2
        Number of rings of neighbors to include: 0 for the region alone, 1 for its neighbors, 2
        for their neighbors as well.
    position : bool, default=False
        Whether to include the centroid, 0..1 along each axis. It helps if objects are at similar
        positions in all images (sky above, road below), and misleads the classifier otherwise.
    size : bool, default=True
        Whether to include the natural logarithm of the number of pixels.

    References
    ----------
    .. [1] B. Fulkerson, A. Vedaldi, S. Soatto, "Class segmentation and object localization with
       superpixel neighborhoods", ICCV, 2009, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.features import RegionFeatures
    >>> colors = np.zeros((6, 8, 3), np.float32)
    >>> regions = np.repeat([0, 1], 24).reshape(6, 8)
    >>> RegionFeatures(n_bins=0, sigmas=(), context=0)(colors, regions).shape
    (2, 7)
    """

    def __init__(
        self,
        *,
        n_bins: int = 8,
        sigmas: str | Sequence[float] = "auto",
        context: int = 2,
        position: bool = False,
        size: bool = True,
    ) -> None:
        self.n_bins = n_bins
        self.sigmas = sigmas
        self.context = context
        self.position = position
        self.size = size

    def __call__(
        self,
        colors: ArrayLike | Colors,
        regions: ArrayLike,
        spacing: Sequence[float] | float | None = None,
    ) -> NDArray[np.float32]:
        """Features of every region of one image.

        Parameters
        ----------
        colors : array-like, (*spatial, C), or Colors
            Colors on the scale 0..255; see :func:`hybridseg.validation.as_colors`.
        regions : array-like of int, (*spatial,)
            Region numbers 0..R-1 without gaps; negative pixels are left out.
        spacing : float or sequence of float, optional
            Distance between neighboring pixels along each axis; ones if None.

        Returns
        -------
        ndarray of float32, (R, F)
            Finite. F depends on C, the number of axes and the parameters only.

        Raises
        ------
        TypeError, ValueError
            A parameter or an argument is not as described.
        """
        check_number(self.n_bins, "n_bins", minimum=0, integer=True)
        check_number(self.context, "context", minimum=0, integer=True)
        regions, n_regions = _as_regions(regions, gaps=False)
        colors = as_scaled_colors(colors, spatial_ndim=regions.ndim)
        _check_same_shape(colors, regions)
        sides = pixel_sides(spacing, regions.ndim)
        sigmas = widths_in_pixels(
            self.sigmas, "sigmas", spacing, regions.ndim, auto=_DEFAULT_SIGMAS
        )
        own = self._own_statistics(perceptual_colors(colors), regions, n_regions, sigmas, sides)
        blocks = [own, *self._context(own, regions)]
        if self.position:
            blocks.append(_centroids(regions, n_regions))
        return np.concatenate(blocks, axis=1).astype(np.float32)

    def _own_statistics(
        self,
        channels: NDArray[np.float32],
        regions: NDArray[np.int32],
        n_regions: int,
        sigmas: tuple[float, ...],
        sides: tuple[float, ...],
    ) -> NDArray[np.float64]:
        """Mean and deviation of all responses, histograms of the channels, log size: (R, F)."""
        n_channels = channels.shape[-1]
        planes = [channels[..., c] for c in range(n_channels)]
        for plane in planes[:n_channels]:
            planes.extend(_textures(plane, sigmas, sides))
        values = np.stack(planes, axis=-1).reshape(regions.size, -1)
        low, width = _histogram_bins(n_channels, self.n_bins)
        means, deviations, histograms = region_statistics(
            values, regions.ravel(), n_regions, low, width, self.n_bins
        )
        blocks = [means, deviations, histograms.reshape(n_regions, -1)]
        if self.size:
            counts = np.bincount(regions[regions >= 0], minlength=n_regions)
            blocks.append(np.log(counts)[:, None])
        return np.concatenate(blocks, axis=1)

    def _context(
        self, own: NDArray[np.float64], regions: NDArray[np.int32]
    ) -> Iterator[NDArray[np.float64]]:
        if self.context:
            graph = region_graph(regions)
        for _ in range(self.context):
            own = neighbor_means(graph.edges, graph.lengths, own)
            yield own


def _textures(
    plane: NDArray[np.float32], sigmas: tuple[float, ...], sides: tuple[float, ...]
) -> Iterator[NDArray[np.float32]]:
    """Gradient magnitude and Laplacian of one channel at each width."""
    for sigma in sigmas:
        response = gaussian_response(plane, sigma, sides)
        yield response.gradient_magnitude()
        yield response.laplacian()


def _histogram_bins(
    n_channels: int, n_bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower end and bin width of the histogram of each channel; none without bins."""
    if n_bins == 0:
        return np.empty(0), np.empty(0)
    ends = {1: _LAB_RANGES[:1], 3: _LAB_RANGES}.get(n_channels, ((0.0, 255.0),) * n_channels)
    low, high = np.array(ends).T
    return low.copy(), (high - low) / n_bins


def _centroids(regions: NDArray[np.int32], n_regions: int) -> NDArray[np.float64]:
    """Centroid of each region, 0..1 along each axis: (R, spatial_ndim)."""
    places = [(np.arange(n, dtype=np.float32) + 0.5) / n for n in regions.shape]
    grid = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1).reshape(regions.size, -1)
    sums, counts = sums_and_counts(grid, regions.ravel(), n_regions)
    return sums / counts[:, None]


def _as_regions(regions: ArrayLike, *, gaps: bool = True) -> tuple[NDArray[np.int32], int]:
    """Check a region map; return it as C-contiguous int32, and its number of regions."""
    labels = as_label_map(regions, name="regions")
    if labels.max(initial=0) >= _MAX_REGIONS:
        raise ValueError(
            f"regions holds the number {labels.max()}; expected 0..R-1 with fewer than "
            f"{_MAX_REGIONS} regions. Renumber with np.unique(regions, return_inverse=True)[1]."
        )
    array = np.ascontiguousarray(labels, np.int32)
    if array.ndim not in (2, 3) or array.size == 0:
        raise ValueError(
            f"regions has shape {array.shape}; expected one region map (H, W) or (D, H, W)."
        )
    n_regions = int(array.max()) + 1
    if not gaps and (n_empty := _count_empty(array, n_regions)):
        raise ValueError(
            f"regions lacks {n_empty} of the numbers from 0 to its greatest, {n_regions - 1}; "
            f"expected 0..R-1 without gaps. Renumber with np.unique(regions, "
            f"return_inverse=True)[1].reshape(regions.shape)."
        )
    return array, n_regions


def _count_empty(regions: NDArray[np.int32], n_regions: int) -> int:
    numbers = regions[regions >= 0]
    if n_regions > regions.size:  # there are gaps, and counts of all may not fit in memory
        return n_regions - len(np.unique(numbers))
    return int(np.count_nonzero(np.bincount(numbers, minlength=n_regions) == 0))


def _check_same_shape(
    values: NDArray[Any], regions: NDArray[np.int32], name: str = "colors"
) -> None:
    if values.shape[:-1] != regions.shape:
        raise ValueError(
            f"regions has shape {regions.shape}, but {name} is {values.shape}; expected one "
            f"region number per pixel, {values.shape[:-1]}."
        )
