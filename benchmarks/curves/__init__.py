"""Learning curves of AutoHybrid and of single methods, on few and many labeled images.

``python -m benchmarks curves`` learns from 1, 2, 5, 10, 50 and all training images of CamVid and of
the nuclei, and from the scribbles on each annotated photograph. It scores AutoHybrid beside each of
its default segmenters alone, with DenseCRF() and with GraphCut(), on the same test images. A cell
(a set and a number of images) is kept in ``benchmarks/curves/results.json`` when it is complete;
what is there is not run again, unless its entry is removed. ``--table`` only prints what is stored.
Images are reduced to at most 45,000 pixels. Needs HYBRIDSEG_DATA.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.curves.sets import SETS, Split
from benchmarks.curves.summary import summary, table
from benchmarks.files import write_json
from benchmarks.machine import describe_machine
from benchmarks.training.places import data_folder
from hybridseg import AutoHybrid, DenseCRF, GraphCut
from hybridseg.base import TrainingSet
from hybridseg.metrics import confusion_table
from hybridseg.search.candidates import default_segmenters

RESULTS = Path(__file__).with_name("results.json")
PACKAGES = ("numpy", "numba", "scikit-learn", "torch")
REFINERS = {"alone": None, "DenseCRF": DenseCRF(), "GraphCut": GraphCut()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the cells that are missing, the small ones first, and print the table."""
    options = _parser().parse_args(arguments)
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    if not options.table:
        for size in options.sizes or (1, 2, 5, 10, 50, 0):
            for name in options.only or SETS:
                _add(results, name, size, options)
    print("\n".join(table(results)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks curves", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SETS, help="these sets")
    parser.add_argument("--sizes", nargs="+", type=int, help="numbers of images; 0 is all")
    parser.add_argument("--budget", type=float, default=300.0, help="seconds of AutoHybrid")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where scores are kept")
    parser.add_argument("--table", action="store_true", help="only print the stored results")
    return parser


def _add(results: dict[str, Any], name: str, size: int, options: argparse.Namespace) -> None:
    """Run a cell, unless the results have it or the set has no such number of images."""
    splits = list(SETS[name](data_folder(), size))
    if not splits:
        return
    key = str(len(splits[0].images))
    if key in results.get(name, {}):
        return
    tables: dict[str, list[Any]] = {}
    seconds: dict[str, float] = {}
    chosen: list[str] = []
    longest = 0.0
    for split in splits:
        for method, counts, spent in _methods(split):
            tables.setdefault(method, []).extend(counts)
            seconds[method] = seconds.get(method, 0.0) + spent
        model, spent = _auto(split, options.budget)
        tables.setdefault("AutoHybrid", []).extend(_tables(model, split))
        seconds["AutoHybrid"] = seconds.get("AutoHybrid", 0.0) + spent
        longest = max(longest, spent)
        row = model.leaderboard_.rows[0]
        chosen.append(f"{row.segmenter}, {row.refiner}")
    cell = {
        **summary(tables, own=len(splits) > 1),
        "seconds": {method: round(spent / len(splits), 1) for method, spent in seconds.items()},
        "chosen": chosen,
        "budget": options.budget,
        "longest": round(longest, 1),
        "machine": describe_machine(PACKAGES),
    }
    results.setdefault(name, {})[key] = cell
    write_json(options.results, results)
    print(f"{name}, {key}: {json.dumps(cell['scores'])}", flush=True)


def _methods(split: Split) -> Iterator[tuple[str, list[Any], float]]:
    """Fit each default segmenter; yield it with each refiner, its tables and its seconds."""
    training = TrainingSet.read(split.images, split.labels, "dtype", None)
    for name, segmenter in default_segmenters(training, random_state=0):
        start = time.perf_counter()
        model = segmenter.fit(split.images, split.labels)
        fitted = time.perf_counter() - start
        scenes = [
            scene.replace(unary=np.asarray(scene.unary)) for scene in model.transform(split.test)
        ]
        for refiner_name, refiner in REFINERS.items():
            found = scenes if refiner is None else refiner.transform(scenes)
            counts = [
                _counts(truth, scene.prediction, split.n_labels)
                for truth, scene in zip(split.truth, found, strict=True)
            ]
            yield f"{name}, {refiner_name}", counts, fitted


def _auto(split: Split, budget: float) -> tuple[AutoHybrid, float]:
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the budget of")
        model = AutoHybrid(budget, random_state=0).fit(split.images, split.labels)
    return model, time.perf_counter() - start


def _tables(model: Any, split: Split) -> list[Any]:
    pairs = zip(split.truth, split.test, strict=True)
    return [_counts(truth, model.predict([x])[0], split.n_labels) for truth, x in pairs]


def _counts(truth: Any, found: Any, n_labels: int) -> Any:
    return confusion_table(truth, found, labels=range(n_labels)).counts
