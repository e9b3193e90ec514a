"""Networks that remember their constructor arguments, which are saved with a model."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from torch import nn

_ATTRIBUTE = "_made_by"


def remember_arguments(network: type[nn.Module]) -> None:
    """Let the instances of a network class remember their constructor arguments.

    Copies and pickles of a network keep the arguments. Instances of subclasses do not remember
    any.

    Parameters
    ----------
    network : subclass of nn.Module
    """
    begin = network.__init__

    @functools.wraps(begin)
    def __init__(self: nn.Module, *arguments: Any, **options: Any) -> None:  # noqa: N807
        begin(self, *arguments, **options)
        if type(self) is network:
            # Not through nn.Module.__setattr__, which would register modules among them.
            vars(self)[_ATTRIBUTE] = (arguments, options)

    network.__init__ = __init__


def remembered_arguments(module: nn.Module) -> dict[str, Any] | None:
    """Return a network's constructor arguments by name; None if it does not remember them."""
    if _ATTRIBUTE not in vars(module):
        return None
    arguments, options = vars(module)[_ATTRIBUTE]
    bound = inspect.signature(type(module)).bind(*arguments, **options)
    return dict(bound.arguments)
