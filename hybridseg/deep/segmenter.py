"""A neural network, trained by skorch, whose logits are the costs."""

from __future__ import annotations

import os
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

try:
    import skorch
    import torch
except ImportError as error:
    raise ImportError(
        "DeepSegmenter needs PyTorch and skorch: pip install hybridseg[deep]"
    ) from error
from torch import nn

from hybridseg.base import (
    CLASSES,
    IGNORE_LABEL,
    INTENSITY_RANGE,
    Interval,
    Scene,
    Segmenter,
    StrOptions,
    TrainingSet,
    restored_on_error,
)
from hybridseg.deep.prediction.calibration import Calibration
from hybridseg.deep.prediction.half import PRECISIONS
from hybridseg.deep.prediction.inference import Inference
from hybridseg.deep.prediction.inputs import as_input
from hybridseg.deep.prediction.spacing import common_spacing, warn_of_another
from hybridseg.deep.prediction.uncertainty import MonteCarloDropout
from hybridseg.deep.prediction.views import Views
from hybridseg.deep.training.augment import AUGMENTS
from hybridseg.deep.training.loop import SCHEDULES
from hybridseg.deep.training.loss import CLASS_WEIGHTS, LOSSES
from hybridseg.deep.training.start import Trained
from hybridseg.deep.training.training import Training
from hybridseg.validation import IntensityRange, as_spacing, said_once


