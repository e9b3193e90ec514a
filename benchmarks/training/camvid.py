"""CamVid: the official split, 367 training and 233 test images of 480 x 360, 11 classes."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.pipeline import make_pipeline

from benchmarks.training.recipe import Recipe
from benchmarks.training.refining import best_refiner, described
from hybridseg import DenseCRF
from hybridseg.datasets import load_folder
from hybridseg.losses import count_classes, log_frequency
from hybridseg.metrics import confusion_table
from hybridseg.unary import Augmentation

#: Candidates, scored on every fourth validation image; wide kernels swallow poles and pedestrians.
REFINERS = [
    DenseCRF(
        spatial_weight=3.0,
        spatial_width=3.0,
        bilateral_weight=weight,
        bilateral_width=width,
        bilateral_color=color,
    )
    for weight in (1.0, 3.0)
    for width in (10.0, 30.0)
    for color in (3.0, 5.0)
]

#: Mean IoU on the test list, by the papers.
PUBLISHED = {
    "SegNet (367 training images)": 46.4,
    "ENet": 51.3,
    "FCN-8s (SegNet's training)": 52.0,
    "ESPNet": 55.6,
    "DeepLab-LargeFOV": 61.6,
    "BiSeNet, ResNet-18 (960 x 720)": 68.7,
}


def weights_of_classes(y: Any) -> Any:
    """Class weights by ENet's rule, milder than in the paper, for short trainings."""
    return log_frequency(count_classes(y, range(11)), c=1.1)


def _recipe(title: str, *, half: int, full: int, **settings: Any) -> Recipe:
    """Train first at about half scale, where a crop shows most of the scene; then at full scale.

    Colors are augmented strongly: the test images show another time of day.
    """
    jitter = {"contrast": 0.3, "brightness": 0.4, "tint": 0.15}
    lr = settings["lr"]
    stages = (
        {
            "max_epochs": half,
            "crop_size": (176, 240),
            "augment": Augmentation(scale=(0.45, 1.1), **jitter),
        },
        {
            "max_epochs": full,
            "crop_size": (320, 400),
            "batch_size": 4,
            "lr": lr / 5,
            "augment": Augmentation(scale=(0.8, 1.25), **jitter),
        },
    )
    base = {"network": "fpn", "crops_per_image": 1, "batch_size": 8, **settings}
    return Recipe(title, base, stages, class_weight=weights_of_classes)


_NARROW = {"pyramid_channels": 64, "head_channels": 64}

RECIPES = {
    "scratch": _recipe(
        "FPN with ResNet-18, from scratch",
        half=80,
        full=6,
        network_options={"encoder": "resnet18", **_NARROW},
        precision="bfloat16",
        lr=3e-3,
    ),
    "pretrained": _recipe(
        "FPN with EfficientNet-Lite0, ImageNet weights",
        half=40,
        full=4,
        network_options={"encoder": "efficientnet_lite0", "weights": "DEFAULT", **_NARROW},
        encoder_lr_factor=0.3,
        lr=3e-3,
    ),
}


def training_data(data: Path) -> tuple[Any, Any]:
    found = load_folder(data / "camvid", "train")
    return found.X, found.y


def score(model: Any, data: Path) -> dict[str, Any]:
    """Scores on the validation and test lists, alone and after a dense CRF."""
    val, test = (load_folder(data / "camvid", split) for split in ("val", "test"))
    refiner = best_refiner(REFINERS, model, val.X[::4], val.y[::4])
    mirrored = copy.copy(model).set_params(tta="mirror")
    return {
        "published": PUBLISHED,
        "classes": test.classes,
        "val": _scores(model, val),
        "test": _scores(model, test),
        "test, mirrored too": _scores(mirrored, test),
        "refiner": described(refiner),
        "test, DenseCRF": _scores(make_pipeline(model, refiner), test),
    }


def _scores(model: Any, part: Any) -> dict[str, Any]:
    tables, start = [], time.perf_counter()
    for image, truth in zip(part.X, part.y, strict=True):
        tables.append(confusion_table(np.asarray(truth), model.predict([image])[0]))
    seconds = (time.perf_counter() - start) / len(tables)
    table = sum(tables)
    return {
        "mean_iou": round(100 * table.mean_iou(), 2),
        "pixel_accuracy": round(100 * table.pixel_accuracy, 2),
        "iou": [round(100 * float(value), 1) for value in table.iou],
        "seconds_per_image": round(seconds, 3),
    }
