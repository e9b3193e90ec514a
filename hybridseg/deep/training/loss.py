"""The loss of a training: losses by name, class weights, auxiliary heads, and losses of torch."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hybridseg.deep.prediction.outputs import all_for_two, first_of, logits_of
from hybridseg.losses import (
    BoundaryWeightedCrossEntropy,
    ClassCounts,
    CrossEntropy,
    DeepSupervision,
    Focal,
    GeneralizedDice,
    LovaszSoftmax,
    SoftDice,
    effective_number,
    inverse_frequency,
    log_frequency,
    median_frequency,
)
from hybridseg.networks.adapters import warn_of_proba
from hybridseg.validation import check_option

#: The losses with a name, such as ``DeepSegmenter(loss="dice")``.
LOSSES: dict[str, Callable[..., nn.Module]] = {
    "boundary_weighted": BoundaryWeightedCrossEntropy,
    "cross_entropy": CrossEntropy,
    "dice": SoftDice,
    "focal": Focal,
    "generalized_dice": GeneralizedDice,
    "lovasz": LovaszSoftmax,
}

#: The rules for class weights with a name, such as ``DeepSegmenter(class_weight="balanced")``.
CLASS_WEIGHTS: dict[str, Callable[[ClassCounts], NDArray[np.float32]]] = {
    "balanced": inverse_frequency,
    "effective_number": effective_number,
    "log_frequency": log_frequency,
    "median_frequency": median_frequency,
}


def make_loss(loss: Any, class_weight: NDArray[np.float32] | None) -> nn.Module:
    """Make a loss from its name, with class weights, or copy the one that the user gave.

    Raises
    ------
    TypeError
        ``loss`` is neither a name nor a module.
    ValueError
        The name is unknown, or there are class weights for a loss that does not take them.
    """
    if not isinstance(loss, str):
        if not isinstance(loss, nn.Module):
            raise TypeError(
                f"loss is a {type(loss).__name__}; expected a name or a torch.nn.Module that is "
                f"called as loss(logits, target): pass an object such as SoftDice()."
            )
        if class_weight is not None:
            raise ValueError(
                f"class_weight is given, but loss is a {type(loss).__name__} of your own; pass "
                f"the weights to this loss, or name one of {sorted(LOSSES)}."
            )
        return copy.deepcopy(loss)
    make = LOSSES[check_option(loss, "loss", sorted(LOSSES))]
    if class_weight is None:
        return make()
    if "class_weight" not in inspect.signature(make).parameters:
        raise ValueError(
            f"loss={loss!r} takes no class weights; expected class_weight=None: remove the "
            f"weights, or use loss='cross_entropy'."
        )
    return make(class_weight=class_weight)


def class_weights(class_weight: Any, counts: ClassCounts) -> NDArray[np.float32] | None:
    """The class weights ``(L,)`` of a rule, of a mapping from label values, or of a sequence.

    Raises
    ------
    ValueError
        The name of the rule is unknown, the mapping has a label value that is not a class, or the
        sequence does not have one weight for each class.
    """
    if class_weight is None:
        return None
    if isinstance(class_weight, str):
        rule = CLASS_WEIGHTS[check_option(class_weight, "class_weight", sorted(CLASS_WEIGHTS))]
        return rule(counts)
    classes = counts.classes.tolist()
    if isinstance(class_weight, Mapping):
        if unknown := sorted(set(class_weight) - set(classes)):
            raise ValueError(
                f"class_weight has the label values {unknown}, but the classes are {classes}; "
                f"expected a weight for some of these: remove the others. A class without a weight "
                f"gets 1."
            )
        return np.array([class_weight.get(value, 1.0) for value in classes], dtype=np.float32)
    weights = np.asarray(class_weight, dtype=np.float32)
    if weights.shape != (len(classes),):
        raise ValueError(
            f"class_weight has shape {weights.shape}, but the classes are {classes}; expected "
            f"({len(classes)},): pass one weight for each class, in this order."
        )
    return weights


class TrainingLoss(nn.Module):
    """The loss of all outputs of a network: its logits and those of its auxiliary heads.

    Parameters
    ----------
    loss : Module
        The loss of one output; a :class:`hybridseg.losses.DeepSupervision` is used as it is.
    n_classes : int
    """

    def __init__(self, loss: nn.Module, n_classes: int) -> None:
        super().__init__()
        loss = taking_void(loss, n_classes)
        self.loss = loss if isinstance(loss, DeepSupervision) else DeepSupervision(loss)
        self.n_classes = n_classes
        self.seen = False

    def forward(self, output: Any, labels: Tensor) -> Tensor:
        """The loss, a scalar, of the output of a network.

        Parameters
        ----------
        output : Tensor, dict or sequence
            The logits ``(B, L, *spatial)``, and possibly those of auxiliary heads.
        labels : Tensor of int64, (B, *spatial)
            Class indices, -1 where there is no label.

        Raises
        ------
        ValueError
            The logits have another shape, the loss does not ignore pixels without a label, or it
            does not return a scalar.
        """
        logits = logits_of(output, (len(labels), self.n_classes, *labels.shape[1:]))
        if not self.seen:
            self.seen = True
            warn_of_proba(logits)
        if isinstance(output, Mapping):
            output = {name: part for name, part in output.items() if isinstance(part, Tensor)}
        if logits is not first_of(output):  # one channel for two classes
            output = all_for_two(output)
        try:
            loss = self.loss(output, labels)
        except torch.OutOfMemoryError:
            raise
        except (IndexError, RuntimeError) as error:
            if not bool((labels < 0).any()):
                raise
            raise ValueError(
                f"the loss {self._name()} fails on labels in which pixels without a label are -1 "
                f"({error}); pass ignore_index=-1 to the loss, if it has that option, or use a "
                f"loss of hybridseg.losses."
            ) from error
        if not isinstance(loss, Tensor) or loss.ndim:
            what = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(
                f"the loss {self._name()} returns {what}; expected a scalar: pass "
                f"reduction='mean', if it has that option."
            )
        return loss

    def shares(self, parts: Sequence[Tensor], processes: Any) -> list[Any]:
        """Return weights with which the losses of a batch's parts add up to the batch's loss.

        A loss that is a mean over pixels is weighted by its divisor, another one by the number of
        crops.

        Parameters
        ----------
        parts : sequence of Tensor of int64, (B, *spatial)
            The labels of each part in this process.
        processes : Processes
            The processes that train together.

        Returns
        -------
        list of Tensor or float
            One weight for each part.
        """
        inner = self.loss.loss
        if getattr(inner, "reduction", "mean") == "sum":
            return [float(processes.count)] * len(parts)
        if len(parts) == processes.count == 1:
            return [1.0]
        weights: list[Any] = [None]
        if hasattr(inner, "normalizer"):
            like = torch.empty((1, self.n_classes), device=parts[0].device)
            weights = [inner.normalizer(like, labels) for labels in parts]
        if any(weight is None for weight in weights):
            weights = [labels.new_tensor(len(labels)) for labels in parts]
        total = torch.stack(weights).double().sum().to(processes.device, torch.float32)
        processes.average([total])
        return [weight.to(total) / torch.where(total > 0, total, 1) for weight in weights]

    def _name(self) -> str:
        """The class of the loss as the user gave it."""
        inner = self.loss.loss
        return type(inner.loss if isinstance(inner, TorchLoss) else inner).__name__


class TorchLoss(nn.Module):
    """A loss of torch that ignores pixels without a label; it is 0 for a batch without labels.

    Parameters
    ----------
    loss : CrossEntropyLoss or NLLLoss
        An NLLLoss gets the log-softmax of the logits.
    """

    def __init__(self, loss: Any) -> None:
        super().__init__()
        self.loss = loss
        self.reduction = loss.reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of logits ``(B, L, *spatial)`` and class indices ``(B, *spatial)``."""
        exact = logits if logits.dtype == torch.float64 else logits.float()
        if self.reduction == "mean" and not self.normalizer(logits, target) > 0:
            return exact.sum() * 0
        if isinstance(self.loss, nn.NLLLoss):
            exact = torch.log_softmax(exact, dim=1)
        # on the CPU, the backward pass of torch's loss fails for the channels-last format
        return self.loss(exact.contiguous(), self._as_ignored(target))

    def normalizer(self, logits: Tensor, target: Tensor) -> Tensor:
        """The divisor of the mean over the pixels: the sum of the weights of their classes."""
        weight, known = self.loss.weight, self._as_ignored(target)
        known = known[known != self.loss.ignore_index]
        if weight is None:
            return logits.new_tensor(known.numel())
        return weight.to(logits)[known].sum()

    def _as_ignored(self, target: Tensor) -> Tensor:
        """Replace negative class indices by the ``ignore_index`` of the loss."""
        return target.masked_fill(target < 0, self.loss.ignore_index)


