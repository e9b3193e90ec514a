"""The stored results as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.learning.scores import WIDTHS


def table(results: dict[str, Any]) -> str:
    """Return the tables of scores, of IoU per class and of differences."""
    parts = (_scores(results), _classes(results), _trimaps(results), _differences(results))
    return "\n\n".join("\n".join(part) for part in map(list, parts) if part)


def _scores(results: dict[str, Any]) -> Iterator[str]:
    columns = {
        "mean IoU": "mean_iou",
        "accuracy": "pixel_accuracy",
        "class accuracy": "class_accuracy",
        "boundary IoU": "boundary_iou",
        "val mean IoU": "val_mean_iou",
        "s to choose": "cpu_seconds_to_choose",
        "s per image": "cpu_seconds_per_image",
    }
    yield f"| {results['n_test_images']} test images | {' | '.join(columns)} |"
    yield f"|---|{'---:|' * len(columns)}"
    for name, row in results["methods"].items():
        cells = " | ".join(str(row.get(key, "")) for key in columns.values())
        yield f"| {name} | {cells} |"


def _classes(results: dict[str, Any]) -> Iterator[str]:
    yield f"| IoU | {' | '.join(results['classes'])} |"
    yield f"|---|{'---:|' * len(results['classes'])}"
    for name, row in results["methods"].items():
        yield f"| {name} | {' | '.join(f'{value:.1f}' for value in row['iou'])} |"


def _trimaps(results: dict[str, Any]) -> Iterator[str]:
    """Mean IoU near the true boundaries."""
    known = {name: row for name, row in results["methods"].items() if "trimap_iou" in row}
    if known:
        yield f"| mean IoU within | {' | '.join(f'{width} px' for width in WIDTHS)} |"
        yield f"|---|{'---:|' * len(WIDTHS)}"
        for name, row in known.items():
            yield f"| {name} | {' | '.join(f'{value:.1f}' for value in row['trimap_iou'])} |"


def _differences(results: dict[str, Any]) -> Iterator[str]:
    """Mean IoU with both intervals; of classes, those whose interval over images excludes 0."""
    if not results["differences"]:
        return
    ways: list[str] = list(next(iter(results["differences"].values())))
    yield f"| difference | mean IoU | {' | '.join(f'95% {way}' for way in ways)} | classes |"
    yield f"|---|---:|{'---|' * (len(ways) + 1)}"
    for name, found in results["differences"].items():
        ends = " | ".join(_interval(found[way]["mean_iou"]) for way in ways)
        moved = [
            f"{label} {each[0]:+.1f}"
            for label, each in zip(results["classes"], found[ways[0]]["iou"], strict=True)
            if each[1] > 0 or each[2] < 0
        ]
        yield f"| {name} | {found[ways[0]]['mean_iou'][0]:+.2f} | {ends} | {', '.join(moved)} |"


def _interval(row: list[float]) -> str:
    return f"{row[1]:+.2f} to {row[2]:+.2f}"
