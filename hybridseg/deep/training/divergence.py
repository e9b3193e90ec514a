"""Trainings that diverge: they stop, and the weights of the best epoch before are kept."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.exceptions import ConvergenceWarning
from skorch.callbacks import Callback
from torch import Tensor, nn

from hybridseg.validation import warn_caller

_CURES = (
    "pass a lower lr than {lr:g}, or callbacks=[skorch.callbacks.GradientNormClipping(1.0)]; with "
    "a loss of your own, look for logarithms, roots and quotients of 0 in it"
)


class Divergence(KeyboardInterrupt):
    """Ends skorch's loop, as an interrupt does."""


class Safeguard(Callback):
    """Keep the weights of the best epoch, and end a training whose weights are not finite.

    Parameters
    ----------
    keep : bool
        Whether to keep the weights of the epoch of the lowest training loss. Where images are held
        out, :class:`hybridseg.deep.training.validation.Validation` keeps those of the best score.

    Attributes
    ----------
    kept_ : dict of str to Tensor
        Empty before the end of the first epoch.
    """

    def __init__(self, keep: bool) -> None:
        self.keep = keep

    def initialize(self) -> Safeguard:
        """Forget an earlier training."""
        self.kept_: dict[str, Tensor] = {}
        return self

    def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
        """Look at the weights before anything is made of them."""
        if not are_finite(net.module_):
            net.diverged_ = "weights that are not finite"
            raise Divergence
        if self.keep and lowest_is_last(net.history):
            self.kept_ = copied(net.module_)

    def on_train_end(self, net: Any, **kwargs: Any) -> None:
        """After a divergence, bring the kept weights back."""
        if net.diverged_ and self.kept_:
            net.module_.load_state_dict(self.kept_)
        self.kept_ = {}


def lowest_is_last(history: Any) -> bool:
    """Whether no epoch had a lower training loss than the last."""
    losses = [row["train_loss"] for row in history if "train_loss" in row]
    return bool(losses) and losses[-1] <= min(losses)


def are_finite(module: nn.Module) -> bool:
    """Whether all weights and statistics of a network are finite."""
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
    """Warn of a training that has diverged, or refuse its network where no epoch was good.

    The epoch in which it diverged is taken out of the history.

    Raises
    ------
    ValueError
        The first epoch diverged.

    Warns
    -----
    ConvergenceWarning
        A later one did.
    """
    if not net.diverged_:
        return
    net.history.pop()
    epoch, cures = len(net.history) + 1, _CURES.format(lr=net.lr)
    if net.precision == "float16":
        cures = f"{cures}; or take precision='bfloat16' or 'float32'"
    if epoch == 1:
        raise ValueError(f"training diverged: the loss is {net.diverged_} in epoch 1; {cures}.")
    warn_caller(
        f"training diverged in epoch {epoch}, where the loss is {net.diverged_}, and ended there; "
        f"the network is that of the best epoch before. To train to the end, {cures}.",
        ConvergenceWarning,
    )
