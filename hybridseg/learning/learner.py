"""How parameters are learned: by the gradient of an objective, and judged on held-out images."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.model_selection import GroupKFold, KFold, check_cv
from sklearn.utils import check_random_state

from hybridseg.base import HasMethods, Interval, StrOptions
from hybridseg.learning.gate import GateReport
from hybridseg.learning.judgment import judge
from hybridseg.learning.objectives import OBJECTIVES, Objective, make_objective
from hybridseg.learning.optimizers import OPTIMIZERS, adam, lbfgs
from hybridseg.learning.report import LearningReport, Step
from hybridseg.unary.cross_fit import block_folds
from hybridseg.validation import as_numbers, warn_caller

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]

#: The largest size of the records of a batch that are kept at once, in bytes. Others are computed a
#: second time.
_MAX_RECORD_BYTES = 2**30

#: The largest size of the examples that are kept in memory, in bytes. Others are read at each use.
_MAX_EXAMPLE_BYTES = 2**30

#: The number of images on which starting points are compared.
_N_TRIAL_IMAGES = 4


@dataclass(frozen=True, eq=False)
class Example:
    """An image, or a window of it, to learn from.

    Attributes
    ----------
    costs : ndarray of float32, (n, L)
        The costs of its n valid pixels.
    truth : ndarray of int64, (n,)
        Their true label indices, -1 where unknown.
    blocks : ndarray of int64, (n,)
        The block of each pixel, if a single image is divided into folds; else all 0.
    given : Any
        What the model needs besides.
    """

    costs: Singles
    truth: Longs
    blocks: Longs
    given: Any

    @property
    def nbytes(self) -> int:
        """The size in bytes, with that of ``given``."""
        own = self.costs.nbytes + self.truth.nbytes + self.blocks.nbytes
        return int(own + getattr(self.given, "nbytes", 0))


class Recorded(Protocol):
    """The result of a model for an example, which can be differentiated."""

    @property
    def marginals(self) -> Singles:
        """Those of each label, (n, L)."""

    @property
    def nbytes(self) -> int:
        """The size in bytes."""

    def gradient(self, given: Singles) -> Doubles:
        """Return the gradient (P,) by the parameters, given that by the marginals (n, L)."""


class Learnable(Protocol):
    """A model whose parameters are a vector (P,)."""

    def example(self, position: int, whole: bool) -> Example:
        """Read a window of an image and its truth, or, to judge, the whole image."""

    def starts(self) -> Sequence[Doubles]:
        """Return points from which learning may start; each changes the marginals."""

    def record(self, point: Doubles, example: Example) -> Recorded:
        """Compute the marginals of an example, to be differentiated."""

    def predict(self, point: Doubles, example: Example) -> NDArray[np.integer[Any]]:
        """Return the label indices (n,) of an example."""

    def weakened(self, point: Doubles, strength: float) -> Doubles:
        """Return the point at a strength of 0, which changes nothing, to 1, which is the point."""

    def penalty(self, point: Doubles, strength: float) -> tuple[float, Doubles]:
        """Return a penalty on what makes labels differ, and its gradient (P,)."""

    def values(self, point: Doubles) -> dict[str, Any]:
        """Return the parameters by name."""


class Learner(BaseEstimator):
    """Settings for learning a refiner's parameters, such as ``DenseCRF(learn=Learner(...))``.

    A loss of the marginals is minimized by its gradient, which is passed backwards through all
    iterations of mean field [1]_. Then a gate decides on images that were not learned from: it
    weakens what was learned, down to nothing if necessary, and spares classes that would lose,
    until no class loses IoU and the mean IoU surely rises.

    Parameters
    ----------
    what : {"weights", "all"} or sequence of str, default="all"
        The parameters to learn. ``"weights"``: the weights of the costs and of all terms.
        ``"all"``: also the widths of the kernels and the label compatibility. Or some of
        "weights", "widths", "compatibility" and "bias", a cost of each label at every pixel. A
        bias adapts to how often labels occur in the training images; it does harm where they occur
        more or less often.
    objective : {"iou", "dice", "log_likelihood"}, default="iou"
        The mean IoU or the mean Dice coefficient of the expected counts of a batch, or the mean
        logarithm of the true labels' marginals.
    class_weight : "balanced" or array-like, (L,), optional
        The weight of each class in the objective, in the order of ``classes_``. "balanced" weights
        a class by the inverse of its frequency, which suits "log_likelihood".
    optimizer : {"adam", "lbfgs"}, default="adam"
        Adam takes steps on batches of images. L-BFGS uses all images in each step, which suits few
        images and "weights".
    max_iter : int, default=40
        The number of steps.
    batch_size : int, default=3
        The number of images of a step of Adam.
    alpha : float, default=0.003
        The penalty on compatibilities of single pairs of labels, and on biases: half of it times
        the sum of squares of the logarithms of their factors is added to the objective. A larger
        value is more careful: images to come may combine labels as the training images do not. A
        factor of each label has no penalty.
    learning_rate : float, default=0.1
        The first step of Adam, in the logarithm of weights and widths. It falls to a tenth.
    n_iter : int, default=5
        Iterations of mean field while learning, if the refiner makes more.
    cv : int, splitter or None, default=3
        The folds of the gate. The parameters of each fold are judged on the other images, and
        their mean is used. The blocks of a single image serve as images. None learns from all
        images without a gate, and so without protection.
    tolerance : float, default=0.005
        The loss of a class's IoU on held-out images that the gate accepts.
    max_pixels : int, default=65536
        A larger image contributes a window of this size, where labels are known. The gate judges
        by windows that are sixteen times as large.
    random_state : int, RandomState or None
        The seed of batches and windows.

    References
    ----------
    .. [1] P. Krähenbühl, V. Koltun, "Parameter learning and convergent inference for dense random
       fields", ICML, 2013.

    Examples
    --------
    >>> from hybridseg import DenseCRF
    >>> from hybridseg.learning import Learner
    >>> crf = DenseCRF(learn=Learner("weights", objective="log_likelihood", max_iter=20))
    >>> crf.set_params(learn__max_iter=30).learn.max_iter
    30
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "what": [StrOptions({"weights", "all"}), tuple, list],
        "objective": [StrOptions(set(OBJECTIVES))],
        "class_weight": [StrOptions({"balanced"}), "array-like", None],
        "optimizer": [StrOptions(set(OPTIMIZERS))],
        "max_iter": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "alpha": [Interval(Real, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "n_iter": [Interval(Integral, 1, None, closed="left")],
        "cv": [
            Interval(Integral, 2, None, closed="left"),
            HasMethods(["split", "get_n_splits"]),
            None,
        ],
        "tolerance": [Interval(Real, 0, 1, closed="left")],
        "max_pixels": [Interval(Integral, 1, None, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        what: str | Sequence[str] = "all",
        *,
        objective: str = "iou",
        class_weight: str | ArrayLike | None = None,
        optimizer: str = "adam",
        max_iter: int = 40,
        batch_size: int = 3,
        alpha: float = 0.003,
        learning_rate: float = 0.1,
        n_iter: int = 5,
        cv: Any = 3,
        tolerance: float = 0.005,
        max_pixels: int = 2**16,
        random_state: Any = None,
    ) -> None:
        self.what = what
        self.objective = objective
        self.class_weight = class_weight
        self.optimizer = optimizer
        self.max_iter = max_iter
        self.batch_size = batch_size
        self.alpha = alpha
        self.learning_rate = learning_rate
        self.n_iter = n_iter
        self.cv = cv
        self.tolerance = tolerance
        self.max_pixels = max_pixels
        self.random_state = random_state

    def learn(
        self, model: Learnable, n_images: int, n_labels: int, groups: ArrayLike | None = None
    ) -> LearningReport:
        """Learn the parameters of a model from its examples.

        Parameters
        ----------
        model : Learnable
        n_images : int
        n_labels : int
        groups : array-like, (n_images,), optional
            The images of a group are never on both sides of a split.

        Returns
        -------
        LearningReport

        Raises
        ------
        TypeError, ValueError
            A parameter is not as described, or no pixel of the images has a known label.
        """
        self._validate_params()
        began = time.perf_counter()
        work = _Work(self, model, n_images, n_labels)
        folds = list(self._folds(n_images, groups))
        if not folds:
            point, steps = work.minimize(work.everything)
            return self._report(model, work, point, steps, None, began)
        points, steps, held = [], [], []
        for train, test in folds:
            point, made = work.minimize(train)
            points.append(point)
            steps += made
            held += [(point, part) for part in test]
        gate = judge(model, held, n_labels, float(self.tolerance))
        point = model.weakened(np.mean(points, axis=0), gate.chosen)
        if gate.chosen_spared:
            model = model.sparing(gate.chosen_spared)  # type: ignore[attr-defined]
        return self._report(model, work, point, steps, gate, began)

    def _report(
        self,
        model: Learnable,
        work: _Work,
        point: Doubles,
        steps: list[Step],
        gate: GateReport | None,
        began: float,
    ) -> LearningReport:
        return LearningReport(
            params=model.values(point),
            start=model.values(work.start),
            steps=tuple(steps),
            gate=gate,
            objective=self.objective,
            seconds=time.perf_counter() - began,
        )

    def _folds(
        self, n_images: int, groups: ArrayLike | None
    ) -> Iterator[tuple[list[_Part], list[_Part]]]:
        """Return the parts of each fold to learn from, and those to judge by."""
        if self.cv is None:
            return
        if n_images == 1 and isinstance(self.cv, Integral):
            for fold in range(int(self.cv)):
                others = tuple(other for other in range(int(self.cv)) if other != fold)
                yield [_Part(0, others)], [_Part(0, (fold,))]
            return
        splitter = self.cv if not isinstance(self.cv, Integral) else None
        if splitter is None:
            n_units = n_images if groups is None else len(np.unique(np.asarray(groups)))
            n_folds = min(int(self.cv), n_units)
            if n_folds < 2:
                raise ValueError(
                    f"groups has {n_units} group for {n_images} images; expected at least two "
                    f"groups, one to learn from and one to judge by: pass cv=None to learn without "
                    f"a gate."
                )
            seed = check_random_state(self.random_state).randint(2**31 - 1)
            splitter = (
                KFold(n_folds, shuffle=True, random_state=seed)
                if groups is None
                else GroupKFold(n_folds)
            )
        images = np.arange(n_images)
        for train, test in check_cv(splitter).split(images, groups=groups):
            yield [_Part(int(i), None) for i in train], [_Part(int(i), None) for i in test]


@dataclass(frozen=True)
class _Part:
    """An image, or some blocks of it."""

    position: int
    blocks: tuple[int, ...] | None

    def truth(self, example: Example) -> Longs:
        """Return the truth of this part, -1 elsewhere."""
        if self.blocks is None:
            return example.truth
        return np.where(np.isin(example.blocks, self.blocks), example.truth, -1)


class _Work:
    """The examples of one call of `Learner.learn`, and the objective."""

    def __init__(self, settings: Learner, model: Learnable, n_images: int, n_labels: int) -> None:
        self.settings, self.model, self.n_labels = settings, model, n_labels
        self.everything = [_Part(i, None) for i in range(n_images)]
        self._kept: dict[int, Example] = {}
        self._size = 0
        self.random = check_random_state(settings.random_state)
        self.objective = self._objective()
        self.start = self._best_start()

    def example(self, position: int) -> Example:
        """Return an example, from memory or read now."""
        if position in self._kept:
            return self._kept[position]
        example = self.model.example(position, False)
        if self._size + example.nbytes <= _MAX_EXAMPLE_BYTES:
            self._kept[position] = example
            self._size += example.nbytes
        return example

    def _objective(self) -> Objective:
        counts = np.zeros(self.n_labels)
        for part in self.everything:
            truth = self.example(part.position).truth
            counts += np.bincount(truth[truth >= 0], minlength=self.n_labels)
        if not counts.any():
            raise ValueError(
                "y holds no known label at any valid pixel, so there is nothing to learn from; "
                "expected label maps in the values of classes_, negative only where unknown."
            )
        given = self.settings.class_weight
        if given is None:
            weight = np.ones(self.n_labels)
        elif isinstance(given, str):
            present = counts > 0
            weight = np.where(present, counts.sum() / np.maximum(counts, 1) / present.sum(), 0.0)
        else:
            weight = as_numbers(given, "class_weight").astype(np.float64)
            if weight.shape != (self.n_labels,) or not (weight >= 0).all() or not weight.any():
                raise ValueError(
                    f"class_weight={given!r}; expected {self.n_labels} numbers >= 0, one for each "
                    f"class."
                )
        return make_objective(self.settings.objective, weight)

    def _best_start(self) -> Doubles:
        """Return the starting point with the lowest loss on a few images."""
        starts = list(self.model.starts())
        if len(starts) == 1:
            return starts[0]
        chosen = np.linspace(0, len(self.everything) - 1, _N_TRIAL_IMAGES).astype(int)
        parts = [self.everything[i] for i in np.unique(chosen)]
        losses = [self.loss(start, parts) for start in starts]
        return starts[int(np.argmin(losses))]

    def loss(self, point: Doubles, parts: Sequence[_Part]) -> float:
        """Return the objective of some images."""
        sums = np.zeros((3, self.n_labels))
        for part in parts:
            example = self.example(part.position)
            marginals = self.model.record(point, example).marginals
            sums += self.objective.measure(marginals, part.truth(example))
        return self.objective.loss(sums)

    def evaluate(self, point: Doubles, parts: Sequence[_Part]) -> tuple[float, Doubles]:
        """Return the objective of some images and its gradient by the parameters."""
        sums, size = np.zeros((3, self.n_labels)), 0
        kept: list[Recorded | None] = []
        for part in parts:
            example = self.example(part.position)
            recorded = self.model.record(point, example)
            sums += self.objective.measure(recorded.marginals, part.truth(example))
            size += recorded.nbytes
            kept.append(recorded if size <= _MAX_RECORD_BYTES else None)
        gradient = np.zeros_like(point)
        for part, known in zip(parts, kept, strict=True):
            example = self.example(part.position)
            recorded = known or self.model.record(point, example)
            truth = part.truth(example)
            gradient += recorded.gradient(self.objective.gradient(recorded.marginals, truth, sums))
        penalty, slope = self.model.penalty(point, float(self.settings.alpha))
        return self.objective.loss(sums) + penalty, gradient + slope

    def minimize(self, parts: list[_Part]) -> tuple[Doubles, list[Step]]:
        """Minimize the objective of some images; return the point and the steps made."""
        settings, steps = self.settings, []
        began = time.perf_counter()

        def note(number: int, loss: float) -> None:
            steps.append(Step(number, loss, time.perf_counter() - began))

        if settings.optimizer == "lbfgs":
            point = lbfgs(
                lambda at, _: self.evaluate(at, parts), self.start, settings.max_iter, note
            )
            return self._checked(point), steps
        batches = self._batches(parts)

        def of_batch(at: Doubles, _: int) -> tuple[float, Doubles]:
            return self.evaluate(at, next(batches))

        point = adam(of_batch, self.start, settings.max_iter, settings.learning_rate, note)
        return self._checked(point), steps

    def _checked(self, point: Doubles) -> Doubles:
        if np.isfinite(point).all():
            return point
        warn_caller(
            "learning diverged, so the parameters remain at their start; lower learning_rate, or "
            "scale the costs."
        )
        return self.start

    def _batches(self, parts: list[_Part]) -> Iterator[list[_Part]]:
        """Return batches without end; each image is used once before any is used again."""
        size = min(int(self.settings.batch_size), len(parts))
        waiting: list[int] = []
        while True:
            if len(waiting) < size:
                waiting += self.random.permutation(len(parts)).tolist()
            batch, waiting = waiting[:size], waiting[size:]
            yield [parts[i] for i in batch]


def blocks_of(shape: tuple[int, ...], learner: Learner, n_images: int) -> NDArray[np.int64] | None:
    """Return the block of each pixel if a single image is divided into folds."""
    if n_images > 1 or not isinstance(learner.cv, Integral):
        return None
    return block_folds(shape, int(learner.cv))