class DeepSegmenter(Calibration, MonteCarloDropout, Segmenter):
    """Segment with a neural network; its logits become the costs.

    The network is trained on random crops, so images may differ in size; sparse scribbles do as
    well as full label maps. Each crop is laid around a labeled pixel, drawn evenly over the
    classes that the image has, so that rare classes are seen. Inference takes each image whole, or
    in tiles. 2-D images and volumes with any number of channels. Networks see pixels,
    whatever their spacing; where it differs between images, pass ``spacing``.

    Parameters
    ----------
    network : str, torch.nn.Module, or callable
        A name in :data:`hybridseg.networks.NETWORKS` ("unet3d" and "vnet" are for volumes); or a
        class or factory, called as ``network(in_channels=..., n_classes=..., **network_options)``;
        or a module, a copy of which is trained further (fine-tuned), such as those of other
        libraries through :func:`hybridseg.networks.adapt`. A module takes
        ``(B, C, *spatial)`` and gives logits ``(B, L, *spatial)`` (of two classes one output will
        do, the logit of the second); or a dict with them under "out", as torchvision's do, or a
        sequence with them first. What else the dict or sequence
        has while training, and what a method ``with_auxiliary(images)`` gives, are auxiliary
        heads, each of which adds 0.4 times its loss (other weights:
        ``loss=DeepSupervision(CrossEntropy(), [1, 1, 1])``).
    network_options : dict, optional
        Further arguments of the network. None: its own defaults, for "unet" the paper's width of
        64, which wants a GPU; on a CPU ``{"width": 16}`` is some ten times quicker and enough for
        a few pictures.
    max_epochs : int
        The learning rate is planned over all of them, so fewer epochs make a shorter, not a
        broken-off training.
    crops_per_image : int, optional
        Crops of each image in an epoch. None: one, or as many as make at least 64 crops an epoch.
    crop_size : int or tuple of int
        Sides of the crops, in pixels; no larger than the longest sides of the images. One number
        makes squares and cubes. As large as the context that a human needs to tell the classes;
        memory and time grow with its square (or cube). With one picture and little time, many
        small crops (64) teach more than few large ones.
    batch_size : int
        Crops of one gradient step, of all processes together, and tiles that are scored together.
    accumulate : int
        The parts, as even as can be, in which a batch passes through the network: so much less
        memory for the same step, but for batch statistics, which each part has of its own, and
        losses that are no means over pixels.
    augment : {"upright", "dihedral"}, Augmentation, callable or None
        Random changes of the crops. "upright": mirroring left to right, contrast, brightness; for
        pictures that have a top. "dihedral": all eight turns and mirrorings, contrast,
        brightness; for microscopy and aerial pictures. :class:`hybridseg.unary.Augmentation` has
        strengths and random scale. A function ``augment(colors, labels, rng)`` of colors
        ``(*size, C)`` in standard deviations, labels ``(*size,)`` (class indices, -1 void) and a
        NumPy generator gives both, changed.
    loss : str or torch.nn.Module
        "cross_entropy", "focal", "dice", "generalized_dice", "lovasz" or "boundary_weighted"; or a
        module, called as ``loss(logits, target)`` with class indices, negative where void, such as
        those of :mod:`hybridseg.losses` and their sums; those of torch, and others with
        an ``ignore_index``, are told what is void. With "dice" or "lovasz" alone
        trainings start slowly: ``CrossEntropy() + SoftDice()``.
    class_weight : str, mapping, array-like (L,) or None
        The weight of each class in the loss. "balanced": in inverse proportion to its labeled
        pixels; "median_frequency" (SegNet), "log_frequency" (ENet, milder) and
        "effective_number" are other rules of :mod:`hybridseg.losses`; a mapping from
        label values, 1 for those left out; or numbers in the order of ``classes_``. Helps where
        rare classes are missed; its probabilities then overstate rare classes.
    optimizer : callable
        A class of :mod:`torch.optim`, or a ``functools.partial`` of one.
    lr : float
        The highest learning rate of the schedule.
    encoder_lr_factor : float
        The learning rate of the part called ``encoder``, ``backbone`` or ``down`` over that of the
        rest: 0.1 is usual for pretrained encoders; 0 freezes it, with its batch statistics.
    schedule : {"one_cycle", "poly", "constant"}
        "one_cycle" [1]_ rises over the first tenth of the steps and falls to nothing; "poly" falls
        as (1 - step/steps)^0.9 [2]_. Others: "constant" and ``skorch.callbacks.LRScheduler``.
    weight_decay : float
        For the optimizer.
    precision : {"float32", "bfloat16", "float16"}
        What the network computes in, for training and for inference; weights (also those of a
        module that comes in another precision) and losses are float32. "bfloat16" is faster on
        GPUs and on processors that have it (AVX512-BF16, AMX), slower on others; "float16"
        is for GPUs, and scales its gradients.
    validation : float, (X, y) or None
        Held-out images: the share of the images, drawn at random, or images and label maps. They
        are scored whole after each epoch; ``net_.history`` gets "valid_loss" and
        "valid_mean_iou", and the weights of the best epoch are kept in the end. Where scoring
        takes long, raise ``crops_per_image`` and lower ``max_epochs``.
    patience : int, optional
        Training ends when this number of epochs has brought no better "valid_mean_iou".
    checkpoint : path, optional
        A directory in which each epoch leaves all that the next depends on. A ``fit`` that was
        killed and is called again with the same images and settings goes on there, and ends with
        the same weights as if nothing had happened (with the caller's callbacks: if they keep no
        state). After the end, it gives the result at once. A directory for each training: set
        another before ``partial_fit``; searches and cross-validation cannot share one.
    warm_start : bool
        Whether ``fit`` goes on from the weights of the ``fit`` before, whose ``mean_`` and
        ``std_`` stay, with a new head for new classes.
    callbacks : list, optional
        skorch callbacks, such as ``skorch.callbacks.GradientNormClipping(1.0)``,
        ``EarlyStopping(monitor="train_loss")`` or ``Checkpoint(monitor="valid_mean_iou_best")``.
        Copies are used; they are in ``net_.callbacks_``.
    n_jobs : int, optional
        Processes that make crops while the network trains; None or 1: none. They are spawned (a
        fork would break compiled kernels), so a script needs ``if __name__ == "__main__"``. Crops
        take a few percent of the time on a CPU; GPUs may have to wait for them. The crops are the
        same.
    tile : int, tuple of int or None
        Inference takes images in tiles of this many pixels along each axis, so that memory is
        bounded; None: whole. Logits are blended where tiles overlap. The network sees nothing but
        whole tiles, so it may be of one input size: the last tile along an axis is moved back, and
        smaller images are continued by their last values.
    overlap : int, optional
        Pixels by which neighboring tiles overlap, at least; None: a quarter of the tile. The
        outer quarter of it is not used, so pixels whose receptive field reaches no further than
        that are scored as in the whole image. Only together with ``tile``.
    tta : {"mirror"}, Views or None
        Test-time augmentation: probabilities are averaged over an image and its mirror image, or
        over the scales and mirrorings of :class:`hybridseg.unary.Views`.
    mirror_pairs : sequence of (int, int)
        Label values that are each other's mirror images, such as a left and a right hippocampus:
        ``((1, 2),)``. ``augment`` and ``tta`` swap them where they mirror; without it, they mix
        them up. (A function of your own that augments has to swap them itself.)
    device : str
        "cpu", "cuda" (or any device that torch knows), or "auto": the GPU where there is one.
        "accelerate": several GPUs, one for each of the processes that were started by
        ``accelerate launch script.py`` (or torchrun); see the notes.
    verbose : int
        Above 0, skorch prints a line an epoch; above 1, there is a progress bar, too.
    spacing : float or sequence of float, optional
        The distance between pixels, along each axis, at which the network sees images: each Scene
        that states another one is resampled linearly for it, and its scores back. None: images
        are taken pixel by pixel, and a warning says where their spacings differ.
    classes : array-like of int, optional
        The label values of the classes, where some of them may be missing in ``y``, such as in a
        fold of a cross-validation. None: those of ``y``, at least two.
    intensity_range : {"dtype", "image"} or (low, high)
        How values become colors; see :class:`PixelClassifier`.
    ignore_label : int, optional
        A label value, beside the negative ones, that means "ignore", such as 255.
    random_state : int, RandomState or None
        Seeds the weights, the crops and their changes. On a CPU, equal seeds and equal numbers of
        threads give equal networks. torch's and NumPy's global generators are left alone.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        Fitted; ``net_.history`` has the losses (:func:`hybridseg.unary.plot_history` shows them),
        ``net_.module_`` the network.
    mean_, std_ : ndarray of float32, (C,)
        Colors (0..255) are standardized by them: the training images' own, or those that a
        network with pretrained weights expects (:func:`hybridseg.networks.input_statistics`).
    temperature_ : float
        By which logits are divided; 1 until :meth:`calibrate` is called.
    calibration_error_ : ndarray of float, (2,)
        Of :meth:`calibrate`: the expected calibration error before and after.
    spacing_ : tuple of float or None
        That of the training images, or of the parameter ``spacing``; None where none is stated.
    classes_ : ndarray of int, (L,)
    spatial_ndim_, n_channels_in_ : int

    Notes
    -----
    For a trained segmenter that must not be trained again, as a step of a pipeline, wrap it in
    :class:`sklearn.frozen.FrozenEstimator`. An interrupt (Ctrl-C) ends the training early and
    keeps the network as it is then. ``precision``, ``tile``, ``overlap`` and ``tta`` may be set
    anew (``set_params``) on a trained segmenter.

    With ``device="accelerate"`` all processes run the same script, see all images, and train the
    same network: each passes an equal part of every batch through it, as ``accumulate`` does one
    after the other, and gradients are averaged. So the result is that of one process, but for
    rounding, dropout and batch statistics (which ``torch.nn.SyncBatchNorm`` shares, on GPUs). All
    have the same history, and the whole network in the end. Callbacks run in each; the first one
    prints, and writes ``checkpoint``, from which any number of processes may go on. Of accelerate's
    own settings only those of processes and devices count. What one process alone should do::

        model = DeepSegmenter(device="accelerate").fit(images, labels)
        if accelerate.PartialState().is_main_process:
            hybridseg.save(model, "model.hybridseg")

    References
    ----------
    .. [1] L. N. Smith, N. Topin: Super-Convergence: Very Fast Training of Neural Networks Using
       Large Learning Rates. arXiv:1708.07120, 2017 (the one-cycle schedule).
    .. [2] L.-C. Chen et al.: DeepLab. IEEE TPAMI 40(4), 2018, section 4.1.2 (the "poly" schedule).

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
        "crop_size": [Interval(Integral, 1, None, closed="left"), tuple, list],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "accumulate": [Interval(Integral, 1, None, closed="left")],
        "augment": [StrOptions(set(AUGMENTS)), callable, None],
        "loss": [StrOptions(set(LOSSES)), callable],
        "class_weight": [StrOptions(set(CLASS_WEIGHTS)), dict, "array-like", None],
        "optimizer": [callable],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "encoder_lr_factor": [Interval(Real, 0, None, closed="left")],
        "schedule": [StrOptions(set(SCHEDULES))],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
        "precision": [StrOptions(set(PRECISIONS))],
        "validation": [Interval(Real, 0, 1, closed="neither"), tuple, list, None],
        "patience": [Interval(Integral, 1, None, closed="left"), None],
        "checkpoint": [str, os.PathLike, None],
        "warm_start": ["boolean"],
        "callbacks": [list, tuple, None],
        "n_jobs": [Integral, None],
        "tile": [Interval(Integral, 1, None, closed="left"), tuple, list, None],
        "overlap": [Interval(Integral, 0, None, closed="left"), None],
        "tta": [StrOptions({"mirror"}), Views, None],
        "mirror_pairs": [tuple, list],
        "device": [str],
        "verbose": ["verbose"],
        "spacing": [Real, "array-like", None],
        "classes": CLASSES,
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
        crop_size: int | tuple[int, ...] = 128,
        batch_size: int = 8,
        accumulate: int = 1,
        augment: Any = "upright",
        loss: Any = "cross_entropy",
        class_weight: Any = None,
        optimizer: Any = torch.optim.AdamW,
        lr: float = 3e-3,
        encoder_lr_factor: float = 1.0,
        schedule: str = "one_cycle",
        weight_decay: float = 1e-2,
        precision: str = "float32",
        validation: Any = None,
        patience: int | None = None,
        checkpoint: Any = None,
        warm_start: bool = False,
        callbacks: Any = None,
        n_jobs: int | None = None,
        tile: int | tuple[int, ...] | None = None,
        overlap: int | None = None,
        tta: Any = None,
        mirror_pairs: Any = (),
        device: str = "cpu",
        verbose: int = 0,
        spacing: Any = None,
        classes: Any = None,
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
        self.accumulate = accumulate
        self.augment = augment
        self.loss = loss
        self.class_weight = class_weight
        self.optimizer = optimizer
        self.lr = lr
        self.encoder_lr_factor = encoder_lr_factor
        self.schedule = schedule
        self.weight_decay = weight_decay
        self.precision = precision
        self.validation = validation
        self.patience = patience
        self.checkpoint = checkpoint
        self.warm_start = warm_start
        self.callbacks = callbacks
        self.n_jobs = n_jobs
        self.tile = tile
        self.overlap = overlap
        self.tta = tta
        self.mirror_pairs = mirror_pairs
        self.device = device
        self.verbose = verbose
        self.spacing = spacing
        self.classes = classes
        self.intensity_range = intensity_range
        self.ignore_label = ignore_label
        self.random_state = random_state

    spacing: Any = None  # of models that were saved before there was such a parameter
    net_: skorch.NeuralNet
    spacing_: tuple[float, ...] | None
    mean_: NDArray[np.float32]
    std_: NDArray[np.float32]
    temperature_: float

    def fit(self, X: Any, y: Any) -> Self:
        """Train a network; with ``warm_start``, train the network of the ``fit`` before further.

        Parameters
        ----------
        X : sequence of images, paths or Scenes
            Images ``(H, W[, C])`` or ``(D, H, W[, C])`` of any real dtype; sizes may differ.
        y : sequence of label maps (or paths)
            Integers of each image's spatial shape; negative values, and ``ignore_label``, mark
            pixels to leave out, so sparse scribbles are fine.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            The input is not as above, or holds fewer than two classes (see ``classes``); or the
            training diverged in its first epoch. An estimator that was fitted before stays as it
            was.

        Warns
        -----
        ConvergenceWarning
            The training diverged later; the network is that of the best epoch before.
        """
        return self._fit(X, y, self._trained() if self.warm_start else None, self.classes)

    def partial_fit(self, X: Any, y: Any, classes: ArrayLike | None = None) -> Self:
        """Train the network further, for another ``max_epochs``, on images of a new kind.

        Its ``mean_`` and ``std_`` stay, as its weights were made for them. Where there are new
        classes it gets a new head, which keeps what it knew of the others. Low rates, such as
        ``set_params(lr=3e-4, encoder_lr_factor=0.1)``, forget less.

        Parameters
        ----------
        X, y : sequences
            As in :meth:`fit`; label maps of a trained network may hold one class only.
        classes : array-like of int, optional
            The label values of the classes from now on. None: those of the parameter ``classes``,
            else those so far and those of ``y``.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As in :meth:`fit`; or ``classes`` lacks a value of ``y``.
        """
        trained = self._trained()
        classes = self.classes if classes is None else classes
        return self._fit(X, y, trained, classes, () if trained is None else trained.classes)

    def _trained(self) -> Trained | None:
        if not hasattr(self, "net_"):
            return None
        return Trained(self.net_.module_, self.classes_, self.mean_, self.std_)

    @said_once()
    def _fit(
        self, X: Any, y: Any, trained: Trained | None, classes: Any, known: ArrayLike = ()
    ) -> Self:
        with restored_on_error(self):
            self._validate_params()
            training = TrainingSet.read(
                X, y, self.intensity_range, self.ignore_label, classes=classes, known=known
            )
            if trained is not None:
                self._check_alike(training)
            rank = training.spatial_ndim
            if self.spacing is None:
                before = None if trained is None else getattr(self, "spacing_", None)
                self.spacing_ = common_spacing(training.scenes, rank, before)
            else:
                self.spacing_ = as_spacing(self.spacing, rank)
            self.classes_ = training.classes
            self.spatial_ndim_ = training.spatial_ndim
            self.n_channels_in_ = training.n_channels
            self.net_, self.mean_, self.std_ = Training.of(self).run(training, trained)
            self.temperature_ = 1.0
            self.__dict__.pop("calibration_error_", None)
        return self

    def _check_alike(self, training: TrainingSet) -> None:
        """A trained network goes on with images of the kind that it knows."""
        found = training.spatial_ndim, training.n_channels
        if found != (self.spatial_ndim_, self.n_channels_in_):
            raise ValueError(
                f"X holds images of {found[0]} axes and {found[1]} channels, but the network was "
                f"trained on {self.spatial_ndim_} axes and {self.n_channels_in_} channels; convert "
                f"the images, or fit anew."
            )

    def _costs(self, scene: Scene) -> NDArray[np.float32]:
        if self.spacing is None:
            warn_of_another(scene, getattr(self, "spacing_", None))
        return self._costs_by(self.net_.module_, *self._input(scene))

    def _input(self, scene: Scene) -> tuple[torch.Tensor, tuple[int, ...]]:
        """An image ``(C, *spatial)`` as the network takes it, and the shape at which it sees it."""
        image = as_input(scene.filled_colors, (self.mean_, self.std_))
        return image, Inference.of(self).seen_shape(scene, tuple(image.shape[1:]))

    def _costs_by(
        self, network: nn.Module, image: torch.Tensor, size: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """Costs by a network that may take the place of the trained one."""
        return Inference.of(self).costs(
            network, image, self.classes_, temperature=self.temperature_, size=size
        )
