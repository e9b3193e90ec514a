"""The training loop of skorch with mixed precision, gradient accumulation and processes.

The file also holds the learning-rate schedules, the encoder's own learning rate, and seeding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import skorch
import torch
from skorch.utils import to_tensor
from torch import nn

from hybridseg.deep.prediction.half import autocast
from hybridseg.deep.training.divergence import Divergence
from hybridseg.deep.training.processes import Processes
from hybridseg.deep.training.start import without_crf
from hybridseg.networks.adapters import AdaptedNetwork

SCHEDULES = ("one_cycle", "poly", "constant")

#: Names of the pretrained part of a network, in the order in which they are tried.
_ENCODERS = ("encoder", "backbone", "down")


class SegmentationNet(skorch.NeuralNet):
    """The skorch net of a training for segmentation.

    Parameters
    ----------
    *args, **kwargs
        Arguments of :class:`skorch.NeuralNet`. ``iterator_train__sampler`` is an ``EpochSampler``.
    processes : Processes
        The processes that train together; each has its own net and an equal part of each batch.
    seed : int
        The random numbers of an epoch (for dropout) depend on it, the number of the epoch, and the
        rank of the process.
    precision : {"float32", "bfloat16", "float16"}
        The precision of the network's computation.
    accumulate : int
        The number of parts of a batch over which gradients are accumulated.
    encoder_lr_factor : float
        The ratio of the encoder's learning rate to that of the other layers. 0: the encoder is
        frozen.
    layout : torch.memory_format
        The memory format of images; see :func:`hybridseg.deep.prediction.half.training_layout`.
    """

    def __init__(
        self,
        *args: Any,
        processes: Processes,
        seed: int = 0,
        precision: str = "float32",
        accumulate: int = 1,
        encoder_lr_factor: float = 1.0,
        layout: torch.memory_format = torch.contiguous_format,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.processes = processes
        self.seed = seed
        self.precision = precision
        self.accumulate = accumulate
        self.encoder_lr_factor = encoder_lr_factor
        self.layout = layout

    def initialize(self) -> SegmentationNet:
        """Prepare the training; the gradients of float16 get a scaler."""
        scaled = self.precision == "float16"
        self.scaler_ = torch.amp.GradScaler(torch.device(self.device).type, enabled=scaled)
        self.diverged_ = ""
        super().initialize()
        return self

    def on_epoch_begin(self, net: Any, *args: Any, **kwargs: Any) -> None:
        """Seed torch and the sampler from the seed and the number of the epoch."""
        epoch = len(self.history)
        super().on_epoch_begin(net, *args, **kwargs)
        self.iterator_train__sampler.epoch = epoch
        if hasattr(self.module_, "begin_epoch"):  # a CRF, which joins later
            self.module_.begin_epoch(epoch, self.max_epochs)
        own = self.seed, epoch, self.processes.rank
        torch.manual_seed(int(np.random.SeedSequence(own).generate_state(1)[0]))

    def on_epoch_end(self, net: Any, *args: Any, **kwargs: Any) -> None:
        """Average batch statistics over the processes, before callbacks score and save them."""
        super().on_epoch_end(net, *args, **kwargs)
        self.processes.average(b for b in self.module_.buffers() if b.is_floating_point())

    def get_params_for_optimizer(
        self, prefix: str, named_parameters: Any
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The parameter groups of the optimizer; the last one is the encoder with its own rate.

        A frozen encoder is in no group.
        """
        (groups,), options = super().get_params_for_optimizer(prefix, named_parameters)
        if self.encoder_lr_factor == 1:
            return (groups,), options
        encoder = encoder_of(self.module_)
        held = {id(parameter) for parameter in encoder.parameters()}
        rest = [p for group in groups for p in group["params"] if id(p) not in held]
        found = [{"params": rest}]
        if self.encoder_lr_factor > 0:
            slow = options["lr"] * self.encoder_lr_factor
            found.append({"params": list(encoder.parameters()), "lr": slow})
        return (found,), options

    def _set_training(self, training: bool = True) -> None:
        super()._set_training(training)
        if training and self.encoder_lr_factor == 0:
            encoder_of(self.module_).eval()  # so that its batch statistics do not change either

    def infer(self, x: Any, **fit_params: Any) -> Any:
        """All outputs of the network; in training mode, with those of its auxiliary heads.

        Raises
        ------
        ValueError
            A batch normalization gets a single value for each channel.
        """
        images = to_tensor(x, self.device)
        forward = self.module_
        if self.module_.training:
            forward = getattr(self.module_, "with_auxiliary", forward)
        try:
            with autocast(images.device, self.precision):
                return forward(images.contiguous(memory_format=self.layout))
        except ValueError as error:
            if "Expected more than 1" not in str(error):
                raise
            raise ValueError(
                f"batch normalization gets one value per channel from {len(images)} crops "
                f"({error}); expected at least two values: pass a larger batch_size, a smaller "
                f"accumulate or a larger crop_size."
            ) from error

    def train_step_single(self, batch: Any, **fit_params: Any) -> dict[str, Any]:
        """Accumulate the gradients of the parts of a batch, and average them over the processes.

        Raises
        ------
        Divergence
            The loss is not finite.
        """
        self._set_training(True)
        images, labels = batch
        n_parts = min(self.accumulate, len(labels))
        parts, truths = images.tensor_split(n_parts), labels.tensor_split(n_parts)
        shares = self.criterion_.shares(truths, self.processes)
        total, output = torch.zeros((), device=self.device), None
        for part, truth, share in zip(parts, truths, shares, strict=True):
            output = self.infer(part)
            loss = self.get_loss(output, truth, X=part, training=True) * share
            self.scaler_.scale(loss).backward()
            total += loss.detach()
        # The loss is averaged as well, so that all processes have the same history.
        learnable = [p for _, p in self.get_all_learnable_params()]
        self.processes.average([total, *(p.grad for p in learnable if p.grad is not None)])
        if not torch.isfinite(total):  # before the step, which would spoil the weights
            self.diverged_ = str(float(total))
            raise Divergence
        if self.scaler_.is_enabled():
            self.scaler_.unscale_(self.optimizer_)
        return {"loss": total, "y_pred": output}

    def _step_optimizer(self, step_fn: Any) -> None:
        if not self.scaler_.is_enabled():
            super()._step_optimizer(step_fn)
            return
        step_fn()
        self.scaler_.step(self.optimizer_)
        self.scaler_.update()


