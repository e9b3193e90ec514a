"""A whole training: it reads the data, makes the network and its loss, and runs the loop."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from numbers import Integral
from typing import Any

import numpy as np
import skorch
import torch
from joblib import effective_n_jobs
from numpy.typing import NDArray
from skorch.callbacks import LRScheduler, ProgressBar
from torch import nn

from hybridseg.arguments import random_generator
from hybridseg.base import TrainingSet
from hybridseg.deep.prediction.half import training_layout, wide_where_small
from hybridseg.deep.prediction.inference import Inference
from hybridseg.deep.prediction.inputs import Moments
from hybridseg.deep.prediction.tiles import tile_shape
from hybridseg.deep.prediction.views import mirrored_classes
from hybridseg.deep.training.augment import make_augment
from hybridseg.deep.training.checkpoint import Checkpoint, Resume, check_identity, read_checkpoint
from hybridseg.deep.training.crops import Crops, EpochSampler, crop_shape, worker_threads
from hybridseg.deep.training.divergence import Safeguard, check_converged
from hybridseg.deep.training.identity import CHECKSUM, described, digest
from hybridseg.deep.training.image_dataset import ImageDataset
from hybridseg.deep.training.loop import Schedule, SegmentationNet, frozen_encoder, seeded
from hybridseg.deep.training.loss import TrainingLoss, class_weights, make_loss
from hybridseg.deep.training.processes import Processes
from hybridseg.deep.training.start import (
    Trained,
    check_rank,
    continued_module,
    make_module,
    moments_of,
)
from hybridseg.deep.training.validation import (
    Patience,
    Validation,
    check_validation,
    exhausted,
    held_out,
)
from hybridseg.losses import ClassCounts
from hybridseg.validation import IntensityRange

#: The fewest crops of an epoch, unless ``crops_per_image`` is given.
_MIN_CROPS_PER_EPOCH = 64

#: Settings that may change before a training resumes from its checkpoint.
_NOT_IDENTITY = {
    *("callbacks", "checkpoint", "device", "n_jobs", "random_state", "verbose"),
    *("overlap", "tile", "tta"),
    "validation",  # the fingerprints of the held-out images are compared instead
    *("defaults", "with_crf"),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class Training:
    """The settings of a training, and the training itself.

    Parameters
    ----------
    network, network_options, max_epochs, ...
        The parameters of :class:`hybridseg.DeepSegmenter` with the same names.
    defaults : mapping of str to value
        The default of each parameter. A checkpoint of an earlier version, which lacks a newer
        parameter, counts as trained with its default.
    with_crf : callable
        ``with_crf(network, n_channels, n_classes, before)`` returns the network followed by a CRF,
        or the network itself. ``before`` is the network of an earlier training for these classes.

    Raises
    ------
    ValueError
        ``validation`` is not a pair, ``patience`` is given without it, or
        :class:`~hybridseg.deep.prediction.inference.Inference` refuses a setting.
    """

    network: Any
    network_options: Mapping[str, Any] | None
    max_epochs: int
    crops_per_image: int | None
    crop_size: int | tuple[int, ...]
    batch_size: int
    accumulate: int
    augment: Any
    loss: Any
    class_weight: Any
    optimizer: Any
    lr: float
    encoder_lr_factor: float
    schedule: str
    weight_decay: float
    precision: str
    validation: Any
    patience: int | None
    checkpoint: Any
    callbacks: Any
    n_jobs: int | None
    tile: int | tuple[int, ...] | None
    overlap: int | None
    tta: Any
    mirror_pairs: Any
    device: str
    verbose: int
    spacing: Any
    classes: Any
    intensity_range: IntensityRange
    ignore_label: int | None
    random_state: Any
    crf: Any
    crf_start: float
    defaults: Mapping[str, Any]
    with_crf: Any

    def __post_init__(self) -> None:
        check_validation(self.validation, self.patience)
        Inference.of(self)

    @classmethod
    def of(cls, segmenter: Any) -> Training:
        """The training with the parameters of a segmenter."""
        names = {field.name for field in fields(cls)} - {"defaults", "with_crf"}
        signature = inspect.signature(type(segmenter)).parameters.values()
        defaults = {parameter.name: parameter.default for parameter in signature}
        given = {name: getattr(segmenter, name) for name in names}
        return cls(**given, defaults=defaults, with_crf=segmenter._with_crf)

    def run(
        self, training: TrainingSet, trained: Trained | None
    ) -> tuple[skorch.NeuralNet, NDArray[np.float32], NDArray[np.float32]]:
        """Train a network.

        Parameters
        ----------
        training : TrainingSet
            Images and label maps.
        trained : Trained or None
            The network to train further. None: a new network.

        Returns
        -------
        net : skorch.NeuralNet
            The fitted net, in evaluation mode.
        mean, std : ndarray of float32, (C,)
            The mean and standard deviation with which the network's inputs are standardized.

        Raises
        ------
        TypeError, ValueError
            The settings do not fit the images or the device, the checkpoint is that of another
            training, or the first epoch diverged.

        Warns
        -----
        ConvergenceWarning
            A later epoch diverged.
        """
        task = self._task(training, trained)
        with seeded(task.seed, task.processes.device):
            module = self._module(task)
            moments = moments_of(module, task.dataset.statistics, trained)
            if hasattr(module, "standardized_by"):
                module.standardized_by(*moments)
            crops = self._crops(task, moments)
            loss = self._loss(task)
            callbacks = self._callbacks(task, moments)
            task.processes.alike(module, loss)
            net = self._net(module, loss, crops, callbacks, task.processes)
            self._train(net, crops, task.saved)
        check_converged(net)
        net.module_.eval()
        # The optimizer's moments are not needed any more. Without them pickles shrink to a third,
        # and joblib can hash them.
        net.optimizer_.state.clear()
        return net, *moments

    def _task(self, training: TrainingSet, trained: Trained | None) -> _Task:
        """Read the images and the checkpoint, draw the seed, and split off the held-out images."""
        processes = Processes.of(self.device)
        inference = Inference.of(self)
        inference.check(training.spatial_ndim, training.classes, processes.device)
        saved = None if self.checkpoint is None else read_checkpoint(self.checkpoint)
        drawn = int(random_generator(self.random_state).integers(2**62))
        saved, drawn = processes.agreed((saved, drawn))
        seed = drawn if saved is None else saved["seed"]
        training, held = held_out(
            training,
            self.validation,
            np.random.default_rng(seed),
            intensity_range=self.intensity_range,
            ignore_label=self.ignore_label,
        )
        dataset = ImageDataset(training, spacing=self.spacing)
        if not len(dataset):
            raise ValueError(
                "validation holds out every labeled image; expected some to train on: pass fewer "
                "held-out images."
            )
        shown = None if held is None else ImageDataset(held, spacing=self.spacing)
        return _Task(dataset, shown, trained, saved, seed, processes)

    def _module(self, task: _Task) -> nn.Module:
        """The network at the start of the training: a new one, or the one to train further."""
        training, before = task.dataset.training, None
        arguments = self.network, self.network_options, training.n_channels
        if task.trained is None:
            module = make_module(*arguments, len(training.classes))
        else:
            module = continued_module(*arguments, training.classes, task.trained)
            if np.array_equal(training.classes, task.trained.classes):
                before = task.trained.module
        check_rank(module, training.spatial_ndim)
        return self.with_crf(module, training.n_channels, len(training.classes), before)

    def _crops(self, task: _Task, moments: Moments) -> Crops:
        """The crops on which the network is trained."""
        dataset, classes = task.dataset, task.dataset.training.classes
        largest = dataset.statistics.largest
        if self.tile is not None:  # networks with a fixed input size get it even for small images
            largest = tuple(map(max, largest, tile_shape(self.tile, self.overlap, largest)[0]))
        return Crops(
            dataset,
            moments=moments,
            size=crop_shape(self.crop_size, largest),
            crops_per_image=self.crops_per_image or -(-_MIN_CROPS_PER_EPOCH // len(dataset)),
            augment=make_augment(self.augment, mirrored_classes(self.mirror_pairs, classes)),
            seed=task.seed,
            epochs=self.max_epochs,
        )

    def _loss(self, task: _Task) -> TrainingLoss:
        """The loss, with the weights of the classes."""
        statistics, classes = task.dataset.statistics, task.dataset.training.classes
        counts = ClassCounts(classes, statistics.counts, statistics.around, statistics.images)
        weights = class_weights(self.class_weight, counts)
        return TrainingLoss(make_loss(self.loss, weights), len(classes))

    def _callbacks(self, task: _Task, moments: Moments) -> list[Any]:
        """The callbacks of skorch, in the order in which they run after each epoch.

        The first ones detect a divergence and score the held-out images. The user's callbacks
        follow. The last ones resume, save and stop the training, and show its progress.
        """
        found: list[Any] = [("safeguard", Safeguard(keep=task.held_out is None))]
        if task.held_out is not None:
            found.append(("validation", self._validation(task, moments)))
        found += copy.deepcopy(list(self.callbacks or ()))
        if self.checkpoint is not None:
            found += self._checkpoints(task)
        if self.patience is not None:
            found.append(("patience", Patience(self.patience)))
        if self.verbose > 1 and task.processes.is_first:
            found.append(("progress", ProgressBar()))
        return found

    def _validation(self, task: _Task, moments: Moments) -> Validation:
        """The callback that scores the held-out images, without test-time augmentation."""
        inference, classes = replace(Inference.of(self), tta=None), task.dataset.training.classes
        return Validation(task.held_out, inference, moments, classes, task.processes)

    def _checkpoints(self, task: _Task) -> list[Any]:
        """The callbacks that resume the training from its checkpoint and write the next ones."""
        identity, found = self._identity(task), []
        if task.saved is not None:
            saved = task.saved | {"identity": self._defaults() | task.saved["identity"]}
            check_identity(saved, identity, self.checkpoint)
            found.append(("resume", Resume(saved)))
        if task.processes.is_first:
            found.append(("checkpoint", Checkpoint(self.checkpoint, identity, task.seed)))
        return found

    def _identity(self, task: _Task) -> dict[str, str]:
        """Fingerprints of the settings and images, which must equal those of a checkpoint."""
        known = {name: described(getattr(self, name)) for name in _identity_names()}
        known["classes"] = str(task.dataset.training.classes.tolist())
        known["weights"] = "new" if task.trained is None else digest(task.trained.module)
        known |= _contents(task.dataset)
        if task.held_out is not None:
            held = _contents(task.held_out)
            known |= {f"validation {name}": value for name, value in held.items()}
        if isinstance(self.random_state, Integral):
            known["random_state"] = str(int(self.random_state))
        return known

    def _defaults(self) -> dict[str, str]:
        """Fingerprints of the defaults, for settings that an older checkpoint does not have."""
        return {name: described(self.defaults[name]) for name in _identity_names()}

    def _net(
        self,
        module: nn.Module,
        loss: nn.Module,
        crops: Crops,
        callbacks: list[Any],
        processes: Processes,
    ) -> SegmentationNet:
        """The skorch net, not yet initialized."""
        batch_size = min(self.batch_size, len(crops))
        processes.check_shared(batch_size)
        n_steps = len(crops) // batch_size * self.max_epochs
        schedule = LRScheduler(
            torch.optim.lr_scheduler.LambdaLR,
            step_every="batch",
            lr_lambda=Schedule(self.schedule, n_steps),
        )
        module = module.to(processes.device)
        layout = training_layout(module, len(crops.size), self.precision, processes.device)
        share = processes.rank, processes.count
        return SegmentationNet(
            module.to(memory_format=layout),
            loss,
            processes=processes,
            seed=crops.seed,
            precision=self.precision,
            accumulate=self.accumulate,
            encoder_lr_factor=self.encoder_lr_factor,
            layout=layout,
            optimizer=self.optimizer,
            optimizer__weight_decay=self.weight_decay,
            lr=self.lr,
            max_epochs=self.max_epochs,
            batch_size=batch_size // processes.count,
            iterator_train__sampler=EpochSampler(len(crops), batch_size, crops.seed, share),
            train_split=None,
            callbacks=[("schedule", schedule), *callbacks],
            device=processes.device,
            verbose=self.verbose if processes.is_first else 0,
            **_workers(self.n_jobs),
        )

    def _train(self, net: SegmentationNet, crops: Crops, saved: dict[str, Any] | None) -> None:
        """Train from the first epoch, or from the first one after the checkpoint."""
        epochs = self.max_epochs
        net.initialize()
        if saved is not None:
            done = saved["history"]
            epochs = 0 if exhausted(done, self.patience) else epochs - len(done)
        small = wide_where_small(net.module_, self.precision, torch.device(net.device))
        with frozen_encoder(net.module_, self.encoder_lr_factor == 0), small:
            net.partial_fit(crops, epochs=epochs)


@dataclass(frozen=True, eq=False)
class _Task:
    """The data, network and checkpoint of one run of a training.

    Attributes
    ----------
    dataset : ImageDataset
        The images to train on.
    held_out : ImageDataset or None
        The held-out images, which are scored after each epoch.
    trained : Trained or None
        The network to train further.
    saved : dict or None
        The checkpoint of an interrupted run.
    seed : int
        The seed of all random numbers.
    processes : Processes
        The processes that train together.
    """

    dataset: ImageDataset
    held_out: ImageDataset | None
    trained: Trained | None
    saved: dict[str, Any] | None
    seed: int
    processes: Processes


def _identity_names() -> list[str]:
    """The names of the settings that must be equal when a training resumes."""
    return [field.name for field in fields(Training) if field.name not in _NOT_IDENTITY]


def _contents(dataset: ImageDataset) -> dict[str, str]:
    """Fingerprints of the images and the label maps."""
    statistics, values = dataset.statistics, dataset.training.classes.tolist()
    colors, labels = statistics.checksums
    return {
        "images": f"{CHECKSUM}{colors} {statistics.mean.tolist()}",
        "labels": f"{CHECKSUM}{labels} {values}",
    }


def _workers(n_jobs: int | None) -> dict[str, Any]:
    """The arguments of skorch for worker processes that make crops while the network trains."""
    # A worker process of joblib has one core, and its own workers would not end with it.
    n_workers = 1 if multiprocessing.parent_process() else effective_n_jobs(n_jobs)
    if n_workers == 1:
        return {}
    return {
        "iterator_train__num_workers": n_workers,
        "iterator_train__multiprocessing_context": "spawn",
        "iterator_train__persistent_workers": True,
        "iterator_train__worker_init_fn": worker_threads,
    }