class TwoClassLoss(nn.Module):
    """A ``BCEWithLogitsLoss`` as a loss of the logits of two classes and class indices."""

    def __init__(self, loss: nn.BCEWithLogitsLoss) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """The loss of logits ``(B, 2, *spatial)`` and class indices ``(B, *spatial)``.

        The logit of the second class is the difference of the two logits.
        """
        labeled = target >= 0
        margin = (logits[:, 1] - logits[:, 0])[labeled]
        if not len(margin):
            return margin.sum()
        return self.loss(margin, target[labeled].to(margin))


def taking_void(loss: nn.Module, n_classes: int) -> nn.Module:
    """Make a loss and all its parts ignore pixels with a negative class index.

    Raises
    ------
    ValueError
        The loss is a BCEWithLogitsLoss, and there are not two classes.
    """
    if isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss):
        return TorchLoss(loss)
    if isinstance(loss, nn.BCEWithLogitsLoss):
        if n_classes != 2:
            raise ValueError(
                f"loss is a BCEWithLogitsLoss, which is for two classes, but there are "
                f"{n_classes}; use loss='cross_entropy'."
            )
        return TwoClassLoss(loss)
    ignored: Any = getattr(loss, "ignore_index", 0)  # losses of other libraries may have it
    if ignored is None or (isinstance(ignored, int) and not 0 <= ignored < n_classes):
        loss.ignore_index = -1
    for name, part in list(loss.named_children()):
        setattr(loss, name, taking_void(part, n_classes))
    return loss
