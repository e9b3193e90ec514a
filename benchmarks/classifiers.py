"""Classifiers for the features of pixels: time against mean IoU; writes docs/classifiers.md.

Every classifier learns from the same pixels and is scored on the same pixels of other images, all
from training and validation lists. ``HYBRIDSEG_DATA`` names the folder of the sets;
the bundled photographs are always used. Times are seconds of one core.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.ensemble import (
    ExtraTreesClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.machine import describe_machine
from hybridseg import PixelClassifier, Scene
from hybridseg.datasets import load_photos, read_image
from hybridseg.features import PixelFeatures
from hybridseg.metrics import mean_iou

PAGE = Path(__file__).parents[1] / "docs" / "classifiers.md"
CANDIDATES: dict[str, Any] = {
    "forest, 100 trees, leaves of 2": RandomForestClassifier(100, min_samples_leaf=2),
    "forest, 50 trees, leaves of 2": RandomForestClassifier(50, min_samples_leaf=2),
    "forest, 50 trees, leaves of 8": RandomForestClassifier(50, min_samples_leaf=8),
    "forest, 100 trees of 30% of the rows": RandomForestClassifier(
        100, min_samples_leaf=2, max_samples=0.3
    ),
    "forest, 50 trees, 30% of the features": RandomForestClassifier(
        50, min_samples_leaf=2, max_features=0.3
    ),
    "extra trees, 100, leaves of 2": ExtraTreesClassifier(100, min_samples_leaf=2),
    "extra trees, 50, leaves of 2": ExtraTreesClassifier(50, min_samples_leaf=2),
    "extra trees, 50, 30% of the features": ExtraTreesClassifier(
        50, min_samples_leaf=2, max_features=0.3
    ),
    "boosting by histograms, 50 rounds": HistGradientBoostingClassifier(max_iter=50),
    "logistic regression, scaled": make_pipeline(
        StandardScaler(), LogisticRegression(C=0.1, max_iter=300)
    ),
    "perceptron of 64, scaled": make_pipeline(
        StandardScaler(), MLPClassifier((64,), early_stopping=True, max_iter=40)
    ),
}


class Keep(ClassifierMixin, BaseEstimator):
    """A classifier that keeps the rows it is fitted with."""

    def fit(self, rows: NDArray[Any], targets: NDArray[Any]) -> Keep:
        self.rows_, self.targets_ = rows, targets
        self.classes_ = np.unique(targets)
        return self

    def predict_proba(self, rows: NDArray[Any]) -> NDArray[Any]:
        return np.full((len(rows), len(self.classes_)), 1 / len(self.classes_))


class Case:
    """Rows to learn from, and rows of other images to be scored on."""

    def __init__(
        self, train: Sequence[Any], test: Sequence[Any], options: argparse.Namespace
    ) -> None:
        rng = np.random.default_rng(0)
        images, labels = zip(*train, strict=True)
        keeper = PixelClassifier(Keep(), max_samples=options.max_samples, random_state=0)
        kept = keeper.fit(list(images), list(labels))
        self.rows, self.targets = kept.classifier_.rows_, kept.classifier_.targets_
        features = PixelFeatures()
        parts, truths = [], []
        for image, truth in test:
            known = np.flatnonzero(np.isin(truth, kept.classes_))
            chosen = rng.choice(known, min(options.scored, len(known)), replace=False)
            found = features(Scene(image).colors)
            parts.append(found.reshape(-1, found.shape[-1])[chosen])
            truths.append(np.searchsorted(kept.classes_, truth.ravel()[chosen]))
        self.test, self.truth = np.concatenate(parts), np.concatenate(truths)

    def run(self, classifier: Any) -> tuple[float, float, float]:
        """Seconds of fitting, seconds of predicting 100,000 pixels, and the mean IoU."""
        start = time.process_time()
        fitted = clone(classifier).fit(self.rows, self.targets)
        learned = time.process_time()
        found = fitted.classes_[fitted.predict_proba(self.test).argmax(axis=1)]
        done = time.process_time()
        score = mean_iou(self.truth[None], found[None])
        return learned - start, (done - learned) * 1e5 / len(self.test), float(score)


def cases(options: argparse.Namespace) -> Iterator[tuple[str, list[Case]]]:
    """Yield the available sets, each with its cases."""
    photos = load_photos()
    found = []
    for name, image, scribbles, truth in zip(
        photos.names, photos.images, photos.scribbles, photos.truth, strict=True
    ):
        if name in ("astronaut", "chelsea", "coffee", "coins"):
            found.append(Case([(image, scribbles)], [(image, truth)], options))
    yield "photographs", found
    root = os.environ.get("HYBRIDSEG_DATA")
    lists = {"camvid": ("train", "val"), "isbi2012_em": ("train",), "dsb2018": ("train",)}
    for name, splits in lists.items():
        if root and (Path(root) / name).exists():
            pairs = [_pairs(Path(root) / name, split, options.images) for split in splits]
            train, test = pairs if len(pairs) == 2 else (pairs[0][::2], pairs[0][1::2])
            yield name, [Case(train, test, options)]


def _pairs(folder: Path, split: str, n: int) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    """Read images spread evenly over a list, with their labels; 255 is void."""
    names = (folder / f"{split}.txt").read_text().split()
    n_wanted = n if (folder / "val.txt").exists() else 2 * n
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, n_wanted).astype(int)]
    return [_pair(folder, name) for name in chosen]


def _pair(folder: Path, name: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read an image as three channels (some sets mix gray and color) and its labels."""
    image = np.asarray(read_image(next((folder / "images").glob(f"{name}.*"))))
    image = image[..., :3] if image.ndim == 3 else np.dstack([image] * 3)
    labels = np.asarray(read_image(folder / "labels" / f"{name}.png")).astype(int)
    return image, np.where(labels == 255, -1, labels)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every candidate on every set and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks classifiers", description=__doc__)
    parser.add_argument(
        "--max-samples", type=int, default=20_000, help="number of pixels to learn from"
    )
    parser.add_argument(
        "--images", type=int, default=8, help="number of images of each list of a set"
    )
    parser.add_argument(
        "--scored", type=int, default=10_000, help="number of pixels scored in each test image"
    )
    parser.add_argument("--page", type=Path, default=PAGE, help="where the table is written")
    options = parser.parse_args(arguments)
    sets = dict(cases(options))
    rows = []
    for name, classifier in CANDIDATES.items():
        seeded = clone(classifier)
        seeds = [key for key in seeded.get_params() if key.rpartition("__")[2] == "random_state"]
        seeded.set_params(**dict.fromkeys(seeds, 0))
        runs = {kind: [case.run(seeded) for case in found] for kind, found in sets.items()}
        scores = [np.mean([run[2] for run in found]) for found in runs.values()]
        flat = [run for found in runs.values() for run in found]
        fit, predict = (np.mean([run[i] for run in flat]) for i in (0, 1))
        rows.append((name, f"{fit:.1f}", f"{predict:.2f}", *(f"{s:.3f}" for s in scores)))
        rows[-1] += (f"{np.mean(scores):.3f}",)
        print(" | ".join(rows[-1]), flush=True)
    options.page.write_text(_page(options, list(sets), rows))


def _page(options: argparse.Namespace, names: list[str], rows: list[tuple[str, ...]]) -> str:
    columns = ["classifier", "fit, s", "100,000 pixels, s", *names, "mean"]
    lines = [
        "# Classifiers for pixels\n",
        f"`python -m benchmarks classifiers --max-samples {options.max_samples} --images "
        f"{options.images} --scored {options.scored}` on {describe_machine()['processor']}.\n",
        f"Each classifier learns from at most {options.max_samples:,} pixels, drawn evenly over "
        f"classes and images, with the features of `PixelFeatures()`. Its score is the mean IoU "
        f"on {options.scored:,} pixels of each test image. A photograph is learned from its "
        f"scribbles and scored on its polygons. On the other sets, {options.images} training "
        f"images are learned from, and as many others are scored, from the validation list if "
        f"there is one. Times are seconds of one core, means over all cases.\n",
        f"| {' | '.join(columns)} |",
        f"|{'---|' * len(columns)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
