"""What a network gives: its logits, and those of its auxiliary heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hybridseg.networks.adapters import logits_of_two


def first_of(output: Any) -> Any:
    """The main part of a network's output: under "out" in a dict, first in a sequence."""
    if isinstance(output, Mapping):
        return output.get("out")
    return output[0] if isinstance(output, list | tuple) and output else output


def logits_of(output: Any, expected: tuple[int, ...]) -> Tensor:
    """The logits in a network's output.

    A dict has them under "out", a sequence has them first. Where there are two classes, a single
    output is the logit of the second: its sigmoid is that class's probability.

    Parameters
    ----------
    output : Tensor, dict or sequence
    expected : tuple of int
        The shape ``(B, L, *spatial)`` that the logits must have.

    Raises
    ------
    ValueError
        They have another shape, or are no tensor.
    """
    logits = first_of(output)
    found = tuple(logits.shape) if isinstance(logits, Tensor) else ()
    if expected[1] == 2 and found == (expected[0], 1, *expected[2:]):
        return logits_of_two(logits)
    if found != expected:
        if found[:1] + found[2:] == expected[:1] + expected[2:]:
            raise ValueError(
                f"the network has {found[1]} outputs, but y has {expected[1]} classes; make it "
                f"with as many outputs, or name those that y lacks: classes=range({found[1]})."
            )
        what = found if isinstance(logits, Tensor) else type(logits).__name__
        axes = "(B, L, H, W)" if len(expected) == 4 else "(B, L, D, H, W)"
        raise ValueError(
            f"the network's output is {what}; expected logits {axes} = {expected}, one "
            f"channel a class, at the size of the images. Change its last layer, or wrap it in "
            f"hybridseg.networks.adapt, which can choose an output and interpolates it."
        )
    return logits


def all_for_two(output: Any) -> Any:
    """The same output, in which every tensor of one channel is the logits of two classes."""
    if isinstance(output, Tensor):
        return logits_of_two(output) if output.ndim > 1 and output.shape[1] == 1 else output
    if isinstance(output, Mapping):
        return {name: all_for_two(part) for name, part in output.items()}
    return [all_for_two(part) for part in output]
