"""Cliques of the superpixels of an image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg.features.slic import SLIC
from hybridseg.features.superpixel_base import cut_image
from hybridseg.pairwise.grid import check_contrast, contrast_beta
from hybridseg.pairwise.higher_order.cliques import Cliques, join_cliques
from hybridseg.pairwise.sites import Sites
from hybridseg.validation import as_label_map, check_number

#: The mean number of pixels of the superpixels that are made by default.
_PIXELS = 200


@dataclass(frozen=True, eq=False)
class SuperpixelCliques:
    r"""A term under which the pixels of a superpixel should agree, without forcing them to.

    It is the robust P^n model of [1]_. Let :math:`N_c` be the number of pixels of superpixel c
    that disagree with its most frequent label. The cost of the superpixel is

    .. math:: s_c \min(N_c,\; \text{truncation} \cdot |c|), \qquad
              s_c = \text{weight} \cdot |c|^{\text{exponent} - 1}
              \exp\left(-\frac{v_c}{2 \sigma^2}\right)

    with :math:`v_c` the variance of the colors in the superpixel. A label that only few pixels of a
    superpixel have is removed. A superpixel that contains an object's border pays at most the
    truncated cost, so that pixels can keep the border. In the notation of [1]_,
    :math:`\theta_p = \text{weight} \cdot \text{truncation}`, :math:`\theta_\alpha` is the exponent,
    and the truncation parameter Q is ``truncation`` times the size.

    The compatibility of labels does not enter. If the sites are regions, a labeling of the regions
    has the same cost as the corresponding labeling of their pixels.

    Parameters
    ----------
    weight : float, default=1.0
        The cost of each pixel that disagrees, in the unit of the unary costs. With negative
        log-probabilities, try 0.5 to 5.
    superpixels : callable, array-like of int (*spatial,), list of them, or None, default=None
        How superpixels are made: a parameter object such as :class:`hybridseg.features.SLIC`, or
        any callable ``superpixels(colors, spacing=..., intensity_range=(0, 255))`` that returns a
        map of region numbers; or such a map for one image, negative outside of all superpixels. The
        costs of several are added. Superpixels of different sizes, or of different methods, make
        each other's errors rarer. None is SLIC with one superpixel for 200 pixels.
    truncation : float, default=0.5
        The fraction of a superpixel that may disagree before its cost stops rising, above 0 and at
        most 1. With 0.1, only few pixels in a superpixel that otherwise agrees are changed. In mean
        field, uncertain marginals are a part of the disagreement, so that small fractions have
        little effect there. Minimum cuts of more than two labels need at most 0.5.
    exponent : float, default=1.0
        1 makes all costs proportional to the size of superpixels. With less, a pixel of a large
        superpixel costs less than one of a small one.
    contrast : "auto", float or None, default=None
        sigma, the standard deviation of the colors in a superpixel, on the scale 0..255, above
        which the cost fades. "auto" is the root of the mean variance over all superpixels; None
        ignores the colors.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    See Also
    --------
    CliqueTerm : Cliques of any sites.

    References
    ----------
    .. [1] P. Kohli, L. Ladicky, P. H. S. Torr, "Robust higher order potentials for enforcing label
       consistency", International Journal of Computer Vision 82, 2009, sections 3 and 5.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg.inference import solve_cuts
    >>> from hybridseg.pairwise import Energy, SuperpixelCliques
    >>> superpixels = np.array([[0, 0, 0, 1, 1, 1]])
    >>> unary = np.array([[[0, 3], [2, 0], [0, 3], [3, 0], [3, 0], [3, 0]]])
    >>> energy = Energy(unary, [SuperpixelCliques(4.0, superpixels, truncation=0.5)])
    >>> solve_cuts(energy).labels.tolist()  # the second pixel alone disagrees
    [[0, 0, 0, 1, 1, 1]]
    """

    weight: float = 1.0
    superpixels: Any = None
    truncation: float = 0.5
    exponent: float = 1.0
    contrast: str | float | None = None

    def __post_init__(self) -> None:
        check_number(self.weight, "weight", minimum=0)
        check_number(self.truncation, "truncation", minimum=0, strict=True)
        check_number(self.truncation, "truncation", maximum=1)
        check_number(self.exponent, "exponent", minimum=0)
        check_contrast(self.contrast)
        several = isinstance(self.superpixels, list | tuple)
        if several and not len(self.superpixels):
            raise ValueError(
                "superpixels is an empty list; expected at least one callable or map of regions."
            )

    def cliques(self, sites: Sites) -> Cliques:
        """Return the cliques of the superpixels, with costs.

        Raises
        ------
        TypeError, ValueError
            The sites are regions without a region map, the energy has no image from which to make
            superpixels, or a map does not fit the image.
        """
        if len(sites.spatial_shape) == 1:
            raise ValueError(
                "SuperpixelCliques needs the pixels of an image, but this energy has regions whose "
                "pixels are not known: pass regions=map to Energy, or use CliqueTerm(Cliques(...))."
            )
        several = isinstance(self.superpixels, list | tuple)
        given = list(self.superpixels) if several else [self.superpixels]
        return join_cliques([self._of_map(_superpixels_of(each, sites), sites) for each in given])

    def _of_map(self, numbers: NDArray[np.int64], sites: Sites) -> Cliques:
        """Return the cliques of one map of superpixels, (*spatial,), negative outside."""
        inside = numbers >= 0
        if sites.valid is not None:
            inside &= sites.valid
        clique = numbers[inside]
        if clique.size and int(clique.max()) >= 2 * clique.size:  # a table would be too large
            clique = np.unique(clique, return_inverse=True)[1]
        sizes = np.bincount(clique)
        slope = float(self.weight) * np.maximum(sizes, 1.0) ** (float(self.exponent) - 1)
        if self.contrast is not None:
            variance = _variances(sites.colors[inside], clique, sizes)
            mean = float((variance * sizes).sum()) / max(1, clique.size)
            with np.errstate(under="ignore", over="ignore"):
                slope *= np.exp(-contrast_beta(self.contrast, mean) * variance)
        places = sites.regions
        if places is None:
            places = np.arange(numbers.size).reshape(numbers.shape)
        cap = float(self.truncation) * sizes * slope
        return Cliques.of_members(clique, places[inside], slope, cap)


def _superpixels_of(given: Any, sites: Sites) -> NDArray[np.int64]:
    """Return the map of superpixels that a setting means for this image."""
    shape = sites.spatial_shape
    if given is not None and not callable(given):
        return as_label_map(given, shape=shape, name="superpixels")
    if sites.valid is not None and not sites.valid.any():
        return np.full(shape, -1)
    n_pixels = np.prod(shape) if sites.valid is None else np.count_nonzero(sites.valid)
    method = SLIC(max(1, round(n_pixels / _PIXELS))) if given is None else given
    found = cut_image(method, sites.colors, sites.spacing, sites.valid)
    return as_label_map(found, shape=shape, name=f"the result of superpixels={method!r}")


def _variances(
    colors: NDArray[np.float32], clique: NDArray[np.int64], sizes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the mean squared distance of colors (n, C) from their clique's mean color."""
    counts = np.maximum(sizes, 1)
    total = np.zeros(len(sizes))
    for channel in colors.astype(np.float64).T:
        mean = np.bincount(clique, channel, len(sizes)) / counts
        total += np.bincount(clique, (channel - mean[clique]) ** 2, len(sizes)) / counts
    return total
