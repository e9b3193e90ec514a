"""Hippocampus of the Medical Segmentation Decathlon: 80 MRI volumes to train on, 20 for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import make_pipeline

from benchmarks.training.recipe import Recipe
from benchmarks.training.refining import best_refiner, described
from hybridseg import DenseCRF
from hybridseg.datasets import load_folder, read_image
from hybridseg.losses import CrossEntropy, SoftDice
from hybridseg.metrics import confusion_table
from hybridseg.unary import Augmentation

#: To choose from on training volumes.
REFINERS = [
    DenseCRF(
        spatial_weight=1,
        spatial_width=1,
        bilateral_weight=weight,
        bilateral_width=width,
        bilateral_color=13.0,
    )
    for weight in (0.5, 2.0)
    for width in (2.0, 5.0)
]

RECIPES = {
    "vnet": Recipe(
        "V-Net, four stages, half as wide as the paper's, batch normalized",
        {
            "network": "vnet",
            "network_options": {"width": 8, "convs": (1, 2, 2, 2), "batch_norm": True},
            "max_epochs": 30,
            "crops_per_image": 1,
            "crop_size": (32, 48, 32),
            "batch_size": 4,
            # mirrored, a left hippocampus is a right one; the other axes have ends of their own
            "augment": Augmentation("upright", scale=(0.9, 1.1)),
            "loss": CrossEntropy() + SoftDice(),
            "intensity_range": "image",
            "lr": 3e-3,
        },
    )
}


def training_data(data: Path) -> tuple[Any, Any]:
    return _read(data, "train")


def score(model: Any, data: Path) -> dict[str, Any]:
    """Dice of the two parts on the test volumes, the mean over volumes as in the decathlon."""
    X, y = _read(data, "test")
    refiner = best_refiner(REFINERS, model, *(part[::5] for part in training_data(data)))
    return {
        "classes": ["background", "anterior", "posterior"],
        "test": _scores(model, X, y),
        "refiner": described(refiner),
        "test, DenseCRF": _scores(make_pipeline(model, refiner), X, y),
    }


def _read(data: Path, split: str) -> tuple[Any, Any]:
    listed = load_folder(data / "msd_hippocampus", split)
    return [read_image(path)[..., np.newaxis] for path in listed.X], listed.y


def _scores(model: Any, X: Any, y: Any) -> dict[str, Any]:
    dice = []
    for volume, truth in zip(X, y, strict=True):
        found = model.predict([volume])[0]
        dice.append(confusion_table(np.asarray(truth), found, labels=range(3)).dice)
    mean, spread = np.nanmean(dice, axis=0), np.nanstd(dice, axis=0)
    return {
        "dice": [round(100 * float(value), 1) for value in mean],
        "dice_deviation": [round(100 * float(value), 1) for value in spread],
    }
