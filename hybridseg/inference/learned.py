"""The part of a refiner's ``fit`` that learns its parameters from Scenes and label maps."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from hybridseg.base import Refiner, Scene, restored_on_error
from hybridseg.features.boxes import Box
from hybridseg.inference.scene_energy import valid_costs
from hybridseg.learning.examples import Example, MarginModel
from hybridseg.learning.learner import Learnable, Learner, blocks_of
from hybridseg.learning.report import LearningReport
from hybridseg.scene.sequences import as_sources, read_truth
from hybridseg.unary.cross_fit import CrossFit
from hybridseg.validation import as_label_map, as_mask, said_once, warn_caller

#: The size of a window to judge by, as a multiple of that to learn from.
_JUDGED = 16

#: The number of windows of a large image that are compared for their known labels.
_N_WINDOWS = 16


class LearnedRefiner(Refiner):
    """Base class of refiners that learn their parameters if ``learn`` is not None.

    A subclass has the parameters ``learn`` and ``cv``, and the hook
    ``_learnable(examples, learner)``, which returns what
    :meth:`hybridseg.learning.Learner.learn` needs. A subclass that learns in another way defines
    ``_learn_from(scenes, sources, groups)`` instead.

    Attributes
    ----------
    params_ : dict
        The learned parameters: ``DenseCRF(**model.params_)`` refines as the fitted model does.
    learning_ : LearningReport
        The start, the trace of the objective, and the decision of the gate.
    """

    #: With metadata routing, groups of a pipeline reach this step only if it asks for them.
    __metadata_request__fit: ClassVar[dict[str, Any]] = {"groups": False}

    # The defaults of models that were saved before these parameters existed.
    learn: Any = None
    cv: Any = 5
    unary_weight: float = 1.0
    label_bias: ArrayLike | None = None
    kept_labels: ArrayLike | None = None
    params_: dict[str, Any]
    learning_: LearningReport

    @said_once()
    def fit(self, X: Any, y: Any = None, groups: ArrayLike | None = None, **params: Any) -> Self:
        """Fit the inner segmenter, and learn the refiner's parameters if ``learn`` is not None.

        Parameters
        ----------
        X : sequence of images (with ``estimator``) or of Scenes with costs
        y : sequence of label maps, optional
            Needed by the inner segmenter and to learn. Negative pixels and ``ignore_label`` are
            left out.
        groups : array-like, (n_images,), optional
            The images of a group, such as frames of one video, are never on both sides of a split.
        **params
            Metadata for the inner segmenter's ``fit``; only without ``learn``.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            An argument is not as above, or there are ``params`` but no inner segmenter.

        Warns
        -----
        UserWarning
            The costs are known to be in-sample: the segmenter was trained on the same images.
        """
        if self.learn is None:
            with restored_on_error(self):
                self._forget()
                given = params if groups is None else {**params, "groups": groups}
                super().fit(X, y, **given)
            return self
        with restored_on_error(self):
            self._validate_params()
            if params:
                raise TypeError(
                    f"fit got the metadata {sorted(params)}, which learning cannot pass to a "
                    f"segmenter that it fits several times; expected no metadata but groups."
                )
            self._forget()
            scenes = self._costed(X, y, groups)
            self.classes_ = np.asarray(scenes[0].classes)
            self._learn_from(scenes, as_sources(y, len(scenes)), groups)
        return self

    def _learn_from(
        self, scenes: Sequence[Scene], sources: Sequence[Any], groups: ArrayLike | None
    ) -> None:
        """Learn from Scenes with costs and their label maps; set the learned attributes."""
        learner = as_learner(self.learn)
        model = self._learnable(Examples(scenes, sources, self.classes_, learner), learner)
        report = learner.learn(model, len(scenes), len(self.classes_), groups)
        self.learning_, self.params_ = report, dict(report.params)
        if "kept_labels" in self.params_:  # from indices to values
            self.params_["kept_labels"] = self.classes_[self.params_["kept_labels"]]

    def _costed(self, X: Any, y: Any, groups: ArrayLike | None) -> Sequence[Scene]:
        """Return Scenes with costs, those of models that were not trained on the image."""
        if self.estimator is None:
            scenes = self._incoming(X)
            if any(scene.meta.get("out_of_fold") is False for scene in scenes):
                name = type(self).__name__
                warn_caller(
                    f"the costs are in-sample: their segmenter was trained on these images, so it "
                    f"is too sure of itself and {name} learns to trust it too much. Put "
                    f"CrossFit(segmenter) before it, or pass it: {name}(segmenter, cv=5)."
                )
            return scenes
        if isinstance(self.estimator, FrozenEstimator):
            self.estimator_ = self.estimator
            return self._incoming(X)
        if self.cv is None:
            self.estimator_ = clone(self.estimator).fit(X, y)
            warn_caller(
                "cv=None, so learning uses the costs of images that the segmenter was trained on; "
                "it is too sure of itself there. Pass cv=5, or a FrozenEstimator that was trained "
                "on other images."
            )
            return self._incoming(X)
        crossed = CrossFit(clone(self.estimator), cv=self.cv, random_state=None)
        scenes = crossed.fit_transform(X, y, groups)
        self.estimator_ = crossed.segmenter_
        own = self.intensity_range
        if own is None:
            return scenes
        return [scene.replace(intensity_range=own) for scene in scenes]

    def _learnable(self, examples: Examples, learner: Learner) -> Learnable | MarginModel:
        raise TypeError(f"{type(self).__name__} lacks the hook _learnable(examples, learner).")

    def _with_learned(self) -> Self:
        """Return a copy whose parameters are the learned ones; itself if nothing was learned."""
        if self.learn is None or not hasattr(self, "params_"):
            return self
        known = copy.copy(self)
        for name, value in {**self.params_, "learn": None}.items():
            setattr(known, name, value)
        return known

    def _forget(self) -> None:
        """Remove what an earlier fit learned."""
        for name in ("params_", "learning_"):
            if hasattr(self, name):
                delattr(self, name)

    def __sklearn_is_fitted__(self) -> bool:
        learned = self.learn is None or hasattr(self, "params_")
        return learned and super().__sklearn_is_fitted__()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = tags.target_tags.required or self.learn is not None
        return tags


def as_learner(learn: Any) -> Learner:
    """Return the settings that the parameter ``learn`` of a refiner means."""
    return learn if isinstance(learn, Learner) else Learner(learn)


@dataclass(frozen=True, eq=False)
class Examples:
    """Scenes and label maps, read one at a time.

    Attributes
    ----------
    scenes : sequence of Scene
    sources : sequence of label maps or paths
    classes : ndarray of int, (L,)
    learner : Learner
    """

    scenes: Sequence[Scene]
    sources: Sequence[Any]
    classes: NDArray[Any]
    learner: Learner

    def read(
        self, position: int, whole: bool
    ) -> tuple[Scene, Box, NDArray[np.bool_] | None, Example]:
        """Return a Scene, the window of the example, its valid pixels, and the example.

        The ``given`` of the example is None. With ``whole``, the window is the whole image, or
        sixteen times as large as the window to learn from.

        Raises
        ------
        TypeError, ValueError
            The label map does not fit the Scene, or holds a label that is not in the classes.
        """
        scene, truth = self.scenes[position], self.truth(position)
        valid = None if scene.valid is None else as_mask(scene.valid, scene.shape)
        largest = int(self.learner.max_pixels) * (_JUDGED if whole else 1)
        box = _window(truth, largest, position)
        blocks = blocks_of(truth.shape, self.learner, len(self.scenes))
        inside = None if valid is None else valid[box]
        rows = slice(None) if inside is None else inside.ravel()
        costs = valid_costs(scene, valid)[box]
        divided = np.zeros(costs.shape[:-1], np.int64) if blocks is None else blocks[box]
        example = Example(
            np.ascontiguousarray(costs.reshape(-1, costs.shape[-1])[rows], np.float32),
            truth[box].ravel()[rows],
            divided.ravel()[rows],
            None,
        )
        return scene, box, inside, example

    def truth(self, position: int) -> NDArray[np.int64]:
        """Return a label map as indices of the classes, -1 where unknown or not valid.

        Raises
        ------
        TypeError, ValueError
            As :meth:`read`.
        """
        scene = self.scenes[position]
        self._check_classes(scene, position)
        truth = self._indices(scene, self.sources[position], f"y[{position}]")
        if scene.valid is None:
            return truth
        return np.where(as_mask(scene.valid, scene.shape), truth, -1)

    def _check_classes(self, scene: Scene, position: int) -> None:
        if not np.array_equal(np.asarray(scene.classes), self.classes):
            raise ValueError(
                f"X[{position}] has the classes {np.asarray(scene.classes).tolist()}, but X[0] has "
                f"{self.classes.tolist()}; expected the same classes in the same order."
            )

    def _indices(self, scene: Scene, source: Any, name: str) -> NDArray[np.int64]:
        """Return the label map as indices of the classes, -1 where unknown."""
        given = read_truth(scene, source, scene.shape, name)
        values = as_label_map(given, shape=scene.shape, ignore_label=scene.ignore_label, name=name)
        order = np.argsort(self.classes)
        ordered = self.classes[order]
        places = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
        known = values >= 0
        unknown = known & (ordered[places] != values)
        if unknown.any():
            raise ValueError(
                f"{name} holds the label {int(values[unknown][0])}; expected one of the classes "
                f"{self.classes.tolist()}, or a negative value where unknown."
            )
        return np.where(known, order[places], -1)


def _window(truth: NDArray[np.int64], max_pixels: int, seed: int) -> Box:
    """Return the whole image, or a window with many known labels."""
    if truth.size <= max_pixels:
        return tuple(slice(0, side) for side in truth.shape)
    share = (max_pixels / truth.size) ** (1 / truth.ndim)
    sides = [max(1, math.floor(side * share)) for side in truth.shape]
    random = np.random.default_rng(seed)
    best: tuple[int, Box] | None = None
    for _ in range(_N_WINDOWS):
        firsts = [int(random.integers(n - m + 1)) for n, m in zip(truth.shape, sides, strict=True)]
        box = tuple(slice(a, a + m) for a, m in zip(firsts, sides, strict=True))
        count = int(np.count_nonzero(truth[box] >= 0))
        if best is None or count > best[0]:
            best = count, box
    assert best is not None
    return best[1]


def median_of(chosen: Sequence[Mapping[str, float]], name: str) -> float:
    """Return the median of a parameter that "auto" chose for several images."""
    return float(np.median([values[name] for values in chosen]))
