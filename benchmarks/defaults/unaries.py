"""Costs from three kinds of models for every image, computed once and kept in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

from benchmarks.defaults.sets import ImageSet
from hybridseg.scene.costs import RegionCosts
from hybridseg.scene.scene import Scene
from hybridseg.unary import (
    DeepFeatures,
    DeepSegmenter,
    PixelClassifier,
    PretrainedSegmenter,
    SuperpixelClassifier,
)

#: Labeled pixels that a pixel classifier learns from, over all images together.
MAX_SAMPLES = 30_000


def models(name: str, image_set: ImageSet, data: Path, n_jobs: int) -> dict[str, Any]:
    """Three unfitted (or pretrained) segmenters for a set."""
    forest = RandomForestClassifier(60, min_samples_leaf=2, n_jobs=n_jobs)
    common = {"random_state": 0, "intensity_range": image_set.intensity_range}
    found: dict[str, Any] = {
        "pixel forest": PixelClassifier(forest, max_samples=MAX_SAMPLES, **common),
        "superpixel forest": SuperpixelClassifier(
            RandomForestClassifier(100, min_samples_leaf=2, n_jobs=n_jobs), **common
        ),
    }
    if name == "CamVid":
        from benchmarks.pretrained import camvid_espnet

        found["ESPNet"] = camvid_espnet(data)
    elif name == "VOC7":
        found["ESPNetv2"] = _espnetv2(data)
    elif name == "EM membranes":
        found["U-Net"] = DeepSegmenter(
            "unet",
            network_options={"width": 8, "depth": 3},
            max_epochs=10,
            crop_size=96,
            batch_size=4,
            crops_per_image=4,
            lr=5e-3,
            **common,
        )
    elif name == "hippocampus":
        boosted = HistGradientBoostingClassifier(max_iter=60)
        found["boosted trees"] = PixelClassifier(boosted, max_samples=MAX_SAMPLES, **common)
    else:
        found["deep-feature forest"] = PixelClassifier(
            forest, features=DeepFeatures(), max_samples=MAX_SAMPLES, **common
        )
    return found


def _espnetv2(data: Path) -> PretrainedSegmenter:
    from hybridseg.networks import ESPNetv2, adapt

    path = data / "weights/edgenets_espnetv2/espnetv2_s_2.0_pascal_384x384.pth"
    network = ESPNetv2(n_classes=21, scale=2.0, weights=path)
    return PretrainedSegmenter(adapt(network, **ESPNetv2.inputs["imagenet"]), range(21))


def scenes(
    folder: Path, set_name: str, unary: str, model: Any, image_set: ImageSet
) -> Iterator[tuple[Scene, NDArray[Any]]]:
    """Yield every scored image as a Scene with costs, and its truth; costs are kept in files."""
    fitted: Any = None
    for i, name in enumerate(image_set.names):
        path = folder / f"{set_name}-{unary}-{name}.npz".replace(" ", "_")
        if not path.exists():
            if image_set.own and not isinstance(model, PretrainedSegmenter):
                fitted = model.fit([image_set.images[i]], [image_set.drawn[i]])
            elif fitted is None:
                fitted = model
                if not isinstance(model, PretrainedSegmenter):
                    fitted = model.fit(image_set.train_images, image_set.train_labels)
            _keep(path, fitted.transform([image_set.images[i]])[0])
        yield _kept(path, image_set, i), image_set.truth[i]


def _keep(path: Path, scene: Scene) -> None:
    regions = scene.region_costs
    costs = np.asarray(scene.unary if regions is None else regions.costs)
    parts = {"costs": costs, "classes": np.asarray(scene.classes)}
    if regions is not None:
        parts["regions"] = regions.regions
    draft = path.with_name(f".{path.name}")
    np.savez(draft, **parts)
    draft.rename(path)


def _kept(path: Path, image_set: ImageSet, i: int) -> Scene:
    with np.load(path) as parts:
        unary: Any = parts["costs"]
        if "regions" in parts:
            unary = RegionCosts(parts["regions"], unary)
        return Scene(
            image_set.images[i],
            unary,
            classes=parts["classes"],
            spatial_ndim=image_set.truth[i].ndim,
            intensity_range=image_set.intensity_range,
        )
