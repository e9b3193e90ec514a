"""Self-training: a network trained further on its own surest labels."""

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

#: Thresholds are read off at most about this many pixels of each class.
_MAX_SAMPLE = 1_000_000

#: Parameters that do not apply to a training on pseudo-labels.
_UNUSED = {"validation": None, "patience": None, "checkpoint": None, "callbacks": None}


@dataclass(frozen=True)
class SelfTraining:
    """Adapt a network by training it further on its own surest labels [1]_.

    A method of :class:`hybridseg.DomainAdapter`. The whole network is trained at a low rate, with
    the crops, augmentation and loss of its DeepSegmenter, on the surest pixels of each class as if
    they had been labeled, so that rare classes are not lost. It helps a network that is right more
    often than not: where there is batch normalization, put :class:`BatchStatistics` before it.

    Parameters
    ----------
    rounds : int
        How often the images are labeled, and the network trained.
    epochs : int
        The ``max_epochs`` of each round's training.
    lr : float
        The highest learning rate of a round; a tenth of what the network was trained with, or less.
    portion : float
        The fraction, in (0, 1], of each class's pixels that are trained on: the surest.
    refiner : refiner, optional
        Refines the labels, such as ``DenseCRF()`` or ``GraphCut()``: they follow the edges of the
        image, and the network learns that.

    Raises
    ------
    TypeError, ValueError
        A parameter is not as described.

    Warns
    -----
    UserWarning
        The network predicts one class only, which cannot teach it.

    References
    ----------
    .. [1] Y. Zou, Z. Yu, B. V. K. Vijaya Kumar, J. Wang: Unsupervised Domain Adaptation for
       Semantic Segmentation via Class-Balanced Self-Training. ECCV 2018.

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
    must_be_surer: ClassVar[bool] = False  # what trains on its own labels need not become surer

    def __post_init__(self) -> None:
        check_number(self.rounds, "rounds", minimum=1, integer=True)
        check_number(self.epochs, "epochs", minimum=1, integer=True)
        check_number(self.lr, "lr", minimum=0, strict=True)
        check_number(self.portion, "portion", minimum=0, strict=True)
        check_number(self.portion, "portion", maximum=1)
        if self.refiner is not None and not hasattr(self.refiner, "transform"):
            raise TypeError(
                f"refiner is a {type(self.refiner).__name__}; expected a refiner, such as "
                f"DenseCRF(), or None."
            )
        if getattr(self.refiner, "estimator", None) is not None:
            raise ValueError(
                f"refiner={self.refiner!r} has an estimator of its own; expected one that refines "
                f"the segmenter's costs, such as {type(self.refiner).__name__}()."
            )

    def check(self, segmenter: Trained) -> None:
        """Refuse a segmenter that this method cannot adapt.

        Raises
        ------
        ValueError
            It is no DeepSegmenter.
        """
        if not isinstance(segmenter, DeepSegmenter):
            raise ValueError(
                "method='self_training' needs a DeepSegmenter, which knows how to train its "
                "network; a PretrainedSegmenter takes 'batch_statistics' and 'entropy'."
            )

    def rounds_of(self, segmenter: Trained, scenes: ImageList, rng: np.random.Generator) -> Rounds:
        """The adapted copies of a segmenter, one after each round."""
        for _ in range(self.rounds):
            refiner = None if self.refiner is None else clone(self.refiner)
            labels = pseudo_labels(
                segmenter.transform(scenes), refiner, segmenter.classes_, self.portion
            )
            if n_labeled_classes(labels) < 2:
                warn_caller(
                    "'self_training' ended, as the network sees one class only; adapt by "
                    "'batch_statistics' first.",
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
            yield segmenter, share_labeled(labels)


def pseudo_labels(
    scenes: ImageList, refiner: Any, classes: NDArray[Any], portion: float
) -> list[NDArray[Any]]:
    """Each class's surest pixels as label maps, -1 elsewhere.

    A pixel's label is the refiner's (the network's own where there is none); the network's cost of
    that label says how sure it is. Of the pixels of each class, counted over all pictures, the
    surest ``portion`` stay: the thresholds of class-balanced self-training [1]_, under which rare
    classes, of which networks are less sure, are not lost. (The paper's softmax by thresholds also
    gives other labels to pixels; here labels stay.)

    Parameters
    ----------
    scenes : ImageList of Scene
        With costs.
    refiner : refiner or None
    classes : ndarray of int, (L,)
    portion : float
        In (0, 1].

    Returns
    -------
    list of ndarray of int, (*spatial,)
        In the values of ``classes``.

    References
    ----------
    .. [1] Y. Zou, Z. Yu, B. V. K. Vijaya Kumar, J. Wang: Unsupervised Domain Adaptation for
       Semantic Segmentation via Class-Balanced Self-Training. ECCV 2018, section 4.1, algorithm 2.
    """
    small = np.min_scalar_type(-max(len(classes), 2))
    labels, costs = [], []
    for scene in scenes:
        found, cost = _labeled(scene, refiner, classes)
        labels.append(found.astype(small))
        costs.append(cost.astype(np.float16))  # finest near 0, where it matters
    limits = _thresholds(labels, costs, len(classes), portion)
    values = np.append(classes, -1).astype(np.min_scalar_type(-int(max(classes.max(), 2)) - 1))
    return [
        values[np.where(cost <= limits[found], found, -1)]
        for found, cost in zip(labels, costs, strict=True)
    ]


def _labeled(
    scene: Any, refiner: Any, classes: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Class indices, -1 where not valid, and the network's costs of them."""
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
    """The cost (L,) up to which the surest ``portion`` of each class's pixels lie."""
    counts = np.zeros(n_classes, dtype=np.int64)
    for found in labels:
        counts += np.bincount(found[found >= 0], minlength=n_classes)
    limits = np.full(n_classes, -np.inf, dtype=np.float16)
    for index in np.flatnonzero(counts):
        every = -(-int(counts[index]) // _MAX_SAMPLE)
        known = [cost[found == index][::every] for found, cost in zip(labels, costs, strict=True)]
        limits[index] = np.quantile(np.concatenate(known), portion, method="inverted_cdf")
    return limits


def share_labeled(labels: list[NDArray[Any]]) -> float:
    """The share of all pixels that have a label."""
    return sum(int((found >= 0).sum()) for found in labels) / sum(found.size for found in labels)


def n_labeled_classes(labels: list[NDArray[Any]]) -> int:
    """The number of classes that occur as labels."""
    present = set().union(*(np.unique(found).tolist() for found in labels))
    return len(present - {-1})
