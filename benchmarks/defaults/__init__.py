"""What every refiner gains or loses without parameters: seven sets of images, three unaries each.

``python -m benchmarks defaults`` makes the costs (kept in ``.benchmarks/defaults``), refines them
with the default refiners, keeps the scores in ``benchmarks/defaults/results.json`` and writes
``docs/defaults.md`` from them (``--page`` does only that). ``--fixed`` scores refiners with the
same parameters for all images instead. ``--choose`` scores the images on which the rules were
chosen, and only prints. Needs HYBRIDSEG_DATA.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.defaults import page
from benchmarks.defaults.refiners import FIXED, REFINERS
from benchmarks.defaults.sets import SETS, ImageSet
from benchmarks.defaults.unaries import models, scenes
from benchmarks.files import write_json
from benchmarks.training.places import data_folder
from hybridseg import Scene
from hybridseg.metrics import confusion_table

RESULTS = Path(__file__).with_name("results.json")
COSTS = Path(".benchmarks/defaults")


def main(arguments: Sequence[str] | None = None) -> None:
    """Score what was asked for, then write the page."""
    options = _parser().parse_args(arguments)
    if not options.page:
        data, part = data_folder(), "choose" if options.choose else "test"
        folder, refiners = COSTS / part, FIXED if options.fixed else REFINERS
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.only or SETS:
            image_set = SETS[name](data, choose=options.choose)
            for unary, model in models(name, image_set, data, options.n_jobs).items():
                if image_set.names:
                    costs = scenes(folder, name, unary, model, image_set)
                    row = _scored(refiners, costs, image_set)
                    print(f"{name}, {unary}: {json.dumps(row)}", flush=True)
                    if not options.choose:
                        _keep(name, unary, {"fixed": row} if options.fixed else row)
    if not options.choose:
        page.write(json.loads(RESULTS.read_text()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks defaults", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SETS, help="these sets")
    parser.add_argument("--n-jobs", type=int, default=2, help="cores for the forests")
    parser.add_argument(
        "--choose", action="store_true", help="score the images that rules are chosen on"
    )
    parser.add_argument("--fixed", action="store_true", help="the same parameters for all images")
    parser.add_argument("--page", action="store_true", help="only write the page anew")
    return parser


def _scored(
    refiners: Mapping[str, Any], costs: Iterable[tuple[Scene, Any]], image_set: ImageSet
) -> dict[str, Any]:
    """Return the mean IoU alone and with each refiner, in points, and the seconds per image."""
    found: dict[str, list[Any]] = {which: [] for which in ("alone", *refiners)}
    seconds = dict.fromkeys(refiners, 0.0)
    for scene, _ in costs:
        found["alone"].append(scene.prediction)
        for which, refiner in refiners.items():
            start = time.perf_counter()
            found[which].append(refiner.transform([scene])[0].prediction)
            seconds[which] += time.perf_counter() - start
    scores = {which: _mean_ious(image_set, labels) for which, labels in found.items()}
    alone = np.array(scores["alone"])
    row: dict[str, Any] = {"alone": round(float(alone.mean()), 2), "n": len(image_set.names)}
    for which in refiners:
        gains = np.array(scores[which]) - alone
        row[which] = {
            "gain": round(float(gains.mean()), 2),
            "least": round(float(gains.min()), 2),
            "seconds": round(seconds[which] / len(image_set.names), 3),
        }
    return row


def _mean_ious(image_set: ImageSet, labels: list[Any]) -> list[float]:
    """Return one score per photograph (classes differ between them), or one of all images."""
    pairs = list(zip(image_set.truth, labels, strict=True))
    if image_set.n_labels is not None:
        return [100 * confusion_table(*map(list, zip(*pairs, strict=True))).mean_iou()]
    return [100 * confusion_table([truth], [each]).mean_iou() for truth, each in pairs]


def _keep(name: str, unary: str, row: dict[str, Any]) -> None:
    """Put one row among the results."""
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    kept = results.setdefault(name, {}).setdefault(unary, {})
    kept.update(row)
    write_json(RESULTS, results)
