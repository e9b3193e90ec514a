"""Seven sets of images with truth and training data; rules are chosen and tested on two parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from hybridseg.datasets import load_folder, load_photos, read_image, read_labels

#: The photographs on which rules may be chosen.
CHOSEN_PHOTOS = ("astronaut", "chelsea", "coffee", "coins")

#: The number of training images.
N_TRAIN = 20


@dataclass(frozen=True)
class ImageSet:
    """Images for training and for scores.

    If ``own`` is true, each scored image has a model of its own: ``drawn`` holds the strokes on
    each, and ``train_images`` is empty.
    """

    names: list[str]
    images: list[NDArray[Any]]
    truth: list[NDArray[Any]]
    drawn: list[NDArray[Any]]
    train_images: list[NDArray[Any]]
    train_labels: list[NDArray[Any]]
    n_labels: int | None
    intensity_range: str = "dtype"

    @property
    def own(self) -> bool:
        """Whether each image is learned from its own strokes."""
        return bool(self.drawn)


def photos(data: Path, *, choose: bool) -> ImageSet:  # noqa: ARG001
    """Bundled photographs with their scribbles; four of them to choose rules on."""
    found = load_photos(CHOSEN_PHOTOS if choose else None)
    return ImageSet(found.names, found.images, found.truth, found.scribbles, [], [], None)


def grabcut(data: Path, *, choose: bool) -> ImageSet:
    """Fifty photographs of one object each, with strokes drawn by people; for the last run only."""
    folder = data / "grabcut50"
    if choose:
        return ImageSet([], [], [], [], [], [], 2)
    listed = load_folder(folder, "test")
    drawn = [
        np.choose(read_image(folder / "scribbles1" / f"{name}.png"), [-1, 1, 0])
        for name in listed.names
    ]
    images = [read_image(path) for path in listed.X]
    truth = [np.asarray(labels) for labels in listed.y]
    return ImageSet(listed.names, images, truth, drawn, [], [], 2)


def voc(data: Path, *, choose: bool) -> ImageSet:
    """Seven photographs of 21 classes; dots in each region stand for strokes. For the last run."""
    if choose:
        return ImageSet([], [], [], [], [], [], 21)
    listed = load_folder(data / "voc2012_7")
    truth = [np.asarray(labels) for labels in listed.y]
    images = [read_image(path) for path in listed.X]
    return ImageSet(listed.names, images, truth, [dots(t) for t in truth], [], [], 21)


def camvid(data: Path, *, choose: bool) -> ImageSet:
    """Street scenes, 11 classes."""
    tested = _listed(data / "camvid", "val" if choose else "test")
    return _of_lists(_listed(data / "camvid", "train"), tested[:: 13 if choose else 8], 11)


def membranes(data: Path, *, choose: bool) -> ImageSet:
    """Electron microscopy: thin dark membranes between cells."""
    train = _listed(data / "isbi2012_em", "train")
    if choose:
        return _of_lists(train[:15], train[16:], 2)
    return _of_lists(train, _listed(data / "isbi2012_em", "test"), 2)


def nuclei(data: Path, *, choose: bool) -> ImageSet:
    """Nuclei in many kinds of microscopy, background and foreground."""
    train = _listed(data / "dsb2018", "train")
    if choose:
        return _of_lists(train[:120], train[120::3], 2, color=True)
    return _of_lists(train, _listed(data / "dsb2018", "test"), 2, color=True)


def hippocampus(data: Path, *, choose: bool) -> ImageSet:
    """MRI volumes, three classes."""
    train = _listed(data / "msd_hippocampus", "train")
    if choose:
        return _of_lists(train[:60], train[60::3], 3, intensity_range="image")
    tested = _listed(data / "msd_hippocampus", "test")
    return _of_lists(train, tested, 3, intensity_range="image")


SETS = {
    "photographs": photos,
    "GrabCut-50": grabcut,
    "CamVid": camvid,
    "EM membranes": membranes,
    "nuclei": nuclei,
    "hippocampus": hippocampus,
    "VOC7": voc,
}


def dots(truth: NDArray[Any], n_dots: int = 4, radius: float = 3.0) -> NDArray[np.int32]:
    """Draw a few dots inside every class, as a person might click; -1 elsewhere."""
    rng = np.random.default_rng(0)
    drawn = np.full(truth.shape, -1, np.int32)
    rows, columns = np.indices(truth.shape)
    for label in np.unique(truth[truth >= 0]):
        depth = ndimage.distance_transform_edt(np.pad(truth == label, 1))[1:-1, 1:-1]
        places = np.argwhere(depth > min(2 * radius, depth.max() / 2))
        for row, column in places[rng.integers(len(places), size=n_dots)]:
            near = (rows - row) ** 2 + (columns - column) ** 2 <= radius**2
            drawn[near & (truth == label)] = label
    return drawn


_Pair = tuple[str, Path, Path, int | None]


def _listed(folder: Path, split: str) -> list[_Pair]:
    listed = load_folder(folder, split)
    return [
        (name, Path(path), Path(labels.path), labels.ignore_label)
        for name, path, labels in zip(listed.names, listed.X, listed.y, strict=True)
    ]


def _of_lists(
    train: Sequence[_Pair],
    tested: Sequence[_Pair],
    n_labels: int,
    *,
    color: bool = False,
    intensity_range: str = "dtype",
) -> ImageSet:
    places = np.linspace(0, len(train) - 1, min(N_TRAIN, len(train))).round().astype(int)
    learned, scored = _read([train[i] for i in places], color), _read(tested, color)
    return ImageSet([name for name, *_ in tested], *scored, [], *learned, n_labels, intensity_range)


def _read(pairs: Sequence[_Pair], color: bool) -> tuple[list[Any], list[Any]]:
    images = [read_image(path) for _, path, _, _ in pairs]
    if color:
        images = [np.repeat(x[..., None], 3, -1) if x.ndim == 2 else x for x in images]
    return images, [read_labels(path, ignored) for _, _, path, ignored in pairs]
