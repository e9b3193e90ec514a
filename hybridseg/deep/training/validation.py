"""Held-out images: a score after each epoch, the best weights, an early end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from skorch.callbacks import Callback
from torch import Tensor

from hybridseg.base import ImageList, TrainingSet
from hybridseg.deep.prediction.inference import Inference
from hybridseg.deep.prediction.inputs import as_input
from hybridseg.deep.prediction.spacing import zoomed_shape
from hybridseg.deep.training.processes import Processes
from hybridseg.metrics.table import add_tables, confusion_table
from hybridseg.validation import IntensityRange


class Validation(Callback):
    """After each epoch, score held-out images; after the last, bring back the best weights.

    ``net.history`` gets "valid_loss" (the mean over images), "valid_mean_iou" and
    "valid_mean_iou_best" (whether it is the highest so far).

    Parameters
    ----------
    pictures : Pictures
    inference : Inference
    moments : (mean, std)
        Of the training images' colors.
    classes : ndarray of int
        The values of the network's classes.
    processes : Processes
        Each scores its share of the images.
    """

    def __init__(
        self,
        pictures: Any,
        inference: Inference,
        moments: Any,
        classes: Any,
        processes: Processes,
    ) -> None:
        self.pictures = pictures
        self.inference = inference
        self.moments = moments
        self.classes = classes
        self.processes = processes

    def initialize(self) -> Validation:
        """Forget an earlier training."""
        self.best_: dict[str, Tensor] = {}
        return self

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Score the held-out images, and keep the weights if they are the best so far."""
        loss, mean_iou = self._scores(net)
        known = [row["valid_mean_iou"] for row in net.history[:-1] if "valid_mean_iou" in row]
        best = not known or mean_iou > max(known)
        net.history.record("valid_loss", loss)
        net.history.record("valid_mean_iou", mean_iou)
        net.history.record("valid_mean_iou_best", best)
        if best:
            state = net.module_.state_dict()
            self.best_ = {name: value.detach().cpu().clone() for name, value in state.items()}

    def _scores(self, net: Any) -> tuple[float, float]:
        net.module_.eval()
        share = range(self.processes.rank, len(self.pictures), self.processes.count)
        found = self.processes.gathered([(i, *self._score(net, self.pictures[i])) for i in share])
        _, losses, tables = zip(*sorted(found, key=lambda each: each[0]), strict=True)
        return float(np.mean(losses)), float(add_tables(tables).mean_iou())

    def _score(self, net: Any, picture: Any) -> tuple[float, Any]:
        """The loss and the confusion table of one image."""
        values = np.append(self.pictures.training.classes, -1)
        image = as_input(picture.values, self.moments)
        size = zoomed_shape(tuple(image.shape[1:]), picture.zoom)
        scores = self.inference.scores(net.module_, image, self.classes, size=size)
        truth = values[picture.labels]
        table = confusion_table(truth, self.classes[scores.argmax(dim=0).numpy()])
        # The network has no output for a label value that it was never trained on.
        known = np.isin(truth, self.classes)
        labels = np.where(known, np.searchsorted(self.classes, truth), -1)
        with torch.inference_mode():
            loss = net.criterion_(scores[None], torch.from_numpy(labels)[None])
        return float(loss), table

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Bring back the best weights, and let go of the images."""
        if self.best_:
            net.module_.load_state_dict(self.best_)
        self.best_ = {}
        self.pictures = None


class Patience(Callback):
    """End the training when this number of epochs has brought no better score."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Stop as skorch does."""
        if exhausted(net.history, self.epochs):
            raise KeyboardInterrupt


def exhausted(history: Any, patience: int | None) -> bool:
    """Whether the last ``patience`` epochs were all no better than one before."""
    if patience is None:
        return False
    since = 0
    for row in history:
        since = 0 if row.get("valid_mean_iou_best") else since + 1
    return since >= patience


def held_out(
    training: TrainingSet,
    validation: Any,
    rng: np.random.Generator,
    *,
    intensity_range: IntensityRange,
    ignore_label: int | None,
) -> tuple[TrainingSet, TrainingSet | None]:
    """What to train on, and what to score after each epoch.

    Parameters
    ----------
    training : TrainingSet
    validation : float, (X, y) or None
        The share of the images to hold out, or images and label maps; None: nothing is held out.
    rng : Generator
        Draws the share.
    intensity_range, ignore_label
        By which ``(X, y)`` are read.

    Raises
    ------
    ValueError
        The images of ``(X, y)`` are of another kind; or there are too few to hold some out.
    """
    if validation is None:
        return training, None
    if not isinstance(validation, tuple | list):
        return split_images(training, float(validation), rng)
    X, y = validation
    held = TrainingSet.read(X, y, intensity_range, ignore_label, n_least=1)
    kind = held.spatial_ndim, held.n_channels
    if kind != (training.spatial_ndim, training.n_channels):
        raise ValueError(
            f"validation holds images of {kind[0]} axes and {kind[1]} channels, but X of "
            f"{training.spatial_ndim} and {training.n_channels}; convert them."
        )
    return training, held


def check_validation(validation: Any, patience: int | None) -> None:
    """Refuse a ``validation`` that is no pair, and ``patience`` without held-out images.

    Raises
    ------
    ValueError
        Says what to pass.
    """
    if patience is not None and validation is None:
        raise ValueError(f"patience={patience} without validation; pass validation=0.2, say.")
    if isinstance(validation, tuple | list) and len(validation) != 2:
        raise ValueError(
            f"validation has {len(validation)} parts; expected (X, y), or a share of the images, "
            f"such as 0.2."
        )


def split_images(
    training: TrainingSet, fraction: float, rng: np.random.Generator
) -> tuple[TrainingSet, TrainingSet]:
    """Split off a share of the labeled images, drawn at random, at least one.

    Raises
    ------
    ValueError
        There is only one image with a labeled pixel.
    """
    labeled = [i for i in range(len(training)) if (training._labels(i) >= 0).any()]
    n_images = len(labeled)
    if n_images < 2:
        raise ValueError(
            f"validation={fraction} of one image with labels; expected at least two images that "
            f"have a labeled pixel, or validation=(X_val, y_val)."
        )
    n_held = min(n_images - 1, max(1, round(fraction * n_images)))
    held = {labeled[i] for i in rng.permutation(n_images)[:n_held]}
    rest = [i for i in range(len(training)) if i not in held]
    return _part(training, rest), _part(training, sorted(held))


def _part(training: TrainingSet, positions: list[int]) -> TrainingSet:
    scenes = ImageList(training.scenes[i] for i in positions)
    return replace(training, scenes=scenes, sources=[training.sources[i] for i in positions])
