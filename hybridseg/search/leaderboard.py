"""The record of a search: what was tried, how it scored, and what it cost."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

_COLUMNS = ("segmenter", "refiner", "rung", "images", "score", "95%", "to the best", "s", "status")


@dataclass(frozen=True)
class LeaderboardRow:
    """A candidate.

    Attributes
    ----------
    segmenter, refiner : str
        The names; "none" is no refiner.
    rung : int
        The last rung of the search that it completed, from 1; 0 if it completed none.
    n_images : int
        The number of images that it was scored on.
    score : float or None
        The metric on images that its models were not trained on.
    interval : (float, float) or None
        The 95% interval of the score over bootstrap resamples of the images; None if there are
        fewer than three images (or blocks).
    difference : float or None
        Its score minus that of the best candidate, on images that both were scored on.
    difference_interval : (float, float) or None
    seconds : float
        The time spent on it.
    status : str
        "best", "scored", "eliminated", or why it was stopped, failed, or was not started.
    """

    segmenter: str
    refiner: str
    rung: int
    n_images: int
    score: float | None
    interval: tuple[float, float] | None
    difference: float | None
    difference_interval: tuple[float, float] | None
    seconds: float
    status: str


@dataclass(frozen=True)
class Leaderboard:
    """All candidates of a search, the best first.

    Scores of different rungs are from different numbers of images, so only differences compare
    them. ``str(leaderboard)`` is a table; so is its display in a notebook.

    Attributes
    ----------
    rows : tuple of LeaderboardRow
    metric : str
    unit : str
        What was drawn in the bootstrap: "images" or "blocks".
    """

    rows: tuple[LeaderboardRow, ...]
    metric: str
    unit: str

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[LeaderboardRow]:
        return iter(self.rows)

    def __str__(self) -> str:
        table = [_COLUMNS, *map(_cells, self.rows)]
        widths = [max(len(line[i]) for line in table) for i in range(len(_COLUMNS))]
        lines = [
            "  ".join(
                cell.ljust(width) if i in (0, 1, len(_COLUMNS) - 1) else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in table
        ]
        return "\n".join([*lines, self._caption()])

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
        body = "".join(
            f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in _cells(row))}</tr>"
            for row in self.rows
        )
        return (
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p>{html.escape(self._caption())}</p>"
        )

    def _caption(self) -> str:
        return f"Scores are {self.metric}, in points; intervals are over resampled {self.unit}."

    def to_frame(self) -> Any:
        """Return a pandas DataFrame with a row for each candidate; needs pandas.

        Returns
        -------
        DataFrame
            The intervals are in columns of their own, such as ``low`` and ``high``.
        """
        import pandas as pd

        records = []
        for row in self.rows:
            record = asdict(row)
            record["low"], record["high"] = record.pop("interval") or (None, None)
            names = ("difference_low", "difference_high")
            ends = record.pop("difference_interval") or (None, None)
            records.append({**record, **dict(zip(names, ends, strict=True))})
        return pd.DataFrame.from_records(records)

    def plot(self, axes: Any = None) -> Any:
        """Draw the scores with their intervals.

        Parameters
        ----------
        axes : matplotlib Axes, optional

        Returns
        -------
        Axes
        """
        import matplotlib.pyplot as plt

        if axes is None:
            axes = plt.subplots(figsize=(7, 0.35 * len(self.rows) + 1), layout="constrained")[1]
        shown = [row for row in self.rows if row.score is not None][::-1]
        for place, row in enumerate(shown):
            assert row.score is not None
            low, high = row.interval or (row.score, row.score)
            color = "C1" if row.status == "best" else "C0"
            axes.plot([100 * low, 100 * high], [place, place], color=color)
            axes.plot(100 * row.score, place, "o", color=color)
        names = [f"{row.segmenter}, {row.refiner} ({row.n_images})" for row in shown]
        axes.set_yticks(range(len(shown)), names)
        axes.set(xlabel=f"{self.metric} (points)", title="held-out images")
        return axes


def _cells(row: LeaderboardRow) -> tuple[str, ...]:
    return (
        row.segmenter,
        row.refiner,
        str(row.rung),
        str(row.n_images),
        "-" if row.score is None else f"{100 * row.score:.2f}",
        _interval(row.interval),
        "-" if row.difference is None else _difference(row),
        f"{row.seconds:.1f}",
        row.status.splitlines()[0] if row.status else "",
    )


def _difference(row: LeaderboardRow) -> str:
    assert row.difference is not None
    ends = row.difference_interval
    text = f"{100 * row.difference:+.2f}"
    return text if ends is None else f"{text} ({100 * ends[0]:+.1f} to {100 * ends[1]:+.1f})"


def _interval(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"
