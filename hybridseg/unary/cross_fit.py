"""Out-of-fold costs, so that what follows never learns from over-confident ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import (
    GroupKFold,
    GroupShuffleSplit,
    KFold,
    ShuffleSplit,
    check_cv,
)

from hybridseg.base import (
    HasMethods,
    ImageList,
    Interval,
    Scene,
    Segmenter,
    StrOptions,
    restored_on_error,
)
from hybridseg.scene.costs import MIN_PROBABILITY, RegionCosts
from hybridseg.scene.deferred import Deferred
from hybridseg.scene.sequences import as_items, read_label_source
from hybridseg.unary.wrapper import WrapperMixin
from hybridseg.validation import as_label_map, said_once


class CrossFit(WrapperMixin, BaseEstimator):
    """Give a following stage the costs that a segmenter has for images it was not trained on.

    A classifier is far surer of its training pixels than of new ones, so a refiner that learns
    from (or is tuned on) the former trusts the costs too much. As in scikit-learn's
    ``StackingClassifier`` and ``TargetEncoder``, ``fit_transform`` returns costs that come from
    models which did not see the image, while ``transform`` uses the segmenter fitted on all.

    Parameters
    ----------
    segmenter : segmenter
        Cloned and fitted once for each fold, and once on everything.
    cv : int, "holdout", or a scikit-learn splitter
        An integer: the number of folds of images (by group where ``groups`` are given; frames of
        one video belong together). With one single image, the number of folds of spatial blocks,
        each about 1/(2 cv) of the image's sides. ``"holdout"``: a single split that holds out a
        fifth of the images, for networks that are slow to train; the others' costs stay
        in-sample.
    random_state : int or None
        Shuffles the images before they are dealt to folds. None keeps their order (and draws the
        holdout anew each time).

    Attributes
    ----------
    segmenter_ : segmenter
        Fitted on all images.
    classes_ : ndarray of int, (L,)

    Notes
    -----
    Every Scene from ``fit_transform`` says in ``meta["out_of_fold"]`` whether its costs are (never
    so for a ``FrozenEstimator``, which is not fitted here). Where a fold's training images lack a
    class, segmenters of this package are given all classes (their parameter ``classes``), so that
    weights and networks made for these fit; for others, such a class costs ``-log(1e-4)``.

    Examples
    --------
    >>> from sklearn.pipeline import make_pipeline
    >>> from hybridseg import CrossFit, DenseCRF, PixelClassifier
    >>> from hybridseg.datasets import make_scenes
    >>> scenes = make_scenes(4, shape=(32, 48), random_state=0)
    >>> model = make_pipeline(CrossFit(PixelClassifier(), cv=2), DenseCRF())
    >>> model.fit(scenes.images, scenes.labels).predict(scenes.images)[0].shape
    (32, 48)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "segmenter": [HasMethods(["fit", "transform"])],
        "cv": [
            Interval(Integral, 2, None, closed="left"),
            StrOptions({"holdout"}),
            HasMethods(["split", "get_n_splits"]),
        ],
        "random_state": ["random_state"],
    }

    def __init__(self, segmenter: Any, cv: Any = 5, *, random_state: Any = None) -> None:
        self.segmenter = segmenter
        self.cv = cv
        self.random_state = random_state

    @said_once()
    def fit(self, X: Any, y: Any, groups: ArrayLike | None = None) -> Self:
        """Fit the segmenter on all images.

        Parameters
        ----------
        X : sequence of images, paths or Scenes
        y : sequence of label maps (or paths)
        groups : array-like, (n_images,), optional
            Only :meth:`fit_transform` looks at them.

        Returns
        -------
        self
        """
        with restored_on_error(self):
            self._validate_params()
            self.segmenter_ = clone(self.segmenter).fit(X, y)
            self.classes_ = self.segmenter_.classes_
        return self

    @said_once()
    def fit_transform(self, X: Any, y: Any, groups: ArrayLike | None = None) -> ImageList:
        """Fit, and return Scenes with out-of-fold costs.

        Parameters
        ----------
        X : sequence of images, paths or Scenes
        y : sequence of label maps (or paths)
        groups : array-like, (n_images,), optional
            Images of one group never stand on both sides of a split.

        Returns
        -------
        ImageList of Scene

        Raises
        ------
        ValueError
            Fewer images (or groups) than folds, or a fold whose training part has one class only.
        """
        with restored_on_error(self):
            self.fit(X, y)
            items, sources = as_items(X, "X"), as_items(y, "y")
            if len(items) == 1 and isinstance(self.cv, Integral):
                return self._across_blocks(items, sources)
            return self._across_images(items, sources, groups)

    def _across_images(
        self, items: list[Any], sources: list[Any], groups: ArrayLike | None
    ) -> ImageList:
        scenes = [self._marked(scene, False) for scene in self.transform(items)]
        for fold, (train, test) in enumerate(self._splits(items, groups)):
            model = self._fit_fold(fold, [items[i] for i in train], [sources[i] for i in train])
            for i, scene in zip(test, model.transform([items[i] for i in test]), strict=True):
                aligned = _Aligned(model.classes_, self.classes_)
                scenes[i] = self._marked(scenes[i], True).replace(unary=Deferred(aligned, scene))
        return ImageList(scenes)

    def _marked(self, scene: Scene, out_of_fold: bool) -> Scene:
        # a frozen segmenter is never fitted, so nobody knows what it has seen
        honest = out_of_fold and not isinstance(self.segmenter, FrozenEstimator)
        return scene.replace(meta={**scene.meta, "out_of_fold": honest})

    def _splits(self, items: list[Any], groups: ArrayLike | None) -> Any:
        seed, shuffle = self.random_state, self.random_state is not None
        if isinstance(self.cv, str):
            single = ShuffleSplit if groups is None else GroupShuffleSplit
            splitter: Any = single(1, test_size=0.2, random_state=seed)
        elif not isinstance(self.cv, Integral):
            splitter = check_cv(self.cv)
        else:
            n_apart = len(items) if groups is None else len(np.unique(groups))
            if n_apart < int(self.cv):
                what = "images" if groups is None else "groups"
                raise ValueError(
                    f"cv={self.cv} needs at least as many {what}, but there are {n_apart}; lower "
                    f"cv, or pass one image to be cut into blocks."
                )
            folds = KFold if groups is None else GroupKFold
            splitter = folds(int(self.cv), shuffle=shuffle, random_state=seed)
        return splitter.split(items, groups=groups)

    def _fit_fold(self, fold: int, X: list[Any], y: Sequence[Any]) -> Any:
        try:
            model = clone(self.segmenter)
            names = _open_classes(model)
            if names and 1 < len(self._seen(y)) < len(self.classes_):
                model.set_params(**dict.fromkeys(names, self.classes_))
            return model.fit(X, y)
        except ValueError as error:
            error.add_note(
                f"This happened in CrossFit on the training part of fold {fold}; cv={self.cv!r} "
                f"may leave too little to train on."
            )
            raise

    def _seen(self, y: Sequence[Any]) -> set[int]:
        """The classes that occur in label maps."""
        seen: set[int] = set()
        for source in y:
            seen.update(np.unique(np.asarray(read_label_source(source))).tolist())
        return seen & set(self.classes_.tolist())

    def _across_blocks(self, items: list[Any], sources: list[Any]) -> ImageList:
        out = self.transform(items)[0]
        ignore = getattr(self.segmenter, "ignore_label", None)
        labels = as_label_map(
            read_label_source(sources[0]), shape=out.shape, ignore_label=ignore, name="y[0]"
        )
        fold_of = block_folds(labels.shape, int(self.cv))
        models = [
            self._fit_fold(fold, items, [np.where(fold_of == fold, -1, labels)])
            for fold in range(self.cv)
        ]
        costs = Deferred(_AcrossBlocks(models, self.classes_, int(self.cv)), out)
        return ImageList([self._marked(out, True).replace(unary=costs)])


