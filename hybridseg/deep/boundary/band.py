"""The band around the boundaries of a segmentation, and what a network sees of an image there."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridseg.base import Scene
from hybridseg.features.boxes import Box
from hybridseg.inference.scene_energy import valid_costs
from hybridseg.scene.costs import proba_from_costs
from hybridseg.space import nearest_valid, pixel_sides, width_in_pixels
from hybridseg.validation import as_mask

Singles = NDArray[np.float32]
Mask = NDArray[np.bool_]

#: The default width of the band on each side of a boundary, in pixels, by the number of axes.
BANDS = {2: 8.0, 3: 4.0}

#: A label is a candidate near pixels where it has at least this probability.
MIN_CANDIDATE = 0.1

#: The smallest probability whose logarithm is taken.
_MIN_PROBABILITY = 1e-12


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What the network sees of an image, and where it may correct the labels.

    Attributes
    ----------
    proba : ndarray of float32, (*spatial, L)
        The probabilities of the incoming Scene; those of the nearest valid pixel where invalid.
    colors : ndarray of float32, (*spatial, C)
        On the scale 0..255, also filled.
    nearness : ndarray of float32, (*spatial,)
        From 1 at a boundary to 0 at the end of the band and beyond.
    band : ndarray of bool, (*spatial,)
        Valid pixels near a boundary between two labels.
    candidates : ndarray of bool, (*spatial, L)
        Labels that are probable within the width of the band around a pixel.
    """

    proba: Singles
    colors: Singles
    nearness: Singles
    band: Mask
    candidates: Mask

    @classmethod
    def of(cls, scene: Scene, band: float | str) -> Surroundings:
        """Find the band of a Scene with costs.

        Parameters
        ----------
        scene : Scene
        band : "auto" or float
            The width on each side of a boundary, in the unit of the Scene's spacing.

        Raises
        ------
        TypeError, ValueError
            The parts of the Scene do not fit.
        """
        shape = scene.shape
        valid = None if scene.valid is None else as_mask(scene.valid, shape)
        costs = valid_costs(scene, valid)
        nearest = None if valid is None else nearest_valid(valid, scene.spacing)
        if nearest is not None:
            costs = costs[nearest]
        sides = pixel_sides(scene.spacing, len(shape))
        width = band_pixels(band, scene.spacing, len(shape))
        proba = proba_from_costs(costs)
        distance = _distances(costs.argmin(axis=-1), valid, sides)
        nearness = np.maximum(1 - distance / np.float32(width), 0).astype(np.float32)
        inside = distance <= width
        if valid is not None:
            inside &= valid
        return cls(
            proba,
            scene.filled_colors,
            nearness,
            inside,
            _near(proba >= MIN_CANDIDATE, width, sides),
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """The image's spatial shape."""
        return self.band.shape

    def seen(self, starts: tuple[int, ...], sides: tuple[int, ...], reach: int) -> tuple[Any, ...]:
        """Return log-probabilities (L, *), nearness (*) and colors (C, *) of a window.

        The window is larger by ``reach`` on all sides, and beyond the image it continues with the
        image's last pixels.
        """
        index = np.ix_(
            *(
                np.clip(np.arange(start - reach, start + side + reach), 0, n - 1)
                for start, side, n in zip(starts, sides, self.shape, strict=True)
            )
        )
        proba = np.maximum(self.proba[index], np.float32(_MIN_PROBABILITY))
        return (
            np.ascontiguousarray(np.moveaxis(np.log(proba), -1, 0)),
            self.nearness[index],
            np.ascontiguousarray(np.moveaxis(self.colors[index], -1, 0)),
        )


def band_pixels(band: float | str, spacing: Any, ndim: int) -> float:
    """Return the width of the band in pixels of the finest axis."""
    return width_in_pixels(band, "band", spacing, ndim, auto=BANDS[ndim], zero=False)


def windows(shape: tuple[int, ...], side: int) -> Iterator[Box]:
    """Yield boxes with sides of at most ``side`` that divide an image."""
    for starts in itertools.product(*(range(0, n, side) for n in shape)):
        yield tuple(
            slice(start, min(start + side, n)) for start, n in zip(starts, shape, strict=True)
        )


def _distances(labels: NDArray[Any], valid: Mask | None, sides: tuple[float, ...]) -> Singles:
    """Return the distance of each pixel to the nearest boundary between labels; inf without one.

    A boundary lies halfway between two neighbors along an axis, both valid.
    """
    at_boundary = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        before = (slice(None),) * axis + (slice(None, -1),)
        after = (slice(None),) * axis + (slice(1, None),)
        differs = labels[before] != labels[after]
        if valid is not None:
            differs &= valid[before] & valid[after]
        at_boundary[before] |= differs
        at_boundary[after] |= differs
    if not at_boundary.any():
        return np.full(labels.shape, np.inf, np.float32)
    found = ndimage.distance_transform_edt(~at_boundary, sampling=sides)
    return (found + 0.5).astype(np.float32)


def _near(mask: Mask, width: float, sides: tuple[float, ...]) -> Mask:
    """Return where a mask (*spatial, L) is true within a box of the width around a pixel."""
    found = mask.view(np.uint8)
    for axis, side in enumerate(sides):
        radius = min(math.ceil(width / side), mask.shape[axis] - 1)
        found = ndimage.maximum_filter1d(found, 2 * radius + 1, axis=axis, mode="nearest")
    return found.astype(bool)
