"""The networks of a race: built, counted, and checked to be the same."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.kernels.racing import peer
from benchmarks.latency.pairs import Pair, Size
from hybridseg.networks import fold_batch_norm

#: Of the greatest logit, by which the same network may differ.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Side:
    """A network and its input."""

    network: nn.Module
    images: Tensor
    parameters: int
    gmacs: float

    def run(self) -> Tensor:
        """Its logits."""
        return first_tensor(self.network(self.images))


def build_sides(pair: Pair, size: Size, *, heavy: float) -> tuple[dict[str, Side], float | None]:
    """Return ours, ours folded if it has at most ``heavy`` GMACs, and the peer if it is installed.

    The second value is the greatest difference of the logits over the greatest logit, where ours
    and the peer are the same network, with the same weights.
    """
    torch.manual_seed(0)
    images = torch.randn(1, pair.channels, *size)
    sides = {"ours": _side(pair.ours(), images)}
    difference = None
    library = None if pair.peer is None else peer(pair.library)
    if pair.peer is not None and library is not None:
        padded = pad_to(images, pair.stride)
        sides["peer"] = _side(pair.peer(library, tuple(padded.shape[2:])), padded)
        if not pair.differs:
            difference = _difference(pair.title, sides["peer"].network, sides["ours"].network)
    if sides["ours"].gmacs <= heavy:
        small = torch.zeros(1, pair.channels, *(32 for _ in size))
        folded = _side(fold_batch_norm(sides["ours"].network, small), images)
        if folded.parameters < sides["ours"].parameters:  # else there was nothing to fold
            sides["folded"] = folded
    return sides, difference


def pad_to(images: Tensor, stride: int) -> Tensor:
    """Pad ``(B, C, ...)`` with zeros at the ends to multiples of a stride."""
    return functional.pad(images, [n for size in images.shape[:1:-1] for n in (0, -size % stride)])


def first_tensor(output: Any) -> Tensor:
    """Return the logits of a network that returns a dict, or the last of several features."""
    if isinstance(output, Mapping):
        return next(iter(output.values()))
    return output if isinstance(output, Tensor) else output[-1]


def copy_weights(source: nn.Module, target: nn.Module, images: Tensor) -> None:
    """Give layers the weights of another network's, in the order in which the two run them.

    Raises
    ------
    ValueError
        The networks have different numbers of layers.
    RuntimeError
        A layer's weights have another shape.
    """
    pairs = zip(_layers_in_order(source, images), _layers_in_order(target, images), strict=True)
    for theirs, ours in pairs:
        ours.load_state_dict(theirs.state_dict())


def _layers_in_order(network: nn.Module, images: Tensor) -> list[nn.Module]:
    found: dict[nn.Module, None] = {}
    hooks = [
        module.register_forward_hook(lambda module, *_: found.setdefault(module))
        for module in network.modules()
        if list(module.parameters(recurse=False))
    ]
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    return list(found)


def _difference(title: str, theirs: nn.Module, ours: nn.Module) -> float:
    images = torch.randn(1, 3, 64, 96)
    copy_weights(theirs, ours, images)
    with torch.inference_mode():
        expected, found = first_tensor(theirs(images)), first_tensor(ours(images))
        difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference < _TOLERANCE:
        raise RuntimeError(f"{title} is not its peer's network: logits differ by {difference:.2g}")
    return difference


def _side(network: nn.Module, images: Tensor) -> Side:
    layout = torch.channels_last if images.ndim == 4 else torch.channels_last_3d
    network = network.eval().to(memory_format=layout)
    images = images.contiguous(memory_format=layout)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(network).to("meta")(images.to("meta"))  # counts, and computes nothing
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return Side(network, images, parameters, counter.get_total_flops() / 2e9)
