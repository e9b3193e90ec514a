"""The costs of the published ESPNet on CamVid, kept in files and read by memory mapping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridseg import Scene
from hybridseg.datasets import load_folder

#: The official lists, and the step through each: methods are chosen on val and scored on test.
STEPS = {"val": 1, "test": 2}


@dataclass(frozen=True)
class Part:
    """Images with costs and truth; costs and label maps are read from files on each access.

    Attributes
    ----------
    names, classes : list of str
        Of the images and of the labels 0..L-1.
    scenes : list of Scene
    truths : list
        Label maps, as anything that ``np.asarray`` reads; -1 is void.
    """

    names: list[str]
    classes: list[str]
    scenes: list[Scene]
    truths: list[Any]

    def spread(self, n_images: int) -> Part:
        """Return at most ``n_images``, at equal distances from the first to the last."""
        last, n_kept = len(self.names) - 1, min(n_images, len(self.names))
        kept = np.linspace(0, last, n_kept).round().astype(int).tolist()
        return Part(
            [self.names[i] for i in kept],
            self.classes,
            [self.scenes[i] for i in kept],
            [self.truths[i] for i in kept],
        )

    def truth(self, i: int) -> NDArray[Any]:
        return np.asarray(self.truths[i])


def camvid(data: Path, cache: Path) -> dict[str, Part]:
    """Return val and test with the costs of ESPNet, which are made where ``cache`` lacks them."""
    return {split: _part(data, cache, split, step) for split, step in STEPS.items()}


def _part(data: Path, cache: Path, split: str, step: int) -> Part:
    listed = load_folder(data / "camvid", split)
    names, images = listed.names[::step], listed.X[::step]
    folder = cache / "camvid-espnet" / split
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.npy" for name in names]
    _make(data, images, files)
    classes = np.arange(len(listed.classes))
    scenes = [
        Scene(image, str(file), classes=classes, spatial_ndim=2)
        for image, file in zip(images, files, strict=True)
    ]
    return Part(names, list(listed.classes), scenes, list(listed.y[::step]))


def _make(data: Path, images: Sequence[Any], files: Sequence[Path]) -> None:
    """Write the costs of each image whose file is missing."""
    missing = [
        (image, file) for image, file in zip(images, files, strict=True) if not file.exists()
    ]
    if missing:
        from benchmarks.pretrained import camvid_espnet

        model = camvid_espnet(data)
        for image, file in missing:
            model.transform([image])[0].store_costs(file)
