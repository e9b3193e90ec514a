"""A segmenter that trains a neural network with skorch; its costs come from the logits."""

from __future__ import annotations

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
    Scene,
    Segmenter,
    TrainingSet,
    restored_on_error,
)
from hybridseg.deep.crf_network import CRFNetwork
from hybridseg.deep.prediction.calibration import Calibration
from hybridseg.deep.prediction.inference import Inference
from hybridseg.deep.prediction.inputs import as_input
from hybridseg.deep.prediction.spacing import common_spacing, warn_of_another
from hybridseg.deep.prediction.uncertainty import MonteCarloDropout
from hybridseg.deep.training.constraints import CONSTRAINTS
from hybridseg.deep.training.start import Trained
from hybridseg.deep.training.training import Training
from hybridseg.validation import IntensityRange, as_spacing, said_once


class DeepSegmenter(Calibration, MonteCarloDropout, Segmenter):
    """Segment with a neural network, trained on labeled images; its logits become the costs.

    The network is trained on random crops, so images may have different sizes. Labels may be full
    label maps or sparse scribbles. Each crop contains a labeled pixel of a class that is drawn
    uniformly among the classes of its image, so that rare classes are seen often. Inference
    predicts whole images, or tiles of them. Images and volumes may have any number of channels. A
    network works on pixels and does not know their spacing; if it differs between images, pass
    ``spacing``.

    Parameters
    ----------
    network : str, torch.nn.Module, or callable
        A name in :data:`hybridseg.networks.NETWORKS` ("unet3d" and "vnet" are for volumes); a class
        or factory, called as ``network(in_channels=..., n_classes=..., **network_options)``; or a
        module. A copy of a module is trained further (fine-tuned); use
        :func:`hybridseg.networks.adapt` for modules of other libraries. The module takes images
        ``(B, C, *spatial)`` and returns logits ``(B, L, *spatial)``, or one channel for two
        classes, which is the logit of the second class. It may also return a dict with the logits
        under "out", as torchvision's networks do, or a sequence with the logits first. The other
        entries in training, and the outputs of a method ``with_auxiliary(images)``, are those of
        auxiliary heads. Each of them adds 0.4 times its loss; for other weights pass
        ``loss=DeepSupervision(CrossEntropy(), [1, 1, 1])``.
    network_options : dict, optional
        Further arguments of the network. None: its defaults. The default width of "unet" is 64, as
        in the paper, which is slow without a GPU. On a CPU ``{"width": 16}`` is about ten times
        faster, and enough for a few images.
    max_epochs : int
        The number of epochs. The learning-rate schedule spans all of them.
    crops_per_image : int, optional
        The number of crops of each image in an epoch. None: the smallest number that gives at
        least 64 crops in an epoch.
    crop_size : int or tuple of int
        The extent of the crops along each axis, in pixels, limited by the largest extents of the
        images. An integer gives squares or cubes. Choose a crop that shows enough context for a
        human to recognize the classes; memory and time grow with its area (or volume). With one
        image and little time, many small crops (64) teach more than a few large ones.
    batch_size : int
        The number of crops in a gradient step, over all processes together. It is also the number
        of tiles in a batch of inference.
    accumulate : int
        The number of parts of a batch over which gradients are accumulated. The parts pass through
        the network one after the other, which saves memory. The step is the same, except that each
        part has its own batch statistics, and except for losses that are not means over pixels.
    augment : {"upright", "dihedral"}, Augmentation, callable or None
        Random augmentation of the crops. "upright" mirrors left to right and changes contrast and
        brightness, for images with a fixed top. "dihedral" mirrors and rotates by right angles (all
        eight symmetries of a square) and changes contrast and brightness, for microscopy and aerial
        images. :class:`hybridseg.unary.Augmentation` has further settings, such as random scale. A
        callable ``augment(colors, labels, rng)`` gets standardized colors ``(*size, C)``, labels
        ``(*size,)`` (class indices, -1 where there is no label) and a NumPy generator, and returns
        new colors and labels.
    loss : str or torch.nn.Module
        "cross_entropy", "focal", "dice", "generalized_dice", "lovasz" or "boundary_weighted"; or a
        module that is called as ``loss(logits, target)`` with class indices, negative where there
        is no label. Such modules are the losses of :mod:`hybridseg.losses` and their sums, the
        losses of torch, and others with an ``ignore_index``, which is set. Trainings with "dice" or
        "lovasz" alone start slowly; ``CrossEntropy() + SoftDice()`` is faster.
    class_weight : str, mapping, array-like (L,) or None
        The weight of each class in the loss. "balanced" is inversely proportional to the number of
        labeled pixels of the class; "median_frequency" (SegNet), "log_frequency" (ENet, milder) and
        "effective_number" are other rules of :mod:`hybridseg.losses`. A mapping has weights by
        label value (1 for other values); an array has them in the order of ``classes_``. Use
        weights if rare classes are missed. The network then overestimates the probabilities of rare
        classes.
    optimizer : callable
        A class of :mod:`torch.optim`, or a ``functools.partial`` of one.
    lr : float
        The highest learning rate of the schedule.
    encoder_lr_factor : float
        The ratio of the learning rate of the encoder (the part called ``encoder``, ``backbone`` or
        ``down``) to that of the other layers. 0.1 is usual for pretrained encoders. 0 freezes the
        encoder and its batch statistics.
    schedule : {"one_cycle", "poly", "constant"}
        The learning-rate schedule. "one_cycle" [1]_ rises over the first tenth of the steps and
        then falls to nearly 0. "poly" falls as (1 - step/steps)^0.9 [2]_. For other schedules pass
        "constant" and a callback ``skorch.callbacks.LRScheduler``.
    weight_decay : float
        The weight decay of the optimizer.
    precision : {"float32", "bfloat16", "float16"}
        The precision of the network's computation in training and inference (mixed precision):
        weights and losses are always float32. "bfloat16" is faster on GPUs and on processors that
        support it (AVX512-BF16, AMX), and slower on others. "float16" works on GPUs only; gradients
        are scaled for it.
    validation : float, (X, y) or None
        The validation split: the fraction of the images to hold out, drawn at random, or other
        images and label maps. Held-out images are scored as a whole after each epoch.
        ``net_.history`` gets "valid_loss" and "valid_mean_iou", and the weights of the best epoch
        are restored at the end. If the scoring takes long, raise ``crops_per_image`` and lower
        ``max_epochs``.
    patience : int, optional
        Early stopping: the training ends after this number of epochs in a row without a better
        "valid_mean_iou".
    checkpoint : path, optional
        A directory for a checkpoint, which is written after each epoch. If a ``fit`` is interrupted
        and called again with the same images and settings, it resumes from the checkpoint and ends
        with the same weights as without the interruption (provided that your own callbacks have no
        state). After the last epoch, ``fit`` returns the result at once. Each training needs its
        own directory: set another one before ``partial_fit``, and do not use the parameter in
        searches and cross-validation.
    warm_start : bool
        Whether ``fit`` continues from the weights of the previous ``fit``. ``mean_`` and ``std_``
        then stay the same, and new classes get a new head.
    callbacks : list, optional
        skorch callbacks, such as ``skorch.callbacks.GradientNormClipping(1.0)``,
        ``EarlyStopping(monitor="train_loss")`` or ``Checkpoint(monitor="valid_mean_iou_best")``.
        They are copied; the copies are in ``net_.callbacks_``.
    n_jobs : int, optional
        The number of worker processes that make crops while the network trains. None or 1: there
        are none. The workers are spawned (a fork would break compiled kernels), so a script needs
        ``if __name__ == "__main__"``. On a CPU making crops takes a few percent of the time; a GPU
        may have to wait for them. The crops do not depend on this number.
    tile : int, tuple of int or None
        The extent of the tiles of inference along each axis, in pixels, which bounds the memory
        (sliding window). None: whole images. The logits of overlapping tiles are blended. All tiles
        have the full size, so the network may require a fixed input size: the last tile along an
        axis is moved back, and smaller images are padded with their last values.
    overlap : int, optional
        The minimum overlap of neighboring tiles, in pixels; only with ``tile``. None: a quarter of
        the tile. A tile does not contribute to the outer quarter of its overlap, which is its halo.
        A pixel gets the same scores as in the whole image if its receptive field does not extend
        beyond this halo.
    tta : {"mirror"}, Views or None
        Test-time augmentation. "mirror" averages the probabilities over an image and its mirror
        image; :class:`hybridseg.unary.Views` averages over scales and mirrored axes.
    mirror_pairs : sequence of (int, int)
        Pairs of label values that become each other in a mirror image, such as the left and the
        right hippocampus: ``((1, 2),)``. ``augment`` and ``tta`` swap the two labels when they
        mirror an image. A callable ``augment`` has to swap them itself.
    device : str
        "cpu", "cuda" (or another device of torch), or "auto" for a GPU if there is one.
        "accelerate" trains on several GPUs, one for each process that ``accelerate launch
        script.py`` (or torchrun) has started; see the notes.
    verbose : int
        From 1, skorch prints a line for each epoch; from 2, it also shows a progress bar.
    spacing : float or sequence of float, optional
        The spacing of pixels along each axis at which the network sees images. A Scene with
        another spacing is resampled linearly for the network, and its scores are resampled back.
        None: images are not resampled, and a warning names the first image with another spacing.
    classes : array-like of int, optional
        The label values of the classes, if some may be missing in ``y``, such as in a fold of a
        cross-validation. None: the label values of ``y``, at least two.
    intensity_range : {"dtype", "image"} or (low, high)
        How values become colors; see :class:`hybridseg.PixelClassifier`.
    ignore_label : int, optional
        A label value besides the negative ones, such as 255, that marks pixels to ignore.
    random_state : int, RandomState or None
        Seeds the weights, the crops and their augmentation. On a CPU, equal seeds and equal numbers
        of threads give equal networks. The global generators of torch and NumPy are not changed.
    crf : bool, dict or CRFLayer
        Whether a :class:`hybridseg.CRFLayer` refines the logits and is trained together with the
        network. True: a weak layer (weights 1 and 2, widths of 1 and 20 pixels), with 10 iterations
        in predictions. A dict has the arguments that differ from it, such as
        ``{"bilateral_color": 5.0, "learn": "all"}`` or the ``params_`` of a
        :class:`hybridseg.DenseCRF`. Colors are those of the images, without standardization, and
        widths are in pixels of the network's input. Weight decay pulls the CRF to the given values.
        With ``tile``, the CRF sees one tile at a time. ``net_.module_.crf`` is the trained layer.
        New classes get a new layer.
    crf_start : float
        The fraction of the epochs in which the network is trained alone, without the CRF. The CRF
        learns little from a network that knows nothing yet; predictions always use it.

    Attributes
    ----------
    net_ : skorch.NeuralNet
        The fitted net. ``net_.history`` has the losses, which
        :func:`hybridseg.unary.plot_history` plots; ``net_.module_`` is the network.
    mean_, std_ : ndarray of float32, (C,)
        The mean and standard deviation with which colors (on the scale 0..255) are standardized:
        those of the training images, or those that pretrained weights expect
        (:func:`hybridseg.networks.input_statistics`).
    temperature_ : float
        The divisor of the logits; 1 until :meth:`calibrate` is called.
    calibration_error_ : ndarray of float, (2,)
        The expected calibration error before and after :meth:`calibrate`.
    spacing_ : tuple of float or None
        The parameter ``spacing``, or the spacing of the training images; None if they have none.
    classes_ : ndarray of int, (L,)
        The label values of the classes, sorted.
    spatial_ndim_, n_channels_in_ : int
        The numbers of spatial axes and of channels of the training images.

    Notes
    -----
    To use a trained segmenter as a step of a pipeline without training it again, wrap it in
    :class:`sklearn.frozen.FrozenEstimator`. An interrupt (Ctrl-C) ends the training early and
    keeps the current network. ``precision``, ``tile``, ``overlap`` and ``tta`` can be changed on a
    trained segmenter with ``set_params``.

    With ``device="accelerate"`` all processes run the same script, read all images, and train the
    same network. Each process passes an equal part of every batch through the network, and the
    gradients are averaged. The result is that of one process with ``accumulate``, except for
    rounding, dropout and batch statistics (which ``torch.nn.SyncBatchNorm`` shares on GPUs). At the
    end all processes have the same history and the whole network. Callbacks run in each process.
    Process 0 prints, and writes ``checkpoint``, from which any number of processes can resume.
    Settings of accelerate other than those of processes and devices have no effect. For steps that
    only one process should do, write::

        model = DeepSegmenter(device="accelerate").fit(images, labels)
        if accelerate.PartialState().is_main_process:
            hybridseg.save(model, "model.hybridseg")

    References
    ----------
    .. [1] L. N. Smith, N. Topin, "Super-convergence: very fast training of neural networks using
       large learning rates", arXiv:1708.07120, 2017.
    .. [2] L.-C. Chen, G. Papandreou, I. Kokkinos, K. Murphy, A. L. Yuille, "DeepLab: semantic image
       segmentation with deep convolutional nets, atrous convolution, and fully connected CRFs",
       IEEE TPAMI 40(4), 2018, section 4.1.2.

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

    _parameter_constraints: ClassVar[dict[str, Any]] = CONSTRAINTS

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
        crf: Any = False,
        crf_start: float = 0.5,
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
        self.crf = crf
        self.crf_start = crf_start

    # for models that were saved before these parameters existed
    spacing: Any = None
    crf: Any = False
    crf_start: float = 0.5
    net_: skorch.NeuralNet
    spacing_: tuple[float, ...] | None
    mean_: NDArray[np.float32]
    std_: NDArray[np.float32]
    temperature_: float

    def fit(self, X: Any, y: Any) -> Self:
        """Train a new network, or with ``warm_start`` the network of the previous ``fit``.

        Parameters
        ----------
        X : sequence of images, paths or Scenes
            Images ``(H, W[, C])`` or volumes ``(D, H, W[, C])`` of any real dtype; their sizes may
            differ.
        y : sequence of label maps (or paths)
            Integers with the spatial shape of each image. Pixels with negative values or
            ``ignore_label`` are ignored, so sparse scribbles are possible.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            A parameter, ``X`` or ``y`` is not as described, ``y`` has fewer than two classes (see
            ``classes``), or the training diverged in the first epoch. A segmenter that was fitted
            before does not change then.

        Warns
        -----
        ConvergenceWarning
            The training diverged in a later epoch. The network has the weights of the best epoch
            before.
        UserWarning
            The spacings of the images differ, and ``spacing`` is None.
        """
        return self._fit(X, y, self._trained() if self.warm_start else None, self.classes)

    def partial_fit(self, X: Any, y: Any, classes: ArrayLike | None = None) -> Self:
        """Train the network further on other images, for another ``max_epochs``.

        ``mean_`` and ``std_`` do not change, because the weights were trained with them. If there
        are new classes, the network gets a new head that keeps the weights of the old classes. With
        low learning rates, such as ``set_params(lr=3e-4, encoder_lr_factor=0.1)``, the network
        forgets less.

        Parameters
        ----------
        X, y : sequences
            As in :meth:`fit`. If the network is trained already, ``y`` may have a single class.
        classes : array-like of int, optional
            The label values of the classes from now on. None: those of the parameter ``classes``
            if it is given, else the classes so far and those of ``y``.

        Returns
        -------
        self

        Raises
        ------
        TypeError, ValueError
            As in :meth:`fit`; also if ``y`` has a label value that is not in ``classes``, or if
            the images have other numbers of axes or channels than before.

        Warns
        -----
        ConvergenceWarning, UserWarning
            As in :meth:`fit`.
        """
        trained = self._trained()
        classes = self.classes if classes is None else classes
        return self._fit(X, y, trained, classes, () if trained is None else trained.classes)

    def _trained(self) -> Trained | None:
        """The network of the last training; None before the first."""
        if not hasattr(self, "net_"):
            return None
        return Trained(self.net_.module_, self.classes_, self.mean_, self.std_)

    @said_once()
    def _fit(
        self, X: Any, y: Any, trained: Trained | None, classes: Any, known: ArrayLike = ()
    ) -> Self:
        """Train a new network, or ``trained`` further, and set the fitted attributes."""
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
        """Refuse images with other numbers of axes or channels than the network was trained on."""
        found = training.spatial_ndim, training.n_channels
        if found != (self.spatial_ndim_, self.n_channels_in_):
            raise ValueError(
                f"X holds images of {found[0]} axes and {found[1]} channels, but the network was "
                f"trained on {self.spatial_ndim_} axes and {self.n_channels_in_} channels; convert "
                f"the images, or fit a new segmenter."
            )

    def _with_crf(
        self, network: nn.Module, n_channels: int, n_classes: int, before: nn.Module | None
    ) -> nn.Module:
        """Return the network, followed by a CRF if there is one."""
        if self.crf is False:
            return network
        return CRFNetwork.around(
            network, self.crf, n_channels, n_classes, start=self.crf_start, before=before
        )

    def _costs(self, scene: Scene) -> NDArray[np.float32]:
        if self.spacing is None:
            warn_of_another(scene, getattr(self, "spacing_", None))
        return self._costs_by(self.net_.module_, *self._input(scene))

    def _input(self, scene: Scene) -> tuple[torch.Tensor, tuple[int, ...]]:
        """The input ``(C, *spatial)`` of the network, and the shape to which it is resampled."""
        image = as_input(scene.filled_colors, (self.mean_, self.std_))
        return image, Inference.of(self).seen_shape(scene, tuple(image.shape[1:]))

    def _costs_by(
        self, network: nn.Module, image: torch.Tensor, size: tuple[int, ...]
    ) -> NDArray[np.float32]:
        """The costs ``(*spatial, L)`` of a network, such as a copy of the trained one."""
        return Inference.of(self).costs(
            network, image, self.classes_, temperature=self.temperature_, size=size
        )
