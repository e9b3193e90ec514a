"""Superpixels compared with human segmentations, at equal numbers of regions.

The images are those of BSDS500 under the directory that HYBRIDSEG_DATA names: the settings of
each peer are chosen on validation images, and the figures are of the test images. Without the
images, only times are measured. Each method is asked for more and more regions; scores at 200, 400
and 800 are interpolated between the returned counts (linear in the logarithm of the count).

    HYBRIDSEG_DATA=... python -m benchmarks kernels --only superpixel_quality
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from skimage.color import rgb2gray
from skimage.filters import sobel
from skimage.segmentation import slic as skimage_slic
from skimage.segmentation import watershed

from benchmarks.kernels.racing import Row, Setting, peer, photo, race, size_name, threads
from hybridseg.features import etps, slic
from hybridseg.metrics import achievable_accuracy, boundary_recall, undersegmentation_error

TARGETS = (200, 400, 800)
Method = Callable[[np.ndarray, int], np.ndarray]


class Scores(NamedTuple):
    """Means over the annotators of an image, then over the images."""

    count: float
    recall: float
    leaking: float
    accuracy: float


class Drawn(NamedTuple):
    image: np.ndarray
    truths: list[np.ndarray]


def rows(setting: Setting) -> Iterator[Row]:
    """One row for each peer and number of regions, on one thread."""
    directory = os.environ.get("HYBRIDSEG_DATA")
    images: list[Drawn] = []
    chosen = {name: next(iter(settings)) for name, settings in _peers().items()}
    if directory:
        bsds = Path(directory) / "bsds500"
        tuning = [_load(bsds, name) for name in _names(bsds, "val")[::8]]
        chosen = {name: _choose(name, s, tuning) for name, s in _peers().items()}
        images = [_load(bsds, name) for name in _names(bsds, "test")[:: 8 if setting.quick else 1]]
    else:
        print("# HYBRIDSEG_DATA is not set: times only, no scores")
    methods = {name: _peers()[name][text] for name, text in chosen.items()}
    curves = {name: _curve(method, images) for name, method in {"ours": etps, **methods}.items()}
    image = photo("coffee", setting.sizes[0])
    for n_regions in TARGETS:
        with threads(1):
            calls = {name: partial(m, image, n_regions) for name, m in methods.items()}
            timings = race({"ours": partial(etps, image, n_regions), **calls}, setting.seconds)
        for name in methods:
            yield Row(
                kernel="ETPS",
                case=f"{n_regions} regions",
                size=size_name(setting.sizes[0]),
                threads=1,
                peer=f"{name} ({chosen[name]})" if chosen[name] else name,
                ours_s=timings["ours"].best_s,
                peer_s=timings[name].best_s,
                ours_first_s=timings["ours"].first_s,
                agreement=_beside(curves["ours"], curves[name], n_regions, len(images)),
            )


def _beside(
    ours: Sequence[Scores], theirs: Sequence[Scores], n_regions: int, n_images: int
) -> dict[str, float | int]:
    if not n_images:
        return {}
    mine, other = _at(ours, n_regions), _at(theirs, n_regions)
    return {
        "ours_Rec": mine.recall,
        "peer_Rec": other.recall,
        "ours_UE": mine.leaking,
        "peer_UE": other.leaking,
        "ours_ASA": mine.accuracy,
        "peer_ASA": other.accuracy,
        "images": n_images,
    }


def _choose(name: str, settings: dict[str, Method], images: list[Drawn]) -> str:
    """Return the setting with the best recall minus error at 400 regions, and print all."""
    if len(settings) == 1:
        return next(iter(settings))
    found = {}
    for text, method in settings.items():
        found[text] = _at(_curve(method, images, around=400), 400)
        print(f"#   {name}, {text}: Rec {found[text].recall:.4f} UE {found[text].leaking:.4f}")
    return max(found, key=lambda text: found[text].recall - found[text].leaking)


def _curve(method: Method, images: list[Drawn], around: int | None = None) -> list[Scores]:
    """Return scores for rising numbers of regions, from below to above all targets."""
    low, high = (around, around) if around else (min(TARGETS), max(TARGETS))
    found: list[Scores] = []
    asked = float(low)
    while images and asked < 16 * high and (not found or found[-1].count < high):
        found.append(_scores(method, images, round(asked)))
        asked *= math.sqrt(2)
    asked = low / math.sqrt(2)
    while images and min(s.count for s in found) > low and asked > low / 8:
        found.append(_scores(method, images, round(asked)))
        asked /= math.sqrt(2)
    return sorted(found)


def _at(curve: Sequence[Scores], n_regions: int) -> Scores:
    """Return the scores at a number of regions; NaN if the method never came near it."""
    counts = np.log([scores.count for scores in curve])
    if not counts[0] - 0.02 <= math.log(n_regions) <= counts[-1] + 0.02:
        return Scores(n_regions, math.nan, math.nan, math.nan)
    values = [np.interp(math.log(n_regions), counts, v) for v in list(zip(*curve, strict=True))[1:]]
    return Scores(n_regions, *map(float, values))


def _scores(method: Method, images: list[Drawn], asked: int) -> Scores:
    return Scores(*np.mean([_score(method(p.image, asked), p.truths) for p in images], axis=0))


def _score(regions: np.ndarray, truths: list[np.ndarray]) -> Scores:
    regions = np.unique(regions, return_inverse=True)[1].reshape(regions.shape)
    measures = (boundary_recall, undersegmentation_error, achievable_accuracy)
    means = (np.mean([measure(truth, regions) for truth in truths]) for measure in measures)
    return Scores(int(regions.max()) + 1, *map(float, means))


def _names(bsds: Path, part: str) -> list[str]:
    return (bsds / f"{part}.txt").read_text().split()


def _load(bsds: Path, name: str) -> Drawn:
    with Image.open(bsds / "images" / f"{name}.jpg") as file:
        image = np.asarray(file.convert("RGB"))
    truths = [
        np.asarray(Image.open(path)).astype(np.int64)
        for path in sorted((bsds / "labels_all").glob(f"{name}_*.png"))
    ]
    return Drawn(image, truths)


@cache
def _peers() -> dict[str, dict[str, Method]]:
    """{peer: {setting: method}} of the peers that are installed; the first setting is usual."""

    def several(method: Any, name: str, values: Sequence[float]) -> dict[str, Method]:
        return {f"{name} {v:g}": partial(method, **{name: v}) for v in values}

    peers: dict[str, dict[str, Method]] = {
        "hybridseg SLIC": several(slic, "compactness", (10, 5, 3, 7, 15)),
        "scikit-image SLIC": several(_skimage_slic, "compactness", (10, 5, 15, 20)),
        "compact watershed": several(_watershed, "compactness", (1e-3, 1e-4, 3e-4, 3e-3, 0)),
    }
    if peer("fast_slic") is not None:
        peers["fast-slic"] = several(_fast_slic, "compactness", (10, 5, 15, 20))
    opencv = peer("cv2")
    if opencv is not None and hasattr(opencv, "ximgproc"):
        peers["OpenCV SEEDS"] = {
            f"{bins} bins, prior {prior}": partial(_seeds, bins=bins, prior=prior)
            for bins in (5, 10, 15)
            for prior in (2, 1, 0)
        }
        peers["OpenCV LSC"] = several(_lsc, "ratio", (0.075, 0.01, 0.02, 0.03, 0.05))
        peers["OpenCV SLIC"] = several(_opencv_slic, "ruler", (10, 5, 20, 30))
        peers["OpenCV SLICO"] = {"": partial(_opencv_slic, variant="SLICO", ruler=10)}
    return peers


def _skimage_slic(image: np.ndarray, n_regions: int, compactness: float) -> np.ndarray:
    return skimage_slic(image, n_regions, compactness, start_label=0)


def _watershed(image: np.ndarray, n_regions: int, compactness: float) -> np.ndarray:
    return watershed(sobel(rgb2gray(image)), markers=n_regions, compactness=compactness)


def _fast_slic(image: np.ndarray, n_regions: int, compactness: float) -> np.ndarray:
    method = peer("fast_slic").Slic(num_components=n_regions, compactness=compactness)  # type: ignore[union-attr]
    return method.iterate(np.ascontiguousarray(image))


def _seeds(image: np.ndarray, n_regions: int, bins: int, prior: int) -> np.ndarray:
    cv2: Any = peer("cv2")
    height, width = image.shape[:2]
    method = cv2.ximgproc.createSuperpixelSEEDS(width, height, 3, n_regions, 4, prior, bins, False)
    method.iterate(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), 10)
    return method.getLabels()


def _lsc(image: np.ndarray, n_regions: int, ratio: float) -> np.ndarray:
    cv2: Any = peer("cv2")
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    return _finished(cv2.ximgproc.createSuperpixelLSC(lab, _side(image, n_regions), ratio))


def _opencv_slic(
    image: np.ndarray, n_regions: int, ruler: float, variant: str = "SLIC"
) -> np.ndarray:
    cv2: Any = peer("cv2")
    lab = cv2.cvtColor(cv2.GaussianBlur(image, (3, 3), 0), cv2.COLOR_RGB2LAB)  # as its manual asks
    kind = getattr(cv2.ximgproc, variant)
    side = _side(image, n_regions)
    return _finished(cv2.ximgproc.createSuperpixelSLIC(lab, kind, side, float(ruler)))


def _finished(method: Any) -> np.ndarray:
    method.iterate(10)
    method.enforceLabelConnectivity(25)
    return method.getLabels()


def _side(image: np.ndarray, n_regions: int) -> int:
    return max(2, round(math.sqrt(image.shape[0] * image.shape[1] / n_regions)))
