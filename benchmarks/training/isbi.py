"""ISBI 2012: membranes in electron microscopy; trained on slices 0 to 19, tested on 20 to 29."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import adapted_rand_error, variation_of_information
from skimage.segmentation import watershed
from sklearn.pipeline import make_pipeline

from benchmarks.training.recipe import Recipe
from benchmarks.training.refining import best_refiner, described
from hybridseg import GraphCut
from hybridseg.datasets import load_folder
from hybridseg.metrics import boundary_iou, confusion_table
from hybridseg.unary import Augmentation

MEMBRANE, CELL = 0, 1

#: To choose from on training slices: strong smoothing wipes thin membranes out.
REFINERS = [GraphCut(weight=weight) for weight in (0.3, 1.0, 3.0, 10.0)]

#: The challenge tries such thresholds and keeps the best; so do we.
THRESHOLDS = np.linspace(0.1, 0.9, 17)

RECIPES = {
    "unet": Recipe(
        "U-Net, half as wide as the paper's",
        {
            "network": "unet",
            "network_options": {"width": 32},
            "max_epochs": 30,
            "crops_per_image": 4,
            "crop_size": 192,
            "batch_size": 4,
            "augment": Augmentation("dihedral", scale=(0.8, 1.25)),
            "precision": "bfloat16",
            "lr": 2e-3,
        },
    )
}


def training_data(data: Path) -> tuple[Any, Any]:
    found = load_folder(data / "isbi2012_em", "train")
    return found.X, found.y


def score(model: Any, data: Path) -> dict[str, Any]:
    """Return scores of pixels and of the cells between membranes on the test slices."""
    test = load_folder(data / "isbi2012_em", "test")
    truths = [np.asarray(truth) for truth in test.y]
    found = model.predict_proba(test.X)
    scores = [
        np.mean(
            [
                _cells_found(truth, np.asarray(proba)[..., MEMBRANE], threshold)
                for truth, proba in zip(truths, found, strict=True)
            ],
            axis=0,
        )
        for threshold in THRESHOLDS
    ]
    refiner = best_refiner(REFINERS, model, *(part[:5] for part in training_data(data)))
    rand, split, merged = min(scores, key=lambda row: row[0])
    return {
        "classes": test.classes,
        "test": _pixels(model, test.X, truths),
        "refiner": described(refiner),
        "test, GraphCut": _pixels(make_pipeline(model, refiner), test.X, truths),
        "adapted_rand_error": round(float(rand), 4),
        "variation_of_information": [round(float(split), 3), round(float(merged), 3)],
        "published": {"U-Net on the challenge's own test slices, Rand error": 0.0382},
    }


def _pixels(model: Any, X: Any, truths: list[NDArray[Any]]) -> dict[str, Any]:
    found = model.predict(X)
    table = sum(confusion_table(*pair) for pair in zip(truths, found, strict=True))
    edges = [boundary_iou(*pair) for pair in zip(truths, found, strict=True)]
    return {
        "mean_iou": round(100 * table.mean_iou(), 2),
        "pixel_accuracy": round(100 * table.pixel_accuracy, 2),
        "iou": [round(100 * float(value), 1) for value in table.iou],
        "boundary_iou": round(100 * float(np.mean(edges)), 2),
    }


def _cells_found(
    truth: NDArray[Any], membrane: NDArray[Any], threshold: float
) -> tuple[float, float, float]:
    """Rand error inside the true cells, and the entropies of false splits and of false merges.

    Cells are the connected parts with little membrane, grown until they meet.
    """
    parts, _ = ndimage.label(membrane < threshold)
    cells = watershed(membrane, parts)
    true_cells, _ = ndimage.label(truth == CELL)
    error, _, _ = adapted_rand_error(true_cells, cells, ignore_labels=(0,))
    return float(error), *variation_of_information(true_cells, cells, ignore_labels=(0,))
