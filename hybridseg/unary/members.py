"""The base class of segmenters that combine the costs of several segmenters, the members."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from numbers import Integral
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.model_selection import check_cv
from sklearn.utils import Bunch
from sklearn.utils.validation import check_is_fitted

from hybridseg.arguments import random_generator
from hybridseg.base import (
    BaseComposition,
    ImageList,
    ProbabilityMixin,
    Scene,
    StrOptions,
    TrainingSet,
    restored_on_error,
)
from hybridseg.scene.costs import RegionCosts
from hybridseg.scene.deferred import Deferred
from hybridseg.scene.sequences import as_scenes
from hybridseg.unary.cross_fit import AlignedCosts, CrossFit, image_splits
from hybridseg.unary.opinion_pool import normalized_costs
from hybridseg.validation import said_once, warn_caller

#: The value of a member that is left out.
DROP = "drop"


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The images that members were not trained on, with the members' costs for them.

    Attributes
    ----------
    training : TrainingSet
        All images, with the classes of the combined segmenter.
    scenes : list of tuple of Scene
        For each image, a Scene with the costs of each member.
    positions : ndarray of int, (N,)
        The positions of the images whose costs are out-of-fold.
    groups : ndarray, (n_images,)
        The group of each image; without groups, its position.
    """

    training: TrainingSet
    scenes: list[tuple[Scene, ...]]
    positions: NDArray[np.intp]
    groups: NDArray[Any]

    def counts(self) -> NDArray[np.int64]:
        """Count the labeled pixels of each class in each image ``(N, L)``, 0 if not held out.

        Raises
        ------
        ValueError
            There are none.
        """
        found = np.zeros((len(self.training), len(self.training.classes)), np.int64)
        found[self.positions] = self.training.counts()[self.positions]
        if not found.any():
            raise ValueError(
                f"the images held out, at the positions {self.positions.tolist()} of X, have no "
                f"labeled pixel; expected some to learn from: use another cv, or label more images."
            )
        return found


