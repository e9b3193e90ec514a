"""The base class of the losses: input checks, precision, void pixels, class weights and sums."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from hybridseg.validation import check_number

#: The first spatial axis of ``(B, L, *spatial)``.
_SPATIAL = 2


class Loss(nn.Module):
    """A loss of logits ``(B, L, *spatial)`` and class indices ``(B, *spatial)``.

    Negative class indices are void. A void pixel adds nothing to the loss and has no gradient; a
    batch that has only void pixels has a loss of 0. Half precision is computed in float32, also
    under autocast; double precision is kept. A loss has no state, so one object can be used on any
    device. Losses can be added and scaled: ``CrossEntropy() + 0.5 * SoftDice()`` is a
    :class:`SumOf`.

    A subclass implements the hook ``_loss(logits, target)``. It receives tensors that have been
    checked.

    Methods
    -------
    forward(logits, target)
        Return the loss, a scalar.
    normalizer(logits, target)
        Return the divisor of the sum over pixels, or None if the loss is not a mean over pixels.

    Examples
    --------
    >>> import torch
    >>> from hybridseg.losses import Loss
    >>> class Margin(Loss):
    ...     def _loss(self, logits, target):
    ...         return torch.nn.functional.multi_margin_loss(
    ...             logits.movedim(1, -1)[target >= 0], target[target >= 0]
    ...         )
    >>> Margin()(torch.tensor([[[2.0], [0.0]]]), torch.tensor([[0]])).item()
    0.0
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss.

        Parameters
        ----------
        logits : Tensor of float, (B, L, *spatial)
            Unnormalized scores with one channel for each class; higher is better.
        target : Tensor of int, (B, *spatial)
            Class indices 0..L-1; negative is void.

        Returns
        -------
        Tensor, ()

        Raises
        ------
        TypeError
            ``logits`` or ``target`` is not a tensor of the dtype above.
        ValueError
            The shapes do not fit each other, ``target`` is empty, or a class index is too large.
        """
        check_pair(logits, target)
        with torch.autocast(logits.device.type, enabled=False):
            exact = logits if logits.dtype == torch.float64 else logits.float()
            return self._loss(exact, target.long())

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        raise TypeError(f"{type(self).__name__} lacks the hook _loss(logits, target).")

    def normalizer(self, logits: Tensor, target: Tensor) -> Tensor | None:
        """Return the divisor of a loss that is a mean over pixels, and None for other losses.

        With it, the losses of the parts of a batch can be added up to the loss of the batch. Only
        the number of channels, the dtype and the device of ``logits`` are used.
        """
        return None

    def extra_repr(self) -> str:
        """Return the parameters of the loss for ``repr``."""
        own = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return ", ".join(f"{k}={v!r}" for k, v in own.items() if k != "training")

    def __add__(self, other: Any) -> SumOf:
        if not isinstance(other, nn.Module):
            return NotImplemented
        return SumOf([*_terms(self), *_terms(other)])

    def __radd__(self, other: Any) -> Loss:
        if not (isinstance(other, int) and other == 0):  # sum() starts from 0
            return NotImplemented
        return self

    def __mul__(self, weight: Any) -> SumOf:
        if not isinstance(weight, int | float):
            return NotImplemented
        return SumOf([(weight * own, loss) for own, loss in _terms(self)])

    __rmul__ = __mul__


class SumOf(Loss):
    """A weighted sum of losses.

    Parameters
    ----------
    terms : sequence of (float, nn.Module)
        Pairs of a weight, at least 0, and a loss ``loss(logits, target)``: one of this package, or
        any other module with these two arguments.

    Raises
    ------
    TypeError, ValueError
        ``terms`` is empty, a weight is negative, or a loss is not a module.

    Examples
    --------
    >>> from hybridseg.losses import CrossEntropy, SoftDice, SumOf
    >>> SumOf([(1.0, CrossEntropy()), (0.5, SoftDice())]).weights
    (1.0, 0.5)
    >>> (CrossEntropy() + 0.5 * SoftDice()).weights
    (1.0, 0.5)
    """

    def __init__(self, terms: Sequence[tuple[float, nn.Module]]) -> None:
        super().__init__()
        if not len(terms):
            raise ValueError(
                "terms is empty; expected at least one pair (weight, loss): (0.5, SoftDice())."
            )
        for weight, loss in terms:
            check_number(weight, "a weight of terms", minimum=0)
            if not isinstance(loss, nn.Module):
                raise TypeError(
                    f"terms holds a {type(loss).__name__}; expected pairs (weight, loss) of a "
                    f"number and a torch.nn.Module, such as (0.5, SoftDice())."
                )
        self.weights = tuple(float(weight) for weight, _ in terms)
        self.losses = nn.ModuleList(loss for _, loss in terms)

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        total = logits.new_zeros(())
        for weight, loss in zip(self.weights, self.losses, strict=True):
            total = total + weight * loss(logits, target)
        return total

    def normalizer(self, logits: Tensor, target: Tensor) -> Tensor | None:
        """Return the divisor that all terms have in common, or None if they differ."""
        found = [getattr(loss, "normalizer", _no_mean)(logits, target) for loss in self.losses]
        if any(each is None or not torch.equal(each, found[0]) for each in found):
            return None
        return found[0]


def _no_mean(_logits: Tensor, _target: Tensor) -> None:
    return None


def _terms(loss: nn.Module) -> list[tuple[float, nn.Module]]:
    if isinstance(loss, SumOf):
        return list(zip(loss.weights, loss.losses, strict=True))
    return [(1.0, loss)]


def check_pair(logits: Any, target: Any) -> None:
    """Raise an error unless the pair is logits ``(B, L, *spatial)`` and class indices."""
    for name, value in (("logits", logits), ("target", target)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} is a {type(value).__name__}; expected a torch.Tensor.")
    if not logits.is_floating_point():
        raise TypeError(
            f"logits has dtype {logits.dtype}; expected floats: the scores of a network before "
            f"softmax."
        )
    if target.is_floating_point() or target.is_complex():
        raise TypeError(
            f"target has dtype {target.dtype}; expected integer class indices: pass target.long()."
        )
    expected = (*logits.shape[:1], *logits.shape[_SPATIAL:])
    if logits.ndim <= _SPATIAL or tuple(target.shape) != expected:
        raise ValueError(
            f"logits has shape {tuple(logits.shape)} and target has shape {tuple(target.shape)}; "
            f"expected logits (B, L, *spatial) and class indices (B, *spatial), not one-hot."
        )
    if target.numel() == 0:
        raise ValueError(
            f"target has shape {tuple(target.shape)} and no pixel; expected at least one pixel."
        )
    highest, n_classes = int(target.max()), logits.shape[1]
    if highest >= n_classes:
        raise ValueError(
            f"target holds {highest}, but logits has {n_classes} channels; expected class "
            f"indices 0..{n_classes - 1}, and negative values for void pixels: pass "
            f"target.masked_fill(target == {highest}, -1) if this value means void."
        )


def as_class_weight(values: ArrayLike | Tensor | None) -> tuple[float, ...] | None:
    """Check class weights, one number >= 0 for each class, and return a tuple; None stays None."""
    if values is None:
        return None
    if isinstance(values, Tensor):
        values = values.detach().cpu().numpy()
    weights = np.asarray(values, dtype=np.float64)
    good = weights.ndim == 1 and weights.size > 0 and bool(np.isfinite(weights).all())
    if not good or weights.min() < 0 or weights.max() <= 0:
        raise ValueError(
            f"class_weight={values!r}; expected one finite number >= 0 for each class, at least "
            f"one of them > 0: compute it with median_frequency(count_classes(y))."
        )
    return tuple(weights.tolist())


def weights_like(class_weight: tuple[float, ...] | None, logits: Tensor) -> Tensor:
    """Return class weights ``(L,)`` with the dtype and device of the logits; ones for None."""
    n_classes = logits.shape[1]
    if class_weight is None:
        return logits.new_ones(n_classes)
    if len(class_weight) != n_classes:
        raise ValueError(
            f"class_weight has {len(class_weight)} numbers, but logits has {n_classes} channels; "
            f"expected one number for each class."
        )
    return logits.new_tensor(class_weight)


def along_channels(values: Tensor, like: Tensor) -> Tensor:
    """Reshape values ``(L,)`` to ``(1, L, 1, ...)``, which broadcasts to the shape of ``like``."""
    return values.reshape(1, -1, *(1,) * (like.ndim - _SPATIAL))


def members_of(logits: Tensor, target: Tensor) -> Tensor:
    """Return the one-hot target as bool ``(B, L, *spatial)``; it is False at void pixels."""
    classes = torch.arange(logits.shape[1], device=target.device)
    return target.unsqueeze(1) == along_channels(classes, logits)


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of values; 0 with a gradient of 0 if all weights are 0."""
    total = weights.sum()
    return (values * weights).sum() / torch.where(total > 0, total, torch.ones_like(total))
