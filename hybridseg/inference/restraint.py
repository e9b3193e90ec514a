"""The rule behind "auto": the strongest refinement that agrees with the costs.

Costs are ``-log`` of probabilities q. Even if these are right, the true label is not the cheapest
one everywhere. At a pixel with costs u, the true label is expected to cost more than the cheapest
label by the *doubt*

    doubt = sum_l q(l) (u(l) - min u).

A labeling *overrules* the costs by ``u(label) - min u`` at each pixel. If it overrules them, in
total, by about as much as their doubt or more, it contradicts the costs: such results lose thin
parts and rare classes. Also, ``sum q(l)`` over all pixels is the *expected area* of class l.
To do no harm, a refiner may use a strength only if its result

- overrules the costs by at most a fraction f of the doubt in the whole image, and by at most
  ``3 f`` of the doubt at the pixels where each class is the cheapest;
- takes at most a fraction g of its area from any class that ends up below its expected area.

f and g grow with the noise in the costs. Errors that are independent from pixel to pixel are noise,
and smoothing corrects them. Errors that whole regions share, as those of superpixels and networks,
cannot be corrected by smoothing. The noise is estimated from the map of cheapest labels: along
straight boundaries, pixels two steps apart differ twice as often as neighbors do; under independent
errors they differ about equally often. The constants below were chosen on photographs, street
scenes, electron microscopy, nuclei and MRI volumes, with forests, boosted trees and networks; see
``benchmarks/defaults``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from hybridseg.base import Scene
from hybridseg.features.boxes import Box
from hybridseg.scene.costs import proba_from_costs

Mask = NDArray[np.bool_] | None

#: The flicker at which noise is 0 (thin parts and corners alone reach it), and at which it is 1.
_FLICKER_WITHOUT_NOISE, _FLICKER_OF_NOISE = 0.2, 0.9
#: The fraction of the doubt that a result may overrule without noise.
_MIN_DOUBT_FRACTION = 0.015
#: The fraction of its area that a class may lose: without noise, and at most.
_MIN_AREA_FRACTION, _MAX_AREA_FRACTION = 0.03, 0.12
#: The bound on a single class, in multiples of the bound on the whole image.
_CLASS_FACTOR = 3.0
#: The fractions of the image's doubt and area that are divided among all classes, so that the
#: bounds on small classes are not too tight.
_POOLED_DOUBT, _POOLED_AREA = 0.1, 0.05
#: The largest difference of costs; larger ones are cut off so that sums stay finite.
_MAX_EXCESS = 1e30
#: The strengths to choose from, in nats where costs are negative log-probabilities.
STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
#: The number of pixels on which strengths are tried, by the number of axes.
_TRIAL_PIXELS = {2: 1 << 14, 3: 1 << 15}


@dataclass(frozen=True, eq=False)
class Restraint:
    """The bounds that the costs of an image set for a refiner.

    Attributes
    ----------
    excess : ndarray of float32, (..., L)
        The cost of each label minus that of the cheapest label.
    proba : ndarray of float32, (..., L)
        The probabilities of the labels, computed from the costs.
    cheapest : ndarray of int, (...)
        The index of the cheapest label.
    sizes : ndarray of float, (...), or None
        The number of pixels of each region; None for pixels.
    counted : ndarray of bool, (...), or None
        False where a pixel or region is ignored.
    noise : float
        The estimated fraction of errors that are independent from pixel to pixel, 0 to 1.
    """

    excess: NDArray[np.float32]
    proba: NDArray[np.float32]
    cheapest: NDArray[np.intp]
    sizes: NDArray[Any] | None
    counted: Mask
    noise: float

    @classmethod
    def of(cls, costs: NDArray[Any], counted: Mask = None) -> Self:
        """Compute the bounds from the costs ``(*spatial, L)`` of pixels."""
        excess = _excess(costs)
        proba = proba_from_costs(excess)
        cheapest = excess.argmin(axis=-1)
        low, high = _FLICKER_WITHOUT_NOISE, _FLICKER_OF_NOISE
        noise = min(1.0, max(0.0, (_flicker(cheapest, counted) - low) / (high - low)))
        noise = noise and noise * _independence(excess, cheapest, counted)
        return cls(excess, proba, cheapest, None, counted, noise)

    @classmethod
    def of_regions(cls, sums: NDArray[Any], sizes: NDArray[Any], counted: Mask = None) -> Self:
        """Compute the bounds from costs ``(R, L)`` that are sums over each region's pixels."""
        excess = _excess(sums)
        proba = proba_from_costs(excess / sizes[:, np.newaxis])
        return cls(excess, proba, excess.argmin(axis=-1), sizes, counted, 0.0)

    def within(self, box: Box) -> Self:
        """Return the bounds for a part of the image; the noise stays that of the whole image."""
        return replace(
            self,
            excess=self.excess[box],
            proba=self.proba[box],
            cheapest=self.cheapest[box],
            sizes=None if self.sizes is None else self.sizes[box],
            counted=None if self.counted is None else self.counted[box],
        )

    def totals(self, labels: NDArray[Any]) -> NDArray[np.float64]:
        """Return the sums (5, L) that :meth:`allows` compares, one column for each label.

        Over the pixels where a label is the cheapest: by how much ``labels`` overrule the costs,
        the doubt, and the area. For the label itself: its area in ``labels``, and its expected
        area.
        """
        chosen = labels.astype(np.intp)
        columns = chosen[..., np.newaxis]
        overruled: NDArray[Any] = np.take_along_axis(self.excess, columns, axis=-1)[..., 0]
        doubt: NDArray[Any] = np.einsum("...l,...l->...", self.proba, self.excess)
        area: NDArray[Any] = (
            np.ones(chosen.shape) if self.sizes is None else self.sizes.astype(np.float64)
        )
        if self.counted is not None:
            overruled, doubt, area = (
                np.asarray(row * self.counted) for row in (overruled, doubt, area)
            )
        n_labels = self.excess.shape[-1]
        rows = [(self.cheapest, overruled), (self.cheapest, doubt), (self.cheapest, area)]
        rows.append((chosen, area))
        sums = [np.bincount(at.ravel(), each.ravel(), n_labels) for at, each in rows]
        expected = np.tensordot(area.ravel(), self.proba.reshape(-1, n_labels), axes=1)
        return np.stack([*sums, expected])

    def allows(self, totals: NDArray[np.float64]) -> bool:
        """Return whether the sums of :meth:`totals`, over one or several parts, obey the bounds."""
        overruled, doubt, before, after, expected = totals
        n_labels, fraction = len(doubt), _MIN_DOUBT_FRACTION + self.noise
        of_class = doubt + _POOLED_DOUBT * doubt.sum() / n_labels
        lost = min(_MAX_AREA_FRACTION, _MIN_AREA_FRACTION + self.noise)
        least = np.minimum(before, expected)
        least = least - lost * (before + _POOLED_AREA * before.sum() / n_labels)
        return (
            bool(overruled.sum() <= fraction * doubt.sum())
            and bool((overruled <= _CLASS_FACTOR * fraction * of_class).all())
            and bool((after >= least).all())
        )

    def boxes(self, *, whole: bool = False) -> list[Box]:
        """Return where strengths are tried: the whole of a small image, boxes of a large one."""
        shape = self.cheapest.shape
        everything = [tuple(slice(0, n) for n in shape)]
        most = _TRIAL_PIXELS.get(len(shape), 0)
        if whole or self.cheapest.size <= 2 * most:
            return everything
        side = int((most / 2 ** len(shape)) ** (1 / len(shape)))
        along = [_middles(n, side) for n in shape]
        boxes = list(product(*along))
        seen = [1.0 if self.counted is None else self.counted[box].mean() for box in boxes]
        return boxes if min(seen) > 0.25 else everything


