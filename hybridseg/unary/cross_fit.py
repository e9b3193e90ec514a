"""Out-of-fold costs, so that a refiner does not learn from overconfident ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
from sklearn.utils import get_tags

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

#: The constraint of the parameter ``cv`` of estimators that fit a segmenter fold by fold.
CV = [
    Interval(Integral, 2, None, closed="left"),
    StrOptions({"holdout"}),
    HasMethods(["split", "get_n_splits"]),
]


class CrossFit(WrapperMixin, BaseEstimator):
    """Give a refiner the costs that a segmenter computes for images it was not trained on.

    A classifier is more confident on its training pixels than on new ones. A refiner that learns
    from the costs of training images, or is tuned on them, trusts the costs too much. As in
    scikit-learn's ``StackingClassifier`` and ``TargetEncoder``, ``fit_transform`` returns the
    costs of models that were not trained on the image, and ``transform`` uses the segmenter that
    was fitted on all images.

    Parameters
    ----------
    segmenter : segmenter
        Cloned and fitted once for each fold, and once on all images.
    cv : int, "holdout", or a scikit-learn splitter, default=5
        An integer: the number of folds of images. With ``groups``, the images of a group are in
        the same fold, such as the frames of one video. For a single image, the number of folds of
        spatial blocks, whose sides are about 1/(2 cv) of the image's. ``"holdout"``: a single
        split that holds out a fifth of the images, for networks that are slow to train; the costs
        of the other images are in-sample.
    random_state : int or None
        The seed for shuffling the images before they are split. None keeps their order; with
        ``"holdout"``, each fit then draws a different split.

    Attributes
    ----------
    segmenter_ : segmenter
        Fitted on all images.
    classes_ : ndarray of int, (L,)

    Notes
    -----
    ``meta["out_of_fold"]`` of every Scene from ``fit_transform`` is True if its costs are
    out-of-fold. It is always False for a ``FrozenEstimator``, which is not fitted here, and for a
    pipeline or refiner of a frozen segmenter.

    The training images of a fold may lack a class. Segmenters of this package then get all
    classes as their parameter ``classes``, so that class weights and networks keep their sizes.
    For other segmenters, such a class costs ``-log(1e-4)``.

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
        "cv": CV,
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
            Used by :meth:`fit_transform` only.

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
            The images of one group are never on both sides of a split.

        Returns
        -------
        ImageList of Scene

        Raises
        ------
        ValueError
            Fewer images (or groups) than folds, or a fold with one class only in its training
            part.
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
        splits = image_splits(items, self.cv, groups, self.random_state)
        for fold, (train, test) in enumerate(splits):
            model = self._fit_fold(fold, [items[i] for i in train], [sources[i] for i in train])
            for i, scene in zip(test, model.transform([items[i] for i in test]), strict=True):
                aligned = AlignedCosts(model.classes_, self.classes_)
                scenes[i] = self._marked(scenes[i], True).replace(unary=Deferred(aligned, scene))
        return ImageList(scenes)

    def _marked(self, scene: Scene, out_of_fold: bool) -> Scene:
        # A frozen segmenter is not fitted here, so its training images are unknown.
        known = out_of_fold and not _holds_frozen(self.segmenter)
        return scene.replace(meta={**scene.meta, "out_of_fold": known})

    def _fit_fold(self, fold: int, X: list[Any], y: Sequence[Any]) -> Any:
        try:
            model = clone(self.segmenter)
            names = open_classes(model)
            if names and 1 < len(self._classes_in(y)) < len(self.classes_):
                model.set_params(**dict.fromkeys(names, self.classes_))
            return model.fit(X, y)
        except ValueError as error:
            error.add_note(
                f"CrossFit raised this on the training part of fold {fold}; cv={self.cv!r} may "
                f"leave too few labeled pixels for training."
            )
            raise

    def _classes_in(self, y: Sequence[Any]) -> set[int]:
        """Return the classes that occur in label maps."""
        values: set[int] = set()
        for source in y:
            values.update(np.unique(np.asarray(read_label_source(source))).tolist())
        return values & set(self.classes_.tolist())

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


