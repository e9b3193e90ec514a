"""An experiment as a table of plain text, for a terminal."""

from __future__ import annotations

import math

from hybridseg.report.findings import best_row, change, signed
from hybridseg.report.records import Experiment

_HEADINGS = ("", "mean IoU", "change", "boundary IoU", "change", "fit", "costs", "refine", "total")


def text_table(experiment: Experiment) -> str:
    """The averaged scores and times as a table of plain text.

    Parameters
    ----------
    experiment : Experiment

    Returns
    -------
    str
        One line for each method, with times in seconds; "*" marks the best score of each column.
    """
    lines = [list(_HEADINGS), *_cells(experiment)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(_HEADINGS))]
    texts = [
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        )
        for line in lines
    ]
    return "\n".join([texts[0], "-" * len(texts[0]), *texts[1:]])


def _cells(experiment: Experiment) -> list[list[str]]:
    rows = experiment.rows
    best_mean, best_boundary = best_row(rows), best_row(rows, "boundary_iou")
    return [
        [
            f"  + {row.refiner}" if row.refiner else row.unary,
            _starred(row.mean_iou, row == best_mean),
            signed(change(row, rows, "mean_iou")),
            _starred(row.boundary_iou, row == best_boundary),
            signed(change(row, rows, "boundary_iou")),
            *(
                f"{seconds:.2f}"
                for seconds in (
                    row.fit_seconds,
                    row.costs_seconds,
                    row.refine_seconds,
                    row.seconds,
                )
            ),
        ]
        for row in rows
    ]


def _starred(value: float, best: bool) -> str:
    return ("n/a" if math.isnan(value) else f"{value:.3f}") + ("*" if best else " ")
