"""Losses on the marginals of images, and their gradients.

Every objective is computed in two steps. `measure` sums a few statistics over the pixels of an
image; the statistics of several images are added up; `loss` turns the sums into a number. So
overlaps are those of the whole batch, as in the scores of a data set, not means of images. The
gradient with respect to the marginals then needs the sums of the batch only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.validation import as_numbers

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]

#: The smallest marginal whose logarithm is taken; below it, the loss of a pixel has no slope.
_MIN_MARGINAL = 1e-6

#: The names that ``Learner(objective=...)`` takes.
OBJECTIVES = ("iou", "dice", "log_likelihood")


class Objective(ABC):
    """A loss on marginals (n, L), given true label indices (n,), -1 where the truth is void.

    Parameters
    ----------
    class_weight : ndarray of float, (L,)
        The weight of each class.
    """

    def __init__(self, class_weight: Doubles) -> None:
        self.class_weight = class_weight

    def measure(self, marginals: Singles, truth: Longs) -> Doubles:
        """Return the sums (3, L) of an image.

        They are, for each label: its expected true positives ``sum of q_i(l) over y_i = l``, its
        expected size ``sum of q_i(l)`` where the truth is known, and its true size.
        """
        known = truth >= 0
        rows, labels = marginals[known], truth[known]
        n_labels = marginals.shape[1]
        own = rows[np.arange(len(rows)), labels]
        hits = np.bincount(labels, self._gain(own), minlength=n_labels)
        sizes = np.bincount(labels, minlength=n_labels)
        return np.array([hits, rows.sum(axis=0, dtype=np.float64), sizes], np.float64)

    def _gain(self, own: Singles) -> NDArray[np.floating]:
        """Return what a pixel adds to the hits of its true label, given that label's marginal."""
        return own

    @abstractmethod
    def loss(self, sums: Doubles) -> float:
        """Return the loss of sums (3, L), lower is better."""

    @abstractmethod
    def slopes(self, sums: Doubles) -> tuple[Doubles, Doubles]:
        """Return the derivatives (L,) of the loss by the hits and by the expected sizes."""

    def gradient(self, marginals: Singles, truth: Longs, sums: Doubles) -> Singles:
        """Return the gradient (n, L) with respect to the marginals of one image.

        Parameters
        ----------
        marginals : (n, L)
        truth : (n,)
        sums : (3, L)
            Those of the whole batch.
        """
        hits, sizes = self.slopes(sums)
        known = np.flatnonzero(truth >= 0)
        labels = truth[known]
        gradient = np.zeros(marginals.shape, np.float32)
        gradient[known] = sizes.astype(np.float32)
        gradient[known, labels] += (hits[labels] * self._slope(marginals[known, labels])).astype(
            np.float32
        )
        return gradient

    def _slope(self, own: Singles) -> NDArray[np.floating]:
        """Return the derivative of `_gain`."""
        return np.ones_like(own)


class ExpectedIoU(Objective):
    """1 minus the mean IoU of the expected counts (Rahman and Wang 2016; Nowozin 2014).

    The mean is over the classes of the batch's truth, weighted by ``class_weight``.
    """

    def loss(self, sums: Doubles) -> float:
        hits, sizes, true = sums
        weight = self._weight(true)
        return float(weight.sum() - (weight * hits / np.maximum(sizes + true - hits, 1e-9)).sum())

    def slopes(self, sums: Doubles) -> tuple[Doubles, Doubles]:
        hits, sizes, true = sums
        union = np.maximum(sizes + true - hits, 1e-9)
        weight = self._weight(true)
        return -weight * (1 / union + hits / union**2), weight * hits / union**2

    def _weight(self, true: Doubles) -> Doubles:
        weight = self.class_weight * (true > 0)
        return weight / max(float(weight.sum()), 1e-12)


class ExpectedDice(ExpectedIoU):
    """1 minus the mean Dice coefficient of the expected counts (Milletari et al. 2016)."""

    def loss(self, sums: Doubles) -> float:
        hits, sizes, true = sums
        weight = self._weight(true)
        return float(weight.sum() - (weight * 2 * hits / np.maximum(sizes + true, 1e-9)).sum())

    def slopes(self, sums: Doubles) -> tuple[Doubles, Doubles]:
        hits, sizes, true = sums
        total = np.maximum(sizes + true, 1e-9)
        weight = self._weight(true)
        return -2 * weight / total, 2 * weight * hits / total**2


class LogLikelihood(Objective):
    """The mean of ``-log q_i(y_i)`` over the pixels, weighted by ``class_weight`` of the truth."""

    def _gain(self, own: Singles) -> NDArray[np.floating]:
        return np.log(np.maximum(own, np.float32(_MIN_MARGINAL)))

    def _slope(self, own: Singles) -> NDArray[np.floating]:
        return np.where(own > _MIN_MARGINAL, 1 / np.maximum(own, _MIN_MARGINAL), 0)

    def loss(self, sums: Doubles) -> float:
        return float(-(self.class_weight * sums[0]).sum() / self._total(sums))

    def slopes(self, sums: Doubles) -> tuple[Doubles, Doubles]:
        return -self.class_weight / self._total(sums), np.zeros(len(self.class_weight))

    def _total(self, sums: Doubles) -> float:
        return max(float((self.class_weight * sums[2]).sum()), 1e-12)


def make_objective(name: str, class_weight: Doubles) -> Objective:
    """Return the objective of a name in `OBJECTIVES`."""
    kinds = {"iou": ExpectedIoU, "dice": ExpectedDice, "log_likelihood": LogLikelihood}
    return kinds[name](class_weight)


def weights_of_classes(given: str | ArrayLike | None, counts: Doubles) -> Doubles:
    """Return the weight (L,) of each class from ``class_weight`` and the numbers of pixels (L,).

    Raises
    ------
    ValueError
        There is not one weight >= 0 for each class, or all are 0.
    """
    n_labels = len(counts)
    if given is None:
        return np.ones(n_labels)
    if isinstance(given, str):
        present = counts > 0
        return np.where(present, counts.sum() / np.maximum(counts, 1) / present.sum(), 0.0)
    weight = as_numbers(given, "class_weight").astype(np.float64)
    if weight.shape != (n_labels,) or not (weight >= 0).all() or not weight.any():
        raise ValueError(
            f"class_weight={given!r}; expected {n_labels} numbers >= 0, one for each class."
        )
    return weight