def image_splits(
    items: Sequence[Any], cv: Any, groups: ArrayLike | None = None, random_state: Any = None
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield the positions of the training and test images of each fold.

    Parameters
    ----------
    items : sequence
        One item per image.
    cv, random_state
        The parameters of :class:`CrossFit`.
    groups : array-like, (n_images,), optional
        The images of one group are never on both sides of a split.

    Raises
    ------
    ValueError
        There are fewer images (or groups) than folds.
    """
    shuffle = random_state is not None
    if isinstance(cv, str):
        single = ShuffleSplit if groups is None else GroupShuffleSplit
        splitter: Any = single(1, test_size=0.2, random_state=random_state)
    elif not isinstance(cv, Integral):
        splitter = check_cv(cv)
    else:
        n_units = len(items) if groups is None else len(np.unique(groups))
        if n_units < int(cv):
            what = "images" if groups is None else "groups"
            raise ValueError(
                f"cv={cv}, but there are {n_units} {what}; expected at least {cv} "
                f"{what}: lower cv, or pass a single image, which is cut into blocks."
            )
        folds = KFold if groups is None else GroupKFold
        splitter = folds(int(cv), shuffle=shuffle, random_state=random_state)
    yield from splitter.split(items, groups=groups)


def _holds_frozen(segmenter: Any) -> bool:
    """Return whether a segmenter, or a segmenter inside it, is frozen."""
    if isinstance(segmenter, FrozenEstimator):
        return True
    inner = segmenter.get_params().values()
    frozen = [value for value in inner if isinstance(value, FrozenEstimator)]
    return any(get_tags(value).estimator_type == "segmenter" for value in frozen)


def open_classes(model: Any) -> list[str]:
    """Return the names of all parameters ``classes`` that are None, also of inner segmenters."""
    params, found = model.get_params(), []
    for name in [name for name in params if name.rpartition("__")[2] == "classes"]:
        parts = name.split("__")[:-1]
        holders = [model, *(params["__".join(parts[: i + 1])] for i in range(len(parts)))]
        frozen = any(isinstance(holder, FrozenEstimator) for holder in holders)
        if params[name] is None and isinstance(holders[-1], Segmenter) and not frozen:
            found.append(name)
    return found


@dataclass(frozen=True)
class AlignedCosts:
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
    """Costs of one image; each block has the costs of the model that was not trained on it."""

    models: list[Any]
    classes: NDArray[Any]
    n_folds: int

    def __call__(self, scene: Scene) -> NDArray[np.float32]:
        fold_of = block_folds(scene.shape, self.n_folds)
        out = np.empty((*scene.shape, len(self.classes)), dtype=np.float32)
        for fold, model in enumerate(self.models):
            costs = model.transform([scene])[0].unary
            held_out = fold_of == fold
            out[held_out] = AlignedCosts(model.classes_, self.classes).align(costs[held_out])
        return out


def block_folds(shape: tuple[int, ...], n_folds: int) -> NDArray[np.int64]:
    """Assign the blocks of a grid to folds, so that each fold is spread over the whole image.

    Parameters
    ----------
    shape : tuple of int
        The image's spatial shape.
    n_folds : int
        Each axis is cut into ``2 * n_folds`` blocks, or fewer if it has fewer pixels.

    Returns
    -------
    ndarray of int, ``shape``
        The fold 0..n_folds-1 of each pixel.
    """
    total = np.zeros(shape, dtype=np.int64)
    for axis, size in enumerate(shape):
        block = np.arange(size) * (2 * n_folds) // max(size, 2 * n_folds)
        # A different stride along each axis makes a Latin square instead of stripes.
        along = block * (axis + 1 if n_folds % (axis + 1) or axis == 0 else 1)
        total += along.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return total % n_folds
