"""What a setting is, in words that another process finds, too."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: Before every checksum, which says nothing to people.
CHECKSUM = "#"

_PLAIN = (str, bytes, bool, int, float, complex, type(None))


def described(value: Any) -> str:
    """Say what a value is: equal values in equal words, others in others.

    Networks and losses are told by their class, their hyperparameters and their weights.
    """
    return _described(value, ())


def digest(module: nn.Module) -> str:
    """A short name for a module's weights."""
    found = hashlib.sha256()
    for name, value in module.state_dict().items():
        found.update(name.encode())
        if isinstance(value, Tensor):
            found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        else:  # of get_extra_state
            found.update(described(value).encode())
    return CHECKSUM + found.hexdigest()[:16]


def _described(value: Any, holders: tuple[int, ...]) -> str:
    """A description; ``holders`` are the objects that this one is described for."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, _PLAIN):
        return repr(value)
    if id(value) in holders:
        return "itself"
    inner = (*holders, id(value))
    if isinstance(value, nn.Module):
        return _module(value, inner)
    if isinstance(value, np.ndarray | Tensor):
        return _array(value, inner)
    if isinstance(value, Mapping):
        return _named(value, inner, "{}")
    if isinstance(value, list | tuple):
        return f"[{', '.join(_described(part, inner) for part in value)}]"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(_described(part, inner) for part in value))}}}"
    if isinstance(value, functools.partial):
        return _described(["partial", value.func, value.args, value.keywords], inner)
    if hasattr(value, "__qualname__"):
        return f"{getattr(value, '__module__', None)}.{value.__qualname__}"
    plain: Any = object.__repr__
    if type(value).__repr__ is plain and hasattr(value, "__dict__"):
        return _name(value) + _named(vars(value), inner, "()")
    return re.sub(r" at 0x[0-9a-f]+", "", repr(value))  # addresses differ between processes


def _module(module: nn.Module, holders: tuple[int, ...]) -> str:
    """A loss in full; of a module with weights, which may have many parts, a checksum of that."""
    own = {name: part for name, part in vars(module).items() if not name.startswith("_")}
    del own["training"]
    words = _name(module) + _named(own | dict(module.named_children()), holders, "()")
    if not module.state_dict():
        return words
    whole = hashlib.sha256(f"{words} {digest(module)}".encode())
    return f"{_name(module)}{CHECKSUM}{whole.hexdigest()[:16]}"


def _array(values: np.ndarray | Tensor, holders: tuple[int, ...]) -> str:
    array = values.detach().cpu().numpy() if isinstance(values, Tensor) else values
    if array.size <= 100 or array.dtype.hasobject:
        return _described(array.tolist(), holders)
    whole = hashlib.sha256(array.tobytes())
    return f"{array.dtype} {array.shape} {CHECKSUM}{whole.hexdigest()[:16]}"


def _named(parts: Mapping[Any, Any], holders: tuple[int, ...], brackets: str) -> str:
    described_parts = (f"{name}={_described(part, holders)}" for name, part in parts.items())
    return f"{brackets[0]}{', '.join(sorted(described_parts))}{brackets[1]}"


def _name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