def _open_classes(model: Any) -> list[str]:
    """Names of the parameters ``classes`` that are None, of all segmenters inside a model."""
    params, found = model.get_params(), []
    for name in [name for name in params if name.rpartition("__")[2] == "classes"]:
        parts = name.split("__")[:-1]
        holders = [model, *(params["__".join(parts[: i + 1])] for i in range(len(parts)))]
        frozen = any(isinstance(holder, FrozenEstimator) for holder in holders)
        if params[name] is None and isinstance(holders[-1], Segmenter) and not frozen:
            found.append(name)
    return found


@dataclass(frozen=True)
class _Aligned:
    """Costs of a model that was trained on ``known`` classes, extended to all ``classes``."""

    known: NDArray[Any]
    classes: NDArray[Any]

    def __call__(self, scene: Scene) -> NDArray[np.float32] | RegionCosts:
        by_region = scene.region_costs
        if by_region is not None:
            return RegionCosts(by_region.regions, self.align(by_region.costs))
        return self.align(scene.unary)

    def align(self, costs: NDArray[np.float32]) -> NDArray[np.float32]:
        full = np.full(
            (*costs.shape[:-1], len(self.classes)), -np.log(MIN_PROBABILITY), dtype=np.float32
        )
        full[..., np.searchsorted(self.classes, self.known)] = costs
        return full


@dataclass(frozen=True)
class _AcrossBlocks:
    """Costs of one image, each block's from the model that did not see its labels."""

    models: list[Any]
    classes: NDArray[Any]
    n_folds: int

    def __call__(self, scene: Scene) -> NDArray[np.float32]:
        fold_of = block_folds(scene.shape, self.n_folds)
        out = np.empty((*scene.shape, len(self.classes)), dtype=np.float32)
        for fold, model in enumerate(self.models):
            costs = model.transform([scene])[0].unary
            held_out = fold_of == fold
            out[held_out] = _Aligned(model.classes_, self.classes).align(costs[held_out])
        return out


def block_folds(shape: tuple[int, ...], n_folds: int) -> NDArray[np.int64]:
    """Deal the blocks of a grid to folds, so that each fold is spread over the whole image.

    Parameters
    ----------
    shape : tuple of int
        The image's spatial shape.
    n_folds : int
        Each axis is cut into ``2 * n_folds`` blocks (fewer where it is short).

    Returns
    -------
    ndarray of int, ``shape``
        The fold 0..n_folds-1 of each pixel.
    """
    total = np.zeros(shape, dtype=np.int64)
    for axis, size in enumerate(shape):
        block = np.arange(size) * (2 * n_folds) // max(size, 2 * n_folds)
        # A stride that differs from axis to axis makes a Latin pattern instead of stripes.
        along = block * (axis + 1 if n_folds % (axis + 1) or axis == 0 else 1)
        total += along.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return total % n_folds
