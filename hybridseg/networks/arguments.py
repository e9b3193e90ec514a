"""Networks that remember the arguments they were made with, which a file then holds."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from torch import nn

_ATTRIBUTE = "_made_by"


def remember_arguments(network: type[nn.Module]) -> None:
    """Let the networks of a class remember the arguments they are made with.

    They travel with copies and pickles of a network. Networks of derived classes keep none.

    Parameters
    ----------
    network : subclass of nn.Module
    """
    begin = network.__init__

    @functools.wraps(begin)
    def __init__(self: nn.Module, *arguments: Any, **options: Any) -> None:  # noqa: N807
        begin(self, *arguments, **options)
        if type(self) is network:
            vars(self)[_ATTRIBUTE] = (arguments, options)  # no part: not as modules are set

    network.__init__ = __init__


def remembered_arguments(module: nn.Module) -> dict[str, Any] | None:
    """The arguments that a network was made with, by name; None where it does not remember them."""
    if _ATTRIBUTE not in vars(module):
        return None
    arguments, options = vars(module)[_ATTRIBUTE]
    bound = inspect.signature(type(module)).bind(*arguments, **options)
    return dict(bound.arguments)
