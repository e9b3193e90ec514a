"""The steps of domain adaptation: what each makes of a segmenter, and whether that is kept."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import clone

from hybridseg.base import ImageList
from hybridseg.deep.adaptation.adapted import class_logits, copied, network_of, window_of
from hybridseg.deep.adaptation.batch_statistics import batch_norms, collected, restate
from hybridseg.deep.adaptation.entropy import minimise_entropy
from hybridseg.deep.adaptation.self_training import (
    n_labelled_classes,
    pseudo_labels,
    share_labelled,
)
from hybridseg.deep.segmenter import DeepSegmenter
from hybridseg.validation import warn_caller

if TYPE_CHECKING:
    from hybridseg.deep.adaptation.domain_adapter import DomainAdapter

#: Of a step: the adapted copy, and the share of pixels that it was trained on.
Steps = Iterator[tuple[Any, float]]


def _batch_statistics(
    adapter: DomainAdapter, segmenter: Any, scenes: ImageList, _: np.random.Generator
) -> Steps:
    adapted = copied(segmenter)
    _restate(adapted, scenes, adapter.prior)
    yield adapted, math.nan


def _restate(segmenter: Any, scenes: ImageList, prior: float) -> None:
    """Estimate a segmenter's batch statistics anew, in place."""
    layers = batch_norms(network_of(segmenter))
    with collected(layers) as moments:
        for scene in segmenter.transform(scenes):
            _ = scene.unary  # which runs the network
    restate(layers, moments, prior / (prior + len(scenes)))


def _entropy(
    adapter: DomainAdapter, segmenter: Any, scenes: ImageList, rng: np.random.Generator
) -> Steps:
    learner = copied(segmenter)
    epochs = minimise_entropy(
        network_of(learner),
        partial(class_logits, learner),
        scenes,
        window=window_of(learner),
        lr=adapter.entropy_lr,
        epochs=adapter.entropy_epochs,
        rng=rng,
    )
    for _ in epochs:
        adapted = copied(learner)
        _restate(adapted, scenes, adapter.prior)
        yield adapted, math.nan


def _self_training(
    adapter: DomainAdapter, segmenter: DeepSegmenter, scenes: ImageList, rng: np.random.Generator
) -> Steps:
    for _ in range(adapter.rounds):
        refiner = None if adapter.refiner is None else clone(adapter.refiner)
        labels = pseudo_labels(
            segmenter.transform(scenes), refiner, segmenter.classes_, adapter.portion
        )
        if n_labelled_classes(labels) < 2:
            warn_caller(
                "'self_training' ended, as the network sees one class only; adapt by "
                "'batch_statistics' first.",
            )
            return
        learner = copied(segmenter).set_params(
            max_epochs=adapter.epochs,
            lr=adapter.lr,
            random_state=int(rng.integers(2**31)),
            **_AS_TOLD,
        )
        learner.partial_fit(scenes, labels)
        segmenter = copied(segmenter)
        segmenter.net_ = learner.net_
        yield segmenter, share_labelled(labels)


#: What a training on pseudo-labels has not: held-out images, a place on disk, callbacks.
_AS_TOLD = {"validation": None, "patience": None, "checkpoint": None, "callbacks": None}

STEPS = {
    "batch_statistics": _batch_statistics,
    "entropy": _entropy,
    "self_training": _self_training,
}


def row_of(method: str, number: int, found: dict[str, Any], labelled: float) -> dict[str, Any]:
    """A row of ``history_``."""
    return {"method": method, "round": number, **found, "labelled": labelled, "kept": True}


def helps(method: str, before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether a step is to be kept. What trains on its own labels need not become surer."""
    return varied(before, after) and (method == "self_training" or _surer(before, after))


def _surer(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether the network suits the images better than it did."""
    surer = after["mean_entropy"] < before["mean_entropy"]
    # A network that takes everything for one class is sure of it.
    return bool(surer or after["information"] > 1.5 * before["information"])


def varied(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether a network still tells classes apart; not if its probabilities are NaN."""
    return bool(after["information"] >= before["information"] / 2)


def warn_of_collapse(row: dict[str, Any]) -> None:
    """Say that a step was undone, and what may help."""
    warn_caller(
        f"{row['method']!r} collapsed in round {row['round']}: {max(row['class_share']):.0%} of "
        f"the pixels became one class. It was undone; pass a lower lr, entropy_lr or portion, or "
        f"more images.",
    )
