"""The output of a network: its logits and those of its auxiliary heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hybridseg.networks.adapters import logits_of_two


def first_of(output: Any) -> Any:
    """The main output of a network: the entry "out" of a dict, or the first of a sequence."""
    if isinstance(output, Mapping):
        return output.get("out")
    return output[0] if isinstance(output, list | tuple) and output else output


def logits_of(output: Any, expected: tuple[int, ...]) -> Tensor:
    """The logits in the output of a network.

    They are the entry "out" of a dict, or the first entry of a sequence. If there are two classes
    and one channel, this is the logit of the second class: its sigmoid is the probability.

    Parameters
    ----------
    output : Tensor, dict or sequence
    expected : tuple of int
        The shape ``(B, L, *spatial)`` of the logits.

    Returns
    -------
    Tensor, (B, L, *spatial)

    Raises
    ------
    ValueError
        The logits have another shape, or are not a tensor.
    """
    logits = first_of(output)
    found = tuple(logits.shape) if isinstance(logits, Tensor) else ()
    if expected[1] == 2 and found == (expected[0], 1, *expected[2:]):
        return logits_of_two(logits)
    if found != expected:
        if found[:1] + found[2:] == expected[:1] + expected[2:]:
            raise ValueError(
                f"the network has {found[1]} outputs, but y has {expected[1]} classes; make it "
                f"with {expected[1]} outputs, or pass all its label values: "
                f"classes=range({found[1]})."
            )
        what = found if isinstance(logits, Tensor) else type(logits).__name__
        axes = "(B, L, H, W)" if len(expected) == 4 else "(B, L, D, H, W)"
        raise ValueError(
            f"the network's output is {what}; expected logits {axes} = {expected}, with one "
            f"channel for each class and the size of the images: change its last layer, or wrap it "
            f"in hybridseg.networks.adapt, which selects an output and interpolates it."
        )
    return logits


def all_for_two(output: Any) -> Any:
    """The same output with the logits of two classes in place of each tensor of one channel."""
    if isinstance(output, Tensor):
        return logits_of_two(output) if output.ndim > 1 and output.shape[1] == 1 else output
    if isinstance(output, Mapping):
        return {name: all_for_two(part) for name, part in output.items()}
    return [all_for_two(part) for part in output]
