"""Labeled images in folds, and what segmenters predict for images they were not trained on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone

from hybridseg.base import Scene, TrainingSet
from hybridseg.scene.deferred import Deferred, resolve
from hybridseg.scene.sequences import read_label_source, read_truth
from hybridseg.search.clock import Clock, Pace
from hybridseg.search.sampled import predicted_at, sampled_places
from hybridseg.search.scores import Counts
from hybridseg.unary.cross_fit import AlignedCosts, block_folds, image_splits, open_classes
from hybridseg.validation import as_label_map, as_mask

#: The most Scenes, and bytes of their costs, on which refiners are compared.
_MAX_SCENES, _MAX_COSTS = 24, 1 << 29
#: With fewer images, blocks of images are the units of the bootstrap.
MIN_IMAGES = 5


@dataclass(frozen=True)
class Fold:
    """Images to learn from and to judge; a number of blocks of one image if ``block`` is given."""

    train: tuple[int, ...]
    test: tuple[int, ...]
    block: int | None = None


@dataclass(frozen=True, eq=False)
class Labeled:
    """Labeled images in the order in which a search uses them.

    Attributes
    ----------
    training : TrainingSet
        All images.
    order : ndarray of int, (N,)
        The positions of the images with labels. Early ones have all classes, if possible.
    groups : ndarray, (n_images,), or None
    cv : int
        The largest number of folds.
    classes : ndarray of int, (L,)
        The label values.
    """

    training: TrainingSet
    order: NDArray[np.intp]
    groups: NDArray[Any] | None
    cv: int
    classes: NDArray[Any]

    @classmethod
    def of(
        cls,
        training: TrainingSet,
        groups: ArrayLike | None,
        cv: int,
        ignored: Sequence[int],
        random: np.random.Generator,
    ) -> Labeled:
        """Put labeled images in order.

        Raises
        ------
        ValueError
            ``groups`` does not have one group for each image, or there is one group only.
        """
        known = None if groups is None else np.asarray(groups)
        if known is not None and known.shape != (len(training),):
            raise ValueError(
                f"groups has shape {known.shape}; expected one group for each of the "
                f"{len(training)} images, ({len(training)},)."
            )
        kept = ~np.isin(training.classes, list(ignored))
        present = training.counts()[:, kept] > 0
        order = _order(present, known, random)
        if known is not None and len(order) > 1 and len(np.unique(known[order])) < 2:
            raise ValueError(
                f"groups has one group for {len(order)} labeled images; expected at least two, "
                f"one to learn from and one to judge by: pass groups=None to split the images."
            )
        return cls(training, order, known, cv, training.classes[kept])

    def __len__(self) -> int:
        return len(self.order)

    def check(self, first: int, last: int) -> None:
        """Read images, so that errors name their positions instead of those in a fold.

        Raises
        ------
        TypeError, ValueError
            An image or a label map cannot be used.
        """
        for position in self.order[first:last].tolist():
            self.training[position]

    @property
    def by_block(self) -> bool:
        """Whether the units of a bootstrap are blocks of images instead of images."""
        return len(self) < MIN_IMAGES

    def n_folds(self, n_images: int) -> int:
        """Return the number of folds of the first images."""
        if len(self) == 1:
            return self.cv
        n_units = n_images
        if self.groups is not None:
            n_units = len(np.unique(self.groups[self.order[:n_images]]))
        return min(self.cv, n_units)

    def folds(self, n_images: int) -> list[Fold]:
        """Return the folds of the first images, as positions; of blocks if there is one image."""
        used = [int(i) for i in self.order[:n_images]]
        if len(self) == 1:
            return [Fold((used[0],), (used[0],), block) for block in range(self.cv)]
        groups = None if self.groups is None else self.groups[used]
        splits = image_splits(used, self.n_folds(n_images), groups)
        return [
            Fold(tuple(used[i] for i in train), tuple(used[i] for i in test))
            for train, test in splits
        ]

    def pairs(self, positions: Sequence[int]) -> tuple[list[Scene], list[Any]]:
        """Return images and label maps."""
        training = self.training
        return [training.scenes[i] for i in positions], [training.sources[i] for i in positions]

    def labels(self, fold: Fold, ignore_label: int | None = None) -> list[Any]:
        """Return the label maps to learn from, without those of the fold's own block."""
        sources = self.pairs(fold.train)[1]
        if fold.block is None:
            return sources
        values = as_label_map(read_label_source(sources[0]), ignore_label=ignore_label)
        return [np.where(block_folds(values.shape, self.cv) == fold.block, -1, values)]

    def counts(
        self,
        scene: Scene,
        position: int,
        block: int | None = None,
        model: Any = None,
    ) -> Counts:
        """Return the confusion tables ``(U, L, L + 1)`` of the units of an image.

        Parameters
        ----------
        scene : Scene
            With a prediction.
        position : int
            The position of the image.
        block : int, optional
            The number of the blocks to count; None counts all.
        model : segmenter, optional
            The segmenter that made the Scene; see :func:`predicted_at`.
        """
        truth = self._truth(scene, position)
        places, weight = sampled_places(truth, position)
        if block is not None:
            places = places[block_folds(truth.shape, self.cv).ravel()[places] == block]
        size = len(self.classes)
        rows = self._indices(truth.ravel()[places])
        columns = self._indices(predicted_at(model, scene, places)) if len(places) else rows
        units, n_units = self._units(truth.shape)
        cells = (units.ravel()[places] * size + rows) * (size + 1) + columns
        counts = np.bincount(cells, minlength=n_units * size * (size + 1)).astype(np.float64)
        return weight * counts.reshape((n_units, size, size + 1))

    def _truth(self, scene: Scene, position: int) -> NDArray[np.int64]:
        """Return the label map of an image, -1 where it is not known or a Scene is not valid."""
        name = f"y[{position}]"
        truth = as_label_map(
            read_truth(scene, self.training.sources[position], scene.shape, name),
            shape=scene.shape,
            ignore_label=scene.ignore_label,
            name=name,
        )
        if scene.valid is not None:
            truth = np.where(as_mask(scene.valid, truth.shape), truth, -1)
        return np.where(np.isin(truth, self.classes), truth, -1)

    def _indices(self, values: NDArray[Any]) -> NDArray[np.intp]:
        """Return the positions of label values among the classes; L where there is none."""
        places = np.minimum(np.searchsorted(self.classes, values), len(self.classes) - 1)
        return np.where(self.classes[places] == values, places, len(self.classes))

    def _units(self, shape: tuple[int, ...]) -> tuple[NDArray[np.intp], int]:
        """Return the number of each pixel's unit, and the number of units of the image."""
        units = np.zeros(shape, np.intp)
        if not self.by_block:
            return units, 1
        n_along = 2 * self.cv
        for axis, size in enumerate(shape):
            along = np.arange(size) * n_along // max(size, n_along)
            units = units * n_along + along.reshape(
                [-1 if a == axis else 1 for a in range(len(shape))]
            )
        return units, n_along ** len(shape)


