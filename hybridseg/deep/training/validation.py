"""Validation: the split, the score after each epoch, the best weights and early stopping."""

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
    """Score held-out images after each epoch, and restore the best weights at the end.

    ``net.history`` gets "valid_loss" (the mean over the images), "valid_mean_iou" and
    "valid_mean_iou_best" (whether the score is the highest so far).

    Parameters
    ----------
    dataset : ImageDataset
        The held-out images.
    inference : Inference
        How the images are predicted.
    moments : (mean, std)
        The mean and standard deviation ``(C,)`` that the network expects, on the scale 0..255.
    classes : ndarray of int, (L,)
        The label values of the network's outputs, sorted.
    processes : Processes
        The processes; each one scores an equal part of the images.
    """

    def __init__(
        self,
        dataset: Any,
        inference: Inference,
        moments: Any,
        classes: Any,
        processes: Processes,
    ) -> None:
        self.dataset = dataset
        self.inference = inference
        self.moments = moments
        self.classes = classes
        self.processes = processes

    def initialize(self) -> Validation:
        """Delete the weights of an earlier training."""
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
        """The mean loss of the images, and the mean IoU over all their pixels."""
        net.module_.eval()
        share = range(self.processes.rank, len(self.dataset), self.processes.count)
        found = self.processes.gathered([(i, *self._score(net, self.dataset[i])) for i in share])
        _, losses, tables = zip(*sorted(found, key=lambda each: each[0]), strict=True)
        return float(np.mean(losses)), float(add_tables(tables).mean_iou())

    def _score(self, net: Any, image: Any) -> tuple[float, Any]:
        """The loss and the confusion table of one image."""
        values = np.append(self.dataset.training.classes, -1)
        inputs = as_input(image.values, self.moments)
        size = zoomed_shape(tuple(inputs.shape[1:]), image.zoom)
        scores = self.inference.scores(net.module_, inputs, self.classes, size=size)
        truth = values[image.labels]
        table = confusion_table(truth, self.classes[scores.argmax(dim=0).numpy()])
        # The network has no output for a label value that it was never trained on.
        known = np.isin(truth, self.classes)
        labels = np.where(known, np.searchsorted(self.classes, truth), -1)
        with torch.inference_mode():
            loss = net.criterion_(scores[None], torch.from_numpy(labels)[None])
        return float(loss), table

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Restore the best weights, and release the images."""
        if self.best_:
            net.module_.load_state_dict(self.best_)
        self.best_ = {}
        self.dataset = None


class Patience(Callback):
    """Early stopping: end the training after ``epochs`` epochs in a row without a better score."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """End skorch's training loop, which stops quietly at a KeyboardInterrupt."""
        if exhausted(net.history, self.epochs):
            raise KeyboardInterrupt


def exhausted(history: Any, patience: int | None) -> bool:
    """Whether none of the last ``patience`` epochs improved the score."""
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
    """The images to train on, and the held-out images.

    Parameters
    ----------
    training : TrainingSet
    validation : float, (X, y) or None
        The fraction of the images to hold out, or other images and label maps. None: no image is
        held out.
    rng : Generator
        Draws the images to hold out.
    intensity_range, ignore_label
        How ``(X, y)`` are read; see :class:`hybridseg.DeepSegmenter`.

    Returns
    -------
    training : TrainingSet
    held : TrainingSet or None

    Raises
    ------
    ValueError
        The images of ``(X, y)`` have another number of axes or channels, or fewer than two images
        have a labeled pixel.
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
            f"validation has images with {kind[0]} axes and {kind[1]} channels, but X has "
            f"{training.spatial_ndim} axes and {training.n_channels} channels; convert the "
            f"held-out images."
        )
    return training, held


def check_validation(validation: Any, patience: int | None) -> None:
    """Refuse a ``validation`` that is not a pair, and ``patience`` without ``validation``.

    Raises
    ------
    ValueError
        ``validation`` is a sequence of another length than 2, or ``patience`` has no effect.
    """
    if patience is not None and validation is None:
        raise ValueError(
            f"patience={patience}, but validation=None; expected both or neither: pass "
            f"validation=0.2, for example, or patience=None."
        )
    if isinstance(validation, tuple | list) and len(validation) != 2:
        raise ValueError(
            f"validation has {len(validation)} elements; expected two: pass (X, y), or a fraction "
            f"of the images, such as 0.2."
        )


def split_images(
    training: TrainingSet, fraction: float, rng: np.random.Generator
) -> tuple[TrainingSet, TrainingSet]:
    """Hold out a fraction of the labeled images, drawn at random; at least one image.

    Returns
    -------
    training, held : TrainingSet
        The other images, and the held-out ones.

    Raises
    ------
    ValueError
        Fewer than two images have a labeled pixel.
    """
    labeled = [i for i in range(len(training)) if (training._labels(i) >= 0).any()]
    n_images = len(labeled)
    if n_images < 2:
        raise ValueError(
            f"validation={fraction} of one image with labels; expected at least two images that "
            f"have a labeled pixel: pass more images, or validation=(X_val, y_val)."
        )
    n_held = min(n_images - 1, max(1, round(fraction * n_images)))
    held = {labeled[i] for i in rng.permutation(n_images)[:n_held]}
    rest = [i for i in range(len(training)) if i not in held]
    return _part(training, rest), _part(training, sorted(held))


def _part(training: TrainingSet, positions: list[int]) -> TrainingSet:
    """The training set with the images at these positions only."""
    scenes = ImageList(training.scenes[i] for i in positions)
    return replace(training, scenes=scenes, sources=[training.sources[i] for i in positions])
