"""The costs of networks on CamVid, kept in files and read by memory mapping."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.training.places import model_path
from hybridseg import Scene, load
from hybridseg.datasets import load_folder
from hybridseg.scene.costs import costs_from_logits

#: The official lists, and the step through each: methods are chosen on val and scored on test.
STEPS = {"val": 1, "test": 2}
#: The side of the blocks whose logits are averaged to make coarse costs.
STRIDE = 16


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


def camvid(data: Path, cache: Path, unary: str, models: Path) -> dict[str, Part]:
    """Return val and test with the costs of a network, which are made where ``cache`` lacks them.

    Parameters
    ----------
    data, cache : Path
    unary : str
        One of `UNARIES`.
    models : Path
        The folder of the models that ``python -m benchmarks training`` makes.
    """
    return {
        split: _part(data, cache, split, step, UNARIES[unary], models)
        for split, step in STEPS.items()
    }


def _part(data: Path, cache: Path, split: str, step: int, unary: Unary, models: Path) -> Part:
    listed = load_folder(data / "camvid", split)
    names, images = listed.names[::step], listed.X[::step]
    folder = cache / f"camvid-{unary.key}" / split
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.npy" for name in names]
    _make(unary, data, models, images, files)
    classes = np.arange(len(listed.classes))
    scenes = [
        Scene(image, str(file), classes=classes, spatial_ndim=2)
        for image, file in zip(images, files, strict=True)
    ]
    return Part(names, list(listed.classes), scenes, list(listed.y[::step]))


def _make(
    unary: Unary, data: Path, models: Path, images: Sequence[Any], files: Sequence[Path]
) -> None:
    """Write the costs of each image whose file is missing."""
    missing = [
        (image, file) for image, file in zip(images, files, strict=True) if not file.exists()
    ]
    if missing:
        model = unary.model(data, models)
        for image, file in missing:
            scene = model.transform([image])[0]
            scene.replace(unary=unary.changed(np.asarray(scene.unary))).store_costs(file)


def _espnet(data: Path, models: Path) -> Any:  # noqa: ARG001
    from benchmarks.pretrained import camvid_espnet

    return camvid_espnet(data)


def _fpn(data: Path, models: Path) -> Any:  # noqa: ARG001
    path = model_path(models, "camvid", "pretrained")
    if not path.exists():
        raise SystemExit(
            f"{path} is missing: run `python -m benchmarks training camvid --only pretrained`."
        )
    return load(path)


def coarse(costs: NDArray[Any]) -> NDArray[np.float32]:
    """Return costs as a network with a stride of 16 would give them: means, interpolated."""
    height, width, n_labels = costs.shape
    logits = torch.from_numpy(-np.moveaxis(costs, -1, 0)[np.newaxis].astype(np.float32))
    blocks = torch.nn.functional.avg_pool2d(logits, STRIDE, ceil_mode=True)
    size = blocks.shape[-2] * STRIDE, blocks.shape[-1] * STRIDE
    wide = torch.nn.functional.interpolate(blocks, size, mode="bilinear", align_corners=False)
    found = np.moveaxis(wide[0, :, :height, :width].numpy(), 0, -1)
    assert found.shape == (height, width, n_labels)
    return costs_from_logits(found)


@dataclass(frozen=True)
class Unary:
    """A source of costs.

    Attributes
    ----------
    key : str
        The name of its folder.
    title : str
    model : callable
        ``model(data, models)`` returns the segmenter.
    changed : callable
        Changes the costs (H, W, L) of an image.
    """

    key: str
    title: str
    model: Callable[[Path, Path], Any]
    changed: Callable[[NDArray[Any]], NDArray[Any]] = np.asarray


UNARIES = {
    "espnet": Unary("espnet", "the published ESPNet", _espnet),
    "fpn": Unary("fpn", "FPN with EfficientNet-Lite0, trained on CamVid", _fpn),
    "coarse": Unary(
        "coarse",
        f"the published ESPNet with its logits averaged to a stride of {STRIDE}",
        _espnet,
        coarse,
    ),
}