@dataclass(frozen=True)
class Schedule:
    """The learning rate of each step, as a fraction of the highest.

    "one_cycle" rises from 1/25 to 1 over the first tenth of the steps and then falls to 1/250 000,
    both along a cosine. "poly" falls as ``(1 - step / n_steps) ** 0.9``. "constant" is 1.

    Parameters
    ----------
    name : {"one_cycle", "poly", "constant"}
    n_steps : int
        The number of steps of the whole training.
    """

    name: str
    n_steps: int

    def __call__(self, step: int) -> float:
        """The fraction of the highest learning rate at a step, counted from 0."""
        if self.name == "constant":
            return 1.0
        if self.name == "poly":
            return max(0.0, 1 - step / self.n_steps) ** 0.9
        # A short training needs more than a tenth of its steps to warm up.
        n_steps = max(3, self.n_steps)
        top, last = max(0.1 * n_steps, 1.5) - 1, n_steps - 1
        if step <= top:
            return _cosine(1 / 25, 1.0, step / top)
        return _cosine(1.0, 1 / 25e4, min(1.0, (step - top) / (last - top)))


def _cosine(start: float, end: float, done: float) -> float:
    """The value at the fraction ``done`` of a half cosine wave from ``start`` to ``end``."""
    return end + (start - end) / 2 * (1 + math.cos(math.pi * done))


def encoder_of(module: nn.Module) -> nn.Module:
    """The encoder of a network, which is the part that is usually pretrained.

    Raises
    ------
    ValueError
        The network has no part with one of the known names.
    """
    module = without_crf(module)
    network = module.network if isinstance(module, AdaptedNetwork) else module
    for name in (*_ENCODERS, getattr(network, "base_model_prefix", "")):  # Hugging Face's models
        part = getattr(network, name, None) if isinstance(name, str) and name else None
        if isinstance(part, nn.Module):
            return part
    raise ValueError(
        f"encoder_lr_factor is not 1, but {type(network).__name__} has no encoder; expected a "
        f"submodule called {' or '.join(map(repr, _ENCODERS))}: pass encoder_lr_factor=1."
    )


@contextmanager
def frozen_encoder(module: nn.Module, frozen: bool) -> Iterator[None]:
    """Compute no gradients of the encoder within a ``with`` block, if it is frozen."""
    parameters = [p for p in encoder_of(module).parameters() if p.requires_grad] if frozen else []
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch within a ``with`` block, and restore its global generators at the end."""
    gpus = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        torch.random.default_generator.manual_seed(seed)
        if gpus:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
