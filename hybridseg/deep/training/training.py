"""A training from beginning to end: data, network, skorch's net, and what it goes on from."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
from dataclasses import replace
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import skorch
import torch
from joblib import effective_n_jobs
from numpy.typing import NDArray
from skorch.callbacks import LRScheduler, ProgressBar
from torch import nn

from hybridseg.base import Scene, TrainingSet
from hybridseg.deep.prediction.half import check_precision, training_layout, wide_where_small
from hybridseg.deep.prediction.inference import Inference, as_views, tile_shape
from hybridseg.deep.prediction.pictures import Pictures, Survey
from hybridseg.deep.prediction.spacing import zoom_of, zoomed_shape
from hybridseg.deep.training.augment import Augmentation, mirrored_classes
from hybridseg.deep.training.checkpoint import Checkpoint, Resume, check_identity, read_checkpoint
from hybridseg.deep.training.crops import Crops, EpochSampler, crop_shape, worker_threads
from hybridseg.deep.training.divergence import Safeguard, check_converged
from hybridseg.deep.training.identity import CHECKSUM, described, digest
from hybridseg.deep.training.loop import Schedule, SegmentationNet, frozen_encoder, seeded
from hybridseg.deep.training.loss import TrainingLoss, class_weights, make_loss
from hybridseg.deep.training.processes import Processes
from hybridseg.deep.training.start import Trained, check_rank, continued_module, make_module
from hybridseg.deep.training.validation import Patience, Validation, exhausted, split_images
from hybridseg.losses import ClassCounts
from hybridseg.networks import input_statistics
from hybridseg.unary.pixels import random_generator

if TYPE_CHECKING:
    from hybridseg.deep.segmenter import DeepSegmenter

Moments = tuple[NDArray[np.float32], NDArray[np.float32]]

AUGMENTS = {"upright": Augmentation("upright"), "dihedral": Augmentation("dihedral")}

#: An epoch has at least this many crops, however few the images.
_CROPS_PER_EPOCH = 64

#: Parameters that may change between a training's beginning and its resumption.
_NOT_IDENTITY = {
    *("callbacks", "checkpoint", "device", "n_jobs", "random_state", "verbose", "warm_start"),
    *("overlap", "tile", "tta"),
    "validation",  # the held-out images themselves are
}


def train(
    settings: DeepSegmenter, training: TrainingSet, trained: Trained | None
) -> tuple[skorch.NeuralNet, NDArray[np.float32], NDArray[np.float32]]:
    """Train a network as a DeepSegmenter's parameters say.

    Returns the fitted net, and the mean and deviation by which its inputs are standardised.
    """
    processes = Processes.of(settings.device)
    device = processes.device
    check_precision(settings.precision, device)
    saved = None if settings.checkpoint is None else read_checkpoint(settings.checkpoint)
    drawn = int(random_generator(settings.random_state).integers(2**62))
    saved, drawn = processes.agreed((saved, drawn))
    seed = drawn if saved is None else saved["seed"]
    training, held_out = _held_out(settings, training, np.random.default_rng(seed))
    pictures = Pictures(training, spacing=settings.spacing)
    if not len(pictures):
        raise ValueError("validation holds every labelled image; expected some to train on.")
    tile_shape(settings.tile, settings.overlap, pictures.survey.largest)  # known before training
    shown = None if held_out is None else Pictures(held_out, spacing=settings.spacing)
    with seeded(seed, device):
        module = _module(settings, training, trained)
        check_rank(module, training.spatial_ndim)
        moments = _moments(module, pictures.survey, trained)
        crops = _crops(settings, pictures, moments, seed)
        weights = class_weights(settings.class_weight, _counts(training, pictures.survey))
        criterion = TrainingLoss(make_loss(settings.loss, weights), len(training.classes))
        callbacks = [
            ("safeguard", Safeguard(keep=shown is None)),
            *_validation(settings, training, shown, moments, processes),
            *_checkpoints(settings, pictures, shown, trained, saved, seed, processes),
        ]
        processes.alike(module, criterion)
        net = _net(settings, module.to(device), criterion, crops, callbacks, processes)
        _run(settings, net, crops, saved)
    check_converged(net)
    net.module_.eval()
    # Nothing reads the moments any more: pickles shrink to a third, and joblib can hash them.
    net.optimizer_.state.clear()
    return net, *moments


def _moments(module: nn.Module, survey: Survey, trained: Trained | None) -> Moments:
    """The mean and deviation by which the network's inputs are standardised.

    Those that it was trained with or that its pretrained weights expect, else the images' own.
    """
    if trained is not None:
        return trained.mean, trained.std
    expected = input_statistics(module)
    if expected is None:
        return survey.mean, survey.std
    n_channels = len(survey.mean)
    if any(len(values) not in (1, n_channels) for values in expected):
        raise ValueError(
            f"network expects a mean and deviation of {len(expected[0])} channels, but the images "
            f"have {n_channels}."
        )
    mean, std = (np.full(n_channels, values, np.float32) for values in expected)
    return mean, std


def _validation(
    settings: DeepSegmenter,
    training: TrainingSet,
    pictures: Pictures | None,
    moments: Moments,
    processes: Processes,
) -> list[Any]:
    if pictures is None:
        return []
    inference = _inference(settings, len(training.classes), processes.device)
    inference = replace(inference, views=None)
    return [("validation", Validation(pictures, inference, moments, training.classes, processes))]


def _checkpoints(
    settings: DeepSegmenter,
    pictures: Pictures,
    held_out: Pictures | None,
    trained: Trained | None,
    saved: dict[str, Any] | None,
    seed: int,
    processes: Processes,
) -> list[Any]:
    """The user's callbacks, then those that save, resume, stop early and show progress."""
    callbacks = copy.deepcopy(list(settings.callbacks or ()))
    if settings.checkpoint is not None:
        identity = _identity(settings, pictures, held_out, trained)
        if saved is not None:
            saved["identity"] = _defaults(settings) | saved["identity"]
            check_identity(saved, identity, settings.checkpoint)
            callbacks.append(("resume", Resume(saved)))
        if processes.is_first:
            callbacks.append(("checkpoint", Checkpoint(settings.checkpoint, identity, seed)))
    if settings.patience is not None:
        callbacks.append(("patience", Patience(settings.patience)))
    if settings.verbose > 1 and processes.is_first:
        callbacks.append(("progress", ProgressBar()))
    return callbacks


