"""What training minimises: a loss by its name or as a module, the classes' weights, all outputs."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from hybridseg.networks.losses import (
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
from hybridseg.validation import check_option

#: What a name such as ``DeepSegmenter(loss="dice")`` stands for.
LOSSES: dict[str, Callable[..., nn.Module]] = {
    "boundary_weighted": BoundaryWeightedCrossEntropy,
    "cross_entropy": CrossEntropy,
    "dice": SoftDice,
    "focal": Focal,
    "generalized_dice": GeneralizedDice,
    "lovasz": LovaszSoftmax,
}

#: What a name such as ``DeepSegmenter(class_weight="balanced")`` stands for.
CLASS_WEIGHTS: dict[str, Callable[[ClassCounts], NDArray[np.float32]]] = {
    "balanced": inverse_frequency,
    "effective_number": effective_number,
    "log_frequency": log_frequency,
    "median_frequency": median_frequency,
}


def make_loss(loss: Any, class_weight: NDArray[np.float32] | None) -> nn.Module:
    """A loss by its name, with the classes' weights, or a copy of the caller's.

    Raises
    ------
    TypeError, ValueError
        An unknown name, a callable that is no module, or weights for a loss that takes none.
    """
    if not isinstance(loss, str):
        if not isinstance(loss, nn.Module):
            raise TypeError(
                f"loss is a {type(loss).__name__}; expected a name or a torch.nn.Module that is "
                f"called as loss(logits, target), such as SoftDice()."
            )
        if class_weight is not None:
            raise ValueError(
                f"class_weight is given, but loss is a {type(loss).__name__} of your own; give "
                f"the weights to the loss, or name one of {sorted(LOSSES)}."
            )
        return copy.deepcopy(loss)
    make = LOSSES[check_option(loss, "loss", sorted(LOSSES))]
    if class_weight is None:
        return make()
    if "class_weight" not in inspect.signature(make).parameters:
        raise ValueError(f"loss={loss!r} takes no weights of classes; expected class_weight=None.")
    return make(class_weight=class_weight)


def class_weights(class_weight: Any, counts: ClassCounts) -> NDArray[np.float32] | None:
    """The weights of the classes ``(L,)``: by a rule's name, by label value, or as listed.

    Raises
    ------
    ValueError
        An unknown name, label values that do not occur, or another number of weights.
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
                f"class_weight names {unknown}, but the classes are {classes}; expected a weight "
                f"for some of these (1 for the others)."
            )
        return np.array([class_weight.get(value, 1.0) for value in classes], dtype=np.float32)
    weights = np.asarray(class_weight, dtype=np.float32)
    if weights.shape != (len(classes),):
        raise ValueError(
            f"class_weight has shape {weights.shape}, but the classes are {classes}; expected one "
            f"weight for each, in this order."
        )
    return weights


class TrainingLoss(nn.Module):
    """The loss of everything that a network gives: its logits and those of auxiliary heads."""

    def __init__(self, loss: nn.Module, n_classes: int) -> None:
        super().__init__()
        self.loss = loss if isinstance(loss, DeepSupervision) else DeepSupervision(loss)
        self.n_classes = n_classes

    def forward(self, output: Any, labels: Tensor) -> Tensor:
        """Output of a network and class indices ``(B, *spatial)`` to a number."""
        logits_of(output, (len(labels), self.n_classes, *labels.shape[1:]))
        if isinstance(output, Mapping):
            output = {name: part for name, part in output.items() if isinstance(part, Tensor)}
        return self.loss(output, labels)


def logits_of(output: Any, expected: tuple[int, ...]) -> Tensor:
    """The logits in a network's output, checked to be of the shape ``(B, L, *spatial)`` expected.

    A dict has them under "out", a sequence first.
    """
    logits = output
    if isinstance(output, Mapping):
        logits = output.get("out")
    elif isinstance(output, list | tuple) and output:
        logits = output[0]
    found = tuple(logits.shape) if isinstance(logits, Tensor) else ()
    if found != expected:
        if found[:1] + found[2:] == expected[:1] + expected[2:]:
            raise ValueError(
                f"the network has {found[1]} outputs, but y has {expected[1]} classes; make it "
                f"with as many outputs (classes that y lacks: partial_fit(X, y, classes=...))."
            )
        what = found if isinstance(logits, Tensor) else type(logits).__name__
        axes = "(B, L, H, W)" if len(expected) == 4 else "(B, L, D, H, W)"
        raise ValueError(
            f"the network's output is {what}; expected logits {axes} = {expected}, one "
            f"channel a class, at the size of the images. Change its last layer, or wrap it in "
            f"hybridseg.networks.adapt, which can choose an output and interpolates it."
        )
    return logits
