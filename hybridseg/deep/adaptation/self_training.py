"""Self-training: a network is trained further on its most confident predictions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from hybridseg.base import ImageList
from hybridseg.deep.adaptation.adapted import Rounds, Trained, copied
from hybridseg.deep.segmenter import DeepSegmenter
from hybridseg.validation import as_mask, check_number, warn_caller

#: The approximate maximum number of pixels of a class from which its threshold is computed.
_MAX_SAMPLE = 1_000_000

#: Parameters that are switched off for a training on pseudo-labels.
_UNUSED = {"validation": None, "patience": None, "checkpoint": None, "callbacks": None}


@dataclass(frozen=True)
class SelfTraining:
    """Adapt a network by training it further on its most confident predictions [1]_.

    A method of :class:`hybridseg.DomainAdapter`. The predictions serve as labels (pseudo-labels).
    The most confident pixels of each class are selected separately, so that rare classes are not
    lost. The whole network is trained on them with a low learning rate, and with the crops,
    augmentation and loss of its DeepSegmenter. The method helps if most predictions are correct
    before. If the network has batch normalization, put :class:`BatchStatistics` before it.

    Parameters
    ----------
    rounds : int
        The number of rounds. Each round predicts pseudo-labels and trains the network on them.
    epochs : int
        The ``max_epochs`` of each round's training.
    lr : float
        The highest learning rate of a round; at most a tenth of the one in the first training.
    portion : float
        The fraction of the pixels of each class that get a pseudo-label, in (0, 1].
    refiner : refiner, optional
        A refiner for the pseudo-labels, such as ``DenseCRF()`` or ``GraphCut()``. Refined labels
        follow the edges of the image, and the network learns to do so.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Warns
    -----
    UserWarning
        The network predicts a single class, so it cannot be trained on its predictions.

    References
    ----------
    .. [1] Y. Zou, Z. Yu, B. V. K. Vijaya Kumar, J. Wang, "Unsupervised domain adaptation for
       semantic segmentation via class-balanced self-training", ECCV, 2018.

    Examples
    --------
    >>> from hybridseg import DeepSegmenter, DomainAdapter, GraphCut
    >>> from hybridseg.datasets import make_scenes
    >>> from hybridseg.deep import SelfTraining
    >>> day = make_scenes(2, shape=(24, 32), random_state=0)
    >>> model = DeepSegmenter(
    ...     network_options={"width": 4, "depth": 1}, max_epochs=2, crop_size=16, random_state=0
    ... ).fit(day.images, day.labels)
    >>> method = SelfTraining(rounds=1, epochs=1, refiner=GraphCut())
    >>> adapter = DomainAdapter(model, method, random_state=0)
    >>> adapter.fit([image // 2 for image in day.images]).predict(day.images)[0].shape
    (24, 32)
    """

    rounds: int = 2
    epochs: int = 5
    lr: float = 3e-4
    portion: float = 0.5
    refiner: Any = None

    name: ClassVar[str] = "self_training"
    must_be_surer: ClassVar[bool] = False  # a good round of self-training may raise the entropy

    def __post_init__(self) -> None:
        check_number(self.rounds, "rounds", minimum=1, integer=True)
        check_number(self.epochs, "epochs", minimum=1, integer=True)
        check_number(self.lr, "lr", minimum=0, strict=True)
        check_number(self.portion, "portion", minimum=0, strict=True)
        check_number(self.portion, "portion", maximum=1)
        if self.refiner is not None and not hasattr(self.refiner, "transform"):
            raise TypeError(
                f"refiner is a {type(self.refiner).__name__}; expected a refiner or None: pass "
                f"DenseCRF(), say."
            )
        if getattr(self.refiner, "estimator", None) is not None:
            raise ValueError(
                f"refiner={self.refiner!r} has an estimator of its own; expected a refiner of the "
                f"segmenter's costs: pass {type(self.refiner).__name__}() without an estimator."
            )

    def check(self, segmenter: Trained) -> None:
        """Refuse a segmenter that this method cannot adapt.

        Raises
        ------
        ValueError
            The segmenter is not a DeepSegmenter.
        """
        if not isinstance(segmenter, DeepSegmenter):
            raise ValueError(
                "method='self_training' needs a DeepSegmenter, which has the settings of a "
                "training; for a PretrainedSegmenter, use 'batch_statistics' or 'entropy'."
            )

    def rounds_of(self, segmenter: Trained, scenes: ImageList, rng: np.random.Generator) -> Rounds:
        """Yield the adapted copies of a segmenter, one after each round."""
        for _ in range(self.rounds):
            refiner = None if self.refiner is None else clone(self.refiner)
            labels = pseudo_labels(
                segmenter.transform(scenes), refiner, segmenter.classes_, self.portion
            )
            if n_labeled_classes(labels) < 2:
                warn_caller(
                    "'self_training' ended, because the network predicts only one class; adapt "
                    "with 'batch_statistics' first.",
                )
                return
            learner = copied(segmenter).set_params(
                max_epochs=self.epochs,
                lr=self.lr,
                random_state=int(rng.integers(2**31)),
                **_UNUSED,
            )
            learner.partial_fit(scenes, labels)
            segmenter = copied(segmenter)
            segmenter.net_ = learner.net_
            yield segmenter, labeled_fraction(labels)


def pseudo_labels(
    scenes: ImageList, refiner: Any, classes: NDArray[Any], portion: float
) -> list[NDArray[Any]]:
    """Label maps with the most confident pixels of each class, and -1 elsewhere.

    The label of a pixel is that of the refiner, or the network's own if there is no refiner. The
    network's cost of this label measures the confidence: lower is more confident. A threshold for
    each class keeps the fraction ``portion`` of its pixels over all images [1]_. So rare classes,
    for which networks are less confident, are not lost. In contrast to the paper, the thresholds do
    not change the label of a pixel.

    Parameters
    ----------
    scenes : ImageList of Scene
        Scenes with costs ``(*spatial, L)``.
    refiner : refiner or None
    classes : ndarray of int, (L,)
        All label values, sorted.
    portion : float
        In (0, 1].

    Returns
    -------
    list of ndarray of int, (*spatial,)
        Label values of ``classes``, or -1.

    References
    ----------
    .. [1] Y. Zou, Z. Yu, B. V. K. Vijaya Kumar, J. Wang, "Unsupervised domain adaptation for
       semantic segmentation via class-balanced self-training", ECCV, 2018, section 4.1,
       algorithm 2.
    """
    small = np.min_scalar_type(-max(len(classes), 2))
    labels, costs = [], []
    for scene in scenes:
        found, cost = _labeled(scene, refiner, classes)
        labels.append(found.astype(small))
        costs.append(cost.astype(np.float16))  # precise near 0, where the thresholds lie
    limits = _thresholds(labels, costs, len(classes), portion)
    values = np.append(classes, -1).astype(np.min_scalar_type(-int(max(classes.max(), 2)) - 1))
    return [
        values[np.where(cost <= limits[found], found, -1)]
        for found, cost in zip(labels, costs, strict=True)
    ]


def _labeled(
    scene: Any, refiner: Any, classes: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Class indices ``(*spatial,)``, -1 at pixels that are not valid, and their costs."""
    unary = scene.unary
    final = scene if refiner is None else refiner.transform([scene])[0]
    prediction = final.prediction
    found = np.searchsorted(classes, prediction)
    found[prediction < 0] = -1
    if scene.valid is not None:
        found[~as_mask(scene.valid, found.shape)] = -1
    cost = np.take_along_axis(unary, np.maximum(found, 0)[..., np.newaxis], axis=-1)[..., 0]
    return found, cost


def _thresholds(
    labels: list[NDArray[Any]], costs: list[NDArray[np.float16]], n_classes: int, portion: float
) -> NDArray[np.float16]:
    """The costs (L,) below which the fraction ``portion`` of each class's pixels lie."""
    counts = np.zeros(n_classes, dtype=np.int64)
    for found in labels:
        counts += np.bincount(found[found >= 0], minlength=n_classes)
    limits = np.full(n_classes, -np.inf, dtype=np.float16)
    for index in np.flatnonzero(counts):
        every = -(-int(counts[index]) // _MAX_SAMPLE)
        known = [cost[found == index][::every] for found, cost in zip(labels, costs, strict=True)]
        limits[index] = np.quantile(np.concatenate(known), portion, method="inverted_cdf")
    return limits


def labeled_fraction(labels: list[NDArray[Any]]) -> float:
    """The fraction of all pixels that have a label."""
    return sum(int((found >= 0).sum()) for found in labels) / sum(found.size for found in labels)


def n_labeled_classes(labels: list[NDArray[Any]]) -> int:
    """The number of classes that occur as labels."""
    present = set().union(*(np.unique(found).tolist() for found in labels))
    return len(present - {-1})
