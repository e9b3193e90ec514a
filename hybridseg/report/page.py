"""An experiment as one self-contained HTML file, without scripts, other files or network access."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from hybridseg.files.atomic import atomic_write
from hybridseg.report.findings import (
    best_row,
    change,
    image_shortfalls,
    shortfalls,
    signed,
    verdict,
)
from hybridseg.report.images import class_colors, labels_uri, photo_uri
from hybridseg.report.records import Experiment, ImageResult, Row, baseline_of

#: The width in pixels to which images are scaled down; the page shows them at about 300 CSS pixels.
IMAGE_WIDTH = 480


def render_html(experiment: Experiment, *, image_width: int = IMAGE_WIDTH) -> str:
    """Render an experiment as a self-contained HTML page.

    Parameters
    ----------
    experiment : Experiment
        The result of :func:`hybridseg.demo.run_photos` or :func:`hybridseg.demo.run_folder`.
    image_width : int
        The width in pixels to which images are scaled down. 480 is sharp on common screens; a
        photograph with nine overlays then takes about 0.15 MB.

    Returns
    -------
    str
        HTML that contains photographs and label maps as data URIs and loads nothing.
    """
    template = _environment().get_template("report.html")
    return template.render(
        experiment=experiment,
        groups=_table(experiment.rows),
        cards=_cards(experiment),
        verdict=verdict(experiment),
        shortfalls=shortfalls(experiment),
        image_shortfalls=image_shortfalls(experiment) if experiment.rows_per_image else {},
        images=[_panel(result, image_width) for result in experiment.images],
    )


def write_report(
    experiment: Experiment, path: str | os.PathLike[str], *, image_width: int = IMAGE_WIDTH
) -> Path:
    """Write the page of :func:`render_html` to a file by an atomic replace.

    Parameters
    ----------
    experiment : Experiment
    path : path
        An existing file is replaced when the new one is complete.
    image_width : int
        As in :func:`render_html`.

    Returns
    -------
    Path
        The path of the file.
    """
    target = Path(path)
    page = render_html(experiment, image_width=image_width)
    with atomic_write(target) as file:
        file.write(page.encode())
    return target


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hybridseg.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"score": _score, "signed": _signed, "time": _time, "tone": _tone}
    return environment


def _score(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return signed(value).replace("-", "\N{MINUS SIGN}")


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds >= 100 else f"{seconds:.{1 if seconds >= 10 else 2}f} s"


def _tone(value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    return "up" if value > 0 else "down"


def _table(rows: Sequence[Row]) -> list[list[dict[str, Any]]]:
    """The averaged rows grouped by unary, with their changes and marks of the best scores."""
    best = {score: best_row(rows, score) for score in ("mean_iou", "boundary_iou")}
    lines: list[dict[str, Any]] = [
        {
            "row": row,
            "mean_change": change(row, rows, "mean_iou"),
            "boundary_change": change(row, rows, "boundary_iou"),
            "best_mean": row == best["mean_iou"],
            "best_boundary": row == best["boundary_iou"],
        }
        for row in rows
    ]
    return [[line for line in lines if line["row"].unary == unary] for unary in _unaries(rows)]


def _unaries(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(row.unary for row in rows))


def _cards(experiment: Experiment) -> list[dict[str, str]]:
    """Three numbers for the top of the page."""
    rows = experiment.rows
    best = best_row(rows)
    alone = best_row([row for row in rows if not row.refiner])
    gains = [gain for row in rows if (gain := change(row, rows, "mean_iou")) is not None]
    mean_gain = sum(gains) / len(gains) if gains else 0.0
    return [
        {"figure": _score(best.mean_iou), "label": f"best mean IoU: {best.name}"},
        {"figure": _score(alone.mean_iou), "label": f"best without refining: {alone.name}"},
        {"figure": _signed(mean_gain), "label": "mean IoU gained by refining, over all hybrids"},
    ]


def _panel(result: ImageResult, width: int) -> dict[str, Any]:
    """The values that the page shows of one image."""
    colors = class_colors(result.class_names)
    best = best_row(result.rows) if result.rows else None
    tiles = [
        {
            "row": row,
            "uri": labels_uri(labels, colors, width),
            "best": row == best,
            "change": change(row, result.rows, "mean_iou"),
            "alone": baseline_of(row, result.rows) is None,
        }
        for row, labels in zip(result.rows, result.predictions, strict=True)
    ]
    return {
        "result": result,
        "photo": photo_uri(result.image, width),
        "truth": labels_uri(result.truth, colors, width),
        "scribbles": _scribbles_uri(result, colors, width),
        "scribbled_fraction": _scribbled_fraction(result),
        "tiles": tiles,
        "n_refiners": max(1, len(tiles) // max(1, len(_unaries(result.rows)))),
        "legend": [(result.class_names[value], colors[value]) for value in _present(result)],
        "has_void": bool((result.truth < 0).any()),
    }


def _present(result: ImageResult) -> list[int]:
    """The classes in the truth or in any prediction of this image."""
    present: set[int] = set()
    for labels in (result.truth, *result.predictions):
        present.update(np.unique(labels).tolist())
    return [value for value in sorted(result.class_names) if value in present]


def _scribbles_uri(
    result: ImageResult, colors: dict[int, tuple[int, int, int]], width: int
) -> str | None:
    if result.scribbles is None:
        return None
    return labels_uri(result.scribbles, colors, width, sparse=True)


def _scribbled_fraction(result: ImageResult) -> float:
    return 0.0 if result.scribbles is None else float((result.scribbles >= 0).mean())
