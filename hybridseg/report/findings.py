"""The findings of an experiment in sentences: the best method, and where refining gains nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hybridseg.report.records import Experiment, Row, baseline_of


def change(row: Row, rows: Sequence[Row], score: str) -> float | None:
    """Difference in a score between a hybrid row and its unary-only row.

    Parameters
    ----------
    row : Row
    rows : sequence of Row
        The table that holds the row.
    score : {"mean_iou", "boundary_iou"}

    Returns
    -------
    float or None
        Positive if the hybrid is better; None for a row without a refiner.
    """
    alone = baseline_of(row, rows)
    return None if alone is None else getattr(row, score) - getattr(alone, score)


def best_row(rows: Sequence[Row], score: str = "mean_iou") -> Row:
    """The row with the highest score, the first of equal ones. NaN counts as lowest."""
    return max(rows, key=lambda row: np.nan_to_num(getattr(row, score), nan=-1.0))


def losing_rows(rows: Sequence[Row], score: str = "mean_iou") -> list[Row]:
    """The hybrid rows whose score does not exceed the score of their unary-only row."""
    return [row for row in rows if (gain := change(row, rows, score)) is not None and not gain > 0]


def verdict(experiment: Experiment) -> str:
    """A sentence that says whether refining improves the scores on average."""
    hybrids = [row for row in experiment.rows if row.refiner]
    losing = losing_rows(experiment.rows)
    if not hybrids:
        return "No refined method was run."
    if not losing:
        return (
            f"Every one of the {len(hybrids)} hybrid rows beats its unary-only row in mean IoU "
            f"({experiment.averaging})."
        )
    return (
        f"{len(hybrids) - len(losing)} of the {len(hybrids)} hybrid rows beat their unary-only "
        f"row in mean IoU ({experiment.averaging}); {len(losing)} "
        f"{'does' if len(losing) == 1 else 'do'} not."
    )


def shortfalls(experiment: Experiment) -> list[str]:
    """Sentences about the hybrid rows that do not beat their unary-only row over all images.

    Returns
    -------
    list of str
        One sentence for each row and score; empty if every hybrid gains in both scores.
    """
    return [
        f"{row.name} does not beat {row.unary} alone in {label} on average: "
        f"{_against(row, experiment.rows, score)}."
        for score, label in (("mean_iou", "mean IoU"), ("boundary_iou", "boundary IoU"))
        for row in losing_rows(experiment.rows, score)
    ]


def image_shortfalls(experiment: Experiment) -> dict[str, list[str]]:
    """For each image, the hybrids that do not beat their unary-only row in mean IoU.

    Returns
    -------
    dict from str to list of str
        The keys are names of images; images on which every hybrid gains are left out.
    """
    found = {
        result.name: [
            f"{row.name}: {_against(row, result.rows, 'mean_iou')}"
            for row in losing_rows(result.rows)
        ]
        for result in experiment.images
    }
    return {name: lines for name, lines in found.items() if lines}


#: The former name of :func:`image_shortfalls`.
picture_shortfalls = image_shortfalls


def _against(row: Row, rows: Sequence[Row], score: str) -> str:
    alone = baseline_of(row, rows)
    assert alone is not None
    ours, theirs = getattr(row, score), getattr(alone, score)
    return f"{ours:.3f} against {theirs:.3f} ({signed(ours - theirs)})"


def signed(value: float | None) -> str:
    """Text of a difference with its sign, such as "+0.031"; "" for None."""
    if value is None:
        return ""
    text = f"{value:+.3f}"
    return "0.000" if text in ("+0.000", "-0.000") else text
