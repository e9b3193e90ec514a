"""Damaged and malicious model files, loaded and used in child processes.

Each file is changed in one way; its checksums are recomputed if the change is meant to pass them.
A child process with bounded memory and time then loads the file and predicts with the model.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.file_changes import CHANGES, NothingToChange
from benchmarks.reliability.tables import Table

#: The memory in bytes that a child may add to its memory at the start, and its time in seconds.
MEMORY, SECONDS = 1 << 30, 60.0
OUTCOMES = ("refused", "predicts alike", "predicts otherwise", "failed")
TEXT = """
Files of a pixel forest, of gradient boosting by trees and by histograms, of nearest neighbors, of
support vectors, of a pipeline and of a network were changed in one way each. A child process
with one GiB of additional memory and 60 seconds loaded the file and segmented an image. *Refused*:
`hybridseg.load` raised a ValueError or TypeError with the file's name, as documented. *Predicts
alike*: the same probabilities, bit for bit. *Predicts otherwise*: other probabilities, finite and
with the sum one, for example because the value of a leaf changed. *Failed*: a signal, no end within
the time, an error of another type, too much memory, or invalid probabilities.
"""


def measure(seconds: float, seed: int) -> list[Table]:
    """Change files for ``seconds`` and count the outcomes."""
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as directory:
        files = write_models(Path(directory))
        counts = run(files, rng, Path(directory), seconds=seconds)
    rows = tuple((kind, *(counts[kind, outcome] for outcome in OUTCOMES)) for kind in CHANGES)
    total = [sum(row[i] for row in rows) for i in range(1, 1 + len(OUTCOMES))]
    return [
        Table("Model files", TEXT, ("change", *OUTCOMES), (*rows, ("all", *total))),
    ]


def write_models(directory: Path) -> dict[str, Path]:
    """Write one small file of each kind of model; return the paths by name."""
    from sklearn.ensemble import (
        GradientBoostingClassifier,
        HistGradientBoostingClassifier,
        RandomForestClassifier,
    )
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import KBinsDiscretizer, StandardScaler
    from sklearn.svm import SVC

    import hybridseg
    from hybridseg import DeepSegmenter, DenseCRF, PixelClassifier, SuperpixelClassifier
    from hybridseg.features import PixelFeatures

    images, labels = small_images()
    features = PixelFeatures(sigmas=(1.0,))
    classifiers = {
        "forest": RandomForestClassifier(4, random_state=0),
        "boosting": GradientBoostingClassifier(n_estimators=2, random_state=0),
        "histograms": make_pipeline(
            KBinsDiscretizer(5, encode="ordinal", quantile_method="averaged_inverted_cdf"),
            HistGradientBoostingClassifier(max_iter=2, categorical_features=[0], random_state=0),
        ),
        "neighbors": KNeighborsClassifier(algorithm="kd_tree"),
        "support vectors": SVC(probability=True, random_state=0),
        "scaled": make_pipeline(StandardScaler(), MLPClassifier((8,), max_iter=5, random_state=0)),
    }
    models: dict[str, Any] = {
        name: PixelClassifier(classifier, features=features, max_samples=150, random_state=0)
        for name, classifier in classifiers.items()
    }
    models["pipeline"] = make_pipeline(
        SuperpixelClassifier(RandomForestClassifier(4, random_state=0), random_state=0),
        DenseCRF(n_iter=2),
    )
    models["network"] = DeepSegmenter(
        "unet",
        network_options={"width": 4, "depth": 1},
        max_epochs=1,
        random_state=0,
        device="cpu",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            name: hybridseg.save(model.fit(images, labels), directory / f"{name}.hybridseg")
            for name, model in models.items()
        }


def small_images() -> tuple[list[Any], list[Any]]:
    """Two small images and their label maps."""
    rng = np.random.default_rng(0)
    labels = np.repeat([[0, 1, 2]], 8, axis=1).repeat(20, axis=0)
    images = [
        np.uint8(np.clip(60 + 60 * labels[..., None] + rng.normal(0, 20, (20, 24, 3)), 0, 255))
        for _ in range(2)
    ]
    return images, [labels, labels]


def run(
    files: dict[str, Path],
    rng: np.random.Generator,
    directory: Path,
    *,
    seconds: float,
    at_most: int | None = None,
) -> Counter[tuple[str, str]]:
    """Count outcomes by kind of change; print failures, and keep their files in the directory."""
    counts: Counter[tuple[str, str]] = Counter()
    end, n_done = time.monotonic() + seconds, 0
    with Child(files) as child:
        while time.monotonic() < end and (at_most is None or n_done < at_most):
            kind = list(CHANGES)[n_done % len(CHANGES)]
            name = str(rng.choice(list(files)))
            n_done += 1
            path = directory / f"changed-{n_done}.hybridseg"
            try:
                content = CHANGES[kind](files[name].read_bytes(), rng)
            except NothingToChange:
                continue
            path.write_bytes(content)
            outcome, said = child.ask(name, path)
            counts[kind, outcome] += 1
            if outcome == "failed":
                print(f"failed: {kind}, {name}: {said} ({path.name})", flush=True)
            else:
                path.unlink()
    return counts


class Child:
    """A process that loads and predicts; it is started again if it dies."""

    def __init__(self, files: dict[str, Path]) -> None:
        self.files = files
        self.context = multiprocessing.get_context("spawn")

    def __enter__(self) -> Child:
        self._start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.join()

    def _start(self) -> None:
        self.pipe, theirs = self.context.Pipe()
        self.process = self.context.Process(target=_serve, args=(theirs, self.files), daemon=True)
        self.process.start()
        theirs.close()
        self.pipe.recv()

    def ask(self, name: str, path: Path) -> tuple[str, str]:
        """Return the outcome of a file and the cause of a failure."""
        self.pipe.send((name, path))
        try:
            if self.pipe.poll(SECONDS):
                outcome, said = self.pipe.recv()
                return outcome, said
            found = "no end"
        except (EOFError, ConnectionError):
            self.process.join()
            found = f"ended by {self.process.exitcode}"
        self.process.kill()
        self.process.join()
        self._start()
        return "failed", found


def _serve(pipe: Any, files: dict[str, Path]) -> None:
    """Load the named files and predict with them until the pipe ends."""
    import hybridseg

    warnings.simplefilter("ignore")
    image = small_images()[0][:1]
    before = {name: hybridseg.load(path).predict_proba(image)[0] for name, path in files.items()}
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    pipe.send(None)
    while True:
        name, path = pipe.recv()
        pipe.send(_outcome(before[name], path, image))


def _outcome(before: Any, path: Path, image: list[Any]) -> tuple[str, str]:
    import hybridseg

    try:
        model = hybridseg.load(path)
    except (ValueError, TypeError) as error:
        if path.name in str(error):
            return "refused", ""
        return "failed", f"no file named: {error!r}"
    except BaseException as error:
        return "failed", f"load: {error!r}"
    try:
        found = model.predict_proba(image)[0]
    except BaseException as error:
        return "failed", f"predict: {type(error).__name__}: {str(error)[:200]}"
    if found.shape == before.shape and np.array_equal(found, before):
        return "predicts alike", ""
    if not np.isfinite(found).all() or not np.allclose(found.sum(-1), 1, atol=1e-3):
        return "failed", "probabilities that are none"
    return "predicts otherwise", ""
