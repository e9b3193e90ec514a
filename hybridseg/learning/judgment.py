"""The judgment of what was learned, on images that were held out: the candidates of the gate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hybridseg.learning.gate import GateReport, choose_strength

Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]

#: The strengths at which what was learned is judged, besides 0.
STRENGTHS = (1.0, 0.5, 0.2, 0.05)

#: The number of rounds in which more labels are spared, and of candidates of a round.
_N_ROUNDS, _N_CANDIDATES = 3, 2

#: A strength, and the labels that are spared; a label that is listed twice is kept as it is.
Candidate = tuple[float, tuple[int, ...]]


class Judged(Protocol):
    """A model whose predictions are judged."""

    def example(self, position: int, whole: bool) -> Any:
        """Read an image and its truth."""

    def predict(self, point: Doubles, example: Any) -> NDArray[np.integer[Any]]:
        """Return the label indices (n,) of an example."""

    def weakened(self, point: Doubles, strength: float) -> Doubles:
        """Return the point at a strength from 0, at which neighbors have no effect, to 1."""


@runtime_checkable
class CanSpare(Protocol):
    """A model that can spare labels."""

    def sparing(self, labels: Sequence[int]) -> Any:
        """Return a copy in which disagreeing with some labels costs half.

        A label that is listed twice is kept: its pixels stay as the costs alone decide.
        """


class Part(Protocol):
    """An image, or some blocks of it."""

    @property
    def position(self) -> int:
        """The number of the image."""

    def truth(self, example: Any) -> Longs:
        """Return the truth of this part, -1 elsewhere."""


def judge(
    model: Judged, held: Sequence[tuple[Doubles, Part]], n_labels: int, tolerance: float
) -> GateReport:
    """Judge points on parts that they were not learned from, and choose a strength.

    First all strengths are compared. Where a strength costs some classes their IoU, it is tried
    again with these labels spared, if the model can spare labels, and with them kept as they are if
    they still lose.

    Parameters
    ----------
    model : Judged
    held : sequence of (point, part)
        A part, and the point that was learned from other parts.
    n_labels : int
    tolerance : float
        See :func:`hybridseg.learning.gate.choose_strength`.
    """
    candidates: list[Candidate] = [(strength, ()) for strength in STRENGTHS]
    tables = _tables(model, held, [(0.0, ()), *candidates], n_labels)
    report = _choose(candidates, tables, tolerance)
    for _ in range(_N_ROUNDS if isinstance(model, CanSpare) and n_labels > 2 else 0):
        new = _more_spared(report, tolerance, n_labels)
        if not new:
            break
        candidates += new
        tables = np.concatenate([tables, _tables(model, held, new, n_labels)])
        report = _choose(candidates, tables, tolerance)
    return report


def _choose(
    candidates: Sequence[Candidate], tables: NDArray[np.int64], tolerance: float
) -> GateReport:
    strengths, spared = zip(*candidates, strict=True)
    return choose_strength(strengths, tables, spared=spared, tolerance=tolerance)


def _more_spared(report: GateReport, tolerance: float, n_labels: int) -> list[Candidate]:
    """Return the candidates whose other classes gain the most, with harmed classes spared as well.

    At least two labels are not spared: if more would lose, those that lose the most are spared.
    """
    known = set(zip(report.strengths, report.spared, strict=True))
    found: list[Candidate] = []
    gains_of_others = np.nansum(np.maximum(report.class_changes, 0), axis=1)
    for place in np.argsort(-gains_of_others, kind="stable").tolist():
        before = report.spared[place]
        changes = report.class_changes[place]
        losers = sorted(report.losers(place, tolerance), key=lambda label: changes[label])
        room = n_labels - 2 - len({*before})
        more = [label for label in losers if label not in before][: max(0, room)]
        new = [label for label in losers if before.count(label) == 1 or label in more]
        candidate = (report.strengths[place], tuple(sorted((*before, *new))))
        if new and candidate not in known:
            found.append(candidate)
            known.add(candidate)
    return found[:_N_CANDIDATES]


def _tables(
    model: Judged,
    held: Sequence[tuple[Doubles, Part]],
    candidates: Sequence[Candidate],
    n_labels: int,
) -> NDArray[np.int64]:
    """Return the confusion tables (C, N, L, L) of candidates on all parts."""
    models: dict[tuple[int, ...], Judged] = {(): model}
    for _, spared in candidates:
        if spared not in models and isinstance(model, CanSpare):
            models[spared] = model.sparing(spared)
    tables = np.zeros((len(candidates), len(held), n_labels, n_labels), np.int64)
    for number, (point, part) in enumerate(held):
        example = model.example(part.position, True)
        truth = part.truth(example)
        known = truth >= 0
        for place, (strength, spared) in enumerate(candidates):
            own = models[spared]
            labels = own.predict(own.weakened(point, strength), example)
            pairs = truth[known] * n_labels + labels[known]
            counts = np.bincount(pairs, minlength=n_labels**2)
            tables[place, number] = counts.reshape(n_labels, n_labels)
    return tables