def inference_of(settings: DeepSegmenter) -> Inference:
    """How a fitted DeepSegmenter scores images."""
    device = torch.device(settings.net_.device)
    return _inference(settings, len(settings.classes_), device)


def seen_at(settings: DeepSegmenter, scene: Scene, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The size at which a network sees an image ``(*spatial, C)``."""
    zoom = zoom_of(scene, settings.spacing, len(shape) - 1)
    return zoomed_shape(shape[:-1], zoom)


def _inference(settings: DeepSegmenter, n_classes: int, device: torch.device) -> Inference:
    return Inference(
        n_classes,
        device,
        precision=settings.precision,
        tile=settings.tile,
        overlap=settings.overlap,
        batch_size=settings.batch_size,
        views=as_views(settings.tta, mirrored_classes(settings.mirror_pairs, settings.classes_)),
    )


def _held_out(
    settings: DeepSegmenter, training: TrainingSet, rng: np.random.Generator
) -> tuple[TrainingSet, TrainingSet | None]:
    """What to train on, and what to score after each epoch."""
    validation = settings.validation
    if settings.patience is not None and validation is None:
        raise ValueError(
            f"patience={settings.patience} without validation; pass validation=0.2, say."
        )
    if validation is None:
        return training, None
    if isinstance(validation, tuple | list):
        if len(validation) != 2:
            raise ValueError(
                f"validation has {len(validation)} parts; expected (X, y), or a share of the "
                f"images, such as 0.2."
            )
        X, y = validation
        held_out = TrainingSet.read(
            X, y, settings.intensity_range, settings.ignore_label, n_least=1
        )
        kind = held_out.spatial_ndim, held_out.n_channels
        if kind != (training.spatial_ndim, training.n_channels):
            raise ValueError(
                f"validation holds images of {kind[0]} axes and {kind[1]} channels, but X of "
                f"{training.spatial_ndim} and {training.n_channels}; convert them."
            )
        return training, held_out
    return split_images(training, float(validation), rng)


def _identity(
    settings: DeepSegmenter, pictures: Pictures, held_out: Pictures | None, trained: Trained | None
) -> dict[str, str]:
    """What a training is: its settings and images, in words that another process finds, too."""
    known = {
        name: described(value)
        for name, value in settings.get_params(deep=False).items()
        if name not in _NOT_IDENTITY
    }
    known["classes"] = str(pictures.training.classes.tolist())
    known["weights"] = "new" if trained is None else digest(trained.module)
    known |= _contents(pictures)
    if held_out is not None:
        known |= {f"validation {name}": value for name, value in _contents(held_out).items()}
    if isinstance(settings.random_state, Integral):
        known["random_state"] = str(int(settings.random_state))
    return known


def _defaults(settings: DeepSegmenter) -> dict[str, str]:
    """What a parameter was before there was such a parameter."""
    known = inspect.signature(type(settings)).parameters
    return {name: described(p.default) for name, p in known.items() if name not in _NOT_IDENTITY}


def _contents(pictures: Pictures) -> dict[str, str]:
    survey, values = pictures.survey, pictures.training.classes.tolist()
    colors, labels = survey.checksums
    return {
        "images": f"{CHECKSUM}{colors} {survey.mean.tolist()}",
        "labels": f"{CHECKSUM}{labels} {values}",
    }


def _crops(settings: DeepSegmenter, pictures: Pictures, moments: Moments, seed: int) -> Crops:
    largest = pictures.survey.largest
    if settings.tile is not None:  # a network of one input size gets it, however small the images
        largest = tuple(map(max, largest, tile_shape(settings.tile, settings.overlap, largest)[0]))
    return Crops(
        pictures,
        moments=moments,
        size=crop_shape(settings.crop_size, largest),
        crops_per_image=settings.crops_per_image or -(-_CROPS_PER_EPOCH // len(pictures)),
        augment=_augment(settings, pictures.training.classes),
        seed=seed,
        epochs=settings.max_epochs,
    )


def _augment(settings: DeepSegmenter, classes: NDArray[Any]) -> Any:
    """What changes crops, told which classes are each other's mirror images."""
    given = settings.augment
    augment = AUGMENTS[given] if isinstance(given, str) else given
    mirrored = mirrored_classes(settings.mirror_pairs, classes)
    if mirrored and isinstance(augment, Augmentation):
        return replace(augment, mirrored=mirrored)
    return augment


def _counts(training: TrainingSet, survey: Survey) -> ClassCounts:
    return ClassCounts(training.classes, survey.counts, survey.around, survey.images)


def _module(settings: DeepSegmenter, training: TrainingSet, trained: Trained | None) -> nn.Module:
    recipe = settings.network, settings.network_options, training.n_channels
    if trained is None:
        return make_module(*recipe, len(training.classes))
    return continued_module(*recipe, training.classes, trained)


def _net(
    settings: DeepSegmenter,
    module: nn.Module,
    criterion: nn.Module,
    crops: Crops,
    callbacks: list[Any],
    processes: Processes,
) -> SegmentationNet:
    batch_size = min(settings.batch_size, len(crops))
    processes.check_shared(batch_size)
    n_batches = len(crops) // batch_size
    share = processes.rank, processes.count
    schedule = LRScheduler(
        torch.optim.lr_scheduler.LambdaLR,
        step_every="batch",
        lr_lambda=Schedule(settings.schedule, n_batches * settings.max_epochs),
    )
    layout = training_layout(module, len(crops.size), settings.precision, processes.device)
    module = module.to(memory_format=layout)
    # A process of joblib's does its part on one core, and its own workers would not end with it.
    n_workers = 1 if multiprocessing.parent_process() else effective_n_jobs(settings.n_jobs)
    workers: dict[str, Any] = {}
    if n_workers > 1:
        workers = {
            "iterator_train__num_workers": n_workers,
            "iterator_train__multiprocessing_context": "spawn",
            "iterator_train__persistent_workers": True,
            "iterator_train__worker_init_fn": worker_threads,
        }
    return SegmentationNet(
        module,
        criterion,
        processes=processes,
        seed=crops.seed,
        precision=settings.precision,
        accumulate=settings.accumulate,
        encoder_lr_factor=settings.encoder_lr_factor,
        layout=layout,
        optimizer=settings.optimizer,
        optimizer__weight_decay=settings.weight_decay,
        lr=settings.lr,
        max_epochs=settings.max_epochs,
        batch_size=batch_size // processes.count,
        iterator_train__sampler=EpochSampler(len(crops), batch_size, crops.seed, share),
        train_split=None,
        callbacks=[("schedule", schedule), *callbacks],
        device=processes.device,
        verbose=settings.verbose if processes.is_first else 0,
        **workers,
    )


def _run(
    settings: DeepSegmenter, net: SegmentationNet, crops: Crops, saved: dict[str, Any] | None
) -> None:
    """Train, from the first epoch or from where a training was broken off."""
    epochs = settings.max_epochs
    net.initialize()
    if saved is not None:
        done = saved["history"]
        epochs = 0 if exhausted(done, settings.patience) else epochs - len(done)
    small = wide_where_small(net.module_, settings.precision, torch.device(net.device))
    with frozen_encoder(net.module_, settings.encoder_lr_factor == 0), small:
        net.partial_fit(crops, epochs=epochs)
