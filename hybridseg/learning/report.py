"""What was learned, and how: the record that a fitted refiner keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridseg.learning.gate import GateReport


@dataclass(frozen=True)
class Step:
    """A step of the optimizer.

    Attributes
    ----------
    number : int
        From 0, for each fold anew.
    loss : float
        The objective of the step's batch.
    seconds : float
        Since the optimizer began.
    """

    number: int
    loss: float
    seconds: float


@dataclass(frozen=True, eq=False)
class LearningReport:
    """What a refiner learned, from where it started, and what the gate decided.

    Attributes
    ----------
    params : dict
        The learned parameters by name, as the refiner uses them.
    start : dict
        Their values when learning began.
    steps : tuple of Step
        All steps of the optimizer, fold after fold.
    gate : GateReport or None
        The judgment on held-out images; None without a gate.
    objective : str
    seconds : float
        The time that learning took.
    """

    params: Mapping[str, Any]
    start: Mapping[str, Any]
    steps: tuple[Step, ...]
    gate: GateReport | None
    objective: str
    seconds: float

    @property
    def losses(self) -> list[np.ndarray[Any, Any]]:
        """The objective of each step, one array for each fold."""
        folds: list[list[float]] = []
        for step in self.steps:
            if step.number == 0:
                folds.append([])
            folds[-1].append(step.loss)
        return [np.array(fold) for fold in folds]

    @property
    def strength(self) -> float:
        """How much of what was learned is used: 0 if the gate refused all of it, else up to 1."""
        return 1.0 if self.gate is None else self.gate.chosen

    def __str__(self) -> str:
        lines = [f"{'parameter':<20}{'start':>12} {'learned':>11}"]
        for name, value in self.params.items():
            first = self.start.get(name)
            lines.append(f"{name:<20}{_shown(first):>12} {_shown(value):>11}")
        if self.gate is not None:
            lines.append(_verdict(self.gate))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{name}</td><td>{_shown(self.start.get(name))}</td><td>{_shown(value)}</td>"
            f"</tr>"
            for name, value in self.params.items()
        )
        verdict = "" if self.gate is None else f"<p>{_verdict(self.gate)}</p>"
        return (
            "<table><thead><tr><th>parameter</th><th>start</th><th>learned</th></tr></thead>"
            f"<tbody>{rows}</tbody></table>{verdict}"
        )

    def plot(self, axes: Any = None) -> Any:
        """Draw the objective over the steps, and the gains that the gate saw.

        Parameters
        ----------
        axes : two matplotlib Axes, optional

        Returns
        -------
        ndarray of Axes, (2,)
        """
        import matplotlib.pyplot as plt

        if axes is None:
            axes = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")[1]
        trace, judged = axes
        for fold, losses in enumerate(self.losses):
            trace.plot(losses, alpha=0.8, label=f"fold {fold + 1}")
        trace.set(xlabel="step", ylabel=f"loss ({self.objective})", title="learning")
        if len(self.losses) > 1:
            trace.legend()
        judged.axhline(0, color="0.6", linewidth=1)
        judged.set(xlabel="strength", ylabel="change of mean IoU (points)", title="held-out images")
        if self.gate is not None:
            gate = self.gate
            plain = [place for place, spared in enumerate(gate.spared) if not spared]
            strengths = np.array(gate.strengths)
            judged.plot(strengths[plain], 100 * gate.gains[plain], "o-", label="all images")
            judged.plot(
                strengths[plain], 100 * gate.lowest_gains[plain], "v:", label="10% quantile"
            )
            sparing = sorted(set(range(len(strengths))) - set(plain))
            if sparing:
                judged.plot(
                    strengths[sparing], 100 * gate.gains[sparing], "D", label="sparing labels"
                )
            judged.axvline(gate.chosen, color="0.3", linestyle="--", label="chosen")
            judged.legend()
        return axes


def _verdict(gate: GateReport) -> str:
    if gate.chosen == 0:
        best = int(gate.gains.argmax())
        least = 100 * gate.lowest_gains[best]
        text = (
            f"The gate refused what was learned. On {gate.n_images} held-out images the best "
            f"change of the mean IoU was {100 * gate.gains[best]:+.2f} points (at strength "
            f"{gate.strengths[best]:g}; {least:+.2f} at the 10% quantile over resamples)"
        )
        changes = gate.class_changes[best]
        if np.isfinite(changes).any() and np.nanmin(changes) < 0:
            text += (
                f", and label {int(np.nanargmin(changes))} changed by "
                f"{100 * np.nanmin(changes):+.2f} points"
            )
        return text + ". The costs are returned as they come."
    times = Counter(gate.chosen_spared)
    half = sorted(label for label, n in times.items() if n == 1)
    kept = sorted(label for label, n in times.items() if n > 1)
    spared = f", sparing the labels {half}" if half else ""
    spared += f", keeping the labels {kept} as they are" if kept else ""
    return (
        f"The gate chose strength {gate.chosen:g}{spared}: mean IoU "
        f"{100 * gate.gains[gate.position]:+.2f} points on {gate.n_images} held-out images."
    )


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return ", ".join(map(_term, value))
    array = np.asarray(value)
    if array.ndim == 0 and array.dtype.kind in "fiu":
        return f"{float(array):.4g}"
    if array.dtype.kind in "fiu":
        return f"{array.min():.2g} .. {array.max():.2g}"
    return str(value)


def _term(term: Any) -> str:
    """Return the name of a term, with its weight or factor if it has one."""
    size = getattr(term, "weight", getattr(term, "factor", None))
    name = type(term).__name__
    return name if size is None else f"{name}({float(size):.4g})"
