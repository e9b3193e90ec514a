"""Networks in evaluation mode: as a twin that shares the weights, or within a ``with`` block."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

#: The attributes in which a module keeps its hooks.
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")


def in_evaluation(network: nn.Module) -> nn.Module:
    """The network itself if all its modules are in evaluation mode; else a twin in that mode.

    The twin has its own modules, but shares the parameters, buffers and hooks of the network. So
    a prediction does not change the mode that other threads use, and the twin always predicts with
    the current weights.

    Raises
    ------
    TypeError
        The network is in training mode and cannot be copied.
    """
    if not any(module.training for module in network.modules()):
        return network
    try:
        twin = copy.deepcopy(network, _shared(network))
    except Exception as error:
        raise TypeError(
            f"network is a {type(network).__name__} in training mode, and cannot be copied "
            f"({type(error).__name__}: {error}); expected a network in evaluation mode: call "
            f"network.eval() before the prediction."
        ) from error
    return twin.eval()


def _shared(network: nn.Module) -> dict[int, Any]:
    """The objects that a twin shares with its network, as the memo of :func:`copy.deepcopy`."""
    shared: list[Any] = [*network.parameters(), *network.buffers()]
    for module in network.modules():
        shared += [value for value in vars(module).values() if isinstance(value, Tensor)]
        for name in _HOOKS:
            shared += getattr(module, name, {}).values()
    return {id(value): value for value in shared}


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Set evaluation mode within a ``with`` block; no other thread may use the network meanwhile.

    At the end every module gets back the mode that it had before.
    """
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
