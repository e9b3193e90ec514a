"""The protocol of all comparisons: fit, compute costs once, apply every refiner, score, time."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from skimage.transform import resize
from sklearn.base import clone

from hybridseg.metrics import boundary_iou, mean_iou
from hybridseg.report import Row
from hybridseg.report.images import nearest
from hybridseg.scene.scene import Scene


class Samples(NamedTuple):
    """Images and their label maps, which have the same shapes; negative labels are void."""

    names: list[str]
    images: list[NDArray[Any]]
    labels: list[NDArray[Any]]


class Outcome(NamedTuple):
    """One method's segmentation of one image, and its times in seconds."""

    refiner: str
    labels: NDArray[Any]
    costs_seconds: float
    refine_seconds: float


class Results(NamedTuple):
    """The rows over all test images, and the rows and predictions of each image in the report."""

    rows: tuple[Row, ...]
    image_rows: list[list[Row]]
    predictions: list[list[NDArray[Any]]]


def evaluate(
    segmenters: Mapping[str, Any],
    refiners: Mapping[str, Any],
    train: Samples,
    test: Samples,
    *,
    max_side: int | None = None,
    n_shown: int | None = None,
    advance: Callable[[str], None] = lambda unary: None,  # noqa: ARG005
) -> Results:
    """Fit every segmenter, apply every refiner to its costs, and score the results.

    Parameters
    ----------
    segmenters, refiners : mapping from str to estimator
        Not fitted; each segmenter is run alone and with each refiner.
    train, test : Samples
        The images for training and for scores.
    max_side : int, optional
        Images with a longer side are first scaled down to it, for all methods. Predictions are
        scaled to the original shape by the nearest pixel before they are scored.
    n_shown : int, optional
        The number of test images whose predictions are kept. None: all.
    advance : callable
        ``advance(unary)``, called after each training and after each test image.

    Returns
    -------
    Results
        Rows over all test images together, whose seconds are sums, and rows of each image.
    """
    n_kept = len(test.names) if n_shown is None else min(n_shown, len(test.names))
    rows: list[Row] = []
    image_rows: list[list[Row]] = [[] for _ in range(n_kept)]
    predictions: list[list[NDArray[Any]]] = [[] for _ in range(n_kept)]
    small = [shrunk(*pair, max_side) for pair in zip(train.images, train.labels, strict=True)]
    small_tests = [shrunk(image, None, max_side)[0] for image in test.images]
    for unary, segmenter in segmenters.items():
        start = time.perf_counter()
        fitted = clone(segmenter).fit([image for image, _ in small], [drawn for _, drawn in small])
        fit_seconds = time.perf_counter() - start
        advance(unary)
        by_image = []
        for image, labels in zip(small_tests, test.labels, strict=True):
            by_image.append(refine_all(fitted, image, refiners, labels.shape))
            advance(unary)
        for outcomes in zip(*by_image, strict=True):
            rows.append(_row(unary, fit_seconds, test.labels, outcomes))
            for i in range(n_kept):
                image_rows[i].append(
                    _row(unary, fit_seconds, test.labels[i : i + 1], outcomes[i : i + 1])
                )
                predictions[i].append(outcomes[i].labels)
    return Results(tuple(rows), image_rows, predictions)


def refine_all(
    segmenter: Any,
    image: NDArray[Any],
    refiners: Mapping[str, Any],
    shape: tuple[int, ...] | None = None,
) -> list[Outcome]:
    """Segment one image with a fitted segmenter, alone and with each refiner.

    The costs are computed once, and all refiners use them.

    Parameters
    ----------
    segmenter : fitted segmenter
    image : ndarray, (H, W[, C])
    refiners : mapping from str to refiner
    shape : tuple of int, optional
        The shape to which labels are scaled, by the nearest pixel. Default: the image's.

    Returns
    -------
    list of Outcome
        One of the segmenter alone, whose ``refiner`` is "", then one for each refiner.
    """
    start = time.perf_counter()
    scene = _with_computed_costs(segmenter.transform([image])[0])
    labels = scene.prediction
    costs_seconds = time.perf_counter() - start
    shape = shape or image.shape[:2]
    outcomes = [_outcome("", labels, shape, costs_seconds, 0.0)]
    for name, refiner in refiners.items():
        start = time.perf_counter()
        labels = refiner.transform([scene])[0].prediction
        seconds = time.perf_counter() - start
        outcomes.append(_outcome(name, labels, shape, costs_seconds, seconds))
    return outcomes


def _with_computed_costs(scene: Scene) -> Scene:
    regions = scene.region_costs
    return scene.replace(unary=scene.unary if regions is None else regions)


def _outcome(
    refiner: str, labels: NDArray[Any], shape: tuple[int, ...], costs: float, refine: float
) -> Outcome:
    full = labels if labels.shape == shape else nearest(labels, shape)
    return Outcome(refiner, full.astype(np.int32), costs, refine)


def shrunk(
    image: NDArray[Any], labels: NDArray[Any] | None, max_side: int | None
) -> tuple[NDArray[Any], Any]:
    """Scale down an image and its labels so that no side is longer than ``max_side``.

    Parameters
    ----------
    image : ndarray, (H, W[, C])
    labels : ndarray of int, (H, W), optional
    max_side : int, optional
        None returns both unchanged.

    Returns
    -------
    image, labels : ndarray
        The image is smoothed before sampling and keeps its dtype; labels are of the nearest pixel.
    """
    shape = shrunk_shape(image.shape[:2], max_side)
    if shape == image.shape[:2]:
        return image, labels
    scaled = resize(image, shape, anti_aliasing=True, preserve_range=True)
    if image.dtype.kind in "iu":
        scaled = np.rint(scaled)
    return scaled.astype(image.dtype), None if labels is None else nearest(labels, shape)


def shrunk_shape(shape: tuple[int, ...], max_side: int | None) -> tuple[int, ...]:
    """A shape with the proportions of ``shape`` and no side longer than ``max_side``."""
    longest = max(shape)
    if max_side is None or longest <= max_side:
        return shape
    return tuple(max(1, round(side * max_side / longest)) for side in shape)


def _row(
    unary: str,
    fit_seconds: float,
    truth: Sequence[NDArray[Any]],
    outcomes: Sequence[Outcome],
) -> Row:
    found = [outcome.labels for outcome in outcomes]
    return Row(
        unary=unary,
        refiner=outcomes[0].refiner,
        mean_iou=mean_iou(truth, found),
        boundary_iou=boundary_iou(truth, found),
        fit_seconds=fit_seconds,
        costs_seconds=sum(outcome.costs_seconds for outcome in outcomes),
        refine_seconds=sum(outcome.refine_seconds for outcome in outcomes),
    )


def environment() -> dict[str, str]:
    """The machine and the package versions, which times and scores depend on.

    Returns
    -------
    dict from str to str
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    packages = ("hybridseg", "numpy", "numba", "scikit-learn", "scikit-image", "torch", "skorch")
    return {
        "Machine": f"{platform.system()} on {platform.machine()}, {cores} cores for this process",
        "Python": platform.python_version(),
        **{name: _version(name) for name in packages},
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
