"""docs/defaults.md, written from the stored scores."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.defaults.refiners import REFINERS
from benchmarks.defaults.sets import SETS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "defaults.md"

HEAD = """# What refiners gain without parameters

`DenseCRF()`, `GridCRF()`, `GraphCut()` and `LevelSet()` without any parameter are meant to do no
harm. They choose their weights from each image and its costs: `parameters_for(X)` returns the
values, and the docstring of each class explains the rule. This page shows the change in mean IoU,
in points, on the test images of seven data sets with three kinds of costs each. One command
computes all of it:

    python -m benchmarks defaults        # needs HYBRIDSEG_DATA

The rules were chosen on four of the photographs, and on training and validation images of CamVid,
the EM membranes, the nuclei and the hippocampus (`--choose` scores these). GrabCut-50 and VOC7
played no part in the choice. On the photographs, GrabCut-50 and VOC7, a model learns each image
from strokes on it (on VOC7 from a few dots in each region). On the other sets, it learns from
twenty training images. The score of the photographs is the mean over the photographs. The score of
any other set is computed from all its pixels together.

The rules have limits, because they trust the costs. On one of the models for choosing them, a U-Net
that had learned little (mean IoU 60 on nuclei) and missed most of the nuclei, refining lost up to
1.3 points. That network is not in the table; the third costs of the nuclei come from another model.
The image alone does not show whether thin parts are noise, so the defaults smooth little, and gain
less on large objects than strong smoothing would. If you have labels, a search over the parameters
usually finds better ones.
"""


FIXED_TEXT = """
## With the same parameters for all images

The same costs with the parameters that were the defaults before: `DenseCRF(spatial_weight=3,
spatial_width=3, bilateral_weight=10, bilateral_width=80, bilateral_color=13)`, `GridCRF(weight=3)`,
`GraphCut(weight=20)` and `LevelSet(smoothing=2, sigma=2, edge_weight=50)`
(`python -m benchmarks defaults --fixed`). They gain more on the sets that they suit, and lose tens
of points on others.
"""


def write(results: dict[str, Any]) -> None:
    """Write the page."""
    PAGE.write_text(
        "\n".join([HEAD, *_table(results), "", *_photographs(results), *_fixed(results), ""])
    )
    print(f"wrote {PAGE.relative_to(ROOT)}")


def _rows(results: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name in SETS:
        for unary, row in results.get(name, {}).items():
            yield name, unary, row


def _table(results: dict[str, Any]) -> Iterator[str]:
    yield from _gains(list(_rows(results)))


def _fixed(results: dict[str, Any]) -> Iterator[str]:
    """The same table with the same parameters for all images."""
    rows = [(name, unary, row["fixed"]) for name, unary, row in _rows(results) if "fixed" in row]
    if not rows:
        return
    yield FIXED_TEXT
    yield from _gains(rows)


def _gains(rows: list[tuple[str, str, dict[str, Any]]]) -> Iterator[str]:
    yield f"| set | costs of | images | alone | {' | '.join(REFINERS)} |"
    yield f"|---|---|{'---:|' * (2 + len(REFINERS))}"
    for name, unary, row in rows:
        cells = " | ".join(f"{row[which]['gain']:+.2f}" for which in REFINERS)
        yield f"| {name} | {unary} | {row['n']} | {row['alone']:.2f} | {cells} |"
    gains = {w: [row[w]["gain"] for _, _, row in rows] for w in REFINERS}
    for title, statistic in (("mean", np.mean), ("least", np.min), ("greatest", np.max)):
        cells = " | ".join(f"**{statistic(gains[which]):+.2f}**" for which in REFINERS)
        yield f"| **{title}** | | | | {cells} |"


def _photographs(results: dict[str, Any]) -> Iterator[str]:
    found = results.get("photographs", {})
    if not found:
        return
    yield "The smallest gain on any single photograph:"
    yield ""
    yield f"| costs of | {' | '.join(REFINERS)} |"
    yield f"|---|{'---:|' * len(REFINERS)}"
    for unary, row in found.items():
        least = " | ".join(f"{row[which]['least']:+.2f}" for which in REFINERS)
        yield f"| {unary} | {least} |"
