"""Three sets of images: nested parts to learn from, and fixed images to score."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.transform import downscale_local_mean

from hybridseg.datasets import load_folder, load_photos, read_image, read_labels

#: The largest number of pixels of an image, and the number of test images.
MAX_PIXELS, N_TEST = 45_000, 40


@dataclass(frozen=True)
class Split:
    """Images to learn from, and images to score with their truth."""

    images: list[NDArray[Any]]
    labels: list[NDArray[Any]]
    test: list[NDArray[Any]]
    truth: list[NDArray[Any]]
    n_labels: int


def camvid(data: Path, size: int) -> Iterator[Split]:
    """Street scenes, 11 classes."""
    return _folder(data / "camvid", size, 11)


def nuclei(data: Path, size: int) -> Iterator[Split]:
    """Nuclei in many kinds of microscopy, and background."""
    return _folder(data / "dsb2018", size, 2)


def photographs(data: Path, size: int) -> Iterator[Split]:  # noqa: ARG001
    """Each photograph is learned from its own scribbles; scored without them."""
    if size != 1:
        return
    found = load_photos()
    for image, drawn, truth in zip(found.images, found.scribbles, found.truth, strict=True):
        unseen = np.where(drawn >= 0, -1, truth)
        small, labels = reduced(image, np.stack([drawn, unseen]))
        yield Split([small], [labels[0]], [small], [labels[1]], int(truth.max()) + 1)


SETS = {"photographs": photographs, "nuclei": nuclei, "CamVid": camvid}


def _folder(folder: Path, size: int, n_labels: int) -> Iterator[Split]:
    train, test = load_folder(folder, "train"), load_folder(folder, "test")
    order = np.random.default_rng(0).permutation(len(train.X))
    if size > len(order):
        return
    learned = _read(train, order[: size or len(order)])
    places = np.linspace(0, len(test.X) - 1, min(N_TEST, len(test.X))).round().astype(int)
    yield Split(*learned, *_read(test, places), n_labels)


def _read(listed: Any, places: NDArray[Any]) -> tuple[list[Any], list[Any]]:
    images, labels = [], []
    for i in places.tolist():
        image = read_image(listed.X[i])
        if image.ndim == 2:
            image = np.repeat(image[..., np.newaxis], 3, axis=-1)
        known = read_labels(Path(listed.y[i].path), listed.y[i].ignore_label)
        small, maps = reduced(image, known[np.newaxis])
        images.append(small)
        labels.append(maps[0])
    return images, labels


def reduced(image: NDArray[Any], maps: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Reduce an image, and label maps ``(n, H, W)`` of it, by a whole number.

    Colors are means; a label is kept that lies in the middle of its cell, or for sparse maps the
    largest in the cell.
    """
    height, width = maps.shape[1:]
    step = int(np.ceil(np.sqrt(height * width / MAX_PIXELS)))
    height, width = height // step * step, width // step * step
    cells = (step, step, 1)[: image.ndim]
    small = downscale_local_mean(image[:height, :width].astype(np.float64), cells)
    parts = maps[:, :height, :width].reshape(len(maps), height // step, step, width // step, step)
    middle = parts[:, :, step // 2, :, step // 2]
    drawn = parts[0].max(axis=(1, 3))  # thin strokes may miss the middle
    kept = [np.where(middle[0] >= 0, middle[0], drawn), *middle[1:]] if len(maps) > 1 else middle
    return small.round().astype(image.dtype), np.stack(list(kept))