def _order(
    present: NDArray[np.bool_], groups: NDArray[Any] | None, random: np.random.Generator
) -> NDArray[np.intp]:
    """Return the positions of labeled images; early ones have each class twice, if possible."""
    waiting = [int(i) for i in random.permutation(len(present)) if present[i].any()]
    if groups is not None:  # one image of each group, then a second of each, and so on
        turn: dict[Any, int] = {}
        turns = []
        for i in waiting:
            turns.append(turn.get(groups[i], 0))
            turn[groups[i]] = turns[-1] + 1
        waiting = [waiting[k] for k in np.argsort(turns, kind="stable")]
    chosen: list[int] = []
    seen = np.zeros(present.shape[1], np.intp)
    wanted = np.minimum(present.sum(axis=0), 2)
    while (missing := seen < wanted).any():
        gains = [int(np.count_nonzero(present[i] & missing)) for i in waiting]
        chosen.append(waiting.pop(int(np.argmax(gains))))
        seen += present[chosen[-1]]
    return np.array([*chosen, *waiting], np.intp)


@dataclass(frozen=True, eq=False)
class HeldScenes:
    """Scenes with costs of models that were not trained on them, and their confusion tables.

    Attributes
    ----------
    positions : tuple of int
    scenes : tuple of Scene
    counts : ndarray of int, (U, L, L + 1)
        In the order of ``positions``.
    """

    positions: tuple[int, ...]
    scenes: tuple[Scene, ...]
    counts: Counts

    def first(self, n_images: int, scenes: Sequence[Scene] | None = None) -> HeldScenes:
        """Return the first images, with other Scenes if they are given."""
        n_units = len(self.counts) // len(self.positions)
        kept = self.scenes[:n_images] if scenes is None else tuple(scenes)
        return HeldScenes(self.positions[:n_images], kept, self.counts[: n_units * n_images])


