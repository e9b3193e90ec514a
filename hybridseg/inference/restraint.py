"""How strongly a refiner may act where nobody says so: as far as the costs themselves allow.

Costs are ``-log`` of probabilities, so they say how sure they are. If they are right about that,
the true labels are not always the cheapest ones: at a pixel with probabilities q and costs u, truth
costs ``sum_l q(l) u(l)`` in the mean, which is more than the cheapest label by its *doubt*

    doubt = sum_l q(l) (u(l) - min u).

A labelling overrules the costs by the sum of ``u(label) - min u`` over its pixels. One that
overrules them by much of the doubt has left the costs behind: it eats thin parts and rare classes,
whatever it minimises. In the same way ``sum q(l)`` is the area that the costs expect of a class. So
a refiner is allowed what

- overrules no more than a share of the doubt in the whole picture, and three times that share of
  the doubt of every class;
- takes no more than a part of its area from a class that ends up with less than it is expected to
  have.

Share and part depend on what sort of error the costs show. Errors that neighbours do not have in
common look like noise, and smoothing mends them; those that whole regions have in common (of
superpixels, of networks) are out of its reach. The *flicker* of the cheapest labels tells: changes
of label that are twice as many over two pixels as over one are at boundaries, and noise otherwise.
The numbers below were chosen on photographs, street scenes, electron microscopy, nuclei and MRI
volumes, with forests, boosted trees and networks; see ``benchmarks/defaults``.
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
from hybridseg.scene.costs import proba_from_costs

Box = tuple[slice, ...]
Mask = NDArray[np.bool_] | None

#: Thin parts and corners flicker as much as the first without any noise; the second is all noise.
_FLICKER = 0.2, 0.9
#: The share of the doubt that any refiner may overrule, however little noise there is.
_LEAST_SHARE = 0.015
#: The part of its area that a class may lose, without noise and at most.
_LEAST_PART, _MOST_PART = 0.03, 0.12
#: What a class may lose is so many times the share of its doubt.
_CLASS_FACTOR = 3.0
#: Small classes may lose a little: so much of the whole doubt, and of the picture, is theirs too.
_COMMON_DOUBT, _COMMON_AREA = 0.1, 0.05
#: Greater differences of costs count as this one, whose sums are finite.
_ENDLESS = 1e30
#: The strengths to choose from, in nats where costs are negative log-probabilities.
STRENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
#: Pixels on which strengths are tried, by the number of axes; smaller pictures are taken whole.
_TRIED = {2: 1 << 14, 3: 1 << 15}


@dataclass(frozen=True, eq=False)
class Restraint:
    """What the costs of a picture let a refiner do.

    Attributes
    ----------
    excess : ndarray of float32, (..., L)
        What each label costs more than the cheapest one.
    proba : ndarray of float32, (..., L)
    cheapest : ndarray of int, (...)
    sizes : ndarray of float, (...), or None
        The pixels of each region; None where these are pixels.
    counted : ndarray of bool, (...), or None
        Where False, a pixel does not count.
    noise : float
        0 to 1: how much of what the costs get wrong each pixel gets wrong on its own.
    """

    excess: NDArray[np.float32]
    proba: NDArray[np.float32]
    cheapest: NDArray[np.intp]
    sizes: NDArray[Any] | None
    counted: Mask
    noise: float

    @classmethod
    def of(cls, costs: NDArray[Any], counted: Mask = None) -> Self:
        """Read it off the costs ``(*spatial, L)`` of a picture's pixels."""
        excess = _excess(costs)
        proba = proba_from_costs(excess)
        cheapest = excess.argmin(axis=-1)
        low, high = _FLICKER
        noise = min(1.0, max(0.0, (_flicker(cheapest, counted) - low) / (high - low)))
        noise = noise and noise * _own(excess, cheapest, counted)
        return cls(excess, proba, cheapest, None, counted, noise)

    @classmethod
    def of_regions(cls, sums: NDArray[Any], sizes: NDArray[Any], counted: Mask = None) -> Self:
        """Read it off costs ``(R, L)`` that are sums over each region's pixels."""
        excess = _excess(sums)
        proba = proba_from_costs(excess / sizes[:, np.newaxis])
        return cls(excess, proba, excess.argmin(axis=-1), sizes, counted, 0.0)

    def within(self, box: Box) -> Self:
        """The same for a part of the picture; the noise stays that of the whole."""
        return replace(
            self,
            excess=self.excess[box],
            proba=self.proba[box],
            cheapest=self.cheapest[box],
            sizes=None if self.sizes is None else self.sizes[box],
            counted=None if self.counted is None else self.counted[box],
        )

    def totals(self, labels: NDArray[Any]) -> NDArray[np.float64]:
        """What :meth:`allows` asks for, label by label: (5, L).

        By cheapest label, how much ``labels`` overrule the costs, the doubt, and the area; by
        label, the area that it is given, and the one that the costs expect.
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
        """Whether totals of :meth:`totals`, of one or several parts, are within the bounds."""
        overruled, doubt, before, after, expected = totals
        n_labels, share = len(doubt), _LEAST_SHARE + self.noise
        of_class = doubt + _COMMON_DOUBT * doubt.sum() / n_labels
        part = min(_MOST_PART, _LEAST_PART + self.noise)
        least = np.minimum(before, expected)
        least = least - part * (before + _COMMON_AREA * before.sum() / n_labels)
        return (
            bool(overruled.sum() <= share * doubt.sum())
            and bool((overruled <= _CLASS_FACTOR * share * of_class).all())
            and bool((after >= least).all())
        )

    def boxes(self, *, whole: bool = False) -> list[Box]:
        """Where strengths are tried: all of a small picture, the middles of a large one's parts."""
        shape = self.cheapest.shape
        everything = [tuple(slice(0, n) for n in shape)]
        most = _TRIED.get(len(shape), 0)
        if whole or self.cheapest.size <= 2 * most:
            return everything
        side = int((most / 2 ** len(shape)) ** (1 / len(shape)))
        along = [_middles(n, side) for n in shape]
        boxes = list(product(*along))
        seen = [1.0 if self.counted is None else self.counted[box].mean() for box in boxes]
        return boxes if min(seen) > 0.25 else everything


