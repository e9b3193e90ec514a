"""Divergence: a training that diverges stops, and the weights of the best epoch before it stay."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from torch import Tensor, nn

from hybridseg.validation import warn_caller

_ADVICE = (
    "pass a lower lr than {lr:g}, or callbacks=[skorch.callbacks.GradientNormClipping(1.0)]; if "
    "the loss is your own, check it for logarithms and roots of 0 and for divisions by 0"
)


class Divergence(KeyboardInterrupt):
    """End skorch's training loop, which stops quietly at a KeyboardInterrupt."""


class Safeguard(Callback):
    """Keep the weights of the best epoch, and end a training whose weights are not finite.

    Parameters
    ----------
    keep : bool
        Whether to keep the weights of the epoch with the lowest training loss. With a validation
        split, :class:`hybridseg.deep.training.validation.Validation` keeps those of the epoch with
        the best score instead.

    Attributes
    ----------
    kept_ : dict of str to Tensor
        The kept weights; empty before the end of the first epoch.
    """

    def __init__(self, keep: bool) -> None:
        self.keep = keep

    def initialize(self) -> Safeguard:
        """Delete the weights of an earlier training."""
        self.kept_: dict[str, Tensor] = {}
        return self

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Check the weights before other callbacks score or save them."""
        if not are_finite(net.module_):
            net.diverged_ = "weights that are not finite"
            raise Divergence
        if self.keep and lowest_is_last(net.history):
            self.kept_ = copied(net.module_)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """Restore the kept weights if the training diverged."""
        if net.diverged_ and self.kept_:
            net.module_.load_state_dict(self.kept_)
        self.kept_ = {}


def lowest_is_last(history: Any) -> bool:
    """Whether the last epoch has the lowest training loss so far."""
    losses = [row["train_loss"] for row in history if "train_loss" in row]
    return bool(losses) and losses[-1] <= min(losses)


def are_finite(module: nn.Module) -> bool:
    """Whether all weights and batch statistics of a network are finite."""
    values = module.state_dict().values()
    found = [
        torch.isfinite(value).all()
        for value in values
        if isinstance(value, Tensor) and value.is_floating_point()
    ]
    return not found or bool(torch.stack([each.cpu() for each in found]).all())


def copied(module: nn.Module) -> dict[str, Any]:
    """A copy of a network's state, on the CPU."""
    return {
        name: value.detach().cpu().clone() if isinstance(value, Tensor) else value
        for name, value in module.state_dict().items()
    }


def check_converged(net: Any) -> None:
    """Warn if a training has diverged, and refuse the network if the first epoch diverged.

    The epoch in which it diverged is removed from the history.

    Raises
    ------
    ValueError
        The training diverged in the first epoch.

    Warns
    -----
    ConvergenceWarning
        The training diverged in a later epoch.
    """
    if not net.diverged_:
        return
    net.history.pop()
    epoch, advice = len(net.history) + 1, _ADVICE.format(lr=net.lr)
    if net.precision == "float16":
        advice = f"{advice}; or use precision='bfloat16' or 'float32'"
    if epoch == 1:
        raise ValueError(f"training diverged: the loss is {net.diverged_} in epoch 1; {advice}.")
    warn_caller(
        f"training diverged in epoch {epoch}, where the loss is {net.diverged_}, and stopped; the "
        f"network has the weights of the best previous epoch. To train to the end, {advice}.",
        ConvergenceWarning,
    )