def hold_out(
    segmenter: Any,
    labeled: Labeled,
    n_images: int,
    pace: Pace,
    clock: Clock,
    *,
    share: float = 1.0,
    deadline: float = np.inf,
) -> HeldScenes:
    """Fit a segmenter fold by fold; return what it predicts for the first images.

    Parameters
    ----------
    segmenter : segmenter
    labeled : Labeled
    n_images : int
    pace : Pace
        It learns the seconds of the fits and predictions.
    clock : Clock
    share : float
        The share of the epochs, which is recorded.
    deadline : float
        Seconds on the clock.

    Raises
    ------
    OutOfTimeError
        The deadline has passed, or the next fit would pass it.
    """
    scenes: dict[int, Scene] = {}
    tables: dict[int, Any] = {}
    models = []
    for fold in labeled.folds(n_images):
        began = clock.passed
        clock.check(deadline - pace.fit_seconds(len(fold.train), share))
        model = _fitted(segmenter, labeled, fold)
        models.append(model)
        pace.add(len(fold.train), share, clock.passed - began)
        clock.check(deadline)
        began = clock.passed
        for position in fold.test:
            (found,) = model.transform(labeled.pairs([position])[0])
            counts = labeled.counts(found, position, fold.block, model)
            tables[position] = tables.get(position, 0) + counts
            scenes[position] = _aligned(model, labeled, found)
            clock.check(deadline)
        pace.per_image = (clock.passed - began) / len(fold.test)
    if labeled.folds(n_images)[0].block is not None:
        pace.per_image *= len(models)
        (scene,) = scenes.values()
        joined = _Joined(tuple(models), labeled.classes)
        base = scene.replace(labels=None)
        scenes = {i: base.replace(unary=Deferred(joined, base)) for i in scenes}
    positions = tuple(int(i) for i in labeled.order[:n_images])
    return HeldScenes(
        positions,
        tuple(scenes[i] for i in positions),
        np.concatenate([tables[i] for i in positions]),
    )


def computed(held: HeldScenes, clock: Clock, deadline: float) -> HeldScenes | None:
    """Return the first Scenes with costs that are computed; None if the time is short for one.

    These are at most 24 Scenes, and as many as 512 MB hold.
    """
    scenes: list[Scene] = []
    size = 0
    for scene in held.scenes[:_MAX_SCENES]:
        if clock.passed > deadline:
            break
        costs = resolve(scene.source("unary"))
        size += costs.nbytes
        if scenes and size > _MAX_COSTS:
            break
        scenes.append(scene.replace(unary=costs))
    if not scenes:
        return None
    return held.first(len(scenes), scenes)


def _fitted(segmenter: Any, labeled: Labeled, fold: Fold) -> Any:
    model = clone(segmenter)
    names = open_classes(model)
    if names:
        model.set_params(**dict.fromkeys(names, labeled.classes))
    ignored = next(iter(ignored_labels(segmenter)), None)
    return model.fit(labeled.pairs(fold.train)[0], labeled.labels(fold, ignored))


def _aligned(model: Any, labeled: Labeled, found: Scene) -> Scene:
    """Return a Scene whose costs have all classes, and are computed when they are read."""
    unknown = np.setdiff1d(model.classes_, labeled.classes)
    if len(unknown):
        raise ValueError(
            f"the segmenter knows the classes {unknown.tolist()}, which y lacks; pass all classes "
            f"as classes= to AutoHybrid."
        )
    costs = Deferred(AlignedCosts(model.classes_, labeled.classes), found)
    return found.replace(
        unary=costs, classes=labeled.classes, meta={**found.meta, "out_of_fold": True}
    )


def ignored_labels(segmenter: Any) -> Iterator[int]:
    """Yield the values of all parameters ``ignore_label``, also of inner segmenters."""
    for name, value in segmenter.get_params().items():
        if name.rpartition("__")[2] == "ignore_label" and value is not None:
            yield int(value)


@dataclass(frozen=True)
class _Joined:
    """Costs of one image; each block has the costs of the model that was not trained on it."""

    models: tuple[Any, ...]
    classes: NDArray[Any]

    def __call__(self, scene: Scene) -> NDArray[np.float32]:
        fold_of = block_folds(scene.shape, len(self.models))
        out = np.empty((*scene.shape, len(self.classes)), np.float32)
        for fold, model in enumerate(self.models):
            costs = np.asarray(model.transform([scene])[0].unary)
            inside = fold_of == fold
            out[inside] = AlignedCosts(model.classes_, self.classes).align(costs[inside])
        return out
