"""Whether learned dense CRFs do harm: eight sets, two unaries each, several random splits.

``python -m benchmarks harm`` draws images to learn from and to score for each seed, learns
``DenseCRF(learn="all")`` and ``DenseCRF(learn="weights")`` from out-of-sample costs, and compares
them with the costs alone and with ``DenseCRF()``. Scores are kept in
``benchmarks/learning/harm.json``; what is there is not run again, unless its entry is removed.
``--table`` only prints what is stored. Times are processor time. Needs HYBRIDSEG_DATA.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.files import write_json
from benchmarks.learning.pools import UNARIES, Pool, pool
from benchmarks.learning.scores import image_tables
from benchmarks.machine import describe_machine
from benchmarks.training.places import data_folder
from hybridseg import CrossFit, DenseCRF, Scene
from hybridseg.learning import Learner

RESULTS = Path(__file__).with_name("harm.json")
PACKAGES = ("numpy", "numba", "scikit-learn", "torch")

#: The most images to learn from and to score; a smaller set is halved.
N_TRAIN, N_TEST = 10, 12
#: The folds in which the costs to learn from are made.
N_FOLDS = 3
#: What is learned.
LEARNED = ("all", "weights")
#: A lower mean IoU or IoU of a class than that of the costs alone, in points, which is harm.
MEAN_HARM, CLASS_HARM = 0.3, 1.0
#: With ``--quick``: images to learn from and to score, and steps.
QUICK_IMAGES, QUICK_STEPS = 4, 10
N_RESAMPLES = 2000


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, keep the scores, and print the tables."""
    options = _parser().parse_args(arguments)
    results = json.loads(options.results.read_text()) if options.results.exists() else {}
    if not options.table:
        for seed in range(options.seeds):
            for name in options.sets or UNARIES:
                for unary in UNARIES[name]:
                    _add(results, name, unary, seed, options)
    print("\n".join(table(results)))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks harm", description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=UNARIES, help="these sets")
    parser.add_argument("--seeds", type=int, default=5, help="the number of random splits")
    parser.add_argument(
        "--quick", action="store_true", help="few images and steps, for a trial; keeps nothing"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where scores are kept")
    parser.add_argument("--table", action="store_true", help="only print the stored results")
    return parser


def _add(
    results: dict[str, Any], name: str, unary: str, seed: int, options: argparse.Namespace
) -> None:
    """Run a set, a unary and a seed, unless the results have it."""
    kept = results.get(name, {}).get(unary, {}).get("seeds", {})
    if str(seed) in kept:
        return
    images = pool(name, unary, data_folder())
    row = run(images, seed, quick=options.quick)
    print(f"{name}, {unary}, seed {seed}: {json.dumps(row, default=float)}", flush=True)
    entry = results.setdefault(name, {}).setdefault(unary, {"n_labels": images.n_labels})
    entry.setdefault("seeds", {})[str(seed)] = row
    entry["machine"] = describe_machine(PACKAGES)
    if not options.quick:
        write_json(options.results, results)


def run(images: Pool, seed: int, *, quick: bool = False) -> dict[str, Any]:
    """Learn and score one random split; return scores in points."""
    learned, scored = split(len(images.names), seed, quick)
    start = time.process_time()
    train, test = costs(images, learned, scored)
    row: dict[str, Any] = {
        "n_train": len(train),
        "n_test": len(test),
        "cpu_seconds_of_costs": round(time.process_time() - start, 1),
    }
    y = [images.truth[i] for i in learned]
    truth = [images.truth[i] for i in scored]
    row["alone"] = scores(truth, [scene.prediction for scene in test], images.n_labels)
    found = [scene.prediction for scene in DenseCRF().transform(test)]
    row["default"] = scores(truth, found, images.n_labels)
    for what in LEARNED:
        start = time.process_time()
        model = fit(what, train, y, seed, quick)
        seconds = time.process_time() - start
        found = [scene.prediction for scene in model.transform(test)]
        row[what] = {
            **scores(truth, found, images.n_labels),
            "cpu_seconds": round(seconds, 1),
            **_gate(model),
        }
    return row


def split(n_images: int, seed: int, quick: bool) -> tuple[list[int], list[int]]:
    """Draw the images to learn from and those to score."""
    n_train = min(QUICK_IMAGES if quick else N_TRAIN, (n_images + 1) // 2)
    n_test = min(QUICK_IMAGES if quick else N_TEST, n_images - n_train)
    drawn = np.random.default_rng(seed).permutation(n_images).tolist()
    return drawn[:n_train], drawn[n_train : n_train + n_test]


def costs(images: Pool, learned: list[int], scored: list[int]) -> tuple[list[Scene], list[Scene]]:
    """Return Scenes with costs of models that were trained on none of them."""
    train, test = [images.scenes[i] for i in learned], [images.scenes[i] for i in scored]
    if images.segmenter is None:
        return train, test
    crossed = CrossFit(images.segmenter, cv=N_FOLDS, random_state=0)
    train = list(crossed.fit_transform(train, [images.truth[i] for i in learned]))
    return [_computed(s) for s in train], [_computed(s) for s in crossed.transform(test)]


def _computed(scene: Scene) -> Scene:
    """Return a Scene whose costs are an array, so that they are computed once."""
    return scene.replace(unary=np.asarray(scene.unary))


def fit(what: str, train: list[Scene], y: list[Any], seed: int, quick: bool) -> DenseCRF:
    """Return the fitted refiner."""
    learner = Learner(what, random_state=seed)
    if quick:
        learner.set_params(max_iter=QUICK_STEPS)
    return DenseCRF(learn=learner).fit(train, y)


def scores(truth: list[Any], found: list[Any], n_labels: int) -> dict[str, Any]:
    """Return mean IoU, accuracy and IoU per class, in points; None if the truth lacks a class.

    The mean is over the classes of the truth, so that it is one of the same classes for all.
    """
    counts = image_tables(zip(truth, found, strict=True), n_labels).sum(axis=0)
    hits, true = np.diagonal(counts).astype(float), counts.sum(axis=1)
    iou = 100 * hits / np.maximum(true + counts[:, :-1].sum(axis=0) - hits, 1)
    return {
        "mean_iou": round(float(iou[true > 0].mean()), 3),
        "accuracy": round(100 * hits.sum() / true.sum(), 3),
        "iou": [round(v, 3) if n else None for v, n in zip(iou.tolist(), true, strict=True)],
    }


def _gate(model: DenseCRF) -> dict[str, Any]:
    """Return what the gate chose, and for each strength what it saw, in points."""
    gate = model.learning_.gate
    assert gate is not None
    return {
        "strength": gate.chosen,
        "strengths": list(gate.strengths),
        "gains": _points(gate.gains),
        "lowest_gains": _points(gate.lowest_gains),
        "worst_class": _points(np.nanmin(gate.class_changes, axis=1)),
        "lowest_worst_class": _points(np.nanmin(gate.lowest_class_changes, axis=1)),
    }


def _points(values: NDArray[np.float64]) -> list[float]:
    return [round(100 * float(value), 3) for value in values]


def table(results: dict[str, Any]) -> Iterator[str]:
    """Yield every run, then the counts of harm and the mean gains."""
    ways = ("default", *LEARNED)
    yield f"| set | costs of | seed | alone | {' | '.join(ways)} | strengths | CPU s | harm |"
    yield f"|---|---|{'---:|' * (len(ways) + 2)}---|---|---|"
    for name, unary, seed, row in _rows(results):
        alone = row["alone"]["mean_iou"]
        gains = " | ".join(f"{row[way]['mean_iou'] - alone:+.2f}" for way in ways)
        strengths = " / ".join(f"{row[what]['strength']:g}" for what in LEARNED)
        seconds = " / ".join(f"{row[what]['cpu_seconds']:.0f}" for what in LEARNED)
        harm = "; ".join(text for way in ways if (text := _harm(row, way)))
        cells = (name, unary, seed, f"{alone:.2f}", gains, strengths, seconds, harm)
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield from _summary(results, ways)


def _rows(results: dict[str, Any]) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    for name in UNARIES:
        for unary in UNARIES[name]:
            runs = results.get(name, {}).get(unary, {}).get("seeds", {})
            for seed in sorted(runs, key=int):
                yield name, unary, seed, runs[seed]


def _harm(row: dict[str, Any], way: str) -> str:
    """Return how a refiner harmed, or nothing."""
    gain, changes = row[way]["mean_iou"] - row["alone"]["mean_iou"], changes_of(row, way)
    parts = [f"mean {gain:+.2f}"] if gain < -MEAN_HARM else []
    parts += [f"class {i} {v:+.2f}" for i, v in changes.items() if v < -CLASS_HARM]
    return f"{way}: {', '.join(parts)}" if parts else ""


def changes_of(row: dict[str, Any], way: str) -> dict[int, float]:
    """Return the change of the IoU of each class of the truth."""
    pairs = zip(row["alone"]["iou"], row[way]["iou"], strict=True)
    return {i: new - old for i, (old, new) in enumerate(pairs) if old is not None}


def _summary(results: dict[str, Any], ways: Sequence[str]) -> Iterator[str]:
    rows = list(_rows(results))
    if not rows:
        return
    yield (
        "| | runs | mean IoU harmed | runs with a class harmed | classes harmed | least gain | "
        "least of a class | refused | mean gain | 95% over sets |"
    )
    yield f"|---|{'---:|' * 8}---|"
    for way in ways:
        gains = [row[way]["mean_iou"] - row["alone"]["mean_iou"] for *_, row in rows]
        changes = [list(changes_of(row, way).values()) for *_, row in rows]
        classes = [sum(v < -CLASS_HARM for v in each) for each in changes]
        refused = sum(row[way].get("strength", 1) == 0 for *_, row in rows)
        low, high = interval([name for name, *_ in rows], gains)
        yield (
            f"| {way} | {len(rows)} | {sum(g < -MEAN_HARM for g in gains)} | "
            f"{sum(n > 0 for n in classes)} | {sum(classes)} of {sum(map(len, changes))} | "
            f"{min(gains):+.2f} | {min(map(min, changes)):+.2f} | {refused} | "
            f"{np.mean(gains):+.2f} | {low:+.2f} to {high:+.2f} |"
        )


def interval(sets: Sequence[str], gains: Sequence[float]) -> tuple[float, float]:
    """Return the 95% percentile interval of the mean gain; whole sets are drawn."""
    names = sorted(set(sets))
    groups = [[g for name, g in zip(sets, gains, strict=True) if name == each] for each in names]
    sums, sizes = np.array([sum(g) for g in groups]), np.array([len(g) for g in groups])
    drawn = np.random.default_rng(0).integers(len(names), size=(N_RESAMPLES, len(names)))
    means = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
