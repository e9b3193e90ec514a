"""Losses of networks with several outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from hybridseg.validation import check_number

_MODES = {3: "linear", 4: "bilinear", 5: "trilinear"}

#: The default weight of an auxiliary output.
_AUXILIARY = 0.4


class DeepSupervision(nn.Module):
    """A weighted sum of the same loss over several outputs of a network [1]_.

    Parameters
    ----------
    loss : nn.Module
        ``loss(logits, target)``.
    weights : sequence or mapping of float, optional
        For a sequence of outputs, their weights in that order. For a dict of outputs, a dict of
        weights by name; outputs without a weight are ignored. Default: 1 for the main output (the
        first, or "out" in a dict) and 0.4 for each auxiliary output, as in PSPNet [2]_.

    Raises
    ------
    TypeError, ValueError
        A weight is not a number >= 0.

    Notes
    -----
    Outputs smaller than the target (heads at lower resolutions) are upsampled linearly to its
    size. The target is never resized, so thin objects and scribbles are preserved. A single tensor,
    which networks return in evaluation mode, is the main output.

    References
    ----------
    .. [1] C.-Y. Lee et al., "Deeply-Supervised Nets", AISTATS, 2015.
    .. [2] H. Zhao et al., "Pyramid Scene Parsing Network", CVPR, 2017, section 3.3.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.losses import CrossEntropy, DeepSupervision
    >>> loss = DeepSupervision(CrossEntropy(), {"out": 1.0, "aux": 0.5})
    >>> outputs = {"out": torch.zeros(1, 2, 4, 6), "aux": torch.zeros(1, 2, 2, 3)}
    >>> round(float(loss(outputs, torch.ones(1, 4, 6, dtype=int))), 4)
    1.0397
    """

    def __init__(
        self, loss: nn.Module, weights: Sequence[float] | Mapping[str, float] | None = None
    ) -> None:
        super().__init__()
        values = weights.values() if isinstance(weights, Mapping) else weights or ()
        for weight in values:
            check_number(weight, "a weight of weights", minimum=0)
        self.loss = loss
        self.weights = weights

    def forward(self, outputs: Any, target: Tensor) -> Tensor:
        """Return the loss of the outputs, which are a tensor or a sequence or mapping of tensors.

        Parameters
        ----------
        outputs : Tensor, or sequence or mapping of Tensor, (B, L, *spatial)
            Logits; the spatial size may differ from that of the target.
        target : Tensor of int, (B, *spatial)
            Class indices; negative is void.

        Returns
        -------
        Tensor, ()

        Raises
        ------
        ValueError
            ``weights`` do not fit the outputs.
        """
        total = target.new_zeros((), dtype=torch.float32)
        for weight, logits in self._weighed(outputs):
            if weight > 0:
                total = total + weight * self.loss(_enlarged(logits, target), target)
        return total

    def _weighed(self, outputs: Any) -> list[tuple[float, Tensor]]:
        """Pair each output with its weight."""
        if isinstance(outputs, Tensor):
            return [(1.0, outputs)]
        found = _keyed(outputs)
        if self.weights is None:
            weights = {key: 1.0 if key in ("out", 0) else _AUXILIARY for key in found}
        else:
            weights = _keyed(self.weights)
        named = isinstance(outputs, Mapping)
        if not set(weights) <= set(found) or (not named and len(weights) < len(found)):
            raise ValueError(
                f"weights={self.weights!r} for outputs {list(found)}; expected one number for each "
                f"output, or, if the network returns a dict, a dict from output names to numbers."
            )
        return [(weight, found[key]) for key, weight in weights.items()]


def _keyed(values: Any) -> dict[Any, Any]:
    return dict(values.items() if isinstance(values, Mapping) else enumerate(values))


def _enlarged(logits: Tensor, target: Tensor) -> Tensor:
    """Upsample logits ``(B, L, *spatial)`` to the spatial size of the target ``(B, *spatial)``."""
    size = target.shape[1:]
    if logits.shape[2:] == size or logits.ndim not in _MODES or logits.ndim != target.ndim + 1:
        return logits
    return functional.interpolate(
        logits, size=tuple(size), mode=_MODES[logits.ndim], align_corners=False
    )


class MultiTask(nn.Module):
    """The sum ``alpha * semantic + beta * instance`` for a network with one output for each task.

    Parameters
    ----------
    semantic, instance : nn.Module
        The loss of each task, called with its output and its target.
    alpha, beta : float, default=1.0
        The weights of the two losses, at least 0.

    Raises
    ------
    TypeError, ValueError
        A weight is not a number >= 0.

    Notes
    -----
    Outputs and targets are pairs ``(semantic, instance)``, or dicts with these keys.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.losses import CrossEntropy, MultiTask
    >>> loss = MultiTask(CrossEntropy(), torch.nn.L1Loss(), alpha=1.0, beta=0.5)
    >>> outputs = torch.zeros(1, 2, 4, 6), torch.zeros(1, 2, 4, 6)
    >>> targets = torch.ones(1, 4, 6, dtype=int), torch.ones(1, 2, 4, 6)
    >>> round(float(loss(outputs, targets)), 4)
    1.1931
    """

    def __init__(
        self, semantic: nn.Module, instance: nn.Module, alpha: float = 1.0, beta: float = 1.0
    ) -> None:
        super().__init__()
        self.semantic = semantic
        self.instance = instance
        self.alpha = float(check_number(alpha, "alpha", minimum=0))
        self.beta = float(check_number(beta, "beta", minimum=0))

    def forward(self, outputs: Any, targets: Any) -> Tensor:
        """Return the loss of outputs and targets, each a pair or a dict.

        Returns
        -------
        Tensor, ()

        Raises
        ------
        TypeError
            ``outputs`` or ``targets`` is neither a pair nor a dict with both keys.
        """
        output, truth = _both_tasks(outputs, "outputs"), _both_tasks(targets, "targets")
        semantic = self.semantic(output[0], truth[0])
        return self.alpha * semantic + self.beta * self.instance(output[1], truth[1])


def _both_tasks(values: Any, name: str) -> tuple[Any, Any]:
    if isinstance(values, Mapping) and {"semantic", "instance"} <= set(values):
        return values["semantic"], values["instance"]
    if isinstance(values, tuple | list) and len(values) == 2:
        return values[0], values[1]
    what = sorted(values) if isinstance(values, Mapping) else type(values).__name__
    raise TypeError(
        f"{name} is {what}; expected a pair (semantic, instance), or a dict with these keys."
    )
