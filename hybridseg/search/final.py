"""The last fit of a search: the best segmenter on all images, and the refiner on held-out costs."""

from __future__ import annotations

from typing import Any

from sklearn.base import clone
from sklearn.pipeline import Pipeline

from hybridseg.search.clock import Clock
from hybridseg.search.halving import MOST_REFIT, Trial, with_epochs
from hybridseg.search.held_out import Fold, HeldScenes, Labeled
from hybridseg.search.refining import RefinerTrial, fitted_to
from hybridseg.unary.cross_fit import open_classes
from hybridseg.validation import warn_caller


def refit_seconds(trial: Trial, labeled: Labeled, clock: Clock) -> float:
    """Predict the seconds of the last fit, which are limited by the time that is set aside."""
    return min(trial.pace.fit_seconds(len(labeled)), MOST_REFIT * clock.budget)


def refit(
    trial: Trial,
    refined: RefinerTrial,
    held: HeldScenes | None,
    labeled: Labeled,
    clock: Clock,
) -> Pipeline:
    """Return the pipeline of a segmenter, fitted to all images, and of a refiner.

    If the time is too short, networks are trained for fewer epochs, and others are fitted to fewer
    images.

    Warns
    -----
    UserWarning
        The segmenter was fitted to fewer images or epochs.
    """
    assert held is not None
    steps: list[tuple[str, Any]] = []
    if refined.refiner is not None:
        everything = Fold(held.positions, held.positions)
        refiner = fitted_to(refined.refiner, list(held.scenes), labeled, everything)
        steps.append(("refiner", refiner))
    if trial.pace.by_epochs:
        segmenter = _trained(trial, labeled, clock)
    else:
        segmenter = _fitted(trial, labeled, clock)
    return Pipeline([("segmenter", segmenter), *steps])


def _trained(trial: Trial, labeled: Labeled, clock: Clock) -> Any:
    """Fit a network to all images, for as many epochs as the time allows."""
    seconds = trial.pace.fit_seconds(len(labeled))
    share = min(1.0, max(trial.share, clock.left / max(seconds, 1e-9)))
    if share < 1:
        warn_caller(
            f"the budget of {clock.budget:g} s is too short for all epochs of {trial.name!r}: it "
            f"was trained for {100 * share:.0f}% of them. A fit with all of them takes about "
            f"{seconds:.0f} s; raise the budget."
        )
    training = labeled.training
    return clone(with_epochs(trial.segmenter, share)).fit(training.scenes, training.sources)


def _fitted(trial: Trial, labeled: Labeled, clock: Clock) -> Any:
    """Fit to all images; if that may take too long, to some first, which shows the pace."""
    n_all, n_images = len(labeled), len(labeled)
    while n_images > trial.n_images and trial.pace.fit_seconds(n_images) > clock.left:
        n_images = max(trial.n_images, n_images // 2)
    segmenter = None
    if n_images < n_all:
        began = clock.passed
        segmenter = clone(trial.segmenter)
        if names := open_classes(segmenter):
            segmenter.set_params(**dict.fromkeys(names, labeled.classes))
        X, y = labeled.pairs(labeled.order[:n_images].tolist())
        segmenter.fit(X, y)
        trial.pace.add(n_images, 1.0, clock.passed - began)
    if segmenter is None or trial.pace.fit_seconds(n_all) <= clock.left:
        return clone(trial.segmenter).fit(labeled.training.scenes, labeled.training.sources)
    warn_caller(
        f"the budget of {clock.budget:g} s is too short for a fit of {trial.name!r} to all "
        f"{n_all} images: it was fitted to {n_images} of them. Raise the budget by about "
        f"{trial.pace.fit_seconds(n_all):.0f} s."
    )
    return segmenter