class Restrained:
    """Base class of refiners with "auto" parameters, which the hook ``_chosen(scene)`` resolves.

    A class names it before :class:`hybridseg.base.Refiner` among its bases.
    """

    def parameters_for(self, X: Any) -> list[dict[str, float]]:
        """Return the parameters for each image, with "auto" resolved.

        Parameters
        ----------
        X : sequence of Scenes with costs, or of images with ``estimator``

        Returns
        -------
        list of dict of {str: float}
        """
        check_is_fitted(self)
        self._validate_params()  # type: ignore[attr-defined]
        return [self._chosen(scene) for scene in self._incoming(X)]  # type: ignore[attr-defined]

    def _chosen(self, scene: Scene) -> dict[str, float]:
        raise TypeError(f"{type(self).__name__} lacks the hook _chosen(scene).")


#: ``solve(box, strength)`` returns the labels of a part of the image, and any other result.
Solve = Callable[[Box, float], tuple[NDArray[Any], Any]]


def strongest(
    restraint: Restraint,
    solve: Solve,
    *,
    strengths: Sequence[float] = STRENGTHS,
    whole: bool = False,
) -> tuple[float, Any]:
    """Refine with the largest strength that the costs allow; 0 if they allow none.

    Bisection finds the largest strength that is allowed on boxes of the image. That strength is
    then tried on the whole image. If it is not allowed there, bisection over the smaller strengths
    follows on the whole image.

    Parameters
    ----------
    restraint : Restraint
    solve : callable
        ``solve(box, strength)`` returns labels and any other result. Strength 0 keeps the costs.
    strengths : sequence of float, default=STRENGTHS
        To choose from, in ascending order.
    whole : bool, default=False
        Try all strengths on the whole image.

    Returns
    -------
    strength : float
    found : Any
        The other result of ``solve``, for the whole image.
    """
    boxes = restraint.boxes(whole=whole)
    everything = tuple(slice(0, n) for n in restraint.cheapest.shape)
    results: dict[float, Any] = {}

    def allowed(strength: float, parts: Sequence[Box]) -> bool:
        totals = []
        for box in parts:
            labels, found = solve(box, strength)
            if box == everything:
                results[strength] = found
            totals.append(restraint.within(box).totals(labels))
        return restraint.allows(np.sum(totals, axis=0))

    n_allowed = _count_allowed(strengths, lambda strength: allowed(strength, boxes))
    if boxes != [everything] and n_allowed and not allowed(strengths[n_allowed - 1], [everything]):
        lesser = strengths[: n_allowed - 1]
        n_allowed = _count_allowed(lesser, lambda strength: allowed(strength, [everything]))
    strength = strengths[n_allowed - 1] if n_allowed else 0.0
    return strength, results[strength] if strength in results else solve(everything, strength)[1]


