"""The data sets for training networks, and the folders of data and models."""

from __future__ import annotations

import os
from pathlib import Path

#: Module of each data set; its RECIPES are trained in turn, and its `score` tells how good one is.
SETS = {
    "camvid": "CamVid: street scenes, 11 classes",
    "isbi": "ISBI 2012: membranes in electron microscopy",
    "nuclei": "Data Science Bowl 2018: touching nuclei",
    "hippocampus": "Medical Segmentation Decathlon: hippocampus in MRI volumes",
}

MODELS = Path(".benchmarks/training")


def data_folder() -> Path:
    """Return the folder of the data sets."""
    folder = os.environ.get("HYBRIDSEG_DATA")
    if folder is None:
        raise SystemExit(f"set HYBRIDSEG_DATA to the folder that holds {', '.join(SETS)}.")
    return Path(folder)


def model_path(models: Path, name: str, key: str) -> Path:
    """Return the path of a trained model."""
    return models / f"{name}-{key}.hybridseg"
