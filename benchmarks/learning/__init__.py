"""Learned energies against controls, on the costs of networks on CamVid.

``python -m benchmarks learning`` makes the costs of the published ESPNet (kept in
``.benchmarks/learning``), chooses the parameters of every method on validation images, scores each
once on every second test image, and keeps the scores in ``benchmarks/learning/results.json``.
``--unary fpn`` takes the network of ``python -m benchmarks training camvid --only pretrained``
instead, and ``--unary coarse`` ESPNet's logits averaged over blocks of 16 x 16 pixels; their scores
are in files of their own. ``--only`` runs some methods again; they
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
from benchmarks.learning.costs import UNARIES, Part, camvid
from benchmarks.learning.methods import methods
from benchmarks.learning.page import table
from benchmarks.learning.scores import (
    BLOCK,
    boundary_summary,
    image_tables,
    paired_bootstrap,
    summary,
    trimap_summary,
)
from benchmarks.machine import describe_machine
from benchmarks.training.places import MODELS, data_folder

RESULTS = Path(__file__).with_name("results.json")
CACHE = Path(".benchmarks/learning")
PACKAGES = ("numpy", "numba", "torch", "pydensecrf2")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what was asked for, keep the scores, and print the table."""
    options = _parser().parse_args(arguments)
    if not options.table:
        parts = camvid(data_folder(), options.cache, options.unary, options.models)
        val = parts["val"].spread(options.images)
        setting = Setting(n_trials=options.trials, seed=options.seed)
        for name, method in methods().items():
            if name in (options.only or _default_methods(options.unary)):
                row, counts = _run(method, val, parts["test"], setting)
                print(f"{name}: {json.dumps(row)}", flush=True)
                folder = _tables_folder(options)
                _store_tables(folder, name, parts["test"].names, counts)
                _keep(options, name, row, parts["test"])
    print(table(json.loads(_results_path(options).read_text())))


def _default_methods(unary: str) -> list[str]:
    """Return all methods; the slow random search is for the published costs only."""
    return [name for name in methods() if unary == "espnet" or name != "pydensecrf2"]


def _results_path(options: argparse.Namespace) -> Path:
    if options.results is not None:
        return Path(options.results)
    return RESULTS if options.unary == "espnet" else RESULTS.with_stem(f"results_{options.unary}")


def _tables_folder(options: argparse.Namespace) -> Path:
    own = "tables" if options.unary == "espnet" else f"tables-{options.unary}"
    return Path(options.cache) / own


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks learning", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=methods(), help="these methods")
    parser.add_argument(
        "--images", type=int, default=21, help="validation images to choose on, evenly spread"
    )
    parser.add_argument("--trials", type=int, default=100, help="of the random search")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of costs and counts")
    parser.add_argument("--unary", choices=UNARIES, default="espnet", help="the network")
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of trained models")
    parser.add_argument("--results", type=Path, help="where scores are kept")
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
        "trimap_iou": trimap_summary(test.truths, predictions, n_labels),
    }
    return row, counts


def _keep(options: argparse.Namespace, name: str, row: dict[str, Any], test: Part) -> None:
    """Put one row among the results, and compare all methods that were run on these images."""
    path = _results_path(options)
    results = json.loads(path.read_text()) if path.exists() else {"methods": {}}
    row["machine"] = describe_machine(PACKAGES)
    kept = {**results["methods"], name: row}
    order = [each for each in methods() if each in kept]
    results["methods"] = {each: kept[each] for each in order}
    results |= {"classes": test.classes, "n_test_images": len(test.names)}
    results["differences"] = _differences(_tables_folder(options), order, test.names)
    write_json(path, results)


def _differences(folder: Path, order: list[str], names: list[str]) -> dict[str, Any]:
    """Compare each method with every earlier one, over images and over blocks of images."""
    stored = {each: _stored_tables(folder, each, names) for each in order}
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


def _store_tables(folder: Path, name: str, images: list[str], counts: NDArray[np.int64]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{name}.npz"
    np.savez(draft, names=np.array(images), counts=counts)
    draft.rename(folder / f"{name}.npz")


def _stored_tables(folder: Path, name: str, images: list[str]) -> NDArray[np.int64] | None:
    """Return the tables of a method's last run, if it was scored on the same images."""
    path = folder / f"{name}.npz"
    if not path.exists():
        return None
    with np.load(path) as stored:
        return stored["counts"] if stored["names"].tolist() == images else None
