"""Networks in evaluation mode: a twin, so that no mode changes; or for a while."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

#: Where a module keeps the functions that run with it.
_HOOKS = ("_forward_pre_hooks", "_forward_hooks")


def in_evaluation(network: nn.Module) -> nn.Module:
    """The network itself where all of it is in evaluation mode; else a twin that is.

    The twin has modules of its own and shares everything that they hold: parameters, buffers and
    hooks. So a prediction never sets a mode, which other threads that predict or train would see,
    and a network that learns further is predicted with as it is by then.

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
            f"network is a {type(network).__name__} in training mode, and cannot be copied to one "
            f"in evaluation mode ({type(error).__name__}: {error}); call network.eval() before it "
            f"predicts."
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
    """Set evaluation mode for a while; for networks that nobody else runs meanwhile.

    Each module comes back in the mode that it had.
    """
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