class Restrained:
    """A refiner some of whose parameters may be "auto". The hook ``_chosen(scene)`` resolves them.

    It derives from this before :class:`hybridseg.base.Refiner`.
    """

    def parameters_for(self, X: Any) -> list[dict[str, float]]:
        """What "auto" stands for, picture by picture, beside what was given.

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


#: ``solve(box, strength)`` gives the labels of a part of the picture, and what else was found.
Solve = Callable[[Box, float], tuple[NDArray[Any], Any]]


def strongest(
    restraint: Restraint,
    solve: Solve,
    *,
    strengths: Sequence[float] = STRENGTHS,
    whole: bool = False,
) -> tuple[float, Any]:
    """Refine with the greatest strength that the costs allow; 0 where they allow none.

    Strengths are tried on parts of the picture by bisection. What is allowed there is tried on all
    of it; if it is not allowed, the lesser ones are tried on all of it by bisection.

    Parameters
    ----------
    restraint : Restraint
    solve : callable
        ``solve(box, strength)`` to labels and anything else. A strength of 0 keeps the costs.
    strengths : sequence of float
        To choose from, in ascending order.
    whole : bool
        Try them on the whole picture.

    Returns
    -------
    strength : float
    found : Any
        What ``solve`` found besides the labels, for the whole picture.
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
    """How many strengths, the least first, are allowed: by bisection."""
    low, high = 0, len(strengths)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if allowed(strengths[middle]) else (low, middle)
    return low


def cut_out(
    weights: Mapping[tuple[int, ...], NDArray[Any]], box: Box, strength: float
) -> dict[tuple[int, ...], NDArray[Any]]:
    """The grid weights of a part of a picture, times the strength."""
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
        return np.minimum(costs - costs.min(axis=-1, keepdims=True), _ENDLESS).astype(np.float32)


def _middles(n: int, side: int) -> list[slice]:
    """One stretch of ``side`` in the middle of each half of ``n``; all of a short axis."""
    if n <= 2 * side:
        return [slice(0, n)]
    starts = [n // 4 - side // 2, n - n // 4 - (side - side // 2)]
    return [slice(max(0, start), max(0, start) + side) for start in starts]


def _pairs(axis: int, lag: int, *arrays: NDArray[Any]) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Each array's values at both ends of all pairs at a distance along an axis."""
    first = (slice(None),) * axis + (slice(None, -lag),)
    second = (slice(None),) * axis + (slice(lag, None),)
    return [(array[first], array[second]) for array in arrays]


def _flicker(labels: NDArray[np.intp], counted: Mask) -> float:
    """The share of changes between neighbours that are noise: 0 at straight edges, 1 at random."""
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


def _own(excess: NDArray[Any], labels: NDArray[np.intp], counted: Mask) -> float:
    """1 where pixels that differ from both sides have costs of their own, 0 where they share them.

    Regions share costs with a quarter of the neighbours and more, even at their tips: that is no
    noise. What pixels anywhere have in common does not count, such as costs of few values.
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