def _count_allowed(strengths: Sequence[float], allowed: Callable[[float], bool]) -> int:
    """Return the number of strengths, from the smallest, that are allowed, by bisection."""
    low, high = 0, len(strengths)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if allowed(strengths[middle]) else (low, middle)
    return low


def cut_out(
    weights: Mapping[tuple[int, ...], NDArray[Any]], box: Box, strength: float
) -> dict[tuple[int, ...], NDArray[Any]]:
    """Return the grid weights in a box of the image, multiplied by the strength."""
    return {
        offset: strength
        * weight[
            tuple(
                slice(side.start, max(side.start, side.stop - abs(step)))
                for side, step in zip(box, offset, strict=True)
            )
        ]
        for offset, weight in weights.items()
    }


def _excess(costs: NDArray[Any]) -> NDArray[np.float32]:
    with np.errstate(over="ignore"):
        return np.minimum(costs - costs.min(axis=-1, keepdims=True), _MAX_EXCESS).astype(np.float32)


def _middles(n: int, side: int) -> list[slice]:
    """Return slices of length ``side`` in the middle of both halves of an axis, or all of it."""
    if n <= 2 * side:
        return [slice(0, n)]
    starts = [n // 4 - side // 2, n - n // 4 - (side - side // 2)]
    return [slice(max(0, start), max(0, start) + side) for start in starts]


def _pairs(axis: int, lag: int, *arrays: NDArray[Any]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Return each array's values at both ends of all pairs ``lag`` apart along an axis."""
    first = (slice(None),) * axis + (slice(None, -lag),)
    second = (slice(None),) * axis + (slice(lag, None),)
    return [(array[first], array[second]) for array in arrays]


def _flicker(labels: NDArray[np.intp], counted: Mask) -> float:
    """Return the flicker of a label map: 0 at straight boundaries, 1 for independent labels."""
    changed = []
    for lag in (1, 2):
        total = n = 0
        for axis in range(labels.ndim):
            ((one, other),) = _pairs(axis, lag, labels)
            differ = one != other
            if counted is not None:
                ((here, there),) = _pairs(axis, lag, counted)
                differ = differ[here & there]
            total, n = total + int(differ.sum()), n + differ.size
        changed.append(total / max(n, 1))
    near, far = changed
    return float(np.clip(2 - far / near, 0, 1)) if near > 0 else 0.0


def _independence(excess: NDArray[Any], labels: NDArray[np.intp], counted: Mask) -> float:
    """Return 1 if single pixels of a label have costs of their own, 0 if neighbors share them.

    A single pixel differs in its label from both neighbors along some axis. If a quarter or more of
    its neighbors have exactly its costs, it is the tip of a region and no noise. The rate at which
    random pixels share costs is subtracted, because costs may take few values.
    """
    alone = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        before, here, after = (
            (slice(None),) * axis + (part,) for part in (slice(-2), slice(1, -1), slice(2, None))
        )
        alone[here] |= (labels[before] == labels[after]) & (labels[before] != labels[here])
    if counted is not None:
        alone &= counted
    same = n = 0
    for axis in range(labels.ndim):
        (one, other), (left, right) = _pairs(axis, 1, excess, alone)
        looked_at = left | right
        times = left[looked_at].astype(int) + right[looked_at]
        same += int(((one[looked_at] == other[looked_at]).all(axis=-1) * times).sum())
        n += int(times.sum())
    if n == 0:
        return 0.0
    rows = excess[alone]
    anywhere = excess.reshape(-1, excess.shape[-1]) if counted is None else excess[counted]
    drawn = np.random.default_rng(0).integers(len(anywhere), size=len(rows))
    chance = float((rows == anywhere[drawn]).all(axis=-1).mean())
    shared = (same / n - chance) / (1 - chance) if chance < 1 else 0.0
    return min(1.0, max(0.0, 1 - 4 * shared))