class MemberSegmenter(ProbabilityMixin, BaseComposition):
    """Base class of segmenters that combine the costs of several segmenters, the members.

    A subclass has the parameters ``segmenters``, ``cv`` and ``random_state``, and defines the
    hooks:

    ``_learn(held_out)``
        Learn from the :class:`HeldOut` costs. If ``_needs_held_out`` is False, no image is held
        out.
    ``_costs(scene, members)``
        Return the costs of one Scene, from the Scenes of its members.

    Attributes
    ----------
    segmenters_ : list of segmenter
        The members, fitted on all images, without those that are "drop".
    names_ : list of str
        Their names.
    classes_ : ndarray of int, (L,)
        The sorted label values that any member knows.
    spatial_ndim_, n_channels_in_ : int
    """

    segmenters: list[tuple[str, Any]]
    cv: Any
    random_state: Any
    segmenters_: list[Any]
    names_: list[str]
    classes_: NDArray[Any]
    spatial_ndim_: int
    n_channels_in_: int
    _needs_held_out = True
    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "segmenters": [list],
        "cv": [*CrossFit._parameter_constraints["cv"], StrOptions({"prefit"})],
        "random_state": ["random_state"],
    }

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters, with ``deep=True`` also the members and their parameters.

        Parameters
        ----------
        deep : bool, default=True
            Include each member under its name, and its parameters as ``name__parameter``.

        Returns
        -------
        dict from str to parameter
        """
        return self._get_params("segmenters", deep=deep)

    def set_params(self, **params: Any) -> Self:
        """Set parameters, replace members, or set parameters of members.

        Parameters
        ----------
        **params
            ``name=segmenter`` replaces a member, ``name="drop"`` leaves it out, and
            ``name__parameter=value`` sets a parameter of a member.

        Returns
        -------
        self
        """
        self._set_params("segmenters", **params)
        return self

    @property
    def named_segmenters_(self) -> Bunch:
        """The fitted members by name, also as attributes."""
        return Bunch(**dict(zip(self.names_, self.segmenters_, strict=True)))

    @said_once()
    def fit(self, X: Any, y: Any, groups: ArrayLike | None = None) -> Self:
        """Fit the members, and learn to combine their out-of-fold costs.

        Parameters
        ----------
        X : sequence of images, paths or Scenes
        y : sequence of label maps (or paths)
            Negative pixels, and pixels that the members ignore, are left out.
        groups : array-like, (n_images,), optional
            The images of one group are never on both sides of a split.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            A parameter or the input is not as described, or there are fewer images (or groups)
            than folds. The estimator then remains unchanged.

        Warns
        -----
        UserWarning
            A member is a FrozenEstimator, so its costs may be in-sample.
        """
        with restored_on_error(self):
            self._validate_params()
            kept = self._kept()
            training = TrainingSet.read(X, y, None, None, n_least=1)
            self.names_ = [name for name, _ in kept]
            self.spatial_ndim_ = training.spatial_ndim
            self.n_channels_in_ = training.n_channels
            self._learn(self._fit_members([member for _, member in kept], training, groups))
        return self

    def _kept(self) -> list[tuple[str, Any]]:
        """Return the checked members without those that are "drop"."""
        pairs = self.segmenters
        if not all(isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs) or not all(
            isinstance(name, str) for name, _ in pairs
        ):
            raise TypeError(
                f"segmenters={pairs!r}; expected a list of (name, segmenter), such as "
                f"[('pixels', PixelClassifier())]."
            )
        self._validate_names([name for name, _ in pairs])
        kept = [(name, member) for name, member in pairs if not _is_drop(member)]
        if not kept:
            raise ValueError(
                "segmenters holds no segmenter; expected at least one (name, segmenter) that is "
                "not 'drop'."
            )
        for name, member in kept:
            if isinstance(member, type) or not all(
                hasattr(member, method) for method in ("fit", "transform", "predict_proba")
            ):
                plain = isinstance(member, type) or not hasattr(member, "fit")
                told = repr(member) if plain else f"{type(member).__name__}(...)"
                raise TypeError(
                    f"segmenters: {name!r} is {told}; expected a segmenter with fit, transform "
                    f"and predict_proba. A stage that gives labels without probabilities, such as "
                    f"GraphCut, comes after this estimator: "
                    f"make_pipeline({type(self).__name__}(...), GraphCut())."
                )
        return kept

    def _fit_members(
        self, members: list[Any], training: TrainingSet, groups: ArrayLike | None
    ) -> HeldOut:
        """Fit each member on all images; return the costs of the images it was not trained on."""
        X, y = training.scenes, training.sources
        if self.cv == "prefit":
            for member in members:
                check_is_fitted(member)
            self.segmenters_ = list(members)
        elif not self._needs_held_out:
            self.segmenters_ = [clone(member).fit(X, y) for member in members]
        positions = np.arange(len(X) if self._needs_held_out else 0)
        if self.cv == "prefit" or not self._needs_held_out:
            found = [member.transform(X) for member in self.segmenters_]
        else:
            cv, positions = self._shared_folds(training, groups)
            crossed = [CrossFit(member, cv) for member in members]
            found = [each.fit_transform(X, y, groups) for each in crossed]
            self.segmenters_ = [each.segmenter_ for each in crossed]
        self.classes_ = np.unique(np.concatenate([m.classes_ for m in self.segmenters_]))
        scenes = list(zip(*found, strict=True))
        bases = ImageList(base_scene(held, self.classes_) for held in scenes)
        self._check_labels(training, scenes)
        if self.cv != "prefit" and self._needs_held_out:
            self._warn_of_frozen([held[positions[0]] for held in found])
        return HeldOut(
            replace(training, scenes=bases, classes=self.classes_),
            scenes,
            positions,
            np.arange(len(X)) if groups is None else np.asarray(groups),
        )

    def _shared_folds(
        self, training: TrainingSet, groups: ArrayLike | None
    ) -> tuple[Any, NDArray[np.intp]]:
        """Return ``cv`` with the same splits for all members, and the positions held out."""
        if len(training) == 1 and isinstance(self.cv, Integral):
            return int(self.cv), np.arange(1)
        splits = list(image_splits(training.scenes, self.cv, groups, self.random_state))
        return check_cv(splits), np.unique(np.concatenate([test for _, test in splits]))

    def _check_labels(self, training: TrainingSet, scenes: list[tuple[Scene, ...]]) -> None:
        """Refuse labels that no member knows, and members that ignore different labels."""
        ignored: set[int] = set()
        for held in scenes:
            values = {scene.ignore_label for scene in held}
            unlike = [value for value in values if value is not None]
            if len(unlike) > 1 or (None in values and np.isin(unlike, self.classes_).any()):
                stated = {
                    name: scene.ignore_label for name, scene in zip(self.names_, held, strict=True)
                }
                raise ValueError(
                    f"the segmenters ignore different labels: {stated}; expected the same "
                    f"ignore_label in all of them."
                )
            ignored.update(unlike)
        unknown = np.setdiff1d(training.present, [*self.classes_, *ignored])
        if len(unknown):
            raise ValueError(
                f"y holds the labels {unknown.tolist()}, but the segmenters were trained on "
                f"{self.classes_.tolist()}; expected labels of these classes: mark other pixels "
                f"with -1."
            )

    def _warn_of_frozen(self, scenes: list[Scene]) -> None:
        pairs = zip(self.names_, scenes, strict=True)
        frozen = [name for name, scene in pairs if not scene.meta.get("out_of_fold")]
        if frozen:
            warn_caller(
                f"the segmenters {frozen} are frozen, so {type(self).__name__} learns from costs "
                f"that may be in-sample. It then relies too much on an overfitted segmenter. Pass "
                f"them without FrozenEstimator; or, if they were trained on other images than X, "
                f"pass cv='prefit' with all segmenters fitted."
            )

    def transform(self, X: Any) -> ImageList:
        """Convert images to Scenes whose costs are computed when they are first read.

        Parameters
        ----------
        X : sequence of images, paths or Scenes

        Returns
        -------
        ImageList of Scene
            With the regions of the first member that has regions.
        """
        check_is_fitted(self)
        scenes = as_scenes(X, n_channels=self.n_channels_in_, spatial_ndim=self.spatial_ndim_)
        found = [member.transform(scenes) for member in self.segmenters_]
        fitted = copy.copy(self)  # a later fit of this object must not change these Scenes
        return ImageList(fitted._joined(held) for held in zip(*found, strict=True))

    def _joined(self, members: tuple[Scene, ...]) -> Scene:
        known = base_scene(members, self.classes_)
        return known.replace(unary=Deferred(partial(self._costs, members=members), known))

    def member_costs(self, index: int, scene: Scene) -> NDArray[np.float32] | RegionCosts:
        """Return the normalized costs of a member for its Scene, in the order of ``classes_``.

        Parameters
        ----------
        index : int
            The position of the member in ``segmenters_``.
        scene : Scene
            The Scene that the member made.

        Returns
        -------
        ndarray of float32, (*spatial, L), or RegionCosts
            Classes that the member does not know cost ``-log(1e-4)``.
        """
        aligned = AlignedCosts(self.segmenters_[index].classes_, self.classes_)
        by_region = scene.region_costs
        if by_region is None:
            return aligned.align(normalized_costs(scene.unary))
        return RegionCosts(by_region.regions, aligned.align(normalized_costs(by_region.costs)))

    def cost_rows(
        self, members: tuple[Scene, ...], places: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Return the members' costs ``(M, n, L)`` of the pixels at ``places``."""
        rows = []
        for index, scene in enumerate(members):
            costs = self.member_costs(index, scene)
            if isinstance(costs, RegionCosts):
                rows.append(costs.costs[costs.regions.ravel()[places]])
            else:
                rows.append(costs.reshape(-1, costs.shape[-1])[places])
        return np.stack(rows)

    def _generator(self) -> np.random.Generator:
        return random_generator(self.random_state)

    def _learn(self, held_out: HeldOut) -> None:
        raise TypeError(f"{type(self).__name__} lacks the hook _learn(held_out).")

    def _costs(self, scene: Scene, members: tuple[Scene, ...]) -> NDArray[np.float32] | RegionCosts:
        raise TypeError(f"{type(self).__name__} lacks the hook _costs(scene, members).")


def base_scene(members: tuple[Scene, ...], classes: NDArray[Any]) -> Scene:
    """Return the Scene of the first member without costs, with regions if any member has them."""
    regions = [scene.source("regions") for scene in members]
    ignored = [scene.ignore_label for scene in members]
    return members[0].replace(
        unary=None,
        labels=None,
        classes=classes,
        regions=next((found for found in regions if found is not None), None),
        ignore_label=next((found for found in ignored if found is not None), None),
    )


def _is_drop(member: Any) -> bool:
    return isinstance(member, str) and member == DROP
