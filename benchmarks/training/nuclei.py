"""Data Science Bowl 2018: nuclei in many kinds of microscopy; 160 images, and 60 for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import linear_sum_assignment
from skimage.color import gray2rgb
from skimage.segmentation import find_boundaries, watershed
from sklearn.pipeline import make_pipeline

from benchmarks.training.recipe import Recipe
from benchmarks.training.refining import best_refiner, described
from hybridseg import DenseCRF
from hybridseg.datasets import load_folder, read_image
from hybridseg.losses import CrossEntropy, SoftDice
from hybridseg.metrics import confusion_table
from hybridseg.unary import Augmentation

#: Rims set touching nuclei apart.
BACKGROUND, INSIDE, RIM = 0, 1, 2

#: Smaller insides, in pixels, do not count as nuclei; chosen on training images.
SPECK = 16

#: Overlaps from which on a nucleus counts as found; the competition's mean is over all of them.
OVERLAPS = np.arange(0.5, 1.0, 0.05)

#: Candidates, scored on training images; strong smoothing removes rims.
REFINERS = [
    DenseCRF(
        spatial_weight=1,
        spatial_width=1,
        bilateral_weight=weight,
        bilateral_width=width,
        bilateral_color=13.0,
    )
    for weight in (0.5, 2.0)
    for width in (5.0, 20.0)
]

RECIPES = {
    "unet": Recipe(
        "U-Net, 24 channels wide, on inside, rim and background",
        {
            "network": "unet",
            "network_options": {"width": 24},
            "max_epochs": 20,
            "crops_per_image": 1,
            "crop_size": 192,
            "batch_size": 8,
            "augment": Augmentation("dihedral", scale=(0.6, 1.5)),
            "loss": CrossEntropy() + SoftDice(),
            "intensity_range": "image",
            "precision": "bfloat16",
            "lr": 3e-3,
        },
    )
}


def training_data(data: Path) -> tuple[Any, Any]:
    X, instances = _read(data, "train")
    return X, [_parts(found) for found in instances]


def score(model: Any, data: Path) -> dict[str, Any]:
    """Return scores of pixels and of single nuclei on the test images."""
    X, instances = _read(data, "test")
    refiner = best_refiner(REFINERS, model, *(part[::10] for part in training_data(data)))
    return {
        "test": _scores(model, X, instances),
        "refiner": described(refiner),
        "test, DenseCRF": _scores(make_pipeline(model, refiner), X, instances),
    }


def _read(data: Path, split: str) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Read images with three channels, and maps of the nucleus at each pixel."""
    folder = data / "dsb2018"
    listed = load_folder(folder, split)
    images = [read_image(path) for path in listed.X]
    instances = [read_image(folder / "instances" / f"{name}.png") for name in listed.names]
    return [gray2rgb(image) if image.ndim == 2 else image for image in images], instances


def _parts(instances: NDArray[Any]) -> NDArray[np.int64]:
    """Label map of background, insides and rims, which are one pixel wide and belong to nuclei."""
    rims = find_boundaries(instances, mode="inner")
    return np.where(rims, RIM, np.where(instances > 0, INSIDE, BACKGROUND))


def _nuclei(proba: NDArray[Any]) -> NDArray[Any]:
    """Number nuclei: connected insides, grown over the rims."""
    seeds, _ = ndimage.label(proba[..., INSIDE] > 0.5)
    specks = np.bincount(seeds.ravel()) < SPECK
    seeds[specks[seeds]] = 0
    return np.asarray(watershed(-proba[..., INSIDE], seeds, mask=proba[..., BACKGROUND] < 0.5))


def _scores(model: Any, X: Any, instances: list[NDArray[Any]]) -> dict[str, Any]:
    tables, precisions, counts = [], [], []
    for image, truth in zip(X, instances, strict=True):
        proba = np.asarray(model.predict_proba([image])[0])
        tables.append(confusion_table(truth > 0, proba.argmax(axis=-1) != BACKGROUND))
        nuclei = _nuclei(proba)
        precisions.append([_precision(truth, nuclei, overlap) for overlap in OVERLAPS])
        counts.append([len(np.setdiff1d(numbers, 0)) for numbers in (truth, nuclei)])
    table = sum(tables)
    by_overlap = np.mean(precisions, axis=0)
    return {
        "iou": round(100 * float(table.iou[1]), 2),
        "dice": round(100 * float(table.dice[1]), 2),
        "precision_at_0.5": round(100 * float(by_overlap[0]), 2),
        "precision_0.5_to_0.95": round(100 * float(by_overlap.mean()), 2),
        "nuclei": [int(total) for total in np.sum(counts, axis=0)],
    }


def _precision(truth: NDArray[Any], found: NDArray[Any], least: float) -> float:
    """TP / (TP + FP + FN) of nuclei that overlap by ``least`` or more, as in the competition."""
    pairs = np.zeros((int(truth.max()) + 1, int(found.max()) + 1), dtype=np.int64)
    np.add.at(pairs, (truth.astype(np.intp), found.astype(np.intp)), 1)
    sizes = pairs.sum(axis=1, keepdims=True) + pairs.sum(axis=0, keepdims=True)
    iou = (pairs / np.maximum(sizes - pairs, 1))[1:, 1:]
    iou = iou[(pairs.sum(axis=1) > 0)[1:]][
        :, (pairs.sum(axis=0) > 0)[1:]
    ]  # numbers without a pixel
    rows, columns = linear_sum_assignment(-np.where(iou >= least, iou, 0))
    hits = int(np.count_nonzero(iou[rows, columns] >= least))
    total = sum(iou.shape) - hits
    return hits / total if total else 1.0
