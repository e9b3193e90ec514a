"""Learned energies against controls, on the costs of the published ESPNet on CamVid.

``python -m benchmarks learning`` makes the costs (kept in ``.benchmarks/learning``), chooses the
parameters of every method on validation images, scores each once on every second test image, and
keeps the scores in ``benchmarks/learning/results.json``. ``--only`` runs some methods again; they
are compared with the others as these were run last. ``--table`` only prints the stored results.
Times are processor time of one process. Needs HYBRIDSEG_DATA.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.files import write_json
from benchmarks.learning.choice import Method, Setting
from benchmarks.learning.costs import Part, camvid
from benchmarks.learning.methods import methods
from benchmarks.learning.page import table
from benchmarks.learning.scores import (
    BLOCK,
    boundary_summary,
    image_tables,
    paired_bootstrap,
    summary,
)
from benchmarks.machine import describe_machine
from benchmarks.training.places import data_folder

RESULTS = Path(__file__).with_name("results.json")
CACHE = Path(".benchmarks/learning")
PACKAGES = ("numpy", "numba", "torch", "pydensecrf2")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what was asked for, keep the scores, and print the table."""
    options = _parser().parse_args(arguments)
    if not options.table:
        parts = camvid(data_folder(), options.cache)
        val = parts["val"].spread(options.images)
        setting = Setting(n_trials=options.trials, seed=options.seed)
        for name, method in methods().items():
            if not options.only or name in options.only:
                row, counts = _run(method, val, parts["test"], setting)
                print(f"{name}: {json.dumps(row)}", flush=True)
                _store_tables(options.cache, name, parts["test"].names, counts)
                _keep(options, name, row, parts["test"])
    print(table(json.loads(options.results.read_text())))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks learning", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=methods(), help="these methods")
    parser.add_argument(
        "--images", type=int, default=21, help="validation images to choose on, evenly spread"
    )
    parser.add_argument("--trials", type=int, default=100, help="of the random search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of costs and counts")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where scores are kept")
    parser.add_argument("--table", action="store_true", help="only print the stored results")
    return parser


def _run(
    method: Method, val: Part, test: Part, setting: Setting
) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Choose on val, predict test once; return the scores and the table of each test image."""
    start = time.process_time()
    choice = method(val, setting)
    chosen = time.process_time()
    predictions = [np.asarray(choice.predict(scene)).astype(np.int8) for scene in test.scenes]
    done = time.process_time()
    n_labels = len(test.classes)
    pairs = ((test.truth(i), found) for i, found in enumerate(predictions))
    counts = image_tables(pairs, n_labels)
    row = {
        "n_val_images": len(val.names),
        **choice.facts,
        "cpu_seconds_to_choose": round(chosen - start, 1),
        "cpu_seconds_per_image": round((done - chosen) / len(predictions), 4),
        **summary(counts),
        **boundary_summary(test.truths, predictions, n_labels),
    }
    return row, counts


def _keep(options: argparse.Namespace, name: str, row: dict[str, Any], test: Part) -> None:
    """Put one row among the results, and compare all methods that were run on these images."""
    path: Path = options.results
    results = json.loads(path.read_text()) if path.exists() else {"methods": {}}
    row["machine"] = describe_machine(PACKAGES)
    kept = {**results["methods"], name: row}
    order = [each for each in methods() if each in kept]
    results["methods"] = {each: kept[each] for each in order}
    results |= {"classes": test.classes, "n_test_images": len(test.names)}
    results["differences"] = _differences(options.cache, order, test.names)
    write_json(path, results)


def _differences(cache: Path, order: list[str], names: list[str]) -> dict[str, Any]:
    """Compare each method with every earlier one, over images and over blocks of images."""
    stored = {each: _stored_tables(cache, each, names) for each in order}
    known = {each: counts for each, counts in stored.items() if counts is not None}
    return {
        f"{later} - {earlier}": {
            "over images": paired_bootstrap(known[earlier], known[later]),
            f"over blocks of {BLOCK} images": paired_bootstrap(
                known[earlier], known[later], block=BLOCK
            ),
        }
        for earlier, later in combinations(known, 2)
    }


def _store_tables(cache: Path, name: str, images: list[str], counts: NDArray[np.int64]) -> None:
    folder = cache / "tables"
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{name}.npz"
    np.savez(draft, names=np.array(images), counts=counts)
    draft.rename(folder / f"{name}.npz")


def _stored_tables(cache: Path, name: str, images: list[str]) -> NDArray[np.int64] | None:
    """Return the tables of a method's last run, if it was scored on the same images."""
    path = cache / "tables" / f"{name}.npz"
    if not path.exists():
        return None
    with np.load(path) as stored:
        return stored["counts"] if stored["names"].tolist() == images else None
