"""Labels near boundaries, corrected by a network, beside a dense CRF that learns its weights.

Needs HYBRIDSEG_DATA. CamVid: the costs of the published ESPNet; learned on every third frame of
val, scored on every eighth frame of test. Nuclei: the costs of a quick forest, cross-fitted;
learned on every fourth image of the training list, scored on every second test image. Intervals
are those of a paired bootstrap over images; consecutive frames of CamVid are drawn in blocks.
Everything runs on one thread; seconds are processor time.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from benchmarks.learning import CACHE
from benchmarks.learning.costs import camvid
from benchmarks.learning.scores import BAND, CONFIDENCE, N_RESAMPLES, image_tables, resample_weights
from benchmarks.learning.scores import iou as iou_of
from benchmarks.training.places import data_folder
from hybridseg import BoundaryRefiner, CrossFit, DenseCRF, PixelClassifier, Scene
from hybridseg.datasets import load_folder, read_image
from hybridseg.learning import Learner
from hybridseg.metrics import boundary_iou_per_class

#: Consecutive scored frames of CamVid that are drawn together: 8 * 4 frames of a video.
CAMVID_BLOCK = 4


@dataclass(frozen=True, eq=False)
class Task:
    """Scenes with costs of models that were trained on none of them, and their truth."""

    n_labels: int
    train: list[Scene]
    train_truth: list[NDArray[Any]]
    test: list[Scene]
    test_truth: list[NDArray[Any]]
    augment: str
    block: int

    def fewer(self, n_images: int) -> Task:
        """Return at most this many images to learn from and to score."""
        lists = (self.train, self.train_truth, self.test, self.test_truth)
        first, second, third, fourth = (list(part)[:n_images] for part in lists)
        return Task(self.n_labels, first, second, third, fourth, self.augment, self.block)


def street(data: Path, cache: Path) -> Task:
    """CamVid, 11 labels."""
    parts = camvid(data, cache)
    val, test = parts["val"], parts["test"]
    learned, scored = range(0, len(val.names), 3), range(0, len(test.names), 4)
    return Task(
        len(val.classes),
        [val.scenes[i] for i in learned],
        [val.truth(i) for i in learned],
        [test.scenes[i] for i in scored],
        [test.truth(i) for i in scored],
        "upright",
        CAMVID_BLOCK,
    )


def nuclei(data: Path, cache: Path) -> Task:
    """Data Science Bowl 2018, nuclei and background; costs are computed anew."""
    del cache
    X, y = _nuclei(data, "train", 4)
    tested, truth = _nuclei(data, "test", 2)
    forest = RandomForestClassifier(20, min_samples_leaf=5, random_state=0)
    crossed = CrossFit(PixelClassifier(forest, intensity_range="image"), cv=3)
    train = [_computed(scene) for scene in crossed.fit_transform(X, y)]
    test = [_computed(scene) for scene in crossed.transform(tested)]
    return Task(2, train, y, test, truth, "dihedral", 1)


def _nuclei(data: Path, split: str, step: int) -> tuple[list[Any], list[Any]]:
    listed = load_folder(data / "dsb2018", split)
    images = [np.asarray(read_image(path)) for path in listed.X[::step]]
    colors = [
        np.broadcast_to(im[..., None], (*im.shape, 3)) if im.ndim == 2 else im for im in images
    ]
    truth = [(np.asarray(source) > 0).astype(int) for source in listed.y[::step]]
    return [np.ascontiguousarray(im[..., :3]) for im in colors], truth


def _computed(scene: Scene) -> Scene:
    return scene.replace(unary=np.asarray(scene.unary))


TASKS: dict[str, Callable[[Path, Path], Task]] = {"camvid": street, "nuclei": nuclei}


def methods(task: Task, quick: bool) -> dict[str, Any]:
    """Return the refiners to compare."""
    few = {"n_patches": 32, "max_epochs": 1} if quick else {}
    return {
        "DenseCRF": DenseCRF(),
        'DenseCRF, learn="weights"': DenseCRF(
            learn=Learner("weights", random_state=0, **({"max_iter": 2} if quick else {}))
        ),
        "BoundaryRefiner": BoundaryRefiner(
            augment=task.augment, random_state=0, device="cpu", **few
        ),
    }


def rows(task: Task, quick: bool) -> Iterator[str]:
    """Yield the lines of a table."""
    yield "| | mean IoU | change | boundary IoU | change | strength | fit s | predict s per image |"
    yield f"|---|{'---:|' * 7}"
    plain = [scene.prediction for scene in task.test]
    before = Counts.of(task, plain)
    yield f"| unrefined | {before.mean():.2f} | | {before.boundary_mean():.2f} | | | | |"
    for name, model in methods(task, quick).items():
        start = time.process_time()
        model.fit(task.train, task.train_truth)
        fitted = time.process_time()
        found = model.predict(task.test)
        done = time.process_time()
        after = Counts.of(task, found)
        changes = after.changes_from(before, task.block)
        strength = f"{model.learning_.strength:g}" if hasattr(model, "learning_") else ""
        yield (
            f"| {name} | {after.mean():.2f} | {changes[0]} | {after.boundary_mean():.2f} | "
            f"{changes[1]} | {strength} | {fitted - start:.0f} | "
            f"{(done - fitted) / len(task.test):.2f} |"
        )


@dataclass(frozen=True, eq=False)
class Counts:
    """What scores are computed from, for each image.

    Attributes
    ----------
    tables : ndarray, (n, L, L + 1)
        Confusion tables.
    boundaries : ndarray, (n, L)
        Boundary IoU of each class; NaN where the image lacks the class.
    """

    tables: NDArray[np.int64]
    boundaries: NDArray[np.float64]

    @classmethod
    def of(cls, task: Task, found: Sequence[NDArray[Any]]) -> Counts:
        """Count the labels of predictions."""
        pairs = list(zip(task.test_truth, found, strict=True))
        bands = [
            boundary_iou_per_class(truth, labels, dilation_ratio=BAND, labels=range(task.n_labels))
            for truth, labels in pairs
        ]
        return cls(image_tables(pairs, task.n_labels), np.stack(bands))

    def mean(self) -> float:
        """Return the mean IoU of all images together, in points."""
        return 100 * float(np.nanmean(iou_of(self.tables.sum(axis=0))))

    def boundary_mean(self) -> float:
        """Return the mean over classes of the mean over images of boundary IoU, in points."""
        return 100 * float(np.nanmean(np.nanmean(self.boundaries, axis=0)))

    def changes_from(self, before: Counts, block: int) -> list[str]:
        """Return the changes of both scores with their intervals."""
        weights = resample_weights(len(self.tables), N_RESAMPLES, block, 0)
        drawn = [
            after - first
            for after, first in zip(self._scores(weights), before._scores(weights), strict=True)
        ]
        exact = self.mean() - before.mean(), self.boundary_mean() - before.boundary_mean()
        tail = 50 * (1 - CONFIDENCE)
        ends = [np.nanpercentile(values, [tail, 100 - tail]) for values in drawn]
        return [
            f"{value:+.2f} ({low:+.2f} to {high:+.2f})"
            for value, (low, high) in zip(exact, ends, strict=True)
        ]

    def _scores(self, weights: NDArray[np.float64]) -> tuple[Any, Any]:
        """Return both scores of each resample."""
        flat = weights @ self.tables.reshape(len(self.tables), -1)
        tables = flat.reshape(len(weights), *self.tables.shape[1:])
        known = np.isfinite(self.boundaries)
        with np.errstate(invalid="ignore"):
            sums = weights @ np.where(known, self.boundaries, 0) / (weights @ known)
        return 100 * np.nanmean(iou_of(tables), axis=-1), 100 * np.nanmean(sums, axis=-1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a table for each set."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks boundary", description=__doc__)
    parser.add_argument("--sets", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--cache", type=Path, default=CACHE, help="where costs are kept")
    parser.add_argument("--quick", action="store_true", help="few images and steps, for a trial")
    options = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(1)
    for name in options.sets:
        task = TASKS[name](data_folder(), options.cache)
        if options.quick:
            task = task.fewer(4)
        print(f"\n{name}: {len(task.train)} images to learn from, {len(task.test)} scored\n")
        for line in rows(task, options.quick):
            print(line, flush=True)
