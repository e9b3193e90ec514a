"""Eight sets of images with costs, from which images to learn from and to score are drawn.

The sets and unaries are those of ``benchmarks.defaults``, without the photographs, whose classes
differ from image to image. Two sets are added: the objects of GrabCut-50 without strokes, which a
model has to find from other photographs (weak costs), and synthetic scenes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier

from benchmarks.defaults import COSTS
from benchmarks.defaults.sets import SETS, ImageSet
from benchmarks.defaults.unaries import models, scenes
from hybridseg import DeepSegmenter, PixelClassifier, Scene
from hybridseg.datasets import make_scenes
from hybridseg.scene.costs import MIN_PROBABILITY

#: The largest number of pixels of an image times its classes; larger images are reduced.
MAX_COSTS = 220_000
#: The largest number of pixels of an image.
MAX_PIXELS = 22_000
#: The side of the central window of EM membranes, which are too thin to be reduced.
WINDOW = 160

#: The added sets.
OBJECTS, SYNTHETIC = "GrabCut objects", "synthetic"
#: The unaries of each set. A pixel forest that is not fitted to strokes is fitted for each seed;
#: the costs of other unaries come from models that saw none of the images that are drawn.
UNARIES = {
    "GrabCut-50": ("pixel forest", "deep-feature forest"),
    OBJECTS: ("pixel forest", "U-Net"),
    "CamVid": ("pixel forest", "ESPNet"),
    "EM membranes": ("pixel forest", "U-Net"),
    "nuclei": ("pixel forest", "deep-feature forest"),
    "hippocampus": ("pixel forest", "boosted trees"),
    "VOC7": ("pixel forest", "ESPNetv2"),
    SYNTHETIC: ("pixel forest", "U-Net"),
}
#: Trees and labeled pixels of a pixel forest that is fitted for each seed.
N_TREES, N_SAMPLES = 20, 6000
#: The number of images, from the front, that the networks of the added sets are trained on.
N_RESERVED = 20


@dataclass(frozen=True)
class Pool:
    """Images with truth, and their costs or the segmenter that computes them.

    Attributes
    ----------
    names : list of str
    scenes : list of Scene
        With costs, or without them if there is a segmenter.
    truth : list of ndarray
        Label maps, negative where unknown.
    n_labels : int
    segmenter : segmenter or None
        To be fitted to the images that are learned from.
    """

    names: list[str]
    scenes: list[Scene]
    truth: list[NDArray[Any]]
    n_labels: int
    segmenter: Any = None


def pool(name: str, unary: str, data: Path) -> Pool:
    """Return the images of a set with the costs of a unary."""
    image_set = _image_set(name, data)
    crop = _window if name == "EM membranes" else partial(_reduced, n_labels=_labels(image_set))
    if unary == "pixel forest" and not image_set.own:
        return _to_fit(image_set, _forest(image_set), crop)
    if name in (OBJECTS, SYNTHETIC):
        model: Any = _network()
    else:
        model = models(name, image_set, data, n_jobs=1)[unary]
    folder = COSTS / "test"
    folder.mkdir(parents=True, exist_ok=True)
    costed = [scene for scene, _ in scenes(folder, name, unary, model, image_set)]
    n_labels = _labels(image_set)
    made = [
        crop(scene.image, truth, _of_all(scene, n_labels))
        for scene, truth in zip(costed, image_set.truth, strict=True)
    ]
    return Pool(
        image_set.names,
        [_scene(image, truth, image_set, costs) for image, truth, costs in made],
        [truth for _, truth, _ in made],
        n_labels,
    )


def _to_fit(image_set: ImageSet, model: Any, crop: Callable[..., Any]) -> Pool:
    """Return all images of a set, those for training too, without costs."""
    n_trained = len(image_set.train_images)
    images = [*image_set.train_images, *image_set.images]
    labels = [*image_set.train_labels, *image_set.truth]
    made = [crop(image, truth, None) for image, truth in zip(images, labels, strict=True)]
    return Pool(
        [*(f"train {i}" for i in range(n_trained)), *image_set.names],
        [_scene(image, truth, image_set, None) for image, truth, _ in made],
        [truth for _, truth, _ in made],
        _labels(image_set),
        model,
    )


def _image_set(name: str, data: Path) -> ImageSet:
    if name == SYNTHETIC:
        made = make_scenes(50, noise=0.2, random_state=0)
        names = [str(i) for i in range(len(made.images))]
        return _divided(ImageSet(names, made.images, made.labels, [], [], [], 4))
    if name == OBJECTS:
        found = SETS["GrabCut-50"](data, choose=False)
        made = [_reduced(x, t, None, 2) for x, t in zip(found.images, found.truth, strict=True)]
        images, truth = [x for x, _, _ in made], [t for _, t, _ in made]
        return _divided(replace(found, images=images, truth=truth, drawn=[]))
    return SETS[name](data, choose=False)


def _divided(image_set: ImageSet) -> ImageSet:
    """Reserve the first images for training."""
    front, rest = slice(0, N_RESERVED), slice(N_RESERVED, None)
    return replace(
        image_set,
        names=image_set.names[rest],
        images=image_set.images[rest],
        truth=image_set.truth[rest],
        train_images=image_set.images[front],
        train_labels=image_set.truth[front],
    )


def _network() -> DeepSegmenter:
    return DeepSegmenter(
        "unet",
        network_options={"width": 8, "depth": 3},
        max_epochs=10,
        crop_size=96,
        batch_size=4,
        crops_per_image=4,
        lr=5e-3,
        random_state=0,
    )


def _forest(image_set: ImageSet) -> PixelClassifier:
    forest = RandomForestClassifier(N_TREES, min_samples_leaf=2, n_jobs=1)
    return PixelClassifier(
        forest,
        max_samples=N_SAMPLES,
        random_state=0,
        intensity_range=image_set.intensity_range,
    )


def _labels(image_set: ImageSet) -> int:
    assert image_set.n_labels is not None
    return image_set.n_labels


def _of_all(scene: Scene, n_labels: int) -> NDArray[np.float32]:
    """Return costs of all labels; those without strokes on the image have a low probability."""
    costs = np.asarray(scene.unary)
    full = np.full((*costs.shape[:-1], n_labels), -np.log(MIN_PROBABILITY), np.float32)
    full[..., np.asarray(scene.classes)] = costs
    return full


def _scene(image: Any, truth: Any, image_set: ImageSet, costs: Any) -> Scene:
    return Scene(
        image,
        costs,
        classes=None if costs is None else np.arange(_labels(image_set)),
        spatial_ndim=truth.ndim,
        intensity_range=image_set.intensity_range,
    )


def _window(image: NDArray[Any], truth: NDArray[Any], costs: Any) -> tuple[Any, Any, Any]:
    """Return the central window of an image, of its truth and of its costs."""
    box = tuple(slice((side - WINDOW) // 2, (side + WINDOW) // 2) for side in truth.shape)
    return image[box], truth[box], None if costs is None else np.asarray(costs)[box]


def _reduced(
    image: NDArray[Any], truth: NDArray[Any], costs: Any, n_labels: int
) -> tuple[Any, Any, Any]:
    """Return means of blocks of an image, and truth and costs at the centers of the blocks."""
    largest = min(MAX_PIXELS, MAX_COSTS // n_labels)
    factor = 1
    while truth.size > largest * factor**2 and truth.ndim == 2:
        factor += 1
    box = tuple(slice(0, side // factor * factor) for side in truth.shape)
    centers = tuple(slice(factor // 2, b.stop, factor) for b in box)
    dense = None if costs is None else np.ascontiguousarray(np.asarray(costs)[centers])
    if factor == 1:
        return image, truth, dense
    height, width = (b.stop // factor for b in box)
    blocks = image[box].reshape(height, factor, width, factor, *image.shape[2:])
    means = blocks.mean(axis=(1, 3))
    if np.issubdtype(image.dtype, np.integer):
        means = means.round()
    return means.astype(image.dtype), np.ascontiguousarray(truth[centers]), dense
