"""The gate: how much of what was learned may be used, judged on held-out images.

A refiner can be weakened step by step until it changes nothing. The gate compares every strength
with the costs alone, on images that were not learned from, and takes the strongest evidence: the
strength whose gain in mean IoU is surely the largest. It never takes one that costs a class its
IoU. Where a class would lose, it tries to *spare* that class: disagreeing with it then costs half.
If the class still loses, it is *kept*: none of its pixels changes, and all others are refined. If
nothing passes, the refiner returns the costs as they came.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

#: The fraction of the largest sure gain that counts as nearly the same.
_NEAR_BEST = 0.9

#: The number of resamples of the images, and the seed: the same data give the same decision.
_N_RESAMPLES, _SEED = 400, 0


@dataclass(frozen=True, eq=False)
class GateReport:
    """The decision of the gate and what it was based on.

    Attributes
    ----------
    strengths : tuple of float
        The candidates that were compared with strength 0, which changes nothing.
    spared : tuple of tuple of int
        The labels that each candidate spares, as indices: disagreeing with a label costs half. A
        label that is listed twice is kept: its pixels stay as the costs alone decide.
    gains : ndarray of float, (S,)
        The change of the mean IoU on held-out images at each strength.
    lowest_gains : ndarray of float, (S,)
        The quantile of this change over bootstrap resamples of the images.
    class_changes : ndarray of float, (S, L)
        The change of the IoU of each class; NaN if held-out images lack the class.
    lowest_class_changes : ndarray of float, (S, L)
        Their quantiles over the resamples.
    chosen : float
        The strength that is used; 0 if none passes.
    chosen_spared : tuple of int
        The labels that are spared.
    n_images : int
        The number of held-out images, or of blocks of a single image.
    """

    strengths: tuple[float, ...]
    spared: tuple[tuple[int, ...], ...]
    gains: Doubles
    lowest_gains: Doubles
    class_changes: Doubles
    lowest_class_changes: Doubles
    chosen: float
    chosen_spared: tuple[int, ...]
    n_images: int

    @property
    def position(self) -> int | None:
        """The number of the candidate that is used; None if none passes."""
        if self.chosen == 0:
            return None
        return list(zip(self.strengths, self.spared, strict=True)).index(
            (self.chosen, self.chosen_spared)
        )

    def losers(self, candidate: int, tolerance: float) -> tuple[int, ...]:
        """Return the labels whose IoU a candidate lowers by more than the tolerance allows."""
        return tuple(
            int(label)
            for label in np.flatnonzero(
                ~_is_safe(
                    self.class_changes[candidate], self.lowest_class_changes[candidate], tolerance
                )
            )
        )


def choose_strength(
    strengths: tuple[float, ...],
    tables: NDArray[np.int64],
    *,
    spared: tuple[tuple[int, ...], ...] | None = None,
    quantile: float = 0.1,
    tolerance: float = 0.005,
) -> GateReport:
    """Choose the strength with the largest sure gain in mean IoU that costs no class its IoU.

    Of candidates whose sure gains are nearly the same, the one that spares the fewest labels is
    chosen, because labels that are spared or kept gain less.

    Parameters
    ----------
    strengths : tuple of S floats
    tables : ndarray, (S + 1, N, L, L)
        The confusion tables of N held-out images: true labels in rows. The first is that of the
        costs alone, the others are those of the strengths.
    spared : tuple of S tuples of int, optional
        The labels that each candidate spares. Default: none.
    quantile : float
        Of the changes over bootstrap resamples of the images [1]_; smaller is more careful.
    tolerance : float
        A strength passes if the IoU of no class falls by more than this fraction, and the quantile
        of no class falls by more than twice this fraction.

    Returns
    -------
    GateReport

    References
    ----------
    .. [1] B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7,
       1979.
    """
    n_images = tables.shape[1]
    whole = _changes(tables.sum(axis=1)[np.newaxis])
    draws = np.random.default_rng(_SEED).multinomial(
        n_images, np.full(n_images, 1 / n_images), _N_RESAMPLES
    )
    resampled = _changes(np.einsum("rn,snij->rsij", draws, tables, optimize=True))
    with np.errstate(invalid="ignore"):
        lowest = [_quantile(change, quantile) for change in resampled]
    gains, classes = whole[0][0], whole[1][0]
    passes = _is_safe(classes, lowest[1], tolerance).all(axis=1) & (lowest[0] > 0)
    spared = ((),) * len(strengths) if spared is None else spared
    chosen: float = 0.0
    chosen_spared: tuple[int, ...] = ()
    if passes.any():
        sure = np.where(passes, lowest[0], -np.inf)
        near = np.flatnonzero(sure >= _NEAR_BEST * sure.max())
        best = min(near.tolist(), key=lambda place: (len(spared[place]), -sure[place]))
        chosen, chosen_spared = strengths[best], spared[best]
    return GateReport(
        *(strengths, spared, gains, lowest[0], classes, lowest[1]),
        *(chosen, chosen_spared, n_images),
    )


def _is_safe(changes: Doubles, lowest: Doubles, tolerance: float) -> NDArray[np.bool_]:
    """Return whether classes keep their IoU; classes without truth do."""
    kept: NDArray[np.bool_] = np.nan_to_num(changes) >= -tolerance
    return kept & (np.nan_to_num(lowest) >= -2 * tolerance)


def _changes(tables: NDArray[np.int64]) -> tuple[Doubles, Doubles]:
    """Return the changes of mean IoU (R, S) and of class IoU (R, S, L) from the first table.

    A class counts if the truth of the resample contains it.
    """
    hits = np.diagonal(tables, axis1=-2, axis2=-1).astype(np.float64)
    true = tables.sum(axis=-1)
    union = true + tables.sum(axis=-2) - hits
    iou = np.where(true > 0, hits / np.maximum(union, 1), np.nan)
    change = iou[:, 1:] - iou[:, :1]
    counted = (true[:, 1:] > 0).sum(axis=-1)
    return np.nansum(change, axis=-1) / np.maximum(counted, 1), change


def _quantile(changes: Doubles, quantile: float) -> Doubles:
    """Return the quantile over the first axis without NaN; NaN where there is nothing else."""
    falling = np.where(np.isnan(changes), np.inf, changes)
    ordered = np.sort(falling, axis=0)
    known = np.isfinite(falling).sum(axis=0)
    place = np.minimum((quantile * known).astype(int), np.maximum(known - 1, 0))
    found = np.take_along_axis(ordered, place[np.newaxis], axis=0)[0]
    return np.where(known > 0, found, np.nan)
