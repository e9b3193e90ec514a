"""A neural network, trained by skorch, whose logits are the costs."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

try:
    import skorch
    import torch
except ImportError as error:
    raise ImportError(
        "DeepSegmenter needs PyTorch and skorch: pip install hybridseg[deep]"
    ) from error
from skorch.callbacks import LRScheduler
from torch import Tensor, nn

from hybridseg.base import (
    IGNORE_LABEL,
    INTENSITY_RANGE,
    Interval,
    Scene,
    Segmenter,
    StrOptions,
    TrainingSet,
)
from hybridseg.costs import costs_from_logits
from hybridseg.networks import NETWORKS
from hybridseg.unary.deep_crops import Crops, Survey, augment_dihedral, augment_upright
from hybridseg.unary.pixels import random_generator
from hybridseg.validation import IntensityRange, check_option

_AUGMENTS = {"upright": augment_upright, "dihedral": augment_dihedral}

#: An epoch has at least this many crops, however few the images.
_CROPS_PER_EPOCH = 64


class DeepSegmenter(Segmenter):
    """Segment with a neural network; its logits become the costs.

    The network is trained on random crops with cross-entropy over the labelled pixels, so sparse
    scribbles do as well as full label maps, and images may differ in size. Each crop is laid
    around a labelled pixel, drawn evenly over the classes that the image has, so that rare
    classes are seen. Inference takes each image whole. 2-D images with any number of channels.

    Parameters
    ----------
    network : str, torch.nn.Module, or callable
        A name in :data:`hybridseg.networks.NETWORKS`; or a class or factory, called as
        ``network(in_channels=..., n_classes=..., **network_options)``; or a module, of which a
        copy is trained further (fine-tuned). A module takes ``(B, C, H, W)`` and gives logits
        ``(B, L, H, W)``, or a dict with them under "out", as torchvision's do.
    network_options : dict, optional
        Further arguments of the network. None: its own defaults, for "unet" the paper's width of
        64, which wants a GPU; on a CPU ``{"width": 16}`` is some ten times quicker and enough for
        a few pictures.
    max_epochs : int
        The learning rate is planned over all of them, so fewer epochs make a shorter, not a
        broken-off training.
    crops_per_image : int, optional
        Crops of each image in an epoch. None: one, or as many as make at least 64 crops an epoch.
    crop_size : int
        Side of the square crops, in pixels; no larger than the longest side of the images. As
        large as the context that a human needs to tell the classes; memory and time grow with its
        square. With one picture and little time, many small crops (64) teach more than few large
        ones.
    batch_size : int
        Crops of one gradient step.
    augment : {"upright", "dihedral"}, callable or None
        Random changes of the crops. "upright": mirroring left to right, contrast, brightness; for
        pictures that have a top. "dihedral": all eight turns and mirrorings, contrast,
        brightness; for microscopy and aerial pictures. A function
        ``augment(colors, labels, rng)`` of colours ``(S, S, C)`` in standard deviations, labels
        ``(S, S)`` (class indices, -1 void) and a NumPy generator gives both, changed.
    class_weight : {"balanced"} or None
        "balanced": a class counts in inverse proportion to its labelled pixels. Helps where rare
        classes are missed; its probabilities then overstate rare classes.
    optimizer : callable
        A class of :mod:`torch.optim`, or a ``functools.partial`` of one.
    lr : float
        The highest learning rate of the one-cycle schedule (reached after 10% of the steps).
    weight_decay : float
        For the optimizer.
    callbacks : list, optional
        skorch callbacks, such as ``skorch.callbacks.EarlyStopping(monitor="train_loss")``,
        ``Checkpoint`` or ``ProgressBar``. Copies are used; they are in ``net_.callbacks_``.
    device : str
        "cpu", "cuda" (or any device that torch knows), or "auto": the GPU where there is one.
    verbose : int
        Above 0, skorch prints a line an epoch.
    intensity_range : {"dtype", "image"} or (low, high)
        How values become colours; see :class:`PixelClassifier`.
    ignore_label : int, optional
        A label value, beside the negative ones, that means "ignore", such as 255.
    random_state : int, RandomState or None
        Seeds the weights, the crops and their changes. On a CPU, equal seeds and equal numbers of
        threads give equal networks. torch's and NumPy's global generators are left alone.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        Fitted; ``net_.history`` has the losses, ``net_.module_`` the network.
    mean_, std_ : ndarray of float32, (C,)
        Of the training images' colours (0..255), by which all inputs are standardised.
    classes_ : ndarray of int, (L,)
    spatial_ndim_, n_channels_in_ : int

    Notes
    -----
    For a trained segmenter that must not be trained again, as a step of a pipeline, wrap it in
    :class:`sklearn.frozen.FrozenEstimator`. An interrupt (Ctrl-C) ends the training early and
    keeps the network as it is then.

    References
    ----------
    .. [1] L. N. Smith, N. Topin: Super-Convergence: Very Fast Training of Neural Networks Using
       Large Learning Rates. arXiv:1708.07120, 2017 (the one-cycle schedule).

    Examples
    --------
    >>> from hybridseg import DeepSegmenter
    >>> from hybridseg.datasets import make_scenes
    >>> scenes = make_scenes(3, shape=(48, 64), random_state=0)
    >>> model = DeepSegmenter(
    ...     "unet", network_options={"width": 8, "depth": 2}, max_epochs=2, random_state=0
    ... )
    >>> model.fit(scenes.images[:2], scenes.labels[:2]).predict(scenes.images[2:])[0].shape
    (48, 64)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "network": [str, nn.Module, callable],
        "network_options": [dict, None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "crops_per_image": [Interval(Integral, 1, None, closed="left"), None],
        "crop_size": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "augment": [StrOptions(set(_AUGMENTS)), callable, None],
        "class_weight": [StrOptions({"balanced"}), None],
        "optimizer": [callable],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "callbacks": [list, tuple, None],
        "device": [str],
        "verbose": ["verbose"],
        "intensity_range": INTENSITY_RANGE,
        "ignore_label": IGNORE_LABEL,
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        network: Any = "unet",
        *,
        network_options: dict[str, Any] | None = None,
        max_epochs: int = 50,
        crops_per_image: int | None = None,
        crop_size: int = 128,
        batch_size: int = 8,
        augment: Any = "upright",
        class_weight: str | None = None,
        optimizer: Any = torch.optim.AdamW,
        lr: float = 3e-3,
        weight_decay: float = 1e-2,
        callbacks: Any = None,
        device: str = "cpu",
        verbose: int = 0,
        intensity_range: IntensityRange = "dtype",
        ignore_label: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.network = network
        self.network_options = network_options
        self.max_epochs = max_epochs
        self.crops_per_image = crops_per_image
        self.crop_size = crop_size
        self.batch_size = batch_size
        self.augment = augment
        self.class_weight = class_weight
        self.optimizer = optimizer
        self.lr = lr
        self.weight_decay = weight_decay
        self.callbacks = callbacks
        self.device = device
        self.verbose = verbose
        self.intensity_range = intensity_range
        self.ignore_label = ignore_label
        self.random_state = random_state

    def _learn(self, training: TrainingSet) -> None:
        if training.spatial_ndim != 2:
            raise ValueError(
                "y[0] is a volume (D, H, W), but DeepSegmenter segments 2-D images; pass the "
                "planes as images: X = [plane for volume in X for plane in volume], and y alike."
            )
        if isinstance(self.network, str):
            check_option(self.network, "network", sorted(NETWORKS))
        device = as_device(self.device)
        rng = random_generator(self.random_state)
        survey = Survey.of(training)
        crops = self._make_crops(training, survey, rng)
        with seeded(int(rng.integers(2**63)), device):
            module = self._make_module(training.n_channels, len(training.classes))
            net = self._make_net(module, crops, survey, device)
            net.fit(crops)
        check_converged(net)
        net.module_.eval()
        # Nothing reads the moments any more: pickles shrink to a third, and joblib can hash them.
        net.optimizer_.state.clear()
        self.mean_, self.std_, self.net_ = survey.mean, survey.std, net

    def _make_crops(self, training: TrainingSet, survey: Survey, rng: np.random.Generator) -> Crops:
        return Crops(
            training,
            survey,
            crop_size=self.crop_size,
            crops_per_image=self.crops_per_image or -(-_CROPS_PER_EPOCH // len(survey.labelled)),
            augment=_AUGMENTS.get(self.augment, self.augment),
            rng=rng,
        )

    def _make_module(self, n_channels: int, n_classes: int) -> nn.Module:
        if isinstance(self.network, nn.Module):
            if self.network_options:
                raise ValueError(
                    f"network_options={self.network_options!r}, but network is a module that "
                    f"exists already; pass its class, or no options."
                )
            return copy.deepcopy(self.network)
        factory = self.network
        if isinstance(factory, str):
            factory = NETWORKS[factory]
        options = self.network_options or {}
        module = factory(in_channels=n_channels, n_classes=n_classes, **options)
        if not isinstance(module, nn.Module):
            raise TypeError(
                f"network={self.network!r} made a {type(module).__name__}; expected a "
                f"torch.nn.Module."
            )
        return module

    def _make_net(
        self, module: nn.Module, crops: Crops, survey: Survey, device: torch.device
    ) -> skorch.NeuralNet:
        n_batches = max(1, len(crops) // self.batch_size)
        # The schedule divides by the steps of its warm-up, less one: a short training needs more
        # than a tenth of its steps for that.
        n_steps = max(3, n_batches * self.max_epochs)
        schedule = LRScheduler(
            torch.optim.lr_scheduler.OneCycleLR,
            step_every="batch",
            max_lr=self.lr,
            total_steps=n_steps,
            pct_start=max(0.1, 1.5 / n_steps),
            cycle_momentum=False,
        )
        balanced = self.class_weight == "balanced"
        weights = torch.from_numpy(survey.balanced_weights()) if balanced else None
        return skorch.NeuralNet(
            module.to(device, memory_format=torch.channels_last),
            PixelCrossEntropy,
            criterion__n_classes=len(survey.counts),
            criterion__weight=weights,
            optimizer=self.optimizer,
            optimizer__weight_decay=self.weight_decay,
            lr=self.lr,
            max_epochs=self.max_epochs,
            batch_size=self.batch_size,
            iterator_train__shuffle=True,
            # Every batch is full, so that none holds a single crop by accident.
            iterator_train__drop_last=len(crops) >= self.batch_size,
            train_split=None,
            callbacks=[("one_cycle", schedule), *copy.deepcopy(list(self.callbacks or ()))],
            device=device,
            verbose=self.verbose,
        )

    def _costs(self, scene: Scene) -> NDArray[np.float32]:
        colors = (scene.colors - self.mean_) / self.std_
        with torch.inference_mode():
            image = torch.from_numpy(colors).permute(2, 0, 1)[None].to(self.net_.device)
            expected = (1, len(self.classes_), *colors.shape[:2])
            found = logits_of(self.net_.module_(image), expected)
        return costs_from_logits(found[0].permute(1, 2, 0).cpu().float().numpy())


class PixelCrossEntropy(nn.CrossEntropyLoss):
    """Mean cross-entropy over the labelled pixels; -1 is void, and all void costs nothing."""

    def __init__(self, n_classes: int, weight: Tensor | None = None) -> None:
        super().__init__(weight=weight, ignore_index=-1)
        self.n_classes = n_classes

    def forward(self, output: Any, labels: Tensor) -> Tensor:
        """Output of a network ``(B, L, H, W)`` and class indices ``(B, H, W)`` to a number."""
        logits = logits_of(output, (len(labels), self.n_classes, *labels.shape[1:]))
        if not bool((labels >= 0).any()):
            return logits.sum() * 0.0  # the mean over no pixel would be NaN
        # torch's CPU loss cannot go backward through channels-last memory.
        return super().forward(logits.contiguous(), labels)


def logits_of(output: Any, expected: tuple[int, ...]) -> Tensor:
    """The logits in a network's output, checked to be of the shape ``(B, L, H, W)`` expected."""
    logits = output["out"] if isinstance(output, Mapping) else output
    if not isinstance(logits, Tensor) or tuple(logits.shape) != expected:
        what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"the network's output is {what}; expected logits (B, L, H, W) = {expected}, one "
            f"channel a class, at the size of the images. Change its last layer, or wrap it in a "
            f"module that resizes its output with torch.nn.functional.interpolate."
        )
    return logits


def as_device(name: str) -> torch.device:
    """The torch device of a name; "auto" is the GPU where there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"device={name!r} cannot be used here ({error}); expected 'auto', 'cpu' or 'cuda'."
        ) from error


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch for a while; its global generators come back as they were."""
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.random.default_generator.manual_seed(seed)
        if gpus:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def check_converged(net: skorch.NeuralNet) -> None:
    """Refuse a network that training has driven to NaN."""
    loss = net.history[-1].get("train_loss", 0.0)  # absent from an interrupted epoch
    if not np.isfinite(loss):
        raise ValueError(
            f"training diverged: the loss is {loss} after {len(net.history)} epochs; pass a lower "
            f"lr than {net.lr:g}."
        )
