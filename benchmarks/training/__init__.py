"""Networks trained on real data from beginning to end, scored on test images.

``python -m benchmarks training camvid`` trains, prints the scores, and stores them in
``benchmarks/training/results.json``. ``--page`` writes ``docs/networks.md`` from this file. The
trained models are written to ``.benchmarks/training`` for other benchmarks. The same command
continues an interrupted run; ``--fresh`` discards it.

Needs HYBRIDSEG_DATA. Each training runs on one thread; times are processor time of the training
alone.
"""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.files import write_json
from benchmarks.training import page
from benchmarks.training.places import MODELS, SETS, data_folder, model_path
from benchmarks.training.recipe import Recipe, train

RESULTS = Path(__file__).with_name("results.json")


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    torch.set_num_threads(options.threads)
    modules = {
        name: importlib.import_module(f"benchmarks.training.{name}") for name in options.sets
    }
    recipes = [(name, key) for name, module in modules.items() for key in module.RECIPES]
    known = {key for _, key in recipes}
    if unknown := sorted(set(options.only or ()) - known):
        raise SystemExit(
            f"--only {' '.join(unknown)}: expected some of {', '.join(sorted(known))}."
        )
    for name, key in recipes:
        if not options.only or key in options.only:
            row = _run(modules[name], name, key, options)
            print(json.dumps(row, indent=1), flush=True)
            _keep(options.results, f"{name}/{key}", row)
    if options.page:
        page.write(json.loads(options.results.read_text()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks training", description=__doc__)
    parser.add_argument("sets", nargs="*", choices=[*SETS, []], default=[], metavar="set")
    parser.add_argument("--only", nargs="+", help="these recipes of the set")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the training: a trial")
    parser.add_argument("--fresh", action="store_true", help="forget an interrupted run")
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of trained models")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", action="store_true", help="write docs/networks.md in the end")
    return parser


def _run(module: Any, name: str, key: str, options: argparse.Namespace) -> dict[str, Any]:
    recipe: Recipe = module.RECIPES[key]
    data = data_folder()
    drafts = options.models / f"{name}-{key}{'-quick' if options.quick else ''}"
    if options.fresh:
        shutil.rmtree(drafts, ignore_errors=True)
    X, y = module.training_data(data)
    model, facts = train(recipe, X, y, drafts, quick=options.quick)
    path = model_path(options.models, name, key + ("-quick" if options.quick else ""))
    import hybridseg

    hybridseg.save(model, path)
    return {"title": recipe.title, **facts, **module.score(model, data)}


def _keep(path: Path, key: str, row: dict[str, Any]) -> None:
    """Store one row with the results."""
    results = json.loads(path.read_text()) if path.exists() else {}
    results[key] = row
    write_json(path, results)
