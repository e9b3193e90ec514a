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
from sklearn.utils import check_random_state

from hybridseg.base import HasMethods, Interval, StrOptions
from hybridseg.learning.examples import Example, MarginModel, Part
from hybridseg.learning.folds import folds_of
from hybridseg.learning.judgment import CanSpare, judge
from hybridseg.learning.max_margin import Oracle, max_margin
from hybridseg.learning.objectives import OBJECTIVES, make_objective, weights_of_classes
from hybridseg.learning.optimizers import OPTIMIZERS, adam, lbfgs
from hybridseg.learning.report import LearningReport, Step
from hybridseg.unary.cross_fit import block_folds
from hybridseg.validation import warn_caller

Singles = NDArray[np.float32]
Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]

#: The largest size of the records of a batch that are kept at once, in bytes. Others are computed a
#: second time.
_MAX_RECORD_BYTES = 2**30

#: The largest size of the examples that are kept in memory, in bytes. Others are read at each use.
_MAX_EXAMPLE_BYTES = 2**30

#: The default number of steps, and that for weights alone.
_N_STEPS, _N_STEPS_OF_WEIGHTS = 40, 16

#: The number of images on which starting points are compared.
_N_TRIAL_IMAGES = 4


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

    A graph cut has no marginals. :class:`hybridseg.GraphCut` learns by a maximum margin instead,
    see there, and the same gate decides. It reads ``what``, ``class_weight``, ``max_iter`` (sweeps
    over the images, 40 by default), ``alpha`` (half of it times the squared distance from the start
    is added), ``cv``, ``tolerance``, ``max_pixels`` and ``random_state``, and refuses other values
    than the default for the rest.

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
    max_iter : int, optional
        The number of steps. Default: 16 with ``what="weights"``, which are a few numbers, and 40
        otherwise. Learning starts at a quarter, one or four times the given weights, and sixteen
        steps change a weight by a factor of about 2.5. If the given weights may be far off, take
        40, which reach a factor of 9.
    batch_size : int, default=3
        The number of images of a step of Adam.
    alpha : float, default=0.003
        The penalty on compatibilities that differ from the given one, and on biases: half of it
        times the sum of squares of the biases and of the logarithms of the compatibility's factors
        is added to the objective. A larger value is more careful: images to come may combine labels
        as the training images do not.
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
        "max_iter": [Interval(Integral, 1, None, closed="left"), None],
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
        max_iter: int | None = None,
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

    @property
    def n_steps(self) -> int:
        """The number of steps, with the default resolved."""
        if self.max_iter is not None:
            return int(self.max_iter)
        few = self.what == "weights" or tuple(self.what) == ("weights",)
        return _N_STEPS_OF_WEIGHTS if few else _N_STEPS

    def learn(
        self,
        model: Learnable | MarginModel,
        n_images: int,
        n_labels: int,
        groups: ArrayLike | None = None,
    ) -> LearningReport:
        """Learn the parameters of a model from its examples.

        Parameters
        ----------
        model : Learnable or MarginModel
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
        work: _Work | _MarginWork
        if isinstance(model, MarginModel):
            work = _MarginWork(self, model, n_images, n_labels)
        else:
            work = _Work(self, model, n_images, n_labels)
        folds = list(self._folds(n_images, groups))
        fits = [work.minimize(train) for train, _ in folds] or [work.minimize(work.everything)]
        point, chosen, gate = np.mean([fit.point for fit in fits], axis=0), model, None
        if folds:
            held = [
                (fit.point, p) for fit, (_, test) in zip(fits, folds, strict=True) for p in test
            ]
            gate = judge(model, held, n_labels, float(self.tolerance))
            point = model.weakened(point, gate.chosen)
            if gate.chosen_spared and isinstance(model, CanSpare):
                chosen = model.sparing(gate.chosen_spared)
        return LearningReport(
            params=chosen.values(point),
            start=model.values(fits[0].start),
            steps=tuple(step for fit in fits for step in fit.steps),
            gate=gate,
            objective=work.name,
            seconds=time.perf_counter() - began,
        )

    def _folds(
        self, n_images: int, groups: ArrayLike | None
    ) -> Iterator[tuple[list[Part], list[Part]]]:
        """Return the parts of each fold to learn from, and those to judge by."""
        for train, test in folds_of(self.cv, n_images, groups, self.random_state):
            yield [Part(*each) for each in train], [Part(*each) for each in test]


@dataclass(frozen=True, eq=False)
class _Fit:
    """What was learned from some images: the start, the point (P,), and the steps between."""

    start: Doubles
    point: Doubles
    steps: list[Step]


class _Task:
    """The examples of one call of `Learner.learn`, the weights of classes, and the judgment."""

    def __init__(
        self, settings: Learner, model: Learnable | MarginModel, n_images: int, n_labels: int
    ) -> None:
        self.settings, self.judged, self.n_labels = settings, model, n_labels
        self.everything = [Part(i, None) for i in range(n_images)]
        self._kept: dict[int, Example] = {}
        self._size = 0
        self.random = check_random_state(settings.random_state)
        self.class_weight = self._class_weight()

    def example(self, position: int) -> Example:
        """Return an example, from memory or read now."""
        if position in self._kept:
            return self._kept[position]
        example = self.judged.example(position, False)
        if self._size + example.nbytes <= _MAX_EXAMPLE_BYTES:
            self._kept[position] = example
            self._size += example.nbytes
        return example

    def _class_weight(self) -> Doubles:
        counts = np.zeros(self.n_labels)
        for part in self.everything:
            truth = self.example(part.position).truth
            counts += np.bincount(truth[truth >= 0], minlength=self.n_labels)
        if not counts.any():
            raise ValueError(
                "y holds no known label at any valid pixel, so there is nothing to learn from; "
                "expected label maps in the values of classes_, negative only where unknown."
            )
        return weights_of_classes(self.settings.class_weight, counts)


class _Work(_Task):
    """A model that learns by the gradient of an objective."""

    def __init__(self, settings: Learner, model: Learnable, n_images: int, n_labels: int) -> None:
        super().__init__(settings, model, n_images, n_labels)
        self.model, self.name = model, settings.objective
        self.objective = make_objective(settings.objective, self.class_weight)

    def best_start(self, parts: Sequence[Part]) -> Doubles:
        """Return the starting point with the lowest loss on a few of the images to learn from."""
        starts = list(self.model.starts())
        if len(starts) == 1:
            return starts[0]
        chosen = np.unique(np.linspace(0, len(parts) - 1, _N_TRIAL_IMAGES).astype(int))
        losses = [self.loss(start, [parts[i] for i in chosen]) for start in starts]
        return starts[int(np.argmin(losses))]

    def loss(self, point: Doubles, parts: Sequence[Part]) -> float:
        """Return the objective of some images."""
        sums = np.zeros((3, self.n_labels))
        for part in parts:
            example = self.example(part.position)
            marginals = self.model.record(point, example).marginals
            sums += self.objective.measure(marginals, part.truth(example))
        return self.objective.loss(sums)

    def evaluate(self, point: Doubles, parts: Sequence[Part]) -> tuple[float, Doubles]:
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

    def minimize(self, parts: list[Part]) -> _Fit:
        """Minimize the objective of some images."""
        settings, start = self.settings, self.best_start(parts)
        steps: list[Step] = []
        began = time.perf_counter()

        def note(number: int, loss: float) -> None:
            steps.append(Step(number, loss, time.perf_counter() - began))

        if settings.optimizer == "lbfgs":
            point = lbfgs(lambda at, _: self.evaluate(at, parts), start, settings.n_steps, note)
            return self._checked(start, point, steps)
        batches = self._batches(parts)

        def of_batch(at: Doubles, _: int) -> tuple[float, Doubles]:
            return self.evaluate(at, next(batches))

        point = adam(of_batch, start, settings.n_steps, settings.learning_rate, note)
        return self._checked(start, point, steps)

    def _checked(self, start: Doubles, point: Doubles, steps: list[Step]) -> _Fit:
        if np.isfinite(point).all():
            return _Fit(start, point, steps)
        warn_caller(
            "learning diverged, so the parameters remain at their start; lower learning_rate, or "
            "scale the costs."
        )
        return _Fit(start, start, steps)

    def _batches(self, parts: list[Part]) -> Iterator[list[Part]]:
        """Return batches without end; each image is used once before any is used again."""
        size = min(int(self.settings.batch_size), len(parts))
        waiting: list[int] = []
        while True:
            if len(waiting) < size:
                waiting += self.random.permutation(len(parts)).tolist()
            batch, waiting = waiting[:size], waiting[size:]
            yield [parts[i] for i in batch]


class _MarginWork(_Task):
    """A model that learns by a maximum margin."""

    name = "max_margin"

    def __init__(self, settings: Learner, model: MarginModel, n_images: int, n_labels: int) -> None:
        default = Learner()
        for name in ("objective", "optimizer", "batch_size", "learning_rate", "n_iter"):
            given, expected = getattr(settings, name), getattr(default, name)
            if given != expected:
                raise ValueError(
                    f"{name}={given!r} is for gradients, but this refiner learns by a maximum "
                    f"margin; leave {name} at its default, {expected!r}."
                )
        if settings.alpha == 0:
            raise ValueError(
                "alpha=0, but a maximum margin needs a penalty; expected a number above 0, such "
                "as 0.003."
            )
        super().__init__(settings, model, n_images, n_labels)
        self.model = model

    def minimize(self, parts: list[Part]) -> _Fit:
        """Minimize the hinge losses of some images; the steps are the sweeps made."""
        steps: list[Step] = []
        began = time.perf_counter()

        def oracle(part: Part) -> Oracle:
            def largest(point: Doubles) -> Doubles:  # built at each call, to save memory
                example = self.example(part.position)
                return self.model.oracle(example, part.truth(example), self.class_weight)(point)

            return largest

        found = max_margin(
            [oracle(part) for part in parts],
            self.model.center,
            self.model.lower,
            alpha=float(self.settings.alpha),
            max_iter=self.settings.max_iter or _N_STEPS,
            random=self.random,
            note=lambda number, loss: steps.append(Step(number, loss, time.perf_counter() - began)),
        )
        return _Fit(self.model.center, found.point, steps)


def blocks_of(shape: tuple[int, ...], learner: Learner, n_images: int) -> NDArray[np.int64] | None:
    """Return the block of each pixel if a single image is divided into folds."""
    if n_images > 1 or not isinstance(learner.cv, Integral):
        return None
    return block_folds(shape, int(learner.cv))
